//! A job that is followed though it was not begun by this call: its events so far are not told again. Called by requests that
//! were made before, and by `Watch` with a job, for whoever has lost its first answer.

use std::time::Duration;

use aot_model::job::{Job, JobKind, MachineCall};
use aot_model::machine::MachineState;
use aot_proto::ids::{ClusterName, InstanceName, JobId};
use aot_proto::v1;
use futures::StreamExt;
use tokio_stream::iter;
use tonic::Status;

use super::super::OperatorApi;
use super::super::notes::note;
use super::super::request::{BegunEvents, Wanted};
use super::{ClusterFollower, Events, Goal, Until};
use crate::run::{Remembered, now_ms};

impl OperatorApi {
    /// All events of a cluster; of a job only until its end. What is remembered of the cluster comes first, where that is asked
    /// for.
    pub(in super::super) async fn do_watch(
        &self,
        request: v1::WatchRequest,
    ) -> Result<Events, Status> {
        if request.job_id.is_empty() {
            let cluster = self.cluster(request.cluster.as_deref())?;
            let is_placed = request.cursor.is_some();
            let cursor = request.cursor.unwrap_or(v1::EventCursor {
                seen: Vec::new(),
                since_unix_ms: request.since_unix_ms,
            });
            let (remembered, published) = self.engine.subscribe_from(&cluster, &cursor);
            let place = remembered.place;
            let mut first = recalled(&cluster, remembered);
            if is_placed && !request.remembered_only {
                first.push(up_to(&cluster, place));
            }
            return Ok(match request.remembered_only {
                true => iter(first.into_iter().map(Ok)).boxed(),
                false => self.follow_all(cluster, place, published, first),
            });
        }
        let job = self.job_of(&request.job_id).await?;
        if until(&job).is_none() {
            return Err(Status::invalid_argument(format!(
                "{} ({}) is not a job of a cluster as a whole: `aot-master jobs follow {}`",
                job.id, job.what, job.id
            )));
        }
        Ok(self.joined(&job, false).await.events)
    }

    /// [`OperatorApi::joined`] where whoever decides has just said that there is a job with the id of this request.
    pub(in super::super) async fn rejoined(
        &self,
        id: JobId,
        wanted: &Wanted<'_>,
    ) -> Result<BegunEvents, Status> {
        let job = self.begun_already(id, wanted).await?;
        Ok(self.joined(&job, false).await)
    }

    /// The instances as they are now, and what comes until the job's end; that at once where it has ended. Only the first word for
    /// whoever does not follow it.
    pub(in super::super) async fn joined(&self, job: &Job, detach: bool) -> BegunEvents {
        let (cluster, id) = (job.cluster.clone(), Some(job.id));
        if detach {
            let event = continues(&cluster, job.id);
            return BegunEvents {
                job: id,
                events: iter([Ok(event)]).boxed(),
            };
        }
        let published = self.engine.subscribe();
        let first = match job.kind {
            JobKind::Launch | JobKind::Apply => self.snapshot(&cluster),
            _ => Vec::new(),
        };
        let until = until(job).unwrap_or(Until::Job(job.id));
        BegunEvents {
            job: id,
            events: self.follow_from(cluster, until, published, first, true),
        }
    }
}

/// That all up to this place has been sent, for whoever takes the stream up again before there is an event.
fn up_to(cluster: &ClusterName, place: v1::EventPlace) -> v1::Event {
    v1::Event {
        event: String::new(),
        place: Some(place),
        ..note(cluster, String::new())
    }
}

/// What is remembered; first that it is not all, where somebody asked for what came before.
pub(super) fn recalled(cluster: &ClusterName, remembered: Remembered) -> Vec<v1::Event> {
    let forgotten = remembered.is_short.then(|| v1::Event {
        unix_ms: remembered.since_ms,
        ..note(
            cluster,
            "this master remembers no events from before".to_owned(),
        )
    });
    forgotten.into_iter().chain(remembered.events).collect()
}

/// The only event for whoever does not follow a job.
pub(in super::super) fn continues(cluster: &ClusterName, job: JobId) -> v1::Event {
    v1::Event {
        event: "launch-started".to_owned(),
        last: true,
        ..note(cluster, format!("{job} continues in the background"))
    }
}

/// When whoever follows a job in the events of its cluster is through; `None` for those that have a stream of their own.
fn until(job: &Job) -> Option<Until> {
    Some(match (job.kind, &job.call) {
        (JobKind::Launch | JobKind::Apply, _) => Until::Job(job.id),
        (JobKind::Cleanup, _) => Until::Cleanup(job.id),
        (JobKind::Orphans, _) => Until::Aside(job.id),
        (JobKind::Terminate, Some(call)) => Until::Terminated {
            instances: call.machines.keys().cloned().collect(),
            job: job.id,
        },
        (kind @ (JobKind::Start | JobKind::Stop | JobKind::Reboot), Some(call)) => {
            let left = call.deadline_ms.saturating_sub(now_ms());
            Until::Reached {
                instances: call.machines.keys().cloned().collect(),
                goal: goal(kind, call),
                deadline: tokio::time::Instant::now().checked_add(Duration::from_millis(left)),
                job: Some(job.id),
            }
        }
        _ => return None,
    })
}

/// What the machines of a job are to become.
fn goal(kind: JobKind, call: &MachineCall) -> Goal {
    let boots = |(name, target): (&InstanceName, &aot_model::job::CallTarget)| {
        (name.clone(), target.boot_id.clone())
    };
    match kind {
        JobKind::Stop => Goal::State(MachineState::Stopped),
        JobKind::Reboot => Goal::Rebooted(call.machines.iter().map(boots).collect()),
        _ => Goal::Up,
    }
}

/// How a job that is over ended.
pub(super) struct JobEnd {
    pub ended_ms: u64,
    /// Why it failed; empty when it did not.
    pub error: String,
}

impl JobEnd {
    /// `None` while a target is open. Those of a job that changes machines that had none count neither way.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let (ended_ms, error) = job.end()?;
        let error = match &job.call {
            Some(call) if job.kind != JobKind::Cleanup => {
                let ends = call.machines.keys().filter_map(|name| {
                    let end = job.targets.get(name)?.as_ref()?;
                    let failed = end.outcome != aot_model::outcome::Outcome::Succeeded;
                    failed.then(|| format!("{name}: {}", end.detail))
                });
                ends.collect::<Vec<_>>().join("; ")
            }
            _ => error,
        };
        Some(Self { ended_ms, error })
    }
}

impl ClusterFollower {
    /// The last event of a job whose own was missed.
    pub(super) fn end_event(&self, job: JobId, end: JobEnd) -> v1::Event {
        let launch_end = || {
            let world = &self.api.engine;
            world.read(&self.cluster, |world| world.launch_end(&self.cluster, job))
        };
        let kind = match self.until {
            Until::Cleanup(_) => "cleanup-ended",
            Until::Aside(_) => "orphans-deleted",
            Until::Reached { .. } | Until::Terminated { .. } => "wait-ended",
            _ => "launch-ended",
        };
        let exit_code = u32::from(!end.error.is_empty());
        if kind == "launch-ended"
            && let Some(event) = launch_end()
        {
            let mut event = event.into_wire(now_ms());
            event.fields_json = self.with_log(&event.fields_json);
            return v1::Event {
                exit_code,
                last: true,
                ..event
            };
        }
        v1::Event {
            unix_ms: now_ms(),
            cluster: self.cluster.to_string(),
            event: kind.to_owned(),
            message: end.error,
            exit_code,
            last: true,
            ..v1::Event::default()
        }
    }
}

/// Whether another master decides on a cluster now, or nobody does for the moment.
pub(in super::super) fn has_left(api: &OperatorApi, cluster: &ClusterName) -> bool {
    let is_anothers = || {
        let view = api.ways.finder.known()?;
        let owner = view.owners.get(cluster)?;
        Some(owner.master != view.me)
    };
    !api.engine.is_decided_here(cluster) && is_anothers().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aot_model::job::CallTarget;
    use aot_model::outcome::{Outcome, Verdict};

    use super::*;

    fn job(kind: JobKind, machines: &[&str]) -> Job {
        let name = |text: &&str| text.parse::<InstanceName>().expect("a name");
        let target = |text: &&str| CallTarget {
            machine: "i-1".parse().expect("an id"),
            boot_id: format!("boot of {text}"),
        };
        Job {
            call: Some(MachineCall {
                machines: machines.iter().map(|it| (name(it), target(it))).collect(),
                answered: true,
                deadline_ms: now_ms() + 60_000,
            }),
            ..Job::new(
                JobId::from_parts(1, 1),
                kind,
                "web".parse().expect("a name"),
                String::new(),
                String::new(),
                1,
            )
        }
    }

    #[test]
    fn each_kind_is_followed_to_what_it_is_to_reach() {
        let names = |until: Option<Until>| match until {
            Some(Until::Terminated { instances, .. }) => format!("terminated {}", instances.len()),
            Some(Until::Reached {
                instances,
                goal,
                deadline,
                ..
            }) => format!("{} {} {}", goal.name(), instances.len(), deadline.is_some()),
            Some(Until::Job(_)) => "job".to_owned(),
            Some(Until::Cleanup(_)) => "cleanup".to_owned(),
            Some(Until::Aside(_)) => "aside".to_owned(),
            Some(Until::Gone) | None => String::new(),
        };
        for (kind, want) in [
            (JobKind::Launch, "job"),
            (JobKind::Apply, "job"),
            (JobKind::Cleanup, "cleanup"),
            (JobKind::Orphans, "aside"),
            (JobKind::Terminate, "terminated 2"),
            (JobKind::Start, "running 2 true"),
            (JobKind::Stop, "stopped 2 true"),
            (JobKind::Reboot, "rebooted 2 true"),
            (JobKind::Exec, ""),
            (JobKind::Copy, ""),
            (JobKind::Shell, ""),
            (JobKind::Forward, ""),
            (JobKind::Update, ""),
        ] {
            assert_eq!(names(until(&job(kind, &["a", "b"]))), want, "{kind:?}");
        }
    }

    #[test]
    fn whoever_asks_for_more_than_is_remembered_is_told_so() {
        let cluster: ClusterName = "web".parse().expect("a name");
        let of = |is_short| {
            let remembered = Remembered {
                events: vec![note(&cluster, "it happened".to_owned())],
                since_ms: 1_000,
                is_short,
                place: v1::EventPlace::default(),
            };
            recalled(&cluster, remembered)
        };
        assert_eq!(of(false).len(), 1, "all that there is");
        let short = of(true);
        assert_eq!((short.len(), short[0].unix_ms), (2, 1_000));
        assert!(
            short[0].message.contains("no events from before"),
            "{short:?}"
        );
    }

    #[test]
    fn a_job_that_changes_machines_ends_as_those_that_have_one_do() {
        let ends = |ends: &[(&str, Outcome)]| {
            let mut job = job(JobKind::Stop, &["a", "b"]);
            let verdict = |outcome| Verdict::without_run(outcome, "why");
            job.targets = ends
                .iter()
                .map(|(name, outcome)| (name.parse().expect("a name"), Some(verdict(*outcome))))
                .collect::<BTreeMap<_, _>>();
            job.ended_ms = Some(2);
            JobEnd::of(&job).expect("is over").error
        };
        let well = Outcome::Succeeded;
        assert_eq!(
            ends(&[("a", well), ("b", well), ("c", Outcome::Absent)]),
            ""
        );
        assert_eq!(ends(&[("a", well), ("b", Outcome::Failed)]), "b: why");
        assert!(JobEnd::of(&job(JobKind::Stop, &["a"])).is_none());
    }
}
