//! Calls about a cluster: each kind at its own pace, and each answer for the cluster that its call was made for. What an
//! answer means is decided in the file of the behaviour that made the call.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{ClusterName, InstanceName, JobId, MachineId};

use super::World;
use super::answer::Answer;
use super::effect::Effect;
use super::facts::Renewals;
use super::provider_call::{Call, CallAnswer};
use crate::backoff::CallBackoff;
use crate::key::ClusterId;
use crate::unix_ms::UnixMs;

/// The repeated calls of one cluster, one at a time of each kind, and what they have come to so far. Not stored: after a
/// restart all of it is asked anew. It goes as a whole with its cluster, so another one of that name inherits nothing.
#[derive(Debug, Default)]
pub(super) struct ClusterCalls {
    /// Making and finding the prerequisites of a launch.
    pub prepare: CallBackoff,
    /// Lasting addresses.
    pub addresses: CallBackoff,
    /// Starting stopped machines.
    pub start: CallBackoff,
    /// Names of machines.
    pub name: CallBackoff,
    /// Ending machines.
    pub terminate: CallBackoff,
    /// Asking by id for machines that a listing lacks.
    pub find: CallBackoff,
    /// Setting challenges.
    pub challenge: CallBackoff,
    /// Removing them.
    pub unchallenge: CallBackoff,
    /// Deleting what is left in a cleanup, which may take minutes.
    pub sweep: CallBackoff,
    /// Listing the cluster's machines.
    pub list: CallBackoff,
    /// When the last listing was asked for.
    pub list_asked_ms: UnixMs,
    /// When that is wanted next, if it has not failed.
    pub list_ms: UnixMs,
    /// Machines whose termination the provider has taken, and when.
    pub asked: BTreeMap<MachineId, UnixMs>,
    /// How often in a row the provider has refused to terminate a machine.
    pub refused: BTreeMap<MachineId, u32>,
    /// Machines that the last listing lacked, since when.
    pub missing: BTreeMap<MachineId, UnixMs>,
    /// Silent instances whose machines the provider was asked about, since when.
    pub explaining: BTreeMap<InstanceName, UnixMs>,
    /// Machines that a name was asked for.
    pub named: BTreeSet<MachineId>,
    /// Jobs whose call is under way.
    pub changing: BTreeSet<JobId>,
    /// How many generations of cluster facts it may make now.
    pub renewals: Renewals,
}

impl ClusterCalls {
    /// An operator wants it terminated: whatever was said before is asked for anew.
    pub(super) fn ask_again(&mut self, machine: &MachineId) {
        self.asked.remove(machine);
        self.refused.remove(machine);
    }

    /// It is gone: nothing is remembered of it.
    pub(super) fn forget(&mut self, machine: &MachineId) {
        self.ask_again(machine);
        self.missing.remove(machine);
        self.named.remove(machine);
    }
}

impl World {
    /// The calls about a cluster.
    pub(super) fn calls(&mut self, name: &ClusterName) -> &mut ClusterCalls {
        self.calls.entry(name.clone()).or_default()
    }

    /// The cluster is gone: nothing of it is left for another one of that name.
    pub(super) fn forget_cluster(&mut self, name: &ClusterName) {
        if let Some(cluster) = self.clusters.remove(name) {
            self.dirty.clusters.remove(name);
            self.dirty.instances.retain(|key| &key.cluster != name);
            self.dirty.facts.retain(|key| &key.cluster != name);
            self.dirty.removed.push(cluster);
        }
        self.calls.remove(name);
        self.stale.remove(name);
        self.published.remove(name);
        self.due.forget(name);
        self.queues.remove(name);
        self.machines.retain(|_, at| &at.cluster != name);
    }

    /// Has a cluster's provider called, once all that led to it is on disk.
    pub(super) fn call_provider(&mut self, name: &ClusterName, call: Call) {
        if let Some(cluster) = self.clusters.get(name) {
            let cluster = cluster.id();
            self.do_later(Effect::Call { cluster, call });
        }
    }

    /// What a call came to.
    pub(super) fn answered(&mut self, cluster: &ClusterId, answer: CallAnswer) -> Answer {
        // Whoever asked for a change waits for this answer, whatever has become of the cluster.
        if let CallAnswer::Changed { job, error, .. } = &answer {
            let (job, error) = (*job, error.clone());
            self.do_later(Effect::CallAnswered { job, error });
        }
        let name = &cluster.name;
        if self
            .clusters
            .get(name)
            .is_none_or(|it| it.uuid != cluster.uuid)
        {
            return Answer::Ack; // it was cleaned up meanwhile; another one may have its name by now
        }
        match answer {
            CallAnswer::Launched { token, result } => self.launched(name, &token, result),
            CallAnswer::Prepared(result) => self.prepared(name, result),
            CallAnswer::Addressed(results) => self.addressed(name, results),
            CallAnswer::ChallengesSet(results) => self.challenges_set(name, results),
            CallAnswer::ChallengesRemoved { machines, error } => {
                self.challenges_removed(name, &machines, error)
            }
            CallAnswer::Explained(texts) => self.explained(name, &texts),
            CallAnswer::Changed { job, result, .. } => self.changed(name, job, result),
            CallAnswer::Started(error) => self.start_answered(name, error),
            CallAnswer::Described(result) => self.described(name, result),
            CallAnswer::Found { machines, result } => self.found(name, &machines, result),
            CallAnswer::Terminated { machines, result } => self.terminated(name, &machines, result),
            CallAnswer::Named { machines, result } => self.names_given(name, &machines, result),
            CallAnswer::Cleaned(result) => self.cleaned(name, result),
        }
    }
}
