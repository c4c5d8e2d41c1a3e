//! What happens to a stage when the agent under it is killed, the machine loses power, or the stage asks for a reboot.

use std::time::Duration;

use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master, events_of};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::wait;

const STAGE: &str = r#"echo "$AOT_ATTEMPT $AOT_REBOOTS" >> /var/tmp/ran
sync
case $1 in
kill)
  for i in $(seq 40); do echo "line $i"; done
  until test -e /var/tmp/go; do sleep 0.1; done
  for i in $(seq 41 80); do echo "line $i"; done ;;
power)
  # A word now and then: the master has heard a little more than what is on the disk of the machine.
  if [ "$AOT_ATTEMPT" = 1 ]; then for i in $(seq 2000); do echo w; sleep 0.3; done; fi
  echo "back" ;;
reboot) if [ "$AOT_REBOOTS" = 0 ]; then echo "now"; exit 194; fi; echo "after" ;;
esac
"#;
const REST: &str = "launch: {timeout: 240s}
instances:
  - {name: killed, bootstrap_sequence: [{dir: stage, args: [kill]}]}
  - {name: powered, bootstrap_sequence: [{dir: stage, args: [power]}]}
  - {name: rebooted, bootstrap_sequence: [{dir: stage, args: [reboot]}]}
";
const SOON: Duration = Duration::from_secs(120);

#[test]
fn stages_outlive_agents_and_are_repeated_after_power_loss() {
    let Some(lab) = Lab::start() else { return };
    let master = Master::start(&lab, "machine", 7440);
    let dir = lab.dir().join("files");
    bundle::folder(&dir.join("stage"), STAGE);
    let file = cluster_file(&dir, "machine", lab.ami(), REST);
    let mut story = Story::default();

    story.step("launch, until a stage runs on each machine");
    let mut launch = master.launch(&file);
    for name in ["killed", "powered", "rebooted"] {
        launch.event("stage-started", name, LAUNCH);
    }
    let (killed, powered, rebooted) = (
        master.machine("killed"),
        master.machine("powered"),
        master.machine("rebooted"),
    );

    story.step("kill an agent, cut a machine's power");
    for id in [&killed, &powered] {
        wait::until(
            || lab.on(id, "test -s /var/tmp/ran").code == Some(0),
            SOON,
            "the stage runs",
        );
    }
    let agent = lab.sure(&killed, "systemctl show -p MainPID --value aot-agent");
    lab.sure(&killed, "systemctl kill -s KILL aot-agent");
    lab.sure(&killed, "touch /var/tmp/go");
    lab.verb(&["kill", &powered]);
    lab.verb(&["power-on", &powered]);

    story.step("the launch goes on to its end");
    let launched = launch.finish(LAUNCH);
    launched.expect(0);

    story.step("the agent's death did not touch the stage");
    story.same(
        lab.sure(&killed, "cat /var/tmp/ran").as_str(),
        "1 0\n",
        "it ran once",
    );
    let now = lab.sure(&killed, "systemctl show -p MainPID --value aot-agent");
    story.check(now != agent, "it was another agent that saw the end", &now);
    let wanted: Vec<String> = (1..=80).map(|i| format!("line {i}")).collect();
    story.same(output(&master, "killed"), wanted, "the output is whole");
    let lost = events_of(&launched, "killed", "agent-disconnected");
    story.same(lost.len(), 1, "the master missed the agent");
    let ended = events_of(&launched, "killed", "stage-ended");
    story.same(ended.len(), 1, "one end");
    story.same(ended[0]["attempt"].as_u64(), Some(1), "of attempt 1");
    story.check(
        events_of(&launched, "killed", "stage-interrupted").is_empty(),
        "no interruption",
        "",
    );

    story.step("the power loss was seen, and the stage run again");
    let seen = events_of(&launched, "powered", "stage-interrupted");
    story.same(seen.len(), 1, "one stage-interrupted");
    story.same(
        seen.first().and_then(|e| e["attempt"].as_u64()),
        Some(1),
        "of attempt 1",
    );
    let ended = events_of(&launched, "powered", "stage-ended");
    story.same(
        ended.last().and_then(|e| e["attempt"].as_u64()),
        Some(2),
        "attempt 2 ended it",
    );
    story.same(
        lab.sure(&powered, "cat /var/tmp/ran").as_str(),
        "1 0\n2 0\n",
        "two attempts",
    );
    story.same(lab.machine(&powered).boots, Some(2), "it booted twice");
    let said = output(&master, "powered");
    story.same(
        said.last().map(String::as_str),
        Some("back"),
        "the second attempt's output",
    );

    story.step("exit code 194 reboots once");
    story.same(
        lab.sure(&rebooted, "cat /var/tmp/ran").as_str(),
        "1 0\n1 1\n",
        "AOT_REBOOTS counts",
    );
    story.same(lab.machine(&rebooted).boots, Some(2), "it booted twice");
    story.same(
        events_of(&launched, "rebooted", "instance-rebooting").len(),
        1,
        "it was announced",
    );
    story.same(
        output(&master, "rebooted"),
        vec!["now", "after"],
        "the output of both halves",
    );

    story.step("no machine was replaced");
    let cloud = lab.cloud("machine");
    story.same(cloud.instances.len(), 3, "three machines");
    story.check(
        cloud.terminated.is_empty(),
        "none was thrown away",
        &cloud.terminated,
    );
    for (name, id) in [
        ("killed", &killed),
        ("powered", &powered),
        ("rebooted", &rebooted),
    ] {
        story.same(&master.machine(name), id, "the same as before");
    }
    story.same(master.cleanup("machine").code, Some(0), "cleanup");
    master.stop();
    lab.end();
    story.end();
}

/// Lines of an instance's only stage.
fn output(master: &Master, instance: &str) -> Vec<String> {
    let logs = master.run(&["logs", instance]);
    let line = |line: &str| {
        line.split_once("| ")
            .map_or(line, |(_, text)| text)
            .to_owned()
    };
    logs.text().lines().map(line).collect()
}
