//! A master that is killed at each point of a launch, and a cloud whose answers are lost: nothing is made twice.

use std::collections::{BTreeMap, BTreeSet};

use aot_postgres::server::Server;
use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::process::Running;
use aot_tests::wait;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Ends when it may: a master can die while it runs, however slow the host is.
const FIRST: &str = "echo begin\nuntil test -e /var/tmp/go; do sleep 0.1; done
echo \"0 $AOT_ATTEMPT\" >> /var/tmp/ran\necho end\n";
const SECOND: &str = "echo \"1 $AOT_ATTEMPT\" >> /var/tmp/ran\n";
const REST: &str = "launch: {timeout: 240s}
instances:
  - name: manager
    bootstrap_sequence: [{dir: first}, {dir: second}]
pools:
  - name: web
    size: 2
    bootstrap_sequence: [{dir: first}, {dir: second, needs: [manager/1]}]
";

const TWINS: &str = "launch: {timeout: 240s}\npools: [{name: twin, size: 2}]\n";

/// Points of a launch and the phases that begin at them, in order.
const POINTS: [(&str, &str); 4] = [
    ("instance-requested", "requested"),
    ("instance-launched", "booting"),
    ("instance-enrolled", "enrolled"),
    ("stage-started", "bootstrapping"),
];

/// Waits for the point. Whoever comes late sees in the snapshot that it is past. No stage ends before it may, so none of
/// these phases can be over.
fn reach(launch: &mut Running, (kind, phase): (&str, &str)) {
    const LATER: [&str; 5] = [
        "requested",
        "booting",
        "enrolled",
        "configured",
        "bootstrapping",
    ];
    let from = LATER.iter().position(|later| *later == phase);
    let past = &LATER[from.expect("is one of them")..];
    let here = |event: &Value| {
        let shown = event["phase"].as_str().unwrap_or_default();
        event["event"] == kind || (event["event"] == "snapshot" && past.contains(&shown))
    };
    launch.until(here, LAUNCH, kind);
}

/// Waits for the end of a first stage, which it lets come once this launch is shown.
fn first_stage_ends(launch: &mut Running, lab: &Lab, machines: &BTreeMap<String, String>) {
    launch.until(|event| event["event"] == "snapshot", LAUNCH, "the snapshot");
    for id in machines.values() {
        lab.sure(id, "touch /var/tmp/go");
    }
    let ended = |event: &Value| event["event"] == "stage-ended" && event["stage"] == 0;
    launch.until(ended, LAUNCH, "stage-ended");
}

#[test]
fn a_launch_survives_a_master_that_is_killed_at_every_point() {
    killed_at_every_point(&[]);
}

#[test]
fn a_launch_survives_a_master_with_a_database_that_is_killed_at_every_point() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return why.skip("a killed master with a database"),
    };
    let url = server.url(&server.database());
    killed_at_every_point(&[("AOT_STORE", &url)]);
}

fn killed_at_every_point(env: &[(&str, &str)]) {
    let Some(lab) = Lab::start() else { return };
    let mut master = Master::start_with(&lab, "crash", 7440, env);
    let dir = lab.dir().join("files");
    bundle::folder(&dir.join("first"), FIRST);
    bundle::folder(&dir.join("second"), SECOND);
    let file = cluster_file(&dir, "crash", lab.ami(), REST);
    let mut story = Story::default();
    let mut known: BTreeMap<String, String> = BTreeMap::new();

    for point in POINTS.map(Some).into_iter().chain([None]) {
        story.step(point.map_or("stage-ended", |(kind, _)| kind));
        let mut launch = master.launch(&file);
        match point {
            Some(point) => reach(&mut launch, point),
            None => first_stage_ends(&mut launch, &lab, &known),
        }
        master.crash();
        launch.signal(Signal::SIGINT); // else it joins the next one
        let ended = launch.finish(LAUNCH);
        story.same(ended.code, Some(130), "launch can be left while it waits");
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
    master.launched(&file, 0);
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
        let text = logs.text();
        let line = |line: &'static str| text.matches(&format!("| {line}\n")).count();
        let lines = (line("begin"), line("end"), text.lines().count());
        story.same(lines, (1, 1, 2), "its output is whole");
    }

    story.step("an answer that is lost makes no second set");
    let lost = cluster_file(&lab.dir().join("lost"), "lost", lab.ami(), TWINS);
    lab.verb(&["fault", "RunInstances", "--drop-answer"]);
    let calls = lab.calls("RunInstances");
    master.launched(&lost, 0);
    let made = lab.calls("RunInstances") - calls;
    story.check(made > 1, "the first answer was lost", made);
    one_set(&mut story, &lab, &master, "lost");

    story.step("nor does one that is lost together with the master");
    let gone = cluster_file(&lab.dir().join("gone"), "gone", lab.ami(), TWINS);
    lab.verb(&["fault", "RunInstances", "--drop-answer", "--count", "99"]);
    let calls = lab.calls("RunInstances");
    let launch = master.launch(&gone);
    wait::until(
        || lab.calls("RunInstances") > calls,
        LAUNCH,
        "the call is made",
    );
    master.crash();
    lab.verb(&["clear-faults"]);
    let made = lab.cloud("gone").instances.len();
    story.same(made, 2, "the machines are there, and no master knows");
    master.serve();
    launch.finish(LAUNCH).expect(0);
    master.launched(&gone, 0);
    one_set(&mut story, &lab, &master, "gone");

    story.step("cleanup");
    for cluster in ["crash", "lost", "gone"] {
        story.same(master.cleanup(cluster).code, Some(0), "cleanup");
        let cloud = lab.cloud(cluster);
        story.check(cloud.instances.is_empty(), "nothing is left", cloud);
    }
    master.stop();
    lab.end();
    story.end();
}

/// The cluster has the two machines that the master knows, and no others were made.
fn one_set(story: &mut Story, lab: &Lab, master: &Master, cluster: &str) {
    let cloud = lab.cloud(cluster);
    let (_, instances) = master.json(&["--cluster", cluster, "list"]);
    let known = instances
        .iter()
        .map(|i| i["machine_id"].as_str().unwrap_or_default().to_owned());
    let there = cloud.instances.iter().map(|i| i.id.clone());
    story.same(
        there.collect::<BTreeSet<_>>(),
        known.collect::<BTreeSet<_>>(),
        "the machines are those that the master knows",
    );
    story.same(cloud.instances.len(), 2, "one set of machines");
    story.check(
        cloud.terminated.is_empty(),
        "none was thrown away",
        &cloud.terminated,
    );
    for instance in &instances {
        story.same(instance["phase"].as_str(), Some("ready"), "it is ready");
    }
}
