//! Plays the seeds of every fuzz target through the functions that `tests/fuzz.sh` drives, so that neither seeds nor
//! functions rot; and once more cut short and with a byte turned, as a taste of what the fuzzer does.

use std::fs;
use std::path::Path;

use aot_readers::{master, wire};

fn entries() -> impl Iterator<Item = (&'static str, wire::Entry)> {
    wire::TARGETS.into_iter().chain(master::TARGETS)
}

#[test]
fn every_seed_is_read_or_refused() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (name, entry) in entries() {
        let mut played = 0;
        let files =
            fs::read_dir(seeds.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        for file in files.flatten() {
            let bytes = fs::read(file.path()).expect("a seed");
            entry(&bytes);
            for at in (0..bytes.len()).step_by(bytes.len() / 16 + 1) {
                entry(&bytes[..at]);
                let mut turned = bytes.clone();
                turned[at] ^= 1 << (at % 8);
                entry(&turned);
            }
            played += 1;
        }
        assert!(played > 0, "{name} has no seeds");
    }
}

#[test]
fn every_target_has_its_seeds_and_its_program() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let names = |dir: &str| {
        let mut names: Vec<String> = fs::read_dir(fuzz.join(dir))
            .expect("a folder")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().replace(".rs", ""))
            .collect();
        names.sort();
        names
    };
    let mut targets: Vec<&str> = entries().map(|(name, _)| name).collect();
    targets.sort_unstable();
    assert_eq!(names("seeds"), targets);
    assert_eq!(names("targets"), targets);
}
