//! The world against a provider and agents that behave, in any order and with any crash of the master between. Each
//! behaviour has a file of its own; this one has what they share.

mod addresses;
mod any_order;
mod applies;
mod attest;
mod batches;
mod boot_timeout;
mod calls;
mod challenge;
mod cleanup;
mod commands;
mod disk;
mod enrolment;
mod facts;
mod from_agent;
mod gone;
mod growth;
mod identity;
mod jobs;
mod joining;
mod launches;
mod levels;
mod lifecycle;
mod lost;
mod needs;
mod orphans;
mod outlived;
mod prerequisites;
mod request;
mod revoke;
mod rolling;
mod rolling_cost;
mod rolling_waits;
mod secrets;
mod shells;
mod sim;
mod stages;
mod templates;
mod updates;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use aot_proto::ids::{ClusterName, InstanceName, JobId, MachineId, RunId};
use aot_proto::v1::{self, EndKind, master_message::Body};
use proptest::prelude::*;

use super::*;
use crate::attestation::{Secret, ShownDocument};
use crate::batch::BootRecord;
use crate::hash::sha256_hex;
use crate::instance::NodeFacts;
use crate::job::JobKind;
use crate::key::{ClusterId, ClusterUuid};
use crate::machine::{
    AttachedVolume, ClientToken, ElasticIp, ErrorKind, Leftovers, Listing, Machine, MachineState,
};
use crate::outcome::{Outcome, Verdict};
use crate::pace::Pace;
use crate::phase::Phase;
use crate::prerequisites::Prerequisites;
use crate::samples;
use crate::spec::{ClusterSpec, MinReady, OnFailure, ProviderKind};
use crate::stage::{StagePlan, StageState};
use crate::task::{Exec, Task};
use disk::Disk;
use sim::Sim;

fn cluster() -> ClusterName {
    "c".parse().expect("a name")
}

/// The cluster of these tests, by the uuid that its launches bring.
fn cluster_id() -> ClusterId {
    ClusterId {
        name: cluster(),
        uuid: ClusterUuid::new("uuid"),
    }
}

fn key(name: &str) -> InstanceKey {
    InstanceKey {
        cluster: cluster(),
        instance: name.parse().expect("a name"),
    }
}

fn spec(sizes: &[usize], types: &[&str]) -> ClusterSpec {
    let pool = |(n, size): (usize, &usize)| {
        let label = char::from(b'a' + u8::try_from(n).expect("few pools")).to_string();
        let mut pool = samples::pool(&label, *size);
        pool.machine.types = types.iter().map(ToString::to_string).collect();
        pool
    };
    let pools = sizes.iter().enumerate().map(pool).collect();
    let mut spec = samples::file(cluster().as_str(), ProviderKind::Local, pools);
    spec.attestation = crate::attestation::Attestation::Token;
    spec.launch.timeout = Duration::from_secs(600);
    spec
}

fn stage(content: &str) -> StagePlan {
    samples::stage_plan(content)
}

fn ask(spec: &ClusterSpec, stages: &[&str]) -> Input {
    let plans: Vec<StagePlan> = stages.iter().map(|content| stage(content)).collect();
    Input::Launch(Box::new(LaunchAsk {
        spec: spec.clone(),
        file: "/cluster.yml".into(),
        stages: spec
            .pools
            .iter()
            .map(|pool| (pool.label().to_owned(), plans.clone()))
            .collect(),
        prune: false,
        timeout: None,
        pace: Default::default(),
        secrets: BTreeMap::new(),
        boot: BootRecord::default(),
        certificate: RegionCertificate {
            region: "eu-west-1".to_owned(),
            there: true,
        },
        fresh_uuid: "uuid".to_owned(),
        operator: "test".to_owned(),
        request: None,
    }))
}

fn exec(sim: &mut Sim, names: &[&str]) -> JobId {
    let instances: Vec<InstanceName> = names
        .iter()
        .map(|name| name.parse().expect("a name"))
        .collect();
    let exec = Exec {
        argv: vec!["true".to_owned()],
        ..Exec::default()
    };
    let answer = sim.input(Input::Exec(ExecAsk {
        cluster: cluster(),
        instances,
        kind: JobKind::Exec,
        task: Task::Command(exec),
        pace: Pace::default(),
        queue_ms: 0,
        what: String::new(),
        operator: String::new(),
        request: None,
    }));
    match answer {
        Answer::Exec { job, .. } => job,
        other => panic!("{other:?}"),
    }
}

fn outcome(sim: &Sim, job: JobId, name: &str) -> Option<Outcome> {
    let verdict: Option<&Verdict> = sim.world.jobs[&job].targets[&key(name).instance].as_ref();
    verdict.map(|verdict| verdict.outcome)
}

fn first_token(sim: &Sim) -> String {
    let batches = &sim.world.clusters[&cluster()].batches;
    batches.keys().next().expect("one batch").clone()
}

fn instance<'a>(sim: &'a Sim, name: &str) -> &'a Instance {
    sim.world.instance(&key(name)).expect("is there")
}

fn failure(kind: ErrorKind) -> CallFailure {
    CallFailure {
        kind,
        leftovers: Leftovers::None,
        message: "no".to_owned(),
    }
}

fn machine(token: &str, index: usize) -> Machine {
    let id = format!("i-{}-{index}", &sha256_hex(token.as_bytes())[..8]);
    Machine {
        client_token: Some(ClientToken(token.to_owned())),
        launch_index: u32::try_from(index).expect("few"),
        private_ip: Some(format!("10.0.0.{index}")),
        availability_zone: Some("zone-a".to_owned()),
        region: Some("eu-west-1".to_owned()),
        launched_at: Some(std::time::SystemTime::UNIX_EPOCH),
        account: Some("123456789012".to_owned()),
        ..samples::bare_machine(&id, MachineState::Running)
    }
}

fn run(sim: &mut Sim, seconds: u64) {
    for _ in 0..seconds / 2 {
        sim.perform_all();
        sim.now += 2_000;
        sim.input(Input::Tick);
    }
    sim.perform_all();
}

fn last_code(sim: &Sim) -> u32 {
    sim.ended.last().expect("ended").1
}
