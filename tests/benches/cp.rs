//! A file of 100 MB to 10 clones of this machine, beside one TLS copy of as much in all: from the start of the command
//! until all have its archive whole and verified (unpacking is not counted), and to the command's end. Reading, hashing and
//! writing on one disk that both sides share are in both.
//!
//! `AOT_BENCH_TARGETS` and `AOT_BENCH_MB` change the size; `TMPDIR` says on which disk it is kept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aot_archive::Digest;
use aot_tests::bench::copy::{cpu_of, disk_rate, show_bound, shown_tls_copy};
use aot_tests::bench::figures::{at_least, number, seconds};
use aot_tests::bench::roles::played;
use aot_tests::rig::Rig;
use aot_tests::wait;

const LONGEST: Duration = Duration::from_secs(300);

fn main() {
    if played() {
        return;
    }
    let (targets, megabytes) = (number("AOT_BENCH_TARGETS", 10), number("AOT_BENCH_MB", 100));
    let total = (targets * megabytes) as u64 * 1_000_000;
    let tls = shown_tls_copy(total);
    let rate = |seconds: f64| total as f64 / seconds / 1e6;
    let rig = Rig::local();
    println!(
        "the disk takes {:.0} MB/s of what is synced",
        disk_rate(rig.dir(), 256 << 20) / 1e6
    );
    rig.cluster(&format!(
        "cluster: bench\nprovider: local\npools: [{{name: n, size: {targets}}}]\n"
    ));
    rig.cli_within(LONGEST, ["launch", "cluster.yml"]).expect(0);
    let bytes: Vec<u8> = (0..megabytes * 1_000_000)
        .map(|at| (at % 251) as u8)
        .collect();
    std::fs::write(rig.dir().join("big"), &bytes).expect("writes the file");
    let runs: Vec<PathBuf> = rig.machines().iter().map(|m| runs_of(&m.dir)).collect();
    let started = Instant::now();
    let fetched = thread::spawn(move || all_fetched(&runs).duration_since(started));
    rig.cli_within(LONGEST, ["cp", "big", "*:/root/big"])
        .expect(0);
    let time = started.elapsed().as_secs_f64();
    let fetched = fetched.join().expect("every archive comes").as_secs_f64();
    let mut sum = Digest::default();
    sum.update(&bytes);
    let sum = sum.hex();
    let seen = rig.cli_within(
        LONGEST,
        ["exec", "*", "--json", "--", "sha256sum", "/root/big"],
    );
    seen.expect(0);
    let whole = seen.text().matches(&sum).count();
    assert_eq!(whole, targets, "targets that have it whole");
    println!(
        "{megabytes} MB to {targets}: all fetched after {fetched:.2} s, {:.0} MB/s; unpacked after {time:.2} s, {:.0} MB/s",
        rate(fetched),
        rate(time)
    );
    let hashing = seconds(|| {
        let mut sums = Digest::default();
        (0..targets).for_each(|_| sums.update(&bytes));
    });
    let line = format!("for i in $(seq {targets}); do cat big >copy; rm copy; done");
    let files = cpu_of(rig.dir(), &line);
    show_bound(tls, hashing + files, "reading, hashing and writing");
    at_least(
        "cp beside the TLS copy, without unpacking",
        tls / fetched * 100.0,
        50.0,
        "%",
    );
}

/// Where a clone's agent keeps its runs, seen from outside.
fn runs_of(machine: &Path) -> PathBuf {
    let mut folders = vec![machine.join("disk")];
    while let Some(folder) = folders.pop() {
        if folder.ends_with("aot/runs") {
            return folder;
        }
        folders.extend(entries(&folder).into_iter().filter(|path| path.is_dir()));
    }
    panic!("no runs below {}", machine.display());
}

/// What is in a folder now; nothing when it is gone.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// When each has had an archive that was verified: only then it has its name, a SHA-256.
fn all_fetched(runs: &[PathBuf]) -> Instant {
    let mut open: BTreeSet<&PathBuf> = runs.iter().collect();
    let has_it = |runs: &&PathBuf| {
        let fetched = entries(runs)
            .into_iter()
            .flat_map(|run| entries(&run.join("fetched")));
        fetched
            .filter_map(|path| path.file_name()?.to_str().map(str::len))
            .any(|name_len| name_len == 64)
    };
    wait::until(
        || {
            open.retain(|runs| !has_it(runs));
            open.is_empty()
        },
        LONGEST,
        "all archives have come",
    );
    Instant::now()
}
