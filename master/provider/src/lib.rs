//! Who makes machines: the trait, its shapes, and the two providers behind it. Called by `run` only.
//!
//! A provider is idempotent by client token and never retries by itself past what its SDK does; an error always says
//! whether a machine may exist. Nothing here decides when to call.

#![warn(unreachable_pub)]

pub mod calls;
#[cfg(feature = "contract")]
pub mod contract;
pub mod tags;
pub mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use aot_model::attestation::Secret;
pub use aot_model::machine::{
    ClientToken, ClusterRef, ElasticIp, ErrorKind, Leftovers, Listing, Machine, MachineState,
};
pub use aot_model::prerequisites::{Prerequisites, ResolvedSubnet, ResolvedType};
pub use aot_model::problem::Problem;
use aot_model::secret::SecretSource;
use aot_model::spec::{ClusterSpec, MachineSpec, MemberSpec, ProviderKind};
use aot_proto::ids::{InstanceName, MachineId, PoolName};
use aot_proto::route::Route;
pub use aot_proto::v1::{ThingAction, ThingKind};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

/// One batch: all missing members of one pool, in one call.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    /// The cluster.
    pub cluster: ClusterRef,
    /// The pool, `None` for a single instance.
    pub pool: Option<PoolName>,
    /// The members to make; the machine with launch index N becomes member N.
    pub members: Vec<MemberSpec>,
    /// `Owner` tag.
    pub owner: Option<String>,
    /// Main login user.
    pub user: Option<String>,
    /// What kind of machine.
    pub machine: MachineSpec,
    /// Instance type to use, one of `machine.types`.
    pub instance_type: Option<String>,
    /// Subnet to use, one of `machine.subnets`.
    pub subnet: Option<String>,
    /// Availability zone, where no subnet is named and the placement group has machines already.
    pub zone: Option<String>,
    /// Not from the spot market, whatever `machine.spot` says: there was no capacity there.
    pub on_demand: bool,
    /// 1 for the first try of these members, higher when they are replaced.
    pub attempt: u32,
    /// They will be challenged: a tag of theirs must show in their metadata service.
    pub challenged: bool,
    /// What the names in `machine` stand for.
    pub prerequisites: Prerequisites,
    /// What a machine needs to come up and dial the master.
    pub boot: BootSpec,
}

/// What a machine needs to come up and dial the master. Rendered to user-data on EC2, to files for a local clone.
#[derive(Clone)]
pub struct BootSpec {
    /// `host:port` of the master's TLS port, tried in turn.
    pub master: Vec<String>,
    /// Names the cluster to the masters, which lead the machine's connections to the one that has it.
    pub route: Route,
    /// The master's CA, PEM.
    pub ca_pem: String,
    /// Join token of the batch, hex.
    pub join_token: String,
    /// Lower-case hex SHA-256 of the agent, by architecture (`x86_64`, `aarch64`).
    pub agent_sha256: BTreeMap<String, String>,
    /// Where the agent for this machine's own architecture lies, for `local`.
    pub agent_path: PathBuf,
    /// The user's cloud_config as it was when the launch was asked for.
    pub user_part: Option<String>,
}

/// Shows nothing secret.
impl fmt::Debug for BootSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootSpec")
            .field("master", &self.master)
            .field("agent_sha256", &self.agent_sha256)
            .finish_non_exhaustive()
    }
}

/// What went wrong with a call, and whether a machine may exist all the same.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ProviderError {
    /// Decides what happens next.
    pub kind: ErrorKind,
    /// What may be left behind.
    pub leftovers: Leftovers,
    /// For a person: what, on which thing, why. No secret.
    pub message: String,
    /// Provider's own code, `InsufficientInstanceCapacity`.
    pub code: Option<String>,
}

/// What one lifecycle call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// Start stopped machines.
    Start,
    /// Stop, keeping disks.
    Stop,
    /// Reboot.
    Reboot,
    /// Terminate for good.
    Terminate,
}

/// What became of a change that machines were asked for; those that are not named are on their way.
#[derive(Debug, Clone, Default)]
pub struct Changed {
    /// The provider does not know them: they are gone, or too new to be seen.
    pub unknown: Vec<MachineId>,
    /// They were to be terminated, and are so already.
    pub terminated: Vec<MachineId>,
    /// They can't be changed so, and why.
    pub refused: Vec<(MachineId, ProviderError)>,
}

impl Changed {
    /// Whether all of them change.
    ///
    /// # Errors
    /// With each machine that does not, and why.
    pub fn of_all(self) -> Result<(), ProviderError> {
        let ids = |ids: &[MachineId]| {
            let ids: Vec<&str> = ids.iter().map(MachineId::as_str).collect();
            ids.join(", ")
        };
        let mut reasons: Vec<(String, Vec<MachineId>)> = Vec::new();
        for (id, error) in &self.refused {
            match reasons.iter_mut().find(|(why, _)| *why == error.message) {
                Some((_, same)) => same.push(id.clone()),
                None => reasons.push((error.message.clone(), vec![id.clone()])),
            }
        }
        let mut lines: Vec<String> = reasons
            .iter()
            .map(|(why, machines)| format!("{}: {why}", ids(machines)))
            .collect();
        if !self.unknown.is_empty() {
            lines.push(format!("the provider knows no {}", ids(&self.unknown)));
        }
        let message = lines.join("; ");
        match self.refused.into_iter().next() {
            _ if lines.is_empty() => Ok(()),
            Some((_, first)) => Err(ProviderError { message, ..first }),
            None => Err(ProviderError {
                kind: ErrorKind::Invalid,
                leftovers: Leftovers::None,
                message,
                code: None,
            }),
        }
    }
}

/// Makes, shows and ends machines.
pub trait Provider: Send + Sync {
    /// Which one this is.
    fn kind(&self) -> ProviderKind;

    /// What stands in the way of launching this file, all of it; empty = nothing that can be known beforehand. Makes
    /// nothing and pays for nothing.
    fn preflight<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Vec<Problem>>;

    /// What `prepare` and `addresses` would make or change besides machines. Makes nothing.
    fn outline<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Vec<Thing>, ProviderError>>;

    /// Makes what machines need to stand on (security groups with their rules, placement groups), and finds what the
    /// file's names stand for. What `ask.known` has already stays as it is. Safe to repeat.
    fn prepare<'a>(
        &'a self,
        ask: &'a Ask<'a>,
    ) -> BoxFuture<'a, Result<Prerequisites, ProviderError>>;

    /// Makes the batch's machines, or finds those that the same token made before. All members or an error.
    fn launch<'a>(
        &'a self,
        spec: &'a LaunchSpec,
        token: &'a ClientToken,
    ) -> BoxFuture<'a, Result<Vec<Machine>, ProviderError>>;

    /// Every machine with the cluster's tag, terminated ones too, all pages. Absence alone proves nothing.
    fn describe<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Listing, ProviderError>>;

    /// Those of these machines that are there, whatever their tags, terminated ones too. That others are not is no
    /// error.
    fn find<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Listing, ProviderError>>;

    /// Asks for a change of state; returns once the provider has answered for each machine. Safe to repeat. An error is
    /// about all of them: nothing is known of any.
    fn lifecycle<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        action: Lifecycle,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<Changed, ProviderError>>;

    /// Gives machines their member's name (a Name tag on EC2). Safe to repeat.
    fn set_name_tags<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        names: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Result<(), ProviderError>>;

    /// Gives each of these running machines a lasting public address of its own, tagged with its instance's name: the
    /// one it has, one of this cluster's that is free, or a new one. Safe to repeat. Each machine has its own result.
    fn assign_addresses<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [(MachineId, InstanceName)],
    ) -> BoxFuture<'a, Vec<(MachineId, Result<ElasticIp, ProviderError>)>>;

    /// Sets a challenge on each of these machines: a value that can be read on that machine, and by nobody else that has no
    /// rights in the account (a tag on EC2, read through the metadata service). It replaces an older one. Safe to repeat.
    /// Each machine has its own result. Only asked where machines can be challenged.
    fn challenge<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        values: &'a [(MachineId, Secret)],
    ) -> BoxFuture<'a, Vec<(MachineId, Result<(), ProviderError>)>> {
        let refused = |(id, _): &(MachineId, Secret)| (id.clone(), Err(no_challenges(cluster)));
        Box::pin(std::future::ready(values.iter().map(refused).collect()))
    }

    /// Removes the challenges of these machines, all of them. A machine that is gone has none. Safe to repeat.
    fn unchallenge<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        let refused = (!machines.is_empty()).then(|| no_challenges(cluster));
        Box::pin(std::future::ready(refused.map_or(Ok(()), Err)))
    }

    /// Why these machines may be silent: the provider's own checks and the end of the console, for a person. What
    /// can't be learned is left out.
    fn explain<'a>(
        &'a self,
        cluster: &'a ClusterRef,
        machines: &'a [MachineId],
    ) -> BoxFuture<'a, BTreeMap<MachineId, String>>;

    /// The region where it works when a cluster names none; `None` when there is none, or none is known. Local: `None`.
    fn region(&self) -> BoxFuture<'_, Option<String>> {
        Box::pin(std::future::ready(None))
    }

    /// The value of a secret that the provider's account keeps. It is in no log and no error.
    fn secret<'a>(
        &'a self,
        source: &'a SecretSource,
    ) -> BoxFuture<'a, Result<Vec<u8>, ProviderError>> {
        let _ = source;
        Box::pin(std::future::ready(Err(ProviderError {
            kind: ErrorKind::Invalid,
            leftovers: Leftovers::None,
            message: "this provider keeps no secrets".to_owned(),
            code: None,
        })))
    }

    /// Everything in this provider's region that carries a cluster's tag of ours, whoever's.
    fn tagged(&self) -> BoxFuture<'_, Result<Vec<Tagged>, ProviderError>>;

    /// Deletes what the cluster left besides machines, once all of those are gone. One line for each thing and its
    /// final state.
    fn cleanup<'a>(
        &'a self,
        cluster: &'a ClusterRef,
    ) -> BoxFuture<'a, Result<Vec<Receipt>, ProviderError>>;
}

/// Of a provider whose machines have no place where a challenge could be read.
fn no_challenges(cluster: &ClusterRef) -> ProviderError {
    ProviderError {
        kind: ErrorKind::Invalid,
        leftovers: Leftovers::None,
        message: format!("the machines of {} cannot be challenged", cluster.name),
        code: None,
    }
}

/// What `preflight`, `outline` and `prepare` are asked about.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The file.
    pub spec: &'a ClusterSpec,
    /// The cluster as the provider knows it; `None` before its first launch.
    pub cluster: Option<&'a ClusterRef>,
    /// What was found before.
    pub known: &'a Prerequisites,
    /// How many machines are to be made, by pool label; pools that need none are not in it.
    pub missing: &'a BTreeMap<String, usize>,
    /// What agents dial, `host:port`.
    pub advertise: &'a [String],
    /// Text of each pool's cloud_config, by pool label.
    pub user_parts: &'a BTreeMap<String, String>,
    /// SHA-256 of the agents that the master hands out, by architecture (`x86_64`, `aarch64`); empty = not known.
    pub agents: &'a BTreeMap<String, String>,
}

/// Something besides machines that a launch would make, change or use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// What a launch would do about it.
    pub action: ThingAction,
    /// What it is.
    pub kind: ThingKind,
    /// Its name.
    pub name: String,
    /// For a person.
    pub detail: String,
}

/// Something that carries a cluster's tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged {
    /// instance, volume, security-group, address, network-interface, placement-group.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// As the provider says.
    pub state: String,
    /// It is gone already, and only still shown.
    pub gone: bool,
    /// The Cluster tag.
    pub cluster: String,
    /// The tag with the cluster's uuid.
    pub uuid: String,
}

/// One line of a cleanup's receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// instance, volume, security-group, address, disk, ...
    pub kind: String,
    /// Its id.
    pub id: String,
    /// terminated, deleted, or why it is still there.
    pub state: String,
    /// It is still there.
    pub left: bool,
}
