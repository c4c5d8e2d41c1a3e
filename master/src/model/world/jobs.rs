//! Jobs over many instances: begun at their pace, kept for the absent, followed, cancelled, forgotten.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{ClusterName, InstanceName, JobId, RunId};
use aot_proto::v1;

use super::World;
use super::input::{Answer, Effect, ExecAsk, OpError, TargetState};
use crate::model::cluster::{Instance, Key, UnixMs};
use crate::model::job::{Job, JobKind, Outcome, RunKind, RunState, Tally, Verdict};
use crate::model::pace::Step;

/// How long a job that is over stays in memory: for those who follow it.
const REMEMBERED_MS: UnixMs = 60_000;

/// The same of what agents answered by themselves: nobody follows that, and monitoring may ask every second.
const ANSWERED_MS: UnixMs = 1_000;

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
    /// Begins a job with a task. Its targets are told to whoever asks as they were before the first was given it; all
    /// that follows comes as effects.
    pub(super) fn exec(&mut self, ask: ExecAsk) -> Answer {
        let Some(cluster) = self.clusters.get(&ask.cluster) else {
            return Answer::Error(OpError::NoCluster(ask.cluster.to_string()));
        };
        let known = |name: &InstanceName| cluster.instances.contains_key(name);
        if !ask.instances.iter().any(known) {
            return Answer::Error(OpError::NoInstance(ask.cluster.to_string()));
        }
        let id = self.new_job();
        let targets = ask.instances.iter().map(|name| (name.clone(), None));
        let queued_until_ms = match ask.queue_ms {
            0 => 0,
            ms => self.now.saturating_add(ms),
        };
        let job = Job {
            targets: targets.collect(),
            task: Some(ask.task.into()),
            pace: ask.pace,
            waiting: ask.instances,
            queued_until_ms,
            ..Job::new(id, ask.kind, ask.cluster, ask.what, ask.operator, self.now)
        };
        self.jobs.insert(id, job);
        self.dirty.jobs.insert(id);
        self.dirty.tasks.insert(id);
        let answer = self.job_as_it_is(id);
        self.settle_absent(id);
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
                Step::Wait => return,
                Step::Stop(why) => return self.stop_job(id, &why),
                Step::Start(count) => {
                    let here = |name: &&InstanceName| matches!(self.reach(job, name), Reach::Here);
                    let chosen: Vec<_> = job
                        .waiting
                        .iter()
                        .filter(here)
                        .take(count)
                        .cloned()
                        .collect();
                    if chosen.is_empty() {
                        return;
                    }
                    self.give_to(id, chosen);
                }
            }
        }
    }

    /// Waiting targets that are absent and not waited for: told at once. They count neither as canaries nor as errors.
    fn settle_absent(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let mut absent = Vec::new();
        for name in &job.waiting {
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
            self.note_end(id, &instance, Verdict::without_run(Outcome::Absent, why));
        }
    }

    fn reach(&self, job: &Job, name: &InstanceName) -> Reach {
        match self.target_of(job, name) {
            Some(instance) if instance.session.is_some() => Reach::Here,
            Some(instance) if self.is_coming_back(instance) => Reach::Here,
            Some(_) if self.now < job.queued_until_ms => Reach::Later,
            _ => Reach::Never,
        }
    }

    fn target_of(&self, job: &Job, name: &InstanceName) -> Option<&Instance> {
        self.clusters.get(&job.cluster)?.instances.get(name)
    }

    fn why_absent(&self, job: &Job, name: &InstanceName) -> String {
        let Some(instance) = self.target_of(job, name) else {
            return "there is no such instance any more".to_owned();
        };
        let state = match instance.state() {
            "" => "no machine",
            state => state,
        };
        let kept = match job.queued_until_ms {
            0 => "",
            _ => "; the time to keep the command for it is up",
        };
        format!(
            "its agent is not connected ({}, {state}){kept}",
            instance.phase
        )
    }

    /// Takes these from the waiting, with a run for each.
    fn give_to(&mut self, id: JobId, chosen: Vec<InstanceName>) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let cluster = job.cluster.clone();
        if job.waiting.starts_with(&chosen) {
            job.waiting.drain(..chosen.len());
        } else {
            let names: BTreeSet<&InstanceName> = chosen.iter().collect();
            job.waiting.retain(|name| !names.contains(name));
        }
        self.dirty.jobs.insert(id);
        for instance in chosen {
            let cluster = cluster.clone();
            self.add_run(id, &Key { cluster, instance }, RunKind::Task);
        }
    }

    /// Nothing more is started; what has not been started ends as cancelled.
    fn stop_job(&mut self, id: JobId, why: &str) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        let left = std::mem::take(&mut job.waiting);
        self.dirty.jobs.insert(id);
        if !left.is_empty() {
            let text = format!("{why}: nothing more is started");
            self.do_later(Effect::JobNote {
                job: id,
                instance: None,
                text,
            });
        }
        for instance in left {
            let verdict = Verdict::without_run(Outcome::Cancelled, format!("not started: {why}"));
            self.note_end(id, &instance, verdict);
        }
    }

    /// Jobs that wait: for a pause to be over, or for a time to keep them to be up.
    pub(super) fn look_at_waiting(&mut self) {
        let open = |job: &&Job| !job.waiting.is_empty();
        let ids: Vec<JobId> = self.jobs.values().filter(open).map(|job| job.id).collect();
        for id in ids {
            self.settle_absent(id);
            self.mark_job_due(id);
        }
    }

    /// Jobs that may have been kept for an instance that has just come.
    pub(super) fn give_queued(&mut self, cluster: &ClusterName) {
        let waits = |job: &&Job| !job.waiting.is_empty() && &job.cluster == cluster;
        let ids: Vec<JobId> = self.jobs.values().filter(waits).map(|job| job.id).collect();
        for id in ids {
            self.mark_job_due(id);
        }
    }

    /// How far a job is; the same step tells nothing else, so nothing is missed or told twice.
    pub(super) fn job_as_it_is(&self, id: JobId) -> Answer {
        let Some(job) = self.jobs.get(&id) else {
            return Answer::Error(OpError::NoJob(id.to_string()));
        };
        let mut runs: BTreeMap<&InstanceName, Vec<RunId>> = BTreeMap::new();
        for run in self.runs.values().filter(|run| run.job == id) {
            runs.entry(&run.at.instance).or_default().push(run.id);
        }
        let waiting: BTreeSet<&InstanceName> = job.waiting.iter().collect();
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

    /// Asks for the end of all that runs, and starts nothing more. Told as it was before.
    pub(super) fn cancel_job(&mut self, id: JobId, grace_ms: u64, operator: &str) -> Answer {
        let Some(job) = self.jobs.get(&id) else {
            return Answer::Error(OpError::NoJob(id.to_string()));
        };
        if job.open() == 0 && !self.runs.values().any(|run| run.job == id) {
            return Answer::Error(OpError::Conflict(format!(
                "{id} is over; see it with `aot-master jobs show {id}`"
            )));
        }
        let (kind, cluster) = (job.kind, job.cluster.clone());
        let answer = self.job_as_it_is(id);
        let why = format!("cancelled by {operator}");
        self.stop_job(id, &why);
        let runs: Vec<RunId> = self
            .runs
            .values()
            .filter(|run| run.job == id)
            .map(|run| run.id)
            .collect();
        for run in runs {
            self.cancel_run(run, grace_ms);
        }
        match kind {
            JobKind::Launch | JobKind::Apply => self.cancel_launch(&cluster, id, &why),
            JobKind::Shell => self.end_shell(id, Outcome::Cancelled, &why),
            JobKind::Exec | JobKind::Copy => {}
        }
        answer
    }

    /// A terminal has no run: its record ends here, and whoever serves it hangs up when it is told so.
    pub(super) fn end_shell(&mut self, id: JobId, outcome: Outcome, why: &str) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let verdict = Verdict {
            ms: self.now.saturating_sub(job.started_ms),
            ..Verdict::without_run(outcome, why)
        };
        let open = job.targets.iter().filter(|(_, verdict)| verdict.is_none());
        let open: Vec<InstanceName> = open.map(|(name, _)| name.clone()).collect();
        for instance in open {
            self.note_end(id, &instance, verdict.clone());
        }
    }

    /// Terminals that the last master served: their agents hung up when it was gone.
    pub(super) fn end_old_shells(&mut self) {
        let shells = self.jobs.values().filter(|job| job.kind == JobKind::Shell);
        let ids: Vec<JobId> = shells.map(|job| job.id).collect();
        for id in ids {
            self.end_shell(id, Outcome::LostContact, "the master was restarted");
        }
    }

    /// The launch of this job goes no further: no call, no stage.
    fn cancel_launch(&mut self, cluster: &ClusterName, id: JobId, why: &str) {
        let Some(found) = self.clusters.get(cluster) else {
            return;
        };
        let is_it = found.launch.as_ref().is_some_and(|launch| launch.job == id);
        if !is_it || !found.launching() {
            return;
        }
        self.stop_asking(cluster);
        if let Some(launch) = self.cluster_mut(cluster).and_then(|c| c.launch.as_mut()) {
            launch.cancelled = true;
        }
        self.finish_launch(cluster, why.to_owned());
    }

    fn cancel_run(&mut self, id: RunId, grace_ms: u64) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        run.cancel = Some(grace_ms);
        let at = run.at.clone();
        self.dirty.runs.insert(id);
        if let Some(session) = self.instance(&at).and_then(|instance| instance.session) {
            self.send_cancel(&at, session, id, grace_ms);
        }
    }

    /// A cancelled run whose agent has come: it is told again, or has nothing to end. Says whether the run is cancelled.
    pub(super) fn cancel_again(&mut self, id: RunId, session: u64, known: bool) -> bool {
        let Some(run) = self.runs.get(&id) else {
            return false;
        };
        let Some(grace_ms) = run.cancel else {
            return false;
        };
        let (at, state) = (run.at.clone(), run.state);
        if known {
            self.send_cancel(&at, session, id, grace_ms);
        } else if state == RunState::Asked {
            let ended = v1::Ended {
                kind: v1::EndKind::Cancelled as i32,
                detail: "cancelled before the agent got it".to_owned(),
                ..v1::Ended::default()
            };
            self.end_run(id, Verdict::of(&ended), Some(&ended));
        } else {
            return false;
        }
        true
    }

    fn send_cancel(&mut self, at: &Key, session: u64, id: RunId, grace_ms: u64) {
        let cancel = v1::CancelRun {
            run_id: id.to_string(),
            grace_ms,
        };
        self.send(at, session, v1::master_message::Body::CancelRun(cancel));
    }

    /// Jobs that have been over for a while, without a word that may still come: the store has them.
    pub(super) fn forget_old_jobs(&mut self) {
        let now = self.now;
        let over = |job: &Job| {
            let ended = job.ended_ms;
            ended.is_some_and(|ended| now >= ended + remembered_ms(job))
        };
        if !self.jobs.values().any(over) {
            return;
        }
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

fn remembered_ms(job: &Job) -> UnixMs {
    match (job.kind, &job.task) {
        (JobKind::Exec, None) => ANSWERED_MS,
        _ => REMEMBERED_MS,
    }
}
