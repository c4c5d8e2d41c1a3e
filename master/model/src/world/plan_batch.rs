//! The intent to call for machines: one batch for the missing members of each pool, on record before its call.

use std::collections::BTreeSet;

use aot_proto::ids::{ClusterName, InstanceName};

use super::World;
use super::asks::LaunchAsk;
use super::effect::Effect;
use crate::batch::{Batch, BatchChoice, BatchState, BootRecord, PlannedPool};
use crate::cluster::Cluster;
use crate::hash::sha256_hex;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::machine::ClientToken;
use crate::phase::Happened;
use crate::spec::{MemberSpec, PoolSpec};

/// Most members of one call: EC2's own advice is to ask for many machines in batches.
const MAX_BATCH: usize = 500;

impl World {
    /// One batch for the missing members of each pool. Says which instances they are.
    pub(super) fn plan_batches(&mut self, ask: &LaunchAsk) -> Vec<InstanceName> {
        let mut made = Vec::new();
        for pool in &ask.spec.pools {
            let members: Vec<MemberSpec> = pool
                .members
                .iter()
                .filter(|m| self.lacks_machine(&ask.spec.name, &m.name))
                .cloned()
                .collect();
            if members.is_empty() {
                continue;
            }
            made.extend(members.iter().map(|m| m.name.clone()));
            let (planned, boot) = (
                PlannedPool::new(pool.clone()),
                ask.boot.of_pool(pool.label()),
            );
            for part in members.chunks(MAX_BATCH) {
                self.plan_batch(
                    &ask.spec.name,
                    &planned,
                    part.to_vec(),
                    BatchChoice::default(),
                    boot.clone(),
                );
            }
        }
        made
    }

    pub(super) fn lacks_machine(&self, cluster: &ClusterName, name: &InstanceName) -> bool {
        let Some(cluster) = self.clusters.get(cluster) else {
            return false;
        };
        let Some(instance) = cluster.instances.get(name) else {
            return false;
        };
        let asked = instance
            .batch
            .as_ref()
            .and_then(|token| cluster.batches.get(token));
        let in_call = asked.is_some_and(|batch| batch.state == BatchState::Requested);
        let comes = in_call && instance.machine.is_none();
        !(instance.has_machine() || comes)
    }

    /// Writes down the intent to call for these members; the call follows from `call_due_batches`.
    pub(super) fn plan_batch(
        &mut self,
        name: &ClusterName,
        pool: &PlannedPool,
        members: Vec<MemberSpec>,
        choice: BatchChoice,
        boot: BootRecord,
    ) {
        let (now, join_key) = (self.now, self.join_key.clone());
        let cluster = self
            .cluster_mut(name)
            .expect("a batch is planned for a cluster that is there");
        let zone = zone_of_group(cluster, pool);
        let kind = pool.machine.types.get(choice.kind).map(String::as_str);
        let subnet = pool.machine.subnets.get(choice.subnet).map(String::as_str);
        let token = ClientToken::derive(
            cluster.uuid.as_str(),
            pool.label(),
            cluster.batches.len(),
            kind,
            subnet,
        );
        let (mut attempt, mut replaced) = (1, BTreeSet::new());
        for member in &members {
            let instance = cluster
                .instances
                .get_mut(&member.name)
                .expect("members are instances");
            if instance.identity.is_some() {
                replaced.insert(member.name.clone());
            }
            instance.forget_machine();
            instance.attempt += 1;
            attempt = attempt.max(instance.attempt);
            instance.batch = Some(token.0.clone());
            instance.happen(Happened::Request);
            instance.note.clear();
        }
        let batch = Batch {
            join_sha256: sha256_hex(join_key.token(&token.0).as_bytes()),
            proof: cluster.proof,
            pool: pool.label().to_owned(),
            attempt,
            spec: pool.clone(),
            choice,
            zone,
            boot,
            state: BatchState::Requested,
            calls: 0,
            next_call_ms: now,
            unsure_ms: 0,
            doubt_until_ms: 0,
            last_error: String::new(),
            in_flight: false,
            created_ms: now,
            members: members.clone(),
            token: token.clone(),
        };
        cluster.batches.insert(token.0, batch);
        for member in members {
            let at = InstanceKey {
                cluster: name.clone(),
                instance: member.name,
            };
            self.dirty.instances.insert(at.clone());
            if replaced.contains(&at.instance) {
                self.do_later(Effect::ShutOut { at: at.clone() });
            }
            self.emit(&at, "instance-requested", "asking for a machine");
        }
    }
}

/// The zone where machines of the pool's placement group are; `None` when there are none, or the pool names its subnets.
pub(super) fn zone_of_group(cluster: &Cluster, pool: &PoolSpec) -> Option<String> {
    let group = pool.machine.placement_group.as_ref()?;
    if !pool.machine.subnets.is_empty() {
        return None;
    }
    let in_group = |instance: &&Instance| {
        let batch = instance.batch.as_ref();
        let batch = batch.and_then(|token| cluster.batches.get(token));
        batch.is_some_and(|batch| batch.spec.machine.placement_group.as_ref() == Some(group))
    };
    let machines = cluster.instances.values().filter(in_group);
    let mut living = machines
        .filter_map(|instance| instance.machine.as_ref())
        .filter(|machine| !machine.state.is_ending());
    living.find_map(|machine| machine.availability_zone.clone())
}
