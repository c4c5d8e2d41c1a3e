//! The end of machines and of clusters.

use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::plural;

use super::World;
use super::answer::Answer;
use super::asks::AskedBy;
use super::effect::Effect;
use super::lifecycle::machines_of;
use super::provider_call::{Call, CallFailure, ReceiptLine};
use super::refusal::OpError;
use crate::batch::BatchState;
use crate::cluster::Cluster;
use crate::event::Event;
use crate::job::{Job, JobKind, MachineCall};
use crate::key::InstanceKey;
use crate::machine::{Machine, MachineState};
use crate::outcome::{Outcome, Verdict};
use crate::unix_ms::UnixMs;

impl World {
    /// An operator wants machines terminated: a job that ends when they are gone, or it is known that they stay.
    pub(super) fn terminate_asked(
        &mut self,
        name: &ClusterName,
        instances: &[InstanceName],
        by: AskedBy,
    ) -> Answer {
        if !self.clusters.contains_key(name) {
            return Answer::Error(OpError::NoCluster(name.to_string()));
        }
        let id = self.add_ending(name, JobKind::Terminate, instances, by);
        self.terminate(name, instances);
        Answer::Started(id)
    }

    /// The record of a job that ends machines. Their instances' records say so too, and are what is acted on.
    fn add_ending(
        &mut self,
        name: &ClusterName,
        kind: JobKind,
        instances: &[InstanceName],
        by: AskedBy,
    ) -> JobId {
        let is_there = |state| state != MachineState::Terminated;
        let cluster = self.clusters.get(name);
        let machines = cluster.map(|cluster| machines_of(cluster, instances, is_there));
        let call = MachineCall {
            machines: machines.unwrap_or_default(),
            answered: true,
            deadline_ms: UnixMs::MAX,
        };
        self.add_call_job(name, kind, instances, call, by)
    }

    /// Marks machines as to be ended, and asks for it.
    pub(super) fn terminate(&mut self, name: &ClusterName, instances: &[InstanceName]) {
        let mut any = false;
        for instance in instances {
            let at = InstanceKey {
                cluster: name.clone(),
                instance: instance.clone(),
            };
            let Some(found) = self.instance_mut(&at) else {
                continue;
            };
            let Some(machine) = found
                .machine
                .as_ref()
                .filter(|m| m.state != MachineState::Terminated)
            else {
                continue;
            };
            let id = machine.id.clone();
            found.terminating = true;
            any = true;
            self.calls(name).ask_again(&id);
            self.emit(&at, "instance-terminating", "terminating");
        }
        if any {
            self.calls(name).terminate.hurry();
            self.poll_soon(name);
        }
        self.end_machines(name);
        self.stale_facts(name);
        self.mark_due(name);
    }

    /// Ends a cluster: machines first, then what is left of it, then the record.
    /// Asked for again while it is under way, it is the same job.
    pub(super) fn cleanup(&mut self, name: &ClusterName, by: AskedBy) -> Answer {
        let Some(cluster) = self.cluster_mut(name) else {
            return Answer::Error(OpError::NoCluster(name.to_string()));
        };
        cluster.cleaning = true;
        for batch in cluster.batches.values_mut() {
            if batch.state == BatchState::Requested {
                batch.state = BatchState::Failed("the cluster is being cleaned up".to_owned());
            }
        }
        let all: Vec<InstanceName> = cluster.instances.keys().cloned().collect();
        if cluster.launching() {
            self.finish_launch(name, "the cluster is being cleaned up".to_owned());
        }
        // Whoever types it again wants all of it tried again.
        let calls = self.calls(name);
        calls.refused.clear();
        calls.asked.clear();
        calls.terminate.hurry();
        let job = match self.cleanup_of(name) {
            Some(job) => job,
            None => self.add_ending(name, JobKind::Cleanup, &all, by),
        };
        self.terminate(name, &all);
        self.poll_soon(name);
        self.poll_if_due(name);
        Answer::Started(job)
    }

    /// The job of the cleanup that is under way.
    fn cleanup_of(&self, name: &ClusterName) -> Option<JobId> {
        let mut jobs = self.jobs.values();
        let is_it = |job: &&Job| {
            job.kind == JobKind::Cleanup && job.ended_ms.is_none() && job.cluster == *name
        };
        jobs.find(is_it).map(|job| job.id)
    }

    /// Every target of a cleanup ends as the cleanup does: what is left is left of all of it.
    fn end_cleanup_job(&mut self, id: JobId, left: u32, text: &str) {
        let verdict = match left {
            0 => Verdict::without_run(Outcome::Succeeded, ""),
            _ => Verdict::without_run(Outcome::Failed, text),
        };
        self.end_all_of(id, &verdict);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.ended_ms.get_or_insert(self.now);
            self.dirty.jobs.insert(id);
        }
    }

    /// In a cleanup: once no machine is left, and none can show up any more, the rest is deleted.
    fn is_bare(&self, name: &ClusterName, cluster: &Cluster) -> bool {
        let alive = |m: &Machine| m.state != MachineState::Terminated;
        let may_show = |batch: &crate::batch::Batch| batch.is_unsure(self.now);
        !cluster
            .instances
            .values()
            .filter_map(|i| i.machine.as_ref())
            .any(alive)
            && cluster.strays.is_empty()
            && !cluster.batches.values().any(may_show)
            && !self.is_preparing(name)
            && !self.is_addressing(name)
    }

    pub(super) fn clean_when_gone(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name).filter(|c| c.cleaning) else {
            return;
        };
        if !self.is_bare(name, cluster) {
            return;
        }
        let sweep = &mut self.calls(name).sweep;
        if !sweep.is_in_flight() {
            sweep.begin();
            self.call_provider(name, Call::Cleanup);
        }
    }

    /// The receipt: one event for each thing, then the end. Nothing left = the cluster is forgotten.
    pub(super) fn cleaned(
        &mut self,
        name: &ClusterName,
        result: Result<Vec<ReceiptLine>, CallFailure>,
    ) -> Answer {
        self.calls(name).sweep.worked();
        let (things, error) = match result {
            Ok(things) => (things, None),
            Err(failure) => (
                Vec::new(),
                Some(format!(
                    "cannot delete what is left of {name}: {}",
                    failure.message
                )),
            ),
        };
        self.end_cleanup(name, things, error.as_deref());
        Answer::Ack
    }

    /// Ends a cleanup that can't be carried through; the cluster stays.
    pub(super) fn end_cleanup_early(&mut self, name: &ClusterName, why: &str) {
        self.end_cleanup(name, Vec::new(), Some(why));
    }

    /// The instance whose machine has this id, for people.
    fn instance_of(&self, name: &ClusterName, id: &str) -> Option<String> {
        let cluster = self.clusters.get(name)?;
        let mut all = cluster.instances.values();
        let found = all.find(|it| {
            it.machine_id()
                .is_some_and(|machine| machine.as_str() == id)
        })?;
        Some(found.name.to_string())
    }

    /// The receipt and the end. `error` counts as one more thing that is left.
    pub(super) fn end_cleanup(
        &mut self,
        name: &ClusterName,
        things: Vec<ReceiptLine>,
        error: Option<&str>,
    ) {
        let (mut left, total) = (u32::from(error.is_some()), things.len());
        for (kind, id, state, is_left) in things {
            left += u32::from(is_left);
            let of = self.instance_of(name, &id);
            let named = of.as_ref().map(|of| format!(" ({of})")).unwrap_or_default();
            let event = Event::cluster(name, "receipt", format!("{kind} {id}{named}: {state}"))
                .with("kind", kind)
                .with("id", id)
                .with("name", of)
                .with("state", state)
                .with("left", is_left);
            self.do_later(Effect::Event(Box::new(event)));
        }
        if let Some(error) = error {
            self.emit_cluster(name, "notice", error);
        }
        let text = match left {
            0 => format!("cleaned up: {} deleted", plural::count(total, "resource")),
            _ => {
                let things = plural::count(left, "resource");
                let of = match error {
                    Some(error) => format!("{error}; "),
                    None => String::new(),
                };
                let verb = plural::is_are(left);
                format!("{of}{things} of {name} {verb} left; run `aot-master cleanup {name}` again")
            }
        };
        let job = self.cleanup_of(name);
        if let Some(job) = job {
            self.end_cleanup_job(job, left, &text);
        }
        let mut event = Event::cluster(name, "cleanup-ended", text).with("left", left);
        event.ends = job.map(|job| (job, u32::from(left > 0)));
        if left == 0 {
            self.end_calls_of(name);
            for at in self.keys(name) {
                self.do_later(Effect::ShutOut { at });
            }
            self.forget_cluster(name);
        } else if let Some(cluster) = self.cluster_mut(name) {
            cluster.cleaning = false;
        }
        self.do_later(Effect::Event(Box::new(event)));
    }
}
