//! Start, stop and reboot: jobs that ask the provider once for all their machines, and end when each is as was asked.
//!
//! The intent is the job, on disk before the call. A call without an answer when the master ended is made again, except
//! for a reboot: it may have been taken, and a second one would be another reboot.

use std::collections::BTreeMap;

use aot_proto::ids::{ClusterName, InstanceName, JobId};

use super::World;
use super::answer::Answer;
use super::asks::{AskedBy, LifecycleAsk};
use super::provider_call::{Call, CallFailure, Terminations};
use super::refusal::OpError;
use crate::cluster::Cluster;
use crate::instance::Instance;
use crate::job::{CallTarget, Job, JobKind, MachineCall};
use crate::key::InstanceKey;
use crate::machine::MachineState;
use crate::outcome::{Outcome, Verdict};
use crate::unix_ms::UnixMs;

impl World {
    /// An operator wants machines started, stopped or rebooted. Nothing is touched when one of them can't be.
    pub(super) fn change_machines(&mut self, ask: LifecycleAsk) -> Answer {
        let name = ask.cluster;
        let Some(cluster) = self.clusters.get(&name) else {
            return Answer::Error(OpError::NoCluster(name.to_string()));
        };
        let machines = machines_of(cluster, &ask.instances, |machine| !machine.is_ending());
        if machines.is_empty() {
            return Answer::Error(OpError::NoMachine(name.to_string()));
        }
        if let Some(why) = impossible(ask.kind, cluster, &machines) {
            return Answer::Error(OpError::Conflict(why));
        }
        let call = MachineCall {
            machines,
            answered: false,
            deadline_ms: self.now.saturating_add(ask.timeout_ms),
        };
        let id = self.add_call_job(&name, ask.kind, &ask.instances, call, ask.by);
        let answer = self.job_as_it_is(id);
        self.call_changes(&name);
        self.mark_due(&name);
        answer
    }

    /// The record of a job that changes machines. Targets that have none have ended, but not those of a cleanup, which is
    /// over as a whole.
    pub(super) fn add_call_job(
        &mut self,
        name: &ClusterName,
        kind: JobKind,
        instances: &[InstanceName],
        call: MachineCall,
        by: AskedBy,
    ) -> JobId {
        let id = self.job_id(by.request);
        let without: Vec<InstanceName> = instances
            .iter()
            .filter(|instance| !call.machines.contains_key(instance))
            .cloned()
            .collect();
        let job = Job {
            targets: instances.iter().map(|name| (name.clone(), None)).collect(),
            call: Some(call),
            ..Job::new(id, kind, name.clone(), by.what, by.operator, self.now)
        };
        self.insert_job(job);
        if kind == JobKind::Cleanup {
            return id;
        }
        for instance in without {
            let verdict = Verdict::without_run(Outcome::Absent, "it has no machine");
            self.record_end(id, &instance, verdict);
        }
        id
    }

    /// Level-triggered: makes the calls of jobs that have no answer yet, and ends the targets that are there.
    pub(super) fn advance_changes(&mut self, name: &ClusterName) {
        self.call_changes(name);
        for id in self.open_calls(name) {
            for (instance, verdict) in self.ended_by_now(id) {
                self.record_end(id, &instance, verdict);
            }
        }
    }

    /// Open jobs that change machines of this cluster.
    fn open_calls(&self, name: &ClusterName) -> Vec<JobId> {
        let open =
            |job: &&Job| job.ended_ms.is_none() && job.call.is_some() && job.cluster == *name;
        self.jobs.values().filter(open).map(|job| job.id).collect()
    }

    /// Whether machines are waited for that a listing may show a moment later.
    pub(super) fn is_changing(&self, name: &ClusterName) -> bool {
        !self.open_calls(name).is_empty()
    }

    fn call_changes(&mut self, name: &ClusterName) {
        for id in self.open_calls(name) {
            let Some(job) = self.jobs.get(&id) else {
                continue;
            };
            let Some(call) = job.call.as_ref().filter(|call| !call.answered) else {
                continue;
            };
            let (kind, machines) = (job.kind, call.machines.values());
            let machines = machines.map(|target| target.machine.clone()).collect();
            if self.calls(name).changing.insert(id) {
                let job = id;
                self.call_provider(
                    name,
                    Call::Change {
                        job,
                        kind,
                        machines,
                    },
                );
            }
        }
    }

    /// The provider has taken a change, or not.
    pub(super) fn changed(
        &mut self,
        name: &ClusterName,
        id: JobId,
        result: Result<Terminations, CallFailure>,
    ) -> Answer {
        self.calls(name).changing.remove(&id);
        let Some(job) = self.jobs.get_mut(&id) else {
            return Answer::Ack;
        };
        let Some(call) = &mut job.call else {
            return Answer::Ack;
        };
        call.answered = true;
        let failed = refusals(call, result);
        self.dirty.jobs.insert(id);
        for (instance, why) in failed {
            let verdict = Verdict::without_run(Outcome::Failed, why);
            self.end_call_target(id, &instance, verdict);
        }
        self.poll_soon(name);
        self.poll_if_due(name);
        self.mark_due(name);
        Answer::Ack
    }

    /// Targets that are as was asked, or can't become so any more.
    fn ended_by_now(&self, id: JobId) -> Vec<(InstanceName, Verdict)> {
        let Some((job, call)) = self
            .jobs
            .get(&id)
            .and_then(|job| Some((job, job.call.as_ref()?)))
        else {
            return Vec::new();
        };
        if !call.answered || job.kind == JobKind::Cleanup {
            return Vec::new(); // a cleanup is over as a whole
        }
        let ended = |(name, verdict): (&InstanceName, &Option<Verdict>)| {
            let target = call.machines.get(name).filter(|_| verdict.is_none())?;
            let verdict = match job.kind {
                JobKind::Terminate => end_of_termination(self.target_of(job, name), target),
                kind => end_of_change(kind, self.target_of(job, name), target)
                    .or_else(|| late(kind, call, self.now)),
            };
            let ms = self.now.saturating_sub(job.started_ms);
            Some((name.clone(), Verdict { ms, ..verdict? }))
        };
        job.targets.iter().filter_map(ended).collect()
    }

    /// Ends one target, with the time that it took.
    pub(super) fn end_call_target(&mut self, id: JobId, instance: &InstanceName, end: Verdict) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if job.targets.get(instance).is_none_or(Option::is_some) {
            return;
        }
        let ms = self.now.saturating_sub(job.started_ms);
        self.record_end(id, instance, Verdict { ms, ..end });
    }

    /// Its machine stays although it was to be ended: the jobs that asked for that end with the reason.
    pub(super) fn termination_refused(&mut self, at: &InstanceKey, why: &str) {
        for id in self.open_calls(&at.cluster) {
            if self
                .jobs
                .get(&id)
                .is_some_and(|job| job.kind == JobKind::Terminate)
            {
                let verdict = Verdict::without_run(Outcome::Failed, why);
                self.end_call_target(id, &at.instance, verdict);
            }
        }
    }

    /// The cluster is gone: its machines are gone, and nothing else can become of them.
    pub(super) fn end_calls_of(&mut self, name: &ClusterName) {
        for id in self.open_calls(name) {
            let kind = self.jobs.get(&id).map(|job| job.kind);
            let verdict = match kind {
                Some(JobKind::Terminate) => Verdict::without_run(Outcome::Succeeded, ""),
                _ => Verdict::without_run(Outcome::Failed, "its cluster was cleaned up"),
            };
            self.end_all_of(id, &verdict);
        }
    }

    /// Ends what is open of a job.
    pub(super) fn end_all_of(&mut self, id: JobId, verdict: &Verdict) {
        let open: Vec<InstanceName> = match self.jobs.get(&id) {
            Some(job) => job.open_targets().cloned().collect(),
            None => return,
        };
        for instance in open {
            self.end_call_target(id, &instance, verdict.clone());
        }
    }

    /// Reboots that the last master had asked for, or was about to: nobody knows, and a second one would be one too many.
    pub(super) fn end_unanswered_reboots(&mut self) {
        let unknown = |job: &&Job| {
            let unanswered = job.call.as_ref().is_some_and(|call| !call.answered);
            job.kind == JobKind::Reboot && job.ended_ms.is_none() && unanswered
        };
        let ids: Vec<JobId> = self
            .jobs
            .values()
            .filter(unknown)
            .map(|job| job.id)
            .collect();
        for id in ids {
            let why = "the master ended before the provider answered: it may have been rebooted, and is not rebooted again";
            self.end_all_of(id, &Verdict::without_run(Outcome::LostContact, why));
        }
    }
}

/// The machines of these instances, as far as they have one that counts, each with what its agent said of its boot.
pub(super) fn machines_of(
    cluster: &Cluster,
    instances: &[InstanceName],
    counts: impl Fn(MachineState) -> bool,
) -> BTreeMap<InstanceName, CallTarget> {
    let target = |name: &InstanceName| {
        let instance = cluster.instances.get(name)?;
        let machine = instance.machine.as_ref().filter(|it| counts(it.state))?;
        let target = CallTarget {
            machine: machine.id.clone(),
            boot_id: instance.boot_id.clone(),
        };
        Some((name.clone(), target))
    };
    instances.iter().filter_map(target).collect()
}

/// A machine that is down can't be rebooted: said before any of them is touched.
fn impossible(
    kind: JobKind,
    cluster: &Cluster,
    machines: &BTreeMap<InstanceName, CallTarget>,
) -> Option<String> {
    let is_down = |name: &&InstanceName| {
        let instance = cluster.instances.get(*name);
        let state = instance
            .and_then(|it| it.machine.as_ref())
            .map(|it| it.state);
        matches!(state, Some(MachineState::Stopped | MachineState::Stopping))
    };
    let down: Vec<&str> = machines
        .keys()
        .filter(is_down)
        .map(InstanceName::as_str)
        .collect();
    (kind == JobKind::Reboot && !down.is_empty()).then(|| {
        format!(
            "stopped, so it can't be rebooted: {}; start it instead",
            down.join(", ")
        )
    })
}

/// Those that the provider did not take, and why.
fn refusals(
    call: &MachineCall,
    result: Result<Terminations, CallFailure>,
) -> Vec<(InstanceName, String)> {
    let all = call.machines.iter();
    match result {
        Err(failure) => all
            .map(|(name, _)| (name.clone(), failure.message.clone()))
            .collect(),
        Ok(answer) => all
            .filter_map(|(name, target)| {
                let refused = answer.refused.iter().find(|(id, _)| *id == target.machine);
                let unknown = answer.unknown.contains(&target.machine);
                let why = match refused {
                    Some((_, failure)) => failure.message.clone(),
                    None if unknown => format!("the provider knows no {}", target.machine),
                    None => return None,
                };
                Some((name.clone(), why))
            })
            .collect(),
    }
}

/// The instance, if it still has that machine and the machine is not gone.
fn with_machine<'a>(instance: Option<&'a Instance>, target: &CallTarget) -> Option<&'a Instance> {
    let machine = instance?.machine.as_ref()?;
    (machine.id == target.machine && machine.state != MachineState::Terminated).then_some(instance?)
}

/// How a termination ended; `None` while it has not.
fn end_of_termination(instance: Option<&Instance>, target: &CallTarget) -> Option<Verdict> {
    let Some(instance) = with_machine(instance, target) else {
        return Some(Verdict::without_run(Outcome::Succeeded, ""));
    };
    instance
        .has_machine()
        .then(|| Verdict::without_run(Outcome::Failed, "its machine stays"))
}

/// How a start, stop or reboot ended; `None` while it has not.
fn end_of_change(
    kind: JobKind,
    instance: Option<&Instance>,
    target: &CallTarget,
) -> Option<Verdict> {
    let Some(instance) = with_machine(instance, target) else {
        return Some(Verdict::without_run(Outcome::Failed, "its machine is gone"));
    };
    let is_there = match kind {
        JobKind::Stop => instance.state() == "stopped",
        JobKind::Reboot => is_rebooted(instance, &target.boot_id),
        _ => is_up(instance),
    };
    is_there.then(|| Verdict::without_run(Outcome::Succeeded, ""))
}

fn late(kind: JobKind, call: &MachineCall, now: UnixMs) -> Option<Verdict> {
    let word = match kind {
        JobKind::Stop => "stopped",
        JobKind::Reboot => "rebooted",
        _ => "running",
    };
    let why = format!("it did not become '{word}' in time");
    (now >= call.deadline_ms).then(|| Verdict::without_run(Outcome::TimedOut, why))
}

/// Running, with its agent back where it has one.
pub fn is_up(instance: &Instance) -> bool {
    let back = instance.identity.is_none() || instance.connected();
    instance.state() == "running" && back
}

/// Up after another boot than this one; without an agent nobody can say.
pub fn is_rebooted(instance: &Instance, boot_id: &str) -> bool {
    is_up(instance) && (instance.identity.is_none() || instance.boot_id != boot_id)
}
