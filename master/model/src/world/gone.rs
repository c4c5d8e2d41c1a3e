//! How machines are ended, and how it is known that they are gone.
//!
//! A listing by tag shows a machine as terminated for an hour at most (EC2 API, TerminateInstances), and may never do so
//! when its tags go first. So one that a listing lacks is asked for by its id; what is not there either is gone, unless
//! it is so new that the provider may not know it yet.

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::World;
use super::answer::Answer;
use super::provider_call::{Call, CallFailure, Terminations};
use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::machine::{ErrorKind, Listing, Machine, MachineState};
use crate::unix_ms::UnixMs;

/// A machine that the provider does not know this long after its launch is gone, not new.
const KNOWN_AFTER_MS: u64 = 300_000;
/// One that listings have shown, and that is being ended, is gone when it has been missing this long.
const MISSING_MS: u64 = 10_000;
/// A termination that was taken is asked for again when nothing has come of it after this long.
const ASK_AGAIN_MS: u64 = 30_000;
/// So many refusals in a row are final: the rights to a machine that was made just now may lag behind it.
const REFUSALS: u32 = 2;
/// What is said of a machine that is missing and is not new.
const GONE: &str = "the provider no longer knows it";

impl World {
    /// Whatever is to be ended and is not on its way there is asked to go, in one call: a call may have failed, or its
    /// intent may have been all that a killed master left.
    pub(super) fn end_machines(&mut self, name: &ClusterName) {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let calls = self.calls.get(name);
        let is_asked = |id: &MachineId| {
            let asked = calls.and_then(|it| it.asked.get(id));
            asked.is_some_and(|at| now < at + ASK_AGAIN_MS)
        };
        let machines: Vec<MachineId> = to_be_ended(cluster)
            .filter(|machine| !machine.state.is_ending() && !is_asked(&machine.id))
            .map(|machine| machine.id.clone())
            .collect();
        let calls = self.calls(name);
        if machines.is_empty() || !calls.terminate.is_due(now) {
            return;
        }
        calls.terminate.begin();
        for id in &machines {
            calls.asked.insert(id.clone(), now);
        }
        self.call_provider(name, Call::Terminate(machines));
    }

    /// A call for the end of machines was answered.
    pub(super) fn terminated(
        &mut self,
        name: &ClusterName,
        machines: &[MachineId],
        result: Result<Terminations, CallFailure>,
    ) -> Answer {
        let now = self.now;
        let answer = match result {
            Ok(answer) => answer,
            // Nobody may do that: each machine is refused.
            Err(failure) if failure.kind == ErrorKind::Denied => Terminations {
                refused: machines
                    .iter()
                    .map(|id| (id.clone(), failure.clone()))
                    .collect(),
                ..Terminations::default()
            },
            Err(failure) => {
                let calls = self.calls(name);
                calls.terminate.failed(now);
                for id in machines {
                    calls.asked.remove(id);
                }
                if calls.terminate.failures() == 1 {
                    self.emit_cluster(name, "notice", failure.message);
                }
                self.mark_due(name);
                return Answer::Ack;
            }
        };
        for id in &answer.terminated {
            self.is_over(name, id, "it is terminated");
        }
        let mut again = false;
        for id in &answer.unknown {
            if self.is_gone(name, id, true) {
                self.is_over(name, id, GONE);
            } else {
                self.calls(name).asked.remove(id);
                again = true;
            }
        }
        again |= !answer.refused.is_empty();
        let terminate = &mut self.calls(name).terminate;
        match again {
            true => terminate.failed(now),
            false => terminate.worked(),
        }
        self.refused(name, answer.refused);
        self.poll_soon(name);
        self.clean_when_gone(name);
        self.mark_due(name);
        Answer::Ack
    }

    /// The provider does not end these. Once that is final, whoever waits for it learns of it, and the intent is dropped:
    /// it must not come true by surprise later.
    fn refused(&mut self, name: &ClusterName, refused: Vec<(MachineId, CallFailure)>) {
        let mut lasting = Vec::new();
        for (id, failure) in refused {
            let calls = self.calls(name);
            calls.asked.remove(&id);
            if super::prerequisites::is_passing(failure.kind) {
                continue;
            }
            let count = calls.refused.entry(id.clone()).or_default();
            *count += 1;
            if *count == REFUSALS {
                lasting.push((id, failure.message));
            }
        }
        if lasting.is_empty() {
            return;
        }
        let cleaning = self.clusters.get(name).is_some_and(|c| c.cleaning);
        let mut things = Vec::new();
        for (id, why) in lasting {
            let text = format!("cannot terminate {id}: {why}");
            let found = self.by_machine(name, &id).map(|i| i.name.clone());
            let state = match found {
                Some(instance) => self.drop_termination(name, instance, text),
                None => {
                    self.emit_cluster(name, "notice", text);
                    let stray = self.clusters.get(name).and_then(|c| c.strays.get(&id));
                    stray.map_or("unknown", |machine| machine.state.as_str())
                }
            };
            let state = format!("{state}, cannot be terminated: {why}");
            things.push(("instance".to_owned(), id.to_string(), state, true));
        }
        if cleaning {
            self.end_cleanup(name, things, None);
        }
    }

    /// The instance continues with its machine; gives the machine's state.
    fn drop_termination(
        &mut self,
        cluster: &ClusterName,
        instance: InstanceName,
        why: String,
    ) -> &'static str {
        let at = InstanceKey {
            cluster: cluster.clone(),
            instance,
        };
        let instance = self.instance_mut(&at).expect("its caller found it");
        instance.terminating = false;
        let state = instance.state();
        self.termination_refused(&at, &why);
        self.emit(&at, "instance-not-terminated", why);
        self.stale_facts(cluster);
        state
    }

    /// Notes which machines a listing lacks. What it shows, however oddly, is not missing.
    pub(super) fn record_missing(&mut self, name: &ClusterName, listing: &Listing) {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let shown: std::collections::BTreeSet<&MachineId> = listing
            .machines
            .iter()
            .map(|machine| &machine.id)
            .chain(&listing.unclear)
            .collect();
        let missing: Vec<MachineId> = known(cluster)
            .filter(|machine| !shown.contains(&machine.id))
            .map(|machine| machine.id.clone())
            .collect();
        let before = std::mem::take(&mut self.calls(name).missing);
        let since = |id: MachineId| {
            let since = before.get(&id).copied().unwrap_or(now);
            (id, since)
        };
        self.calls(name).missing = missing.into_iter().map(since).collect();
    }

    /// Asks by id for missing machines that may be gone.
    pub(super) fn find_missing(&mut self, name: &ClusterName) {
        let now = self.now;
        let (Some(cluster), Some(calls)) = (self.clusters.get(name), self.calls.get(name)) else {
            return;
        };
        let machines: Vec<MachineId> = known(cluster)
            .filter(|machine| calls.missing.contains_key(&machine.id))
            .filter(|machine| is_old(machine, now) || machine.state.is_ending())
            .map(|machine| machine.id.clone())
            .collect();
        let find = &mut self.calls(name).find;
        if machines.is_empty() {
            return find.worked();
        }
        if find.is_due(now) {
            find.begin();
            self.call_provider(name, Call::Find(machines));
        }
    }

    /// What the provider has of the machines that were asked for by id.
    pub(super) fn found(
        &mut self,
        name: &ClusterName,
        asked: &[MachineId],
        result: Result<Listing, CallFailure>,
    ) -> Answer {
        let now = self.now;
        if !self.clusters.contains_key(name) {
            return Answer::Ack;
        }
        let Ok(listing) = result else {
            self.calls(name).find.failed(now);
            return Answer::Ack;
        };
        let mut open = false;
        for id in asked {
            let is_shown = listing.machines.iter().any(|machine| machine.id == *id)
                || listing.unclear.contains(id);
            if !is_shown && self.is_gone(name, id, false) {
                self.is_over(name, id, GONE);
            } else {
                open = true;
            }
        }
        for machine in listing.machines {
            // One that belongs to nobody here was not asked for.
            if asked.contains(&machine.id) {
                self.see(name, machine);
            }
        }
        let find = &mut self.calls(name).find;
        match open {
            true => find.failed(now),
            false => find.worked(),
        }
        self.clean_when_gone(name);
        self.mark_due(name);
        Answer::Ack
    }

    /// Whether a machine that the provider does not know is gone; `ending` = it said so when asked to end it.
    fn is_gone(&self, name: &ClusterName, id: &MachineId, ending: bool) -> bool {
        let now = self.now;
        let Some(machine) = self.machine(name, id) else {
            return false;
        };
        let since = self.calls.get(name).and_then(|it| it.missing.get(id));
        let long = since.is_some_and(|since| now >= since + MISSING_MS);
        // What has never been anything but new may not be known everywhere yet.
        let was_shown = machine.state != MachineState::Pending;
        is_old(machine, now) || (was_shown && long && (ending || machine.state.is_ending()))
    }

    /// The machine is gone for good, and the provider does not show it any more.
    fn is_over(&mut self, name: &ClusterName, id: &MachineId, why: &str) {
        if let Some(machine) = self.machine(name, id).cloned() {
            let gone = Machine {
                state: MachineState::Terminated,
                state_reason: why.to_owned(),
                ..machine
            };
            self.see(name, gone);
        }
        self.calls(name).forget(id);
    }

    /// A member's machine, or a stray.
    fn machine(&self, name: &ClusterName, id: &MachineId) -> Option<&Machine> {
        let strays = &self.clusters.get(name)?.strays;
        let member = self
            .by_machine(name, id)
            .and_then(|instance| instance.machine.as_ref());
        member.or_else(|| strays.get(id))
    }
}

/// All machines of a cluster that are not known to be gone.
fn known(cluster: &Cluster) -> impl Iterator<Item = &Machine> {
    let members = cluster.instances.values();
    members
        .filter_map(|instance| instance.machine.as_ref())
        .chain(cluster.strays.values())
        .filter(|machine| machine.state != MachineState::Terminated)
}

/// Machines that nobody wants any more.
fn to_be_ended(cluster: &Cluster) -> impl Iterator<Item = &Machine> {
    let goes = |instance: &&Instance| instance.terminating || cluster.cleaning;
    cluster
        .instances
        .values()
        .filter(goes)
        .filter_map(|instance| instance.machine.as_ref())
        .chain(cluster.strays.values())
}

fn is_old(machine: &Machine, now: UnixMs) -> bool {
    let since = machine
        .launched_at
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let since = since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    since.is_none_or(|since| now > since.saturating_add(KNOWN_AFTER_MS))
}
