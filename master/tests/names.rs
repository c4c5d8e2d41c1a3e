//! What is printed as names is read back as exactly these names.

use std::collections::{BTreeMap, BTreeSet};

use aot_cli::view::ranges;
use aot_model::selector::{Subject, parse};
use proptest::prelude::*;

/// Those of `all` that an expression means.
fn meant<'a>(text: &str, all: impl IntoIterator<Item = &'a String>) -> BTreeSet<String> {
    let tags = BTreeMap::new();
    let target = parse(text, &BTreeMap::new()).unwrap_or_else(|error| panic!("{text}: {error}"));
    let is_meant = |name: &&String| {
        target.matches(&Subject {
            name,
            pool: None,
            state: "running",
            phase: "ready",
            tags: &tags,
            attested: None,
            claimed: None,
        })
    };
    all.into_iter().filter(is_meant).cloned().collect()
}

/// Every name that could be mistaken for one of those: with more, fewer and other digits.
fn neighbours(names: &BTreeSet<String>) -> BTreeSet<String> {
    let mut all = names.clone();
    for name in names {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[stem.len()..];
        all.insert(stem.to_owned());
        all.extend((0..=9).map(|digit| format!("{stem}{digit}")));
        all.extend((0..=9).map(|digit| format!("{stem}{digits}{digit}")));
        all.insert(format!("{stem}0{digits}"));
        all.insert(format!("{stem}00{digits}"));
        all.insert(format!("{stem}{}", digits.trim_start_matches('0')));
        if let Ok(number) = digits.parse::<u64>() {
            all.extend([number.saturating_sub(1), number + 1].map(|next| format!("{stem}{next}")));
        }
    }
    all
}

proptest! {
    #[test]
    fn what_is_printed_as_names_is_read_back_as_exactly_these(
        names in prop::collection::btree_set("(a|b-|web|n2x)(0{0,2}[1-9][0-9]{0,2}|0|)", 1..16)
    ) {
        let names: BTreeSet<String> = names.into_iter().filter(|name| !name.ends_with('-')).collect();
        prop_assume!(!names.is_empty());
        let text = ranges(names.iter().map(String::as_str));
        prop_assert_eq!(meant(&text, &neighbours(&names)), names, "{}", text);
    }
}

#[test]
fn a_long_run_of_names_is_read_back() {
    let names: BTreeSet<String> = (1..=10_000).map(|n| format!("node{n}")).collect();
    let text = ranges(names.iter().map(String::as_str));
    assert_eq!(text, "node[1-10000]");
    assert_eq!(meant(&text, &neighbours(&names)), names);
}
