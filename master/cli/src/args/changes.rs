//! Flags of the commands that change a cluster or its machines: launch, apply, start, stop, reboot, orphans.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::listen::ListenArgs;
use super::target::{MaybeTarget, StageArg, TargetArg, not_empty, stage};
use super::update::UpdateArgs;

/// What is given beside a cluster's file.
#[derive(Debug, Clone, Default, Args)]
pub struct VariableArgs {
    /// Set a variable of the file: size=3, net.subnet=a (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = not_empty)]
    pub set: Vec<String>,
    /// Take variables from this file, YAML or JSON (repeatable; later ones win,
    /// and --set wins over all)
    #[arg(long, value_name = "FILE")]
    pub vars: Vec<PathBuf>,
}

/// Arguments of `check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The cluster's file
    #[arg(default_value = crate::CLUSTER_FILE)]
    pub file: PathBuf,
    /// Print the file with every variable in its place
    #[arg(long)]
    pub expanded: bool,
    /// Values of the file's variables.
    #[command(flatten)]
    pub variables: VariableArgs,
}

/// Arguments of `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// The cluster's file, or instances that are there: what apply would do to them
    #[arg(value_name = "FILE|TARGET", default_value = crate::CLUSTER_FILE, value_parser = not_empty)]
    pub file: String,
    /// Plan to terminate what the file no longer names
    #[arg(long)]
    pub prune: bool,
    /// Values of the file's variables.
    #[command(flatten)]
    pub variables: VariableArgs,
    /// With TARGET and --set or --vars: the cluster's file [default: cluster.yml]
    #[arg(long = "file", value_name = "FILE")]
    pub of: Option<PathBuf>,
}

impl PlanArgs {
    /// Whether instances are meant: no file is there of this name, and it does not look like one.
    pub(crate) fn is_target(&self) -> bool {
        let path = Path::new(&self.file);
        let ending = path.extension().and_then(|ending| ending.to_str());
        let looks = self.file.contains('/') || matches!(ending, Some("yml" | "yaml" | "json"));
        !looks && !path.is_file()
    }
}

impl VariableArgs {
    /// Whether anything is given.
    pub(crate) fn is_said(&self) -> bool {
        !self.set.is_empty() || !self.vars.is_empty()
    }
}

/// Arguments of `launch`.
#[derive(Debug, Clone, Args)]
pub struct LaunchArgs {
    /// The cluster's file
    #[arg(default_value = crate::CLUSTER_FILE)]
    pub file: PathBuf,
    /// Return at once; the launch continues in the master
    #[arg(short, long)]
    pub detach: bool,
    /// Don't ask before instances are replaced, terminated, or changed all at once
    #[arg(short, long)]
    pub yes: bool,
    /// Time until every instance must have enrolled, instead of the file's (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Terminate what the file no longer names
    #[arg(long)]
    pub prune: bool,
    /// How instances that are ready are changed.
    #[command(flatten)]
    pub update: UpdateArgs,
    /// Values of the file's variables.
    #[command(flatten)]
    pub variables: VariableArgs,
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
    /// Run this stage (its name, or its number from 0) and all after it, even if nothing changed; earlier stages that are
    /// not done run first
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    pub from: Option<StageArg>,
    /// Run every stage, even if nothing changed
    #[arg(long)]
    pub force: bool,
    /// Only instances on which a stage failed, and those that wait for them
    #[arg(long)]
    pub failed: bool,
    /// How instances that are ready are changed.
    #[command(flatten)]
    pub update: UpdateArgs,
    /// Values of the file's variables: the cluster takes them over.
    #[command(flatten)]
    pub variables: VariableArgs,
    /// With --set or --vars: the cluster's file [default: cluster.yml]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Don't ask before instances are changed all at once
    #[arg(short, long)]
    pub yes: bool,
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
    /// Delete everything with the tag of this cluster, which no master may know
    #[arg(long, value_name = "UUID", value_parser = not_empty)]
    pub delete: Option<String>,
    /// Don't ask before --delete
    #[arg(short, long, requires = "delete")]
    pub yes: bool,
}
