//! How a try of a stage ended, what that means for the stage, and how to say so. Pure: from the end of its run.

use aot_proto::limits::EXIT_REBOOT;
use aot_proto::v1::{EndKind, Ended};
use serde::{Deserialize, Serialize};

use crate::outcome::{Outcome, Verdict};

/// How a try of a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageOutcome {
    /// Its exit status was 0.
    Succeeded,
    /// It ran and did not succeed.
    Failed,
    /// It was ended because its time was up, or because it printed nothing for too long.
    TimedOut,
    /// It was ended because someone asked.
    Cancelled,
    /// The agent did not start it.
    Rejected,
    /// There was nobody to run it.
    Absent,
    /// Its agent is gone; the real end replaces this.
    LostContact,
    /// Cut short by its machine; it is tried again.
    Interrupted,
    /// It asked for a reboot (exit status 194), and continues after it.
    Reboot,
}

impl StageOutcome {
    /// As users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => Outcome::Succeeded.as_str(),
            Self::Failed => Outcome::Failed.as_str(),
            Self::TimedOut => Outcome::TimedOut.as_str(),
            Self::Cancelled => Outcome::Cancelled.as_str(),
            Self::Rejected => Outcome::Rejected.as_str(),
            Self::Absent => Outcome::Absent.as_str(),
            Self::LostContact => Outcome::LostContact.as_str(),
            Self::Interrupted => "interrupted",
            Self::Reboot => "reboot",
        }
    }

    /// What it is for the target of a job: one of the seven.
    pub(crate) fn of_target(self) -> Outcome {
        match self {
            Self::Succeeded => Outcome::Succeeded,
            Self::TimedOut => Outcome::TimedOut,
            Self::Cancelled => Outcome::Cancelled,
            Self::Rejected => Outcome::Rejected,
            Self::Absent => Outcome::Absent,
            Self::LostContact => Outcome::LostContact,
            Self::Failed | Self::Interrupted | Self::Reboot => Outcome::Failed,
        }
    }
}

impl From<Outcome> for StageOutcome {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed => Self::Failed,
            Outcome::TimedOut => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Rejected => Self::Rejected,
            Outcome::Absent => Self::Absent,
            Outcome::LostContact => Self::LostContact,
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

/// How a try of a stage ended, for a person: `timed out after 6.0 s: it printed nothing for too long`.
pub fn describe_stage_end(ended: &Ended) -> String {
    let verdict = Verdict::of(ended);
    let after = |word: &str| format!("{word} after {:.1} s", verdict.ms as f64 / 1000.0);
    let (said, why) = match (stage_end(ended), verdict.outcome) {
        (StageEnd::Reboot, _) => return format!("asked for a reboot ({EXIT_REBOOT})"),
        (StageEnd::Succeeded, _) => ("succeeded".to_owned(), verdict.detail.as_str()),
        (StageEnd::Interrupted, _) => ("was interrupted".to_owned(), ended.detail.as_str()),
        (StageEnd::Failed, Outcome::TimedOut) => (after("timed out"), verdict.detail.as_str()),
        (StageEnd::Failed, Outcome::Cancelled) => (after("was cancelled"), verdict.detail.as_str()),
        (StageEnd::Failed, Outcome::Rejected) => {
            ("was rejected".to_owned(), verdict.detail.as_str())
        }
        (StageEnd::Failed, _) => match verdict.exit_code {
            Some(code) => (
                format!("failed with exit code {code}"),
                verdict.detail.as_str(),
            ),
            None => ("failed".to_owned(), verdict.detail.as_str()),
        },
    };
    match why {
        "" => said,
        why => format!("{said}: {why}"),
    }
}

/// The last lines of an output: errors first, then what else was printed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LastLines {
    /// Of standard error, the oldest first.
    pub stderr: Vec<String>,
    /// Of standard output, as far as there is room.
    pub stdout: Vec<String>,
}

impl LastLines {
    /// Most lines that are kept.
    pub const MAX: usize = 20;
    /// Most characters that are kept of a line.
    pub const MAX_CHARS: usize = 300;

    /// Nothing was printed, or nothing is known of it.
    pub fn is_empty(&self) -> bool {
        self.stderr.is_empty() && self.stdout.is_empty()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.stderr.iter().chain(&self.stdout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended_as(kind: EndKind, exit_code: i32, detail: &str) -> Ended {
        Ended {
            kind: kind as i32,
            exit_code,
            detail: detail.into(),
            wall_ms: 6000,
            ..Ended::default()
        }
    }

    #[test]
    fn the_end_of_a_stage_is_told_once_and_as_what_it_is() {
        let cut = "stopped: it ran longer than its timeout; 1 process ignored TERM and was killed";
        for (kind, code, detail, words) in [
            (EndKind::Exited, 0, "", "succeeded"),
            (EndKind::Exited, 17, "", "failed with exit code 17"),
            (EndKind::Exited, 194, "", "asked for a reboot (194)"),
            (
                EndKind::TimedOut,
                0,
                "stopped: it ran longer than its timeout",
                "timed out after 6.0 s",
            ),
            (
                EndKind::TimedOut,
                0,
                cut,
                "timed out after 6.0 s: 1 process ignored TERM and was killed",
            ),
            (
                EndKind::Silent,
                0,
                "stopped: it printed nothing for longer than its silence timeout",
                "timed out after 6.0 s: it printed nothing for too long",
            ),
            (
                EndKind::Cancelled,
                0,
                "stopped: it was cancelled",
                "was cancelled after 6.0 s",
            ),
            (EndKind::NotStarted, 0, "no room", "was rejected: no room"),
            (EndKind::NotStarted, 0, "", "was rejected: not started"),
            (
                EndKind::Interrupted,
                0,
                "its machine went down",
                "was interrupted: its machine went down",
            ),
            (
                EndKind::Signalled,
                0,
                "killed by SIGKILL",
                "failed: killed by SIGKILL",
            ),
        ] {
            assert_eq!(describe_stage_end(&ended_as(kind, code, detail)), words);
        }
    }

    #[test]
    fn every_outcome_of_a_stage_is_one_of_a_target() {
        for outcome in [
            Outcome::Succeeded,
            Outcome::Failed,
            Outcome::TimedOut,
            Outcome::Cancelled,
            Outcome::Rejected,
            Outcome::Absent,
            Outcome::LostContact,
        ] {
            let stage = StageOutcome::from(outcome);
            assert_eq!(
                (stage.as_str(), stage.of_target()),
                (outcome.as_str(), outcome)
            );
        }
        assert_eq!(StageOutcome::Interrupted.of_target(), Outcome::Failed);
        assert_eq!(StageOutcome::Reboot.as_str(), "reboot");
    }

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
}
