//! Does what was decided: messages to sessions, calls to providers, words to watchers.

use std::collections::BTreeMap;
use std::sync::Arc;

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::{JobNews, Loop};
use crate::model::cluster::{Batch, BatchState, BootRecord, UnixMs};
use crate::model::file::{ClusterSpec, ProviderKind};
use crate::model::ground::Ground;
use crate::model::machine::{ClientToken, ClusterRef};
use crate::model::world::{Effect, Failure, Input, World};
use crate::provider::{Ask, BootSpec, LaunchSpec, Lifecycle, Provider, ProviderError};
use crate::session::Closed;
use crate::session::registry::Command;

impl Loop {
    pub(super) fn perform(&mut self, effect: Effect, now: UnixMs) {
        match effect {
            Effect::Send { at, session, body } => {
                if !self.parts.registry.send(&at, session, Command::Send(body)) {
                    tracing::debug!(instance = %at, session, "its session is gone or full: what it missed is given to the next");
                }
            }
            Effect::Close { at, session } => {
                let close = Command::Close(Closed::Revoked);
                if !self.parts.registry.send(&at, session, close) {
                    tracing::debug!(instance = %at, session, "its session is gone or full: it ends by itself");
                }
            }
            Effect::CallLaunch { cluster, token } => self.call_launch(cluster, token),
            Effect::CallDescribe { cluster } => self.call_describe(cluster),
            Effect::CallTerminate { cluster, machines } => self.call_terminate(cluster, machines),
            Effect::CallPrepare { cluster } => self.call_prepare(cluster),
            Effect::CallAddresses { cluster, machines } => self.call_addresses(cluster, machines),
            Effect::CallExplain { cluster, machines } => self.call_explain(cluster, machines),
            Effect::CallStart { cluster, machines } => self.call_start(cluster, machines),
            Effect::CallName { cluster, names } => self.call_name(cluster, names),
            Effect::CallCleanup { cluster } => self.call_cleanup(cluster),
            Effect::Event(event) => self.publish(&event, now),
            Effect::RunBegan { job, instance, run } => {
                let spools = self.parts.spools.clone();
                self.tell_followers(job, || {
                    JobNews::Began(instance.clone(), spools.read(run, None, true))
                });
            }
            Effect::JobNote {
                job,
                instance,
                text,
            } => self.tell_followers(job, || JobNews::Note(instance.clone(), text.clone())),
            Effect::TargetEnded {
                job,
                instance,
                verdict,
            } => self.tell_followers(job, || JobNews::Ended(instance.clone(), verdict.clone())),
        }
    }

    /// The provider of a cluster and how it knows it.
    fn provider_of(&self, cluster: &ClusterName) -> Option<(ProviderKind, ClusterRef)> {
        self.engine.look(|world| {
            let cluster = world.clusters.get(cluster)?;
            Some((cluster.spec.provider, cluster.reference()))
        })
    }

    fn call_launch(&self, cluster: ClusterName, token: String) {
        let Some((kind, reference)) = self.provider_of(&cluster) else {
            return;
        };
        let Some(spec) = self
            .engine
            .look(|world| self.launch_spec(world, &reference, &token))
        else {
            return;
        };
        let (parts, engine) = (self.parts.clone(), self.engine.clone());
        self.parts.tasks.spawn(async move {
            let client_token = ClientToken(token.clone());
            let result = match parts.providers.get(kind, reference.region.as_deref()).await {
                Ok(provider) => checked(
                    provider.launch(&spec, &client_token).await,
                    spec.members.len(),
                ),
                Err(error) => Err(error),
            };
            engine
                .tell(Input::Launched {
                    cluster,
                    token,
                    result: result.map_err(failure),
                })
                .await;
        });
    }

    fn launch_spec(
        &self,
        world: &World,
        reference: &ClusterRef,
        token: &str,
    ) -> Option<LaunchSpec> {
        let batch = world.clusters.get(&reference.name)?.batches.get(token)?;
        let machine = batch.spec.machine.clone();
        Some(LaunchSpec {
            cluster: reference.clone(),
            pool: batch.spec.name.clone(),
            members: batch.members.clone(),
            owner: batch.spec.owner.clone(),
            user: batch.spec.user.clone(),
            instance_type: machine.types.get(batch.choice.kind).cloned(),
            subnet: machine.subnets.get(batch.choice.subnet).cloned(),
            machine,
            on_demand: batch.choice.on_demand,
            attempt: batch.attempt,
            ground: world.clusters.get(&reference.name)?.ground.clone(),
            boot: BootSpec {
                master: batch.boot.master.clone(),
                ca_pem: self.parts.ca_pem.clone(),
                join_token: self.parts.join_key.token(token),
                agent_path: self.parts.agents.own_path(&batch.boot.agent_sha256),
                agent_sha256: batch.boot.agent_sha256.clone(),
                user_part: batch.boot.user_parts.get(&batch.pool).cloned(),
            },
        })
    }

    fn call_describe(&self, cluster: ClusterName) {
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider.describe(&reference).await.map_err(failure);
                Input::Described {
                    cluster: reference.name,
                    result,
                }
            },
            |cluster, error| Input::Described {
                cluster,
                result: Err(error),
            },
        );
    }

    fn call_prepare(&self, cluster: ClusterName) {
        let Some(work) = self.engine.look(|world| Preparation::of(world, &cluster)) else {
            return;
        };
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider.prepare(&work.ask(&reference)).await;
                Input::Prepared {
                    cluster: reference.name,
                    result: result.map_err(failure),
                }
            },
            |cluster, error| Input::Prepared {
                cluster,
                result: Err(error),
            },
        );
    }

    fn call_addresses(&self, cluster: ClusterName, machines: Vec<(MachineId, InstanceName)>) {
        let ids: Vec<MachineId> = machines.iter().map(|(id, _)| id.clone()).collect();
        self.call(
            cluster,
            |provider, reference| async move {
                let results = provider.addresses(&reference, &machines).await;
                let results = results
                    .into_iter()
                    .map(|(id, result)| (id, result.map_err(failure)));
                Input::Addressed {
                    cluster: reference.name,
                    results: results.collect(),
                }
            },
            |cluster, error| Input::Addressed {
                cluster,
                results: ids.into_iter().map(|id| (id, Err(error.clone()))).collect(),
            },
        );
    }

    fn call_explain(&self, cluster: ClusterName, machines: Vec<MachineId>) {
        self.call(
            cluster,
            |provider, reference| async move {
                let texts = provider.explain(&reference, &machines).await;
                Input::Explained {
                    cluster: reference.name,
                    texts,
                }
            },
            |cluster, _| Input::Explained {
                cluster,
                texts: BTreeMap::new(),
            },
        );
    }

    fn call_start(&self, cluster: ClusterName, machines: Vec<MachineId>) {
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider
                    .lifecycle(&reference, Lifecycle::Start, &machines)
                    .await;
                Input::LifecycleDone {
                    cluster: reference.name,
                    error: result
                        .err()
                        .map(|error| format!("cannot start the stopped machines: {error}")),
                }
            },
            |cluster, error| Input::LifecycleDone {
                cluster,
                error: Some(error.message),
            },
        );
    }

    fn call_terminate(&self, cluster: ClusterName, machines: Vec<MachineId>) {
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider
                    .lifecycle(&reference, Lifecycle::Terminate, &machines)
                    .await;
                let (unknown, error) = match result {
                    Ok(unknown) => (unknown, None),
                    Err(error) => (Vec::new(), Some(error.to_string())),
                };
                Input::Terminated {
                    cluster: reference.name,
                    unknown,
                    error,
                }
            },
            |cluster, error| Input::Terminated {
                cluster,
                unknown: Vec::new(),
                error: Some(error.message),
            },
        );
    }

    fn call_name(&self, cluster: ClusterName, names: Vec<(MachineId, InstanceName)>) {
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider.name(&reference, &names).await;
                let error = result
                    .err()
                    .map(|error| format!("cannot name the machines: {error}"));
                Input::LifecycleDone {
                    cluster: reference.name,
                    error,
                }
            },
            |cluster, error| Input::LifecycleDone {
                cluster,
                error: Some(error.message),
            },
        );
    }

    fn call_cleanup(&self, cluster: ClusterName) {
        self.call(
            cluster,
            |provider, reference| async move {
                let result = provider.cleanup(&reference).await.map_err(failure);
                let lines = result.map(|receipts| {
                    receipts
                        .into_iter()
                        .map(|r| (r.kind, r.id, r.state, r.left))
                        .collect()
                });
                Input::Cleaned {
                    cluster: reference.name,
                    result: lines,
                }
            },
            |cluster, error| Input::Cleaned {
                cluster,
                result: Err(error),
            },
        );
    }

    /// Calls the provider of a cluster in a task of its own; what it came to, or why there is no provider, is an input.
    fn call<F, R>(
        &self,
        cluster: ClusterName,
        call: F,
        refused: impl FnOnce(ClusterName, Failure) -> Input + Send + 'static,
    ) where
        F: FnOnce(Arc<dyn Provider>, ClusterRef) -> R + Send + 'static,
        R: Future<Output = Input> + Send,
    {
        let Some((kind, reference)) = self.provider_of(&cluster) else {
            return;
        };
        let (parts, engine) = (self.parts.clone(), self.engine.clone());
        self.parts.tasks.spawn(async move {
            let input = match parts.providers.get(kind, reference.region.as_deref()).await {
                Ok(provider) => call(provider, reference).await,
                Err(error) => refused(cluster, failure(error)),
            };
            engine.tell(input).await;
        });
    }
}

/// A launch that gave fewer machines than it was asked for did not work, whatever it says.
fn checked(
    result: Result<Vec<crate::model::machine::Machine>, ProviderError>,
    members: usize,
) -> Result<Vec<crate::model::machine::Machine>, ProviderError> {
    match result {
        Ok(machines) if machines.len() < members => Err(ProviderError {
            kind: crate::model::machine::ErrorKind::Unavailable,
            leftovers: crate::model::machine::Leftovers::Some,
            message: format!("the answer names {} of {members} machines", machines.len()),
            code: None,
        }),
        other => other,
    }
}

fn failure(error: ProviderError) -> Failure {
    Failure {
        kind: error.kind,
        leftovers: error.leftovers,
        message: error.to_string(),
    }
}

/// What a call to prepare is about, taken out of the world.
struct Preparation {
    spec: ClusterSpec,
    known: Ground,
    missing: BTreeMap<String, usize>,
    boot: BootRecord,
}

impl Preparation {
    fn of(world: &World, cluster: &ClusterName) -> Option<Self> {
        let cluster = world.clusters.get(cluster)?;
        let mut missing: BTreeMap<String, usize> = BTreeMap::new();
        let mut boot = BootRecord::default();
        let mut spec = cluster.spec.clone();
        let open = |batch: &&Batch| batch.state == BatchState::Requested;
        for batch in cluster.batches.values().filter(open) {
            *missing.entry(batch.pool.clone()).or_default() += batch.members.len();
            // Asked for before the file changed: what it names is still needed.
            if !spec.pools.contains(&batch.spec) {
                spec.pools.push(batch.spec.clone());
            }
            boot.clone_from(&batch.boot);
        }
        Some(Self {
            spec,
            known: cluster.ground.clone(),
            missing,
            boot,
        })
    }

    fn ask<'a>(&'a self, reference: &'a ClusterRef) -> Ask<'a> {
        Ask {
            spec: &self.spec,
            cluster: Some(reference),
            known: &self.known,
            missing: &self.missing,
            advertise: &self.boot.master,
            user_parts: &self.boot.user_parts,
        }
    }
}
