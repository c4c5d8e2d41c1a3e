//! How a launch ends: when nothing more can come of it, with what is true then.

use aot_proto::ids::{ClusterName, InstanceName};

use super::World;
use super::input::Effect;
use crate::model::cluster::{Cluster, Instance, Key, StageState};
use crate::model::event::Event;
use crate::model::file::OnFailure;
use crate::model::phase::Phase;

impl World {
    /// Ends the launch when nothing more can come of it.
    pub(super) fn end_launch(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name).filter(|c| c.launching()) else {
            return;
        };
        let launch = cluster.launch.as_ref().expect("launching says so");
        let wanted = cluster.wanted().count();
        let ready = cluster.wanted().filter(|i| i.phase == Phase::Ready).count();
        let needed = cluster.spec.launch.min_ready.of(wanted);
        let prepared = !super::ground::lacks_ground(cluster);
        let late = self.now >= launch.deadline_ms;
        let lacking = lacking(cluster);
        let settled = prepared
            && cluster.wanted().all(|i| i.phase.is_settled())
            && !waits_for_gone(cluster)
            && (late || lacking.iter().all(|(_, final_)| *final_));
        let stuck = late && cluster.generation == 0 && !cluster.wanted().any(may_come);
        let blocked = self.blocked_by_needs(cluster);
        if !settled && !stuck && !blocked {
            return;
        }
        let error = if ready >= needed && settled {
            lacking
                .into_iter()
                .map(|(text, _)| text)
                .collect::<Vec<_>>()
                .join("; ")
        } else if blocked {
            format!(
                "{ready} of {wanted} instances are ready; the others wait for stages that failed"
            )
        } else {
            format!("{ready} of {wanted} instances are ready, {needed} are needed")
        };
        let roll_back = !error.is_empty() && cluster.spec.launch.on_failure == OnFailure::Rollback;
        let made = launch.made.clone();
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
    for instance in cluster.wanted().filter(|i| i.phase == Phase::Ready) {
        let name = &instance.name;
        if super::addresses::wants_address(cluster, instance) && instance.elastic_ip.is_none() {
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
