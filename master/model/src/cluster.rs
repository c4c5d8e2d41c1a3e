//! A cluster as it is on record: what its file asks for, its launch, its batches and its instances. Changed by `world`
//! alone, stored by `store`, read by whatever shows it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use aot_proto::ids::{InstanceName, JobId, MachineId};
use serde::{Deserialize, Serialize};

use super::attestation::Proof;
use super::batch::Batch;
use super::identity::Challenge;
use super::instance::Instance;
use super::key::{ClusterId, ClusterUuid};
use super::launch::Launch;
use super::machine::{ClusterRef, Machine};
use super::prerequisites::Prerequisites;
use super::secret::SealedSecrets;
use super::spec::ClusterSpec;

/// One cluster that was launched at least once and not cleaned up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// What the operator asked for last.
    pub spec: ClusterSpec,
    /// Path of the file that said so.
    pub file: PathBuf,
    /// In every tag of every resource; made at the first launch.
    pub uuid: ClusterUuid,
    /// Number of the cluster facts that were handed out last; 0 = none yet.
    pub generation: u64,
    /// SHA-256 of the content of that generation, to see a change.
    pub facts_sha256: String,
    /// The launch that runs, or the last one.
    pub launch: Option<Launch>,
    /// Every call that was made to get machines, by client token. None is dropped while the cluster is there: how many there
    /// are is a part of the next one's token.
    #[serde(with = "super::batch::record")]
    pub batches: BTreeMap<String, Batch>,
    /// What the file's names stand for.
    #[serde(default)]
    pub prerequisites: Prerequisites,
    /// The launch that they were prepared for; another one asks again.
    #[serde(default)]
    pub prepared_for: Option<JobId>,
    /// Machines with our tags that no instance has: replaced, or made by a call whose answer was lost. They are
    /// terminated, and kept here until they are gone.
    #[serde(default)]
    pub strays: BTreeMap<MachineId, Machine>,
    /// What the machines of the last launch that made some must prove.
    #[serde(default)]
    pub proof: Proof,
    /// Challenges that machines have not answered yet, and those whose tag has not been removed yet.
    #[serde(default)]
    pub challenges: BTreeMap<MachineId, Challenge>,
    /// The values of the secrets that its file names, as of the last launch.
    #[serde(default, skip_serializing_if = "SealedSecrets::is_empty")]
    pub secrets: SealedSecrets,
    /// A cleanup was asked for and is not through.
    pub cleaning: bool,
    /// By name.
    #[serde(skip)]
    pub instances: BTreeMap<InstanceName, Instance>,
}

impl Cluster {
    /// What distinguishes it from others, also from those that had its name.
    pub fn id(&self) -> ClusterId {
        ClusterId {
            name: self.spec.name.clone(),
            uuid: self.uuid.clone(),
        }
    }

    /// How providers know it.
    pub fn reference(&self) -> ClusterRef {
        ClusterRef {
            name: self.spec.name.clone(),
            uuid: self.uuid.to_string(),
            region: self.spec.region.clone(),
        }
    }

    /// Instances that the file still names.
    pub fn wanted(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter(|instance| instance.wanted)
    }

    /// Whether a launch runs.
    pub fn launching(&self) -> bool {
        self.launch
            .as_ref()
            .is_some_and(|launch| launch.ended_ms.is_none())
    }

    /// The instance that this machine is.
    pub(crate) fn by_machine(&self, machine: &MachineId) -> Option<&Instance> {
        self.instances
            .values()
            .find(|instance| instance.machine_id() == Some(machine))
    }
}
