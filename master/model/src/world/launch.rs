//! Launches: from a file to batches. How one ends is in `ending`.

use std::path::Path;

use aot_proto::ids::{ClusterName, InstanceName};

use super::World;
use super::adopt::{adopt_plans, label, take_up};
use super::answer::Answer;
use super::asks::LaunchAsk;
use super::effect::Effect;
use super::refusal::OpError;
use super::rolling::{HeldBack, RollingDraft, held_back};
use crate::attestation::{self, Proof};
use crate::cluster::Cluster;
use crate::event::Event;
use crate::instance::Instance;
use crate::job::{Job, JobKind};
use crate::key::{ClusterUuid, InstanceKey};
use crate::launch::Launch;
use crate::phase::{Happened, Phase};
use crate::prerequisites::Prerequisites;
use crate::secret::{SealedSecrets, versions};
use crate::spec::{MemberSpec, PoolSpec};
use crate::stage::StagePlan;

impl World {
    pub(super) fn launch(&mut self, ask: LaunchAsk) -> Answer {
        let name = ask.spec.name.clone();
        if let Some(old) = self.clusters.get(&name) {
            if old.cleaning {
                return Answer::Error(OpError::Conflict(format!(
                    "cluster {name} is being cleaned up; launch it again when `aot-master cleanup {name}` has finished"
                )));
            }
            if old.spec.provider != ask.spec.provider || old.spec.region != ask.spec.region {
                return Answer::Error(OpError::Conflict(format!(
                    "cluster {name} already runs on {} {}; clean it up first, or give this one another name",
                    old.spec.provider,
                    old.spec.region.as_deref().unwrap_or_default()
                )));
            }
        }
        if let Some(job) = self.same_launch_runs(&ask) {
            return Answer::Started(job);
        }
        let proof = match self.proof_of(&ask) {
            Ok(proof) => proof,
            Err(error) => return Answer::Error(error),
        };
        self.end_superseded(&name, &ask.operator);
        let known = self.clusters.get(&name);
        let held = held_back(known, &ask.spec, &ask.pace, |_| true);
        self.adopt_spec(&ask, &held);
        if let Some(proof) = proof {
            let cluster = self.cluster_mut(&name).expect("adopt_spec made it");
            cluster.proof = proof;
        }
        self.begin_launch(&ask, &held)
    }

    /// What the machines that this launch makes must prove; `None` when it makes none.
    fn proof_of(&self, ask: &LaunchAsk) -> Result<Option<Proof>, OpError> {
        let name = &ask.spec.name;
        let known = self.clusters.get(name);
        let lacks = |member: &MemberSpec| {
            known.is_none_or(|cluster| !cluster.instances.contains_key(&member.name))
                || self.lacks_machine(name, &member.name)
        };
        let members = ask.spec.instances();
        let machines = members.filter(|(_, member)| lacks(member)).count();
        if machines == 0 {
            return Ok(None);
        }
        let spec = &ask.spec;
        let region = &ask.certificate.region;
        let known = attestation::Circumstances {
            region,
            certificate: ask.certificate.there,
            machines,
        };
        attestation::demand(spec, known)
            .map(Some)
            .map_err(|why| OpError::Conflict(format!("{why}; {}", why.hint())))
    }

    /// The launch that runs, when it is of this very file: whoever asks again joins it. One of a changed file takes over.
    fn same_launch_runs(&self, ask: &LaunchAsk) -> Option<aot_proto::ids::JobId> {
        let cluster = self
            .clusters
            .get(&ask.spec.name)
            .filter(|c| c.launching() && c.spec == ask.spec)
            .filter(|c| versions(&c.secrets) == versions(&ask.secrets))
            .filter(|c| {
                c.launch
                    .as_ref()
                    .is_some_and(|launch| launch.only.is_none())
            })?;
        let keys = |plans: &[StagePlan]| -> Vec<String> {
            plans.iter().map(|plan| plan.key.clone()).collect()
        };
        let same = cluster.wanted().all(|i| {
            let plans = ask.stages.get(label(i)).map_or(&[][..], Vec::as_slice);
            stages_to_be(cluster, i) == keys(plans)
        });
        // Whoever launches again while something has failed wants that tried again.
        let retry = cluster
            .wanted()
            .any(|i| matches!(i.phase, Phase::Failed | Phase::Gone));
        (same && !retry).then(|| cluster.launch.as_ref().map(|launch| launch.job))?
    }

    fn end_superseded(&mut self, name: &ClusterName, operator: &str) {
        if self.clusters.get(name).is_some_and(Cluster::launching) {
            let why = format!("a newer launch of this cluster took over: {operator}'s");
            self.finish_launch(name, why);
        }
    }

    /// Makes the file the wanted state: new instances are planned, the others' stages are compared.
    fn adopt_spec(&mut self, ask: &LaunchAsk, held: &HeldBack) {
        let name = &ask.spec.name;
        let fresh = || Cluster {
            spec: ask.spec.clone(),
            file: ask.file.clone(),
            uuid: ClusterUuid::new(ask.fresh_uuid.clone()),
            generation: 0,
            facts_sha256: String::new(),
            launch: None,
            batches: std::collections::BTreeMap::new(),
            prerequisites: Prerequisites::default(),
            prepared_for: None,
            strays: std::collections::BTreeMap::new(),
            proof: Proof::Token,
            challenges: std::collections::BTreeMap::new(),
            secrets: std::collections::BTreeMap::new(),
            cleaning: false,
            instances: std::collections::BTreeMap::new(),
        };
        let cluster = self.clusters.entry(name.clone()).or_insert_with(fresh);
        cluster.spec = ask.spec.clone();
        cluster.file.clone_from(&ask.file);
        adopt_secrets(cluster, &ask.secrets);
        cluster.prerequisites.forget_lookups();
        for instance in cluster.instances.values_mut() {
            instance.wanted = false;
        }
        for (pool, member) in ask.spec.instances() {
            let plans = ask.stages.get(pool.label()).map_or(&[][..], Vec::as_slice);
            let instance = cluster
                .instances
                .entry(member.name.clone())
                .or_insert_with(|| Instance::planned(pool, member));
            adopt_member(instance, pool, member);
            if !held.contains(&member.name) {
                adopt_plans(instance, plans, true);
            }
        }
        self.dirty.clusters.insert(name.clone());
        self.dirty.instances.extend(self.keys(name));
        self.stale_facts(name);
    }

    fn begin_launch(&mut self, ask: &LaunchAsk, held: &HeldBack) -> Answer {
        let name = ask.spec.name.clone();
        let job = self.job_id(ask.request);
        let timeout = ask.timeout.unwrap_or(ask.spec.launch.timeout);
        let made = self.plan_batches(ask);
        let starts = self.stopped(&name);
        self.calls(&name).start.hurry();
        self.renew_addresses(&name);
        let pruned = if ask.prune { self.prune(&name) } else { 0 };
        let (now, keys) = (self.now, self.keys(&name));
        let moves = !(made.is_empty() && starts.is_empty()) || pruned > 0;
        let draft = RollingDraft {
            name: &name,
            job,
            pace: &ask.pace,
            stages: &ask.stages,
            from: None,
            moves,
            held,
            keys: &keys,
        };
        let rolling = self.draw_rolling(&draft);
        let at_once = self.without_turn(&keys, job);
        self.recheck_templates(&name, &at_once, moves);
        let stages = self.stages_to_run(&at_once);
        let cluster = self.cluster_mut(&name).expect("adopt_spec made it");
        let moving = cluster.wanted().filter(|i| !i.phase.is_at_rest()).count();
        let orphans: Vec<String> = cluster
            .instances
            .values()
            .filter(|i| !i.wanted && i.has_machine())
            .map(|i| i.name.to_string())
            .collect();
        let changed = moves || stages > 0 || moving > 0 || rolling.is_some();
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX / 2); // half: it is added to
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
            rolling,
        });
        let targets = cluster.wanted().map(|i| (i.name.clone(), None)).collect();
        self.add_launch_job(
            job,
            JobKind::Launch,
            &name,
            launch_in_words(&ask.file),
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
            self.emit_cluster(&name, "notice", text);
        }
        self.mark_due(&name);
        if changed {
            Answer::Started(job)
        } else {
            Answer::UpToDate(job)
        }
    }

    pub(super) fn add_launch_job(
        &mut self,
        id: aot_proto::ids::JobId,
        kind: JobKind,
        cluster: &ClusterName,
        what: String,
        operator: &str,
        targets: std::collections::BTreeMap<InstanceName, Option<crate::outcome::Verdict>>,
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
        self.insert_job(job);
    }

    /// Instances that have a stage to run and a machine to run it on are taken up again.
    pub(super) fn stages_to_run(&mut self, keys: &[InstanceKey]) -> usize {
        let mut count = 0;
        for at in keys {
            let instance = self.instance_mut(at).expect("listed");
            let runs = instance.next_stage().is_some()
                && instance.has_machine()
                && instance.wanted
                && !instance.is_revoked();
            if runs && instance.phase.is_at_rest() {
                // A machine whose agent never enrolled continues booting; one that did continues with its stages.
                if instance.identity.is_none() {
                    instance.happen(Happened::Launched);
                }
                take_up(instance);
            }
            count += usize::from(runs);
        }
        count
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

/// How a launch was asked for, for its record.
pub fn launch_in_words(file: &Path) -> String {
    format!("launch {}", file.display())
}

/// Takes over the values of secrets. One that has not changed stays as it was sealed, and the record as it was.
pub(super) fn adopt_secrets(cluster: &mut Cluster, secrets: &SealedSecrets) {
    if versions(&cluster.secrets) != versions(secrets) {
        cluster.secrets.clone_from(secrets);
    }
}

/// Takes over what the file says of a member; its machine stays.
fn adopt_member(instance: &mut Instance, pool: &PoolSpec, member: &MemberSpec) {
    instance.wanted = true;
    instance.hostname.clone_from(&member.hostname);
    instance.owner.clone_from(&pool.owner);
    instance.user.clone_from(&pool.user);
    instance.pool.clone_from(&pool.name);
}

/// The keys of the stages that an instance has, or will have when its turn comes.
fn stages_to_be(cluster: &Cluster, instance: &Instance) -> Vec<String> {
    let launch = cluster.launch.as_ref();
    let rolling = launch.and_then(|launch| Some((launch.job, launch.rolling.as_ref()?)));
    let turn = instance.turn.as_ref();
    match rolling.filter(|(job, _)| turn.is_some_and(|turn| turn.waits_in(*job))) {
        Some((_, rolling)) => {
            let plans = rolling.stages.get(label(instance)).into_iter().flatten();
            plans.map(|plan| plan.key.clone()).collect()
        }
        None => instance
            .stages
            .iter()
            .map(|stage| stage.plan.key.clone())
            .collect(),
    }
}
