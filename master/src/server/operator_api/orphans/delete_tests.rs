//! Tests of the deletion, against a provider that does what a script says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aot_proto::ids::InstanceName;
use futures::future::{BoxFuture, ready};

use super::*;
use crate::model::file::ProviderKind;
use crate::model::machine::{ClientToken, ElasticIp, ErrorKind, Leftovers};
use crate::provider::{Ask, Ground, LaunchSpec, Problem, Provider, Tagged, Thing};

/// Its machines go after so many looks; `u32::MAX` = never.
struct Scripted {
    machines: Vec<&'static str>,
    looks_until_gone: u32,
    looks: Mutex<u32>,
    asked: Mutex<Vec<String>>,
    broken: bool,
}

impl Scripted {
    fn with(machines: &[&'static str], looks_until_gone: u32) -> Self {
        Self {
            machines: machines.to_vec(),
            looks_until_gone,
            looks: Mutex::new(0),
            asked: Mutex::default(),
            broken: false,
        }
    }

    fn note(&self, text: String) {
        self.asked.lock().expect("not poisoned").push(text);
    }
}

fn broken() -> ProviderError {
    ProviderError {
        kind: ErrorKind::Denied,
        leftovers: Leftovers::None,
        message: "no right to do that".to_owned(),
        code: None,
    }
}

fn machine(id: &str, state: MachineState) -> Machine {
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
    }
}

impl Provider for Scripted {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Local
    }
    fn preflight<'a>(&'a self, _: &'a Ask<'a>) -> BoxFuture<'a, Vec<Problem>> {
        Box::pin(ready(Vec::new()))
    }
    fn outline<'a>(&'a self, _: &'a Ask<'a>) -> BoxFuture<'a, Result<Vec<Thing>, ProviderError>> {
        Box::pin(ready(Ok(Vec::new())))
    }
    fn prepare<'a>(&'a self, _: &'a Ask<'a>) -> BoxFuture<'a, Result<Ground, ProviderError>> {
        Box::pin(ready(Err(broken())))
    }
    fn launch<'a>(
        &'a self,
        _: &'a LaunchSpec,
        _: &'a ClientToken,
    ) -> BoxFuture<'a, Result<Vec<Machine>, ProviderError>> {
        Box::pin(ready(Err(broken())))
    }
    fn describe<'a>(
        &'a self,
        _: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Vec<Machine>, ProviderError>> {
        let mut looks = self.looks.lock().expect("not poisoned");
        *looks += 1;
        let state = match *looks > self.looks_until_gone {
            true => MachineState::Terminated,
            false => MachineState::Running,
        };
        let all = self.machines.iter().map(|id| machine(id, state));
        Box::pin(ready(Ok(all.collect())))
    }
    fn lifecycle<'a>(
        &'a self,
        _: &'a ClusterRef,
        action: Lifecycle,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Vec<MachineId>, ProviderError>> {
        self.note(format!("{action:?} {}", machines.len()));
        Box::pin(ready(match self.broken {
            true => Err(broken()),
            false => Ok(Vec::new()),
        }))
    }
    fn name<'a>(
        &'a self,
        _: &'a ClusterRef,
        _: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(ready(Ok(())))
    }
    fn addresses<'a>(
        &'a self,
        _: &'a ClusterRef,
        _: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Vec<(MachineId, Result<ElasticIp, ProviderError>)>> {
        Box::pin(ready(Vec::new()))
    }
    fn explain<'a>(
        &'a self,
        _: &'a ClusterRef,
        _: &'a [MachineId],
    ) -> BoxFuture<'a, BTreeMap<MachineId, String>> {
        Box::pin(ready(BTreeMap::new()))
    }
    fn tagged(&self) -> BoxFuture<'_, Result<Vec<Tagged>, ProviderError>> {
        Box::pin(ready(Ok(Vec::new())))
    }
    fn cleanup<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Vec<Receipt>, ProviderError>> {
        self.note(format!("cleanup {}", cluster.uuid));
        let left = *self.looks.lock().expect("not poisoned") <= self.looks_until_gone;
        let lines = self.machines.iter().map(|id| Receipt {
            kind: "instance".to_owned(),
            id: (*id).to_owned(),
            state: if left { "running" } else { "terminated" }.to_owned(),
            left,
        });
        Box::pin(ready(Ok(lines.collect())))
    }
}

/// Deletes what the provider has; what it was asked, and what the operator was told.
async fn run(provider: Scripted) -> (Vec<String>, Vec<v1::Event>) {
    let provider = Arc::new(provider);
    let doomed = Doomed {
        place: Place {
            name: "r1".to_owned(),
            provider: provider.clone(),
            needed: true,
        },
        cluster: ClusterRef {
            name: "old".parse().expect("a name"),
            uuid: "5f0c".to_owned(),
            region: Some("r1".to_owned()),
        },
    };
    let (sender, mut told) = mpsc::channel(EVENTS);
    all(|| Ok(()), vec![doomed], &Reporter { sender }).await;
    let mut events = Vec::new();
    while let Some(event) = told.recv().await {
        events.push(event.expect("no status"));
    }
    let asked = provider.asked.lock().expect("not poisoned").clone();
    (asked, events)
}

fn messages(events: &[v1::Event]) -> Vec<&str> {
    events.iter().map(|event| event.message.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn machines_are_terminated_and_awaited_before_the_rest_goes() {
    let (asked, events) = run(Scripted::with(&["i-1", "i-2"], 2)).await;
    assert_eq!(asked, ["Terminate 2", "cleanup 5f0c"]);
    assert_eq!(
        messages(&events),
        [
            "[0/2] instances 'terminated', waiting...",
            "[2/2] instances 'terminated'",
            "instance i-1: terminated",
            "instance i-2: terminated",
            "2 things are gone",
        ]
    );
    let last = events.last().expect("an end");
    assert_eq!((last.last, last.exit_code), (true, 0));
    assert_eq!(
        events[2].fields_json,
        r#"{"kind":"instance","id":"i-1","state":"terminated","left":false}"#
    );
}

#[tokio::test(start_paused = true)]
async fn what_does_not_go_in_time_is_told_as_left() {
    let (asked, events) = run(Scripted::with(&["i-1"], u32::MAX)).await;
    assert_eq!(asked, ["Terminate 1", "cleanup 5f0c"]);
    let last = events.last().expect("an end");
    assert_eq!(
        (last.exit_code, last.message.as_str()),
        (1, "1 thing is left; the same command tries again")
    );
}

#[tokio::test(start_paused = true)]
async fn without_machines_only_the_rest_goes() {
    let (asked, events) = run(Scripted::with(&[], 0)).await;
    assert_eq!(asked, ["cleanup 5f0c"]);
    assert_eq!(messages(&events), ["0 things are gone"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_nothing_else_is_deleted() {
    let provider = Scripted {
        broken: true,
        ..Scripted::with(&["i-1"], 1)
    };
    let (asked, events) = run(provider).await;
    assert_eq!(asked, ["Terminate 1"]);
    assert_eq!(
        messages(&events),
        [
            "in r1: no right to do that",
            "1 thing is left; the same command tries again"
        ]
    );
    assert_eq!(events.last().expect("an end").exit_code, 1);
}
