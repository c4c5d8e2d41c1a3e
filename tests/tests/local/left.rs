//! What scripts leave behind on a machine, or take away from it: mounts below their folder, servers in the background, the
//! agent's own state, the agent itself.

use std::time::Duration;

use aot_tests::rig::{Output, Rig};
use serde_json::{Value, json};

/// Longest that a launch with a limit of 30 s takes to give up.
const GIVES_UP: Duration = Duration::from_secs(150);

fn instance(timeout: &str, stage: &str) -> String {
    format!(
        "
cluster: left
provider: local
launch: {{timeout: {timeout}}}
instances:
  - name: a
    bootstrap_sequence: [{stage}]
"
    )
}

#[track_caller]
fn told(output: &Output, kind: &str) -> String {
    let event: Value = output.one(|line| line["event"] == kind && line["instance"] == "a");
    event["message"].as_str().expect("a text").to_owned()
}

#[test]
fn what_a_stage_has_mounted_and_started_outlives_it_and_is_told() {
    let rig = Rig::local();
    rig.bundle(
        "b",
        "set -e
mkdir -p /srv/data chroot/data
[ -e /srv/once ] || { touch /srv/once; echo precious > /srv/data/precious; }
mountpoint -q chroot/data || mount --bind /srv/data chroot/data
nohup sh -c 'while sleep 0.2; do echo serving; date +%s%N > /root/served; done' &
echo $! > /root/pid
",
    );
    rig.cluster(&instance("120s", "{dir: b, args: [one]}"));
    let first = rig.launch();
    first.expect(0);
    let ended = told(&first, "stage-ended");
    assert!(ended.contains("behind that hold"), "{ended}");
    let note = &rig.stages("a")[0]["detail"];
    assert!(
        note.as_str().is_some_and(|note| note.contains("behind")),
        "{note}"
    );
    let alive = "before=$(cat /root/served); for i in $(seq 600); do sleep 0.1; [ \"$(cat /root/served)\" = \"$before\" ] || exit 0; done; exit 1";
    rig.cli(["exec", "a", "--", "sh", "-c", alive]).expect(0);

    rig.cluster(&instance("120s", "{dir: b, args: [two]}"));
    rig.launch().expect(0);
    assert_eq!(rig.sh("a", "cat /srv/data/precious"), "precious");
    assert_eq!(
        rig.sh("a", "cd /var/lib/aot/stages && cat stage-0/chroot/data/precious .aot-old-*/stage-0/chroot/data/precious"),
        "precious\nprecious"
    );
    let logs = rig.cli(["logs", "a", "--stage", "0"]);
    let logs = format!("{}{}", String::from_utf8_lossy(&logs.stdout), logs.stderr);
    assert!(
        logs.contains("aot: the folder of the stage's last run"),
        "{logs}"
    );
}

#[test]
fn a_stage_that_takes_the_agents_state_or_the_agent_away_comes_to_an_end() {
    let rig = Rig::local();
    rig.bundle("empties", "rm -rf /var/lib/aot/*; echo done\n");
    rig.bundle(
        "kills",
        "mv /usr/local/bin/aot-agent /usr/local/bin/aot-agent.off
kill -9 $(pgrep -f 'aot-agent run')
",
    );
    rig.cluster(&instance(
        "30s",
        "{dir: empties, timeout: 60s}, {dir: kills, timeout: 60s}",
    ));
    let output = rig.cli_within(GIVES_UP, ["launch", "--json", "--yes", "cluster.yml"]);
    output.expect(1);
    let done = output.one(|line| line["event"] == "stage-ended" && line["stage"] == 0);
    assert_eq!(
        done["outcome"], "succeeded",
        "its end is known although its folder is gone"
    );
    assert_eq!(told(&output, "contact-lost"), "contact lost in stage kills");
    let error = told_of_all(&output);
    assert!(error.contains("a: contact lost in stage kills"), "{error}");
}

fn told_of_all(output: &Output) -> String {
    let event = output.one(|line| line["event"] == "launch-ended");
    event["message"].as_str().expect("a text").to_owned()
}

#[test]
fn another_user_can_open_its_own_outputs_and_input() {
    let rig = Rig::local();
    rig.cluster("{cluster: left, provider: local, instances: [{name: a}]}\n");
    rig.launch().expect(0);
    let input = rig.file("in", "in\n").display().to_string();
    let stdin = format!("--stdin={input}");
    let line = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin";
    let words = [
        "exec", "--json", "a", "--user", "nobody", &stdin, "--", "sh", "-c", line,
    ];
    let output = rig.cli(words);
    output.expect(0);
    let ended = output.one(|line| line["instance"] == "a");
    assert_eq!(
        (&ended["stdout"], &ended["stderr"]),
        (&json!("out\nin\n"), &json!("err\n"))
    );
}
