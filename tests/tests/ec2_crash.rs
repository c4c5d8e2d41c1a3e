//! A master that is killed at each point of a launch, and a cloud whose answers are lost: nothing is made twice.

use std::collections::BTreeMap;

use aot_tests::lab::Lab;
use aot_tests::lab::master::{Launching, Master};
use aot_tests::lab::story::{Story, bundle, cluster_file};
use serde_json::Value;

/// Takes long enough that a master can die while it runs.
const FIRST: &str = "echo begin\nsleep 3\necho \"0 $AOT_ATTEMPT\" >> /var/tmp/ran\necho end\n";
const SECOND: &str = "echo \"1 $AOT_ATTEMPT\" >> /var/tmp/ran\n";
const REST: &str = "launch: {timeout: 100s}
instances:
  - name: manager
    bootstrap_sequence: [{dir: first}, {dir: second}]
pools:
  - name: web
    size: 2
    bootstrap_sequence: [{dir: first}, {dir: second, needs: [manager/1]}]
";

/// Points of a launch, in order. Whoever comes late sees the point in the snapshot instead of the event.
const POINTS: [(&str, &[&str]); 5] = [
    ("instance-requested", &["requested"]),
    ("instance-launched", &["booting"]),
    ("instance-enrolled", &["enrolled"]),
    ("stage-started", &["bootstrapping"]),
    ("stage-ended", &[]),
];

fn reach(launch: &mut Launching, (kind, phases): (&str, &[&str])) {
    launch.until(kind, |event| {
        let seen = event["event"] == "snapshot"
            && event["phase"]
                .as_str()
                .is_some_and(|phase| phases.contains(&phase));
        let stage = event["stage"].as_u64().unwrap_or(0);
        seen || (event["event"] == kind && stage == 0)
    });
}

#[test]
fn a_launch_survives_a_master_that_is_killed_at_every_point() {
    let Some(lab) = Lab::start() else { return };
    let mut master = Master::start(&lab, "crash", 7440);
    let dir = lab.dir().join("files");
    bundle(&dir.join("first"), FIRST);
    bundle(&dir.join("second"), SECOND);
    let file = cluster_file(&dir, "crash", lab.ami(), REST);
    let mut story = Story::default();
    let mut known: BTreeMap<String, String> = BTreeMap::new();

    for point in POINTS {
        story.step(point.0);
        let mut launch = master.launch(&file);
        reach(&mut launch, point);
        master.crash();
        let ended = launch.finish();
        story.same(ended.code, Some(4), "launch says that the master is gone");
        story.check(
            !ended.stderr.trim().is_empty(),
            "and says it in words",
            &ended.stderr,
        );
        master.serve();
        for (name, id) in master.machine_ids() {
            let was = known.entry(name.clone()).or_insert_with(|| id.clone());
            story.same(
                was.as_str(),
                id.as_str(),
                &format!("{name} keeps its machine"),
            );
        }
        let made = lab.cloud("crash").instances.len();
        story.check(made <= 3, "no more machines than wanted", made);
    }

    story.step("the launch that is left alone");
    master.launch(&file).finish().must_be(0, "it ends well");
    let ids = master.machine_ids();
    story.same(
        &ids,
        &known,
        "each instance has the machine that it got first",
    );
    let cloud = lab.cloud("crash");
    story.same(cloud.instances.len(), 3, "as many machines as wanted");
    story.check(
        cloud.terminated.is_empty(),
        "none was thrown away",
        &cloud.terminated,
    );
    for (name, id) in &ids {
        let ran = lab.sure(id, "cat /var/tmp/ran");
        story.same(
            ran.as_str(),
            "0 1\n1 1\n",
            &format!("each stage of {name} ran once"),
        );
        let logs = master.run(&["logs", name, "--stage", "0"]);
        let lines: Vec<&str> = logs
            .stdout
            .lines()
            .map(|l| l.rsplit("| ").next().unwrap_or(l))
            .collect();
        story.same(lines, vec!["begin", "end"], "its output is whole");
    }

    story.step("an answer that is lost makes no second set");
    lost_answer(&mut story, &lab, &master);

    story.step("cleanup");
    for cluster in ["crash", "lost"] {
        story.same(master.cleanup(cluster).code, Some(0), "cleanup");
        story.check(
            lab.cloud(cluster).instances.is_empty(),
            "nothing is left",
            cluster,
        );
    }
    master.stop();
    lab.end();
    story.end();
}

fn lost_answer(story: &mut Story, lab: &Lab, master: &Master) {
    let rest = "launch: {timeout: 100s}\npools: [{name: twin, size: 2}]\n";
    let file = cluster_file(&lab.dir().join("lost"), "lost", lab.ami(), rest);
    lab.verb(&["fault", "RunInstances", "--drop-answer"]);
    let calls = lab.calls("RunInstances");
    let launched = master
        .launch(&file)
        .finish()
        .must_be(0, "the call is made again");
    story.check(
        lab.calls("RunInstances") > calls + 1,
        "the first answer was lost",
        calls,
    );
    let cloud = lab.cloud("lost");
    story.same(cloud.instances.len(), 2, "one set of machines");
    story.check(
        cloud.terminated.is_empty(),
        "none was thrown away",
        &cloud.terminated,
    );
    let mut mine: Vec<String> = master
        .machine_ids()
        .into_iter()
        .filter(|(name, _)| name.starts_with("twin"))
        .map(|(_, id)| id)
        .collect();
    let mut there: Vec<String> = cloud.instances.into_iter().map(|i| i.id).collect();
    mine.sort();
    there.sort();
    story.same(mine, there, "they are the ones that the master knows");
    let last = launched
        .events
        .last()
        .map(|last| last["summary"]["ready"].clone());
    story.same(last, Some(Value::from(2)), "both are ready");
}
