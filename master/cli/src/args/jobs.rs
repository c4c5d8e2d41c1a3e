//! Flags of `jobs` and its subcommands.

use std::time::Duration;

use aot_proto::v1::JobKind;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};

use super::target::not_empty;
use crate::help;
use crate::output_mode::OutputArgs;

/// The kinds of jobs, by name.
fn kinds() -> impl TypedValueParser<Value = JobKind> {
    let names = JobKind::ALL.iter().map(|kind| kind.as_str());
    PossibleValuesParser::new(names)
        .try_map(|name| JobKind::from_name(&name).ok_or("not a kind of job"))
}

/// Arguments of `jobs`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct JobsArgs {
    /// How many to show, the newest first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
    /// Only jobs of which not all targets succeeded
    #[arg(long)]
    pub failed: bool,
    /// Only jobs of this kind: exec, copy, shell, launch, apply, ...
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    pub kind: Option<JobKind>,
    /// Only jobs that began within this time (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub since: Option<Duration>,
    /// Only jobs of this operator
    #[arg(long, value_name = "NAME", value_parser = not_empty)]
    pub by: Option<String>,
    /// One of them.
    #[command(subcommand)]
    pub command: Option<JobsCommand>,
}

/// What can be done with one job.
#[derive(Debug, Clone, Subcommand)]
pub enum JobsCommand {
    /// Show a job: every target, its outcome and what it printed
    #[command(after_help = help::JOBS_SHOW)]
    Show {
        /// Id of the job, an unambiguous beginning of it, or `last` [default: last]
        #[arg(value_name = "ID", value_parser = not_empty)]
        id: Option<String>,
        /// Leave out what was printed
        #[arg(long)]
        no_output: bool,
        /// How output is shown.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Follow a job from its start to its end
    #[command(after_help = help::JOBS_FOLLOW)]
    Follow {
        /// Id of the job, an unambiguous beginning of it, or `last` [default: last]
        #[arg(value_name = "ID", value_parser = not_empty)]
        id: Option<String>,
        /// How output is shown.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Stop what is running, and start nothing more
    #[command(after_help = help::JOBS_CANCEL)]
    Cancel {
        /// Id of the job, an unambiguous beginning of it, or `last` [default: last]
        #[arg(value_name = "ID", value_parser = not_empty)]
        id: Option<String>,
        /// Time between TERM and KILL [default: 10s]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
    },
    /// Run a job again, as a new one
    #[command(after_help = help::JOBS_RETRY)]
    Retry {
        /// Id of the job, an unambiguous beginning of it, or `last` [default: last]
        #[arg(value_name = "ID", value_parser = not_empty)]
        id: Option<String>,
        /// Only on instances where it did not succeed
        #[arg(long)]
        failed: bool,
        /// Print the new job's id and return
        #[arg(short, long)]
        detach: bool,
        /// How output is shown.
        #[command(flatten)]
        output: OutputArgs,
    },
}
