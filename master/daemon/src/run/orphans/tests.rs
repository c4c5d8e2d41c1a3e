//! Tests of the deletion, against a provider that does what a script says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aot_model::machine::{ClientToken, ElasticIp, ErrorKind, Leftovers, Machine};
use aot_model::samples::bare_machine as machine;
use aot_model::spec::ProviderKind;
use aot_proto::ids::InstanceName;
use aot_provider::{Ask, LaunchSpec, Prerequisites, Problem, Tagged, Thing};
use futures::future::ready;
use tokio::sync::Notify;

use super::*;

/// Its machines go after so many looks; `u32::MAX` = never.
pub(crate) struct Scripted {
    machines: Vec<&'static str>,
    looks_until_gone: u32,
    looks: Mutex<u32>,
    pub(in crate::run) asked: Mutex<Vec<String>>,
    broken: bool,
    /// What a look at tags waits for.
    pub(in crate::run) gate: Option<Notify>,
}

impl Scripted {
    pub(crate) fn with(machines: &[&'static str], looks_until_gone: u32) -> Self {
        Self {
            machines: machines.to_vec(),
            looks_until_gone,
            looks: Mutex::new(0),
            asked: Mutex::default(),
            broken: false,
            gate: None,
        }
    }

    /// One that shows nothing by tags before its gate is open.
    pub(in crate::run) fn behind(gate: Notify) -> Self {
        Self {
            gate: Some(gate),
            ..Self::with(&[], 0)
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
    fn prepare<'a>(
        &'a self,
        _: &'a Ask<'a>,
    ) -> BoxFuture<'a, Result<Prerequisites, ProviderError>> {
        Box::pin(ready(Err(broken())))
    }
    fn launch<'a>(
        &'a self,
        _: &'a LaunchSpec,
        _: &'a ClientToken,
    ) -> BoxFuture<'a, Result<Vec<Machine>, ProviderError>> {
        Box::pin(ready(Err(broken())))
    }
    fn describe<'a>(&'a self, _: &'a ClusterRef) -> BoxFuture<'a, Result<Listing, ProviderError>> {
        let mut looks = self.looks.lock().expect("not poisoned");
        *looks += 1;
        let state = match *looks > self.looks_until_gone {
            true => MachineState::Terminated,
            false => MachineState::Running,
        };
        let all = self.machines.iter().map(|id| machine(id, state));
        Box::pin(ready(Ok(Listing {
            machines: all.collect(),
            unclear: Vec::new(),
        })))
    }
    fn find<'a>(
        &'a self,
        _: &'a ClusterRef,
        _: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Listing, ProviderError>> {
        Box::pin(ready(Err(broken())))
    }
    fn lifecycle<'a>(
        &'a self,
        _: &'a ClusterRef,
        action: Lifecycle,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Changed, ProviderError>> {
        self.note(format!("{action:?} {}", machines.len()));
        Box::pin(ready(match self.broken {
            true => Err(broken()),
            false => Ok(Changed::default()),
        }))
    }
    fn set_name_tags<'a>(
        &'a self,
        _: &'a ClusterRef,
        _: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(ready(Ok(())))
    }
    fn assign_addresses<'a>(
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
        Box::pin(async {
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            self.note("tagged".to_owned());
            Ok(Vec::new())
        })
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

/// What the provider was asked, what was said meanwhile, and the receipt.
type Done = (
    Vec<String>,
    Vec<String>,
    Result<Vec<Receipt>, ProviderError>,
);

/// Deletes what the provider has.
async fn run(provider: Scripted) -> Done {
    let cluster = ClusterRef {
        name: "old".parse().expect("a name"),
        uuid: "5f0c".to_owned(),
        region: Some("r1".to_owned()),
    };
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = said.clone();
    let say = move |text| -> BoxFuture<'static, ()> {
        heard.lock().expect("not poisoned").push(text);
        Box::pin(ready(()))
    };
    let result = delete(&provider, &cluster, say).await;
    let asked = provider.asked.lock().expect("not poisoned").clone();
    let said = said.lock().expect("not poisoned").clone();
    (asked, said, result)
}

#[tokio::test(start_paused = true)]
async fn machines_are_terminated_and_awaited_before_the_rest_goes() {
    let (asked, said, result) = run(Scripted::with(&["i-1", "i-2"], 2)).await;
    assert_eq!(asked, ["Terminate 2", "cleanup 5f0c"]);
    assert_eq!(
        said,
        [
            "[0/2] instances 'terminated', waiting...",
            "[2/2] instances 'terminated'",
        ]
    );
    let receipts = result.expect("it worked");
    let lines: Vec<(&str, bool)> = receipts
        .iter()
        .map(|it| (it.id.as_str(), it.left))
        .collect();
    assert_eq!(lines, [("i-1", false), ("i-2", false)]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_go_in_time_is_told_as_left() {
    let (asked, _, result) = run(Scripted::with(&["i-1"], u32::MAX)).await;
    assert_eq!(asked, ["Terminate 1", "cleanup 5f0c"]);
    let receipts = result.expect("it worked");
    assert!(receipts.len() == 1 && receipts[0].left);
}

#[tokio::test(start_paused = true)]
async fn without_machines_only_the_rest_goes() {
    let (asked, said, result) = run(Scripted::with(&[], 0)).await;
    assert_eq!(asked, ["cleanup 5f0c"]);
    assert!(said.is_empty() && result.expect("it worked").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_nothing_else_is_deleted() {
    let provider = Scripted {
        broken: true,
        ..Scripted::with(&["i-1"], 1)
    };
    let (asked, _, result) = run(provider).await;
    assert_eq!(asked, ["Terminate 1"]);
    let why = result.expect_err("it is refused").to_string();
    assert!(why.contains("no right to do that"), "{why}");
}
