//! Flags of the commands that only ask: list, wait, logs, inventory, ssh-config.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use aot_proto::v1::wait_request::Goal;
use aot_proto::v1::{MachineState, Phase};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::target::{MaybeTarget, Narrow, StageArg, TargetArg, not_empty, stage};

/// Arguments of `status`.
#[derive(Debug, Clone, Default, Args)]
pub struct StatusArgs {
    /// Which instances.
    #[command(flatten)]
    pub which: MaybeTarget,
    /// Keep showing it as it changes, until Ctrl-C
    #[arg(short, long)]
    pub watch: bool,
}

/// Arguments of `list`.
#[derive(Debug, Clone, Default, Args)]
pub struct ListArgs {
    /// Which instances.
    #[command(flatten)]
    pub which: MaybeTarget,
    /// Show the provider's properties
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

/// The phases of aot and the states of EC2 that can be waited for, by name.
fn goals() -> impl TypedValueParser<Value = Goal> {
    let phases = Phase::ALL.iter().map(|phase| phase.as_str());
    let states = MachineState::ALL.iter().map(|state| state.as_str());
    PossibleValuesParser::new(phases.chain(states)).try_map(|name| {
        let phase = Phase::from_name(&name).map(|phase| Goal::Phase(phase.into()));
        let state = || MachineState::from_name(&name).map(|state| Goal::State(state.into()));
        phase.or_else(state).ok_or("neither a phase nor a state")
    })
}

/// Arguments of `wait`.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Which instances.
    #[command(flatten)]
    pub target: TargetArg,
    /// A phase of aot or a state of EC2
    #[arg(long, value_name = "STATE", value_parser = goals())]
    pub state: Goal,
    /// Give up after this long (90s, 30m, 2h)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30m")]
    pub timeout: Duration,
}

/// A moment in the past, as it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinceWhen {
    /// So long ago.
    Ago(Duration),
    /// Milliseconds since 1970.
    At(u64),
}

impl SinceWhen {
    /// Milliseconds since 1970.
    pub fn unix_ms(self, now_ms: u64) -> u64 {
        match self {
            Self::Ago(ago) => {
                now_ms.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX))
            }
            Self::At(at) => at,
        }
    }
}

/// `10m`, or a time of RFC 3339.
fn since_when(text: &str) -> Result<SinceWhen, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(SinceWhen::Ago(ago));
    }
    let at = humantime::parse_rfc3339_weak(text.trim_end_matches('Z'));
    let since = at.ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let ms = since.and_then(|since| u64::try_from(since.as_millis()).ok());
    ms.map(SinceWhen::At).ok_or_else(|| {
        "expected a time ago (90s, 30m, 2h), or a time in UTC (2026-12-01T07:30:00Z)".to_owned()
    })
}

/// Arguments of `events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Follow what happens from now on, until Ctrl-C or the cluster's end
    #[arg(short, long)]
    pub follow: bool,
    /// Only what happened since: 10m ago, or a time in UTC
    #[arg(long, value_name = "WHEN", value_parser = since_when)]
    pub since: Option<SinceWhen>,
}

/// Arguments of `logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Which instances, or a job: its whole id, or `last` [default: last]
    #[arg(value_name = "TARGET", value_parser = not_empty)]
    pub target: Option<String>,
    /// What narrows it.
    #[command(flatten)]
    pub narrow: Narrow,
    /// Only this stage, by its name, or its number from 0 [default: all]
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    pub stage: Option<StageArg>,
    /// Keep showing output as it is printed
    #[arg(short, long)]
    pub follow: bool,
}

impl LogsArgs {
    /// Which instances, where no job is meant.
    pub fn which(&self) -> MaybeTarget {
        MaybeTarget {
            target: self.target.clone(),
            narrow: self.narrow.clone(),
        }
    }
}

/// Arguments of `inventory`.
#[derive(Debug, Clone, Args)]
pub struct InventoryArgs {
    /// In the format of Ansible's dynamic inventories (the only format)
    #[arg(long)]
    pub ansible: bool,
    /// All hosts, as Ansible asks (the default)
    #[arg(long)]
    pub list: bool,
    /// The variables of one host, as Ansible asks
    #[arg(long, value_name = "NAME", conflicts_with = "list", value_parser = not_empty)]
    pub host: Option<String>,
}

/// Arguments of `ssh-config`.
#[derive(Debug, Clone, Args)]
pub struct SshConfigArgs {
    /// Which instances.
    #[command(flatten)]
    pub which: MaybeTarget,
    /// Lead ssh to the machines' addresses, not through their agents
    #[arg(long)]
    pub direct: bool,
    /// Known hosts file to write, named in the blocks [default: in the state dir]
    #[arg(long, value_name = "FILE")]
    pub known_hosts: Option<PathBuf>,
}
