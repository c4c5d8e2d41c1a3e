//! A cluster for the tests of what only reads one. Never in the program itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::batch::{Batch, BatchState, PlannedPool};
use super::cluster::Cluster;
use super::hash::sha256_hex;
use super::instance::{Instance, NodeFacts};
use super::key::ClusterUuid;
use super::machine::{ClientToken, Machine, MachineState};
use super::phase::Phase;
use super::prerequisites::Prerequisites;
use super::spec::{
    ClusterSpec, LaunchPolicy, MachineSpec, MemberSpec, MinReady, OnFailure, PoolSpec, ProviderKind,
};
use super::stage::StagePlan;

fn pool_of(name: &str, members: impl IntoIterator<Item = String>) -> PoolSpec {
    let member = |name: String| MemberSpec {
        name: name.parse().expect("a name"),
        hostname: name,
    };
    PoolSpec {
        name: Some(name.parse().expect("a name")),
        members: members.into_iter().map(member).collect(),
        owner: None,
        user: None,
        machine: MachineSpec::default(),
        stages: Vec::new(),
        update: Default::default(),
        health: None,
    }
}

/// A pool of `NAME1`, `NAME2`, ..., of which nothing else is said.
pub fn pool(name: &str, size: usize) -> PoolSpec {
    pool_of(name, (1..=size).map(|number| format!("{name}{number}")))
}

/// A file of these pools: all of it is to be ready within a minute, and nothing is replaced.
pub fn file(name: &str, provider: ProviderKind, pools: Vec<PoolSpec>) -> ClusterSpec {
    ClusterSpec {
        name: name.parse().expect("a name"),
        provider,
        region: None,
        launch: LaunchPolicy {
            min_ready: MinReady::All,
            on_failure: OnFailure::Keep,
            timeout: Duration::from_secs(60),
            replace: 0,
        },
        attestation: Default::default(),
        security_groups: Vec::new(),
        ssh: Default::default(),
        cluster_facts: Default::default(),
        discovery_url: None,
        groups: BTreeMap::new(),
        vars: Default::default(),
        secrets: BTreeMap::new(),
        pools,
        base_dir: "/".into(),
    }
}

/// A stage with its name as its key, and nothing else.
pub fn stage_plan(name: &str) -> StagePlan {
    StagePlan {
        name: name.to_owned(),
        bundle_sha256: sha256_hex(name.as_bytes()),
        bundle_bytes: 1,
        args: Vec::new(),
        env: BTreeMap::new(),
        timeout: None,
        silence_timeout: None,
        needs: Vec::new(),
        key: name.to_owned(),
        templates: false,
        secrets: Vec::new(),
        secret_versions: BTreeMap::new(),
    }
}

/// What is made of a file at first: no instance is planned.
pub fn empty_cluster(spec: ClusterSpec) -> Cluster {
    Cluster {
        spec,
        file: "/cluster.yml".into(),
        uuid: ClusterUuid::new("uuid"),
        generation: 1,
        facts_sha256: String::new(),
        launch: None,
        batches: BTreeMap::new(),
        prerequisites: Prerequisites::default(),
        prepared_for: None,
        strays: BTreeMap::new(),
        proof: Default::default(),
        challenges: BTreeMap::new(),
        secrets: BTreeMap::new(),
        cleaning: false,
        instances: BTreeMap::new(),
    }
}

/// A call that was planned for these members, and not made yet.
pub fn batch(token: &str, pool: PlannedPool, members: Vec<MemberSpec>) -> Batch {
    Batch {
        token: ClientToken(token.to_owned()),
        pool: pool.label().to_owned(),
        members,
        attempt: 1,
        spec: pool,
        choice: Default::default(),
        zone: None,
        join_sha256: String::new(),
        proof: Default::default(),
        boot: Default::default(),
        state: BatchState::Requested,
        calls: 0,
        next_call_ms: 0,
        unsure_ms: 0,
        doubt_until_ms: 0,
        last_error: String::new(),
        in_flight: false,
        created_ms: 0,
    }
}

/// A machine of which its provider says nothing but its state.
pub fn bare_machine(id: &str, state: MachineState) -> Machine {
    Machine {
        id: id.parse().expect("an id"),
        client_token: None,
        launch_index: 0,
        name: None,
        state,
        state_reason: String::new(),
        private_ip: None,
        public_ip: None,
        private_dns: None,
        public_dns: None,
        instance_type: None,
        availability_zone: None,
        region: None,
        subnet: None,
        image: None,
        launched_at: None,
        tags: BTreeMap::new(),
        volumes: Vec::new(),
        account: None,
    }
}

/// A running machine with the addresses 10.0.0.N and 192.0.2.N.
pub fn machine(name: &str, number: u32) -> Machine {
    Machine {
        name: Some(name.parse().expect("a name")),
        private_ip: Some(format!("10.0.0.{number}")),
        public_ip: Some(format!("192.0.2.{number}")),
        instance_type: Some("m5.large".to_owned()),
        availability_zone: Some("us-west-2a".to_owned()),
        region: Some("us-west-2".to_owned()),
        tags: [("env".to_owned(), "prod".to_owned())].into(),
        ..bare_machine(&format!("i-0{number:03}"), MachineState::Running)
    }
}

/// What an honest machine reports.
pub fn node_facts() -> NodeFacts {
    NodeFacts {
        node: json!({"os": {"name": "debian"}, "cpus": 2}).into(),
        ssh_host_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA root@web".to_owned()],
        root_public_key: String::new(),
        user_public_key: String::new(),
        main_user: "debian".to_owned(),
    }
}

/// Cluster `c`: a pool `web` of web1, web2 and web10, a pool `db` of db1; all ready, with facts, but web10, which is
/// only planned. The saved group `front` is the pool, `bad` can't be read.
pub fn cluster() -> Cluster {
    let admin = |name: &str, members: &[&str]| PoolSpec {
        user: Some("admin".to_owned()),
        ..pool_of(name, members.iter().map(ToString::to_string))
    };
    let pools = vec![
        admin("web", &["web1", "web2", "web10"]),
        admin("db", &["db1"]),
    ];
    let spec = ClusterSpec {
        region: Some("us-west-2".to_owned()),
        groups: [("front", "pool:web"), ("bad", "web[")]
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .into(),
        ..file("c", ProviderKind::Ec2, pools)
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
        instances,
        ..empty_cluster(spec)
    }
}
