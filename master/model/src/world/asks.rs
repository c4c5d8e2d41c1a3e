//! What operators and joining machines ask for, each with all that its decision needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aot_proto::ids::{ClusterName, InstanceName, JobId, MachineId};

use crate::attestation::{Secret, ShownDocument};
use crate::batch::BootRecord;
use crate::job::JobKind;
use crate::pace::{Pace, PacePolicy};
use crate::secret::SealedSecrets;
use crate::spec::ClusterSpec;
use crate::stage::StagePlan;
use crate::task::Task;

/// Who asks for something, and how, for the record.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub struct AskedBy {
    /// As typed.
    pub what: String,
    pub operator: String,
    /// Id that its job is to have; `None` = one that is drawn.
    pub request: Option<JobId>,
}

/// A launch that was parsed, and whose bundles are in the store.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub struct LaunchAsk {
    /// The file, parsed.
    pub spec: ClusterSpec,
    /// Its path.
    pub file: PathBuf,
    /// Stages by pool label.
    pub stages: BTreeMap<String, Vec<StagePlan>>,
    /// Terminate what the file no longer names.
    pub prune: bool,
    /// Instead of the file's.
    pub timeout: Option<Duration>,
    /// How instances that are ready are changed, over what the file says.
    pub pace: PacePolicy,
    /// The values of the secrets that the file names.
    pub secrets: SealedSecrets,
    /// What user-data says of the master.
    pub boot: BootRecord,
    /// Whether identity documents of the cluster's region can be checked.
    pub certificate: RegionCertificate,
    /// Used when the cluster is new.
    pub fresh_uuid: String,
    pub operator: String,
    /// Id that its job is to have; `None` = one that is drawn.
    pub request: Option<JobId>,
}

/// The certificate for identity documents of one region.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegionCertificate {
    /// The cluster's region; empty where it has none, or none is known.
    pub region: String,
    /// It is there and usable.
    pub there: bool,
}

/// Stages again.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub struct ApplyAsk {
    pub cluster: ClusterName,
    pub instances: Vec<InstanceName>,
    /// A file that the cluster takes over with it; `None` = what was launched last.
    pub file: Option<Box<AppliedFile>>,
    /// Stages by pool label, packed anew.
    pub stages: BTreeMap<String, Vec<StagePlan>>,
    /// Run this stage and all after it, also what succeeded.
    pub from: Option<usize>,
    /// Run every stage, also what succeeded; from `from` on where that is given.
    pub force: bool,
    /// Of these only the instances that failed, and those that wait for them.
    pub failed: bool,
    /// How instances that are ready are changed, over what the file says.
    pub pace: PacePolicy,
    /// As typed, for the record.
    pub what: String,
    pub operator: String,
    /// Id that its job is to have; `None` = one that is drawn.
    pub request: Option<JobId>,
}

/// A file of a cluster that is there already. It differs from what was launched in stages, and what belongs to them, alone.
#[derive(Debug)]
pub struct AppliedFile {
    /// The file, parsed.
    pub spec: ClusterSpec,
    /// Its path.
    pub path: PathBuf,
    /// The values of the secrets that it names.
    pub secrets: SealedSecrets,
}

/// A command over instances.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub struct ExecAsk {
    pub cluster: ClusterName,
    /// Which instances; never empty.
    pub instances: Vec<InstanceName>,
    /// Exec or copy.
    pub kind: JobKind,
    pub task: Task,
    /// How it goes over its targets.
    pub pace: Pace,
    /// Milliseconds that it is kept for absent instances; 0 = not at all.
    pub queue_ms: u64,
    /// As typed, for the record.
    pub what: String,
    pub operator: String,
    /// Id that its job is to have; `None` = one that is drawn.
    pub request: Option<JobId>,
}

/// Machines to be started, stopped or rebooted.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub struct LifecycleAsk {
    pub cluster: ClusterName,
    pub instances: Vec<InstanceName>,
    /// [`JobKind::Start`], [`JobKind::Stop`] or [`JobKind::Reboot`].
    pub kind: JobKind,
    /// How long they are waited for.
    pub timeout_ms: u64,
    pub by: AskedBy,
}

/// A cluster that is not known here, to be deleted.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub struct DeleteOrphansAsk {
    /// Its name, by its tag.
    pub cluster: ClusterName,
    /// Its uuid.
    pub uuid: String,
    /// Where it has things: `local`, or a region, each with the region.
    pub places: BTreeMap<InstanceName, Option<String>>,
    pub by: AskedBy,
}

/// An agent that wants a certificate.
#[derive(Debug, Clone)]
pub struct EnrolAsk {
    /// SHA-256 of the token that it showed, hex.
    pub token_sha256: String,
    /// The machine that it says it is.
    pub machine: MachineId,
    /// SHA-256 of its public key, hex; it proved to have the private one.
    pub key_sha256: String,
    /// EC2 identity document.
    pub document: ShownDocument,
    /// Value of the challenge's tag, as the agent read it; empty at first.
    pub answer: Secret,
}
