//! Stages again, on machines that are there.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::InstanceName;

use super::World;
use super::adopt::{adopt_plans, label, run_again};
use super::answer::Answer;
use super::asks::ApplyAsk;
use super::launch::adopt_secrets;
use super::refusal::OpError;
use super::rolling::{HeldBack, RollingDraft, held_back, is_unhealthy};
use crate::beyond::beyond_stages;
use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::job::JobKind;
use crate::key::InstanceKey;
use crate::launch::Launch;
use crate::needs::Needs;
use crate::phase::Phase;
use crate::spec::ClusterSpec;
use crate::stage::StageState;

impl World {
    /// Runs stages of the chosen instances. `Answer::Ack` when only failed ones were meant, and there are none.
    pub(super) fn apply(&mut self, ask: ApplyAsk) -> Answer {
        let Some(cluster) = self.clusters.get(&ask.cluster) else {
            return Answer::Error(OpError::NoCluster(ask.cluster.to_string()));
        };
        if cluster.launching() {
            let text = format!(
                "a launch of {} is under way; wait for it (`aot-master launch` joins it)",
                ask.cluster
            );
            return Answer::Error(OpError::Conflict(text));
        }
        let chosen = chosen(cluster, &ask);
        let file = ask.file.as_deref();
        if let Some(text) = file.and_then(|file| file_refusal(&cluster.spec, &file.spec)) {
            return Answer::Error(OpError::Conflict(text));
        }
        if let Some(text) = lacks_stage(cluster, &ask, &chosen) {
            return Answer::Error(OpError::Invalid(text));
        }
        if chosen.is_empty() && ask.failed {
            return Answer::Ack;
        }
        self.adopt_file(&ask, &chosen);
        let keys: Vec<InstanceKey> = chosen
            .iter()
            .map(|instance| InstanceKey {
                cluster: ask.cluster.clone(),
                instance: instance.clone(),
            })
            .collect();
        let known = self.clusters.get(&ask.cluster).expect("found above");
        let is_chosen = |name: &InstanceName| chosen.contains(name);
        let held = held_back(Some(known), &known.spec, &ask.pace, is_chosen);
        for at in keys.iter().filter(|at| !held.contains(&at.instance)) {
            let instance = self
                .instance_mut(at)
                .expect("chosen of those that are there");
            let plans = ask
                .stages
                .get(label(instance))
                .map_or(&[][..], Vec::as_slice);
            adopt_plans(instance, plans, true);
            if ask.force || ask.from.is_some() {
                run_again(instance, ask.from.unwrap_or(0));
            }
        }
        self.begin_apply(ask, chosen, &keys, &held)
    }

    /// Makes a file the wanted state of the cluster. Who is not chosen keeps its stages, but for one that is under way with them:
    /// what it starts from now on would have new variables in its templates, and old ones in all else.
    fn adopt_file(&mut self, ask: &ApplyAsk, chosen: &BTreeSet<InstanceName>) {
        let Some(file) = ask.file.as_deref() else {
            return;
        };
        let Some(cluster) = self.cluster_mut(&ask.cluster) else {
            return;
        };
        cluster.spec = file.spec.clone();
        cluster.file.clone_from(&file.path);
        adopt_secrets(cluster, &file.secrets);
        for at in self.keys(&ask.cluster) {
            let is_under_way = self
                .instance(&at)
                .is_some_and(|it| it.wanted && !it.phase.is_at_rest() && it.next_stage().is_some());
            if is_under_way && !chosen.contains(&at.instance) {
                let instance = self.instance_mut(&at).expect("looked at above");
                let plans = ask.stages.get(label(instance));
                adopt_plans(instance, plans.map_or(&[][..], Vec::as_slice), false);
            }
        }
    }

    fn begin_apply(
        &mut self,
        ask: ApplyAsk,
        chosen: BTreeSet<InstanceName>,
        keys: &[InstanceKey],
        held: &HeldBack,
    ) -> Answer {
        let (name, now, job) = (ask.cluster, self.now, self.job_id(ask.request));
        let draft = RollingDraft {
            name: &name,
            job,
            pace: &ask.pace,
            stages: &ask.stages,
            from: (ask.force || ask.from.is_some()).then(|| ask.from.unwrap_or(0)),
            moves: false,
            held,
            keys,
        };
        let rolling = self.draw_rolling(&draft);
        let at_once = self.without_turn(keys, job);
        self.recheck_templates(&name, &at_once, false);
        let runs = self.stages_to_run(&at_once) > 0;
        let moving = at_once.iter().filter_map(|at| self.instance(at));
        let checks = moving.filter(|it| {
            matches!(it.phase, Phase::Configured | Phase::Bootstrapping)
                && it.next_stage().is_none()
        });
        let changed = runs || checks.count() > 0 || rolling.is_some();
        let cluster = self.cluster_mut(&name).expect("found before");
        let timeout = cluster.spec.launch.timeout.as_millis();
        let timeout_ms = u64::try_from(timeout).unwrap_or(u64::MAX / 2);
        let targets = chosen.iter().map(|name| (name.clone(), None)).collect();
        cluster.launch = Some(Launch {
            job,
            started_ms: now,
            deadline_ms: now.saturating_add(timeout_ms),
            ended_ms: None,
            changed,
            error: String::new(),
            made: Vec::new(),
            only: Some(chosen),
            cancelled: false,
            rolled_back: false,
            timeout_ms,
            replaced: BTreeMap::new(),
            starts: BTreeSet::new(),
            rolling,
        });
        cluster.prepared_for = Some(job); // an apply makes nothing
        self.add_launch_job(job, JobKind::Apply, &name, ask.what, &ask.operator, targets);
        self.mark_due(&name);
        match changed {
            true => Answer::Started(job),
            false => Answer::UpToDate(job),
        }
    }
}

/// Why a cluster does not take this file over by an apply, and the way out.
pub fn file_refusal(had: &ClusterSpec, wants: &ClusterSpec) -> Option<String> {
    let beyond = beyond_stages(had, wants);
    (!beyond.is_empty()).then(|| {
        format!(
            "an apply changes stages alone, and by this file more of {} would change: {}; `aot-master plan FILE` shows it, and `aot-master launch FILE` does it, with the same --set and --vars",
            had.name,
            beyond.join("; ")
        )
    })
}

/// The selected instances; with `failed` those of them on which a stage failed, or that did not come to their stages
/// for another reason, and those that wait for such ones.
fn chosen(cluster: &Cluster, ask: &ApplyAsk) -> BTreeSet<InstanceName> {
    let mut needs = Needs::of(cluster);
    let known = ask.instances.iter();
    let known = known.filter_map(|name| cluster.instances.get(name));
    let has_failed = |instance: &&Instance| {
        let failed = |stage: &crate::stage::Stage| stage.state == StageState::Failed;
        instance.stages.iter().any(failed)
            || (instance.phase == Phase::Failed && instance.next_stage().is_some())
            || is_unhealthy(instance)
    };
    known
        .filter(|instance| !ask.failed || has_failed(instance) || needs.is_stuck(instance))
        .map(|instance| instance.name.clone())
        .collect()
}

/// Says which of them end before the stage to begin with.
fn lacks_stage(
    cluster: &Cluster,
    ask: &ApplyAsk,
    chosen: &BTreeSet<InstanceName>,
) -> Option<String> {
    let from = ask.from?;
    let stages = |name: &InstanceName| {
        let instance = cluster.instances.get(name)?;
        Some(ask.stages.get(label(instance)).map_or(0, Vec::len))
    };
    let short: Vec<(&InstanceName, usize)> = chosen
        .iter()
        .filter_map(|name| Some((name, stages(name)?)))
        .filter(|(_, count)| from >= *count)
        .collect();
    let (name, count) = short.first()?;
    let more = match short.len() {
        1 => String::new(),
        2 => ", nor has 1 other".to_owned(),
        all => format!(", nor have {} others", all - 1),
    };
    let has = match count {
        0 => "it has none".to_owned(),
        1 => "it has only stage 0".to_owned(),
        _ => format!("its stages are 0 to {}", count - 1),
    };
    Some(format!("{name} has no stage {from} ({has}){more}"))
}
