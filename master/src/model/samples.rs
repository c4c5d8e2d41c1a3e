//! A cluster to look at, for the tests of what only reads. Never in the program itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::cluster::{Cluster, Instance, NodeFacts};
use super::file::{
    ClusterSpec, LaunchPolicy, MachineSpec, MemberSpec, MinReady, OnFailure, PoolSpec, ProviderKind,
};
use super::ground::Ground;
use super::machine::{Machine, MachineState};
use super::phase::Phase;

fn pool(name: &str, members: &[&str]) -> PoolSpec {
    let member = |name: &&str| MemberSpec {
        hostname: (*name).to_owned(),
        name: name.parse().expect("a name"),
    };
    PoolSpec {
        name: Some(name.parse().expect("a name")),
        members: members.iter().map(member).collect(),
        owner: None,
        user: Some("admin".to_owned()),
        machine: MachineSpec::default(),
        stages: Vec::new(),
    }
}

/// A running machine with the addresses 10.0.0.N and 192.0.2.N.
pub fn machine(name: &str, number: u32) -> Machine {
    Machine {
        id: format!("i-0{number:03}").parse().expect("an id"),
        client_token: None,
        launch_index: 0,
        name: Some(name.parse().expect("a name")),
        state: MachineState::Running,
        state_reason: String::new(),
        private_ip: Some(format!("10.0.0.{number}")),
        public_ip: Some(format!("192.0.2.{number}")),
        private_dns: None,
        public_dns: None,
        instance_type: Some("m5.large".to_owned()),
        availability_zone: Some("us-west-2a".to_owned()),
        region: Some("us-west-2".to_owned()),
        subnet: None,
        image: None,
        launched_at: None,
        tags: [("env".to_owned(), "prod".to_owned())].into(),
        volumes: Vec::new(),
    }
}

/// What an honest machine reports.
pub fn node_facts() -> NodeFacts {
    NodeFacts {
        node: json!({"os": {"name": "debian"}, "cpus": 2}),
        ssh_host_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA root@web".to_owned()],
        root_public_key: String::new(),
        user_public_key: String::new(),
        main_user: "debian".to_owned(),
    }
}

/// Cluster `c`: a pool `web` of web1, web2 and web10, a pool `db` of db1; all ready, with facts, but web10, which is
/// only planned. The saved group `front` is the pool, `bad` can't be read.
pub fn cluster() -> Cluster {
    let pools = vec![
        pool("web", &["web1", "web2", "web10"]),
        pool("db", &["db1"]),
    ];
    let spec = ClusterSpec {
        name: "c".parse().expect("a name"),
        provider: ProviderKind::Ec2,
        region: Some("us-west-2".to_owned()),
        launch: LaunchPolicy {
            min_ready: MinReady::All,
            on_failure: OnFailure::Keep,
            timeout: Duration::from_secs(60),
            replace: 0,
        },
        security_groups: Vec::new(),
        discovery_url: None,
        groups: [("front", "pool:web"), ("bad", "web[")]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into(),
        pools,
        base_dir: "/".into(),
    };
    let mut instances = BTreeMap::new();
    let members = spec
        .pools
        .iter()
        .flat_map(|pool| pool.members.iter().map(move |member| (pool, member)));
    for ((pool, member), number) in members.zip(1..) {
        let mut instance = Instance::planned(pool, member);
        if member.name.as_str() != "web10" {
            instance.set_machine(machine(member.name.as_str(), number));
            instance.phase = Phase::Ready;
            instance.facts = Some(Arc::new(node_facts()));
        }
        instances.insert(member.name.clone(), instance);
    }
    Cluster {
        spec,
        file: "/cluster.yml".into(),
        uuid: "uuid".to_owned(),
        generation: 1,
        facts_sha256: String::new(),
        launch: None,
        batches: BTreeMap::new(),
        ground: Ground::default(),
        prepared_for: None,
        strays: BTreeMap::new(),
        cleaning: false,
        instances,
    }
}
