//! Damaged text never makes the reader panic.

use super::*;

fn damaged() -> impl Strategy<Value = String> {
    let place = (
        0..GOOD.len(),
        0..40usize,
        "[-{}\\[\\]:,&*!|>'\"%@ \n\ta-z0-9$é]{0,6}",
    );
    prop::collection::vec(place, 1..4).prop_map(|changes| {
        let mut text = GOOD.to_owned();
        for (at, len, new) in changes {
            let at = at.min(text.len());
            let end = (at + len).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, &new);
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_it_panic(text in ".*") {
        let read = parse(&text).map_err(|report| report.render(false));
        prop_assert!(read.is_err(), "a cluster by accident: {text:?}");
    }

    #[test]
    fn no_damage_makes_it_panic(text in damaged()) {
        match parse(&text) {
            Ok(parsed) => prop_assert!(parsed.spec.instances().count() <= MAX_INSTANCES),
            Err(report) => prop_assert!(!report.render(true).is_empty() && !report.problems().is_empty()),
        }
    }
}
