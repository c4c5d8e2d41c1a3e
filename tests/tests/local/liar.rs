//! A machine of one cluster lies in every way that the protocol has. Others must not notice, and nothing of it may reach
//! an operator's terminal, the log or the disk other than cut, cleaned and under the liar's own name.

use std::time::Duration;

use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::{ClusterFactsApplied, CopyProgress};
use aot_tests::liar::{self, Identity, Liar};
use aot_tests::rig::{Output, Rig, Running};
use aot_tests::wait;

/// Longest time until something shows.
const SOON: Duration = Duration::from_secs(120);

/// Two clusters: `evil`, whose only machine `x` lies, and `good` with `b`, which must not notice.
fn rig() -> Rig {
    let rig = Rig::local();
    for (cluster, name) in [("evil", "x"), ("good", "b")] {
        let text = format!("cluster: {cluster}\nprovider: local\ninstances: [{{name: {name}}}]\n");
        let file = rig.file(&format!("{cluster}.yml"), &text);
        let file = file.display().to_string();
        rig.cli(["launch", "--json", "--yes", &file]).expect(0);
    }
    rig
}

/// The liar in the place of `x`'s agent.
fn liar_of(rig: &Rig) -> Liar {
    let machine = rig.machine("x");
    machine.stop_agent();
    Liar::attach(rig, &Identity::of(rig, &machine))
}

fn run_on_b(rig: &Rig, line: &str) -> Running {
    rig.spawn([
        "exec",
        "--cluster",
        "good",
        "--json",
        "b",
        "--",
        "sh",
        "-c",
        line,
    ])
}

/// The ids of the runs in `b`'s journal that are open: what a liar would have to guess.
fn runs_of_b(rig: &Rig) -> Vec<String> {
    let init = rig.machine("b").init_pid().expect("it is up");
    let folder = std::fs::read_dir(format!("/proc/{init}/root/var/lib/aot/runs"));
    let entries = folder.into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| !name.contains('.')).collect()
}

fn outcome(output: &Output) -> (String, String) {
    let ended = output.one(|line| line["instance"] == "b");
    let text = |key: &str| ended[key].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("stdout"))
}

#[test]
fn another_clusters_runs_are_out_of_reach() {
    let rig = rig();
    let mut liar = liar_of(&rig);
    let victim = run_on_b(
        &rig,
        "echo mine; until [ -e /tmp/go ]; do sleep 0.1; done; echo whole",
    );
    let runs = wait::some(
        || Some(runs_of_b(&rig)).filter(|runs| !runs.is_empty()),
        SOON,
        "the run in b's journal",
    );
    for run in &runs {
        liar.send(liar::answer(run, true, ""));
        liar.send(liar::answer(
            run,
            false,
            "disk failure on b\u{1b}]0;forged\u{7}",
        ));
        liar.send(liar::output(run, "forged\n", ""));
        liar.send(Up::CopyProgress(CopyProgress {
            run_id: run.clone(),
            bytes: u64::MAX,
            total_bytes: 1,
        }));
    }
    // Of its own it may say what it likes, of others nothing: also cluster facts that it was never given.
    liar.send(Up::ClusterFactsApplied(ClusterFactsApplied {
        generation: u64::MAX,
        ..ClusterFactsApplied::default()
    }));
    liar.heard();
    rig.cli(["exec", "--cluster", "good", "b", "--", "touch", "/tmp/go"])
        .expect(0);
    let output = victim.finish(SOON);
    let expected = ("succeeded".to_owned(), "mine\nwhole\n".to_owned());
    assert_eq!(outcome(&output), expected, "{}", output.shown());
}
