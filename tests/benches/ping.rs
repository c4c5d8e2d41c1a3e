//! `exec '*' ping` as a whole command over 1, 10 and 100 local sessions, and the memory of one agent.
//!
//! Absolute times mean little: each line also says how many times longer it took than starting the program alone.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aot_tests::rig::{Rig, master_program};

/// Agents of the largest round.
const AGENTS: usize = 100;

/// Commands whose median is taken.
const ROUNDS: usize = 21;

fn main() {
    let rig = Rig::local();
    rig.bundle("stage", "true");
    let path = rig.cluster(&format!(
        "cluster: bench\nprovider: local\npools:\n  - {{name: n, size: {AGENTS}, bootstrap_sequence: [{{dir: stage}}]}}\n"
    ));
    let started = Instant::now();
    let launch = rig.cli_within(
        ["launch", &path.display().to_string()],
        Duration::from_secs(300),
    );
    assert_eq!(launch.code, 0, "{}", launch.stderr);
    println!(
        "launch of {AGENTS} clones with one stage: {:.1} s",
        started.elapsed().as_secs_f64()
    );
    let alone = median(|| run(Command::new(master_program()).arg("--version")));
    println!("the program alone (--version): {:.2} ms", alone * 1e3);
    for (count, target) in [
        (1, "n1".to_owned()),
        (10, names(10)),
        (AGENTS, "*".to_owned()),
    ] {
        let time = median(|| run(&mut rig.command(["exec", &target, "ping"])));
        println!(
            "exec ping of {count:>3}: {:.2} ms, {:.1} x the program alone",
            time * 1e3,
            time / alone
        );
    }
    let time = median(|| run(&mut rig.command(["exec", "*", "--", "true"])));
    println!("exec -- true of {AGENTS}: {:.1} ms", time * 1e3);
    let pss = agents_pss_kib();
    let (sum, count) = (pss.iter().sum::<u64>(), pss.len() as u64);
    println!(
        "memory of an agent (PSS, {count} of them): mean {:.2} MiB, most {:.2} MiB",
        (sum / count.max(1)) as f64 / 1024.0,
        pss.iter().max().copied().unwrap_or(0) as f64 / 1024.0
    );
}

fn names(count: usize) -> String {
    (1..=count)
        .map(|n| format!("n{n}"))
        .collect::<Vec<_>>()
        .join(",")
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

fn median(mut time: impl FnMut() -> f64) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| time()).collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
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
