//! Launches: from a file to batches, and from settled instances to an end.

use std::collections::BTreeSet;

use aot_proto::ids::{ClusterName, InstanceName};

use super::World;
use super::input::{Answer, ApplyAsk, Effect, LaunchAsk, OpError};
use super::stages::take_plans;
use crate::model::cluster::{
    Batch, BatchState, Choice, Cluster, Instance, Key, Launch, StageState,
};
use crate::model::event::Event;
use crate::model::file::{MemberSpec, OnFailure, PoolSpec};
use crate::model::ground::Ground;
use crate::model::hash::sha256_hex;
use crate::model::job::{Job, JobKind};
use crate::model::machine::ClientToken;
use crate::model::phase::{Happened, Phase};

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
            .filter(|c| c.launching() && c.spec == ask.spec)?;
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
        let pruned = if ask.prune { self.prune(&name) } else { 0 };
        let (now, stages) = (self.now, self.stages_to_run(&name));
        let cluster = self.cluster_mut(&name).expect("take_spec made it");
        let unsettled = cluster.wanted().filter(|i| !i.phase.is_settled()).count();
        let orphans: Vec<String> = cluster
            .instances
            .values()
            .filter(|i| !i.wanted && i.has_machine())
            .map(|i| i.name.to_string())
            .collect();
        let changed = !made.is_empty() || stages > 0 || unsettled > 0 || pruned > 0;
        cluster.launch = Some(Launch {
            job,
            started_ms: now,
            deadline_ms: now + u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX / 2),
            ended_ms: None,
            changed,
            error: String::new(),
            made,
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
        self.advance(&name);
        if changed {
            Answer::Started(job)
        } else {
            Answer::Nothing(job)
        }
    }

    fn add_launch_job(
        &mut self,
        id: aot_proto::ids::JobId,
        kind: JobKind,
        cluster: &ClusterName,
        what: String,
        operator: &str,
        targets: std::collections::BTreeMap<InstanceName, Option<crate::model::job::Verdict>>,
    ) {
        let job = Job {
            id,
            kind,
            cluster: cluster.clone(),
            what,
            operator: operator.to_owned(),
            started_ms: self.now,
            ended_ms: None,
            targets,
        };
        self.jobs.insert(id, job);
        self.dirty.jobs.insert(id);
    }

    /// Instances that have a stage to run and a machine to run it on are taken up again.
    fn stages_to_run(&mut self, name: &ClusterName) -> usize {
        let mut count = 0;
        for at in self.keys(name) {
            let instance = self.instance_mut(&at).expect("listed");
            let runs = instance.next_stage().is_some() && instance.has_machine() && instance.wanted;
            if runs && instance.phase.is_settled() {
                // A machine whose agent never enrolled goes on booting; one that did goes on with its stages.
                let taken = if instance.identity.is_some() {
                    Happened::StagesWanted
                } else {
                    Happened::Launched
                };
                instance.happen(taken);
                instance.note.clear();
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
            self.plan_batch(
                &ask.spec.name,
                pool,
                members,
                Choice::default(),
                ask.boot.clone(),
            );
        }
        made
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

    pub(super) fn apply(&mut self, ask: ApplyAsk) -> Answer {
        let name = ask.cluster.clone();
        let Some(cluster) = self.clusters.get(&name) else {
            return Answer::Error(OpError::NoCluster(name.to_string()));
        };
        if cluster.launching() {
            let text = format!(
                "a launch of {name} is under way; wait for it (`aot-master launch` joins it)"
            );
            return Answer::Error(OpError::Conflict(text));
        }
        let chosen: BTreeSet<&InstanceName> = ask.instances.iter().collect();
        let keys: Vec<Key> = self
            .keys(&name)
            .into_iter()
            .filter(|at| chosen.contains(&at.instance))
            .collect();
        for at in &keys {
            let instance = self.instance_mut(at).expect("listed");
            let label = instance
                .pool
                .as_ref()
                .map_or(instance.name.as_str(), |p| p.as_str())
                .to_owned();
            let plans = ask.stages.get(&label).map_or(&[][..], Vec::as_slice);
            take_plans(instance, plans, true);
            for stage in instance
                .stages
                .iter_mut()
                .skip(ask.from)
                .filter(|_| ask.force)
            {
                if stage.state != StageState::Running {
                    stage.reset();
                }
            }
        }
        let job = self.new_job();
        let now = self.now;
        let changed = self.stages_to_run(&name) > 0;
        let cluster = self.cluster_mut(&name).expect("found above");
        let timeout_ms =
            u64::try_from(cluster.spec.launch.timeout.as_millis()).unwrap_or(u64::MAX / 2);
        cluster.launch = Some(Launch {
            job,
            started_ms: now,
            deadline_ms: now + timeout_ms,
            ended_ms: None,
            changed,
            error: String::new(),
            made: Vec::new(),
        });
        let targets = keys.iter().map(|at| (at.instance.clone(), None)).collect();
        self.add_launch_job(
            job,
            JobKind::Apply,
            &name,
            "apply".to_owned(),
            &ask.operator,
            targets,
        );
        self.advance(&name);
        if changed {
            Answer::Started(job)
        } else {
            Answer::Nothing(job)
        }
    }

    /// Instances that have not enrolled when the launch's time is up have failed.
    pub(super) fn pass_deadline(&mut self, name: &ClusterName) {
        let now = self.now;
        let late = |cluster: &Cluster| {
            cluster.launching()
                && cluster
                    .launch
                    .as_ref()
                    .is_some_and(|launch| now >= launch.deadline_ms)
        };
        if !self.clusters.get(name).is_some_and(late) {
            return;
        }
        for at in self.keys(name) {
            let Some(instance) = self.instance(&at) else {
                continue;
            };
            if !matches!(instance.phase, Phase::Requested | Phase::Booting) || !instance.wanted {
                continue;
            }
            let note = explain_silence(instance);
            let instance = self.instance_mut(&at).expect("found above");
            instance.happen(Happened::Deadline);
            instance.note.clone_from(&note);
            self.tell(&at, "instance-failed", note);
        }
    }

    /// Ends the launch when nothing more can come of it.
    pub(super) fn end_launch(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name).filter(|c| c.launching()) else {
            return;
        };
        let launch = cluster.launch.as_ref().expect("launching says so");
        let wanted = cluster.wanted().count();
        let ready = cluster.wanted().filter(|i| i.phase == Phase::Ready).count();
        let needed = cluster.spec.launch.min_ready.of(wanted);
        let settled = cluster.wanted().all(|i| i.phase.is_settled()) && !waits_for_gone(cluster);
        let stuck = self.now >= launch.deadline_ms
            && cluster.generation == 0
            && !cluster.wanted().any(may_come);
        let blocked = self.blocked_by_needs(cluster);
        if !settled && !stuck && !blocked {
            return;
        }
        let error = if ready >= needed && settled {
            String::new()
        } else if blocked {
            format!(
                "{ready} of {wanted} instances are ready; the others wait for stages that failed"
            )
        } else {
            format!("{ready} of {wanted} instances are ready, {needed} are needed")
        };
        let roll_back = !error.is_empty() && cluster.spec.launch.on_failure == OnFailure::Rollback;
        let made = launch.made.clone();
        self.finish_launch(name, error);
        if roll_back && !made.is_empty() {
            self.tell_cluster(
                name,
                "notice",
                "on_failure is rollback: terminating what this launch made",
            );
            self.terminate(name, &made);
        }
    }

    /// Every instance that is not settled waits for a stage of one that has failed or is gone.
    fn blocked_by_needs(&self, cluster: &Cluster) -> bool {
        let mut open = cluster
            .wanted()
            .filter(|i| !i.phase.is_settled())
            .peekable();
        open.peek().is_some()
            && open.all(|i| {
                let stage = i.next_stage().map(|index| &i.stages[index]);
                stage.is_some_and(|stage| {
                    stage.state == StageState::Waiting
                        && stage
                            .plan
                            .needs
                            .iter()
                            .flat_map(|need| &need.of)
                            .any(|name| {
                                let other = cluster.instances.get(name);
                                other.is_none_or(|o| matches!(o.phase, Phase::Failed | Phase::Gone))
                            })
                })
            })
    }

    pub(super) fn finish_launch(&mut self, name: &ClusterName, error: String) {
        let now = self.now;
        let cluster = self
            .cluster_mut(name)
            .expect("a launch that runs has a cluster");
        let mut counts: std::collections::BTreeMap<&'static str, u32> =
            std::collections::BTreeMap::new();
        for instance in cluster.wanted() {
            *counts.entry(instance.phase.as_str()).or_default() += 1;
        }
        let ready = counts.get("ready").copied().unwrap_or(0);
        let launch = cluster.launch.as_mut().expect("a launch runs");
        launch.ended_ms = Some(now);
        launch.error.clone_from(&error);
        let (job, changed) = (launch.job, launch.changed);
        let code = u32::from(!error.is_empty());
        let message = match (error.is_empty(), changed) {
            (true, false) => format!("nothing to do: {ready} instances are ready"),
            (true, true) => format!("{ready} instances are ready"),
            (false, _) => error,
        };
        self.end_launch_job(job, name);
        let summary: serde_json::Map<String, serde_json::Value> = counts
            .into_iter()
            .map(|(phase, count)| (phase.to_owned(), count.into()))
            .collect();
        let mut event = Event::cluster(name, "launch-ended", message)
            .with("job", job.to_string())
            .with("changed", changed)
            .with("summary", summary);
        event.ends = Some((job, code));
        self.do_later(Effect::Event(Box::new(event)));
    }

    fn end_launch_job(&mut self, job: aot_proto::ids::JobId, cluster: &ClusterName) {
        use crate::model::job::{Outcome, Verdict};
        let names: Vec<InstanceName> = self
            .jobs
            .get(&job)
            .map(|j| j.targets.keys().cloned().collect())
            .unwrap_or_default();
        for name in names {
            let at = Key {
                cluster: cluster.clone(),
                instance: name,
            };
            let verdict = match self.instance(&at) {
                Some(i) if i.phase == Phase::Ready => Verdict::without_run(Outcome::Succeeded, ""),
                Some(i) => {
                    Verdict::without_run(Outcome::Failed, format!("{}: {}", i.phase, i.note))
                }
                None => Verdict::without_run(Outcome::Absent, "no longer wanted"),
            };
            self.end_target(job, &at.instance, verdict);
        }
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

/// Machines that were asked to go and have not gone yet.
fn waits_for_gone(cluster: &Cluster) -> bool {
    let changed = cluster.launch.as_ref().is_some_and(|launch| launch.changed);
    changed
        && cluster
            .instances
            .values()
            .any(|i| !i.wanted && i.terminating && i.phase != Phase::Gone)
}

/// It may still enrol or report.
fn may_come(instance: &Instance) -> bool {
    matches!(
        instance.phase,
        Phase::Planned | Phase::Requested | Phase::Booting
    )
}

fn explain_silence(instance: &Instance) -> String {
    let machine = match instance.machine_id() {
        Some(id) => format!("{id} ({})", instance.state()),
        None => return "the provider gave no machine in time".to_owned(),
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
