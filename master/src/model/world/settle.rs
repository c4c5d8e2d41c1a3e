//! What an input means at once, and what follows from it for its cluster and its job: once for all inputs of a batch.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{ClusterName, InstanceName, JobId};

use super::World;
use super::input::{Answer, Effect, Input};
use crate::model::cluster::{BatchState, Cluster, UnixMs};

/// So often a cluster is looked at where nothing is known to be under way: for what time alone moves.
const PASS_MS: UnixMs = 2_000;

/// What is still to follow from inputs that were taken. Not kept: the first tick after a restart looks at all clusters.
#[derive(Debug, Default)]
pub(super) struct Due {
    clusters: BTreeSet<ClusterName>,
    jobs: BTreeSet<JobId>,
    /// Instances that failed, whose waiters have not been told.
    failed: BTreeMap<ClusterName, BTreeSet<InstanceName>>,
    passed_ms: UnixMs,
}

impl World {
    /// Takes one input and does all that follows from it. What it changed is in `take_changes`, to be stored before any
    /// effect is done.
    pub fn step(&mut self, input: Input, now: UnixMs) -> (Answer, Vec<Effect>) {
        let (answer, mut effects) = self.take(input, now);
        effects.extend(self.settle(now));
        (answer, effects)
    }

    /// Takes one input; what follows from it for its cluster and its job may be left to a later [`World::settle`]. The
    /// answer is whole: an operator's wish that depends on what follows from earlier inputs, or says what follows from
    /// itself, settles by itself.
    pub fn take(&mut self, input: Input, now: UnixMs) -> (Answer, Vec<Effect>) {
        self.now = now;
        let settles = decides_on_all(&input);
        if settles {
            self.settle_due();
        }
        let answer = self.handle(input);
        if settles {
            self.settle_due();
        }
        (answer, std::mem::take(&mut self.effects))
    }

    /// Does what follows from all inputs since the last call. As often as one likes, and at any time.
    pub fn settle(&mut self, now: UnixMs) -> Vec<Effect> {
        self.now = now;
        self.settle_due();
        std::mem::take(&mut self.effects)
    }

    /// [`World::settle`] for jobs alone: cheap, while a cluster is looked at as a whole.
    pub fn settle_jobs(&mut self, now: UnixMs) -> Vec<Effect> {
        self.now = now;
        while let Some(job) = self.due.jobs.pop_first() {
            self.advance_job(job);
        }
        std::mem::take(&mut self.effects)
    }

    /// Whether nothing is left for [`World::settle`].
    pub fn is_settled(&self) -> bool {
        self.due.clusters.is_empty() && self.due.jobs.is_empty()
    }

    /// To be settled: something in this cluster has changed.
    pub(super) fn mark_due(&mut self, cluster: &ClusterName) {
        if !self.due.clusters.contains(cluster) {
            self.due.clusters.insert(cluster.clone());
        }
    }

    /// To be settled: there may be room for more targets of this job.
    pub(super) fn mark_job_due(&mut self, job: JobId) {
        self.due.jobs.insert(job);
    }

    /// To be settled: others may wait for it in vain now.
    pub(super) fn mark_failed(&mut self, cluster: &ClusterName, instance: &InstanceName) {
        let failed = self.due.failed.entry(cluster.clone()).or_default();
        failed.insert(instance.clone());
        self.mark_due(cluster);
    }

    fn settle_due(&mut self) {
        loop {
            if let Some(cluster) = self.due.clusters.pop_first() {
                let failed = self.due.failed.remove(&cluster).unwrap_or_default();
                self.tell_waiting(&cluster, &failed);
                self.advance(&cluster);
            } else if let Some(job) = self.due.jobs.pop_first() {
                self.advance_job(job);
            } else {
                return;
            }
        }
    }

    /// Level-triggered: does whatever a cluster's state calls for now. Safe to call at any time.
    fn advance(&mut self, cluster: &ClusterName) {
        self.prepare_if_due(cluster);
        self.call_due_batches(cluster);
        self.start_stopped(cluster);
        self.give_addresses(cluster);
        self.mount_volumes(cluster);
        self.renew_facts(cluster);
        self.hand_out_facts(cluster);
        self.start_stages(cluster);
        self.end_launch(cluster);
    }

    fn tick(&mut self) -> Answer {
        // However the clock is set.
        let pass = self.now.abs_diff(self.due.passed_ms) >= PASS_MS;
        if pass {
            self.due.passed_ms = self.now;
        }
        for name in self.clusters.keys().cloned().collect::<Vec<_>>() {
            self.pass_deadline(&name);
            self.poll_if_due(&name);
            if pass || self.clusters.get(&name).is_some_and(is_under_way) {
                self.mark_due(&name);
            }
        }
        self.settle_lost_runs();
        self.look_at_waiting();
        self.forget_old_jobs();
        Answer::None
    }

    fn handle(&mut self, input: Input) -> Answer {
        match input {
            Input::Launch(ask) => self.launch(*ask),
            Input::Apply(ask) => self.apply(ask),
            Input::Exec(ask) => self.exec(ask),
            Input::Follow { job } => self.job_as_it_is(job),
            Input::Cancel {
                job,
                grace_ms,
                operator,
            } => self.cancel_job(job, grace_ms, &operator),
            Input::Record(job) => self.record(*job),
            Input::Terminate { cluster, instances } => self.terminate(&cluster, &instances),
            Input::Cleanup { cluster } => self.cleanup(&cluster),
            Input::Poll { cluster } => self.poll_now(&cluster),
            Input::Enrol(ask) => self.enrol(ask),
            Input::Revoke {
                cluster,
                instances,
                operator,
            } => self.revoke(&cluster, &instances, &operator),
            Input::Issued {
                at,
                key_sha256,
                serial,
                expires_unix,
            } => self.issued(&at, key_sha256, serial, expires_unix),
            Input::BootStep {
                token_sha256,
                machine,
                step,
                detail,
            } => self.boot_step(&token_sha256, &machine, &step, &detail),
            Input::Attached { at, session, hello } => self.attached(&at, session, &hello),
            Input::Facts { at, session, facts } => self.facts_reported(&at, session, *facts),
            Input::Applied {
                at,
                session,
                generation,
                error,
            } => self.facts_applied(&at, session, generation, &error),
            Input::VolumesMounted {
                at,
                session,
                id,
                error,
            } => self.volumes_mounted(&at, session, id, &error),
            Input::RunAnswer {
                run,
                accepted,
                reason,
            } => self.run_answer(run, accepted, &reason),
            Input::RunEnded { run, ended } => self.run_ended(run, &ended),
            Input::Closed { at, session, why } => self.closed(&at, session, &why),
            Input::Launched {
                cluster,
                token,
                result,
            } => self.launched(&cluster, &token, result),
            Input::Described { cluster, result } => self.described(&cluster, result),
            Input::Prepared { cluster, result } => self.prepared(&cluster, result),
            Input::Addressed { cluster, results } => self.addressed(&cluster, results),
            Input::Explained { cluster, texts } => self.explained(&cluster, &texts),
            Input::Terminated {
                cluster,
                unknown,
                error,
            } => self.terminated(&cluster, &unknown, error),
            Input::LifecycleDone { cluster, error } => self.lifecycle_done(&cluster, error),
            Input::Cleaned { cluster, result } => self.cleaned(&cluster, result),
            Input::Tick => self.tick(),
        }
    }
}

/// Its answer, or what it does, rests on where launches stand; few of them come.
fn decides_on_all(input: &Input) -> bool {
    matches!(
        input,
        Input::Launch(_)
            | Input::Apply(_)
            | Input::Cancel { .. }
            | Input::Terminate { .. }
            | Input::Cleanup { .. }
            | Input::Revoke { .. }
    )
}

/// A call or a launch waits for its time.
fn is_under_way(cluster: &Cluster) -> bool {
    let mut batches = cluster.batches.values();
    cluster.launching()
        || cluster.cleaning
        || batches.any(|batch| batch.state == BatchState::Requested)
}
