//! The calls of a cluster's provider: each is one request, and its answer one input.

use std::collections::BTreeMap;

use aot_model::attestation::Secret;
use aot_model::job::JobKind;
use aot_model::key::ClusterId;
use aot_model::world::CallAnswer;
use aot_proto::ids::{InstanceName, JobId, MachineId};
use aot_provider::{Changed, Lifecycle};

use super::results::{failure, receipt_lines, terminations};
use crate::run::decide::Loop;

impl Loop {
    pub(super) fn call_describe(&self, cluster: ClusterId) {
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider.describe(&reference).await.map_err(failure);
                CallAnswer::Described(result)
            },
            |error| CallAnswer::Described(Err(error)),
        );
    }

    pub(super) fn call_addresses(
        &self,
        cluster: ClusterId,
        machines: Vec<(MachineId, InstanceName)>,
    ) {
        let ids: Vec<MachineId> = machines.iter().map(|(id, _)| id.clone()).collect();
        self.call(
            cluster,
            |provider, reference| async move {
                let results = provider.assign_addresses(&reference, &machines).await;
                let results = results
                    .into_iter()
                    .map(|(id, result)| (id, result.map_err(failure)));
                CallAnswer::Addressed(results.collect())
            },
            |error| {
                CallAnswer::Addressed(ids.into_iter().map(|id| (id, Err(error.clone()))).collect())
            },
        );
    }

    pub(super) fn call_explain(&self, cluster: ClusterId, machines: Vec<MachineId>) {
        self.call(
            cluster,
            |provider, reference| async move {
                let texts = provider.explain(&reference, &machines).await;
                CallAnswer::Explained(texts)
            },
            |_| CallAnswer::Explained(BTreeMap::new()),
        );
    }

    pub(super) fn call_challenge(&self, cluster: ClusterId, values: Vec<(MachineId, Secret)>) {
        let ids: Vec<MachineId> = values.iter().map(|(id, _)| id.clone()).collect();
        self.call(
            cluster,
            |provider, reference| async move {
                let results = provider.challenge(&reference, &values).await;
                let results = results
                    .into_iter()
                    .map(|(id, result)| (id, result.map_err(failure)));
                CallAnswer::ChallengesSet(results.collect())
            },
            |error| {
                CallAnswer::ChallengesSet(
                    ids.into_iter().map(|id| (id, Err(error.clone()))).collect(),
                )
            },
        );
    }

    pub(super) fn call_unchallenge(&self, cluster: ClusterId, machines: Vec<MachineId>) {
        let same = machines.clone();
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider.unchallenge(&reference, &machines).await;
                CallAnswer::ChallengesRemoved {
                    machines,
                    error: result.err().map(failure),
                }
            },
            |error| CallAnswer::ChallengesRemoved {
                machines: same,
                error: Some(error),
            },
        );
    }

    pub(super) fn call_change(
        &self,
        cluster: ClusterId,
        job: JobId,
        kind: JobKind,
        machines: Vec<MachineId>,
    ) {
        let action = match kind {
            JobKind::Stop => Lifecycle::Stop,
            JobKind::Reboot => Lifecycle::Reboot,
            _ => Lifecycle::Start,
        };
        self.call(
            cluster,
            move |provider, reference| async move {
                let result = provider.lifecycle(&reference, action, &machines).await;
                let error = match &result {
                    Ok(changed) => changed.clone().of_all().err(),
                    Err(error) => Some(error.clone()),
                };
                CallAnswer::Changed {
                    job,
                    result: result.map(terminations).map_err(failure),
                    error: error.map(failure),
                }
            },
            move |error| CallAnswer::Changed {
                job,
                result: Err(error.clone()),
                error: Some(error),
            },
        );
    }

    pub(super) fn call_start(&self, cluster: ClusterId, machines: Vec<MachineId>) {
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider
                    .lifecycle(&reference, Lifecycle::Start, &machines)
                    .await;
                CallAnswer::Started(
                    result
                        .and_then(Changed::of_all)
                        .err()
                        .map(|error| format!("cannot start the stopped machines: {error}")),
                )
            },
            |error| CallAnswer::Started(Some(error.message)),
        );
    }

    pub(super) fn call_find(&self, cluster: ClusterId, machines: Vec<MachineId>) {
        let asked = machines.clone();
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider.find(&reference, &machines).await.map_err(failure);
                CallAnswer::Found { machines, result }
            },
            |error| CallAnswer::Found {
                machines: asked,
                result: Err(error),
            },
        );
    }

    pub(super) fn call_terminate(&self, cluster: ClusterId, machines: Vec<MachineId>) {
        let asked = machines.clone();
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider
                    .lifecycle(&reference, Lifecycle::Terminate, &machines)
                    .await;
                CallAnswer::Terminated {
                    machines,
                    result: result.map(terminations).map_err(failure),
                }
            },
            |error| CallAnswer::Terminated {
                machines: asked,
                result: Err(error),
            },
        );
    }

    pub(super) fn call_name(
        &self,
        cluster: ClusterId,
        batches: Vec<Vec<(MachineId, InstanceName)>>,
    ) {
        let machines: Vec<MachineId> = batches.iter().flatten().map(|(id, _)| id.clone()).collect();
        let asked = machines.clone();
        self.call(
            cluster,
            |provider, reference| async move {
                let mut result = Ok(());
                for names in &batches {
                    result = result.and(provider.set_name_tags(&reference, names).await);
                }
                CallAnswer::Named {
                    machines,
                    result: result.map_err(failure),
                }
            },
            |error| CallAnswer::Named {
                machines: asked,
                result: Err(error),
            },
        );
    }

    pub(super) fn call_cleanup(&self, cluster: ClusterId) {
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider.cleanup(&reference).await;
                CallAnswer::Cleaned(result.map(receipt_lines).map_err(failure))
            },
            |error| CallAnswer::Cleaned(Err(error)),
        );
    }
}
