//! What the provider shows: asked for at intervals, compared with what is known.

use std::collections::BTreeMap;

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::input::{Answer, Effect, Failure, OpError};
use super::{LOST_AFTER_MS, MAX_BACKOFF_MS, World};
use crate::model::cluster::{Batch, BatchState, Cluster, Instance, Key};
use crate::model::machine::{Machine, MachineState};
use crate::model::phase::{Happened, Phase};

/// Between two looks at a cluster where something is on its way.
const POLL_BUSY_MS: u64 = 2_000;
/// Where machines run and their agents are waited for: those come by themselves.
const POLL_BOOT_MS: u64 = 10_000;
/// Between two looks at a quiet one.
const POLL_QUIET_MS: u64 = 60_000;

impl World {
    pub(super) fn poll_soon(&mut self, name: &ClusterName) {
        self.polls.entry(name.clone()).or_default().next_ms = self.now;
    }

    /// Asks at the latest after so many milliseconds.
    pub(super) fn poll_within(&mut self, name: &ClusterName, ms: u64) {
        let at = self.now + ms;
        let poll = self.polls.entry(name.clone()).or_default();
        poll.next_ms = poll.next_ms.min(at);
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
        let pace = pace(cluster, now);
        let failures = self.polls.get(name).map_or(0, |poll| poll.failures);
        let failures = if result.is_ok() { 0 } else { failures + 1 };
        let wait = match failures {
            0 => pace,
            n => (POLL_BUSY_MS << n.min(5)).min(MAX_BACKOFF_MS),
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
                self.name_the_nameless(name);
                self.end_again(name);
                self.clean_when_gone(name);
                self.mark_due(name);
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
        let at = Key {
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
            self.tell(&at, "instance-gone", note);
            self.end_runs_of(&at);
        } else if old != new {
            self.tell(&at, "instance-state", format!("its machine is {new}"));
        }
        self.stale_facts(name);
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
                Some(member) => self.take_machine(name, &batch, &member.name.clone(), machine),
                None => self.add_stray(name, machine),
            },
            None if cluster.cleaning => self.add_stray(name, machine),
            // Someone gave it our tags by hand: not ours to end. `orphans` shows it, `cleanup` takes it along.
            None => {}
        }
    }

    /// A machine that must go: it is terminated until the provider says that it is gone.
    pub(super) fn add_stray(&mut self, name: &ClusterName, machine: Machine) {
        if machine.state == MachineState::Terminated {
            return;
        }
        let id = machine.id.clone();
        let Some(cluster) = self.cluster_mut(name) else {
            return;
        };
        if cluster.strays.insert(id.clone(), machine).is_none() {
            let text = format!("{id} belongs to no instance any more and is terminated");
            self.tell_cluster(name, "notice", text);
            self.do_later(Effect::CallTerminate {
                cluster: name.clone(),
                machines: vec![id],
            });
            self.poll_soon(name);
        }
    }

    fn see_stray(&mut self, name: &ClusterName, machine: Machine) {
        let known = self
            .clusters
            .get(name)
            .and_then(|c| c.strays.get(&machine.id));
        if known == Some(&machine) {
            return;
        }
        let Some(cluster) = self.cluster_mut(name) else {
            return;
        };
        if machine.state == MachineState::Terminated {
            cluster.strays.remove(&machine.id);
        } else {
            cluster.strays.insert(machine.id.clone(), machine);
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
        for names in batches.into_values() {
            self.name_machines(name, names);
        }
    }

    /// Runs on a machine that is gone for good can never end by themselves.
    pub(super) fn end_runs_of(&mut self, at: &Key) {
        use crate::model::job::{Outcome, Verdict};
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

/// Milliseconds to the next look: the more is on its way, the sooner.
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
        .is_some_and(|since| now < since + 10 * LOST_AFTER_MS)
        && instance.session.is_none();
    let terminating = instance.terminating && instance.phase != Phase::Gone;
    moving || lost || terminating || instance.phase == Phase::Requested
}

/// A terminated machine has no addresses, and nobody is told of those that it had.
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
