//! `cluster.yml` once parsed, checked and flattened: what the operator wants. Made by `config`, read by all.
//!
//! Everything here is plain data that serializes, because the store keeps the wanted state as it was accepted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use aot_proto::ids::{ClusterName, InstanceName, PoolName};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::health::HealthSpec;
use super::pace::PacePolicy;
use super::secret::{SecretSource, SecretUse};

/// One cluster, with `extends`, `defaults` and templates already applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Its name.
    pub name: ClusterName,
    /// Who makes its machines.
    pub provider: ProviderKind,
    /// EC2 region as the file has it; `None` leaves it to the provider's own settings.
    pub region: Option<String>,
    /// When a launch counts as done, and what to do when it is not.
    pub launch: LaunchPolicy,
    /// What its machines must prove before they get a certificate.
    #[serde(default)]
    pub attestation: Attestation,
    /// Security groups that the cluster wants to exist.
    pub security_groups: Vec<SecurityGroupSpec>,
    /// Where `$discovery_token` comes from.
    pub discovery_url: Option<String>,
    /// Saved targets, by name.
    pub groups: BTreeMap<String, String>,
    /// Who may log in where over ssh.
    #[serde(default)]
    pub ssh: SshAccess,
    /// How much the machines learn of each other.
    #[serde(default)]
    pub cluster_facts: FactsDetail,
    /// What the file's variables were, those given beside it among them. All values here have them in their places.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub vars: Map<String, Value>,
    /// Where the values of its secrets come from, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretSource>,
    /// Single instances (as pools of one without a name) and pools, in the file's order.
    pub pools: Vec<PoolSpec>,
    /// Folder of the file: relative paths start here. Always absolute.
    pub base_dir: PathBuf,
}

/// Who makes machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderKind {
    /// Amazon EC2.
    Ec2,
    /// Clones of this machine.
    Local,
}

impl fmt::Display for ProviderKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ec2 => "ec2",
            Self::Local => "local",
        })
    }
}

/// Whose keys are exchanged among the machines of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SshAccess {
    /// Root and the main user of each may log in to all others as root.
    #[default]
    Root,
    /// The main user of each may log in to all others as their main user.
    Users,
    /// Nobody's.
    None,
}

impl SshAccess {
    /// As the file and the wire have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Users => "users",
            Self::None => "none",
        }
    }
}

/// How much of each machine the cluster facts have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FactsDetail {
    /// All that is known, with what its agent has found, under `node`.
    #[default]
    Full,
    /// All but `node`.
    Addresses,
}

/// `launch:` of the file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LaunchPolicy {
    /// Fewer than this many ready by the timeout is a failed launch; also the barrier for the first cluster facts.
    pub min_ready: MinReady,
    /// What happens to the machines of a failed launch.
    pub on_failure: OnFailure,
    /// From the first call to the provider until every instance has enrolled.
    pub timeout: Duration,
    /// How many times a machine that never calls home is terminated and made again, each time with `timeout` anew.
    #[serde(default)]
    pub replace: u32,
}

/// How many instances must be there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MinReady {
    /// Every one.
    All,
    /// At least this many.
    Count(u32),
    /// At least this percentage, rounded up.
    Percent(u8),
}

impl MinReady {
    /// How many of `total` that is.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::All => total,
            Self::Count(count) => (count as usize).min(total),
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100).min(total),
        }
    }
}

/// What to do with the machines of a launch that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Leave them to be examined.
    Keep,
    /// Terminate what this launch made.
    Rollback,
}

/// N instances that are alike; a single instance is a pool of one without a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// `None` for an entry of `instances:`.
    pub name: Option<PoolName>,
    /// The members in order.
    pub members: Vec<MemberSpec>,
    /// `Owner` tag and fact.
    pub owner: Option<String>,
    /// Main login user of the image.
    pub user: Option<String>,
    /// What to ask the provider for.
    pub machine: MachineSpec,
    /// The bootstrap sequence.
    pub stages: Vec<StageSpec>,
    /// How its instances are changed once they are ready.
    #[serde(default, skip_serializing_if = "PacePolicy::is_unsaid")]
    pub update: PacePolicy,
    /// What each must pass then, before others are changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
}

impl PoolSpec {
    /// The pool's name, or the name of its only instance: unique in the cluster, used in tokens and tags.
    pub fn label(&self) -> &str {
        match (&self.name, self.members.first()) {
            (Some(name), _) => name.as_str(),
            (None, Some(member)) => member.name.as_str(),
            (None, None) => "",
        }
    }
}

/// One member of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "MemberRecord<'static>")]
pub struct MemberSpec {
    /// Its name.
    pub name: InstanceName,
    /// Its host name.
    pub hostname: String,
}

/// As it is written: a host name that is the instance's own, as nearly all are, is left out.
#[derive(Serialize, Deserialize)]
struct MemberRecord<'a> {
    name: Cow<'a, InstanceName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hostname: Option<Cow<'a, str>>,
}

impl From<MemberRecord<'static>> for MemberSpec {
    fn from(record: MemberRecord<'static>) -> Self {
        let name = record.name.into_owned();
        let hostname = record.hostname.map(Cow::into_owned);
        Self {
            hostname: hostname.unwrap_or_else(|| name.to_string()),
            name,
        }
    }
}

impl Serialize for MemberSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let differs = self.hostname != self.name.as_str();
        MemberRecord {
            name: Cow::Borrowed(&self.name),
            hostname: differs.then_some(Cow::Borrowed(&self.hostname)),
        }
        .serialize(serializer)
    }
}

/// The provider's part of an instance's keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineSpec {
    /// `ami-...`, an alias, `ssm:...` or `name:PATTERN@OWNER`.
    pub ami: Option<String>,
    /// Instance types, tried in turn.
    pub types: Vec<String>,
    /// EC2 key pair.
    pub ssh_key: Option<String>,
    /// Ids or names.
    pub security_groups: Vec<String>,
    /// Ids or Name tags, tried in turn.
    pub subnets: Vec<String>,
    /// Disks besides those that the image brings.
    pub volumes: Vec<VolumeSpec>,
    /// Public address on the first interface; `None` leaves it to the subnet.
    pub auto_assign_ip: Option<bool>,
    /// An Elastic IP of its own.
    pub allocate_ip_address: bool,
    /// EBS-optimized.
    pub ebs_optimized: Option<bool>,
    /// Placement group's name.
    pub placement_group: Option<String>,
    /// IAM instance profile's name.
    pub instance_profile_name: Option<String>,
    /// The user's own tags.
    pub tags: BTreeMap<String, String>,
    /// Spot market; `None` = on demand.
    pub spot: Option<SpotSpec>,
    /// Map the instance store drives of the type.
    pub ephemeral_drives: bool,
    /// The user's cloud-config file, absolute.
    pub cloud_config: Option<PathBuf>,
}

/// Spot market options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpotSpec {
    /// Highest price in dollars an hour, as EC2 wants it.
    pub max_price: Option<String>,
    /// Use on-demand if there is no spot capacity.
    pub fallback: bool,
}

/// One EBS volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Device name in the mapping, `/dev/sdf`.
    pub device: String,
    /// GiB; `None` = the snapshot's.
    pub size_gib: Option<u32>,
    /// `gp3`, `io2`, ...
    pub kind: Option<String>,
    /// Provisioned operations a second.
    pub iops: Option<u32>,
    /// MiB a second.
    pub throughput: Option<u32>,
    /// Snapshot id.
    pub snapshot: Option<String>,
    /// Encrypted at rest.
    pub encrypted: Option<bool>,
    /// Ends with its instance. True unless said.
    pub delete_on_termination: bool,
    /// Where to mount it.
    pub mount: Option<String>,
    /// File system to make where there is none.
    pub fs: Option<String>,
}

/// A security group that the cluster needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecurityGroupSpec {
    /// Its name.
    pub name: String,
    /// Make it, find it, or either.
    pub action: GroupAction,
    /// Members may talk to each other on every port.
    pub allow_all_own_traffic: bool,
    /// CIDRs that may ssh in.
    pub allow_ssh_from: Vec<String>,
    /// More rules.
    pub allow_inbound: Vec<InboundRule>,
}

/// What to do about a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupAction {
    /// It must not exist yet, or be ours.
    Create,
    /// It must exist.
    Find,
    /// Used where it exists, made where it does not.
    FindOrCreate,
}

/// One inbound rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InboundRule {
    /// tcp, udp, icmp, icmpv6 or -1 (all).
    pub protocol: String,
    /// First port; `None` = all.
    pub from_port: Option<u16>,
    /// Last port.
    pub to_port: Option<u16>,
    /// CIDR, v4 or v6.
    pub ip: Option<String>,
    /// Or a source group, id or name.
    pub group: Option<String>,
}

/// One entry of `bootstrap_sequence`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageSpec {
    /// For people; the file name unless said.
    pub name: String,
    /// Where the bundle comes from.
    pub source: BundleSource,
    /// Arguments of `bootstrap.sh`.
    pub args: Vec<String>,
    /// More environment.
    pub env: BTreeMap<String, String>,
    /// Longest run.
    pub timeout: Option<Duration>,
    /// Longest time without output.
    pub silence_timeout: Option<Duration>,
    /// Stages of other instances that must have succeeded first.
    pub needs: Vec<Need>,
    /// What it is given in secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// It is run again when one of them has another value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rerun_on_secret: bool,
}

/// A bundle's source; paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleSource {
    /// A tar file: plain, gzip or zstd, recognised by its bytes.
    Tar(PathBuf),
    /// A folder, packed deterministically.
    Dir(PathBuf),
}

impl BundleSource {
    /// The path, of either kind.
    pub fn path(&self) -> &PathBuf {
        match self {
            Self::Tar(path) | Self::Dir(path) => path,
        }
    }
}

/// `manager/1`, `pool:db/0`: stage `stage` of all of `of` must have succeeded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The instances it waits for, resolved from a name or a pool.
    pub of: Vec<InstanceName>,
    /// Index of the stage.
    pub stage: u32,
    /// As the file has it.
    pub text: String,
}

impl ClusterSpec {
    /// Every instance with its pool, in the file's order.
    pub fn instances(&self) -> impl Iterator<Item = (&PoolSpec, &MemberSpec)> {
        self.pools
            .iter()
            .flat_map(|pool| pool.members.iter().map(move |member| (pool, member)))
    }

    /// The pool that has this member.
    pub fn pool_of(&self, name: &InstanceName) -> Option<(&PoolSpec, &MemberSpec)> {
        self.instances().find(|(_, member)| &member.name == name)
    }
}

/// `attestation:` of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attestation {
    /// The best that costs little, see `attestation::demand`.
    #[default]
    Auto,
    /// The signed identity document.
    Document,
    /// The challenge.
    Challenge,
    /// The document and the challenge.
    Both,
    /// The join token alone.
    Token,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_ready_rounds_up_and_never_asks_for_more_than_there_are() {
        assert_eq!(MinReady::All.of(7), 7);
        assert_eq!(MinReady::Count(9).of(7), 7);
        assert_eq!(MinReady::Percent(90).of(7), 7);
        assert_eq!(MinReady::Percent(50).of(7), 4);
        assert_eq!(MinReady::Percent(100).of(0), 0);
    }
}
