//! Update: a job that ends with the first listing that was asked for after it.

use aot_proto::ids::{ClusterName, InstanceName, JobId};

use super::World;
use super::answer::Answer;
use super::asks::AskedBy;
use super::refusal::OpError;
use crate::job::{Job, JobKind};
use crate::outcome::{Outcome, Verdict};
use crate::unix_ms::UnixMs;

/// How long the provider has to show a cluster's machines.
const UPDATE_MS: UnixMs = 30_000;

impl World {
    /// Asks for the machines now, whatever became of the call before.
    pub(super) fn update(
        &mut self,
        name: &ClusterName,
        instances: Vec<InstanceName>,
        by: AskedBy,
    ) -> Answer {
        if !self.clusters.contains_key(name) {
            return Answer::Error(OpError::NoCluster(name.to_string()));
        }
        if instances.is_empty() {
            return Answer::Error(OpError::NoInstance(name.to_string()));
        }
        let id = self.job_id(by.request);
        let job = Job {
            targets: instances.into_iter().map(|name| (name, None)).collect(),
            ..Job::new(
                id,
                JobKind::Update,
                name.clone(),
                by.what,
                by.operator,
                self.now,
            )
        };
        self.insert_job(job);
        self.calls(name).list.hurry();
        self.poll_now(name);
        self.job_as_it_is(id)
    }

    /// A listing that was asked for at `asked_ms` has come, or why none did.
    pub(super) fn end_updates(&mut self, name: &ClusterName, asked_ms: UnixMs, why: Option<&str>) {
        let verdict = match why {
            None => Verdict::without_run(Outcome::Succeeded, ""),
            Some(why) => Verdict::without_run(Outcome::Failed, why),
        };
        let mut early = false;
        for (id, started_ms) in self.open_updates(Some(name)) {
            if asked_ms >= started_ms {
                self.end_all_of(id, &verdict);
            } else {
                early = true; // it shows what was before
            }
        }
        if early && self.clusters.contains_key(name) {
            self.calls(name).list.hurry();
            self.poll_now(name);
        }
    }

    /// Those whose provider does not answer.
    pub(super) fn end_late_updates(&mut self) {
        let now = self.now;
        for (id, started_ms) in self.open_updates(None) {
            if now.saturating_sub(started_ms) >= UPDATE_MS {
                let why = "the provider does not answer";
                self.end_all_of(id, &Verdict::without_run(Outcome::TimedOut, why));
            }
        }
    }

    fn open_updates(&self, name: Option<&ClusterName>) -> Vec<(JobId, UnixMs)> {
        let open = |job: &&Job| {
            let there = name.is_none_or(|name| job.cluster == *name);
            job.kind == JobKind::Update && job.ended_ms.is_none() && there
        };
        let jobs = self.jobs.values().filter(open);
        jobs.map(|job| (job.id, job.started_ms)).collect()
    }
}
