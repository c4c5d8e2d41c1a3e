//! Commands whose master is killed while they wait for it: they ask the next one, and what they asked for is done once.

use aot_tests::muted::Muted;
use aot_tests::rig::{LIMIT, Output, Rig, Running};
use aot_tests::{jobs, wait};

on_both_stores![
    a_command_that_has_heard_nothing_yet_is_the_same_job_at_the_next_master,
    a_launch_is_joined_at_the_next_master,
    an_apply_is_joined_at_the_next_master,
    what_follows_without_an_end_of_its_own_continues_with_the_next_master,
    a_master_that_is_shut_down_is_not_started_again_by_who_followed_it,
];

/// What is said when the master is gone.
const GONE: &str = "the master is gone: asking for the next one";

/// Leaves a line at its start and at its end, which waits for a file.
const WAITS: &str = "echo begin >> /opt/ledger; echo shown
until test -e /opt/go; do sleep 0.05; done
echo end >> /opt/ledger
";

fn one_machine(rig: &Rig) {
    rig.bundle("waits", WAITS);
    rig.bundle("after", "echo after >> /opt/ledger\n");
    rig.cluster(
        "
cluster: again
provider: local
instances:
  - name: head
    bootstrap_sequence: [{dir: waits}, {dir: after}]
",
    );
}

#[track_caller]
fn ledger_has(rig: &Rig, count: usize, word: &str) {
    let read = || rig.machines().first()?.read("/opt/ledger");
    let has = || read().is_some_and(|text| text.lines().filter(|it| *it == word).count() == count);
    wait::until(has, LIMIT, &format!("{word:?} in the ledger"));
}

/// Lets the stage end, without a master.
fn go(rig: &Rig) {
    let init = rig.machine("head").init_pid().expect("up");
    std::fs::write(format!("/proc/{init}/root/opt/go"), "").expect("a file in the clone");
}

/// A cluster that is ready.
fn ready(rig: &Rig) {
    one_machine(rig);
    let launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    ledger_has(rig, 1, "begin");
    go(rig);
    launch.finish(LIMIT).expect(0);
}

#[track_caller]
fn ends_well_and_says_so_once(command: Running) -> Output {
    let output = command.finish(LIMIT);
    output.expect(0);
    assert_eq!(output.stderr.matches(GONE).count(), 1, "{}", output.shown());
    output
}

fn of_kind(rig: &Rig, kind: &str) -> usize {
    let all = jobs::list(rig);
    all.iter().filter(|job| job["kind"] == kind).count()
}

fn a_command_that_has_heard_nothing_yet_is_the_same_job_at_the_next_master(rig: &Rig) {
    ready(rig);
    let path = rig.dir().join("muted.sock");
    let way = Muted::new(&path, &rig.socket());
    let socket = path.to_str().expect("UTF-8");
    let line = "echo ran >> /opt/runs; echo out; until test -e /opt/on; do sleep 0.05; done";
    let words = [
        "--socket", socket, "exec", "--json", "head", "--", "sh", "-c", line,
    ];
    let exec = rig.spawn(words);
    let machine = rig.machine("head");
    let runs = || machine.read("/opt/runs");
    wait::until(|| runs().is_some(), LIMIT, "the command to begin");

    rig.kill_master();
    way.cut_and_mend();
    // The next one, as whoever served it would start it.
    rig.cli(["status"]).expect(0);
    rig.sh("head", "touch /opt/on");

    let output = ends_well_and_says_so_once(exec);
    let end = output.one(|line| line["instance"] == "head");
    assert_eq!(end["stdout"], "out\n");
    assert_eq!(runs().as_deref(), Some("ran\n"), "it ran once");
    let all = jobs::list(rig);
    let execs = all.iter().filter(|job| {
        let what = job["what"].as_str();
        what.is_some_and(|what| what.contains("/opt/runs"))
    });
    assert_eq!(execs.count(), 1, "{all:?}");
}

fn a_launch_is_joined_at_the_next_master(rig: &Rig) {
    one_machine(rig);
    let mut launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    launch.event("stage-started", "head", LIMIT);
    ledger_has(rig, 1, "begin");

    rig.kill_master();
    go(rig);

    let output = ends_well_and_says_so_once(launch);
    let ended = output.events("launch-ended");
    assert_eq!(ended.len(), 1, "{}", output.shown());
    assert_eq!(ended[0]["summary"], serde_json::json!({"ready": 1}));
    assert_eq!(output.events("launch-started").len(), 1);
    assert_eq!(rig.sh("head", "cat /opt/ledger"), "begin\nend\nafter");
    assert_eq!(of_kind(rig, "launch"), 1, "joined, not begun anew");
    assert_eq!(rig.machines().len(), 1);
}

fn an_apply_is_joined_at_the_next_master(rig: &Rig) {
    ready(rig);
    rig.sh("head", "rm /opt/go");
    let mut apply = rig.spawn(["apply", "--force", "--json"]);
    apply.event("stage-started", "head", LIMIT);
    ledger_has(rig, 2, "begin");

    rig.kill_master();
    go(rig);

    ends_well_and_says_so_once(apply);
    let ran = "begin\nend\nafter\nbegin\nend\nafter";
    assert_eq!(rig.sh("head", "cat /opt/ledger"), ran);
    assert_eq!(of_kind(rig, "apply"), 1, "joined, not begun anew");
}

fn what_follows_without_an_end_of_its_own_continues_with_the_next_master(rig: &Rig) {
    one_machine(rig);
    let launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    ledger_has(rig, 1, "begin");
    let mut logs = rig.spawn(["logs", "-f", "--json", "head"]);
    logs.until(|line| line["data"] == "shown\n", LIMIT, "the first line");
    let waits = rig.spawn(["wait", "head", "--state", "ready", "--timeout", "5m"]);

    rig.kill_master();
    go(rig);

    launch.finish(LIMIT).expect(0);
    waits.finish(LIMIT).expect(0);
    let of_next = |line: &serde_json::Value| line["stage"] == 1;
    logs.until(of_next, LIMIT, "the stage that came after");
    logs.signal(nix::sys::signal::Signal::SIGINT);
    let logs = logs.finish(LIMIT);
    logs.expect(130);
    let shown = logs
        .json()
        .into_iter()
        .filter(|line| line["data"] == "shown\n");
    assert_eq!(shown.count(), 1, "{}", logs.shown());
}

fn a_master_that_is_shut_down_is_not_started_again_by_who_followed_it(rig: &Rig) {
    one_machine(rig);
    let launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    ledger_has(rig, 1, "begin");
    rig.cli(["shutdown"]).expect(0);
    launch.finish(LIMIT).expect(4);
    assert!(rig.master_pid().is_none(), "{}", rig.log());
    go(rig);
    rig.launch().expect(0);
    assert_eq!(rig.sh("head", "cat /opt/ledger"), "begin\nend\nafter");
}
