//! What the master holds in memory of a cluster's instances, their facts and the cluster facts that are made of them. In a process of
//! its own, since resident memory is a process's.

use aot_model::cluster::Cluster;
use aot_model::facts;
use aot_model::hash::JoinKey;
use aot_model::instance::NodeFacts;
use aot_model::samples;
use aot_model::world::{Effect, Input, World};
use serde_json::{Value, json};

const INSTANCES: usize = 4_000;

/// Most for each, with facts of 4 KiB: these once as text and once as cluster facts, where they are indented, and its record.
const EACH_BYTES: usize = 17 << 10;

/// About as much as a machine reports, and text that hardly compresses: 4 KiB in all.
fn node(number: usize) -> Value {
    let disk = |n: usize| json!({"name": format!("/dev/vd{n}"), "mount": format!("/data/{n}"), "fs": "ext4", "total_bytes": 107_374_182_400_u64});
    let disks: Vec<Value> = (0..6).map(disk).collect();
    json!({
        "text": format!("{number:016x}").repeat(3072 / 16),
        "hostname": format!("n{number}"), "cpus": 2, "cpu_model": "simulated", "memory_bytes": 8_589_934_592_u64,
        "kernel": "6.1.0-18-amd64", "os": "debian 12", "architecture": "x86_64", "disks": disks,
        "networks": [{"name": "ens5", "mac": "06:00:00:00:00:01", "addresses": ["10.0.0.1"]}],
    })
}

fn cluster() -> Cluster {
    let mut cluster = samples::cluster();
    let like = cluster.instances.values().find(|it| facts::counts(it));
    let like = like.expect("one has facts").clone();
    cluster.instances.clear();
    for number in 0..INSTANCES {
        let mut instance = like.clone();
        instance.name = format!("web{number}").parse().expect("a name");
        let facts = NodeFacts {
            node: node(number).into(),
            ..samples::node_facts()
        };
        instance.facts = Some(facts.into());
        cluster.instances.insert(instance.name.clone(), instance);
    }
    cluster
}

/// Resident memory of this process (proc(5), status).
fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("is there");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.map_or(0, |kib: usize| kib << 10)
}

#[test]
fn an_instance_holds_little_more_than_its_facts_twice() {
    let len = node(1).to_string().len();
    assert!((3500..4500).contains(&len), "{len} bytes");
    let before = resident_bytes();
    let key = JoinKey::new(b"key");
    let mut world = World::new(vec![cluster()], Vec::new(), Vec::new(), key, [1; 32], 1);
    world.step(Input::Tick, 10_000);
    let made = |effect: &Effect| matches!(effect, Effect::Event(event) if event.kind == "cluster-facts-renewed");
    assert!(
        world.reconcile(10_000).iter().any(made),
        "cluster facts are made"
    );
    drop(world.drain_changes());
    let each = (resident_bytes() - before) / INSTANCES;
    println!("{each} bytes an instance");
    assert!(each < EACH_BYTES, "{each} bytes an instance");
}
