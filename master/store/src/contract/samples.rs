//! Records for the checks, and for tests of an engine's own.

use std::sync::Arc;

use aot_model::cluster::Cluster;
use aot_model::instance::{Instance, NodeFacts};
use aot_model::job::{Job, JobKind, TargetRecord};
use aot_model::key::InstanceKey;
use aot_model::outcome::{Outcome, Verdict};
use aot_model::run::{LongOutput, Run, RunKind, RunState};
use aot_model::samples;
use aot_proto::ids::{InstanceName, JobId, RunId};

/// The cluster of all that is here, without instances.
pub fn cluster() -> Cluster {
    Cluster {
        instances: Default::default(),
        ..samples::cluster()
    }
}

/// An instance of [`cluster`] that has joined, so that its facts are loaded.
pub fn instance(name: &str) -> (InstanceKey, Instance) {
    let joined = r#"{"key_sha256": "k", "enrolled_ms": 1, "serial": "1", "expires_unix": 1}"#;
    let of_pool = samples::pool("web", 1);
    let mut instance = Instance::planned(&of_pool, &of_pool.members[0]);
    instance.name = name.parse().expect("a name");
    instance.identity = Some(serde_json::from_str(joined).expect("an identity"));
    let key = InstanceKey {
        cluster: cluster().spec.name,
        instance: instance.name.clone(),
    };
    (key, instance)
}

/// Facts of these.
pub fn facts_of(instances: &[(InstanceKey, Instance)]) -> Vec<(InstanceKey, Arc<NodeFacts>)> {
    let facts = |(key, _): &(InstanceKey, Instance)| (key.clone(), samples::node_facts().into());
    instances.iter().map(facts).collect()
}

/// A job of [`cluster`]; it ended at 2 ms.
pub fn job(id: u64, ended: bool) -> Job {
    Job {
        ended_ms: ended.then_some(2),
        ..Job::new(
            JobId::from_parts(id, 0),
            JobKind::Exec,
            cluster().spec.name,
            "x".to_owned(),
            "root".to_owned(),
            1,
        )
    }
}

/// A run of a job, on the instance `a`.
pub fn run(id: u64, job: u64, ended: bool) -> Run {
    Run {
        id: RunId::from_parts(id, 0),
        job: JobId::from_parts(job, 0),
        cancel: None,
        cancelled_ms: 0,
        at: instance("a").0,
        what: RunKind::Stage {
            index: 0,
            attempt: 1,
        },
        state: RunState::Asked,
        asked_ms: 1,
        verdict: ended.then(|| Verdict::without_run(Outcome::Failed, "x")),
        output: ended.then(|| LongOutput {
            bytes: 1 << 20,
            ended: true,
            at: "host:/folder".to_owned(),
        }),
    }
}

/// `size` targets of a job that wait in the order of their names' numbers.
pub fn targets(job: u64, size: u32) -> Vec<(JobId, InstanceName, TargetRecord)> {
    let target = |place: u32| {
        let name = format!("a{place}").parse().expect("a name");
        let record = TargetRecord {
            place: Some(place),
            end: None,
        };
        (JobId::from_parts(job, 0), name, record)
    };
    (0..size).map(target).collect()
}
