//! Jobs and runs: one asked-for thing over many instances, and its start on each.

use std::collections::BTreeMap;
use std::sync::Arc;

use aot_proto::ids::{ClusterName, InstanceName, JobId, RunId};
use aot_proto::limits::EXIT_REBOOT;
use aot_proto::v1::{EndKind, Ended};
use serde::{Deserialize, Serialize};

use super::cluster::{Key, UnixMs};
use super::pace::{Pace, SoFar};

/// Exactly one of these ends every target of every job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran and its exit status was 0.
    Succeeded,
    /// It ran and did not succeed, or was cut short by its machine.
    Failed,
    /// It was ended because its time was up.
    TimedOut,
    /// It was ended because someone asked.
    Cancelled,
    /// The agent did not take it.
    Rejected,
    /// There was no session to give it to.
    Absent,
    /// The agent took it, or may have, and is gone; a later word replaces this.
    LostContact,
}

impl Outcome {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
            Self::Absent => "absent",
            Self::LostContact => "lost_contact",
        }
    }
}

/// How one target ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The word.
    pub outcome: Outcome,
    /// Exit status, when it had one.
    pub exit_code: Option<i32>,
    /// Why, for a person; empty when there is nothing to add.
    pub detail: String,
    /// Wall time on the machine, or as seen from here.
    pub ms: u64,
    /// Output was cut at the cap.
    pub truncated: bool,
    /// So many bytes of it.
    #[serde(default)]
    pub cut_bytes: u64,
}

impl Verdict {
    /// One without a run.
    pub fn without_run(outcome: Outcome, detail: impl Into<String>) -> Self {
        Self {
            outcome,
            exit_code: None,
            detail: detail.into(),
            ms: 0,
            truncated: false,
            cut_bytes: 0,
        }
    }

    /// What the end record of a run's spool says.
    pub fn of(ended: &Ended) -> Self {
        let (outcome, exit_code, detail) = match ended.kind() {
            EndKind::Exited if ended.exit_code == 0 => (Outcome::Succeeded, Some(0), String::new()),
            EndKind::Exited => (Outcome::Failed, Some(ended.exit_code), String::new()),
            EndKind::Signalled => (
                Outcome::Failed,
                None,
                format!("ended by signal {}", ended.signal),
            ),
            EndKind::TimedOut => (Outcome::TimedOut, None, "its time was up".to_owned()),
            EndKind::Silent => (
                Outcome::TimedOut,
                None,
                "it printed nothing for too long".to_owned(),
            ),
            EndKind::Cancelled => (Outcome::Cancelled, None, String::new()),
            EndKind::Interrupted => (Outcome::Failed, None, "interrupted".to_owned()),
            EndKind::NotStarted => (Outcome::Rejected, None, "not started".to_owned()),
            EndKind::Unspecified => (Outcome::Failed, None, "an end of unknown kind".to_owned()),
        };
        let mut detail = match (detail.is_empty(), ended.detail.is_empty()) {
            (_, true) => detail,
            (true, false) => ended.detail.clone(),
            (false, false) => format!("{detail}: {}", ended.detail),
        };
        if ended.leaked_pipes {
            let more = "a process that it left behind still holds its output";
            detail = if detail.is_empty() {
                more.to_owned()
            } else {
                format!("{detail}; {more}")
            };
        }
        Self {
            outcome,
            exit_code,
            detail,
            ms: ended.wall_ms,
            truncated: ended.cut_stdout_bytes + ended.cut_stderr_bytes > 0,
            cut_bytes: ended.cut_stdout_bytes + ended.cut_stderr_bytes,
        }
    }
}

/// What the end of a stage's run means for the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageEnd {
    /// The next stage.
    Succeeded,
    /// Reboot, then the same stage.
    Reboot,
    /// Not its own fault: the next attempt.
    Interrupted,
    /// Stop here.
    Failed,
}

/// What the end of a stage's run means for the stage.
pub fn stage_end(ended: &Ended) -> StageEnd {
    match ended.kind() {
        EndKind::Exited if ended.exit_code == 0 => StageEnd::Succeeded,
        EndKind::Exited if ended.exit_code == EXIT_REBOOT => StageEnd::Reboot,
        EndKind::Interrupted => StageEnd::Interrupted,
        _ => StageEnd::Failed,
    }
}

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
}

impl JobKind {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Launch => "launch",
            Self::Apply => "apply",
            Self::Copy => "copy",
            Self::Shell => "shell",
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
    /// Where.
    pub cluster: ClusterName,
    /// What was asked, for a person: `exec '*' -- uname -a`.
    pub what: String,
    /// Who asked: user name or uid of the socket's peer.
    pub operator: String,
    /// When.
    pub started_ms: UnixMs,
    /// When its last target ended; `None` while one has not.
    pub ended_ms: Option<UnixMs>,
    /// Each target's end; `None` while it has none.
    pub targets: BTreeMap<InstanceName, Option<Verdict>>,
    /// What each target does; `None` for launches, applies, shells and what agents answer by themselves. Written once,
    /// beside the record: an input of 1 MiB is not written again with every end of a target.
    #[serde(skip)]
    pub task: Option<Arc<Task>>,
    /// How it goes over its targets.
    #[serde(default)]
    pub pace: Pace,
    /// Targets that have not been given it yet, in their order.
    #[serde(default)]
    pub waiting: Vec<InstanceName>,
    /// Until then it is kept for targets that are absent; 0 = not at all.
    #[serde(default)]
    pub queued_until_ms: UnixMs,
    /// When a batch last came to its end; for `Pace::batch_wait_ms`.
    #[serde(default)]
    pub batch_ended_ms: UnixMs,
    /// Its output was dropped: too old, or too much in all.
    #[serde(default)]
    pub output_dropped: bool,
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
            waiting: Vec::new(),
            queued_until_ms: 0,
            batch_ended_ms: 0,
            output_dropped: false,
        }
    }

    /// Targets that have not ended.
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

    /// How many ended how.
    pub fn outcomes(&self) -> BTreeMap<&'static str, u32> {
        let mut counts = BTreeMap::new();
        for verdict in self.targets.values().flatten() {
            *counts.entry(verdict.outcome.as_str()).or_default() += 1;
        }
        counts
    }
}

/// How many targets of a job have no end yet, and how many ended in ways that its pace asks for. Counted on, so that the
/// end of one target among thousands costs no look at all of them.
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

/// One start of one process on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id: the agent journals it, and starts it at most once.
    pub id: RunId,
    /// The job that wanted it.
    pub job: JobId,
    /// Where.
    pub at: Key,
    /// What.
    pub what: RunKind,
    /// How far.
    pub state: RunState,
    /// When it was asked for.
    pub asked_ms: UnixMs,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// Someone asked for its end, with so many milliseconds between TERM and KILL (0 = the agent's default).
    #[serde(default)]
    pub cancel: Option<u64>,
}

/// What a run runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// A stage; all else is in the instance's record.
    Stage {
        /// Index.
        index: usize,
        /// Attempt.
        attempt: u32,
    },
    /// The task of its job.
    Task,
}

/// What a job does on each of its targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Runs a command.
    Command(Exec),
    /// Fetches an archive and unpacks it.
    CopyIn(CopyIn),
    /// Packs these absolute paths and prints the archive.
    CopyOut(Vec<String>),
}

/// An archive for a target. See `CopyInSpec` of agent.proto.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyIn {
    /// Of the archive, hex.
    pub sha256: String,
    /// Of the archive.
    pub bytes: u64,
    /// Where it goes, absolute.
    pub path: String,
    /// `path` is a folder, made when missing.
    pub into: bool,
}

/// A command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// More environment.
    pub env: BTreeMap<String, String>,
    /// Folder; empty = /.
    pub cwd: String,
    /// User; empty = root.
    pub user: String,
    /// Its standard input.
    pub stdin: Vec<u8>,
    /// Longest run, 0 = none.
    pub timeout_ms: u64,
    /// Output that is kept of each target, bytes; 0 = the default.
    #[serde(default)]
    pub output_cap_bytes: u64,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// On disk here; the agent may or may not have heard of it.
    Asked,
    /// In the agent's journal.
    Accepted,
    /// Over.
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(kind: EndKind, exit_code: i32) -> Ended {
        Ended {
            kind: kind as i32,
            exit_code,
            ..Ended::default()
        }
    }

    #[test]
    fn every_kind_of_end_has_one_outcome() {
        let table = [
            (EndKind::Exited, 0, Outcome::Succeeded, StageEnd::Succeeded),
            (EndKind::Exited, 3, Outcome::Failed, StageEnd::Failed),
            (
                EndKind::Exited,
                EXIT_REBOOT,
                Outcome::Failed,
                StageEnd::Reboot,
            ),
            (EndKind::Signalled, 0, Outcome::Failed, StageEnd::Failed),
            (EndKind::TimedOut, 0, Outcome::TimedOut, StageEnd::Failed),
            (EndKind::Silent, 0, Outcome::TimedOut, StageEnd::Failed),
            (EndKind::Cancelled, 0, Outcome::Cancelled, StageEnd::Failed),
            (
                EndKind::Interrupted,
                0,
                Outcome::Failed,
                StageEnd::Interrupted,
            ),
            (EndKind::NotStarted, 0, Outcome::Rejected, StageEnd::Failed),
            (EndKind::Unspecified, 0, Outcome::Failed, StageEnd::Failed),
        ];
        for (kind, code, outcome, stage) in table {
            let end = ended(kind, code);
            assert_eq!(Verdict::of(&end).outcome, outcome, "{kind:?} {code}");
            assert_eq!(stage_end(&end), stage, "{kind:?} {code}");
        }
    }

    #[test]
    fn only_a_process_that_exited_has_an_exit_code() {
        assert_eq!(Verdict::of(&ended(EndKind::Exited, 7)).exit_code, Some(7));
        assert_eq!(Verdict::of(&ended(EndKind::Signalled, 0)).exit_code, None);
    }

    #[test]
    fn cut_output_and_kept_pipes_are_said() {
        let end = Ended {
            cut_stderr_bytes: 1,
            leaked_pipes: true,
            ..ended(EndKind::Exited, 0)
        };
        let verdict = Verdict::of(&end);
        assert!(verdict.truncated);
        assert!(verdict.detail.contains("left behind"));
    }
}
