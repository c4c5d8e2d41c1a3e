//! Launches: from a file to batches, and from settled instances to an end.

use std::collections::BTreeSet;

use aot_proto::ids::{ClusterName, InstanceName, MachineId};

use super::World;
use super::input::{Answer, Effect, LaunchAsk, OpError};
use super::stages::take_plans;
use crate::model::cluster::{Batch, BatchState, Choice, Cluster, Instance, Key, Launch};
use crate::model::event::Event;
use crate::model::file::{MemberSpec, PoolSpec};
use crate::model::ground::Ground;
use crate::model::hash::sha256_hex;
use crate::model::job::{Job, JobKind};
use crate::model::machine::{ClientToken, MachineState};
use crate::model::phase::{Happened, Phase};

/// Most members of one call: EC2's own advice is to ask for many machines in batches.
const MAX_BATCH: usize = 500;

impl World {
    pub(super) fn launch(&mut self, ask: LaunchAsk) -> Answer {
        let name = ask.spec.name.clone();
        if let Some(old) = self.clusters.get(&name) {
            if old.cleaning {
                return Answer::Error(OpError::Conflict(format!(
                    "cluster {name} is being cleaned up; launch it again once `aot-master cleanup {name}` is through"
                )));
            }
            if old.spec.provider != ask.spec.provider || old.spec.region != ask.spec.region {
                return Answer::Error(OpError::Conflict(format!(
                    "cluster {name} already stands on {} {}; clean it up first, or give this one another name",
                    old.spec.provider,
                    old.spec.region.as_deref().unwrap_or_default()
                )));
            }
        }
        if let Some(job) = self.same_launch_runs(&ask) {
            return Answer::Started(job);
        }
        self.end_superseded(&name);
        self.take_spec(&ask);
        self.begin_launch(&ask)
    }

    /// The launch that runs, when it is of this very file.
    fn same_launch_runs(&self, ask: &LaunchAsk) -> Option<aot_proto::ids::JobId> {
        let cluster = self
            .clusters
            .get(&ask.spec.name)
            .filter(|c| c.launching() && c.spec == ask.spec)
            .filter(|c| {
                c.launch
                    .as_ref()
                    .is_some_and(|launch| launch.only.is_none())
            })?;
        let same = cluster.wanted().all(|i| {
            let label = i
                .pool
                .as_ref()
                .map_or(i.name.as_str(), |pool| pool.as_str());
            let plans = ask.stages.get(label).map_or(&[][..], Vec::as_slice);
            i.stages.len() == plans.len()
                && i.stages
                    .iter()
                    .zip(plans)
                    .all(|(stage, plan)| stage.plan.key == plan.key)
        });
        let retry = cluster
            .wanted()
            .any(|i| matches!(i.phase, Phase::Failed | Phase::Gone));
        (same && !retry).then(|| cluster.launch.as_ref().map(|launch| launch.job))?
    }

    fn end_superseded(&mut self, name: &ClusterName) {
        if self.clusters.get(name).is_some_and(Cluster::launching) {
            self.finish_launch(name, "another launch of this cluster took over".to_owned());
        }
    }

    /// Makes the file the wanted state: new instances are planned, the others' stages are compared.
    fn take_spec(&mut self, ask: &LaunchAsk) {
        let name = &ask.spec.name;
        let fresh = || Cluster {
            spec: ask.spec.clone(),
            file: ask.file.clone(),
            uuid: ask.fresh_uuid.clone(),
            generation: 0,
            facts_sha256: String::new(),
            launch: None,
            batches: std::collections::BTreeMap::new(),
            ground: Ground::default(),
            prepared_for: None,
            strays: std::collections::BTreeMap::new(),
            cleaning: false,
            instances: std::collections::BTreeMap::new(),
        };
        let cluster = self.clusters.entry(name.clone()).or_insert_with(fresh);
        cluster.spec = ask.spec.clone();
        cluster.file.clone_from(&ask.file);
        cluster.ground.forget_lookups();
        for instance in cluster.instances.values_mut() {
            instance.wanted = false;
        }
        for (pool, member) in ask.spec.instances() {
            let plans = ask.stages.get(pool.label()).map_or(&[][..], Vec::as_slice);
            let instance = cluster
                .instances
                .entry(member.name.clone())
                .or_insert_with(|| Instance::planned(pool, member));
            take_member(instance, pool, member, plans);
        }
        self.dirty.clusters.insert(name.clone());
        self.dirty.instances.extend(self.keys(name));
        self.stale_facts(name);
    }

    fn begin_launch(&mut self, ask: &LaunchAsk) -> Answer {
        let name = ask.spec.name.clone();
        let job = self.new_job();
        let timeout = ask.timeout.unwrap_or(ask.spec.launch.timeout);
        let made = self.plan_batches(ask);
        let starts = self.stopped(&name);
        self.look_at_addresses(&name);
        let pruned = if ask.prune { self.prune(&name) } else { 0 };
        let (now, keys) = (self.now, self.keys(&name));
        let stages = self.stages_to_run(&keys);
        let cluster = self.cluster_mut(&name).expect("take_spec made it");
        let unsettled = cluster.wanted().filter(|i| !i.phase.is_settled()).count();
        let orphans: Vec<String> = cluster
            .instances
            .values()
            .filter(|i| !i.wanted && i.has_machine())
            .map(|i| i.name.to_string())
            .collect();
        let changed =
            !(made.is_empty() && starts.is_empty()) || stages > 0 || unsettled > 0 || pruned > 0;
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX / 2);
        cluster.launch = Some(Launch {
            job,
            started_ms: now,
            deadline_ms: now.saturating_add(timeout_ms),
            ended_ms: None,
            changed,
            error: String::new(),
            made,
            only: None,
            cancelled: false,
            rolled_back: false,
            timeout_ms,
            replaced: std::collections::BTreeMap::new(),
            starts,
        });
        let targets = cluster.wanted().map(|i| (i.name.clone(), None)).collect();
        self.add_launch_job(
            job,
            JobKind::Launch,
            &name,
            format!("launch {}", ask.file.display()),
            &ask.operator,
            targets,
        );
        let event =
            Event::cluster(&name, "launch-started", "launch started").with("job", job.to_string());
        self.do_later(Effect::Event(Box::new(event)));
        if !orphans.is_empty() {
            let text = format!(
                "no longer in the file, left alone (--prune terminates them): {}",
                orphans.join(", ")
            );
            self.tell_cluster(&name, "notice", text);
        }
        self.mark_due(&name);
        if changed {
            Answer::Started(job)
        } else {
            Answer::Nothing(job)
        }
    }

    pub(super) fn add_launch_job(
        &mut self,
        id: aot_proto::ids::JobId,
        kind: JobKind,
        cluster: &ClusterName,
        what: String,
        operator: &str,
        targets: std::collections::BTreeMap<InstanceName, Option<crate::model::job::Verdict>>,
    ) {
        let job = Job {
            targets,
            ..Job::new(
                id,
                kind,
                cluster.clone(),
                what,
                operator.to_owned(),
                self.now,
            )
        };
        self.jobs.insert(id, job);
        self.dirty.jobs.insert(id);
    }

    /// Instances that have a stage to run and a machine to run it on are taken up again.
    pub(super) fn stages_to_run(&mut self, keys: &[Key]) -> usize {
        let mut count = 0;
        for at in keys {
            let instance = self.instance_mut(at).expect("listed");
            let runs = instance.next_stage().is_some()
                && instance.has_machine()
                && instance.wanted
                && !instance.is_revoked();
            if runs && instance.phase.is_settled() {
                // A machine whose agent never enrolled goes on booting; one that did goes on with its stages.
                let taken = if instance.identity.is_some() {
                    Happened::StagesWanted
                } else {
                    Happened::Launched
                };
                instance.happen(taken);
                instance.note.clear();
                instance.volumes_sent = None;
            }
            count += usize::from(runs);
        }
        count
    }

    /// One batch for the missing members of each pool. Says which instances they are.
    fn plan_batches(&mut self, ask: &LaunchAsk) -> Vec<InstanceName> {
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
            for part in members.chunks(MAX_BATCH) {
                self.plan_batch(
                    &ask.spec.name,
                    pool,
                    part.to_vec(),
                    Choice::default(),
                    ask.boot.clone(),
                );
            }
        }
        made
    }

    /// Instances whose machines are stopped: a launch starts them.
    fn stopped(&self, name: &ClusterName) -> BTreeSet<InstanceName> {
        let Some(cluster) = self.clusters.get(name) else {
            return BTreeSet::new();
        };
        let is_down = |i: &&Instance| {
            let state = i.machine.as_ref().map(|machine| machine.state);
            matches!(state, Some(MachineState::Stopped | MachineState::Stopping)) && !i.terminating
        };
        let down = cluster.wanted().filter(is_down);
        down.map(|i| i.name.clone()).collect()
    }

    /// Starts the machines of the launch that are stopped; those that are still stopping have their turn later.
    pub(super) fn start_stopped(&mut self, name: &ClusterName) {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name).filter(|c| c.launching()) else {
            return;
        };
        let starts = cluster.launch.as_ref().map(|launch| &launch.starts);
        let machines: Vec<MachineId> = starts
            .into_iter()
            .flatten()
            .filter_map(|name| cluster.instances.get(name)?.machine.as_ref())
            .filter(|machine| machine.state == MachineState::Stopped)
            .map(|machine| machine.id.clone())
            .collect();
        let attempts = self.starting.entry(name.clone()).or_default();
        if machines.is_empty() || !attempts.is_due(now) {
            return;
        }
        attempts.failed(now); // until the provider shows them on their way, once in a while again
        self.do_later(Effect::CallStart {
            cluster: name.clone(),
            machines,
        });
    }

    /// Addresses that the machines don't show any more are given again; refused ones are asked for again.
    fn look_at_addresses(&mut self, name: &ClusterName) {
        self.addressing.remove(name);
        for at in self.keys(name) {
            let instance = self.instance_mut(&at).expect("listed");
            instance.address_error.clear();
            let shown = instance.machine.as_ref().and_then(|m| m.public_ip.as_ref());
            let given = instance.elastic_ip.as_ref().map(|ip| &ip.address);
            let up = instance
                .machine
                .as_ref()
                .is_some_and(|m| m.state == MachineState::Running);
            if up && given.is_some() && shown != given {
                instance.elastic_ip = None;
            }
        }
    }

    fn lacks_machine(&self, cluster: &ClusterName, name: &InstanceName) -> bool {
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
        pool: &PoolSpec,
        members: Vec<MemberSpec>,
        choice: Choice,
        boot: crate::model::cluster::BootRecord,
    ) {
        let (now, join_key) = (self.now, self.join_key.clone());
        let cluster = self
            .cluster_mut(name)
            .expect("a batch is planned for a cluster that is there");
        let kind = pool.machine.types.get(choice.kind).map(String::as_str);
        let subnet = pool.machine.subnets.get(choice.subnet).map(String::as_str);
        let token = ClientToken::derive(
            &cluster.uuid,
            pool.label(),
            cluster.batches.len(),
            kind,
            subnet,
        );
        let mut attempt = 1;
        for member in &members {
            let instance = cluster
                .instances
                .get_mut(&member.name)
                .expect("members are instances");
            instance.forget_machine();
            instance.attempt += 1;
            attempt = attempt.max(instance.attempt);
            instance.batch = Some(token.0.clone());
            instance.happen(Happened::Request);
            instance.note.clear();
        }
        let batch = Batch {
            join_sha256: sha256_hex(join_key.token(&token.0).as_bytes()),
            pool: pool.label().to_owned(),
            attempt,
            spec: pool.clone(),
            choice,
            boot,
            state: BatchState::Requested,
            calls: 0,
            next_call_ms: now,
            unsure_ms: 0,
            last_error: String::new(),
            in_flight: false,
            created_ms: now,
            members: members.clone(),
            token: token.clone(),
        };
        cluster.batches.insert(token.0, batch);
        for member in members {
            let at = Key {
                cluster: name.clone(),
                instance: member.name,
            };
            self.dirty.instances.insert(at.clone());
            self.tell(&at, "instance-requested", "asking for a machine");
        }
    }

    fn prune(&mut self, name: &ClusterName) -> usize {
        let Some(cluster) = self.clusters.get(name) else {
            return 0;
        };
        let orphans: Vec<InstanceName> = cluster
            .instances
            .values()
            .filter(|i| !i.wanted && i.has_machine())
            .map(|i| i.name.clone())
            .collect();
        if !orphans.is_empty() {
            self.terminate(name, &orphans);
        }
        orphans.len()
    }
}

/// Takes over what the file says of a member; its machine stays.
fn take_member(
    instance: &mut Instance,
    pool: &PoolSpec,
    member: &MemberSpec,
    plans: &[crate::model::cluster::StagePlan],
) {
    instance.wanted = true;
    instance.hostname.clone_from(&member.hostname);
    instance.owner.clone_from(&pool.owner);
    instance.user.clone_from(&pool.user);
    instance.pool.clone_from(&pool.name);
    take_plans(instance, plans, true);
}
