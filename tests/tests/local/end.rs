//! The end of machines, clusters and masters: what is to be gone is gone, what is to stay stays.

use std::fs;

use aot_tests::process;
use aot_tests::rig::{LIMIT, Rig};
use aot_tests::wait;
use serde_json::json;

fn launched(size: u32) -> Rig {
    let rig = Rig::local();
    rig.bundle(
        "one",
        "echo $AOT_ATTEMPT >> /opt/ledger\n(setsid sleep 4247 &)\n",
    );
    rig.cluster(&format!(
        "
cluster: end
provider: local
pools: [{{name: node, size: {size}, bootstrap_sequence: [{{dir: one}}]}}]
"
    ));
    rig.launch().expect(0);
    rig
}

#[test]
fn cleanup_leaves_nothing() {
    let mut rig = launched(3);
    let machines = rig.machines();
    let inside: Vec<u32> = machines
        .iter()
        .flat_map(|machine| process::tree(machine.supervisor_pid().expect("up")))
        .collect();
    assert!(
        inside.len() >= 9,
        "supervisor, pid 1, agent of each: {inside:?}"
    );

    let output = rig.cli(["cleanup", "--yes", "--json"]);

    output.expect(0);
    assert_eq!(
        output.one(|line| line["event"] == "cleanup-ended")["left"],
        0
    );
    for machine in &machines {
        let receipt = output.one(|line| {
            line["event"] == "receipt"
                && line["kind"] == "instance"
                && line["id"] == machine.id.as_str()
        });
        assert_eq!(
            (&receipt["state"], &receipt["left"]),
            (&json!("terminated"), &json!(false))
        );
        assert!(!machine.dir.exists(), "{}", machine.dir.display());
    }
    let notices = output.events("notice");
    assert!(
        notices.is_empty(),
        "nothing went wrong on the way: {notices:?}"
    );
    let left: Vec<u32> = inside
        .into_iter()
        .filter(|pid| process::alive(*pid))
        .collect();
    assert!(left.is_empty(), "processes are left: {left:?}");
    assert!(rig.status().is_empty());
    assert_eq!(
        fs::read_dir(rig.state_dir().join("local/batches")).map_or(0, Iterator::count),
        0
    );
    assert!(rig.clean().is_empty());
}

#[test]
fn cleanup_of_a_cluster_in_the_middle_of_a_launch() {
    let rig = Rig::local();
    rig.bundle("slow", "sleep 4248\n");
    rig.cluster(
        "
cluster: early
provider: local
pools: [{name: node, size: 2, bootstrap_sequence: [{dir: slow}]}]
",
    );
    let mut launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    launch.event("stage-started", "", LIMIT);
    rig.cli(["cleanup", "--yes"]).expect(0);
    let ended = launch.finish(LIMIT);
    assert_ne!(
        ended.code,
        Some(0),
        "it did not become ready: {}",
        ended.shown()
    );
    assert!(rig.machines().is_empty());
    let left = rig.left_but(|line| line.contains(" serve "));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_terminated_instance_gets_a_new_machine_from_the_next_launch() {
    let rig = launched(2);
    let before = rig.machine_ids();

    rig.cli(["terminate", "--yes", "node2"]).expect(0);
    rig.cli([
        "wait",
        "node2",
        "--state",
        "terminated",
        "--timeout",
        "100s",
    ])
    .expect(0);
    assert_eq!(rig.machine_ids().keys().collect::<Vec<_>>(), ["node1"]);
    let status = rig.status();
    assert_eq!(
        (&status["node2"]["phase"], &status["node2"]["state"]),
        (&json!("gone"), &json!("terminated"))
    );
    let absent = rig.cli(["exec", "--json", "node2", "ping"]);
    absent.expect(1);
    assert_eq!(
        absent.one(|line| line["instance"] == "node2")["outcome"],
        "absent"
    );

    rig.launch().expect(0);

    let after = rig.machine_ids();
    assert_eq!(after["node1"], before["node1"]);
    assert_ne!(after["node2"], before["node2"]);
    assert_eq!(rig.sh("node2", "wc -l < /opt/ledger"), "1", "a fresh disk");
    assert_eq!(rig.sh("node1", "cat /opt/ledger"), "1", "not run again");
    let facts = rig.sh("node1", "cat /etc/cluster_facts.json");
    assert!(
        facts.contains(&after["node2"]) && !facts.contains(&before["node2"]),
        "{facts}"
    );
}

#[test]
fn a_machine_that_vanishes_from_outside_is_replaced_by_the_next_launch() {
    let rig = launched(1);
    let machine = rig.machine("node1");
    let record = machine.dir.join("machine.json");
    // What the provider writes when somebody else terminates it.
    process::send(
        machine.supervisor_pid().expect("up"),
        nix::sys::signal::Signal::SIGINT,
    );
    wait::until(
        || machine.supervisor_pid().is_none(),
        LIMIT,
        "the end of the machine",
    );
    let text = fs::read_to_string(&record).expect("its record");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["ending"] = json!({"done": json["launched_ms"].as_u64().expect("a time")
        .max(u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970").as_millis()).expect("fits"))});
    fs::write(&record, json.to_string()).expect("its record");
    rig.cli(["update", "*"]).expect(0);
    wait::until(
        || rig.status()["node1"]["phase"] == "gone",
        LIMIT,
        "the master to see it",
    );

    rig.launch().expect(0);
    assert_ne!(rig.machine("node1").id, machine.id);
    assert_eq!(rig.sh("node1", "cat /opt/ledger | wc -l"), "1");
}

#[test]
fn shutdown_stops_the_master_and_nothing_else() {
    let rig = launched(2);
    let machines = rig.machines();
    let master = rig.master_pid().expect("a master");

    rig.cli(["shutdown"]).expect(0);

    assert!(!process::alive(master));
    assert_eq!(rig.master_pid(), None);
    assert!(
        machines.iter().all(|machine| machine.agent_pid().is_some()),
        "agents stay"
    );
    let output = rig.cli(["exec", "--json", "*", "--", "true"]);
    output.expect(0);
    assert_ne!(rig.master_pid(), Some(master));
    assert_eq!(rig.machines(), machines);
}

#[test]
fn two_commands_at_once_start_one_master() {
    let rig = Rig::local();
    rig.cluster("{cluster: twins, provider: local, instances: [{name: head}]}\n");
    let first = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    let second = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    first.finish(LIMIT).expect(0);
    second.finish(LIMIT).expect(0);
    assert_eq!(rig.machines().len(), 1, "one machine for two launches");
    let masters = process::that_mention(rig.dir())
        .into_values()
        .filter(|line| line.contains(" serve "));
    assert_eq!(masters.count(), 1);
}
