//! A job as it is on record: one asked-for thing over many instances, and how far it is. Changed by `world` alone.

mod target;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use aot_proto::ids::{ClusterName, InstanceName, JobId, MachineId};
use serde::{Deserialize, Serialize};

use super::outcome::{Outcome, Verdict};
use super::pace::{Pace, SoFar};
use super::task::Task;
use super::unix_ms::UnixMs;
pub use target::TargetRecord;
pub use waiting::Waiting;

/// What a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// A command over a target.
    Exec,
    /// A launch of a file.
    Launch,
    /// Stages again.
    Apply,
    /// Files to or from a target.
    Copy,
    /// An interactive terminal.
    Shell,
    /// Stopped machines are started.
    Start,
    /// Machines are stopped; their disks stay.
    Stop,
    /// Machines are rebooted.
    Reboot,
    /// Machines are ended for good.
    Terminate,
    /// All of a cluster is ended and deleted.
    Cleanup,
    /// What carries the tag of an unknown cluster is deleted.
    Orphans,
    /// The provider is asked for the machines as they are.
    Update,
    /// Connections to one place of one machine.
    Forward,
}

impl JobKind {
    /// Whether it has no runs, and lives only as long as a task of the master serves it.
    pub fn is_served(self) -> bool {
        matches!(self, Self::Shell | Self::Forward)
    }

    /// As users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Launch => "launch",
            Self::Apply => "apply",
            Self::Copy => "copy",
            Self::Shell => "shell",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Reboot => "reboot",
            Self::Terminate => "terminate",
            Self::Cleanup => "cleanup",
            Self::Orphans => "orphans",
            Self::Update => "update",
            Self::Forward => "forward",
        }
    }
}

/// One asked-for thing over many instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it is.
    pub kind: JobKind,
    /// The cluster of all its targets.
    pub cluster: ClusterName,
    /// What was asked, for a person: `exec '*' -- uname -a`.
    pub what: String,
    /// Who asked: user name or uid of the socket's peer.
    pub operator: String,
    /// When it was asked for, in milliseconds since 1970.
    pub started_ms: UnixMs,
    /// When its last target ended; `None` while one has not.
    pub ended_ms: Option<UnixMs>,
    /// Each target's end; `None` while it has none. Each has a record of its own, a [`TargetRecord`].
    #[serde(skip)]
    pub targets: BTreeMap<InstanceName, Option<Verdict>>,
    /// What each target does; `None` for launches, applies, shells and what agents answer by themselves. Written once,
    /// beside the record: an input of 1 MiB is not written again with every end of a target.
    #[serde(skip)]
    pub task: Option<Arc<Task>>,
    /// How it goes over its targets.
    #[serde(default)]
    pub pace: Pace,
    /// Targets that have not been given it yet, in their order; on record by their places.
    #[serde(skip)]
    pub waiting: Waiting,
    /// Until then it is kept for targets that are absent; 0 = not at all.
    #[serde(default)]
    pub queued_until_ms: UnixMs,
    /// When a batch last came to its end; for `Pace::batch_wait_ms`, and 0 without one.
    #[serde(default)]
    pub batch_ended_ms: UnixMs,
    /// Its output was dropped: too old, or too much in all.
    #[serde(default)]
    pub output_dropped: bool,
    /// What it asks of a provider, for those that change or end machines.
    #[serde(default)]
    pub call: Option<MachineCall>,
    /// What it deletes, of a deletion of orphans.
    #[serde(default)]
    pub orphans: Option<Orphans>,
    /// Of a launch or an apply that is over: why it failed as a whole, empty when it did not. Its targets alone do not
    /// say: a launch may succeed with fewer than all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Job {
    /// One that has just begun, without a task.
    pub fn new(
        id: JobId,
        kind: JobKind,
        cluster: ClusterName,
        what: String,
        operator: String,
        started_ms: UnixMs,
    ) -> Self {
        Self {
            id,
            kind,
            cluster,
            what,
            operator,
            started_ms,
            ended_ms: None,
            targets: BTreeMap::new(),
            task: None,
            pace: Pace::default(),
            waiting: Waiting::default(),
            queued_until_ms: 0,
            batch_ended_ms: 0,
            output_dropped: false,
            call: None,
            orphans: None,
            error: None,
        }
    }

    /// Those targets that have not ended.
    pub(crate) fn open_targets(&self) -> impl Iterator<Item = &InstanceName> {
        let open = self.targets.iter().filter(|(_, verdict)| verdict.is_none());
        open.map(|(name, _)| name)
    }

    /// How many targets have not ended.
    pub fn open(&self) -> usize {
        self.targets
            .values()
            .filter(|verdict| verdict.is_none())
            .count()
    }

    /// How far it is, for its pace. Absent targets were never given it: they count as neither started nor failed.
    pub fn so_far(&self, tally: &Tally) -> SoFar {
        let Tally {
            open, absent, well, ..
        } = *tally;
        let (all, waiting) = (self.targets.len(), self.waiting.len());
        SoFar {
            waiting,
            running: open - waiting.min(open),
            started: all - waiting.min(all) - absent,
            failed: all - open - absent - well,
            batch_ended_ms: self.batch_ended_ms,
        }
    }

    /// When it was over, and why it failed, empty when it did not; `None` while a target is open.
    pub fn end(&self) -> Option<(UnixMs, String)> {
        let failed = || {
            let mut ends = self.targets.values().flatten();
            let failed = ends.find(|end| end.outcome != Outcome::Succeeded);
            failed.map(|end| end.detail.clone()).unwrap_or_default()
        };
        Some((self.ended_ms?, self.error.clone().unwrap_or_else(failed)))
    }

    /// How many ended how.
    pub fn outcomes(&self) -> BTreeMap<&'static str, u32> {
        let mut counts = BTreeMap::new();
        for verdict in self.targets.values().flatten() {
            *counts.entry(verdict.outcome.as_str()).or_default() += 1;
        }
        counts
    }
}

/// What a job asks of a provider, and how far that is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineCall {
    /// The machine of each target, as it was when the job began.
    pub machines: BTreeMap<InstanceName, CallTarget>,
    /// The provider has answered: it is not asked again. What ends machines is asked for until they are gone, by what
    /// their instances' records say, and counts as answered.
    pub answered: bool,
    /// Targets are not waited for longer than this.
    pub deadline_ms: UnixMs,
}

/// One machine that a job changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTarget {
    /// The one that its instance had when the job began.
    pub machine: MachineId,
    /// The boot of its agent's last session; empty when it never called home.
    pub boot_id: String,
}

/// What a job deletes of a cluster that is not known here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphans {
    /// The cluster's.
    pub uuid: String,
    /// Each target with its region; `None` is this host.
    pub places: BTreeMap<InstanceName, Option<String>>,
    /// Things that were there.
    pub gone: usize,
    /// Things that are still there, and regions that could not be asked.
    pub left: usize,
}

/// How many targets of a job have no end yet, and how many ended in ways that its pace asks for. Counted on, so that the
/// end of one target among thousands costs no pass over all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Without an end.
    pub open: usize,
    /// [`Outcome::Absent`].
    pub absent: usize,
    /// [`Outcome::Succeeded`].
    pub well: usize,
}

impl Tally {
    /// Counts all of a job.
    pub fn of(job: &Job) -> Self {
        let mut tally = Self::default();
        for verdict in job.targets.values() {
            if let Some(count) = tally.of_target(verdict.as_ref()) {
                *count += 1;
            }
        }
        tally
    }

    /// A target that was counted as `before` is `after` now.
    pub fn moved(&mut self, before: Option<&Verdict>, after: &Verdict) {
        if let Some(count) = self.of_target(before) {
            *count -= 1;
        }
        if let Some(count) = self.of_target(Some(after)) {
            *count += 1;
        }
    }

    fn of_target(&mut self, verdict: Option<&Verdict>) -> Option<&mut usize> {
        match verdict.map(|verdict| verdict.outcome) {
            None => Some(&mut self.open),
            Some(Outcome::Absent) => Some(&mut self.absent),
            Some(Outcome::Succeeded) => Some(&mut self.well),
            Some(_) => None,
        }
    }
}
