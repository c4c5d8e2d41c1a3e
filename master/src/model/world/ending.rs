//! How a launch ends: when nothing more can come of it, with what is true then.

use std::collections::BTreeSet;

use aot_proto::ids::{ClusterName, InstanceName};

use super::World;
use super::input::Effect;
use crate::model::cluster::{Cluster, Instance, Key, Launch, StageState};
use crate::model::event::Event;
use crate::model::file::OnFailure;
use crate::model::needs::{INDIRECT, Needs};
use crate::model::phase::Phase;

impl World {
    /// Ends the launch when nothing more can come of it.
    pub(super) fn end_launch(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name).filter(|c| c.launching()) else {
            return;
        };
        let launch = cluster.launch.as_ref().expect("launching says so");
        let Some(error) = self.verdict(cluster, launch) else {
            return;
        };
        let made = launch.made.clone();
        let rollback = cluster.spec.launch.on_failure == OnFailure::Rollback;
        let roll_back = !error.is_empty() && rollback && launch.only.is_none();
        if roll_back && let Some(launch) = self.cluster_mut(name).and_then(|c| c.launch.as_mut()) {
            launch.rolled_back = true;
        }
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

    /// What is wrong at the end, empty when all is well; `None` while more can come.
    fn verdict(&self, cluster: &Cluster, launch: &Launch) -> Option<String> {
        let scope = scope(cluster, launch);
        let ready = scope.iter().filter(|i| i.phase == Phase::Ready).count();
        let whole = launch.only.is_none();
        let needed = match whole {
            true => cluster.spec.launch.min_ready.of(scope.len()),
            false => scope.len(),
        };
        let late = self.now >= launch.deadline_ms;
        let mut needs = Needs::of(cluster);
        let lacking = if whole { lacking(cluster) } else { Vec::new() };
        let settled = !super::ground::lacks_ground(cluster)
            && scope.iter().all(|i| {
                i.phase.is_settled() || needs.is_stuck(i) || (!whole && late && is_away(i))
            })
            && !(whole && waits_for_gone(cluster))
            && (late || lacking.iter().all(|(_, final_)| *final_));
        let stuck = late && cluster.generation == 0 && !scope.iter().any(|i| may_come(i));
        if !settled && !stuck {
            return None;
        }
        if stuck && !settled {
            return Some(format!(
                "{ready} of {} instances are ready, {needed} are needed",
                scope.len()
            ));
        }
        if ready >= needed {
            let lacking: Vec<String> = lacking.into_iter().map(|(text, _)| text).collect();
            return Some(lacking.join("; "));
        }
        let all = scope.len();
        let waiting = scope.iter().filter(|i| !i.phase.is_settled());
        let mut waiting: Vec<String> = waiting
            .map(|i| match needs.in_words(i) {
                Some(text) => format!("{} {text}", i.name),
                None => format!("{} is {} and its agent is away", i.name, i.phase),
            })
            .collect();
        // The cause goes first: what failed, not what waits for a waiter of it.
        waiting.sort_by_key(|text| text.contains(INDIRECT));
        Some(match waiting.split_first() {
            None => format!("{ready} of {all} instances are ready, {needed} are needed"),
            Some((first, [])) => format!("{ready} of {all} instances are ready; {first}"),
            Some((first, more)) => format!(
                "{ready} of {all} instances are ready; {first}, and {} more wait",
                more.len()
            ),
        })
    }

    pub(super) fn finish_launch(&mut self, name: &ClusterName, error: String) {
        let now = self.now;
        let cluster = self
            .cluster_mut(name)
            .expect("a launch that runs has a cluster");
        let mut counts: std::collections::BTreeMap<&'static str, u32> =
            std::collections::BTreeMap::new();
        let launch = cluster.launch.as_ref().expect("a launch runs");
        for instance in scope(cluster, launch) {
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
                    let note = self
                        .view(&at)
                        .map_or_else(|| i.note.clone(), |view| view.note);
                    Verdict::without_run(Outcome::Failed, format!("{}: {note}", i.phase))
                }
                None => Verdict::without_run(Outcome::Absent, "no longer wanted"),
            };
            self.end_target(job, &at.instance, verdict);
        }
    }
}

/// The instances by which a launch is judged.
fn scope<'a>(cluster: &'a Cluster, launch: &Launch) -> Vec<&'a Instance> {
    match &launch.only {
        None => cluster.wanted().collect(),
        Some(names) => names
            .iter()
            .filter_map(|name| cluster.instances.get(name))
            .collect(),
    }
}

/// Its next stage can't be given to it. An apply is for machines that are there, and waits for others no longer than a
/// launch does.
fn is_away(instance: &Instance) -> bool {
    let next = instance
        .next_stage()
        .map(|next| instance.stages[next].state);
    next == Some(StageState::Waiting)
        && (instance.session.is_none() || instance.phase < Phase::Configured)
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

/// What instances should have and lack: an address, a started machine whose agent is back. With each, whether that is
/// known to stay so.
fn lacking(cluster: &Cluster) -> Vec<(String, bool)> {
    let mut lacking = Vec::new();
    let starts = cluster.launch.as_ref().map(|launch| &launch.starts);
    let wanting: BTreeSet<&InstanceName> = super::addresses::wanting(cluster)
        .map(|instance| &instance.name)
        .collect();
    for instance in cluster.wanted().filter(|i| i.phase == Phase::Ready) {
        let name = &instance.name;
        if wanting.contains(name) && instance.elastic_ip.is_none() {
            let why = match instance.address_error.as_str() {
                "" => "has no Elastic IP yet",
                error => error,
            };
            lacking.push((format!("{name} {why}"), !instance.address_error.is_empty()));
        }
        let started = starts.is_some_and(|starts| starts.contains(name));
        if started && (instance.session.is_none() || instance.state() != "running") {
            lacking.push((format!("{name} was started and has not called home"), false));
        }
    }
    lacking
}
