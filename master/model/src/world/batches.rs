//! Calls for machines, and what an answer means.

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::World;
use super::answer::Answer;
use super::prerequisites::is_passing;
use super::provider_call::{Call, CallFailure};
use crate::backoff;
use crate::batch::{Batch, BatchChoice, BatchState};
use crate::key::InstanceKey;
use crate::machine::{ErrorKind, Leftovers, Machine};
use crate::phase::Happened;

/// How many attempts a spent client token may cost.
const MAX_SPENT: u32 = 3;
/// Times that names are asked for which are refused for good.
const NAME_TRIES: u32 = 3;

impl World {
    /// Another master had all this, and may still send a call that it had signed: machines may show up from each call whose
    /// answer is not known, for as long as a signature is good.
    pub fn doubt_calls(&mut self) {
        let now = self.now;
        let mut doubted = Vec::new();
        for (name, cluster) in &mut self.clusters {
            let unsure = cluster.batches.values_mut().filter(|it| it.unsure_ms > 0);
            for batch in unsure {
                batch.doubt(now);
                doubted.push(name.clone());
            }
        }
        self.dirty.clusters.extend(doubted);
    }

    /// Makes the calls whose time has come.
    pub(super) fn call_due_batches(&mut self, name: &ClusterName) {
        let now = self.now;
        let Some(cluster) = self.clusters.get_mut(name) else {
            return;
        };
        if cluster.cleaning || super::prerequisites::lacks_prerequisites(cluster) {
            return;
        }
        let mut tokens = Vec::new();
        for batch in cluster.batches.values_mut() {
            if batch.state == BatchState::Requested && !batch.in_flight && now >= batch.next_call_ms
            {
                batch.in_flight = true;
                batch.calls += 1;
                // Until it is answered it may have made machines, also if this master ends before.
                batch.unsure_ms = now;
                tokens.push(batch.token.0.clone());
            }
        }
        if !tokens.is_empty() {
            self.dirty.clusters.insert(name.clone());
        }
        for token in tokens {
            self.call_provider(name, Call::Launch { token });
        }
    }

    /// The provider answered a batch.
    pub(super) fn launched(
        &mut self,
        name: &ClusterName,
        token: &str,
        result: Result<Vec<Machine>, CallFailure>,
    ) -> Answer {
        let now = self.now;
        let Some(batch) = self
            .cluster_mut(name)
            .and_then(|c| c.batches.get_mut(token))
        else {
            return Answer::Ack;
        };
        batch.in_flight = false;
        match &result {
            Err(failure) if failure.leftovers == Leftovers::None => batch.unsure_ms = 0,
            Err(_) => batch.unsure_ms = now,
            // The same call sent once more makes no others.
            Ok(_) => (batch.unsure_ms, batch.doubt_until_ms) = (0, 0),
        }
        if let Err(failure) = &result {
            batch.last_error.clone_from(&failure.message);
        }
        let batch = batch.clone();
        match result {
            Ok(machines) => self.adopt_machines(name, &batch, machines),
            Err(failure) => self.launch_failed(name, &batch, &failure),
        }
        self.stale_facts(name);
        self.mark_due(name);
        Answer::Ack
    }

    fn adopt_machines(&mut self, name: &ClusterName, batch: &Batch, machines: Vec<Machine>) {
        self.set_batch(name, &batch.token.0, BatchState::Launched);
        let mut names = Vec::new();
        for machine in machines {
            let Some(member) = batch.members.get(machine.launch_index as usize) else {
                continue;
            };
            names.push((machine.id.clone(), member.name.clone()));
            self.adopt_machine(name, batch, &member.name.clone(), machine);
        }
        self.name_machines(name, [names]);
        self.poll_soon(name);
    }

    /// Asks for the members' names on their machines, until it has worked once for each. `batches` are calls of their
    /// own: how many names a provider gives depends on their number.
    pub(super) fn name_machines(
        &mut self,
        name: &ClusterName,
        batches: impl IntoIterator<Item = Vec<(MachineId, InstanceName)>>,
    ) {
        let now = self.now;
        if !self.calls(name).name.is_due(now) {
            return;
        }
        let mut unnamed = Vec::new();
        let named = &mut self.calls(name).named;
        for mut names in batches {
            names.retain(|(machine, _)| named.insert(machine.clone()));
            unnamed.extend((!names.is_empty()).then_some(names));
        }
        if !unnamed.is_empty() {
            self.calls(name).name.begin();
            self.call_provider(name, Call::SetNames(unnamed));
        }
    }

    /// Names were given, or not: then they are given later.
    pub(super) fn names_given(
        &mut self,
        name: &ClusterName,
        machines: &[MachineId],
        result: Result<(), CallFailure>,
    ) -> Answer {
        let now = self.now;
        let calls = self.calls(name);
        match result {
            Ok(()) => calls.name.worked(),
            Err(failure) => {
                calls.name.failed(now);
                let (failures, wait) = (calls.name.failures(), calls.name.left_ms(now));
                // A name is a comfort: without the right to give it, the machines do as well.
                if is_passing(failure.kind) || failures < NAME_TRIES {
                    for id in machines {
                        calls.named.remove(id);
                    }
                }
                if failures == 1 {
                    let text = format!("cannot name the machines yet: {}", failure.message);
                    self.emit_cluster(name, "notice", text);
                }
                self.poll_within(name, wait);
                return Answer::Ack;
            }
        }
        self.poll_soon(name);
        Answer::Ack
    }

    /// Gives an instance its machine; one that it can't have any more is a stray.
    pub(super) fn adopt_machine(
        &mut self,
        name: &ClusterName,
        batch: &Batch,
        member: &InstanceName,
        machine: Machine,
    ) {
        let at = InstanceKey {
            cluster: name.clone(),
            instance: member.clone(),
        };
        let unwanted = self.comes_too_late(name, member);
        let Some(instance) = self.instance_mut(&at) else {
            return;
        };
        if instance.machine_id() == Some(&machine.id) {
            return;
        }
        let taken = instance.batch.as_deref() != Some(&batch.token.0) || instance.has_machine();
        // Nobody waits for it any more, or its instance belongs to another call or has another machine by now.
        if unwanted || taken {
            return self.add_stray(name, machine);
        }
        let address = machine.private_ip.as_deref().unwrap_or_default();
        let text = format!("has machine {} {address}", machine.id);
        let id = machine.id.clone();
        instance.set_machine(machine);
        instance.happen(Happened::Launched);
        instance.note.clear();
        self.machines.insert(id, at.clone());
        self.emit(&at, "instance-launched", text.trim_end());
    }

    /// Its launch was rolled back, or the cluster is being cleaned up, before the machine was known.
    fn comes_too_late(&self, name: &ClusterName, member: &InstanceName) -> bool {
        self.clusters.get(name).is_some_and(|cluster| {
            let launch = cluster.launch.as_ref();
            cluster.cleaning || launch.is_some_and(|it| it.rolled_back && it.made.contains(member))
        })
    }

    fn set_batch(&mut self, name: &ClusterName, token: &str, state: BatchState) {
        if let Some(batch) = self
            .cluster_mut(name)
            .and_then(|c| c.batches.get_mut(token))
        {
            batch.state = state;
        }
    }

    /// What to do about a call that failed, by kind. Once its launch is over no other call follows: nobody waits for it.
    fn launch_failed(&mut self, name: &ClusterName, batch: &Batch, failure: &CallFailure) {
        if failure.leftovers != Leftovers::None {
            self.poll_soon(name);
        }
        if !self.has_time(name) {
            let why = super::boot_timeout::not_in_time(&failure.message);
            return self.give_up(name, batch, &why);
        }
        match failure.kind {
            ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::NoCredentials => {
                self.call_again(name, batch, &failure.message)
            }
            ErrorKind::NoCapacity | ErrorKind::Quota => match elsewhere(batch) {
                Some(choice) => self.replan(name, batch, choice, &failure.message),
                None => self.give_up(name, batch, &failure.message),
            },
            ErrorKind::OtherZone => self.other_zone(name, batch, &failure.message),
            ErrorKind::TokenSpent if batch.attempt < MAX_SPENT => {
                self.replan(name, batch, batch.choice, &failure.message);
            }
            _ => self.give_up(name, batch, &failure.message),
        }
    }

    /// Its placement group has machines in another zone than the call would have used.
    fn other_zone(&mut self, name: &ClusterName, batch: &Batch, why: &str) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let group = &batch.spec.machine.placement_group;
        let zone = super::plan_batch::zone_of_group(cluster, &batch.spec);
        // Of others in the same group it is not known yet where they will be.
        let mut others = cluster
            .batches
            .values()
            .filter(|it| it.token != batch.token);
        let may_tell = others.any(|it| {
            it.state == BatchState::Requested && it.spec.machine.placement_group == *group
        });
        match elsewhere(batch) {
            _ if zone.is_some() && zone != batch.zone => {
                self.replan(name, batch, batch.choice, why);
            }
            Some(choice) if !batch.spec.machine.subnets.is_empty() => {
                self.replan(name, batch, choice, why);
            }
            _ if may_tell => self.call_again(name, batch, why),
            _ => {
                let way = "set `subnet` to one in the zone of the group's machines";
                self.give_up(name, batch, &format!("{why}: {way}"));
            }
        }
    }

    /// The launch runs, and its deadline has not passed.
    fn has_time(&self, name: &ClusterName) -> bool {
        let launch = self.clusters.get(name).and_then(|c| c.launch.as_ref());
        launch.is_some_and(|it| it.ended_ms.is_none() && self.now < it.deadline_ms)
    }

    fn call_again(&mut self, name: &ClusterName, batch: &Batch, why: &str) {
        let wait = backoff::wait_ms(batch.calls);
        let at_ms = self.now + wait;
        if let Some(batch) = self
            .cluster_mut(name)
            .and_then(|c| c.batches.get_mut(&batch.token.0))
        {
            batch.next_call_ms = at_ms;
        }
        let text = format!(
            "retrying the call for {} in {} s: {why}",
            batch.pool,
            wait.div_ceil(1000)
        );
        self.emit_cluster(name, "notice", text);
    }

    fn replan(&mut self, name: &ClusterName, batch: &Batch, choice: BatchChoice, why: &str) {
        self.set_batch(name, &batch.token.0, BatchState::Failed(why.to_owned()));
        self.emit_cluster(
            name,
            "notice",
            format!("{}: {why}; trying the next choice", batch.pool),
        );
        self.plan_batch(
            name,
            &batch.spec,
            batch.members.clone(),
            choice,
            batch.boot.clone(),
        );
    }

    pub(super) fn give_up(&mut self, name: &ClusterName, batch: &Batch, why: &str) {
        self.set_batch(name, &batch.token.0, BatchState::Failed(why.to_owned()));
        for member in &batch.members {
            let at = InstanceKey {
                cluster: name.clone(),
                instance: member.name.clone(),
            };
            let Some(instance) = self.instance_mut(&at) else {
                continue;
            };
            if instance.happen(Happened::Refused) {
                instance.note = why.to_owned();
                self.emit(&at, "instance-failed", why);
            }
        }
    }
}

/// The next type and subnet of the batch's lists: all subnets for a type, then the next type; then, where the file
/// allows it, all of them again without the spot market.
fn elsewhere(batch: &Batch) -> Option<BatchChoice> {
    let machine = &batch.spec.machine;
    let BatchChoice {
        kind,
        subnet,
        on_demand,
    } = batch.choice;
    let falls_back = machine.spot.as_ref().is_some_and(|spot| spot.fallback);
    if subnet + 1 < machine.subnets.len() {
        Some(BatchChoice {
            subnet: subnet + 1,
            ..batch.choice
        })
    } else if kind + 1 < machine.types.len() {
        Some(BatchChoice {
            kind: kind + 1,
            subnet: 0,
            on_demand,
        })
    } else if falls_back && !on_demand {
        Some(BatchChoice {
            on_demand: true,
            ..BatchChoice::default()
        })
    } else {
        None
    }
}
