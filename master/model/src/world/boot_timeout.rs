//! Machines that never called home: when a launch's time is up they are explained, and made again where the file says so.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::World;
use super::answer::Answer;
use super::effect::Effect;
use super::provider_call::Call;
use crate::batch::{BatchChoice, BatchState, PlannedPool};
use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::phase::{Happened, Phase};
use crate::spec::{MemberSpec, PoolSpec};

/// How long the provider has to say why a machine is silent.
const EXPLAIN_MS: u64 = 60_000;

impl World {
    /// Instances that have not enrolled when the launch's time is up have failed; those with a machine are asked about
    /// first.
    pub(super) fn pass_deadline(&mut self, name: &ClusterName) {
        let now = self.now;
        if !self.clusters.get(name).is_some_and(|c| is_late(c, now)) {
            return;
        }
        self.stop_asking(name);
        let (mut silent, mut ask) = (Vec::new(), Vec::new());
        for at in self.keys(name) {
            let Some(instance) = self.instance(&at) else {
                continue;
            };
            if !matches!(instance.phase, Phase::Requested | Phase::Booting) || !instance.wanted {
                if let Some(calls) = self.calls.get_mut(name) {
                    calls.explaining.remove(&at.instance);
                }
                continue;
            }
            let machine = instance.machine_id().filter(|_| instance.has_machine());
            let calls = self.calls.get(name);
            let asked = calls.and_then(|it| it.explaining.get(&at.instance));
            match (asked, machine) {
                (None, Some(machine)) => ask.push((at, machine.clone())),
                (Some(since), Some(_)) if now < since + EXPLAIN_MS => {}
                _ => silent.push(at),
            }
        }
        if !ask.is_empty() {
            let machines = ask.iter().map(|(_, machine)| machine.clone()).collect();
            let asked = ask.into_iter().map(|(at, _)| (at.instance, now));
            self.calls(name).explaining.extend(asked);
            self.call_provider(name, Call::Explain(machines));
        }
        self.fail_silent(name, &silent, &BTreeMap::new());
    }

    /// Calls that have brought nothing by the deadline are not made any more. One that is under way is waited for.
    pub(super) fn stop_asking(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let open: Vec<_> = cluster
            .batches
            .values()
            .filter(|batch| batch.state == BatchState::Requested && !batch.in_flight)
            .cloned()
            .collect();
        for batch in open {
            self.give_up(name, &batch, &not_in_time(&batch.last_error));
        }
    }

    pub(super) fn explained(
        &mut self,
        name: &ClusterName,
        texts: &BTreeMap<MachineId, String>,
    ) -> Answer {
        let asked: Vec<InstanceKey> = std::mem::take(&mut self.calls(name).explaining)
            .into_keys()
            .map(|instance| InstanceKey {
                cluster: name.clone(),
                instance,
            })
            .collect();
        self.fail_silent(name, &asked, texts);
        self.mark_due(name);
        Answer::Ack
    }

    /// These have failed, unless they have called home in the meantime; some are made again.
    fn fail_silent(
        &mut self,
        name: &ClusterName,
        silent: &[InstanceKey],
        texts: &BTreeMap<MachineId, String>,
    ) {
        let mut again = Vec::new();
        for at in silent {
            self.calls(name).explaining.remove(&at.instance);
            let Some(instance) = self.instance(at) else {
                continue;
            };
            if !matches!(instance.phase, Phase::Requested | Phase::Booting) {
                continue;
            }
            let note = explain(instance);
            let text = instance.machine_id().and_then(|id| texts.get(id)).cloned();
            let instance = self.instance_mut(at).expect("found above");
            instance.happen(Happened::Deadline);
            instance.explanation = text.unwrap_or_default();
            instance.note.clone_from(&note);
            let explanation = instance.explanation.clone();
            let event = self
                .about(at, "instance-failed", note)
                .with("explanation", explanation);
            self.do_later(Effect::Event(Box::new(event)));
            if self.may_replace(at) {
                again.push(at.instance.clone());
            }
        }
        self.replace(name, &again);
    }

    fn may_replace(&self, at: &InstanceKey) -> bool {
        let Some(cluster) = self.clusters.get(&at.cluster) else {
            return false;
        };
        let done = cluster
            .launch
            .as_ref()
            .and_then(|launch| launch.replaced.get(&at.instance));
        let has = cluster
            .instances
            .get(&at.instance)
            .is_some_and(Instance::has_machine);
        has && cluster.launching() && done.copied().unwrap_or(0) < cluster.spec.launch.replace
    }

    /// New machines for these, under a new attempt; the old ones become strays, and the launch gets its time anew.
    fn replace(&mut self, name: &ClusterName, again: &[InstanceName]) {
        if again.is_empty() {
            return;
        }
        let now = self.now;
        let pools = self.pools_of(name, again);
        let cluster = self.cluster_mut(name).expect("it has instances");
        if let Some(launch) = &mut cluster.launch {
            launch.deadline_ms = now + launch.timeout_ms;
            for instance in again {
                *launch.replaced.entry(instance.clone()).or_default() += 1;
            }
        }
        for (pool, members, boot) in pools {
            for member in &members {
                let at = InstanceKey {
                    cluster: name.clone(),
                    instance: member.name.clone(),
                };
                self.discard_machine(&at);
            }
            let pool = PlannedPool::new(pool);
            self.plan_batch(name, &pool, members, BatchChoice::default(), boot);
        }
    }

    /// The instances by pool, with what their machines' user-data said.
    fn pools_of(
        &self,
        name: &ClusterName,
        instances: &[InstanceName],
    ) -> Vec<(PoolSpec, Vec<MemberSpec>, crate::batch::BootRecord)> {
        let Some(cluster) = self.clusters.get(name) else {
            return Vec::new();
        };
        let instances: BTreeSet<&InstanceName> = instances.iter().collect();
        let of_pool = |pool: &PoolSpec| {
            let members: Vec<MemberSpec> = pool
                .members
                .iter()
                .filter(|member| instances.contains(&member.name))
                .cloned()
                .collect();
            let first = cluster.instances.get(&members.first()?.name)?;
            let batch = cluster.batches.get(first.batch.as_ref()?)?;
            Some((pool.clone(), members, batch.boot.clone()))
        };
        cluster.spec.pools.iter().filter_map(of_pool).collect()
    }

    /// Takes its machine from an instance, to be terminated.
    pub(super) fn discard_machine(&mut self, at: &InstanceKey) {
        let Some(machine) = self
            .instance_mut(at)
            .and_then(|instance| instance.machine.take())
        else {
            return;
        };
        self.emit(
            at,
            "instance-replaced",
            format!("{} is terminated and replaced", machine.id),
        );
        self.add_stray(&at.cluster, machine);
    }
}

fn is_late(cluster: &Cluster, now: u64) -> bool {
    let launch = cluster.launch.as_ref();
    cluster.launching() && launch.is_some_and(|launch| now >= launch.deadline_ms)
}

/// Why there is no machine, with the last call's error if it had one.
pub(super) fn not_in_time(error: &str) -> String {
    match error {
        "" => "the provider did not provide a machine in time".to_owned(),
        error => format!("the provider did not provide a machine in time: {error}"),
    }
}

fn explain(instance: &Instance) -> String {
    let machine = match instance.machine_id() {
        Some(id) => format!("{id} ({})", instance.state()),
        None => return not_in_time(""),
    };
    if instance.boot_step.is_empty() {
        format!("{machine} never called home: no boot step was reported")
    } else {
        format!(
            "{machine} never enrolled; last boot step: {}",
            instance.boot_step
        )
    }
}
