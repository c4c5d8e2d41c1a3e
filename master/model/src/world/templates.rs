//! Stages with templates that have succeeded: when what they were rendered from has changed, the agent renders them again, and
//! runs only those whose files have become others. Whether they have, the agent alone can say.

use std::collections::BTreeMap;

use aot_proto::ids::{ClusterName, InstanceName};
use aot_proto::v1;
use serde_json::{Map, Value};

use super::World;
use super::facts::has_newest;
use crate::cluster::Cluster;
use crate::facts::counts;
use crate::hash::sha256_hex;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::stage::{RenderRecord, Stage, StageState};

impl World {
    /// Lets stages with templates wait that may be rendered from something else than they were. `moves`: machines come or go, so
    /// the cluster facts will be others.
    pub(super) fn recheck_templates(
        &mut self,
        name: &ClusterName,
        at: &[InstanceKey],
        moves: bool,
    ) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let has_templates = |it: &Instance| it.stages.iter().any(|stage| stage.plan.templates);
        let instance = |at: &&InstanceKey| cluster.instances.get(&at.instance);
        let at: Vec<&InstanceKey> = at
            .iter()
            .filter(|at| instance(at).is_some_and(has_templates))
            .collect();
        if at.is_empty() {
            return;
        }
        let rendered = RenderBasis::of(cluster, moves);
        for at in at {
            let Some(instance) = self
                .clusters
                .get(name)
                .and_then(|it| it.instances.get(&at.instance))
            else {
                continue;
            };
            let due = rendered.due(instance);
            if due.is_empty() {
                continue;
            }
            let instance = self.instance_mut(at).expect("it was there");
            for index in due {
                recheck(&mut instance.stages[index]);
            }
        }
    }

    /// Which stages of each instance a launch or an apply with these variables would let wait for that, by their places, as far as
    /// none before them runs again. `moves`: as of a launch by which machines come, start or go.
    pub fn rendered_again(
        &self,
        name: &ClusterName,
        vars: &Map<String, Value>,
        moves: bool,
    ) -> BTreeMap<InstanceName, Vec<usize>> {
        let Some(cluster) = self.clusters.get(name) else {
            return BTreeMap::new();
        };
        let basis = RenderBasis {
            vars_sha256: vars_sha256(vars),
            ..RenderBasis::of(cluster, moves)
        };
        let due = |instance: &Instance| (instance.name.clone(), basis.due(instance));
        let all = cluster.wanted().map(due);
        all.filter(|(_, due)| !due.is_empty()).collect()
    }

    /// The end of a try of a stage that had succeeded before: whether it was found unchanged, and is as it was.
    pub(super) fn is_unchanged(
        &mut self,
        at: &InstanceKey,
        index: usize,
        ended: &v1::Ended,
    ) -> bool {
        let Some(instance) = self.instance_mut(at) else {
            return false;
        };
        let Some(before) = instance.stages[index].before.take() else {
            return false;
        };
        if !ended.unchanged {
            // It has run, or may have: all after it run again.
            instance.stages[index + 1..]
                .iter_mut()
                .for_each(Stage::reset);
            return false;
        }
        let stage = &mut instance.stages[index];
        let now = std::mem::replace(stage, *before);
        stage.plan = now.plan;
        if let (Some(rendered), Some(from)) = (&mut stage.rendered, now.rendered) {
            (rendered.vars_sha256, rendered.generation) = (from.vars_sha256, from.generation);
        }
        let label = stage.plan.name.clone();
        let text = "its templates become what they were".to_owned();
        let event = self.about(at, "stage-skipped", text);
        let event = event.with("stage", index).with("name", label);
        self.do_later(super::effect::Effect::Event(Box::new(event)));
        true
    }
}

/// What templates are rendered from now.
pub(super) struct RenderBasis {
    vars_sha256: String,
    generation: u64,
    moves: bool,
}

impl RenderBasis {
    /// `moves`: as of [`World::recheck_templates`].
    pub(super) fn of(cluster: &Cluster, moves: bool) -> Self {
        Self {
            vars_sha256: vars_sha256(&cluster.spec.vars),
            generation: cluster.generation,
            moves,
        }
    }

    /// The stages that are to be rendered again: of those that are done, with none before them that is not.
    pub(super) fn due(&self, instance: &Instance) -> Vec<usize> {
        let done = |stage: &&Stage| stage.state == StageState::Succeeded;
        let stages = instance.stages.iter().take_while(done).enumerate();
        stages
            .filter(|(_, stage)| stage.plan.templates && self.is_other(stage))
            .map(|(index, _)| index)
            .collect()
    }

    fn is_other(&self, stage: &Stage) -> bool {
        let same = stage.rendered.as_ref().is_some_and(|it| {
            it.vars_sha256 == self.vars_sha256 && it.generation == self.generation
        });
        self.moves || !same
    }
}

fn recheck(stage: &mut Stage) {
    stage.before = Some(Box::new(stage.clone()));
    stage.state = StageState::Waiting;
    (stage.reboots, stage.interruptions) = (0, 0);
}

/// What a try that starts now is rendered from.
pub(super) fn render_record(cluster: &Cluster, instance: &Instance) -> RenderRecord {
    RenderRecord {
        vars_sha256: vars_sha256(&cluster.spec.vars),
        generation: instance.applied_generation,
        sha256: String::new(),
    }
}

/// Whether the cluster facts are not yet those that this stage is to be rendered from again: a machine is still to come into
/// them, or this one has others.
pub(super) fn awaits_facts(
    cluster: &Cluster,
    instance: &Instance,
    stage: &Stage,
    barrier_open: impl Fn() -> bool,
) -> bool {
    let known = |it: &Instance| counts(it) || it.phase.is_at_rest();
    stage.before.is_some()
        && !(has_newest(cluster, instance) && cluster.wanted().all(known) && barrier_open())
}

/// As the agent gets them.
pub(super) fn vars_json(vars: &Map<String, Value>) -> String {
    serde_json::to_string(vars).unwrap_or_default()
}

fn vars_sha256(vars: &Map<String, Value>) -> String {
    sha256_hex(vars_json(vars).as_bytes())
}
