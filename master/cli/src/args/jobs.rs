//! Flags of `jobs` and its subcommands.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::target::not_empty;
use crate::help;
use crate::output_mode::OutputArgs;

/// Arguments of `jobs`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct JobsArgs {
    /// How many to show, the newest first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
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
        /// Id of the job, or an unambiguous beginning of it
        #[arg(value_name = "ID", value_parser = not_empty)]
        id: String,
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
        /// Id of the job, or an unambiguous beginning of it
        #[arg(value_name = "ID", value_parser = not_empty)]
        id: String,
        /// How output is shown.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Stop what is running, and start nothing more
    #[command(after_help = help::JOBS_CANCEL)]
    Cancel {
        /// Id of the job, or an unambiguous beginning of it
        #[arg(value_name = "ID", value_parser = not_empty)]
        id: String,
        /// Time between TERM and KILL [default: 10s]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
    },
    /// Run a job again, as a new one
    #[command(after_help = help::JOBS_RETRY)]
    Retry {
        /// Id of the job, or an unambiguous beginning of it
        #[arg(value_name = "ID", value_parser = not_empty)]
        id: String,
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
