//! The command line as data: every command, flag and variable. Parsed by `main` through [`super::parse`]; decides nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::shape::OutputArgs;
use super::{exec_args, help};

/// One cluster.yml in, one bootstrapped cluster out.
#[derive(Debug, Parser)]
#[command(name = "aot-master", version, about, max_term_width = 110)]
#[command(
    subcommand_required = true,
    arg_required_else_help = false,
    disable_help_subcommand = true
)]
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
    /// Print results as JSON, one document a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Cluster that is meant [default: the only one]
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "AOT_CLUSTER",
        hide_env_values = true
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
    /// Show every call to the provider's API; serve: log more, twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the master in the foreground
    #[command(after_help = help::SERVE)]
    Serve(ServeArgs),
    /// Say what is wrong with a cluster.yml, without touching the network
    #[command(after_help = help::CHECK)]
    Check {
        /// The cluster's file
        file: PathBuf,
    },
    /// Show what launch would create, change and destroy
    #[command(after_help = help::PLAN)]
    Plan {
        /// The cluster's file
        file: PathBuf,
        /// Plan to terminate what the file no longer names
        #[arg(long)]
        prune: bool,
    },
    /// Print the JSON Schema of cluster.yml
    #[command(after_help = help::SCHEMA)]
    Schema,
    /// Make the cluster what the file says: create, resume, run what changed
    #[command(after_help = help::LAUNCH)]
    Launch(LaunchArgs),
    /// Show every cluster and its instances
    #[command(after_help = help::STATUS)]
    Status,
    /// List instances
    #[command(after_help = help::LIST)]
    List(ListArgs),
    /// Print DNS names, one a line
    #[command(after_help = help::DNS)]
    Dns(MaybeTarget),
    /// Print addresses, one a line
    #[command(after_help = help::IP)]
    Ip(MaybeTarget),
    /// Print the facts of instances
    #[command(after_help = help::FACTS)]
    Facts(Target),
    /// Wait until all instances of the target reach a state
    #[command(after_help = help::WAIT)]
    Wait(WaitArgs),
    /// Ask the provider for states and addresses now
    #[command(after_help = help::UPDATE)]
    Update(MaybeTarget),
    /// Run a command on many instances, or ask their agents
    #[command(after_help = help::EXEC)]
    Exec(exec_args::ExecArgs),
    /// Run the stages that changed, failed or never ran
    #[command(after_help = help::APPLY)]
    Apply(ApplyArgs),
    /// Show what stages printed
    #[command(after_help = help::LOGS)]
    Logs(LogsArgs),
    /// List what was run: execs, launches, applies
    #[command(after_help = help::JOBS)]
    Jobs(JobsArgs),
    /// Copy files to or from instances
    #[command(after_help = help::CP)]
    Cp(CpArgs),
    /// Open a terminal on an instance
    #[command(after_help = help::SHELL)]
    Shell(ShellArgs),
    /// Print an inventory for Ansible
    #[command(after_help = help::INVENTORY)]
    Inventory(InventoryArgs),
    /// Print Host blocks for ssh, with a known hosts file
    #[command(after_help = help::SSH_CONFIG)]
    SshConfig(SshConfigArgs),
    /// List the agents' identities, or take them away
    #[command(after_help = help::AGENTS)]
    Agents(AgentsArgs),
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
        target: Target,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Terminate a whole cluster and delete all that aot made for it
    #[command(after_help = help::CLEANUP)]
    Cleanup {
        /// The cluster [default: that of --cluster, or the only one]
        #[arg(value_name = "CLUSTER")]
        name: Option<String>,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Compare the account with what the master knows
    #[command(after_help = help::ORPHANS)]
    Orphans(OrphansArgs),
    /// Stop a master that was started in the background; instances stay
    #[command(after_help = help::SHUTDOWN)]
    Shutdown,
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

/// How a master listens; of `serve`, and of `launch` for a master that it starts.
#[derive(Debug, Clone, Default, Args)]
pub struct ListenArgs {
    /// Agents' port: HOST:PORT, port 0 takes any free one [default: 127.0.0.1:7440 in the background]
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "AOT_LISTEN",
        hide_env_values = true
    )]
    pub listen: Option<String>,
    /// What agents dial, comma-separated HOST:PORT [default: the listen address]
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        env = "AOT_ADVERTISE",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub advertise: Vec<String>,
    /// Folder of the agents that are handed out, one an architecture [default: beside this program]
    #[arg(
        long,
        value_name = "DIR",
        env = "AOT_AGENT_DIR",
        hide_env_values = true
    )]
    pub agent_dir: Option<PathBuf>,
    /// Drop jobs that ended longer ago [default: 30d]
    #[arg(
        long,
        value_name = "TIME",
        env = "AOT_KEEP_JOBS",
        hide_env_values = true
    )]
    pub keep_jobs: Option<String>,
    /// Drop the oldest jobs' output when all of it takes more [default: 10GiB]
    #[arg(
        long,
        value_name = "SIZE",
        env = "AOT_KEEP_OUTPUT",
        hide_env_values = true
    )]
    pub keep_output: Option<String>,
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

/// Arguments of `launch`.
#[derive(Debug, Clone, Args)]
pub struct LaunchArgs {
    /// The cluster's file
    pub file: PathBuf,
    /// Return at once; the launch goes on in the master
    #[arg(short, long)]
    pub detach: bool,
    /// Don't ask before instances are replaced or terminated
    #[arg(short, long)]
    pub yes: bool,
    /// Longest time until every instance has enrolled, instead of the file's (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Terminate what the file no longer names
    #[arg(long)]
    pub prune: bool,
    /// For a master that this command starts.
    #[command(
        flatten,
        next_help_heading = "Options for a master that is started by this command"
    )]
    pub listen: ListenArgs,
}

/// What narrows a target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Narrow {
    /// Leave these out
    #[arg(long, value_name = "TARGET")]
    pub exclude: Option<String>,
    /// Only the first N of them, as list shows them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// A target that must be given.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Which instances: '*', 'web*', web1,web2, 'pool:web and not name:web3', state:failed
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Less than that.
    #[command(flatten)]
    pub narrow: Narrow,
}

/// A target that may be left out.
#[derive(Debug, Clone, Default, Args)]
pub struct MaybeTarget {
    /// Which instances [default: all]
    #[arg(value_name = "TARGET")]
    pub target: Option<String>,
    /// Less than that.
    #[command(flatten)]
    pub narrow: Narrow,
}

impl Narrow {
    /// The exclusion, as a request has it.
    pub fn exclude(&self) -> String {
        self.exclude.clone().unwrap_or_default()
    }

    /// The limit, as a request has it.
    pub fn limit(&self) -> u32 {
        self.limit.unwrap_or_default()
    }
}

impl From<Target> for MaybeTarget {
    fn from(Target { target, narrow }: Target) -> Self {
        Self {
            target: Some(target),
            narrow,
        }
    }
}

impl MaybeTarget {
    /// Whether nothing was said: all instances.
    pub fn is_all(&self) -> bool {
        self.target.is_none() && self.narrow == Narrow::default()
    }
}

impl std::fmt::Display for MaybeTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.target.as_deref().unwrap_or("*"))?;
        if let Some(exclude) = &self.narrow.exclude {
            write!(f, " --exclude {exclude:?}")?;
        }
        if let Some(limit) = self.narrow.limit {
            write!(f, " --limit {limit}")?;
        }
        Ok(())
    }
}

/// Arguments of `list`.
#[derive(Debug, Clone, Default, Args)]
pub struct ListArgs {
    /// Which instances.
    #[command(flatten)]
    pub which: MaybeTarget,
    /// Show the cloud properties
    #[arg(short = 'o', long)]
    pub properties: bool,
    /// Show addresses and DNS names
    #[arg(short = 'p', long)]
    pub addresses: bool,
    /// Ask the provider for the live state first
    #[arg(short = 'q', long)]
    pub query: bool,
    /// Show the stages
    #[arg(short = 's', long)]
    pub stages: bool,
}

/// Words of EC2 and of aot that an instance can be in.
pub const STATES: [&str; 15] = [
    "planned",
    "requested",
    "booting",
    "enrolled",
    "configured",
    "bootstrapping",
    "ready",
    "failed",
    "gone",
    "pending",
    "running",
    "stopping",
    "stopped",
    "shutting-down",
    "terminated",
];

/// Arguments of `wait`.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Which instances.
    #[command(flatten)]
    pub target: Target,
    /// A phase of aot or a state of EC2
    #[arg(long, value_name = "STATE", value_parser = STATES)]
    pub state: String,
    /// Give up after this long (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30m")]
    pub timeout: Duration,
}

/// Arguments of `start`, and of `stop` and `reboot` besides the question.
#[derive(Debug, Clone, Args)]
pub struct LifecycleArgs {
    /// Which instances.
    #[command(flatten)]
    pub target: Target,
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
    /// Look in this region too; with --delete, only there (local: this host)
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Terminate and delete all that carries the tag of this cluster, which the master must not have
    #[arg(long, value_name = "UUID")]
    pub delete: Option<String>,
    /// Don't ask before --delete
    #[arg(short, long, requires = "delete")]
    pub yes: bool,
}

/// Arguments of `apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Which instances.
    #[command(flatten)]
    pub which: MaybeTarget,
    /// Run stage N and all after it, even when nothing changed; what is not done before it runs first
    #[arg(long, value_name = "N")]
    pub from: Option<u32>,
    /// Run every stage, even when nothing changed
    #[arg(long)]
    pub force: bool,
    /// Only instances whose stages failed, and those that wait for them
    #[arg(long)]
    pub failed: bool,
}

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
        /// As `jobs` lists it; a beginning that fits only one is enough
        #[arg(value_name = "ID")]
        id: String,
        /// Without what was printed
        #[arg(long)]
        no_output: bool,
        /// How output is shown.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Follow a job from its start to its end
    #[command(after_help = help::JOBS_FOLLOW)]
    Follow {
        /// As `jobs` lists it
        #[arg(value_name = "ID")]
        id: String,
        /// How output is shown.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// End what runs, and start nothing more
    #[command(after_help = help::JOBS_CANCEL)]
    Cancel {
        /// As `jobs` lists it
        #[arg(value_name = "ID")]
        id: String,
        /// Time between TERM and KILL [default: 10s]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        grace: Option<Duration>,
    },
    /// Run a job again, as a new one
    #[command(after_help = help::JOBS_RETRY)]
    Retry {
        /// As `jobs` lists it
        #[arg(value_name = "ID")]
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

/// Arguments of `agents`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AgentsArgs {
    /// More than a list.
    #[command(subcommand)]
    pub command: Option<AgentsCommand>,
}

/// What can be done with identities.
#[derive(Debug, Clone, Subcommand)]
pub enum AgentsCommand {
    /// Take identities away: sessions end, and these machines never come back
    Revoke {
        /// Which instances.
        #[command(flatten)]
        target: Target,
        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Arguments of `cp`.
#[derive(Debug, Clone, Args)]
pub struct CpArgs {
    /// What to copy, then where to: paths here, or TARGET:/path on one of the two sides
    #[arg(value_name = "SRC... DST", required = true, num_args = 2..)]
    pub paths: Vec<String>,
    /// Copy to or from so many at a time: a number or a percentage [default: all; 32 at a time from many]
    #[arg(long, value_name = "N|P%")]
    pub concurrency: Option<String>,
    /// Of the instances.
    #[command(flatten)]
    pub narrow: Narrow,
}

/// Arguments of `shell`.
#[derive(Debug, Clone, Args)]
pub struct ShellArgs {
    /// Which instance; exactly one
    #[arg(value_name = "NAME")]
    pub name: String,
    /// User to log in as [default: root]
    #[arg(short, long, value_name = "NAME")]
    pub user: Option<String>,
    /// What to run instead of the login shell
    #[arg(value_name = "COMMAND ARGS", last = true)]
    pub command: Vec<String>,
}

/// Arguments of `inventory`.
#[derive(Debug, Clone, Args)]
pub struct InventoryArgs {
    /// In the form of Ansible's dynamic inventories (the only one there is)
    #[arg(long)]
    pub ansible: bool,
    /// All of it, as Ansible asks (also without)
    #[arg(long)]
    pub list: bool,
    /// The variables of one host, as Ansible asks
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    pub host: Option<String>,
}

/// Arguments of `ssh-config`.
#[derive(Debug, Clone, Args)]
pub struct SshConfigArgs {
    /// Which instances.
    #[command(flatten)]
    pub which: MaybeTarget,
    /// Known hosts file to write and to name in the blocks [default: in the state dir]
    #[arg(long, value_name = "FILE")]
    pub known_hosts: Option<PathBuf>,
}

/// Arguments of `logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Which instances.
    #[command(flatten)]
    pub target: Target,
    /// Only this stage, counted from 0 [default: all]
    #[arg(long, value_name = "N")]
    pub stage: Option<u32>,
    /// Go on as more is printed
    #[arg(short, long)]
    pub follow: bool,
}
