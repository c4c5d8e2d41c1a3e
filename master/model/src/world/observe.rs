//! What the provider shows: asked for at intervals, compared with what is known.

use std::collections::BTreeMap;

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::World;
use super::answer::Answer;
use super::provider_call::{Call, CallFailure};
use super::refusal::OpError;
use crate::batch::{Batch, BatchState};
use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::machine::{ErrorKind, Listing, Machine, MachineState};
use crate::phase::{Happened, Phase};

/// Between two listings of a cluster where something is on its way.
const POLL_BUSY_MS: u64 = 2_000;
/// Where machines run and their agents are waited for: those come by themselves.
const POLL_BOOT_MS: u64 = 10_000;
/// Between two listings of a quiet one.
const POLL_QUIET_MS: u64 = 60_000;
/// How long a cluster counts as busy after it lost an agent: its machine may be on its way out.
const LOST_IS_BUSY_MS: u64 = 300_000;

impl World {
    pub(super) fn poll_soon(&mut self, name: &ClusterName) {
        self.calls(name).list_ms = self.now;
    }

    /// Asks at the latest after this many milliseconds.
    pub(super) fn poll_within(&mut self, name: &ClusterName, ms: u64) {
        let at = self.now + ms;
        let calls = self.calls(name);
        calls.list_ms = calls.list_ms.min(at);
    }

    pub(super) fn poll_now(&mut self, name: &ClusterName) -> Answer {
        if !self.clusters.contains_key(name) {
            return Answer::Error(OpError::NoCluster(name.to_string()));
        }
        self.poll_soon(name);
        self.poll_if_due(name);
        Answer::Ack
    }

    /// Whoever asks, and however often: not before its time after a failure.
    pub(super) fn poll_if_due(&mut self, name: &ClusterName) {
        let now = self.now;
        let calls = self.calls(name);
        if now < calls.list_ms || !calls.list.is_due(now) {
            return;
        }
        calls.list.begin();
        calls.list_asked_ms = now;
        self.call_provider(name, Call::Describe);
    }

    pub(super) fn described(
        &mut self,
        name: &ClusterName,
        result: Result<Listing, CallFailure>,
    ) -> Answer {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name) else {
            return Answer::Ack;
        };
        let pace = match self.is_changing(name) {
            true => POLL_BUSY_MS,
            false => pace(cluster, now),
        };
        let calls = self.calls(name);
        calls.list_ms = now + pace;
        let asked_ms = calls.list_asked_ms;
        let failed = result.as_ref().err().map(|failure| failure.message.clone());
        match result {
            Ok(listing) => {
                calls.list.worked();
                self.record_missing(name, &listing);
                for machine in listing.machines {
                    let id = machine.id.clone();
                    self.see(name, machine);
                    self.was_shown(name, &id, asked_ms);
                }
                self.find_missing(name);
                self.name_the_nameless(name);
                self.clean_when_gone(name);
                self.mark_due(name);
            }
            Err(failure) => {
                calls.list.failed(now);
                let failures = calls.list.failures();
                self.not_described(name, &failure, failures);
            }
        }
        self.end_updates(name, asked_ms, failed.as_deref());
        Answer::Ack
    }

    fn not_described(&mut self, name: &ClusterName, failure: &CallFailure, failures: u32) {
        let text = format!("cannot list the machines of {name}: {}", failure.message);
        let cleaning = self.clusters.get(name).is_some_and(|c| c.cleaning);
        // Nothing can be cleaned up by someone who may not see what there is.
        if cleaning && failure.kind == ErrorKind::Denied && failures > 1 {
            self.end_cleanup_early(name, &text);
        } else if failures == 1 {
            self.emit_cluster(name, "notice", text);
        }
    }

    /// One machine as the provider shows it.
    pub(super) fn see(&mut self, name: &ClusterName, machine: Machine) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        if cluster.strays.contains_key(&machine.id) {
            return self.see_stray(name, machine);
        }
        let Some(instance) = self.by_machine(name, &machine.id) else {
            return self.adopt(name, machine);
        };
        if instance.machine.as_ref() == Some(&machine) {
            return;
        }
        let at = InstanceKey {
            cluster: name.clone(),
            instance: instance.name.clone(),
        };
        let gone = machine.state == MachineState::Terminated && instance.phase != Phase::Gone;
        let instance = self.instance_mut(&at).expect("found above");
        let old = instance.state();
        let reason = machine.state_reason.clone();
        instance.set_machine(machine);
        if gone {
            instance.happen(Happened::MachineGone);
            instance.note = if reason.is_empty() {
                "its machine is terminated".to_owned()
            } else {
                reason
            };
            clear_addresses(instance);
        }
        let (new, note) = (instance.state(), instance.note.clone());
        if gone {
            self.emit(&at, "instance-gone", note);
            self.end_runs_of(&at);
        } else if old != new {
            self.emit(&at, "instance-state", format!("its machine is {new}"));
        }
        self.stale_entry(&at, true);
    }

    /// A machine with our tag that no instance has: the answer of the call that made it was lost, or has not come yet (a
    /// call whose answers get lost is made again for a while, and the table shows what there is).
    fn adopt(&mut self, name: &ClusterName, machine: Machine) {
        if machine.state.is_ending() {
            return;
        }
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let token = machine
            .client_token
            .as_ref()
            .map(|token| token.0.clone())
            .unwrap_or_default();
        match cluster.batches.get(&token).cloned() {
            Some(batch) => match batch.members.get(machine.launch_index as usize) {
                Some(member) => self.adopt_machine(name, &batch, &member.name.clone(), machine),
                None => self.add_stray(name, machine),
            },
            None if cluster.cleaning => self.add_stray(name, machine),
            // Someone gave it our tags by hand: not ours to end. `orphans` shows it, `cleanup` takes it along.
            None => {}
        }
    }

    /// Machines whose names did not arrive: the master ended before the call, or it failed.
    fn name_the_nameless(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name).filter(|c| !c.cleaning) else {
            return;
        };
        let nameless = |i: &&Instance| {
            i.machine
                .as_ref()
                .is_some_and(|m| m.name.is_none() && !m.state.is_ending())
        };
        let mut batches: BTreeMap<Option<String>, Vec<(MachineId, InstanceName)>> = BTreeMap::new();
        for instance in cluster.instances.values().filter(nameless) {
            if let Some(machine) = instance.machine_id() {
                let names = batches.entry(instance.batch.clone()).or_default();
                names.push((machine.clone(), instance.name.clone()));
            }
        }
        self.name_machines(name, batches.into_values());
    }

    /// Runs on a machine that is gone for good can never end by themselves.
    pub(super) fn end_runs_of(&mut self, at: &InstanceKey) {
        use crate::outcome::{Outcome, Verdict};
        let ids: Vec<_> = self.runs_of(at).map(|run| run.id).collect();
        for id in ids {
            self.end_run(
                id,
                Verdict::without_run(Outcome::Failed, "its machine was terminated"),
                None,
            );
        }
    }
}

/// Milliseconds to the next listing: the more is on its way, the sooner.
fn pace(cluster: &Cluster, now: u64) -> u64 {
    let open = |batch: &Batch| batch.state == BatchState::Requested || batch.is_unsure(now);
    if cluster.cleaning
        || !cluster.strays.is_empty()
        || cluster.batches.values().any(open)
        || cluster.instances.values().any(|i| is_moving(i, now))
    {
        return POLL_BUSY_MS;
    }
    let boots = |i: &Instance| i.phase == Phase::Booting;
    if cluster.instances.values().any(boots) {
        POLL_BOOT_MS
    } else {
        POLL_QUIET_MS
    }
}

fn is_moving(instance: &Instance, now: u64) -> bool {
    let moving = instance.machine.as_ref().is_some_and(|m| {
        !matches!(
            m.state,
            MachineState::Running | MachineState::Stopped | MachineState::Terminated
        )
    });
    let lost = instance
        .lost_ms
        .is_some_and(|since| now < since + LOST_IS_BUSY_MS)
        && instance.session.is_none();
    let terminating = instance.terminating && instance.phase != Phase::Gone;
    moving || lost || terminating || instance.phase == Phase::Requested
}

/// A terminated machine has no addresses, and those that it had are not handed out any more.
fn clear_addresses(instance: &mut Instance) {
    instance.up = None;
    instance.elastic_ip = None;
    if let Some(machine) = &mut instance.machine {
        machine.private_ip = None;
        machine.public_ip = None;
        machine.private_dns = None;
        machine.public_dns = None;
    }
}
