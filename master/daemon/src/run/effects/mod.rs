//! Does what was decided: messages to sessions, calls to providers, updates to followers. Each is on disk by then. `calls`,
//! `launch` and `orphans` have the calls of providers, `results` puts their answers into the model's terms. Called by the loop.

mod calls;
mod launch;
mod orphans;
mod results;
mod secrets;

use std::sync::Arc;

use aot_model::key::{ClusterId, InstanceKey};
use aot_model::machine::ClusterRef;
use aot_model::spec::ProviderKind;
use aot_model::unix_ms::UnixMs;
use aot_model::world::{Call, CallAnswer, CallFailure, Effect, Input};
use aot_provider::Provider;

use super::decide::Loop;
use super::updates::JobUpdate;
use crate::session::Closed;
use crate::session::registry::SessionCommand;

impl Loop {
    pub(super) fn perform(&mut self, effect: Effect, now: UnixMs) {
        match effect {
            Effect::Send { at, session, body } => {
                self.send(&at, session, SessionCommand::Send(body));
            }
            Effect::StartWithSecrets {
                at,
                session,
                run,
                start,
                secrets,
            } => self.start_with_secrets(at, session, run, start, secrets),
            Effect::HandOut { at, session, facts } => {
                self.send(&at, session, SessionCommand::HandOut(facts));
            }
            Effect::Close { at, session } => {
                self.parts.registry.end(&at, session, Closed::Revoked); // it may have ended by itself
            }
            Effect::Expire { at, session } => {
                self.parts.registry.end(&at, session, Closed::Expired); // it may have ended by itself
            }
            Effect::ShutOut { at } => self.parts.registry.shut_out(&at),
            Effect::Call { cluster, call } => self.call_provider(cluster, call),
            Effect::CallOrphans {
                job,
                cluster,
                uuid,
                place,
                region,
            } => {
                let cluster = ClusterRef {
                    name: cluster,
                    uuid,
                    region,
                };
                self.call_orphans(job, cluster, place);
            }
            Effect::Event(event) => self.publish(*event, now),
            Effect::RunBegan { job, instance, run } => {
                let spools = self.parts.spools.clone();
                self.followers.notify(job, || {
                    JobUpdate::Began(instance.clone(), spools.read(run, None, true))
                });
            }
            // In a task: it may have to ask the disk, and the loop waits for nobody's.
            Effect::Measure { run } => {
                let (parts, engine) = (self.parts.clone(), self.engine.clone());
                self.spawn(async move {
                    let bytes = parts.spools.have(run);
                    engine.submit(Input::Measured { run, bytes }).await;
                });
            }
            Effect::JobNote {
                job,
                instance,
                text,
            } => self
                .followers
                .notify(job, || JobUpdate::Note(instance.clone(), text.clone())),
            Effect::CallAnswered { job, error } => {
                self.followers
                    .notify(job, || JobUpdate::Answered(error.clone()));
            }
            Effect::TargetEnded {
                job,
                instance,
                verdict,
            } => self
                .followers
                .notify(job, || JobUpdate::Ended(instance.clone(), verdict.clone())),
        }
    }

    /// What is done for this loop ends with it: once another master has the cluster, that one does it.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.engine.stop.clone();
        self.parts.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }

    fn send(&self, at: &InstanceKey, session: u64, command: SessionCommand) {
        if !self.parts.registry.send(at, session, command) {
            tracing::debug!(instance = %at, session, "its session is gone or full: the next session gets what it missed");
        }
    }

    fn call_provider(&self, cluster: ClusterId, call: Call) {
        match call {
            Call::Launch { token } => self.call_launch(cluster, token),
            Call::Prepare => self.call_prepare(cluster),
            Call::AssignAddresses(machines) => self.call_addresses(cluster, machines),
            Call::SetChallenges(values) => self.call_challenge(cluster, values),
            Call::RemoveChallenges(machines) => self.call_unchallenge(cluster, machines),
            Call::Explain(machines) => self.call_explain(cluster, machines),
            Call::Change {
                job,
                kind,
                machines,
            } => self.call_change(cluster, job, kind, machines),
            Call::Start(machines) => self.call_start(cluster, machines),
            Call::Describe => self.call_describe(cluster),
            Call::Find(machines) => self.call_find(cluster, machines),
            Call::Terminate(machines) => self.call_terminate(cluster, machines),
            Call::SetNames(batches) => self.call_name(cluster, batches),
            Call::Cleanup => self.call_cleanup(cluster),
        }
    }

    /// The provider of a cluster and how it knows it; `None` once the cluster was cleaned up.
    fn provider_of(&self, cluster: &ClusterId) -> Option<(ProviderKind, ClusterRef)> {
        self.engine.read(|world| {
            let found = world.clusters.get(&cluster.name)?;
            (found.uuid == cluster.uuid).then(|| (found.spec.provider, found.reference()))
        })
    }

    /// Calls the provider of a cluster in a task of its own, for the loop must not wait for a network; what it came to, or why
    /// there is no provider, is an input. The intent is on disk, so a call that a kill cuts off is made again.
    fn call<F, R>(
        &self,
        cluster: ClusterId,
        call: F,
        refused: impl FnOnce(CallFailure) -> CallAnswer + Send + 'static,
    ) where
        F: FnOnce(Arc<dyn Provider>, ClusterRef) -> R + Send + 'static,
        R: Future<Output = CallAnswer> + Send,
    {
        let Some((kind, reference)) = self.provider_of(&cluster) else {
            return;
        };
        let (parts, engine) = (self.parts.clone(), self.engine.clone());
        self.spawn(async move {
            let answer = match parts.providers.get(kind, reference.region.as_deref()).await {
                Ok(provider) => call(provider, reference).await,
                Err(error) => refused(results::failure(error)),
            };
            engine.submit(Input::Answered { cluster, answer }).await;
        });
    }
}
