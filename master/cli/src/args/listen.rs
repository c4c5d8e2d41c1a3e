//! How a master listens and what it keeps: flags of `serve`, and of `launch` and `restart` for a master that they start.

use std::path::PathBuf;

use clap::Args;

use super::target::not_empty;

/// How a master listens; of `serve`, and of `launch` for a master that it starts.
#[derive(Debug, Clone, Default, Args)]
pub struct ListenArgs {
    /// Address for agents; port 0 picks any free one [default: 127.0.0.1:7440 in the background]
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "AOT_LISTEN",
        hide_env_values = true,
        value_parser = not_empty
    )]
    pub listen: Option<String>,
    /// Addresses that agents dial, comma-separated [default: the listen address]
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        env = "AOT_ADVERTISE",
        hide_env_values = true,
        value_delimiter = ',',
        value_parser = not_empty
    )]
    pub advertise: Vec<String>,
    /// Folder of the agent programs to hand out, one per architecture [default: beside this program]
    #[arg(
        long,
        value_name = "DIR",
        env = "AOT_AGENT_DIR",
        hide_env_values = true
    )]
    pub agent_dir: Option<PathBuf>,
    /// Drop jobs this long after they ended [default: 30d]
    #[arg(
        long,
        value_name = "TIME",
        env = "AOT_KEEP_JOBS",
        hide_env_values = true,
        value_parser = not_empty
    )]
    pub keep_jobs: Option<String>,
    /// Drop the oldest jobs' output when all output takes more than this [default: 10GiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "AOT_KEEP_OUTPUT",
        hide_env_values = true,
        value_parser = not_empty
    )]
    pub keep_output: Option<String>,
    /// Refuse new output, uploads and launches while less than this is free on the state's disk [default: 256MiB, or a tenth
    /// of a small disk]
    #[arg(
        long,
        value_name = "SIZE",
        env = "AOT_KEEP_FREE",
        hide_env_values = true,
        value_parser = not_empty
    )]
    pub keep_free: Option<String>,
}

/// Arguments of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Where agents find it.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Started by another command: leave the terminal's session
    #[arg(long, hide = true)]
    pub background: bool,
}
