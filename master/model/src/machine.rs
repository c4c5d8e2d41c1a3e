//! A machine as its provider shows it, and how a call to a provider can go wrong. Shared by `provider` and the decisions.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use aot_proto::ids::{ClusterName, InstanceName, MachineId};
use serde::{Deserialize, Serialize};

use super::key::{ClusterId, ClusterUuid};

/// Which cluster's machines are meant. Machines carry the uuid in a tag, so a reused name finds nothing old.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRef {
    /// Its name.
    pub name: ClusterName,
    /// Made once, at its first launch.
    pub uuid: String,
    /// EC2 region, `None` = the provider's own settings.
    pub region: Option<String>,
}

impl ClusterRef {
    /// What distinguishes it from others, also from those that had its name.
    pub fn id(&self) -> ClusterId {
        ClusterId {
            name: self.name.clone(),
            uuid: ClusterUuid::new(self.uuid.clone()),
        }
    }
}

/// Makes a launch idempotent: the same token gives the same machines. At most 64 ASCII characters (RunInstances).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientToken(pub String);

/// The state of a machine, by EC2's names (EC2 API, InstanceState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// Being made or started.
    Pending,
    /// Up, as far as the provider knows.
    Running,
    /// Going down, to be started again.
    Stopping,
    /// Down, to be started again.
    Stopped,
    /// Going for good.
    ShuttingDown,
    /// Gone for good.
    Terminated,
}

impl MachineState {
    /// As the EC2 API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
        }
    }

    /// Whether it is gone, or on its way.
    pub fn is_ending(self) -> bool {
        matches!(self, Self::ShuttingDown | Self::Terminated)
    }
}

impl fmt::Display for MachineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A machine as the provider shows it: attested facts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The provider's id.
    pub id: MachineId,
    /// Token of the call that made it, as the provider says, else from its tags.
    pub client_token: Option<ClientToken>,
    /// Place in its launch, from 0 (EC2: ami-launch-index).
    pub launch_index: u32,
    /// Its member's name, when it has been tagged so.
    pub name: Option<InstanceName>,
    /// State now.
    pub state: MachineState,
    /// Why it is in that state, as the provider says; empty when it says nothing.
    pub state_reason: String,
    /// Addresses and names; `None` while it has none.
    pub private_ip: Option<String>,
    /// Public address.
    pub public_ip: Option<String>,
    /// Private DNS name.
    pub private_dns: Option<String>,
    /// Public DNS name.
    pub public_dns: Option<String>,
    /// Instance type.
    pub instance_type: Option<String>,
    /// `eu-west-1a`; `None` where the provider has no zones.
    pub availability_zone: Option<String>,
    /// `eu-west-1`; `None` where the provider has no regions.
    pub region: Option<String>,
    /// Subnet id.
    pub subnet: Option<String>,
    /// Image id.
    pub image: Option<String>,
    /// When it was launched.
    pub launched_at: Option<SystemTime>,
    /// All tags.
    pub tags: BTreeMap<String, String>,
    /// Disks, by device name.
    #[serde(default)]
    pub volumes: Vec<AttachedVolume>,
    /// The account that owns it (EC2: ownerId of its reservation).
    #[serde(default)]
    pub account: Option<String>,
}

/// What a provider shows of machines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Listing {
    /// Those that could be read.
    pub machines: Vec<Machine>,
    /// Those that are there in a way that nothing can be made of: they count as neither running nor gone.
    pub unclear: Vec<MachineId>,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedVolume {
    /// The mapping's name, `/dev/sdf`.
    pub device: String,
    /// `vol-...`.
    pub id: String,
}

/// A lasting public address that was given to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElasticIp {
    /// `eipalloc-...`.
    pub allocation: String,
    /// The address.
    pub address: String,
}

/// Kinds of failure, by what one does about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try another type or subnet.
    NoCapacity,
    /// A limit of the account.
    Quota,
    /// Asked too often: wait and ask again.
    Throttled,
    /// No right to do that, or credentials that are not taken.
    Denied,
    /// No credentials can be had at the moment, or those at hand have run out.
    NoCredentials,
    /// Another choice of zone may work: what the request names is bound to another one.
    OtherZone,
    /// The request is wrong and will stay so.
    Invalid,
    /// The client token stands for machines that are gone: take a new attempt.
    TokenSpent,
    /// Network, 5xx, a cut-off answer: ask again with the same token.
    Unavailable,
    /// Anything else.
    Other,
}

/// Whether a failed launch may have made a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// It made none.
    None,
    /// It made at least one.
    Some,
    /// Nobody knows: describe, or call again with the same token.
    Unknown,
}

impl ClientToken {
    /// Token number `ordinal` of a pool: 52 ASCII characters that say nothing and never repeat within a cluster.
    pub fn derive(
        cluster_uuid: &str,
        pool: &str,
        ordinal: usize,
        kind: Option<&str>,
        subnet: Option<&str>,
    ) -> Self {
        let text = format!("{cluster_uuid}\n{pool}\n{ordinal}\n{kind:?}\n{subnet:?}");
        Self(format!(
            "aot-{}",
            &super::hash::sha256_hex(text.as_bytes())[..48]
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_argument_of_a_token_counts() {
        let base = ClientToken::derive("u", "web", 1, Some("m5.large"), Some("a"));
        let others = [
            ClientToken::derive("v", "web", 1, Some("m5.large"), Some("a")),
            ClientToken::derive("u", "db", 1, Some("m5.large"), Some("a")),
            ClientToken::derive("u", "web", 2, Some("m5.large"), Some("a")),
            ClientToken::derive("u", "web", 1, Some("m5.xlarge"), Some("a")),
            ClientToken::derive("u", "web", 1, Some("m5.large"), None),
            ClientToken::derive("u", "web", 1, None, Some("m5.large")),
            ClientToken::derive("u", "web", 1, None, None),
            ClientToken::derive("u", "web", 1, None, Some("")),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(&base, other, "case {index}");
        }
        assert_ne!(others[6], others[7]);
    }

    proptest! {
        #[test]
        fn a_token_fits_run_instances(uuid in ".*", label in ".*", ordinal: usize) {
            let token = ClientToken::derive(&uuid, &label, ordinal, None, None);
            prop_assert!(token.0.len() <= 64 && token.0.is_ascii());
            prop_assert_eq!(token, ClientToken::derive(&uuid, &label, ordinal, None, None));
        }
    }
}
