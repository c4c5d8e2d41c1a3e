//! `exec '*' -- true` on 50 local agents, beside a shell that starts 50 processes itself.
//!
//! All agents keep their runs on one disk here. Where that is ext4 without a journal, new files are slow to make for five
//! minutes after many were removed: the end of another bench, say.

use std::process::{Command, Stdio};
use std::time::Duration;

use aot_tests::bench::figures::{at_most, median, number, seconds};
use aot_tests::rig::Rig;

/// Commands whose median is taken.
const ROUNDS: usize = 15;

fn main() {
    let agents = number("AOT_BENCH_AGENTS", 50);
    let rig = Rig::local();
    rig.cluster(&format!(
        "cluster: bench\nprovider: local\npools: [{{name: n, size: {agents}}}]\n"
    ));
    let launch = rig.cli_within(Duration::from_secs(300), ["launch", "cluster.yml"]);
    launch.expect(0);
    let line = format!("for i in $(seq {agents}); do /bin/true; done");
    let shell = median(ROUNDS, || run(Command::new("sh").args(["-c", &line])));
    println!(
        "a shell that starts {agents} times /bin/true: {:.2} ms",
        shell * 1e3
    );
    let time = median(ROUNDS, || {
        run(&mut rig.command(["exec", "*", "--", "/bin/true"]))
    });
    println!(
        "exec '*' -- /bin/true: {:.2} ms, {:.2} ms a target",
        time * 1e3,
        time * 1e3 / agents as f64
    );
    at_most(
        "exec of true on all, times the shell's loop",
        time / shell,
        2.0,
        "x",
    );
}

fn run(command: &mut Command) -> f64 {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    seconds(|| {
        let status = command.status().expect("starts");
        assert!(status.success(), "{command:?}: {status}");
    })
}
