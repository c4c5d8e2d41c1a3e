//! Machines that are stopped, started, rebooted and terminated: agents come back by themselves, and facts follow.

use std::time::Duration;

use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::wait;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);
const REST: &str = "launch: {timeout: 240s}
instances: [{name: manager}]
pools: [{name: web, size: 2, bootstrap_sequence: [{dir: stage}]}]
";

#[test]
fn machines_are_stopped_started_rebooted_and_terminated() {
    let Some(lab) = Lab::start() else { return };
    let master = Master::start(&lab, "moves", 7440);
    let dir = lab.dir().join("files");
    bundle::folder(&dir.join("stage"), "echo ran >> /var/tmp/ran\n");
    let file = cluster_file(&dir, "moves", lab.ami(), REST);
    let mut story = Story::default();

    story.step("launch");
    master.launched(&file, 0);
    let ids = master.machine_ids();
    let before = known(&lab, &ids["manager"]);

    story.step("stop");
    stops(&mut story, &master);

    story.step("start: the agents come back with new addresses");
    starts(&mut story, &lab, &master, &before);
    story.same(&master.machine_ids(), &ids, "the same machines");

    story.step("reboot");
    reboots(&mut story, &lab, &master, &ids["web2"]);

    story.step("wait");
    let done = master.run(&["wait", "*", "--state", "running"]);
    story.same(done.code, Some(0), "all are running");
    let done = master.run(&["wait", "web1", "--state", "stopped", "--timeout", "1s"]);
    story.same(done.code, Some(1), "what does not come is exit code 1");
    story.check(done.stderr.contains("in time"), "and it says so", &done);

    story.step("a launch starts what is stopped");
    master.run(&["stop", "web1", "--yes"]).expect(0);
    let calls = lab.calls("RunInstances");
    master.launched(&file, 0);
    story.same(lab.calls("RunInstances"), calls, "no machine is made");
    // Its agent may be back before the API says more than `pending`.
    let done = master.run(&["wait", "web1", "--state", "running"]);
    story.same(done.code, Some(0), "web1 runs again");
    all_answer(&mut story, &master);

    story.step("terminate");
    terminates(&mut story, &lab, &master);
    story.same(master.cleanup("moves").code, Some(0), "cleanup");
    master.stop();
    lab.end();
    story.end();
}

/// The facts of a machine and their generation.
struct Known {
    facts: Value,
    generation: u64,
}

fn known(lab: &Lab, machine: &str) -> Known {
    let read = |path: &str| -> Value {
        let text = lab.on(machine, &format!("cat {path}")).text();
        serde_json::from_str(&text).unwrap_or_default()
    };
    let state = read("/etc/aot/cluster_state.json");
    Known {
        facts: read("/etc/cluster_facts.json"),
        generation: state["generation"].as_u64().unwrap_or_default(),
    }
}

fn all_answer(story: &mut Story, master: &Master) {
    let asked = master.run(&["exec", "*", "ping"]);
    story.same(asked.code, Some(0), "all agents answer");
}

/// Progress, agents, and what the others are told of the new addresses.
fn starts(story: &mut Story, lab: &Lab, master: &Master, before: &Known) {
    let done = master.run(&["start", "web*"]);
    done.expect(0);
    let shown = done.stderr.contains("[2/2] instances 'running'");
    story.check(shown, "the last line of progress", &done);
    all_answer(story, master);
    let now = master.status("web1")["public_ip"].clone();
    let then = &before.facts["web1"]["public_ip"];
    story.check(
        now.is_string() && now != *then,
        "a new public address",
        (then, &now),
    );
    let ids = master.machine_ids();
    let has = |id: &String| known(lab, id).facts["web1"]["public_ip"] == now;
    wait::until(
        || ids.values().all(has),
        SOON,
        "all have the new address of web1",
    );
    // Both addresses are seen at once, or one after the other.
    let more = known(lab, &ids["manager"]).generation - before.generation;
    story.check(
        (1..=2).contains(&more),
        "a new generation for new addresses, and no other",
        more,
    );
}

fn reboots(story: &mut Story, lab: &Lab, master: &Master, machine: &str) {
    let boots = lab.machine(machine).boots;
    master.run(&["reboot", "web2", "--yes"]).expect(0);
    let now = lab.machine(machine).boots;
    story.same(now, boots.map(|n| n + 1), "it has booted again");
    let asked = master.run(&["exec", "web2", "ping"]);
    story.same(asked.code, Some(0), "its agent is back when reboot ends");
    let ran = lab.sure(machine, "cat /var/tmp/ran");
    story.same(ran.as_str(), "ran\n", "no stage ran again");
}

fn stops(story: &mut Story, master: &Master) {
    let refused = master.run(&["stop", "web*"]);
    story.check(
        refused.code != Some(0),
        "without a terminal and --yes nothing is stopped",
        &refused,
    );
    story.same(
        master.status("web1")["state"].as_str(),
        Some("running"),
        "it runs on",
    );
    let done = master.run(&["stop", "web*", "--yes"]);
    done.expect(0);
    story.check(
        done.stderr.contains("/2] instances 'stopped', waiting..."),
        "it shows how far it is",
        &done.stderr,
    );
    story.check(
        done.stderr.contains("[2/2] instances 'stopped'"),
        "to the end",
        &done.stderr,
    );
    story.same(
        master.run(&["stop", "db*", "--yes"]).code,
        Some(3),
        "no such instance is exit code 3",
    );
    shows_mixed_states(story, master);
}

fn shows_mixed_states(story: &mut Story, master: &Master) {
    let (code, all) = master.json(&["list"]);
    story.same(code, Some(0), "list works on mixed states");
    let states: Vec<_> = all
        .iter()
        .map(|one| (one["name"].as_str(), one["state"].as_str()))
        .collect();
    let wanted = vec![
        (Some("manager"), Some("running")),
        (Some("web1"), Some("stopped")),
        (Some("web2"), Some("stopped")),
    ];
    story.same(states, wanted, "the states");
    for option in ["-o", "-p", "-q", "-s"] {
        story.same(
            master.run(&["list", option]).code,
            Some(0),
            &format!("list {option} on mixed states"),
        );
    }
    story.same(
        master.status("web1")["public_ip"].as_str(),
        None,
        "a stopped machine has no public address",
    );
    story.same(
        master.status("web1")["agent"]["connected"].as_bool(),
        Some(false),
        "and no agent",
    );
    let (_, lines) = master.json(&["exec", "web1", "ping"]);
    story.same(
        lines[0]["outcome"].as_str(),
        Some("absent"),
        "what is asked of it is settled at once",
    );
}

fn terminates(story: &mut Story, lab: &Lab, master: &Master) {
    let status = master.status("web2");
    let addresses: Vec<String> = ["private_ip", "public_ip"]
        .iter()
        .filter_map(|key| status[*key].as_str().map(str::to_owned))
        .collect();
    story.same(addresses.len(), 2, "it has two addresses");
    let done = master.run(&["terminate", "web2", "--yes"]);
    done.expect(0);
    story.check(
        done.stderr.contains("[1/1] instances 'terminated'"),
        "it shows how far it is",
        &done.stderr,
    );
    let list = master.run(&["list", "-p"]).text();
    for address in &addresses {
        story.check(
            !list.contains(address.as_str()),
            "no address once terminated",
            &list,
        );
    }
    let status = master.status("web2");
    story.same(status["phase"].as_str(), Some("gone"), "its phase");
    story.same(
        (
            status["private_ip"].as_str(),
            status["public_ip"].as_str(),
            status["public_dns"].as_str(),
        ),
        (None, None, None),
        "nor in status",
    );
    let manager = master.machine("manager");
    wait::until(
        || known(lab, &manager).facts.get("web2").is_none(),
        SOON,
        "nobody is told of it any more",
    );
}
