//! Runs: given, answered, ended, lost.

use std::collections::btree_map::Entry;

use aot_proto::ids::{InstanceName, JobId, RunId};
use aot_proto::limits::DEFAULT_OUTPUT_CAP_BYTES;
use aot_proto::v1;

use super::World;
use super::answer::Answer;
use super::effect::Effect;
use super::gate::HEALTH_OUTPUT_CAP_BYTES;
use crate::job::{Job, Tally};
use crate::key::InstanceKey;
use crate::outcome::{Outcome, Verdict};
use crate::run::{Run, RunKind, RunState};
use crate::secret::{SecretUse, WantedSecret, kept};
use crate::task::Task;

impl World {
    /// Records a run and gives it to the session that is open, if one is.
    pub(super) fn add_run(&mut self, job: JobId, at: &InstanceKey, what: RunKind) -> RunId {
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
            cancelled_ms: 0,
            output: None,
        };
        self.runs.insert(id, run);
        self.runs_at.entry(at.clone()).or_default().insert(id);
        self.dirty.runs.insert(id);
        // Before it is sent: whoever follows the job reads its output from the first byte on.
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
            RunKind::Health { argv, timeout_ms } => Self::health_message(run, argv, *timeout_ms),
        };
        let secrets = self.wanted_secrets(run);
        match secrets.is_empty() {
            true => self.send(&at, session, v1::master_message::Body::StartRun(message)),
            false => self.do_later(Effect::StartWithSecrets {
                at,
                session,
                run: id,
                start: Box::new(message),
                secrets,
            }),
        }
    }

    /// What a run is given in secret, as it is on record now.
    fn wanted_secrets(&self, run: &Run) -> Vec<WantedSecret> {
        let given: &[SecretUse] = match run.what {
            RunKind::Stage { index, .. } => {
                let stages = self.instance(&run.at).map(|it| &it.stages);
                let stage = stages.and_then(|stages| stages.get(index));
                stage.map_or(&[][..], |stage| &stage.plan.secrets[..])
            }
            RunKind::Task => match self.jobs.get(&run.job).and_then(|job| job.task.as_deref()) {
                Some(Task::Command(exec)) => &exec.secrets,
                _ => &[],
            },
            RunKind::Health { .. } => &[],
        };
        let cluster = self.clusters.get(&run.at.cluster);
        let wanted = |given: &SecretUse| WantedSecret {
            given: given.clone(),
            kept: cluster.and_then(|it| kept(&given.name, &it.spec.secrets, &it.secrets)),
        };
        given.iter().map(wanted).collect()
    }

    /// Most bytes of output that a run may send, both streams together. A run whose job is not in memory any more was lost
    /// for long: it may send what its agent has.
    pub fn output_cap(&self, run: &Run) -> u64 {
        match run.what {
            RunKind::Stage { .. } => DEFAULT_OUTPUT_CAP_BYTES,
            RunKind::Health { .. } => HEALTH_OUTPUT_CAP_BYTES,
            RunKind::Task => {
                let job = self.jobs.get(&run.job);
                let task = job.and_then(|job| job.task.as_ref());
                task.map_or(u64::MAX, |task| task.output_cap())
            }
        }
    }

    /// Whether a run prints an archive for whoever asked for it: nobody reads that a second time.
    pub fn prints_archive(&self, run: &Run) -> bool {
        let job = self.jobs.get(&run.job);
        let task = job.and_then(|job| job.task.as_deref());
        run.what == RunKind::Task && matches!(task, Some(Task::CopyOut(_)))
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
            return Answer::Ack;
        }
        let Some(run) = self.runs.get(&id) else {
            return Answer::Ack;
        };
        match run.what {
            RunKind::Task => {
                self.end_run(id, Verdict::without_run(Outcome::Rejected, reason), None);
            }
            RunKind::Stage { .. } | RunKind::Health { .. } => {
                let ended = v1::Ended {
                    kind: v1::EndKind::NotStarted as i32,
                    detail: reason.to_owned(),
                    ..v1::Ended::default()
                };
                self.run_ended(id, &ended);
            }
        }
        Answer::Ack
    }

    /// The spool of a run is whole and here.
    pub(super) fn run_ended(&mut self, id: RunId, ended: &v1::Ended) -> Answer {
        if !self.runs.contains_key(&id) {
            return Answer::NotItsOwn; // its end is on record
        }
        self.end_run(id, Verdict::of(ended), Some(ended));
        Answer::Ack
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
            (RunKind::Health { .. }, _) => self.health_ended(&at, id, &verdict),
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

    /// Gives a target its end; a later one replaces `lost_contact` and nothing else. Others may have their turn now.
    pub(super) fn end_target(&mut self, id: JobId, instance: &InstanceName, verdict: Verdict) {
        self.record_end(id, instance, verdict);
        self.mark_job_due(id);
    }

    /// Runs there that have not ended, oldest first.
    pub fn runs_of(&self, at: &InstanceKey) -> impl Iterator<Item = &Run> {
        let ids = self.runs_at.get(at).into_iter().flatten();
        ids.filter_map(|id| self.runs.get(id))
    }

    /// [`World::end_target`], without a turn for others.
    pub(super) fn record_end(&mut self, id: JobId, instance: &InstanceName, verdict: Verdict) {
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
        let (is_over, batch_is_over) = (tally.open == 0, tally.open == job.waiting.len());
        if is_over && job.ended_ms.is_none() {
            job.ended_ms = Some(now);
            self.dirty.jobs.insert(id);
        }
        if batch_is_over && job.pace.batch_wait_ms > 0 {
            job.batch_ended_ms = now;
            self.dirty.jobs.insert(id);
        }
        self.dirty.targets.insert((id, instance.clone()));
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

    /// A run of a stage that has been changed since it was asked for: it would be run as the stage is now, with other secrets than
    /// it was launched with, and the stage has another run for that.
    pub(super) fn is_outdated(&self, id: RunId) -> bool {
        let Some(run) = self.runs.get(&id) else {
            return false;
        };
        let RunKind::Stage { index, .. } = run.what else {
            return false;
        };
        let stage = self.instance(&run.at).and_then(|it| it.stages.get(index));
        stage.is_none_or(|stage| stage.run != Some(id))
    }

    /// Commands whose agent has been away for too long.
    pub(super) fn end_lost_runs(&mut self) {
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
                let detail = "its agent is gone; the result is recorded when it returns";
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
        if !self.jobs.contains_key(&id) {
            self.insert_job(job);
            return Answer::Started(id);
        }
        for (instance, verdict) in job.targets {
            if let Some(verdict) = verdict {
                self.record_end(id, &instance, verdict);
            }
        }
        Answer::Started(id)
    }
}

fn task_message(run: &Run, task: &Task) -> v1::StartRun {
    use v1::start_run::What;
    let bare = v1::StartRun {
        run_id: run.id.to_string(),
        job_id: run.job.to_string(),
        output_cap_bytes: task.output_cap(),
        ..v1::StartRun::default()
    };
    match task {
        Task::Command(exec) => v1::StartRun {
            timeout_ms: exec.timeout_ms,
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
                names: copy.names.clone(),
            })),
            ..bare
        },
        Task::CopyOut(paths) => v1::StartRun {
            what: Some(What::CopyOut(v1::CopyOutSpec {
                paths: paths.clone(),
            })),
            ..bare
        },
    }
}
