//! The end of machines and of clusters.

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::World;
use super::input::{Answer, Effect, Failure, OpError};
use crate::model::cluster::{BatchState, Cluster, Instance, Key, UnixMs};
use crate::model::event::Event;
use crate::model::machine::{Machine, MachineState};

/// A machine that the provider does not know this long after its launch is gone, not new.
const KNOWN_AFTER_MS: u64 = 300_000;

impl World {
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
        self.mark_due(name);
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

    /// Whatever is to be terminated and is not on its way there is asked to go again: a call may have failed, or its
    /// intent may have been all that a killed master left.
    pub(super) fn end_again(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let goes = |i: &&Instance| i.terminating || cluster.cleaning;
        let again: Vec<MachineId> = cluster
            .instances
            .values()
            .filter(goes)
            .filter_map(|i| i.machine.as_ref())
            .chain(cluster.strays.values())
            .filter(|machine| !machine.state.is_ending())
            .map(|machine| machine.id.clone())
            .collect();
        if !again.is_empty() {
            self.do_later(Effect::CallTerminate {
                cluster: name.clone(),
                machines: again,
            });
        }
    }

    /// In a cleanup: once no machine is left, and none can show up any more, the rest is deleted.
    fn is_bare(&self, name: &ClusterName, cluster: &Cluster) -> bool {
        let alive = |m: &Machine| m.state != MachineState::Terminated;
        let settles = |batch: &crate::model::cluster::Batch| batch.is_unsure(self.now);
        !cluster
            .instances
            .values()
            .filter_map(|i| i.machine.as_ref())
            .any(alive)
            && cluster.strays.is_empty()
            && !cluster.batches.values().any(settles)
            && !self.is_preparing(name)
            && !self.is_addressing(name)
    }

    pub(super) fn clean_when_gone(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name).filter(|c| c.cleaning) else {
            return;
        };
        if self.is_bare(name, cluster) && self.sweeping.insert(name.clone()) {
            self.do_later(Effect::CallCleanup {
                cluster: name.clone(),
            });
        }
    }

    /// A termination was taken. A machine that the provider does not know is gone, unless it is too young to be known.
    pub(super) fn terminated(
        &mut self,
        name: &ClusterName,
        unknown: &[MachineId],
        error: Option<String>,
    ) -> Answer {
        let now = self.now;
        for id in unknown {
            let Some(cluster) = self.clusters.get(name) else {
                break;
            };
            let machine = self
                .by_machine(name, id)
                .and_then(|i| i.machine.as_ref())
                .or_else(|| cluster.strays.get(id));
            let Some(machine) = machine.filter(|m| is_old(m, now)).cloned() else {
                continue;
            };
            let gone = Machine {
                state: MachineState::Terminated,
                state_reason: "the provider no longer knows it".to_owned(),
                ..machine
            };
            self.see(name, gone);
        }
        self.lifecycle_done(name, error)
    }

    /// The receipt: one event for each thing, then the end. Nothing left = the cluster is forgotten.
    pub(super) fn cleaned(
        &mut self,
        name: &ClusterName,
        result: Result<Vec<(String, String, String, bool)>, Failure>,
    ) -> Answer {
        self.sweeping.remove(name);
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
            0 if total == 1 => "cleaned up: 1 thing is gone".to_owned(),
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
            self.machines.retain(|_, at| &at.cluster != name);
        } else if let Some(cluster) = self.cluster_mut(name) {
            cluster.cleaning = false;
        }
        self.do_later(Effect::Event(Box::new(event)));
        Answer::None
    }
}

fn is_old(machine: &Machine, now: UnixMs) -> bool {
    let since = machine
        .launched_at
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let since = since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    since.is_none_or(|since| now > since.saturating_add(KNOWN_AFTER_MS))
}
