//! A file of 100 MB to 10 clones of this machine, as a whole command, beside one TLS copy of as much in all. It includes
//! what the goal leaves out: reading, hashing and unpacking, on one disk that both sides share.
//!
//! `AOT_BENCH_TARGETS` and `AOT_BENCH_MB` change the size; `TMPDIR` says on which disk it is kept.

use std::time::{Duration, Instant};

use aot_proto::archive::Digest;
use aot_tests::bench::copy::{disk_rate, shown_tls_copy};
use aot_tests::bench::figures::{at_least, number};
use aot_tests::bench::program::played;
use aot_tests::rig::Rig;

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
    let started = Instant::now();
    rig.cli_within(LONGEST, ["cp", "big", "*:/root/big"])
        .expect(0);
    let time = started.elapsed().as_secs_f64();
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
        "{megabytes} MB to {targets}: {time:.2} s, {:.0} MB/s, whole",
        rate(time)
    );
    at_least("cp beside the TLS copy", tls / time * 100.0, 50.0, "%");
}
