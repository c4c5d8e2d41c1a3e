//! What records hold, beside the level that says so: a master of before drops what it does not know.

use std::path::{Path, PathBuf};

use aot_model::level::LEVEL;

/// What to do about a difference; stands in the snapshot.
const RULE: &str = "What records hold at this level. A field or kind that must not be lost raises `LEVEL` and is an `Addition` \
    (src/level.rs): then this snapshot stays, and there is one of the next level. One that a master of before may drop is accepted here.";

/// Sources of the crate without tests and samples, by their path.
fn sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() && name != "tests" {
                walk(&path, found);
            } else if name.ends_with(".rs") && name != "tests.rs" && name != "samples.rs" {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&src, &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("reads");
        let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
        let inside = path.strip_prefix(&src).expect("below it");
        (inside.display().to_string(), text[..end].to_owned())
    };
    found.into_iter().map(read).collect()
}

/// A line without its comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default().trim_end()
}

/// Attributes and definitions of a text, each as the lines that it has: what is formatted begins at the margin and ends there.
fn items(text: &str) -> Vec<Vec<&str>> {
    let mut items: Vec<Vec<&str>> = Vec::new();
    let lines = text.lines().map(code);
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let is_inner = line.starts_with([' ', '}', ')', ']']);
        match items.last_mut().filter(|_| is_inner) {
            Some(item) => item.push(line),
            None => items.push(vec![line]),
        }
    }
    items
}

/// The shapes in a text: definitions that serde reads or writes, with what they say to it.
fn shapes(text: &str) -> Vec<String> {
    let (mut found, mut is_record, mut said) = (Vec::new(), false, Vec::new());
    for item in items(text) {
        let first = item[0];
        if first.starts_with("#[") {
            let whole = item.join(" ");
            is_record |= whole.contains("derive(")
                && (whole.contains("Serialize") || whole.contains("Deserialize"));
            said.extend(whole.starts_with("#[serde").then_some(whole));
            continue;
        }
        let by_hand = first.starts_with("impl")
            && (first.contains("Serialize for ") || first.contains("Deserialize<'de> for "));
        match (by_hand, std::mem::take(&mut is_record)) {
            (true, _) => found.push(first.trim_end_matches(" {").to_owned()),
            (false, true) => {
                let lines = said.iter().map(String::as_str).chain(item);
                found.push(lines.collect::<Vec<_>>().join("\n"));
            }
            (false, false) => {}
        }
        said.clear();
    }
    found
}

#[test]
fn what_records_hold_is_known_at_this_level() {
    let mut all = String::new();
    for (path, text) in sources() {
        let shapes = shapes(&text);
        if !shapes.is_empty() {
            all.push_str(&format!("// {path}\n{}\n\n", shapes.join("\n")));
        }
    }
    insta::with_settings!({ description => RULE, omit_expression => true }, {
        insta::assert_snapshot!(format!("level_{LEVEL}"), all.trim_end());
    });
}

#[test]
fn a_shape_is_found_with_what_serde_is_told() {
    let text = "/// A doc.\n#[derive(\n    Debug,\n    Serialize,\n)]\n#[serde(rename_all = \"lowercase\")]\npub enum E {\n    /// One.\n    A, // first\n    B {\n        c: u8,\n    },\n}\n\
        pub struct Not {\n    d: u8,\n}\n#[derive(Serialize)]\npub struct T(Vec<u8>);\nimpl Serialize for M {\n    fn f() {}\n}\n";
    let found = shapes(text);
    assert_eq!(
        found,
        [
            "#[serde(rename_all = \"lowercase\")]\npub enum E {\n    A,\n    B {\n        c: u8,\n    },\n}",
            "pub struct T(Vec<u8>);",
            "impl Serialize for M",
        ]
    );
}
