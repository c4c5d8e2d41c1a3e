//! `agents revoke`: a machine is shut out at once, over restarts of its agent and of the master, until there is another.
//! And what narrows a target, what is told of facts, and what other programs are told of live machines.

use std::time::Duration;

use aot_tests::rig::Rig;
use aot_tests::wait;
use serde_json::{Value, json};

/// Longest time until something shows in `status`.
const SOON: Duration = Duration::from_secs(120);

fn launched() -> Rig {
    let rig = Rig::local();
    rig.cluster(
        "
cluster: revoke
provider: local
groups: {edge: 'node* and not node1'}
instances: [{name: head}]
pools: [{name: node, size: 2}]
",
    );
    rig.launch().expect(0);
    rig
}

fn names(rig: &Rig, words: &[&str]) -> Vec<String> {
    let output = rig.cli(words);
    output.expect(0);
    let name = |line: Value| {
        Some(
            line["instance"]
                .as_str()
                .or(line["name"].as_str())?
                .to_owned(),
        )
    };
    let mut names: Vec<String> = output.json().into_iter().filter_map(name).collect();
    names.sort_unstable();
    names
}

fn refused(rig: &Rig) -> usize {
    let log = rig.log();
    let lines = log.lines().filter(|line| line.contains("refused"));
    lines.count()
}

/// Until the agents have been refused once more.
fn knocks_in_vain(rig: &Rig) {
    let before = refused(rig);
    wait::until(
        || refused(rig) > before,
        SOON,
        "a revoked agent comes back, and is refused",
    );
}

#[test]
fn a_revoked_machine_is_shut_out_until_there_is_another() {
    let mut rig = launched();
    let old = rig.machine_ids();

    let unsure = rig.cli(["agents", "revoke", "node1"]);
    assert_eq!(unsure.code, Some(2), "{}", unsure.shown());
    assert_eq!(rig.status()["node1"]["agent"]["connected"], true);

    let revoked = rig.cli(["agents", "revoke", "node1", "--yes", "--json"]);
    revoked.expect(0);
    let line = revoked.one(|line| line["instance"] == "node1");
    assert_eq!(line["machine_id"], json!(old["node1"]));

    let status = &rig.status()["node1"];
    assert_eq!(
        (&status["agent"]["connected"], &status["phase"]),
        (&json!(false), &json!("failed"))
    );
    let agents = rig.cli(["agents", "--json"]);
    let entry = agents.one(|line| line["instance"] == "node1");
    assert!(
        entry["revoked"].is_string() && entry["serial"] == line["serial"],
        "{entry}"
    );
    let absent = rig.cli(["exec", "--json", "node1", "ping"]);
    assert_eq!(
        absent.one(|line| line["instance"] == "node1")["outcome"],
        "absent"
    );
    knocks_in_vain(&rig);

    // The others are told of it no more.
    let peers = "cat /etc/cluster_facts.json; echo; cat /root/.ssh/authorized_keys";
    wait::until(
        || !rig.sh("node2", peers).contains("node1"),
        SOON,
        "the facts and keys of a revoked machine are gone elsewhere",
    );

    rig.kill_master();
    assert_eq!(rig.status()["node2"]["cluster"], "revoke");
    knocks_in_vain(&rig);
    assert_eq!(rig.status()["node1"]["agent"]["connected"], false);
    rig.cli(["agents", "--json"])
        .one(|line| line["instance"] == "node1" && line["revoked"].is_string());

    rig.cli(["terminate", "node1", "--yes"]).expect(0);
    rig.launch().expect(0);
    let status = &rig.status()["node1"];
    assert_eq!(
        (&status["agent"]["connected"], &status["phase"]),
        (&json!(true), &json!("ready"))
    );
    assert_ne!(rig.machine_ids()["node1"], old["node1"]);
    assert_eq!(rig.sh("node1", "echo back"), "back");
    assert_eq!(rig.clean(), Vec::<String>::new());
}

#[test]
fn a_selection_means_the_same_to_every_command() {
    let mut rig = launched();
    for (narrow, wanted) in [
        (&["*", "--exclude", "node2"][..], &["head", "node1"][..]),
        (&["*", "--limit", "2"], &["head", "node1"]),
        (&["*", "--exclude", "head", "--limit", "1"], &["node1"]),
        (&["@edge"], &["node2"]),
        (&["pool:node", "--exclude", "@edge"], &["node1"]),
    ] {
        let with = |first: &[&'static str], last: &[&'static str]| [first, narrow, last].concat();
        assert_eq!(
            names(&rig, &with(&["list", "--json"], &[])),
            wanted,
            "{narrow:?}"
        );
        let pinged = names(&rig, &with(&["exec", "--json"], &["ping"]));
        assert_eq!(pinged, wanted, "{narrow:?}");
        assert_eq!(
            names(&rig, &with(&["facts", "--json"], &[])),
            wanted,
            "{narrow:?}"
        );
    }

    let nobody = rig.cli(["exec", "node*", "--exclude", "pool:node", "ping"]);
    assert_eq!(nobody.code, Some(3), "{}", nobody.shown());
    assert!(
        nobody.stderr.contains("leaves out node1, node2"),
        "{}",
        nobody.shown()
    );
    let bad = rig.cli(["exec", "node1 or", "ping"]);
    assert_eq!(bad.code, Some(2), "{}", bad.shown());
    assert!(
        bad.stderr.contains("\n  node1 or\n          ^\n"),
        "{}",
        bad.shown()
    );

    let facts = rig.cli(["facts", "--json", "head"]);
    let line = facts.one(|line| line["instance"] == "head");
    let claimed = line["facts"]["claimed"].as_array().expect("a list");
    assert!(
        claimed.contains(&json!("node")) && !claimed.contains(&json!("ip_address")),
        "{line}"
    );

    let inventory = rig.cli(["inventory", "--ansible", "--list"]);
    inventory.expect(0);
    let inventory: Value = serde_json::from_str(&inventory.text()).expect("JSON");
    assert_eq!(inventory["edge"], json!({"hosts": ["node2"]}));
    assert_eq!(inventory["node"], json!({"hosts": ["node1", "node2"]}));
    assert_eq!(inventory["ungrouped"], json!({"hosts": ["head"]}));
    let address = &inventory["_meta"]["hostvars"]["node1"]["ansible_host"];
    assert_eq!(*address, line_of(&rig, "node1")["facts"]["ip_address"]);

    let config = rig.cli(["ssh-config", "node1"]);
    config.expect(0);
    let text = config.text();
    assert!(
        text.starts_with("Host node1\n  HostName 127."),
        "{}",
        config.shown()
    );
    let hosts = std::fs::read_to_string(rig.state_dir().join("known_hosts.revoke"));
    let hosts = hosts.expect("the file that the blocks name");
    for name in ["head", "node1", "node2"] {
        assert!(
            hosts
                .lines()
                .any(|line| line.starts_with(&format!("{name} ssh-"))),
            "{hosts}"
        );
    }
    assert_eq!(rig.clean(), Vec::<String>::new());
}

fn line_of(rig: &Rig, instance: &str) -> Value {
    let facts = rig.cli(["facts", "--json", instance]);
    facts.one(|line| line["instance"] == instance)
}
