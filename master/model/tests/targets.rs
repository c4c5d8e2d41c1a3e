//! How long the worst targets take. Not beside the parser: what decides reads no clock.

use std::collections::BTreeMap;

use aot_model::selector::{Subject, parse};

/// Longest that reading a text of the largest size, or asking what it means, may take in a debug build on a busy machine.
const SOON: std::time::Duration = std::time::Duration::from_secs(60);

#[test]
fn the_worst_texts_are_read_soon() {
    let none = BTreeMap::new();
    let tags = BTreeMap::new();
    let name = "a".repeat(63);
    let subject = Subject {
        name: &name,
        pool: None,
        state: "",
        phase: "",
        tags: &tags,
        attested: None,
        claimed: None,
    };
    let full = 1 << 20;
    let worst = [
        "{".repeat(full),
        "[".repeat(full),
        "{a,".repeat(full / 3),
        "{a,b}".repeat(full / 5),
        "{a,b}{".repeat(full / 6),
        "*a".repeat(full / 2),
        "*".repeat(full),
        "not ".repeat(full / 4),
        "((".repeat(full / 2),
        "fact:a~(".repeat(full / 8),
        format!("re:{}", "(a{1000}){1000}".repeat(60)),
        format!("re:{}", "a*".repeat(full / 2 - 2)),
        format!("\"{}", "\\\"".repeat(full / 2 - 1)),
        format!("name:{}", "\\a".repeat(full / 2 - 3)),
        ",".repeat(full),
    ];
    for text in worst {
        let start = std::time::Instant::now();
        if let Ok(target) = parse(&text, &none) {
            let _ = (target.matches(&subject), target.to_string());
        }
        let took = start.elapsed();
        let beginning: String = text.chars().take(20).collect();
        assert!(took < SOON, "{beginning}: {took:?}");
    }
}
