//! Events and answers of the master as a person or a program reads them. Called by `cli`; never uses the network.
//!
//! Progress goes to standard error, results to standard output, each through the one writer of that stream ([`Out`]).
//! [`LiveView`], [`Plain`] and [`Json`] are three consumers of the same events.

mod api_call;
mod bars;
mod closing;
mod copy;
mod failure;
mod failures;
mod fault;
mod findings;
mod format;
mod frame;
mod grid;
mod harmless;
mod job_output;
mod job_table;
mod json;
mod launch_board;
mod live;
mod next;
mod orphans;
mod out;
mod plain;
mod plan;
mod ranges;
mod sentence;
mod style;
mod table;
mod versions;

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) use out::tests::Kept;

use std::io;

use aot_proto::v1::Event;
use aot_proto::v1::last_lines_reply::Line;

// For the programs, and the tests that read names back.
pub use out::{
    ColorChoice, LogLines, choose_colour, drawn_by_library, log_on_stderr, panics_are_harmless,
};
pub use ranges::ranges;
pub use table::settings_table;

pub(crate) use api_call::api_call_line;
pub(crate) use closing::closing_table;
pub(crate) use copy::{CopyView, copy_json};
pub(crate) use failures::failed_stages;
pub(crate) use fault::target_fault;
pub(crate) use findings::{finding_json, finding_line};
pub(crate) use format::{
    bytes as bytes_text, clock, count_things, counts_text, day_and_clock, public_or_private,
    seconds as took_text,
};
pub(crate) use frame::frame;
pub(crate) use job_output::{
    JobFold, JobJson, JobLines, JobQuiet, JobView, TallyLine, counts_of, job_summary,
    outcome_counts, outcome_json, show_builtin,
};
pub(crate) use job_table::{job_heading, job_json, jobs_table, outcomes_table};
pub(crate) use json::{
    Json, event_json, instance_json, log_json, rfc3339, stages_json, text_or_base64,
};
pub(crate) use launch_board::Board;
pub(crate) use live::{LiveView, Picture};
pub(crate) use next::next_lines;
pub(crate) use orphans::{orphan_json, orphans_table};
pub(crate) use out::{Out, StreamKind, Streams, TerminalTraits, columns, harmless_json};
pub(crate) use plain::{Detail, Plain, event_line};
pub(crate) use plan::{plan_json, plan_lines, plan_summary, problem_lines};
pub(crate) use sentence::fields_of;
pub(crate) use style::Style;
pub(crate) use table::{
    Columns, agents_table, explanations, instances_table, masters_table, receipt_line, stamp,
};
pub(crate) use versions::{plan_versions, versions};

/// Shows events as they come.
pub(crate) trait View {
    /// Shows one event.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn show(&mut self, event: &Event, io: &mut Streams) -> io::Result<()>;

    /// Brings what is shown up to `now_ms` (milliseconds since 1970). Called a few times per second.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn tick(&mut self, _now_ms: u64, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }

    /// Instances of which it would show what they are printing, the most important first.
    fn running(&self) -> Vec<String> {
        Vec::new()
    }

    /// What those have printed last.
    fn last_lines(&mut self, _lines: &[Line]) {}

    /// Takes away what is drawn, until something is shown again. Safe to repeat.
    fn hide(&mut self) {}

    /// Says what was held back, and takes away what is only for the time of the events. Safe to repeat.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn close(&mut self, _io: &mut Streams) -> io::Result<()> {
        Ok(())
    }
}
