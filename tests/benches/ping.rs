//! `exec '*' ping` as a whole command over 1, 10, 50 and 100 local agents, beside a bare program of tonic and mTLS that
//! asks as many streams, and where the time goes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aot_tests::bench::bare::Bare;
use aot_tests::bench::figures::{at_least, at_most, cpu_seconds, median, quantile};
use aot_tests::bench::operator::Operator;
use aot_tests::bench::roles::played;
use aot_tests::rig::{Rig, master_program};

/// Agents of the largest round.
const AGENTS: usize = 100;

/// Commands whose median is taken.
const ROUNDS: usize = 21;

/// Seconds of the peers' pings as whole commands, by the number of machines, on a machine like ours of two cores: Salt
/// 3008.3 and ansible-core 2.21.5 (warm, pipelining), ClusterShell 1.10 over ssh connections kept open.
const PEERS: [(usize, &str, f64); 7] = [
    (10, "Salt", 0.93),
    (10, "Ansible", 1.6),
    (50, "Salt", 3.2),
    (50, "Ansible", 6.7),
    (50, "ClusterShell", 0.36),
    (100, "Salt", 7.3),
    (100, "ClusterShell", 0.64),
];

fn main() {
    if played() {
        return;
    }
    let mut bare = Bare::start(AGENTS);
    let bare_time = median(ROUNDS, || bare.round());
    println!(
        "bare tonic and mTLS, {AGENTS} streams: {:.2} ms",
        bare_time * 1e3
    );

    let rig = Rig::local();
    rig.bundle("stage", "true");
    let path = rig.cluster(&format!(
        "cluster: bench\nprovider: local\npools:\n  - {{name: n, size: {AGENTS}, bootstrap_sequence: [{{dir: stage}}]}}\n"
    ));
    let started = Instant::now();
    let launch = rig.cli_within(
        Duration::from_secs(300),
        ["launch", &path.display().to_string()],
    );
    assert_eq!(launch.code, Some(0), "{}", launch.stderr);
    println!(
        "launch of {AGENTS} clones with one stage: {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let alone = median(ROUNDS, || {
        run(Command::new(master_program()).arg("--version"))
    });
    println!("the program alone (--version): {:.2} ms", alone * 1e3);
    for count in [1, 10, 50, AGENTS] {
        let whole = median(ROUNDS, || {
            run(&mut rig.command(["exec", &names(count), "ping"]))
        });
        println!(
            "exec ping of {count:>3}: {:.2} ms, {:.1} x the program alone",
            whole * 1e3,
            whole / alone
        );
        for (_, peer, seconds) in PEERS.iter().filter(|peer| peer.0 == count) {
            at_least(
                &format!("times faster than {peer}"),
                seconds / whole,
                if *peer == "ClusterShell" { 18.0 } else { 50.0 },
                "x",
            );
        }
    }
    // Once more, in turns: what else this machine does counts for both.
    let mut bares = Vec::new();
    let mut wholes: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            bares.push(bare.round());
            run(&mut rig.command(["exec", "*", "ping"]))
        })
        .collect();
    let (bare_time, whole) = (quantile(&mut bares, 0.5), quantile(&mut wholes, 0.5));
    drop(bare);
    at_most(
        "exec '*' ping of 100, whole command",
        whole * 1e3,
        bare_time * 2e3 + 5.0,
        "ms",
    );
    split(&rig, whole, alone);
    let time = median(
        ROUNDS,
        || run(&mut rig.command(["exec", "*", "--", "true"])),
    );
    println!("exec -- true of {AGENTS}: {:.1} ms", time * 1e3);
    let pss = agents_pss_kib();
    let (sum, count) = (pss.iter().sum::<u64>(), pss.len() as u64);
    println!(
        "memory of an agent (PSS, {count} of them): mean {:.2} MiB, most {:.2} MiB",
        (sum / count.max(1)) as f64 / 1024.0,
        pss.iter().max().copied().unwrap_or(0) as f64 / 1024.0
    );
}

/// Where the time of one command goes.
fn split(rig: &Rig, whole: f64, alone: f64) {
    let mut operator = Operator::connect(&rig.socket());
    let one = median(ROUNDS, || operator.ping("n1"));
    let master = rig.master_pid().expect("it runs");
    let before = cpu_seconds(master);
    let rounds = 10 * ROUNDS;
    let all = median(rounds, || operator.ping("*"));
    let cpu = (cpu_seconds(master) - before) / rounds as f64;
    println!(
        "  socket, one agent and back, connection open: {:.2} ms",
        one * 1e3
    );
    println!(
        "  socket, {AGENTS} agents and back, connection open: {:.2} ms",
        all * 1e3
    );
    println!("  of which the master computes: {:.2} ms", cpu * 1e3);
    println!("  start of the program: {:.2} ms", alone * 1e3);
    println!(
        "  its connection, table and end: {:.2} ms",
        (whole - all - alone) * 1e3
    );
}

fn names(count: usize) -> String {
    if count == AGENTS {
        return "*".to_owned();
    }
    let names: Vec<String> = (1..=count).map(|n| format!("n{n}")).collect();
    names.join(",")
}

fn run(command: &mut Command) -> f64 {
    let started = Instant::now();
    let status = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("starts");
    assert!(status.success(), "{command:?}: {status}");
    started.elapsed().as_secs_f64()
}

/// Proportional set size of every agent on this machine (proc(5), smaps_rollup), in KiB.
fn agents_pss_kib() -> Vec<u64> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let is_agent = |path: &std::path::Path| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words
            .first()
            .is_some_and(|name| name.ends_with(b"aot-agent"))
            && words.get(1) == Some(&&b"run"[..])
    };
    processes
        .map(|entry| entry.path())
        .filter(|path| is_agent(path))
        .filter_map(|path| std::fs::read_to_string(path.join("smaps_rollup")).ok())
        .filter_map(|text| {
            let line = text.lines().find(|line| line.starts_with("Pss:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .collect()
}
