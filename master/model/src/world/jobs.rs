//! Jobs over many instances: begun at their pace, kept for the absent, followed, cancelled, forgotten.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{InstanceName, JobId, RunId};

use super::World;
use super::answer::{Answer, TargetState};
use super::asks::ExecAsk;
use super::effect::Effect;
use super::refusal::OpError;
use crate::instance::Instance;
use crate::job::{Job, JobKind, Tally};
use crate::key::InstanceKey;
use crate::outcome::{Outcome, Verdict};
use crate::pace::PaceStep;
use crate::run::{Run, RunKind};
use crate::unix_ms::UnixMs;

/// How long a job that is over stays in memory: for those who follow it.
const REMEMBERED_MS: UnixMs = 60_000;

/// The same of what agents answered by themselves: nobody follows that, and monitoring may ask every second.
const ANSWERED_MS: UnixMs = 1_000;

/// How long a job waits for an instance whose session has just broken.
const BACK_SOON_MS: UnixMs = 5_000;

/// Whether a target can be given a job now.
enum Reach {
    /// There is a session, or one may be about to come back after a restart of the master.
    Here,
    /// There is none; it may come while the job is kept for it.
    Later,
    /// There is none, and it is not waited for.
    Never,
}

impl World {
    /// Begins a job with a task. The answer has its targets as they were before the first was given it; all
    /// that follows comes as effects.
    pub(super) fn exec(&mut self, ask: ExecAsk) -> Answer {
        let Some(cluster) = self.clusters.get(&ask.cluster) else {
            return Answer::Error(OpError::NoCluster(ask.cluster.to_string()));
        };
        let known = |name: &InstanceName| cluster.instances.contains_key(name);
        if !ask.instances.iter().any(known) {
            return Answer::Error(OpError::NoInstance(ask.cluster.to_string()));
        }
        let id = self.job_id(ask.request);
        let targets = ask.instances.iter().map(|name| (name.clone(), None));
        let queued_until_ms = match ask.queue_ms {
            0 => 0,
            ms => self.now.saturating_add(ms),
        };
        let job = Job {
            targets: targets.collect(),
            task: Some(ask.task.into()),
            pace: ask.pace,
            waiting: ask.instances.into_iter().collect(),
            queued_until_ms,
            ..Job::new(id, ask.kind, ask.cluster, ask.what, ask.operator, self.now)
        };
        self.insert_job(job);
        let answer = self.job_as_it_is(id);
        // Before the first is started: who is absent is neither a canary nor an error.
        self.end_absent(id);
        self.advance_job(id);
        answer
    }

    /// Gives a job to as many more targets as its pace allows now.
    pub(super) fn advance_job(&mut self, id: JobId) {
        while let Some(job) = self.jobs.get(&id) {
            if job.waiting.is_empty() {
                return;
            }
            let tally = self.tallies.entry(id).or_insert_with(|| Tally::of(job));
            match job.pace.next(&job.so_far(tally), self.now) {
                PaceStep::Wait => return,
                PaceStep::Stop(why) => return self.stop_job(id, &why),
                PaceStep::Start(count) => {
                    let chosen = self.next_targets(id, count);
                    if chosen.is_empty() {
                        return;
                    }
                    self.give_to(id, chosen);
                }
            }
        }
    }

    /// Those of the waiting whose turn it is; they wait no longer.
    fn next_targets(&mut self, id: JobId, count: usize) -> Vec<InstanceName> {
        let Some(job) = self.jobs.get_mut(&id) else {
            return Vec::new();
        };
        let mut waiting = std::mem::take(&mut job.waiting);
        let mut chosen = Vec::new();
        if let Some(job) = self.jobs.get(&id) {
            let here = |name: &InstanceName| matches!(self.reach(job, name), Reach::Here);
            chosen = waiting.pop(count, here);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.waiting = waiting;
        }
        chosen
    }

    /// Waiting targets that are absent and not waited for end at once. They count neither as canaries nor as errors.
    fn end_absent(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let mut absent = Vec::new();
        for (_, name) in job.waiting.iter() {
            if let Reach::Never = self.reach(job, name) {
                absent.push((name.clone(), self.why_absent(job, name)));
            }
        }
        if absent.is_empty() {
            return;
        }
        let names: BTreeSet<&InstanceName> = absent.iter().map(|(name, _)| name).collect();
        if let Some(job) = self.jobs.get_mut(&id) {
            job.waiting.retain(|name| !names.contains(name));
        }
        for (instance, why) in absent {
            self.record_end(id, &instance, Verdict::without_run(Outcome::Absent, why));
        }
    }

    fn reach(&self, job: &Job, name: &InstanceName) -> Reach {
        match self.target_of(job, name) {
            Some(instance) if instance.session.is_some() => Reach::Here,
            Some(instance) if self.is_coming_back(instance) => Reach::Here,
            Some(_) if self.now < job.queued_until_ms => Reach::Later,
            Some(instance) if self.has_just_left(instance) => Reach::Later,
            _ => Reach::Never,
        }
    }

    pub(super) fn target_of(&self, job: &Job, name: &InstanceName) -> Option<&Instance> {
        self.clusters.get(&job.cluster)?.instances.get(name)
    }

    /// Whether its session broke a moment ago: most are back within a second, as when the master stops by whose port it came.
    fn has_just_left(&self, instance: &Instance) -> bool {
        let is_back_soon = |since: UnixMs| self.now < since.saturating_add(BACK_SOON_MS);
        !instance.is_revoked()
            && instance.has_machine()
            && instance.lost_ms.is_some_and(is_back_soon)
    }

    fn why_absent(&self, job: &Job, name: &InstanceName) -> String {
        let Some(instance) = self.target_of(job, name) else {
            return "that instance no longer exists".to_owned();
        };
        let state = match instance.state() {
            "" => "no machine",
            state => state,
        };
        let kept = match job.queued_until_ms {
            0 => "",
            _ => "; the time to wait for it (--queue) is up",
        };
        format!(
            "its agent is not connected ({}, {state}){kept}",
            instance.phase
        )
    }

    /// A run for each of these, which wait no longer.
    fn give_to(&mut self, id: JobId, chosen: Vec<InstanceName>) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let cluster = job.cluster.clone();
        for instance in chosen {
            let cluster = cluster.clone();
            self.add_run(id, &InstanceKey { cluster, instance }, RunKind::Task);
        }
    }

    /// Nothing more is started; what has not been started ends as cancelled.
    pub(super) fn stop_job(&mut self, id: JobId, why: &str) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let left = job.waiting.pop_all();
        if !left.is_empty() {
            let text = format!("{why}: no more targets are started");
            self.do_later(Effect::JobNote {
                job: id,
                instance: None,
                text,
            });
        }
        for instance in left {
            let verdict = Verdict::without_run(Outcome::Cancelled, format!("not started: {why}"));
            self.record_end(id, &instance, verdict);
        }
    }

    /// Jobs that wait: for a pause to be over, or for a time to keep them to be up.
    pub(super) fn advance_waiting(&mut self) {
        let open = |job: &&Job| !job.waiting.is_empty();
        let ids: Vec<JobId> = self.jobs.values().filter(open).map(|job| job.id).collect();
        for id in ids {
            if let Some(job) = self.jobs.get_mut(&id) {
                job.waiting.ask_all();
            }
            self.end_absent(id);
            self.mark_job_due(id);
        }
    }

    /// Jobs that may have been kept for an instance that has just come.
    pub(super) fn give_queued(&mut self, at: &InstanceKey) {
        let jobs = self.jobs.values_mut();
        for job in jobs.filter(|job| !job.waiting.is_empty() && job.cluster == at.cluster) {
            job.waiting.came(&at.instance);
            self.due.jobs.insert(job.id);
        }
    }

    /// How far a job is; the same step emits nothing else, so nothing is missed or reported twice.
    pub(super) fn job_as_it_is(&self, id: JobId) -> Answer {
        let Some(job) = self.jobs.get(&id) else {
            return Answer::Error(OpError::NoJob(id.to_string()));
        };
        let mut runs: BTreeMap<&InstanceName, Vec<RunId>> = BTreeMap::new();
        for run in self.runs.values().filter(|run| run.job == id) {
            runs.entry(&run.at.instance).or_default().push(run.id);
        }
        let waiting: BTreeSet<&InstanceName> = job.waiting.iter().map(|(_, name)| name).collect();
        let state = |name: &InstanceName, verdict: &Option<Verdict>| match verdict {
            Some(verdict) => TargetState::Ended(verdict.clone()),
            None if waiting.contains(name) => TargetState::Waiting,
            None => TargetState::Running(runs.get(name).cloned().unwrap_or_default()),
        };
        let targets = job.targets.iter();
        Answer::Exec {
            job: id,
            targets: targets
                .map(|(name, verdict)| (name.clone(), state(name, verdict)))
                .collect(),
        }
    }

    /// Jobs that ended a while ago and whose outcomes can no longer change: the store has them.
    pub(super) fn forget_old_jobs(&mut self) {
        let now = self.now;
        let over = |job: &Job| {
            let ended = job.ended_ms;
            ended.is_some_and(|ended| now >= ended + remembered_ms(job))
        };
        if !self.jobs.values().any(over) {
            return;
        }
        // A run of a target that lost contact may still bring its real outcome, and a launch's job is shown with its cluster.
        let open: BTreeSet<JobId> = self.runs.values().map(|run| run.job).collect();
        let launches: BTreeSet<JobId> = self
            .clusters
            .values()
            .filter_map(|cluster| cluster.launch.as_ref().map(|launch| launch.job))
            .collect();
        self.jobs
            .retain(|id, job| !over(job) || open.contains(id) || launches.contains(id));
        self.tallies.retain(|id, _| self.jobs.contains_key(id));
    }
}

/// Jobs as they are on record have among the waiting those that were given them: their runs say so.
pub(super) fn remove_given(jobs: &mut BTreeMap<JobId, Job>, runs: &[Run]) {
    let mut given: BTreeMap<JobId, BTreeSet<&InstanceName>> = BTreeMap::new();
    for run in runs {
        given.entry(run.job).or_default().insert(&run.at.instance);
    }
    for (id, names) in given {
        if let Some(job) = jobs.get_mut(&id) {
            job.was_given(&names);
        }
    }
}

fn remembered_ms(job: &Job) -> UnixMs {
    match (job.kind, &job.task) {
        (JobKind::Exec, None) => ANSWERED_MS,
        _ => REMEMBERED_MS,
    }
}
