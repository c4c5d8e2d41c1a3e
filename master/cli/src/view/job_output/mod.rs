//! The output and ends of a job over many instances, as a person or a program reads them. Feeds on `JobEvent`'s parts;
//! called by `cli` for exec, jobs and logs.
//!
//! [`JobLines`], [`JobFold`], [`JobJson`] and [`JobQuiet`] are four consumers of the same events.

mod closing;
mod fold;
mod json;
mod lines;
mod tally;

use std::io::{self, Write as _};

use aot_proto::v1::{JobEnded, JobNotice, JobOutput, JobStarted, Outcome};
use serde_json::Value;

use super::Streams;
use super::format::{bytes, outcome_text};

pub(crate) use closing::{counts_of, job_summary, outcome_counts, show_builtin};
pub(crate) use fold::JobFold;
pub(crate) use json::{JobJson, outcome_json};
pub(crate) use lines::JobLines;
pub(crate) use tally::TallyLine;

/// Shows output and ends as they come.
pub(crate) trait JobView {
    /// What it is, before all else.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn started(&mut self, _started: &JobStarted, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }

    /// Some output.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn output(&mut self, output: &JobOutput, io: &mut Streams) -> io::Result<()>;

    /// One target has ended, for good; no more output of it follows. Once a target.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn ended(&mut self, ended: &JobEnded, io: &mut Streams) -> io::Result<()>;

    /// Something to know that is not output.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn notice(&mut self, notice: &JobNotice, io: &mut Streams) -> io::Result<()>;

    /// All have ended, or the connection was lost: nothing may be held back any longer.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn close(&mut self, io: &mut Streams) -> io::Result<()>;
}

/// Shows no output, only notes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JobQuiet(pub super::Style);

impl JobView for JobQuiet {
    fn output(&mut self, _output: &JobOutput, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }

    fn ended(&mut self, _ended: &JobEnded, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }

    fn notice(&mut self, notice: &JobNotice, io: &mut Streams) -> io::Result<()> {
        writeln!(io.stderr, "{}", self.0.dim(&notice_line(notice)))
    }

    fn close(&mut self, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }
}

/// What stands between a name and a line. On a terminal, where both streams meet, errors are told apart.
fn bar(style: super::Style, stderr: bool, terminal: bool) -> String {
    match (stderr, terminal) {
        (true, true) => style.bad("!"),
        (true, false) => style.bad("|"),
        (false, _) => style.dim("|"),
    }
}

/// `web3 -- queued for 1h`, or without a name for the job as a whole.
fn notice_line(notice: &JobNotice) -> String {
    match notice.instance.as_str() {
        "" => format!("-- {}", notice.text),
        name => format!("{name} -- {}", notice.text),
    }
}

/// `2.1 MiB of its output was cut`.
fn cut_text(ended: &JobEnded) -> String {
    match ended.cut_bytes {
        0 => "some of its output was cut".to_owned(),
        cut => format!("{} of its output was cut", bytes(cut)),
    }
}

/// What there is to say besides the outcome: `exit code 17`, `its time was up`; empty when there is nothing.
pub(in crate::view) fn reason(ended: &JobEnded) -> String {
    match (ended.exit_code.filter(|code| *code != 0), &*ended.detail) {
        (Some(code), "") => format!("exit code {code}"),
        (Some(code), detail) => format!("exit code {code}, {detail}"),
        (None, detail) => detail.to_owned(),
    }
}

/// Why it did not succeed, with the outcome where that is more than `failed`.
fn why(ended: &JobEnded) -> String {
    let word = outcome_text(ended.outcome);
    match (ended.outcome(), reason(ended)) {
        (_, none) if none.is_empty() => word,
        (Outcome::Failed, reason) => reason,
        // `cancelled by alice` has the outcome in it.
        (_, reason) if reason.starts_with(&word) => reason,
        (_, reason) => format!("{word}: {reason}"),
    }
}

fn result_of(ended: &JobEnded) -> Value {
    serde_json::from_str(&ended.json).unwrap_or_else(|_| ended.json.as_str().into())
}

#[cfg(test)]
mod tests;
