//! How a target of a job ended: one of seven outcomes, and what is known besides. Made from the end of its run, or by
//! `world` where there was none.

use aot_proto::v1::{EndKind, Ended};
use serde::{Deserialize, Serialize};

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
    /// The agent took it, or may have, and is gone; a later report replaces this.
    LostContact,
}

impl Outcome {
    /// As users see it.
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
    /// Which of the seven.
    pub outcome: Outcome,
    /// Exit status, when it had one.
    pub exit_code: Option<i32>,
    /// Why, for a person; empty when there is nothing to add.
    pub detail: String,
    /// Wall time on the machine, or as seen from here.
    pub ms: u64,
    /// Output was cut at the cap.
    pub truncated: bool,
    /// Bytes of it that were cut.
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
            EndKind::Signalled => {
                let signal = format!("ended by signal {}", ended.signal);
                (Outcome::Failed, None, detail_or(ended, &signal))
            }
            EndKind::TimedOut => (Outcome::TimedOut, None, more_than_stopped(ended)),
            EndKind::Silent => {
                let mut why = "it printed nothing for too long".to_owned();
                match more_than_stopped(ended).as_str() {
                    "" => {}
                    more => why.push_str(&format!("; {more}")),
                }
                (Outcome::TimedOut, None, why)
            }
            EndKind::Cancelled => (Outcome::Cancelled, None, more_than_stopped(ended)),
            EndKind::Interrupted => (Outcome::Failed, None, with_detail("interrupted", ended)),
            EndKind::NotStarted => (Outcome::Rejected, None, detail_or(ended, "not started")),
            EndKind::Unspecified => (
                Outcome::Failed,
                None,
                with_detail("an end of unknown kind", ended),
            ),
        };
        let mut detail = match ended.kind() {
            EndKind::Exited => ended.detail.clone(),
            _ => detail,
        };
        if ended.leaked_pipes {
            let more = left_behind(ended.left_processes);
            detail = if detail.is_empty() {
                more
            } else {
                format!("{detail}; {more}")
            };
        }
        Self {
            outcome,
            exit_code,
            detail,
            ms: ended.wall_ms,
            truncated: ended
                .cut_stdout_bytes
                .saturating_add(ended.cut_stderr_bytes)
                > 0,
            cut_bytes: ended
                .cut_stdout_bytes
                .saturating_add(ended.cut_stderr_bytes),
        }
    }
}

/// What a run left behind, and holds its output open: that goes nowhere from then on.
fn left_behind(processes: u32) -> String {
    match processes {
        0 => "left something behind that holds its output".to_owned(),
        1 => "left 1 process behind that holds its output".to_owned(),
        many => format!("left {many} processes behind that hold its output"),
    }
}

/// What the agent says of an end, or `text` when it says nothing.
fn detail_or(ended: &Ended, text: &str) -> String {
    match ended.detail.as_str() {
        "" => text.to_owned(),
        said => said.to_owned(),
    }
}

/// `text`, and what the agent says besides.
fn with_detail(text: &str, ended: &Ended) -> String {
    match ended.detail.as_str() {
        "" => text.to_owned(),
        said => format!("{text}: {said}"),
    }
}

/// What the agent says of a command that it stopped, without the beginning, which the outcome says.
fn more_than_stopped(ended: &Ended) -> String {
    let said = ended.detail.as_str();
    match said.strip_prefix("stopped: ") {
        Some(words) => words.split_once("; ").map_or("", |(_, more)| more),
        None => said,
    }
    .to_owned()
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
        assert_eq!(
            verdict.detail,
            "left something behind that holds its output"
        );
        let many = Ended {
            left_processes: 2,
            ..end
        };
        let detail = Verdict::of(&many).detail;
        assert_eq!(detail, "left 2 processes behind that hold its output");
    }
}
