//! The command line as data: every command, and the flags that all of them take; each family's own flags are in a file
//! below. Parsed by both programs through [`super::parse`]; decides nothing.

mod changes;
pub(crate) mod exec;
mod fleet;
mod identities;
mod jobs;
mod listen;
mod queries;
mod remote;
mod target;
mod update;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::help;
use super::view::ColorChoice;
use target::not_empty;

pub use changes::{
    ApplyArgs, AskedLifecycleArgs, CheckArgs, LaunchArgs, LifecycleArgs, OrphansArgs, PlanArgs,
    VariableArgs,
};
pub use exec::{ExecAction, ExecArgs};
pub use fleet::{FleetCommand, MastersCommand};
pub use identities::{AgentsArgs, AgentsCommand, AttestationCommand};
pub use jobs::{JobsArgs, JobsCommand};
pub use listen::{ListenArgs, ServeArgs};
pub use queries::{
    EventsArgs, InventoryArgs, ListArgs, LogsArgs, SinceWhen, SshConfigArgs, StatusArgs, WaitArgs,
};
pub use remote::{ConnectArgs, CpArgs, ForwardArgs, ShellArgs};
pub use target::{MaybeTarget, Narrow, StageArg, TargetArg};
pub use update::UpdateArgs;

/// One cluster.yml in, one bootstrapped cluster out.
#[derive(Debug, Parser)]
#[command(name = "aot-master", version, max_term_width = help::WIDTH)]
#[command(about = "Turns one file into a bootstrapped EC2 cluster, and controls it afterwards")]
#[command(subcommand_required = true, arg_required_else_help = false)]
#[command(after_help = help::TOP)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command, before or after the command word.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Print results as JSON, one document per line
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress: only results, warnings and errors
    #[arg(long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Colours: auto (honours NO_COLOR), always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        hide_possible_values = true
    )]
    pub color: Option<ColorChoice>,
    /// Cluster to act on [default: the only one]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "AOT_CLUSTER",
        hide_env_values = true,
        value_parser = not_empty
    )]
    pub cluster: Option<String>,
    /// Where the master keeps its state
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "AOT_STATE_DIR",
        hide_env_values = true
    )]
    pub state_dir: Option<PathBuf>,
    /// Unix socket on which the master answers
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "AOT_SOCKET",
        hide_env_values = true
    )]
    pub socket: Option<PathBuf>,
    /// Settings file [default: /etc/aot/master.toml, then $XDG_CONFIG_HOME/aot/master.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show calls to the provider's API; serve: log more (-vv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// A shell that completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CompletionShell {
    /// GNU bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

impl CompletionShell {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }
}

/// Every command.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the master in the foreground
    #[command(after_help = help::SERVE)]
    Serve(ServeArgs),
    /// Write a first cluster.yml, with a bundle, that launches at once
    #[command(after_help = help::INIT)]
    Init {
        /// Folder to write to, created if it does not exist [default: this one]
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Check a cluster.yml for errors, without using the network
    #[command(after_help = help::CHECK)]
    Check(CheckArgs),
    /// Show what launch would create, change and destroy
    #[command(after_help = help::PLAN)]
    Plan(PlanArgs),
    /// Print the JSON Schema of cluster.yml
    #[command(after_help = help::SCHEMA)]
    Schema,
    /// Bring the cluster to what the file says
    #[command(alias = "up", after_help = help::LAUNCH)]
    Launch(LaunchArgs),
    /// Show every cluster and its instances
    #[command(after_help = help::STATUS)]
    Status(StatusArgs),
    /// List instances
    #[command(alias = "ls", after_help = help::LIST)]
    List(ListArgs),
    /// Print DNS names, one per line
    #[command(after_help = help::DNS)]
    Dns(MaybeTarget),
    /// Print addresses, one per line
    #[command(after_help = help::IP)]
    Ip(MaybeTarget),
    /// Print the facts of instances
    #[command(after_help = help::FACTS)]
    Facts(TargetArg),
    /// Wait until all selected instances reach a state
    #[command(after_help = help::WAIT)]
    Wait(WaitArgs),
    /// Refresh states and addresses from the provider
    #[command(after_help = help::UPDATE)]
    Update(MaybeTarget),
    /// Run a command on many instances, or query their agents
    #[command(alias = "run", after_help = help::EXEC)]
    Exec(exec::ExecArgs),
    /// Run the stages that changed, failed or never ran
    #[command(after_help = help::APPLY)]
    Apply(ApplyArgs),
    /// Show what stages printed
    #[command(after_help = help::LOGS)]
    Logs(LogsArgs),
    /// List and control jobs: execs, launches, applies
    #[command(after_help = help::JOBS)]
    Jobs(JobsArgs),
    /// Show what happened in a cluster, and follow what happens
    #[command(after_help = help::EVENTS)]
    Events(EventsArgs),
    /// Copy files to or from instances
    #[command(alias = "scp", after_help = help::CP, override_usage = "aot-master cp [OPTIONS] SRC... DST")]
    Cp(CpArgs),
    /// Open a terminal on an instance
    #[command(alias = "ssh", after_help = help::SHELL)]
    Shell(ShellArgs),
    /// Lead connections to an instance, or to what it reaches
    #[command(after_help = help::FORWARD)]
    Forward(ForwardArgs),
    /// Connect standard input and output to a port of an instance
    #[command(after_help = help::CONNECT)]
    Connect(ConnectArgs),
    /// Print an inventory for Ansible
    #[command(after_help = help::INVENTORY)]
    Inventory(InventoryArgs),
    /// Print Host blocks for ssh, with a known hosts file
    #[command(after_help = help::SSH_CONFIG)]
    SshConfig(SshConfigArgs),
    /// List the agents' identities, or revoke them
    #[command(after_help = help::AGENTS)]
    Agents(AgentsArgs),
    /// Import the AWS certificates that prove machines' identities
    #[command(subcommand, after_help = help::ATTESTATION)]
    Attestation(AttestationCommand),
    /// Set up masters that share a database, and raise their level
    #[command(subcommand, after_help = help::FLEET)]
    Fleet(FleetCommand),
    /// Start stopped instances
    #[command(after_help = help::START)]
    Start(LifecycleArgs),
    /// Stop instances; their disks stay
    #[command(after_help = help::STOP)]
    Stop(AskedLifecycleArgs),
    /// Reboot instances
    #[command(after_help = help::REBOOT)]
    Reboot(AskedLifecycleArgs),
    /// Terminate instances for good
    #[command(after_help = help::TERMINATE)]
    Terminate {
        /// Which instances
        #[command(flatten)]
        target: TargetArg,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Terminate a cluster and delete everything aot created for it
    #[command(alias = "down", after_help = help::CLEANUP)]
    Cleanup {
        /// The cluster [default: that of --cluster, or the only one]
        #[arg(value_name = "CLUSTER", value_parser = not_empty)]
        name: Option<String>,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Find resources that belong to no known cluster
    #[command(after_help = help::ORPHANS)]
    Orphans(OrphansArgs),
    /// List the masters that share this master's records
    #[command(after_help = help::MASTERS)]
    Masters {
        /// What to do with them; without it they are shown
        #[command(subcommand)]
        command: Option<MastersCommand>,
    },
    /// Stop a master that runs in the background; instances stay
    #[command(after_help = help::SHUTDOWN)]
    Shutdown,
    /// Restart a background master with this shell's settings
    #[command(after_help = help::RESTART)]
    Restart(ListenArgs),
    /// Show each setting, its value, and where it comes from
    #[command(after_help = help::CONFIG)]
    Config,
    /// Find what is wrong with the master, its agents and this host
    #[command(after_help = help::DOCTOR)]
    Doctor,
    /// Pack what a report about a fault needs, without secrets
    #[command(after_help = help::BUNDLE_LOGS)]
    BundleLogs {
        /// File to write [default: aot-report-TIME.tar.gz here]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Show the version of this program and of the master
    #[command(after_help = help::VERSION)]
    Version,
    /// Print a script that completes commands and names in a shell
    #[command(after_help = help::COMPLETION)]
    Completion {
        /// The shell: bash, zsh or fish
        #[arg(value_name = "SHELL", value_enum, hide_possible_values = true)]
        shell: CompletionShell,
    },
    /// Write manual pages to a folder, for packages
    #[command(hide = true)]
    Man {
        /// The folder
        dir: PathBuf,
    },
    /// Inside a local clone: run its machine
    #[command(hide = true)]
    MachineRun {
        /// The machine's folder
        dir: PathBuf,
    },
    /// Inside a local clone: its first process
    #[command(hide = true)]
    MachineInit {
        /// The machine's folder
        dir: PathBuf,
    },
}

impl Command {
    /// Whether it is asked for once more when the master dies after its first answer, and has to know the master for that.
    pub fn follows(&self) -> bool {
        matches!(
            self,
            Self::Launch(_) | Self::Wait(_) | Self::Logs(_) | Self::Events(_)
        )
    }

    /// Whether asking twice comes to the same as asking once: it changes nothing, or a second request joins the first, as a
    /// launch of the same file does.
    pub fn may_be_repeated(&self) -> bool {
        match self {
            Self::Plan(_)
            | Self::Launch(_)
            | Self::Status(_)
            | Self::List(_)
            | Self::Dns(_)
            | Self::Ip(_)
            | Self::Update(_)
            | Self::Facts(_)
            | Self::Wait(_)
            | Self::Logs(_)
            | Self::Events(_)
            | Self::Inventory(_)
            | Self::SshConfig(_)
            | Self::Version
            | Self::Doctor => true,
            Self::Exec(exec) => matches!(exec.what(), Ok(exec::ExecAction::Builtin(..))),
            Self::Jobs(jobs) => matches!(jobs.command, None | Some(JobsCommand::Show { .. })),
            Self::Agents(agents) => agents.command.is_none(),
            Self::Masters { command } => command.is_none(),
            Self::Orphans(orphans) => orphans.delete.is_none(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
