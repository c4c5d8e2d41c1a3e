//! What an input means at once, and what follows from it for its cluster and its job: once for all inputs of a batch.

use std::collections::BTreeSet;

use aot_proto::ids::{ClusterName, JobId};

use super::World;
use super::answer::Answer;
use super::effect::Effect;
use super::identity::IssuedCertificate;
use super::input::Input;
use crate::batch::BatchState;
use crate::cluster::Cluster;
use crate::key::InstanceKey;
use crate::unix_ms::UnixMs;

/// How often a cluster is reconciled where nothing is known to be under way: for what time alone moves.
const PASS_MS: UnixMs = 2_000;

/// What is still to follow from inputs that came. Not stored: the first tick after a restart marks all clusters.
#[derive(Debug, Default)]
pub(super) struct Due {
    clusters: BTreeSet<ClusterName>,
    /// Of a change at a pace: a stage or a check has succeeded there.
    pub(super) moved: BTreeSet<InstanceKey>,
    pub(super) jobs: BTreeSet<JobId>,
    passed_ms: UnixMs,
}

impl Due {
    /// The cluster is gone.
    pub(super) fn forget(&mut self, cluster: &ClusterName) {
        self.clusters.remove(cluster);
    }
}

impl World {
    /// Decides on one input; what follows from it for its cluster and its job may be left to a later
    /// [`World::reconcile`]. The answer is complete: an operator's request that depends on what follows from earlier
    /// inputs, or says what follows from itself, reconciles by itself. What it changed is in [`World::drain_changes`], to
    /// be stored before any effect is done.
    pub fn step(&mut self, input: Input, now: UnixMs) -> (Answer, Vec<Effect>) {
        self.now = now;
        let reconciles = decides_on_all(&input);
        if reconciles {
            self.reconcile_due();
        }
        let answer = self.handle(input);
        if reconciles {
            self.reconcile_due();
        }
        (answer, std::mem::take(&mut self.effects))
    }

    /// Does what follows from all inputs since the last call. As often as one likes, and at any time.
    pub fn reconcile(&mut self, now: UnixMs) -> Vec<Effect> {
        self.now = now;
        self.reconcile_due();
        std::mem::take(&mut self.effects)
    }

    /// [`World::reconcile`] for what goes over instances at a pace alone, jobs and changes: cheap, while a cluster is read as a
    /// whole.
    pub fn reconcile_paced(&mut self, now: UnixMs) -> Vec<Effect> {
        self.now = now;
        self.advance_moved();
        while let Some(job) = self.due.jobs.pop_first() {
            self.advance_job(job);
        }
        std::mem::take(&mut self.effects)
    }

    /// Whether nothing is left for [`World::reconcile`].
    pub fn is_reconciled(&self) -> bool {
        self.due.clusters.is_empty() && self.due.jobs.is_empty() && self.due.moved.is_empty()
    }

    /// To be reconciled: something in this cluster has changed.
    pub(super) fn mark_due(&mut self, cluster: &ClusterName) {
        self.queues.remove(cluster);
        self.mark_awaited(cluster);
    }

    /// To be reconciled: something may have come that others in this cluster wait for. Its change at a pace is where it was.
    pub(super) fn mark_awaited(&mut self, cluster: &ClusterName) {
        if !self.due.clusters.contains(cluster) {
            self.due.clusters.insert(cluster.clone());
        }
    }

    /// Whether it is to be reconciled.
    pub(super) fn is_due(&self, cluster: &ClusterName) -> bool {
        self.due.clusters.contains(cluster)
    }

    /// To be reconciled: there may be room for more targets of this job.
    pub(super) fn mark_job_due(&mut self, job: JobId) {
        self.due.jobs.insert(job);
    }

    fn reconcile_due(&mut self) {
        loop {
            self.advance_moved();
            if let Some(cluster) = self.due.clusters.pop_first() {
                self.advance(&cluster);
            } else if let Some(job) = self.due.jobs.pop_first() {
                self.advance_job(job);
            } else {
                return;
            }
        }
    }

    /// Level-triggered: does whatever a cluster's state calls for now. Safe to call at any time. What one pass makes possible
    /// comes after it, so that one round of them is enough.
    fn advance(&mut self, cluster: &ClusterName) {
        self.queues.remove(cluster);
        self.prepare_if_due(cluster);
        self.call_due_batches(cluster);
        self.end_machines(cluster);
        self.advance_changes(cluster);
        self.start_stopped(cluster);
        self.give_addresses(cluster);
        self.pass_challenges(cluster);
        self.mount_volumes(cluster);
        self.renew_facts(cluster);
        self.hand_out_facts(cluster);
        self.pass_gates(cluster);
        self.advance_rolling(cluster);
        self.mark_blocked(cluster);
        self.start_stages(cluster);
        self.fail_unwritten(cluster);
        self.end_launch(cluster);
        self.queue_turns(cluster);
    }

    fn tick(&mut self) -> Answer {
        // By the distance, so that a clock that is set back stops nothing.
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
        self.end_expired();
        self.record_left();
        self.end_lost_runs();
        if pass {
            self.measure_overdue();
        }
        self.advance_waiting();
        self.advance_orphans();
        self.end_late_updates();
        self.forget_old_jobs();
        Answer::Ack
    }

    fn handle(&mut self, input: Input) -> Answer {
        // Asked again after an answer that did not arrive: nothing is begun twice.
        if let Some(id) = input.request().filter(|id| self.jobs.contains_key(id)) {
            return Answer::Begun(id);
        }
        match input {
            Input::Launch(ask) => self.launch(*ask),
            Input::Apply(ask) => self.apply(ask),
            Input::Exec(ask) => self.exec(ask),
            Input::Follow { job, .. } => self.job_as_it_is(job),
            Input::Cancel {
                job,
                grace_ms,
                operator,
                ..
            } => self.cancel_job(job, grace_ms, &operator),
            Input::Record(job) => self.record(*job),
            Input::Terminate {
                cluster,
                instances,
                by,
            } => self.terminate_asked(&cluster, &instances, by),
            Input::Cleanup { cluster, by } => self.cleanup(&cluster, by),
            Input::Lifecycle(ask) => self.change_machines(ask),
            Input::Update {
                cluster,
                instances,
                by,
            } => self.update(&cluster, instances, by),
            Input::DeleteOrphans(ask) => self.delete_orphans(ask),
            Input::OrphansSeen { job, text } => self.orphans_seen(job, text),
            Input::OrphansDeleted { job, place, result } => {
                self.orphans_deleted(job, &place, result)
            }
            Input::Reconcile { cluster } => {
                self.mark_due(&cluster);
                Answer::Ack
            }
            Input::Poll { cluster } => self.poll_now(&cluster),
            Input::Enrol(ask) => self.enrol(ask),
            Input::Revoke {
                cluster,
                instances,
                operator,
            } => self.revoke(&cluster, &instances, &operator),
            Input::Issued {
                at,
                machine,
                session,
                asked_with,
                key_sha256,
                serial,
                expires_unix,
            } => {
                let issued = IssuedCertificate {
                    asked_with,
                    key_sha256,
                    serial,
                    expires_unix,
                };
                self.issued(&at, machine, session, issued)
            }
            Input::StillThere { at, session } => self.still_there(&at, session),
            Input::CertificateSeen { at, serial } => self.certificate_seen(&at, &serial),
            Input::BootStep {
                token_sha256,
                machine,
                step,
                detail,
            } => self.boot_step(&token_sha256, &machine, &step, &detail),
            Input::Agent {
                at,
                session,
                report,
            } => self.agent_reports(&at, session, report),
            Input::Recovered { run, ended } => self.run_ended(run, &ended),
            Input::Measured { run, bytes } => self.measured(run, bytes),
            Input::Answered { cluster, answer } => self.answered(&cluster, answer),
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
            | Input::Reconcile { .. }
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
