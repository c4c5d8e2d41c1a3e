//! What comes in, for clusters by name.

use aot_model::attestation::{Secret, ShownDocument};
use aot_model::job::JobKind;
use aot_model::key::{ClusterId, ClusterUuid, InstanceKey};
use aot_model::machine::Listing;
use aot_model::pace::Pace;
use aot_model::samples;
use aot_model::spec::ProviderKind;
use aot_model::task::{Exec, Task};
use aot_model::world::{
    AgentInput, ApplyAsk, AskedBy, CallAnswer, DeleteOrphansAsk, EnrolAsk, ExecAsk, Input,
    LaunchAsk, LifecycleAsk,
};
use aot_proto::ids::JobId;

use super::rig::{name, web1};

pub(super) fn at(cluster: &str) -> InstanceKey {
    InstanceKey {
        cluster: name(cluster),
        instance: web1(),
    }
}

pub(super) fn by() -> AskedBy {
    AskedBy {
        what: "as typed".to_owned(),
        operator: "uid 0".to_owned(),
        request: None,
    }
}

pub(super) fn exec(cluster: &str) -> Input {
    Input::Exec(ExecAsk {
        cluster: name(cluster),
        instances: vec![web1()],
        kind: JobKind::Exec,
        task: Task::Command(Exec::default()),
        pace: Pace::default(),
        queue_ms: 60_000,
        what: "exec".to_owned(),
        operator: "uid 0".to_owned(),
        request: None,
    })
}

pub(super) fn launch(cluster: &str) -> Input {
    let pools = vec![samples::pool("web", 2)];
    Input::Launch(Box::new(LaunchAsk {
        spec: samples::file(cluster, ProviderKind::Local, pools),
        file: "/cluster.yml".into(),
        stages: Default::default(),
        secrets: Default::default(),
        prune: false,
        timeout: None,
        pace: Default::default(),
        boot: Default::default(),
        certificate: Default::default(),
        fresh_uuid: format!("uuid of {cluster}"),
        operator: "uid 0".to_owned(),
        request: None,
    }))
}

pub(super) fn boot_step(token: &str) -> Input {
    Input::BootStep {
        token_sha256: token.to_owned(),
        machine: "i-1".parse().expect("an id"),
        step: "agent".to_owned(),
        detail: String::new(),
    }
}

pub(super) fn enrol(token: &str) -> EnrolAsk {
    EnrolAsk {
        token_sha256: token.to_owned(),
        machine: "i-1".parse().expect("an id"),
        key_sha256: "key".to_owned(),
        document: ShownDocument::Nothing,
        answer: Secret(String::new()),
    }
}

pub(super) fn delete_orphans(cluster: &str, uuid: &str) -> Input {
    Input::DeleteOrphans(DeleteOrphansAsk {
        cluster: name(cluster),
        uuid: uuid.to_owned(),
        places: [("local".parse().expect("a name"), None)].into(),
        by: by(),
    })
}

/// All that may come for a cluster that is not there, or not any more.
pub(super) fn of_nobody() -> Vec<Input> {
    let cluster = || name("gone");
    let instances = || vec![web1()];
    let machine = || "i-1".parse().expect("an id");
    let listing = Listing {
        machines: Vec::new(),
        unclear: Vec::new(),
    };
    vec![
        exec("gone"),
        Input::Apply(ApplyAsk {
            cluster: cluster(),
            instances: instances(),
            file: None,
            stages: Default::default(),
            from: None,
            force: false,
            failed: false,
            pace: Default::default(),
            what: "apply".to_owned(),
            operator: "uid 0".to_owned(),
            request: None,
        }),
        Input::Follow {
            cluster: cluster(),
            job: JobId::from_parts(1, 1),
        },
        Input::Cancel {
            cluster: cluster(),
            job: JobId::from_parts(1, 1),
            grace_ms: 0,
            operator: "uid 0".to_owned(),
        },
        Input::Terminate {
            cluster: cluster(),
            instances: instances(),
            by: by(),
        },
        Input::Cleanup {
            cluster: cluster(),
            by: by(),
        },
        Input::Lifecycle(LifecycleAsk {
            cluster: cluster(),
            instances: instances(),
            kind: JobKind::Stop,
            timeout_ms: 1,
            by: by(),
        }),
        Input::Update {
            cluster: cluster(),
            instances: instances(),
            by: by(),
        },
        Input::Reconcile { cluster: cluster() },
        Input::Poll { cluster: cluster() },
        Input::Revoke {
            cluster: cluster(),
            instances: instances(),
            operator: "uid 0".to_owned(),
        },
        Input::Issued {
            at: at("gone"),
            machine: machine(),
            session: None,
            asked_with: None,
            key_sha256: String::new(),
            serial: "1".to_owned(),
            expires_unix: 1,
        },
        Input::StillThere {
            at: at("gone"),
            session: 1,
        },
        Input::CertificateSeen {
            at: at("gone"),
            serial: "1".to_owned(),
        },
        Input::Agent {
            at: at("gone"),
            session: 1,
            report: AgentInput::Attached(Box::default()),
        },
        Input::Answered {
            cluster: ClusterId {
                name: cluster(),
                uuid: ClusterUuid::new("uuid"),
            },
            answer: CallAnswer::Described(Ok(listing)),
        },
    ]
}
