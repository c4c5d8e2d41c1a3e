//! Calls for machines, and what an answer means.

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::input::{Answer, Effect, Failure};
use super::{World, backoff_ms};
use crate::model::cluster::{Batch, BatchState, Choice, Key};
use crate::model::machine::{ErrorKind, Leftovers, Machine};
use crate::model::phase::Happened;

/// How many attempts a spent client token may cost.
const MAX_SPENT: u32 = 3;

impl World {
    /// Makes the calls whose time has come.
    pub(super) fn call_due_batches(&mut self, name: &ClusterName) {
        let now = self.now;
        let Some(cluster) = self.clusters.get_mut(name) else {
            return;
        };
        if cluster.cleaning || super::ground::lacks_ground(cluster) {
            return;
        }
        let mut calls = Vec::new();
        for batch in cluster.batches.values_mut() {
            if batch.state == BatchState::Requested && !batch.in_flight && now >= batch.next_call_ms
            {
                batch.in_flight = true;
                batch.calls += 1;
                batch.unsure_ms = now;
                calls.push(Effect::CallLaunch {
                    cluster: name.clone(),
                    token: batch.token.0.clone(),
                });
            }
        }
        if !calls.is_empty() {
            self.dirty.clusters.insert(name.clone());
            self.effects.extend(calls);
        }
    }

    /// The provider answered a batch.
    pub(super) fn launched(
        &mut self,
        name: &ClusterName,
        token: &str,
        result: Result<Vec<Machine>, Failure>,
    ) -> Answer {
        let now = self.now;
        let Some(batch) = self
            .cluster_mut(name)
            .and_then(|c| c.batches.get_mut(token))
        else {
            return Answer::None;
        };
        batch.in_flight = false;
        match &result {
            Err(failure) if failure.leftovers == Leftovers::None => batch.unsure_ms = 0,
            Err(_) => batch.unsure_ms = now,
            Ok(_) => batch.unsure_ms = 0,
        }
        if let Err(failure) = &result {
            batch.last_error.clone_from(&failure.message);
        }
        let batch = batch.clone();
        match result {
            Ok(machines) => self.take_machines(name, &batch, machines),
            Err(failure) => self.launch_failed(name, &batch, &failure),
        }
        self.stale_facts(name);
        self.mark_due(name);
        Answer::None
    }

    fn take_machines(&mut self, name: &ClusterName, batch: &Batch, machines: Vec<Machine>) {
        self.set_batch(name, &batch.token.0, BatchState::Launched);
        let mut names = Vec::new();
        for machine in machines {
            let Some(member) = batch.members.get(machine.launch_index as usize) else {
                continue;
            };
            names.push((machine.id.clone(), member.name.clone()));
            self.take_machine(name, batch, &member.name.clone(), machine);
        }
        self.name_machines(name, names);
        self.poll_soon(name);
    }

    /// Asks for the members' names on their machines, once each.
    pub(super) fn name_machines(
        &mut self,
        name: &ClusterName,
        mut names: Vec<(MachineId, InstanceName)>,
    ) {
        names.retain(|(machine, _)| self.named.insert(machine.clone()));
        if !names.is_empty() {
            self.do_later(Effect::CallName {
                cluster: name.clone(),
                names,
            });
        }
    }

    /// Gives an instance its machine; one that it can't have any more is a stray.
    pub(super) fn take_machine(
        &mut self,
        name: &ClusterName,
        batch: &Batch,
        member: &InstanceName,
        machine: Machine,
    ) {
        let at = Key {
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
        self.tell(&at, "instance-launched", text.trim_end());
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
    fn launch_failed(&mut self, name: &ClusterName, batch: &Batch, failure: &Failure) {
        if failure.leftovers != Leftovers::None {
            self.poll_soon(name);
        }
        if !self.has_time(name) {
            let why = super::silence::not_in_time(&failure.message);
            return self.give_up(name, batch, &why);
        }
        match failure.kind {
            ErrorKind::Throttled | ErrorKind::Unavailable => {
                self.call_again(name, batch, &failure.message)
            }
            ErrorKind::NoCapacity | ErrorKind::Quota => match elsewhere(batch) {
                Some(choice) => self.replan(name, batch, choice, &failure.message),
                None => self.give_up(name, batch, &failure.message),
            },
            ErrorKind::TokenSpent if batch.attempt < MAX_SPENT => {
                self.replan(name, batch, batch.choice, &failure.message);
            }
            _ => self.give_up(name, batch, &failure.message),
        }
    }

    /// The launch runs, and its deadline has not passed.
    fn has_time(&self, name: &ClusterName) -> bool {
        let launch = self.clusters.get(name).and_then(|c| c.launch.as_ref());
        launch.is_some_and(|it| it.ended_ms.is_none() && self.now < it.deadline_ms)
    }

    fn call_again(&mut self, name: &ClusterName, batch: &Batch, why: &str) {
        let wait = backoff_ms(batch.calls);
        let at_ms = self.now + wait;
        if let Some(batch) = self
            .cluster_mut(name)
            .and_then(|c| c.batches.get_mut(&batch.token.0))
        {
            batch.next_call_ms = at_ms;
        }
        let text = format!(
            "the call for {} is made again in {} s: {why}",
            batch.pool,
            wait.div_ceil(1000)
        );
        self.tell_cluster(name, "notice", text);
    }

    fn replan(&mut self, name: &ClusterName, batch: &Batch, choice: Choice, why: &str) {
        self.set_batch(name, &batch.token.0, BatchState::Failed(why.to_owned()));
        self.tell_cluster(
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
            let at = Key {
                cluster: name.clone(),
                instance: member.name.clone(),
            };
            let Some(instance) = self.instance_mut(&at) else {
                continue;
            };
            if instance.happen(Happened::Refused) {
                instance.note = why.to_owned();
                self.tell(&at, "instance-failed", why);
            }
        }
    }

    pub(super) fn stale_facts(&mut self, name: &ClusterName) {
        self.stale.insert(name.clone());
    }
}

/// The next type and subnet of the batch's lists: all subnets for a type, then the next type; then, where the file
/// allows it, all of them again without the spot market.
fn elsewhere(batch: &Batch) -> Option<Choice> {
    let machine = &batch.spec.machine;
    let Choice {
        kind,
        subnet,
        on_demand,
    } = batch.choice;
    let falls_back = machine.spot.as_ref().is_some_and(|spot| spot.fallback);
    if subnet + 1 < machine.subnets.len() {
        Some(Choice {
            subnet: subnet + 1,
            ..batch.choice
        })
    } else if kind + 1 < machine.types.len() {
        Some(Choice {
            kind: kind + 1,
            subnet: 0,
            on_demand,
        })
    } else if falls_back && !on_demand {
        Some(Choice {
            on_demand: true,
            ..Choice::default()
        })
    } else {
        None
    }
}
