//! Number ranges in targets beside the real ClusterShell: the same text means the same names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use aot_model::selector::{Subject, parse};
use aot_tests::python;

const VERSION: &str = "ClusterShell==1.9.3";

/// Texts that both read.
const BOTH: [&str; 18] = [
    "node1",
    "node[1-3]",
    "node[13-20]",
    "node[13]",
    "node[1-3,7]",
    "node[7,1-3,5-6]",
    "node[1-6,8-20]",
    "n[01-12]",
    "n[001-020/3]",
    "n[098-102]",
    "n[0-10/2]",
    "n[0-0]",
    "r[1-2]n[1-3]",
    "r[1-2]n[01-03]x",
    "n[1-3]-a",
    "n[1-3],web[2,4]",
    "node[1-3],node5",
    "x[1-2]y[3-4]z[5-6]",
];

/// Texts that both refuse.
const NEITHER: [&str; 5] = [
    "node[3-1]",
    "node[1-]",
    "node[1,,3]",
    "node[1-3",
    "n[01-002]",
];

/// What ClusterShell makes of each text: its names, or nothing.
fn theirs(texts: &[&str]) -> Vec<Option<BTreeSet<String>>> {
    let script = "import sys, json\nfrom ClusterShell.NodeSet import NodeSet\nout = []\nfor t in sys.argv[1:]:\n    \
                  try: out.append(list(NodeSet(t)))\n    except Exception: out.append(None)\nprint(json.dumps(out))";
    let programs = python::programs(Path::new(env!("CARGO_TARGET_TMPDIR")), VERSION);
    let output = Command::new(programs.join("python"))
        .args(["-c", script])
        .args(texts)
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Whether an expression of ours means a name.
fn means(text: &str, name: &str) -> bool {
    let tags = BTreeMap::new();
    let target = parse(text, &BTreeMap::new()).unwrap_or_else(|error| panic!("{text}: {error}"));
    target.matches(&Subject {
        name,
        pool: None,
        state: "running",
        phase: "ready",
        tags: &tags,
        attested: None,
        claimed: None,
    })
}

#[test]
fn ranges_mean_what_clustershell_says() {
    let theirs = theirs(&BOTH);
    // All names of all texts, and those that differ from them by a zero or a digit.
    let mut all: BTreeSet<String> = theirs.iter().flatten().flatten().cloned().collect();
    for name in all.clone() {
        for digit in ["0", "1", "2", "10"] {
            let place = name.find(|c: char| c.is_ascii_digit()).expect("a number");
            all.insert(format!("{}{digit}{}", &name[..place], &name[place..]));
            all.insert(format!("{name}{digit}"));
        }
    }
    for (text, names) in BOTH.iter().zip(theirs) {
        let ours: BTreeSet<String> = all
            .iter()
            .filter(|name| means(text, name))
            .cloned()
            .collect();
        assert_eq!(Some(ours), names, "{text}");
    }
}

#[test]
fn what_clustershell_refuses_is_refused() {
    for (text, names) in NEITHER.iter().zip(theirs(&NEITHER)) {
        assert_eq!(names, None, "{text}");
        assert!(parse(text, &BTreeMap::new()).is_err(), "{text}");
    }
}
