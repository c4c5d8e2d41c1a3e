//! What stages wait for on other instances: whether it is there, whether it can still come, and how to say so. Pure.
//! Used by the world to start stages and to end launches, and by what operators see.

use std::collections::BTreeMap;

use aot_proto::ids::InstanceName;

use super::cluster::Cluster;
use super::instance::Instance;
use super::phase::Phase;
use super::spec::Need;
use super::stage::{Stage, StageState};

/// What became of one that a need waits for in vain, when it waits in vain itself.
pub(crate) const INDIRECT: &str = "waits for what failed";

/// The needs of one cluster as it is now.
pub(crate) struct Needs<'a> {
    cluster: &'a Cluster,
    /// What is known of the instances that were asked for.
    known: BTreeMap<&'a InstanceName, Option<&'static str>>,
}

impl<'a> Needs<'a> {
    /// Of this cluster.
    pub(crate) fn of(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            known: BTreeMap::new(),
        }
    }

    /// All that a stage waits for has succeeded.
    pub(crate) fn are_met(&self, stage: &Stage) -> bool {
        stage.plan.needs.iter().all(|need| self.is_met(need))
    }

    fn is_met(&self, need: &Need) -> bool {
        need.of.iter().all(|name| self.has_done(name, need))
    }

    fn has_done(&self, name: &InstanceName, need: &Need) -> bool {
        let other = self.cluster.instances.get(name);
        let stage = other.and_then(|other| other.stages.get(need.stage as usize));
        stage.is_some_and(|stage| stage.state == StageState::Succeeded)
    }

    /// The next stage of this instance waits for one that failed or is gone, or for one that does so: nothing will start
    /// it before someone steps in.
    pub(crate) fn is_stuck(&mut self, instance: &'a Instance) -> bool {
        let Some(stage) = waiting(instance) else {
            return false;
        };
        let needs = stage.plan.needs.iter();
        needs.into_iter().any(|need| self.blame(need).is_some())
    }

    /// The next stage of this instance waits for another instance, which may yet come.
    pub(crate) fn waits(&self, instance: &Instance) -> bool {
        waiting(instance).is_some_and(|stage| !self.are_met(stage))
    }

    /// Those whose stages the next one of this instance waits for.
    pub(crate) fn awaited<'i>(&self, instance: &'i Instance) -> Vec<&'i InstanceName> {
        let needs = waiting(instance)
            .into_iter()
            .flat_map(|stage| &stage.plan.needs);
        let unmet = needs.flat_map(|need| need.of.iter().map(move |name| (name, need)));
        let unmet = unmet.filter(|(name, need)| !self.has_done(name, need));
        unmet.map(|(name, _)| name).collect()
    }

    /// One of those that a need waits for in vain, and what became of it.
    fn blame(&mut self, need: &'a Need) -> Option<(&'a InstanceName, &'static str)> {
        need.of.iter().find_map(|name| {
            let why = match self.has_done(name, need) {
                true => None,
                false => self.hopeless(name),
            };
            why.map(|why| (name, why))
        })
    }

    /// Why the next stages of an instance will not come by themselves.
    fn hopeless(&mut self, name: &'a InstanceName) -> Option<&'static str> {
        if let Some(known) = self.known.get(name) {
            return *known;
        }
        // Files without dependency cycles are all that is let in; one would end here.
        self.known.insert(name, None);
        let why = match self.cluster.instances.get(name) {
            None => Some("is not there"),
            Some(other) => match other.phase {
                Phase::Failed => Some("failed"),
                Phase::Gone => Some("is gone"),
                // It has no such stage, and gets it with its turn or not at all.
                Phase::Ready => (!self.is_rolling()).then_some("was not changed"),
                _ => self.is_stuck(other).then_some(INDIRECT),
            },
        };
        self.known.insert(name, why);
        why
    }

    fn is_rolling(&self) -> bool {
        let launch = self.cluster.launch.as_ref();
        launch.is_some_and(|launch| launch.active_rolling().is_some())
    }

    /// For a person: `waits for manager/1, which failed`. `None` when the next stage waits for no other instance.
    pub(crate) fn describe(&mut self, instance: &'a Instance) -> Option<String> {
        let stage = waiting(instance)?;
        let unmet = || stage.plan.needs.iter().filter(|need| !need.of.is_empty());
        let in_vain = unmet().find_map(|need| self.blame(need).map(|blamed| (need, blamed)));
        if let Some((need, (name, why))) = in_vain {
            let text = &need.text;
            return Some(match need.of.len() {
                1 => format!("waits for {text}, which {why}"),
                _ => format!("waits for {text}, of which {name} {why}"),
            });
        }
        let need = unmet().find(|need| !self.is_met(need))?;
        let done = need.of.iter().filter(|name| self.has_done(name, need));
        Some(match (need.of.len(), done.count()) {
            (1, _) => format!("waits for {}", need.text),
            (all, done) => format!("waits for {} ({done} of {all} have succeeded)", need.text),
        })
    }
}

/// The stage that is next, when it is not under way.
fn waiting(instance: &Instance) -> Option<&Stage> {
    let stage = &instance.stages[instance.next_stage()?];
    (stage.state == StageState::Waiting).then_some(stage)
}
