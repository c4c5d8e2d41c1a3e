//! Waits of the end-to-end tests end with what they wait for, so their limits cost nothing: none is so short that a machine
//! which is slow, or stands still for some seconds, would be taken for a fault.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// In seconds.
const LEAST: u64 = 60;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(dir).expect("a folder of sources");
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The numbers of seconds that a text writes out and that are less than those.
fn short(text: &str) -> Vec<u64> {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let numbers = code.flat_map(|line| line.split("from_secs(").skip(1));
    let numbers = numbers.filter_map(|rest| rest.split(')').next()?.parse().ok());
    numbers.filter(|seconds| *seconds < LEAST).collect()
}

#[test]
fn no_limit_of_a_wait_is_short() {
    // What measures a time, or lets it pass.
    let allowed = BTreeMap::from([
        ("src/bench/joining/member.rs", &[1][..]),
        ("src/fleet/simulated/agent.rs", &[30]),
        ("src/rig.rs", &[2]),
        ("tests/alone/ec2_scale.rs", &[8]),
        ("tests/alone/fleet_chaos/faults.rs", &[30]),
        ("tests/alone/fleet_sessions.rs", &[10, 5, 30, 15]),
        ("tests/alone/liar_shut_out.rs", &[15]),
        ("tests/alone/liar_words.rs", &[30]),
        ("tests/alone/starve.rs", &[30, 4, 5]),
        ("tests/alone/timed.rs", &[5, 10, 1]),
        ("tests/ec2/faults.rs", &[20, 10]),
        ("tests/ec2/rolling.rs", &[15]),
        ("tests/ec2/taken_over.rs", &[45]),
        ("tests/local/jobs.rs", &[2]),
        ("tests/local/records.rs", &[30]),
    ]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    sources(&root.join("tests"), &mut files);
    assert!(files.len() > 50, "the tests were not found");
    let mut found = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("reads");
        let seconds = short(&text);
        let name = file.strip_prefix(&root).expect("it is below");
        if !seconds.is_empty() {
            found.insert(name.display().to_string(), seconds);
        }
    }
    let allowed: BTreeMap<String, Vec<u64>> = allowed
        .into_iter()
        .map(|(name, seconds)| (name.to_owned(), seconds.to_vec()))
        .collect();
    assert_eq!(found, allowed, "a limit costs nothing when it is long");
}

#[test]
fn a_short_limit_is_found() {
    let text = "const SOON: Duration = Duration::from_secs(5);\n// from_secs(6)\nf(Duration::from_secs(60));";
    assert_eq!(short(text), [5]);
}
