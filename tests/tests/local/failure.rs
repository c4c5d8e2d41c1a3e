//! Stages that fail, hang, fall silent, ask for reboots, or wait for others.

use aot_tests::rig::{LIMIT, Output, Rig};
use serde_json::{Value, json};

/// From TERM to KILL, in seconds.
const KILL: f64 = 10.0;

const LEDGER: &str = "echo \"$AOT_STAGE\" >> /opt/ledger\n";

fn one_stage(stage: &str) -> String {
    format!(
        "
cluster: stage
provider: local
instances:
  - name: head
    bootstrap_sequence: [{stage}]
"
    )
}

#[track_caller]
fn summary(output: &Output) -> Value {
    output.json().last().expect("a last line")["summary"].clone()
}

#[test]
fn a_failed_stage_stops_its_instance_and_is_resumed_after_a_fix() {
    let rig = Rig::local();
    rig.bundle("good", LEDGER);
    rig.bundle(
        "bad",
        &format!("{LEDGER}echo to-out\necho to-err >&2\nexit 7\n"),
    );
    rig.cluster(
        "
cluster: broken
provider: local
instances:
  - name: head
    bootstrap_sequence: [{dir: good}, {dir: bad}, {dir: good, name: third}]
  - name: other
    bootstrap_sequence: [{dir: good}]
",
    );

    let output = rig.launch();

    output.expect(1);
    assert_eq!(summary(&output), json!({"failed": 1, "ready": 1}));
    let ended = output.one(|line| line["event"] == "stage-ended" && line["outcome"] == "failed");
    assert_eq!(
        (&ended["instance"], &ended["stage"]),
        (&json!("head"), &json!(1))
    );
    assert_eq!(ended["exit_code"], 7);
    assert_eq!(
        rig.sh("head", "cat /opt/ledger"),
        "0\n1",
        "no later stage ran"
    );
    // A launch that fails at once is over before the provider has said that the machine runs.
    rig.cli(["wait", "head", "--state", "running"]).expect(0);
    let status = rig.status();
    assert_eq!(
        (&status["head"]["phase"], &status["head"]["state"]),
        (&json!("failed"), &json!("running"))
    );
    assert_eq!(status["other"]["phase"], "ready");
    assert_eq!(
        rig.cli(["list", "--json", "state:failed"]).one(|_| true)["name"],
        "head"
    );
    logs_tell_the_streams_apart(&rig);

    let ids = rig.machine_ids();
    rig.bundle("bad", LEDGER);
    let fixed = rig.launch();
    fixed.expect(0);
    assert_eq!(summary(&fixed), json!({"ready": 2}));
    assert_eq!(rig.machine_ids(), ids, "the machine was kept");
    assert_eq!(
        rig.sh("head", "cat /opt/ledger"),
        "0\n1\n1\n2",
        "resumed where it failed"
    );
    assert_eq!(rig.sh("other", "cat /opt/ledger"), "0");
}

#[track_caller]
fn logs_tell_the_streams_apart(rig: &Rig) {
    let logs = rig.cli(["logs", "head", "--stage", "1"]);
    logs.expect(0);
    let (out, err) = (logs.text(), &logs.stderr);
    assert!(
        out.contains("to-out") && !out.contains("to-err"),
        "{}",
        logs.shown()
    );
    assert!(
        err.contains("to-err") && !err.contains("to-out"),
        "{}",
        logs.shown()
    );
    let logs = rig.cli(["logs", "--json", "head", "--stage", "1"]);
    logs.expect(0);
    let of = |stream: &str| logs.one(|line| line["stream"] == stream)["data"].clone();
    assert_eq!(
        (of("stdout"), of("stderr")),
        (json!("to-out\n"), json!("to-err\n"))
    );
}

#[test]
fn a_failed_stage_is_tried_again_by_the_next_launch_of_the_same_file() {
    let rig = Rig::local();
    rig.bundle("bad", &format!("{LEDGER}test -e /opt/repaired\n"));
    rig.cluster(&one_stage("{dir: bad}"));
    rig.launch().expect(1);
    rig.launch().expect(1);
    assert_eq!(rig.sh("head", "cat /opt/ledger"), "0\n0");

    rig.sh("head", "touch /opt/repaired");
    rig.launch().expect(0);
    assert_eq!(rig.sh("head", "cat /opt/ledger"), "0\n0\n0");
    assert_eq!(rig.stages("head")[0]["attempt"], 3);
}

#[test]
fn a_stage_that_runs_too_long_is_ended_with_all_that_it_started() {
    let rig = Rig::local();
    rig.bundle("slow", "echo begun\nsleep 4242 &\nsleep 4243\n");
    rig.cluster(&one_stage("{dir: slow, timeout: 1s}"));

    let output = rig.launch();

    output.expect(1);
    let ended = output.one(|line| line["event"] == "stage-ended");
    assert_eq!(ended["outcome"], "timed_out", "{ended}");
    let seconds = ended["seconds"].as_f64().expect("seconds");
    assert!(
        (0.9..1.0 + KILL).contains(&seconds),
        "TERM ends it, not the KILL after it: {ended}"
    );
    assert_eq!(rig.sh("head", "pgrep -fc 'sleep 424[23]$' || true"), "0");
    assert!(rig.cli(["logs", "head"]).text().contains("begun"));
    assert_eq!(rig.status()["head"]["phase"], "failed");
}

#[test]
fn a_stage_that_falls_silent_is_ended_and_one_that_talks_is_not() {
    let rig = Rig::local();
    rig.bundle("silent", "echo begun\nsleep 4244\n");
    rig.bundle("talks", "for i in $(seq 20); do echo $i; sleep 0.5; done\n");
    rig.cluster(
        "
cluster: silence
provider: local
instances:
  - {name: quiet, bootstrap_sequence: [{dir: silent, silence_timeout: 8s}]}
  - {name: loud, bootstrap_sequence: [{dir: talks, silence_timeout: 8s}]}
",
    );

    let output = rig.launch();

    output.expect(1);
    assert_eq!(summary(&output), json!({"failed": 1, "ready": 1}));
    let quiet = output.one(|line| line["event"] == "stage-ended" && line["instance"] == "quiet");
    assert_eq!(quiet["outcome"], "timed_out", "{quiet}");
    let seconds = quiet["seconds"].as_f64().expect("seconds");
    assert!(
        (7.9..8.0 + KILL).contains(&seconds),
        "TERM ends it, not the KILL after it: {quiet}"
    );
    assert_eq!(rig.status()["loud"]["phase"], "ready");
}

#[test]
fn exit_194_reboots_and_runs_the_same_stage_again() {
    let rig = Rig::local();
    let script =
        "echo \"$AOT_STAGE $AOT_REBOOTS $AOT_ATTEMPT $(cat /etc/aot/boot_id)\" >> /opt/ledger\n";
    rig.bundle(
        "reboot",
        &format!("{script}test \"$AOT_REBOOTS\" = 1 || exit 194\n"),
    );
    rig.bundle("after", script);
    rig.cluster(&one_stage("{dir: reboot}, {dir: after}"));

    let output = rig.launch();

    output.expect(0);
    assert_eq!(
        output.events("instance-rebooting").len(),
        1,
        "{}",
        output.shown()
    );
    let ledger = rig.sh("head", "cat /opt/ledger");
    let rows: Vec<Vec<&str>> = ledger
        .lines()
        .map(|line| line.split(' ').collect())
        .collect();
    let [first, second, third] = &rows[..] else {
        panic!("three runs, not\n{ledger}")
    };
    assert_eq!(
        (&first[..3], &second[..3], &third[..3]),
        (
            &["0", "0", "1"][..],
            &["0", "1", "1"][..],
            &["1", "0", "1"][..]
        )
    );
    assert_ne!(first[3], second[3], "a new boot");
    assert_eq!(second[3], third[3], "the same boot");
    assert_eq!(rig.machine("head").boot_id(), second[3]);
}

#[test]
fn a_stage_that_always_wants_a_reboot_fails_after_the_fifth() {
    let rig = Rig::local();
    rig.bundle("reboot", "echo $AOT_REBOOTS >> /opt/ledger\nexit 194\n");
    rig.cluster(&one_stage("{dir: reboot}"));

    let output = rig.launch();

    output.expect(1);
    assert_eq!(rig.sh("head", "cat /opt/ledger"), "0\n1\n2\n3\n4\n5");
    assert_eq!(rig.status()["head"]["phase"], "failed");
}

#[test]
fn a_stage_waits_for_the_stages_that_it_needs() {
    let rig = Rig::local();
    rig.bundle("a", LEDGER);
    rig.bundle(
        "slow",
        &format!("{LEDGER}until test -e /opt/go; do sleep 0.05; done\n"),
    );
    rig.cluster(
        "
cluster: needs
provider: local
instances:
  - {name: head, bootstrap_sequence: [{dir: a}, {dir: slow}]}
pools:
  - {name: node, size: 2, bootstrap_sequence: [{dir: a}, {dir: a, name: second, needs: [head/1]}]}
",
    );

    let mut launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    for node in ["node1", "node2"] {
        launch.event("stage-ended", node, LIMIT);
    }
    rig.sh("head", "touch /opt/go");
    let output = launch.finish(LIMIT);

    output.expect(0);
    let lines = output.json();
    let at = |event: &str, instance: &str, stage: u64| {
        let found = lines.iter().position(|line| {
            line["event"] == event && line["instance"] == instance && line["stage"] == stage
        });
        found.unwrap_or_else(|| panic!("no {event} of {instance}/{stage}\n{}", output.shown()))
    };
    for node in ["node1", "node2"] {
        assert!(
            at("stage-started", node, 1) > at("stage-ended", "head", 1),
            "{node} waits"
        );
        assert!(
            at("stage-ended", node, 0) < at("stage-ended", "head", 1),
            "{node} waits for no more than it needs"
        );
    }
}

#[test]
fn a_launch_ends_when_what_is_left_needs_a_stage_that_failed() {
    let rig = Rig::local();
    rig.bundle("bad", "exit 3\n");
    rig.bundle("a", LEDGER);
    rig.cluster(
        "
cluster: blocked
provider: local
instances:
  - {name: head, bootstrap_sequence: [{dir: bad}]}
  - {name: node, bootstrap_sequence: [{dir: a, needs: [head/0]}]}
",
    );

    let output = rig.cli(["launch", "--json", "--yes", "cluster.yml"]);

    output.expect(1);
    assert_eq!(
        rig.sh("node", "ls /opt/ledger 2>/dev/null || echo none"),
        "none"
    );
    rig.bundle("bad", LEDGER);
    rig.launch().expect(0);
    assert_eq!(rig.sh("node", "cat /opt/ledger"), "0");
}

#[test]
fn rollback_terminates_what_the_failed_launch_made() {
    let rig = Rig::local();
    rig.bundle("bad", "exit 3\n");
    let stages = one_stage("{dir: bad}");
    rig.cluster(&format!("{stages}launch: {{on_failure: rollback}}\n"));

    rig.launch().expect(1);

    let gone = rig.cli(["wait", "head", "--state", "gone", "--timeout", "100s"]);
    gone.expect(0);
    assert!(rig.machine_ids().is_empty());
}

#[test]
fn fewer_than_all_can_be_enough() {
    let rig = Rig::local();
    rig.bundle("some", "test \"$AOT_INSTANCE\" != node2\n");
    let file = |min: &str| {
        rig.cluster(&format!(
            "
cluster: enough
provider: local
launch: {{min_ready: {min}}}
pools:
  - {{name: node, size: 3, bootstrap_sequence: [{{dir: some}}]}}
"
        ))
    };
    file("60%");
    let output = rig.launch();
    output.expect(0);
    assert_eq!(summary(&output), json!({"failed": 1, "ready": 2}));
    file("all");
    rig.launch().expect(1);
}
