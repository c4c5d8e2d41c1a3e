//! How an instance takes over the stages that a file has for it now, and which of them run again.

use std::collections::BTreeMap;

use crate::instance::Instance;
use crate::phase::Happened;
use crate::stage::{Stage, StagePlan, StageState};

/// Takes over a new bootstrap sequence: what is done and unchanged stays done; from the first change on all waits.
/// `retry` also lets failed stages wait again. Says whether a stage now has to run.
pub(super) fn adopt_plans(instance: &mut Instance, plans: &[StagePlan], retry: bool) -> bool {
    let mut changed = false;
    let mut old: BTreeMap<usize, Stage> = std::mem::take(&mut instance.stages)
        .into_iter()
        .enumerate()
        .collect();
    for (index, plan) in plans.iter().enumerate() {
        let before = old.remove(&index);
        let same = before
            .as_ref()
            .is_some_and(|stage| stage.plan.key == plan.key);
        changed |= !same;
        let mut stage = before.unwrap_or_else(|| Stage::waiting(plan.clone()));
        stage.plan = plan.clone();
        if changed || (retry && stage.state == StageState::Failed) {
            stage.reset();
        }
        instance.stages.push(stage);
    }
    instance.next_stage().is_some()
}

/// From there on all is run again, but for what runs now.
pub(super) fn run_again(instance: &mut Instance, from: usize) {
    for stage in instance.stages.iter_mut().skip(from) {
        if stage.state != StageState::Running {
            stage.reset();
        }
    }
}

/// It is taken up again: for stages that have to run, or for a check.
pub(super) fn take_up(instance: &mut Instance) {
    instance.happen(Happened::StagesWanted);
    instance.note.clear();
    instance.volumes_sent = None;
}

/// Of its pool, or its own.
pub(super) fn label(instance: &Instance) -> &str {
    let pool = instance.pool.as_ref().map(|pool| pool.as_str());
    pool.unwrap_or(instance.name.as_str())
}
