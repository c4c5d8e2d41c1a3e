//! Events and answers of the master as a person or a program reads them. Called by `cli`; never uses the network.
//!
//! Progress goes to standard error, results to standard output. [`Live`], [`Plain`] and [`Json`] are three consumers of
//! the same events.

mod api_call;
mod aside;
mod board;
mod copy;
mod exec;
mod job;
mod json;
mod live;
mod look;
mod orphans;
mod plain;
mod plan;
mod ranges;
mod style;
mod table;
mod words;

#[cfg(test)]
pub(crate) mod samples;

use std::io::{self, BufRead, BufReader, Write};

use aot_proto::v1::Event;

pub use api_call::api_call_line;
pub use aside::Aside;
pub use board::{Board, Row};
pub use copy::{CopyView, copy_json};
pub use exec::{
    ExecFold, ExecJson, ExecLines, ExecQuiet, ExecView, Tally, builtin_table, exec_summary,
    outcome_json,
};
pub use job::{job_heading, job_json, jobs_table, outcomes_table};
pub use json::{
    Json, event_json, event_summary, instance_json, log_json, rfc3339, stages_json, text_or_base64,
};
pub use live::Live;
pub use look::Look;
pub use orphans::{orphan_json, orphans_table};
pub use plain::Plain;
pub use plan::{plan_json, plan_lines, plan_words, problem_lines};
pub use style::Style;
pub use table::{
    Columns, agents_table, closing_table, explanations, instances_table, receipt_line,
};
pub use words::{bytes, clock, count_things, count_words, fields_of, places, seconds};

/// The process's three streams, or a test's.
pub struct Streams {
    /// Answers of the operator.
    pub stdin: Box<dyn BufRead>,
    /// Results.
    pub stdout: Box<dyn Write>,
    /// Progress and errors.
    pub stderr: Box<dyn Write>,
}

impl Streams {
    /// Those of this process. Standard output is buffered: [`Streams::flush`] before waiting.
    pub fn of_process() -> Self {
        Self {
            stdin: Box::new(BufReader::new(io::stdin())),
            stdout: Box::new(io::BufWriter::new(io::stdout())),
            stderr: Box::new(io::stderr()),
        }
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// As the streams.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()?;
        self.stderr.flush()
    }
}

/// Shows events as they come.
pub trait View {
    /// Shows one event.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn show(&mut self, event: &Event, io: &mut Streams) -> io::Result<()>;

    /// Brings running clocks up to `now_ms` (milliseconds since 1970). Called a few times a second.
    fn tick(&mut self, _now_ms: u64) {}

    /// Takes away what is only for the time of the events. Safe to repeat.
    fn close(&mut self) {}
}
