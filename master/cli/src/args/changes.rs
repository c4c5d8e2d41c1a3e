//! Flags of the commands that change a cluster or its machines: launch, apply, start, stop, reboot, orphans.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::listen::ListenArgs;
use super::target::{MaybeTarget, TargetArg, not_empty};

/// Arguments of `launch`.
#[derive(Debug, Clone, Args)]
pub struct LaunchArgs {
    /// The cluster's file
    pub file: PathBuf,
    /// Return at once; the launch continues in the master
    #[arg(short, long)]
    pub detach: bool,
    /// Don't ask before instances are replaced or terminated
    #[arg(short, long)]
    pub yes: bool,
    /// Time until every instance must have enrolled, instead of the file's (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Terminate what the file no longer names
    #[arg(long)]
    pub prune: bool,
    /// Start a master in the background even if a stopped service owns this state
    #[arg(long)]
    pub background: bool,
    /// For a master that this command starts.
    #[command(
        flatten,
        next_help_heading = "Options for a master that this command starts"
    )]
    pub listen: ListenArgs,
}

/// Arguments of `apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Which instances.
    #[command(flatten)]
    pub which: MaybeTarget,
    /// Run stage N and all after it, even if nothing changed; earlier stages that are not done run first
    #[arg(long, value_name = "N")]
    pub from: Option<u32>,
    /// Run every stage, even if nothing changed
    #[arg(long)]
    pub force: bool,
    /// Only instances on which a stage failed, and those that wait for them
    #[arg(long)]
    pub failed: bool,
}

/// Arguments of `start`, and of `stop` and `reboot` besides the question.
#[derive(Debug, Clone, Args)]
pub struct LifecycleArgs {
    /// Which instances.
    #[command(flatten)]
    pub target: TargetArg,
    /// Give up waiting after this long (90s, 30m, 2h) [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
}

/// Arguments of `stop` and `reboot`.
#[derive(Debug, Clone, Args)]
pub struct AskedLifecycleArgs {
    /// As of `start`.
    #[command(flatten)]
    pub lifecycle: LifecycleArgs,
    /// Don't ask
    #[arg(short, long)]
    pub yes: bool,
}

/// Arguments of `orphans`.
#[derive(Debug, Clone, Args)]
pub struct OrphansArgs {
    /// Search this region too; with --delete, only it (local: this host)
    #[arg(long, value_name = "REGION", value_parser = not_empty)]
    pub region: Option<String>,
    /// Delete everything with the tag of this cluster, which must be unknown to the master
    #[arg(long, value_name = "UUID", value_parser = not_empty)]
    pub delete: Option<String>,
    /// Don't ask before --delete
    #[arg(short, long, requires = "delete")]
    pub yes: bool,
}
