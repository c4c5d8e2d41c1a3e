//! Cancellations: of jobs, of launches, of runs whose agents are away, and of terminals.

use aot_proto::ids::{ClusterName, InstanceName, JobId, RunId};
use aot_proto::v1;

use super::World;
use super::answer::Answer;
use super::refusal::OpError;
use crate::job::JobKind;
use crate::key::InstanceKey;
use crate::outcome::{Outcome, Verdict};
use crate::run::RunState;

impl World {
    /// Asks for the end of all that runs, and starts nothing more. Told as it was before.
    pub(super) fn cancel_job(&mut self, id: JobId, grace_ms: u64, operator: &str) -> Answer {
        let Some(job) = self.jobs.get(&id) else {
            return Answer::Error(OpError::NoJob(id.to_string()));
        };
        if job.open() == 0 && !self.runs.values().any(|run| run.job == id) {
            return Answer::Error(OpError::Conflict(format!(
                "{id} has ended; see `aot-master jobs show {id}`"
            )));
        }
        let (kind, cluster) = (job.kind, job.cluster.clone());
        if matches!(
            kind,
            JobKind::Terminate | JobKind::Cleanup | JobKind::Orphans
        ) {
            return Answer::Error(OpError::Conflict(format!(
                "{id} ends machines, which can't be taken back"
            )));
        }
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
            JobKind::Shell | JobKind::Forward => self.end_shell(id, Outcome::Cancelled, &why),
            JobKind::Start | JobKind::Stop | JobKind::Reboot | JobKind::Update => {
                let why = format!("{why}: what the provider was asked for is not taken back");
                self.end_all_of(id, &Verdict::without_run(Outcome::Cancelled, why));
            }
            JobKind::Exec
            | JobKind::Copy
            | JobKind::Terminate
            | JobKind::Cleanup
            | JobKind::Orphans => {}
        }
        answer
    }

    /// A terminal, or a forward, has no run: its record ends here, and whoever serves it ends it when it learns of that.
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
            self.record_end(id, &instance, verdict.clone());
        }
    }

    /// Terminals and forwards that the last master served: their agents hung up when it was gone.
    pub(super) fn end_old_shells(&mut self) {
        let shells = self.jobs.values().filter(|job| job.kind.is_served());
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
        if run.cancel.is_none() {
            run.cancelled_ms = self.now;
        }
        run.cancel = Some(grace_ms);
        let at = run.at.clone();
        self.dirty.runs.insert(id);
        if let Some(session) = self.instance(&at).and_then(|instance| instance.session) {
            self.send_cancel(&at, session, id, grace_ms);
        }
    }

    /// A cancelled run whose agent has come: the cancellation is sent again, or there is nothing to end. Says whether the run is cancelled.
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

    pub(super) fn send_cancel(&mut self, at: &InstanceKey, session: u64, id: RunId, grace_ms: u64) {
        let cancel = v1::CancelRun {
            run_id: id.to_string(),
            grace_ms,
        };
        self.send(at, session, v1::master_message::Body::CancelRun(cancel));
    }
}
