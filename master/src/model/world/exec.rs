//! Runs: given, answered, ended, lost.

use std::collections::btree_map::Entry;

use aot_proto::ids::{InstanceName, JobId, RunId};
use aot_proto::limits::DEFAULT_OUTPUT_CAP_BYTES;
use aot_proto::v1;

use super::World;
use super::input::{Answer, Effect};
use crate::model::cluster::Key;
use crate::model::job::{Job, Outcome, Run, RunKind, RunState, Tally, Task, Verdict};

impl World {
    /// Records a run and gives it to the session that is open, if one is.
    pub(super) fn add_run(&mut self, job: JobId, at: &Key, what: RunKind) -> RunId {
        let id = self.new_run();
        let run = Run {
            id,
            job,
            at: at.clone(),
            what,
            state: RunState::Asked,
            asked_ms: self.now,
            verdict: None,
            cancel: None,
        };
        self.runs.insert(id, run);
        self.runs_at.entry(at.clone()).or_default().insert(id);
        self.dirty.runs.insert(id);
        self.do_later(Effect::RunBegan {
            job,
            instance: at.instance.clone(),
            run: id,
        });
        if let Some(session) = self.instance(at).and_then(|i| i.session) {
            self.give(id, session);
        }
        id
    }

    /// Sends a run to a session. The agent starts it once, however often it gets it.
    pub(super) fn give(&mut self, id: RunId, session: u64) {
        let Some(run) = self.runs.get(&id) else {
            return;
        };
        let at = run.at.clone();
        let message = match &run.what {
            RunKind::Task => match self.jobs.get(&run.job).and_then(|job| job.task.as_ref()) {
                Some(task) => task_message(run, task),
                None => return,
            },
            RunKind::Stage { index, attempt } => match self.stage_message(run, *index, *attempt) {
                Some(message) => message,
                None => return,
            },
        };
        self.send(&at, session, v1::master_message::Body::StartRun(message));
    }

    pub(super) fn mark_accepted(&mut self, id: RunId) {
        if let Some(run) = self
            .runs
            .get_mut(&id)
            .filter(|run| run.state == RunState::Asked)
        {
            run.state = RunState::Accepted;
            self.dirty.runs.insert(id);
        }
    }

    pub(super) fn run_answer(&mut self, id: RunId, accepted: bool, reason: &str) -> Answer {
        if accepted {
            self.mark_accepted(id);
            return Answer::None;
        }
        let Some(run) = self.runs.get(&id) else {
            return Answer::None;
        };
        match run.what {
            RunKind::Task => {
                self.end_run(id, Verdict::without_run(Outcome::Rejected, reason), None);
            }
            RunKind::Stage { .. } => {
                let ended = v1::Ended {
                    kind: v1::EndKind::NotStarted as i32,
                    detail: reason.to_owned(),
                    ..v1::Ended::default()
                };
                self.run_ended(id, &ended);
            }
        }
        Answer::None
    }

    /// The spool of a run is whole and here.
    pub(super) fn run_ended(&mut self, id: RunId, ended: &v1::Ended) -> Answer {
        if self.runs.contains_key(&id) {
            self.end_run(id, Verdict::of(ended), Some(ended));
        }
        Answer::None
    }

    /// Ends a run, its target and its stage; once.
    pub(super) fn end_run(&mut self, id: RunId, verdict: Verdict, ended: Option<&v1::Ended>) {
        let Some(mut run) = self.runs.remove(&id) else {
            return;
        };
        if let Entry::Occupied(mut there) = self.runs_at.entry(run.at.clone()) {
            there.get_mut().remove(&id);
            if there.get().is_empty() {
                there.remove();
            }
        }
        run.state = RunState::Ended;
        run.verdict = Some(verdict.clone());
        let (job, at, what) = (run.job, run.at.clone(), run.what.clone());
        self.dirty.runs.remove(&id);
        self.dirty.ended_runs.push(run);
        if let Some(session) = self.instance(&at).and_then(|i| i.session) {
            let run_id = id.to_string();
            self.send(
                &at,
                session,
                v1::master_message::Body::ForgetRun(v1::ForgetRun { run_id }),
            );
        }
        match (what, ended) {
            (RunKind::Task, _) => self.end_target(job, &at.instance, verdict),
            (RunKind::Stage { index, .. }, Some(ended)) => {
                self.stage_ended(&at, index, id, ended, &verdict)
            }
            (RunKind::Stage { index, .. }, None) => {
                let ended = v1::Ended {
                    detail: verdict.detail.clone(),
                    ..v1::Ended::default()
                };
                self.stage_ended(&at, index, id, &ended, &verdict);
            }
        }
    }

    /// Gives a target its end; a later word replaces `lost_contact` and nothing else. Others may have their turn now.
    pub(super) fn end_target(&mut self, id: JobId, instance: &InstanceName, verdict: Verdict) {
        self.note_end(id, instance, verdict);
        self.mark_job_due(id);
    }

    /// Runs there that have not ended, oldest first.
    pub(super) fn runs_of(&self, at: &Key) -> impl Iterator<Item = &Run> {
        let ids = self.runs_at.get(at).into_iter().flatten();
        ids.filter_map(|id| self.runs.get(id))
    }

    /// [`World::end_target`], without a turn for others.
    pub(super) fn note_end(&mut self, id: JobId, instance: &InstanceName, verdict: Verdict) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let slot = match job.targets.entry(instance.clone()) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(slot) => {
                self.tallies.remove(&id); // counted anew
                slot.insert(None)
            }
        };
        if slot
            .as_ref()
            .is_some_and(|v| v.outcome != Outcome::LostContact)
        {
            return;
        }
        let before = slot.replace(verdict.clone());
        let tally = match self.tallies.entry(id) {
            Entry::Vacant(slot) => slot.insert(Tally::of(job)),
            Entry::Occupied(slot) => {
                let tally = slot.into_mut();
                tally.moved(before.as_ref(), &verdict);
                tally
            }
        };
        if tally.open == 0 && job.ended_ms.is_none() {
            job.ended_ms = Some(now);
        }
        if tally.open == job.waiting.len() {
            job.batch_ended_ms = now;
        }
        self.dirty.jobs.insert(id);
        self.do_later(Effect::TargetEnded {
            job: id,
            instance: instance.clone(),
            verdict,
        });
    }

    /// A run that was reported as lost before the agent was known to have it: it must not start behind anyone's back.
    pub(super) fn was_given_up(&self, id: RunId) -> bool {
        let Some(run) = self.runs.get(&id) else {
            return false;
        };
        let verdict = self
            .jobs
            .get(&run.job)
            .and_then(|job| job.targets.get(&run.at.instance)?.as_ref());
        matches!(run.what, RunKind::Task)
            && verdict.is_some_and(|v| v.outcome == Outcome::LostContact)
    }

    /// Commands whose agent has been away for too long.
    pub(super) fn settle_lost_runs(&mut self) {
        let lost: Vec<(RunId, JobId, InstanceName)> = self
            .runs
            .values()
            .filter(|run| matches!(run.what, RunKind::Task) && self.run_is_lost(run))
            .map(|run| (run.id, run.job, run.at.instance.clone()))
            .collect();
        for (_, job, instance) in lost {
            let told = self
                .jobs
                .get(&job)
                .is_some_and(|j| j.targets.get(&instance).is_some_and(Option::is_some));
            if !told {
                let detail = "its agent is gone; the result is taken in when it comes back";
                self.end_target(
                    job,
                    &instance,
                    Verdict::without_run(Outcome::LostContact, detail),
                );
            }
        }
    }

    fn run_is_lost(&self, run: &Run) -> bool {
        self.instance(&run.at)
            .is_none_or(|instance| self.is_lost(instance))
    }

    /// A job that is done elsewhere: when it begins, and again when targets have ended. The first end of a target counts.
    pub(super) fn record(&mut self, job: Job) -> Answer {
        let id = job.id;
        if let Entry::Vacant(slot) = self.jobs.entry(id) {
            slot.insert(job);
            self.dirty.jobs.insert(id);
            return Answer::Started(id);
        }
        for (instance, verdict) in job.targets {
            if let Some(verdict) = verdict {
                self.note_end(id, &instance, verdict);
            }
        }
        Answer::Started(id)
    }
}

/// Archives go whole: what a spool may hold is bounded by the disk.
const NO_CAP: u64 = u64::MAX;

fn task_message(run: &Run, task: &Task) -> v1::StartRun {
    use v1::start_run::What;
    let bare = v1::StartRun {
        run_id: run.id.to_string(),
        job_id: run.job.to_string(),
        output_cap_bytes: DEFAULT_OUTPUT_CAP_BYTES,
        ..v1::StartRun::default()
    };
    match task {
        Task::Command(exec) => v1::StartRun {
            timeout_ms: exec.timeout_ms,
            output_cap_bytes: match exec.output_cap_bytes {
                0 => DEFAULT_OUTPUT_CAP_BYTES,
                cap => cap,
            },
            env: exec.env.clone().into_iter().collect(),
            what: Some(What::Exec(v1::ExecSpec {
                argv: exec.argv.clone(),
                cwd: exec.cwd.clone(),
                user: exec.user.clone(),
                stdin: exec.stdin.clone(),
            })),
            ..bare
        },
        Task::CopyIn(copy) => v1::StartRun {
            what: Some(What::CopyIn(v1::CopyInSpec {
                sha256: copy.sha256.clone(),
                bytes: copy.bytes,
                path: copy.path.clone(),
                into: copy.into,
            })),
            ..bare
        },
        Task::CopyOut(paths) => v1::StartRun {
            output_cap_bytes: NO_CAP,
            what: Some(What::CopyOut(v1::CopyOutSpec {
                paths: paths.clone(),
            })),
            ..bare
        },
    }
}
