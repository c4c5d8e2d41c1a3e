//! Stages again and in their order, on clones of this machine: `apply`, needs across instances, and `logs -f` of many.

use std::time::Duration;

use aot_tests::rig::Rig;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Time for a stage to begin or end.
const SOON: Duration = Duration::from_secs(120);

/// Notes that it ran; fails while /opt/broken is there.
const LEDGER: &str = "echo run $AOT_STAGE attempt $AOT_ATTEMPT\nmkdir -p /opt\necho $AOT_STAGE >> /opt/ledger\ntest ! -e /opt/broken\n";
/// Fails on its first attempt.
const SECOND_TIME: &str =
    "mkdir -p /opt\necho $AOT_STAGE >> /opt/ledger\ntest $AOT_ATTEMPT -gt 1\n";

fn chain(head: &str) -> Rig {
    let rig = Rig::local();
    rig.bundle("head", head);
    rig.bundle("a", LEDGER);
    rig.cluster(
        "
cluster: chain
provider: local
instances:
  - {name: head, bootstrap_sequence: [{dir: a}, {dir: head, name: serve}]}
  - {name: last, bootstrap_sequence: [{dir: a, needs: \"pool:node/0\"}]}
pools:
  - {name: node, size: 2, bootstrap_sequence: [{dir: a, needs: [head/serve]}]}
",
    );
    rig
}

fn ledger(rig: &Rig, instance: &str) -> String {
    rig.sh(
        instance,
        "tr '\\n' ' ' < /opt/ledger 2>/dev/null || echo none",
    )
}

/// Why the last stage of an instance is where it is.
fn why(rig: &Rig, instance: &str) -> String {
    let stages = rig.stages(instance);
    let detail = stages.last().and_then(|stage| stage["detail"].as_str());
    detail.unwrap_or_default().to_owned()
}

#[test]
fn what_failed_and_what_waits_for_it_is_applied_again_and_nothing_else() {
    let rig = chain(SECOND_TIME);
    let output = rig.launch();
    output.expect(1);
    let ended = output.one(|line| line["event"] == "launch-ended");
    let message = ended["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("waits for head/serve, which failed"),
        "{}",
        output.shown()
    );
    assert_eq!(why(&rig, "node2"), "waits for head/serve, which failed");
    assert_eq!(
        why(&rig, "last"),
        "waits for pool:node/0, of which node1 waits for what failed"
    );

    // Not those that are meant by the target: nothing of theirs failed.
    let wrong = rig.cli(["apply", "head", "--from", "2"]);
    wrong.expect(2);
    assert!(
        wrong
            .stderr
            .contains("head has no stage 2 (its stages are 0 to 1)"),
        "{}",
        wrong.shown()
    );

    rig.cli_within(SOON, ["apply", "--failed"]).expect(0);
    for name in ["node1", "node2", "last"] {
        assert_eq!(ledger(&rig, name).trim(), "0", "{name}");
    }
    assert_eq!(
        ledger(&rig, "head").trim(),
        "0 1 1",
        "what had succeeded was left alone"
    );

    let again = rig.cli(["apply", "--failed"]);
    again.expect(0);
    let said = format!("{}{}", again.text(), again.stderr);
    assert!(
        said.contains("nothing to do: nothing has failed"),
        "{}",
        again.shown()
    );
    rig.cli_within(SOON, ["apply", "node1", "--force"])
        .expect(0);
    assert_eq!(
        (ledger(&rig, "node1").trim(), ledger(&rig, "node2").trim()),
        ("0 0", "0")
    );
}

#[test]
fn a_retry_of_the_need_alone_lets_the_others_go_on() {
    let rig = chain(SECOND_TIME);
    rig.launch().expect(1);
    rig.cli_within(SOON, ["apply", "head"]).expect(0);
    rig.cli_within(SOON, ["wait", "*", "--state", "ready", "--timeout", "100s"])
        .expect(0);
    assert_eq!(
        (ledger(&rig, "last").trim(), why(&rig, "last").as_str()),
        ("0", "")
    );
}

fn is_line(line: &Value, instance: &str, text: &str) -> bool {
    let data = line["data"].as_str().unwrap_or_default();
    line["instance"] == instance && data.contains(text)
}

#[test]
fn logs_of_many_are_followed_over_attempts_and_over_new_instances() {
    let rig = Rig::local();
    rig.bundle("a", LEDGER);
    let file = |size: u32| {
        rig.cluster(&format!(
            "
cluster: logs
provider: local
pools: [{{name: node, size: {size}, bootstrap_sequence: [{{dir: a}}, {{dir: a, name: second}}]}}]
"
        ))
    };
    file(2);
    rig.launch().expect(0);
    let missing = rig.cli(["logs", "*", "--stage", "7"]);
    missing.expect(2);
    assert!(
        missing
            .stderr
            .contains("none of 2 instances has a stage 7; there are 0 to 1"),
        "{}",
        missing.shown()
    );

    let mut logs = rig.spawn(["logs", "*", "-f", "--json"]);
    for name in ["node1", "node2"] {
        logs.until(
            |line| is_line(line, name, "run 1 attempt 1"),
            SOON,
            "what is on record",
        );
    }
    rig.cli_within(SOON, ["apply", "node2", "--force"])
        .expect(0);
    logs.until(
        |line| is_line(line, "node2", "run 1 attempt 2"),
        SOON,
        "a new attempt",
    );
    file(3);
    rig.launch().expect(0);
    logs.until(
        |line| is_line(line, "node3", "run 1 attempt 1"),
        SOON,
        "an instance that joined",
    );
    assert!(!logs.has_ended(), "it follows until someone stops it");

    // Every instance's lines are in their order, each once.
    let all = logs.json();
    for (name, runs) in [("node1", 2), ("node2", 4), ("node3", 2)] {
        let lines: Vec<String> = all
            .iter()
            .filter(|line| is_line(line, name, "run"))
            .map(|line| format!("{}/{}", line["attempt"], line["stage"]))
            .collect();
        let mut sorted = lines.clone();
        sorted.sort();
        assert_eq!((lines.len(), &lines), (runs, &sorted), "{name}");
    }
    logs.signal(Signal::SIGINT);
    logs.finish(SOON).expect(130);
}
