//! How a launch ends: when nothing more can come of it, with what is true then.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::plural;

use super::effect::Effect;
use super::turns::{left_count, left_in_words, left_verdict};
use super::{LONGEST_REBOOT_MS, World};
use crate::cluster::Cluster;
use crate::event::Event;
use crate::instance::Instance;
use crate::key::InstanceKey;
use crate::launch::Launch;
use crate::needs::{INDIRECT, Needs};
use crate::outcome::{Outcome, Verdict};
use crate::phase::Phase;
use crate::spec::OnFailure;
use crate::stage::StageState;

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
            self.emit_cluster(
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
        let is_lost = |i: &Instance| late && self.is_lost_in_launch(i);
        let any_lost = scope.iter().any(|i| is_lost(i));
        let awaits = super::prerequisites::lacks_prerequisites(cluster)
            || (whole && waits_for_gone(cluster))
            || scope.iter().any(|i| self.awaits_turn(launch, i));
        let all_at_rest = !awaits
            && scope.iter().all(|i| {
                i.phase.is_at_rest()
                    || needs.is_stuck(i)
                    || (!whole && late && is_away(i))
                    || is_lost(i)
                    || (any_lost && needs.waits(i))
            })
            && (late || lacking.iter().all(|(_, final_)| *final_));
        // Without cluster facts no stage starts, and none come when nobody is left who could report.
        let stuck = late && cluster.generation == 0 && !scope.iter().any(|i| may_come(i));
        if !all_at_rest && !stuck {
            return None;
        }
        if stuck && !all_at_rest {
            return Some(format!(
                "{ready} of {} ready, {needed} needed",
                plural::count(scope.len(), "instance")
            ));
        }
        if let Some(left) = left_in_words(cluster, launch) {
            return Some(left);
        }
        if ready >= needed {
            let lacking: Vec<String> = lacking.into_iter().map(|(text, _)| text).collect();
            return Some(lacking.join("; "));
        }
        let all = plural::count(scope.len(), "instance");
        let waiting = scope.iter().filter(|i| !i.phase.is_at_rest());
        let mut waiting: Vec<String> = waiting
            .map(
                |i| match (contact_lost(i).filter(|_| is_lost(i)), needs.describe(i)) {
                    (Some(text), _) => format!("{}: {text}", i.name),
                    (None, Some(text)) => format!("{} {text}", i.name),
                    (None, None) => format!("{} is {} and its agent is away", i.name, i.phase),
                },
            )
            .collect();
        // The cause goes first: what failed, not what waits for a waiter of it.
        waiting.sort_by_key(|text| (!text.contains(CONTACT_LOST), text.contains(INDIRECT)));
        Some(match waiting.split_first() {
            None => format!("{ready} of {all} ready, {needed} needed"),
            Some((first, [])) => format!("{ready} of {all} ready; {first}"),
            Some((first, more)) => format!(
                "{ready} of {all} ready; {first}, and {} more waiting",
                more.len()
            ),
        })
    }

    /// Its agent is gone, and with it the report of how its stage ended, or the way to give it the next one.
    pub(super) fn is_lost_in_launch(&self, instance: &Instance) -> bool {
        let next = instance.next_stage().map(|next| &instance.stages[next]);
        match next.map(|stage| stage.state) {
            Some(StageState::Rebooting) => {
                let since = instance.lost_ms.unwrap_or(self.started_ms);
                instance.session.is_none() && self.now >= since + LONGEST_REBOOT_MS
            }
            _ => instance.phase >= Phase::Enrolled && self.is_lost(instance),
        }
    }

    /// Notes with those of which contact is lost what the launch waited for.
    fn mark_lost(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else {
            return;
        };
        let Some(launch) = cluster.launch.as_ref() else {
            return;
        };
        let open = scope(cluster, launch).into_iter();
        let lost = open.filter(|i| !i.phase.is_at_rest() && self.is_lost_in_launch(i));
        let lost: Vec<(InstanceKey, String)> = lost
            .filter_map(|i| {
                let at = InstanceKey {
                    cluster: name.clone(),
                    instance: i.name.clone(),
                };
                Some((at, contact_lost(i)?))
            })
            .collect();
        for (at, text) in lost {
            if let Some(instance) = self.instance_mut(&at) {
                instance.note.clone_from(&text);
            }
            self.emit(&at, "contact-lost", text);
        }
    }

    pub(super) fn finish_launch(&mut self, name: &ClusterName, error: String) {
        let now = self.now;
        self.queues.remove(name); // nobody is next
        self.mark_lost(name);
        let cluster = self
            .cluster_mut(name)
            .expect("a launch that runs has a cluster");
        let launch = cluster.launch.as_mut().expect("a launch runs");
        launch.ended_ms = Some(now);
        launch.error.clone_from(&error);
        let job = launch.job;
        if let Some(record) = self.jobs.get_mut(&job) {
            // Here too: the next launch takes the place of this one in the cluster's record.
            record.error = Some(error.clone());
            self.dirty.jobs.insert(job);
        }
        let code = u32::from(!error.is_empty());
        self.end_launch_job(job, name);
        if let Some(record) = self.jobs.get_mut(&job) {
            // One without targets has none whose end would be its own.
            record.ended_ms.get_or_insert(now);
            self.dirty.jobs.insert(job);
        }
        if let Some(mut event) = self.launch_end(name, job) {
            event.ends = Some((job, code));
            self.do_later(Effect::Event(Box::new(event)));
        }
    }

    /// What is told of a launch or an apply that is over, as long as no other took its place.
    pub fn launch_end(&self, name: &ClusterName, job: JobId) -> Option<Event> {
        let cluster = self.clusters.get(name)?;
        let launch = cluster.launch.as_ref();
        let launch = launch.filter(|launch| launch.job == job && launch.ended_ms.is_some())?;
        let mut counts: BTreeMap<&'static str, u32> = BTreeMap::new();
        for instance in scope(cluster, launch) {
            *counts.entry(instance.phase.as_str()).or_default() += 1;
        }
        let ready = counts.get("ready").copied().unwrap_or(0);
        let message = match (launch.error.is_empty(), launch.changed) {
            (true, false) => format!("nothing to do: {}", are_ready(ready)),
            (true, true) => are_ready(ready),
            (false, _) => launch.error.clone(),
        };
        let summary: serde_json::Map<String, serde_json::Value> = counts
            .into_iter()
            .map(|(phase, count)| (phase.to_owned(), count.into()))
            .collect();
        let event = Event::cluster(name, "launch-ended", message)
            .with("job", job.to_string())
            .with("changed", launch.changed)
            .with("summary", summary);
        Some(match left_count(cluster, launch) {
            Some(left) => event.with("left", left),
            None => event,
        })
    }

    fn end_launch_job(&mut self, job: aot_proto::ids::JobId, cluster: &ClusterName) {
        let names: Vec<InstanceName> = self
            .jobs
            .get(&job)
            .map(|j| j.targets.keys().cloned().collect())
            .unwrap_or_default();
        let launch = self.clusters.get(cluster).and_then(|c| c.launch.as_ref());
        let cancelled = launch
            .filter(|launch| launch.job == job && launch.cancelled)
            .map(|launch| launch.error.clone());
        for name in names {
            let at = InstanceKey {
                cluster: cluster.clone(),
                instance: name,
            };
            let launch = self.clusters.get(cluster).and_then(|c| c.launch.as_ref());
            let left = self.instance(&at).zip(launch);
            let left = left.and_then(|(instance, launch)| left_verdict(launch, instance));
            if let Some(verdict) = left {
                self.end_target(job, &at.instance, verdict);
                continue;
            }
            let verdict = match self.instance(&at) {
                Some(i) if i.phase == Phase::Ready => Verdict::without_run(Outcome::Succeeded, ""),
                Some(i) if i.note.starts_with(CONTACT_LOST) => {
                    Verdict::without_run(Outcome::LostContact, i.note.clone())
                }
                Some(i) => match (failed_stage(i), &cancelled) {
                    (Some(verdict), _) => verdict,
                    (None, Some(why)) => Verdict::without_run(Outcome::Cancelled, why),
                    (None, None) => {
                        let note = self
                            .view(&at)
                            .map_or_else(|| i.note.clone(), |view| view.note);
                        let why = match note.as_str() {
                            "" => i.phase.to_string(),
                            note => format!("{}: {note}", i.phase),
                        };
                        Verdict::without_run(Outcome::Failed, why)
                    }
                },
                None => Verdict::without_run(Outcome::Absent, "no longer wanted"),
            };
            self.end_target(job, &at.instance, verdict);
        }
    }
}

/// `1 instance is ready`, `3 instances are ready`.
fn are_ready(count: u32) -> String {
    format!(
        "{} {} ready",
        plural::count(count, "instance"),
        plural::is_are(count)
    )
}

/// How the stage ended on which an instance failed, as the end of a job's target.
fn failed_stage(instance: &Instance) -> Option<Verdict> {
    let mut stages = instance.stages.iter();
    let stage = stages.find(|stage| stage.state == StageState::Failed)?;
    let detail = match stage.detail.as_str() {
        "" => format!("stage {}", stage.plan.name),
        why => format!("stage {}: {why}", stage.plan.name),
    };
    Some(Verdict {
        exit_code: stage.exit_code,
        ms: stage.ended_ms.saturating_sub(stage.started_ms),
        ..Verdict::without_run(stage.outcome()?.of_target(), detail)
    })
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

/// Begins the note of an instance whose agent was gone when its launch ended.
pub(super) const CONTACT_LOST: &str = "contact lost";

/// Where contact was lost, for a person; `None` when nothing more was to come.
fn contact_lost(instance: &Instance) -> Option<String> {
    let stage = &instance.stages[instance.next_stage()?];
    let name = &stage.plan.name;
    Some(match stage.state {
        StageState::Running => format!("{CONTACT_LOST} in stage {name}"),
        StageState::Rebooting => {
            format!(
                "{CONTACT_LOST}: it has not come back from the reboot that stage {name} asked for"
            )
        }
        _ => return None,
    })
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
