//! A launch on local clones: what it runs, what it leaves on every machine, and what the next launch makes of it.

use std::collections::BTreeMap;
use std::path::Path;

use aot_tests::bundle::{self, Entry};
use aot_tests::rig::{Output, Rig};
use serde_json::{Value, json};

/// Writes down which stage ran, and in which attempt.
const LEDGER: &str = "echo \"$AOT_STAGE $AOT_ATTEMPT\" >> /opt/ledger\n";

const FIVE: [&str; 5] = ["head", "node1", "node2", "node3", "node4"];

/// Keys that every entry of the cluster facts has.
const KEYS: [&str; 15] = [
    "name",
    "ip_address",
    "hostname",
    "subnet",
    "main_user",
    "owner",
    "public_ip",
    "private_dns",
    "public_dns",
    "machine_id",
    "instance_type",
    "availability_zone",
    "region",
    "pool",
    "ssh_host_keys",
];

fn pool_of(size: u32) -> String {
    format!(
        "
cluster: pool
provider: local
defaults: {{owner: ann}}
pools:
  - name: node
    size: {size}
    bootstrap_sequence: [{{dir: one}}]
"
    )
}

/// Lines of the ledger: which stage ran, in which attempt.
#[track_caller]
fn ledger(rig: &Rig, instance: &str) -> Vec<String> {
    let text = rig.sh(instance, "cat /opt/ledger");
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn facts(rig: &Rig, instance: &str) -> Value {
    let text = rig.sh(instance, "cat /etc/cluster_facts.json");
    serde_json::from_str(&text).expect("facts are JSON")
}

#[track_caller]
fn cluster_state(rig: &Rig, instance: &str) -> Value {
    let text = rig.sh(instance, "cat /etc/aot/cluster_state.json");
    serde_json::from_str(&text).expect("the state is JSON")
}

#[track_caller]
fn summary(output: &Output) -> Value {
    output.json().last().expect("a last line").clone()
}

fn names(facts: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = facts
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

/// Lines between the marks of the only block in a file.
#[track_caller]
fn block(text: &str) -> Vec<&str> {
    let count = |mark: &str| text.lines().filter(|line| line.starts_with(mark)).count();
    assert_eq!(
        (count("# BEGIN aot"), count("# END aot")),
        (1, 1),
        "one block in\n{text}"
    );
    let inside = text
        .lines()
        .skip_while(|line| !line.starts_with("# BEGIN aot"))
        .skip(1);
    inside
        .take_while(|line| !line.starts_with("# END aot"))
        .collect()
}

#[test]
fn five_instances_with_two_stages_each() {
    let rig = Rig::local();
    let first = format!("{LEDGER}grep -c . /etc/cluster_facts.json > /opt/facts-at-stage-0\n");
    bundle::archive(
        &rig.dir().join("first.tar.gz"),
        &[Entry::File("bootstrap.sh", &first)],
    );
    let second = format!(
        "{LEDGER}pwd > /opt/pwd\nid -u > /opt/uid\nprintf '%s\\n' \"$@\" > /opt/args\n\
         env | grep -E '^(AOT_|HOME=|MORE=)' | sort > /opt/env\n"
    );
    rig.bundle("second", &second);
    rig.cluster(
        "
cluster: five
provider: local
defaults: {owner: ann}
instances:
  - name: head
    bootstrap_sequence:
      - tar: first.tar.gz
      - {dir: second, args: [--level, \"0 1\", $cluster_name], env: {MORE: a b}}
pools:
  - name: node
    size: 4
    bootstrap_sequence: [{tar: first.tar.gz}, {dir: second}]
",
    );

    let output = rig.launch();

    output.expect(0);
    assert_eq!(
        summary(&output),
        json!({"cluster": "five", "summary": {"ready": 5}})
    );
    events_have_their_keys(&output);
    rig.cli(["wait", "*", "--state", "running"]).expect(0);
    let status = rig.status();
    assert_eq!(status.keys().collect::<Vec<_>>(), FIVE);
    for (name, view) in &status {
        assert_eq!(
            (view["phase"].as_str(), view["state"].as_str()),
            (Some("ready"), Some("running")),
            "{name}"
        );
        assert_eq!(view["agent"]["connected"], true, "{name}");
        assert_eq!(ledger(&rig, name), ["0 1", "1 1"], "{name}: in order, once");
        stages_are_told_in_order(&output, name);
        facts_are_whole(&rig, name, &status);
        blocks_name_every_peer(&rig, name, &status);
        assert_ne!(
            rig.sh(name, "cat /opt/facts-at-stage-0"),
            "0",
            "{name}: facts before stages"
        );
    }
    stage_environment(&rig);
}

/// `{"time","cluster","instance","event",...}` on every line but the last.
#[track_caller]
fn events_have_their_keys(output: &Output) {
    let lines = output.json();
    let (_, events) = lines.split_last().expect("lines");
    for event in events {
        assert!(
            event["time"]
                .as_str()
                .is_some_and(|time| time.ends_with('Z')),
            "{event}"
        );
        assert_eq!(event["cluster"], "five", "{event}");
        assert!(
            event["instance"].is_string() || event["instance"].is_null(),
            "{event}"
        );
        assert!(event["event"].is_string(), "{event}");
    }
}

#[track_caller]
fn stages_are_told_in_order(output: &Output, name: &str) {
    let lines = output.json();
    let told: Vec<(&str, u64)> = lines
        .iter()
        .filter(|line| line["instance"] == name)
        .filter_map(|line| Some((line["event"].as_str()?, line["stage"].as_u64()?)))
        .collect();
    let wanted = [
        ("stage-started", 0),
        ("stage-ended", 0),
        ("stage-started", 1),
        ("stage-ended", 1),
    ];
    assert_eq!(told, wanted, "{name}");
}

#[track_caller]
fn facts_are_whole(rig: &Rig, name: &str, status: &BTreeMap<String, Value>) {
    let facts = facts(rig, name);
    assert_eq!(names(&facts), FIVE, "{name}");
    for (peer, entry) in facts.as_object().expect("an object") {
        for key in KEYS {
            assert!(
                entry.get(key).is_some(),
                "{name}: facts of {peer} have no {key}"
            );
        }
        let view = &status[peer];
        assert_eq!(entry["name"], peer.as_str());
        assert_eq!(entry["ip_address"], view["private_ip"], "{name}: {peer}");
        assert_eq!(entry["machine_id"], view["machine_id"], "{name}: {peer}");
        assert_eq!(entry["pool"], view["pool"], "{name}: {peer}");
        assert_eq!(entry["hostname"], peer.as_str());
        assert_eq!(entry["owner"], "ann");
        assert!(
            entry["node"]["os"].is_object(),
            "{name}: {peer} reported its own facts"
        );
        assert_eq!(
            entry["ssh_host_keys"].as_array().map(Vec::is_empty),
            Some(false),
            "{peer}"
        );
    }
    let state = cluster_state(rig, name);
    let sum = rig.sh(name, "sha256sum < /etc/cluster_facts.json | cut -d' ' -f1");
    assert_eq!(
        state,
        json!({"generation": 1, "sha256": sum, "complete": true, "missing": []}),
        "{name}"
    );
}

#[track_caller]
fn blocks_name_every_peer(rig: &Rig, name: &str, status: &BTreeMap<String, Value>) {
    let hosts = rig.sh(name, "cat /etc/hosts");
    let wanted: Vec<String> = status
        .iter()
        .map(|(peer, view)| {
            format!(
                "{} {peer}",
                view["private_ip"].as_str().expect("an address")
            )
        })
        .collect();
    assert_eq!(block(&hosts), wanted, "{name}");
    assert_eq!(rig.sh(name, "hostname"), name);
    assert_eq!(
        rig.sh(name, "getent hosts node3 | cut -d' ' -f1"),
        status["node3"]["private_ip"],
        "{name} finds its peers by name"
    );

    let keys = rig.sh(name, "cat /root/.ssh/authorized_keys");
    let known = rig.sh(name, "cat /etc/ssh/ssh_known_hosts");
    let (keys, known) = (block(&keys), block(&known));
    for (peer, view) in status {
        let own = rig.sh(peer, "cut -d' ' -f1,2 /root/.ssh/id_*.pub");
        let held = keys.iter().filter(|line| line.contains(&own)).count();
        assert_eq!(held, 1, "{name} lets root of {peer} in: {keys:?}");
        let host_key = rig.sh(peer, "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub");
        let address = view["private_ip"].as_str().expect("an address");
        let knows = known.iter().any(|line| {
            let hosts: Vec<&str> = line
                .split(' ')
                .next()
                .unwrap_or_default()
                .split(',')
                .collect();
            hosts.contains(&peer.as_str()) && hosts.contains(&address) && line.contains(&host_key)
        });
        assert!(knows, "{name} knows {peer}: {known:?}");
    }
}

#[track_caller]
fn stage_environment(rig: &Rig) {
    assert_eq!(rig.sh("head", "cat /opt/args"), "--level\n0 1\nfive");
    assert_eq!(
        rig.sh("head", "cat /opt/uid /opt/pwd"),
        "0\n/var/lib/aot/stages/stage-1"
    );
    assert_eq!(
        rig.sh("head", "stat -c %a:%U /var/lib/aot/stages/stage-1"),
        "700:root"
    );
    let env = [
        "AOT_ATTEMPT=1",
        "AOT_CLUSTER=five",
        "AOT_CLUSTER_FACTS=/etc/cluster_facts.json",
        "AOT_INSTANCE=head",
        "AOT_REBOOTS=0",
        "AOT_STAGE=1",
        "HOME=/root",
        "MORE=a b",
    ];
    assert_eq!(
        rig.sh("head", "cat /opt/env").lines().collect::<Vec<_>>(),
        env
    );
    assert_eq!(rig.sh("node2", "grep -c MORE /opt/env || true"), "0");
}

#[test]
fn a_second_launch_changes_nothing_and_says_so() {
    let rig = Rig::local();
    rig.bundle("one", LEDGER);
    rig.cluster(&pool_of(2));
    rig.launch().expect(0);
    let machines = rig.machines();

    let again = rig.launch();

    again.expect(0);
    assert_eq!(
        again.one(|line| line["event"] == "launch-ended")["changed"],
        false
    );
    assert_eq!(
        summary(&again),
        json!({"cluster": "pool", "summary": {"ready": 2}})
    );
    assert!(
        again.events("stage-started").is_empty(),
        "{}",
        again.shown()
    );
    assert!(
        again.events("instance-requested").is_empty(),
        "{}",
        again.shown()
    );
    assert_eq!(rig.machines(), machines);
    for name in ["node1", "node2"] {
        assert_eq!(ledger(&rig, name), ["0 1"]);
        assert_eq!(cluster_state(&rig, name)["generation"], 1);
    }
    let words = rig.cli(["launch", "--yes", "cluster.yml"]);
    words.expect(0);
    assert!(
        words
            .text()
            .contains("nothing to do: 2 instances are ready"),
        "{}",
        words.shown()
    );
}

#[test]
fn a_changed_stage_is_run_again_with_all_after_it() {
    let rig = Rig::local();
    for name in ["a", "b", "c"] {
        rig.bundle(name, LEDGER);
    }
    let file = |args: &str| {
        rig.cluster(&format!(
            "
cluster: change
provider: local
instances:
  - name: head
    bootstrap_sequence: [{{dir: a}}, {{dir: b}}, {{dir: c, args: [{args}]}}]
"
        ))
    };
    let stages = || -> Vec<String> {
        let first = |line: String| line.split(' ').next().expect("a stage").to_owned();
        ledger(&rig, "head").into_iter().map(first).collect()
    };
    file("x");
    rig.launch().expect(0);
    let machines = rig.machines();
    assert_eq!(stages(), ["0", "1", "2"]);

    rig.bundle("b", &format!("{LEDGER}# changed\n"));
    let output = rig.launch();
    output.expect(0);
    assert_eq!(
        output.one(|line| line["event"] == "launch-ended")["changed"],
        true
    );
    assert_eq!(stages(), ["0", "1", "2", "1", "2"], "a changed bundle");

    file("y");
    rig.launch().expect(0);
    assert_eq!(stages(), ["0", "1", "2", "1", "2", "2"], "changed args");

    // The same content with other times is the same bundle.
    let script = rig.dir().join("a/bootstrap.sh");
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    set_modified(&script, old);
    let output = rig.launch();
    output.expect(0);
    assert_eq!(
        output.one(|line| line["event"] == "launch-ended")["changed"],
        false
    );
    assert_eq!(rig.machines(), machines, "no launch made a machine");
}

fn set_modified(path: &Path, time: std::time::SystemTime) {
    let file = std::fs::File::options()
        .write(true)
        .open(path)
        .expect("the script");
    file.set_modified(time).expect("its time");
}

#[test]
fn a_pool_that_grows_gets_one_machine_and_all_get_new_facts() {
    let rig = Rig::local();
    rig.bundle("one", LEDGER);
    rig.cluster(&pool_of(4));
    rig.launch().expect(0);
    let before = rig.machine_ids();

    rig.cluster(&pool_of(5));
    let plan = rig.cli(["plan", "--json", "cluster.yml"]);
    plan.expect(0);
    let output = rig.launch();

    output.expect(0);
    assert_eq!(
        output.events("instance-requested").len(),
        1,
        "{}",
        output.shown()
    );
    let mut after = rig.machine_ids();
    assert!(after.remove("node5").is_some());
    assert_eq!(after, before, "the others keep their machines");
    assert_eq!(rig.machines().len(), 5);
    for name in ["node1", "node2", "node3", "node4", "node5"] {
        let state = cluster_state(&rig, name);
        assert_eq!(
            (&state["generation"], &state["complete"]),
            (&json!(2), &json!(true)),
            "{name}"
        );
        assert_eq!(
            names(&facts(&rig, name)),
            ["node1", "node2", "node3", "node4", "node5"]
        );
        assert_eq!(block(&rig.sh(name, "cat /etc/hosts")).len(), 5, "{name}");
        assert_eq!(
            block(&rig.sh(name, "cat /root/.ssh/authorized_keys")).len(),
            5,
            "{name}"
        );
        assert_eq!(ledger(&rig, name), ["0 1"], "{name}: no stage again");
    }
}

#[test]
fn a_pool_that_shrinks_leaves_the_rest_unless_told_to_prune() {
    let rig = Rig::local();
    rig.bundle("one", LEDGER);
    rig.cluster(&pool_of(3));
    rig.launch().expect(0);
    let before = rig.machine_ids();

    rig.cluster(&pool_of(2));
    let kept = rig.launch();
    kept.expect(0);
    assert_eq!(rig.machine_ids(), before, "nothing is terminated unasked");
    let notice = kept.one(|line| line["event"] == "notice");
    assert!(
        notice["message"]
            .as_str()
            .is_some_and(|text| text.contains("node3")),
        "{notice}"
    );
    assert_eq!(
        rig.sh("node3", "cat /opt/ledger"),
        "0 1",
        "it still answers"
    );

    let pruned = rig.cli(["launch", "--json", "--yes", "--prune", "cluster.yml"]);
    pruned.expect(0);
    let mut left = before.clone();
    left.remove("node3");
    assert_eq!(rig.machine_ids(), left);
    for name in ["node1", "node2"] {
        assert_eq!(names(&facts(&rig, name)), ["node1", "node2"], "{name}");
        assert_eq!(block(&rig.sh(name, "cat /etc/hosts")).len(), 2, "{name}");
        assert_eq!(
            block(&rig.sh(name, "cat /root/.ssh/authorized_keys")).len(),
            2,
            "{name}"
        );
    }
    // What is gone and no longer wanted is no target of later commands.
    let everyone = rig.cli(["exec", "--json", "*", "ping"]);
    everyone.expect(0);
    assert_eq!(summary(&everyone)["summary"], json!({"succeeded": 2}));
}
