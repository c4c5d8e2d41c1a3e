//! Keeps the names of the code apart: a type name means one thing, and no function is named by a word of many meanings.
//! What only tests use is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Types that are defined in several places on purpose: the name, each place, and why.
const SAME_NAME: [(&str, &[&str], &str); 7] = [
    (
        "Closed",
        &[
            "agent/src/session/protocol/events.rs",
            "master/daemon/src/session/closed.rs",
        ],
        "why a session is over, on either side of the wire",
    ),
    (
        "Protocol",
        &[
            "agent/src/session/protocol.rs",
            "master/daemon/src/session/protocol.rs",
        ],
        "the state of one session, on either side of the wire",
    ),
    (
        "Run",
        &["agent/src/runner/run.rs", "master/model/src/run.rs"],
        "one start of one process, as each side knows it",
    ),
    (
        "Secret",
        &["agent/src/config.rs", "master/model/src/attestation.rs"],
        "a text that is never printed; nothing is shared between agent and master but the wire",
    ),
    (
        "Session",
        &[
            "agent/src/session/mod.rs",
            "master/daemon/src/session/stream.rs",
        ],
        "one stream between an agent and its master, on either side of the wire",
    ),
    (
        "SessionInput",
        &[
            "agent/src/session/protocol/events.rs",
            "master/daemon/src/session/protocol.rs",
        ],
        "what a session's `Protocol` decides on",
    ),
    (
        "SessionOutput",
        &[
            "agent/src/session/protocol/events.rs",
            "master/daemon/src/session/protocol.rs",
        ],
        "what a session's `Protocol` wants to be done",
    ),
];

/// The one name that every module may have: CONTRIBUTING.md asks for one enum of errors per module.
const ERRORS: &str = "Error";

/// Names of functions that each stood for several things; CONTRIBUTING.md has the verbs instead.
const VAGUE: [&str; 12] = [
    "settle", "look", "tell", "told", "watch", "news", "word", "wish", "whole", "ground", "shelf",
    "aside",
];

/// How no name of a function begins.
const VAGUE_BEGINNINGS: [&str; 4] = ["settle_", "look_", "tell_", "watch_"];

/// Functions whose name is another's choice: the name, its file, and whose.
const NAMED_BY_OTHERS: [(&str, &str, &str); 1] = [(
    "watch",
    "master/daemon/src/server/operator_api/service.rs",
    "the call `Watch` of operator.proto, which programs of operators know",
)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a file has before its inline tests.
fn shipped(text: &str) -> &str {
    match text.find("#[cfg(test)]\nmod tests {") {
        Some(end) => &text[..end],
        None => text,
    }
}

/// Shipped sources by their path below the root: no tests, no fakes.
fn sources() -> BTreeMap<String, String> {
    fn walk(dir: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_left_out =
                ["tests", "benches", "target", "fake"].contains(&name.trim_end_matches(".rs"));
            if is_left_out {
                continue;
            }
            if path.is_dir() {
                walk(&path, found);
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).expect("reads");
                let inside = path.strip_prefix(root()).expect("below the root");
                let inside = inside.to_string_lossy().into_owned();
                found.insert(inside, shipped(&text).to_owned());
            }
        }
    }
    let mut found = BTreeMap::new();
    for top in ["proto", "master", "agent"] {
        walk(&root().join(top), &mut found);
    }
    found
}

/// The identifier at the begin of a text.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    &text[..end.unwrap_or(text.len())]
}

/// A line without the visibility of what it defines.
fn without_visibility(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("pub") else {
        return line;
    };
    match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, rest)) => rest.trim_start(),
        None => rest.trim_start(),
    }
}

/// The types that a text defines; associated types are not types of their own.
fn types(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| {
            let is_inner = line.starts_with(' ');
            let (keyword, rest) = without_visibility(line.trim_start()).split_once(' ')?;
            let defines = match keyword {
                "struct" | "enum" | "trait" | "union" => true,
                "type" => !is_inner,
                _ => false,
            };
            let name = identifier(rest);
            (defines && name.starts_with(char::is_uppercase)).then_some(name)
        })
        .collect()
}

/// The functions that a text defines.
fn functions(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
        .filter_map(|line| {
            let (before, after) = line.split_once("fn ")?;
            let is_keyword = before.is_empty() || before.ends_with(' ');
            let name = identifier(after);
            (is_keyword && !name.is_empty()).then_some(name)
        })
        .collect()
}

/// Type names that more than one place defines, each with its places in order.
fn several(sources: &BTreeMap<String, String>) -> BTreeMap<&str, Vec<&str>> {
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (path, text) in sources {
        for name in types(text) {
            places.entry(name).or_default().push(path);
        }
    }
    places.retain(|name, places| places.len() > 1 && *name != ERRORS);
    places
}

fn is_vague(name: &str) -> bool {
    VAGUE.contains(&name)
        || VAGUE_BEGINNINGS
            .iter()
            .any(|beginning| name.starts_with(beginning))
}

#[test]
fn a_type_name_means_one_thing() {
    let sources = sources();
    assert!(sources.len() > 300, "{} files", sources.len());
    let known: BTreeMap<&str, Vec<&str>> = SAME_NAME
        .iter()
        .map(|(name, places, _)| (*name, places.to_vec()))
        .collect();
    let found = several(&sources);
    let wrong: Vec<_> = found
        .iter()
        .filter(|(name, places)| known.get(*name) != Some(places))
        .collect();
    assert!(
        wrong.is_empty(),
        "these mean several things, call each by what it is: {wrong:#?}"
    );
    for name in known.keys() {
        assert!(found.contains_key(name), "{name} needs no exception");
    }
}

#[test]
fn no_function_is_named_by_a_word_of_many_meanings() {
    let mut exceptions = 0;
    for (path, text) in sources() {
        for name in functions(&text).into_iter().filter(|name| is_vague(name)) {
            let is_known = NAMED_BY_OTHERS
                .iter()
                .any(|(known, place, _)| *known == name && *place == path);
            assert!(
                is_known,
                "{path}: fn {name}: the verbs are in CONTRIBUTING.md"
            );
            exceptions += 1;
        }
    }
    assert_eq!(exceptions, NAMED_BY_OTHERS.len());
}

#[test]
fn a_name_of_two_meanings_would_be_found() {
    let text = |text: &str| shipped(text).to_owned();
    let sources = BTreeMap::from([
        (
            "a.rs".to_owned(),
            text("pub(crate) struct Place<T> {\n    of: Other,\n}\nenum Error {}\n"),
        ),
        (
            "b.rs".to_owned(),
            text("mod inner {\n    pub type Not = u8;\n    pub enum Place {}\n}\nenum Error {}\n"),
        ),
        (
            "c.rs".to_owned(),
            text("type Not = u8;\n#[cfg(test)]\nmod tests {\n    struct Place;\n}\n"),
        ),
    ]);
    let found = several(&sources);
    assert_eq!(found, BTreeMap::from([("Place", vec!["a.rs", "b.rs"])]));
    let code = "// fn told()\npub(super) async fn look_again(&self) {\nconst fn wanted() {}\nfn tell<T>(it: fn(T)) {";
    let names = functions(code);
    assert_eq!(names, ["look_again", "wanted", "tell"]);
    let vague: Vec<_> = names.into_iter().filter(|name| is_vague(name)).collect();
    assert_eq!(vague, ["look_again", "tell"]);
}
