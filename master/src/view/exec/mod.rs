//! The output and ends of a job over many instances, as a person or a program reads them. Feeds on `ExecEvent`'s parts;
//! called by `cli` for exec, jobs and logs.
//!
//! [`ExecLines`], [`ExecFold`], [`ExecJson`] and [`ExecQuiet`] are four consumers of the same events.

mod closing;
mod fold;
mod json;
mod lines;
mod tally;

use std::io;

use aot_proto::v1::{ExecEnded, ExecNote, ExecOutput, ExecStarted};
use serde_json::Value;

use super::Streams;
use super::words::{bytes, outcome_words};

pub use closing::{builtin_table, exec_summary};
pub use fold::ExecFold;
pub use json::{ExecJson, outcome_json};
pub use lines::ExecLines;
pub use tally::Tally;

/// Shows output and ends as they come.
pub trait ExecView {
    /// What it is, before all else.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn started(&mut self, _started: &ExecStarted, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }

    /// Some output.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn output(&mut self, output: &ExecOutput, io: &mut Streams) -> io::Result<()>;

    /// One target has ended, for good; no more output of it follows. Once a target.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn ended(&mut self, ended: &ExecEnded, io: &mut Streams) -> io::Result<()>;

    /// Something to know that is no output.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn note(&mut self, note: &ExecNote, io: &mut Streams) -> io::Result<()>;

    /// All have ended, or the connection was lost: nothing may be held back any longer.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn close(&mut self, io: &mut Streams) -> io::Result<()>;
}

/// Shows no output, only notes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecQuiet(pub super::Style);

impl ExecView for ExecQuiet {
    fn output(&mut self, _output: &ExecOutput, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }

    fn ended(&mut self, _ended: &ExecEnded, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }

    fn note(&mut self, note: &ExecNote, io: &mut Streams) -> io::Result<()> {
        writeln!(io.stderr, "{}", self.0.dim(&note_line(note)))
    }

    fn close(&mut self, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }
}

/// `web3 -- queued for 1h`, or without a name for the job as a whole.
fn note_line(note: &ExecNote) -> String {
    match note.instance.as_str() {
        "" => format!("-- {}", note.text),
        name => format!("{name} -- {}", note.text),
    }
}

/// `2.1 MiB of output were cut`.
fn cut_words(ended: &ExecEnded) -> String {
    match ended.cut_bytes {
        0 => "some of its output was cut".to_owned(),
        cut => format!("{} of its output were cut", bytes(cut)),
    }
}

/// What there is to say besides the outcome: `exit code 17`, `its time was up`; empty when there is nothing.
pub(in crate::view) fn reason(ended: &ExecEnded) -> String {
    match (ended.has_exit_code && ended.exit_code != 0, &*ended.detail) {
        (true, "") => format!("exit code {}", ended.exit_code),
        (true, detail) => format!("exit code {}, {detail}", ended.exit_code),
        (false, detail) => detail.to_owned(),
    }
}

/// Why it did not succeed, with the outcome where that is more than `failed`.
fn why(ended: &ExecEnded) -> String {
    let word = outcome_words(&ended.outcome, None);
    match (&*ended.outcome, reason(ended)) {
        (_, none) if none.is_empty() => word,
        ("failed", reason) => reason,
        (_, reason) => format!("{word}: {reason}"),
    }
}

fn result_of(ended: &ExecEnded) -> Value {
    serde_json::from_str(&ended.json).unwrap_or_else(|_| ended.json.as_str().into())
}

#[cfg(test)]
mod tests;
