//! Flags of the commands that only ask: list, wait, logs, inventory, ssh-config.

use std::path::PathBuf;
use std::time::Duration;

use aot_proto::v1::wait_request::Goal;
use aot_proto::v1::{MachineState, Phase};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::target::{MaybeTarget, TargetArg, not_empty};

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

/// Arguments of `logs`.
#[derive(Debug, Clone, Args)]
pub struct LogsArgs {
    /// Which instances.
    #[command(flatten)]
    pub target: TargetArg,
    /// Only this stage, counted from 0 [default: all]
    #[arg(long, value_name = "N")]
    pub stage: Option<u32>,
    /// Keep showing output as it is printed
    #[arg(short, long)]
    pub follow: bool,
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
    /// Known hosts file to write, named in the blocks [default: in the state dir]
    #[arg(long, value_name = "FILE")]
    pub known_hosts: Option<PathBuf>,
}
