//! Machines: calls for them, what the provider shows of them, and their end.

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::input::{Answer, Effect, Failure, OpError};
use super::{LOST_AFTER_MS, World};
use crate::model::cluster::{Batch, BatchState, Choice, Key};
use crate::model::event::Event;
use crate::model::machine::{ErrorKind, Machine, MachineState};
use crate::model::phase::{Happened, Phase};

/// Between two looks at a cluster where something is on its way.
const POLL_BUSY_MS: u64 = 2_000;
/// Between two looks at a quiet one.
const POLL_QUIET_MS: u64 = 60_000;
/// Longest wait before a call is made again.
const MAX_BACKOFF_MS: u64 = 30_000;
/// How many attempts a spent client token may cost.
const MAX_SPENT: u32 = 3;

impl World {
    /// Makes the calls whose time has come.
    pub(super) fn call_due_batches(&mut self, name: &ClusterName) {
        let now = self.now;
        let Some(cluster) = self.clusters.get_mut(name) else {
            return;
        };
        if cluster.cleaning {
            return;
        }
        let mut calls = Vec::new();
        for batch in cluster.batches.values_mut() {
            if batch.state == BatchState::Requested && !batch.in_flight && now >= batch.next_call_ms
            {
                batch.in_flight = true;
                batch.calls += 1;
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
        let Some(batch) = self
            .cluster_mut(name)
            .and_then(|c| c.batches.get_mut(token))
        else {
            return Answer::None;
        };
        batch.in_flight = false;
        let batch = batch.clone();
        match result {
            Ok(machines) => self.take_machines(name, &batch, machines),
            Err(failure) => self.launch_failed(name, &batch, &failure),
        }
        self.stale_facts(name);
        self.advance(name);
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
        if !names.is_empty() {
            self.do_later(Effect::CallName {
                cluster: name.clone(),
                names,
            });
        }
        self.poll_soon(name);
    }

    /// Gives an instance its machine, unless it has got another one since.
    fn take_machine(
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
        let Some(instance) = self.instance_mut(&at) else {
            return;
        };
        if instance.batch.as_deref() != Some(&batch.token.0)
            || instance.machine_id() == Some(&machine.id)
        {
            return;
        }
        let address = machine.private_ip.as_deref().unwrap_or_default();
        let text = format!("has machine {} {address}", machine.id);
        instance.machine = Some(machine);
        instance.happen(Happened::Launched);
        instance.note.clear();
        self.tell(&at, "instance-launched", text.trim_end());
    }

    fn set_batch(&mut self, name: &ClusterName, token: &str, state: BatchState) {
        if let Some(batch) = self
            .cluster_mut(name)
            .and_then(|c| c.batches.get_mut(token))
        {
            batch.state = state;
        }
    }

    /// What to do about a call that failed, by kind.
    fn launch_failed(&mut self, name: &ClusterName, batch: &Batch, failure: &Failure) {
        match failure.kind {
            ErrorKind::Throttled | ErrorKind::Unavailable => {
                self.call_again(name, batch, &failure.message)
            }
            ErrorKind::NoCapacity => match elsewhere(batch) {
                Some(choice) => self.replan(name, batch, choice, &failure.message),
                None => self.give_up(name, batch, &failure.message),
            },
            ErrorKind::TokenSpent if batch.attempt < MAX_SPENT => {
                self.replan(name, batch, batch.choice, &failure.message);
            }
            _ => self.give_up(name, batch, &failure.message),
        }
    }

    fn call_again(&mut self, name: &ClusterName, batch: &Batch, why: &str) {
        let wait = (500_u64 << batch.calls.min(6)).min(MAX_BACKOFF_MS);
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

    fn give_up(&mut self, name: &ClusterName, batch: &Batch, why: &str) {
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

    // ---- looking ------------------------------------------------------------------------------------------------

    pub(super) fn poll_soon(&mut self, name: &ClusterName) {
        self.polls.entry(name.clone()).or_default().next_ms = self.now;
    }

    pub(super) fn poll_now(&mut self, name: &ClusterName) -> Answer {
        if !self.clusters.contains_key(name) {
            return Answer::Error(OpError::NoCluster(name.to_string()));
        }
        self.poll_soon(name);
        self.poll_if_due(name);
        Answer::None
    }

    pub(super) fn poll_if_due(&mut self, name: &ClusterName) {
        let now = self.now;
        let poll = self.polls.entry(name.clone()).or_default();
        if poll.in_flight || now < poll.next_ms {
            return;
        }
        poll.in_flight = true;
        self.do_later(Effect::CallDescribe {
            cluster: name.clone(),
        });
    }

    pub(super) fn described(
        &mut self,
        name: &ClusterName,
        result: Result<Vec<Machine>, Failure>,
    ) -> Answer {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name) else {
            return Answer::None;
        };
        let busy = cluster.cleaning || cluster.instances.values().any(|i| is_busy(i, now));
        let failures = self.polls.get(name).map_or(0, |poll| poll.failures);
        let failures = if result.is_ok() { 0 } else { failures + 1 };
        let wait = match (failures, busy) {
            (0, true) => POLL_BUSY_MS,
            (0, false) => POLL_QUIET_MS,
            (n, _) => (POLL_BUSY_MS << n.min(5)).min(MAX_BACKOFF_MS),
        };
        self.polls.insert(
            name.clone(),
            super::Poll {
                next_ms: now + wait,
                in_flight: false,
                failures,
            },
        );
        match result {
            Ok(machines) => {
                for machine in machines {
                    self.see(name, machine);
                }
                self.clean_when_gone(name);
                self.advance(name);
            }
            Err(failure) if failures == 1 => {
                let text = format!("cannot look at the machines of {name}: {}", failure.message);
                self.tell_cluster(name, "notice", text);
            }
            Err(_) => {}
        }
        Answer::None
    }

    /// One machine as the provider shows it. One that is not shown proves nothing.
    fn see(&mut self, name: &ClusterName, machine: Machine) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let Some(instance) = cluster.by_machine(&machine.id) else {
            return self.adopt(name, machine);
        };
        if instance.machine.as_ref() == Some(&machine) {
            return;
        }
        let at = Key {
            cluster: name.clone(),
            instance: instance.name.clone(),
        };
        let gone = machine.state == MachineState::Terminated && instance.phase != Phase::Gone;
        let instance = self.instance_mut(&at).expect("found above");
        let old = instance.state();
        let reason = machine.state_reason.clone();
        instance.machine = Some(machine);
        if gone {
            instance.happen(Happened::MachineGone);
            instance.note = if reason.is_empty() {
                "its machine is terminated".to_owned()
            } else {
                reason
            };
            clear_addresses(instance.machine.as_mut().expect("set above"));
        }
        let (new, note) = (instance.state(), instance.note.clone());
        if gone {
            self.tell(&at, "instance-gone", note);
            self.end_runs_of(&at);
        } else if old != new {
            self.tell(&at, "instance-state", format!("its machine is {new}"));
        }
        self.stale_facts(name);
    }

    /// A machine with our tag that no instance has: the answer of the call that made it was lost.
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
        let batch = cluster.batches.get(&token).cloned();
        let Some(batch) = batch.filter(|batch| !batch.in_flight) else {
            return;
        };
        let Some(member) = batch.members.get(machine.launch_index as usize).cloned() else {
            return;
        };
        self.take_machine(name, &batch, &member.name, machine);
    }

    /// Runs on a machine that is gone for good can never end by themselves.
    fn end_runs_of(&mut self, at: &Key) {
        use crate::model::job::{Outcome, Verdict};
        let ids: Vec<_> = self
            .runs
            .values()
            .filter(|run| &run.at == at)
            .map(|run| run.id)
            .collect();
        for id in ids {
            self.end_run(
                id,
                Verdict::without_run(Outcome::Failed, "its machine was terminated"),
                None,
            );
        }
    }

    // ---- ending -------------------------------------------------------------------------------------------------

    pub(super) fn terminate(&mut self, name: &ClusterName, instances: &[InstanceName]) -> Answer {
        if !self.clusters.contains_key(name) {
            return Answer::Error(OpError::NoCluster(name.to_string()));
        }
        let mut machines = Vec::new();
        for instance in instances {
            let at = Key {
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
            machines.push(machine.id.clone());
            found.terminating = true;
            self.tell(&at, "instance-terminating", "terminating");
        }
        if !machines.is_empty() {
            self.do_later(Effect::CallTerminate {
                cluster: name.clone(),
                machines,
            });
            self.poll_soon(name);
        }
        self.stale_facts(name);
        self.advance(name);
        Answer::None
    }

    pub(super) fn lifecycle_done(&mut self, name: &ClusterName, error: Option<String>) -> Answer {
        if let Some(error) = error {
            self.tell_cluster(name, "notice", error);
        }
        self.poll_soon(name);
        Answer::None
    }

    /// Ends a cluster: machines first, then what is left of it, then the record.
    pub(super) fn cleanup(&mut self, name: &ClusterName) -> Answer {
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
        self.terminate(name, &all);
        self.poll_soon(name);
        self.poll_if_due(name);
        Answer::None
    }

    /// In a cleanup: machines that are still there are asked again to go; when none is, the rest is deleted.
    fn clean_when_gone(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name).filter(|c| c.cleaning) else {
            return;
        };
        let alive = |i: &&crate::model::cluster::Instance| {
            i.machine
                .as_ref()
                .is_some_and(|m| m.state != MachineState::Terminated)
        };
        let again: Vec<MachineId> = cluster
            .instances
            .values()
            .filter(alive)
            .filter_map(|i| {
                i.machine
                    .as_ref()
                    .filter(|m| !m.state.is_ending())
                    .map(|m| m.id.clone())
            })
            .collect();
        let left = cluster.instances.values().filter(alive).count();
        let calls_out = cluster.batches.values().any(|batch| batch.in_flight);
        if !again.is_empty() {
            self.do_later(Effect::CallTerminate {
                cluster: name.clone(),
                machines: again,
            });
        } else if left == 0 && !calls_out {
            self.do_later(Effect::CallCleanup {
                cluster: name.clone(),
            });
        }
    }

    /// The receipt: one event for each thing, then the end. Nothing left = the cluster is forgotten.
    pub(super) fn cleaned(
        &mut self,
        name: &ClusterName,
        result: Result<Vec<(String, String, String, bool)>, Failure>,
    ) -> Answer {
        let (mut left, mut total) = (0, 0);
        match result {
            Ok(things) => {
                for (kind, id, state, is_left) in things {
                    total += 1;
                    left += u32::from(is_left);
                    let event = Event::cluster(name, "receipt", format!("{kind} {id}: {state}"))
                        .with("kind", kind)
                        .with("id", id)
                        .with("state", state)
                        .with("left", is_left);
                    self.do_later(Effect::Event(Box::new(event)));
                }
            }
            Err(failure) => {
                left += 1;
                self.tell_cluster(
                    name,
                    "notice",
                    format!("cannot delete what is left of {name}: {}", failure.message),
                );
            }
        }
        let text = match left {
            0 => format!("cleaned up: {total} things are gone"),
            _ => {
                format!("{left} things of {name} are left; `aot-master cleanup {name}` tries again")
            }
        };
        let mut event = Event::cluster(name, "cleanup-ended", text).with("left", left);
        event.ends = Some((aot_proto::ids::JobId::from_parts(0, 0), u32::from(left > 0)));
        if left == 0 {
            if let Some(cluster) = self.clusters.remove(name) {
                self.dirty.clusters.remove(name);
                self.dirty.instances.retain(|key| &key.cluster != name);
                self.dirty.removed.push(cluster);
            }
            self.polls.remove(name);
        } else if let Some(cluster) = self.cluster_mut(name) {
            cluster.cleaning = false;
        }
        self.do_later(Effect::Event(Box::new(event)));
        Answer::None
    }

    pub(super) fn stale_facts(&mut self, name: &ClusterName) {
        self.stale.insert(name.clone());
    }
}

fn is_busy(instance: &crate::model::cluster::Instance, now: u64) -> bool {
    let moving = instance.machine.as_ref().is_some_and(|m| {
        !matches!(
            m.state,
            MachineState::Running | MachineState::Stopped | MachineState::Terminated
        )
    });
    let lost = instance
        .lost_ms
        .is_some_and(|since| now < since + 10 * LOST_AFTER_MS)
        && instance.session.is_none();
    let terminating = instance.terminating && instance.phase != Phase::Gone;
    moving || lost || terminating || matches!(instance.phase, Phase::Requested | Phase::Booting)
}

fn clear_addresses(machine: &mut Machine) {
    machine.private_ip = None;
    machine.public_ip = None;
    machine.private_dns = None;
    machine.public_dns = None;
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
