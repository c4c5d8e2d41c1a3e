//! What a step answers to whoever asked for it.

use aot_proto::ids::{InstanceName, JobId, MachineId, RunId};

use super::refusal::{OpError, Refused};
use crate::attestation::Proof;
use crate::key::InstanceKey;
use crate::outcome::Verdict;

/// What a step answers to whoever asked.
#[derive(Debug)]
pub enum Answer {
    /// It is done; there is no more to say.
    Ack,
    /// A job runs; events say how it ends.
    Started(JobId),
    /// There was nothing to do.
    UpToDate(JobId),
    /// There is a job of the id that the request says: whoever asked sees whether it is the same.
    Begun(JobId),
    /// A job's targets, as they were when this was asked; what comes after is sent as effects.
    Exec {
        /// Its job.
        job: JobId,
        /// Each target, in the order of names.
        targets: Vec<(InstanceName, TargetState)>,
    },
    /// The certificate may be made.
    Granted(Granted),
    /// It may not.
    Refused(Refused),
    /// An agent spoke of what is not its own, or in a session that is not its instance's any more: nothing was changed.
    NotItsOwn,
    /// It may, once it has read back a tag of its machine.
    Challenged {
        /// Begins the tag's value.
        id: String,
        /// How long an answer counts.
        left_ms: u64,
    },
    /// Ask the same again once the provider has shown the cluster's machines.
    Later,
    /// What was asked can't be done.
    Error(OpError),
}

/// How far one target of a job is.
#[derive(Debug, Clone)]
pub enum TargetState {
    /// It has not been given it.
    Waiting,
    /// These runs are open: one, or none between the stages of a launch.
    Running(Vec<RunId>),
    /// It has ended, and so.
    Ended(Verdict),
}

/// Who an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Cluster and instance.
    pub at: InstanceKey,
    /// Its pool.
    pub pool: String,
    /// Its machine.
    pub machine: MachineId,
}

/// What a machine must prove that shows the right token: known before its proof is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedProof {
    /// What it must prove.
    pub proof: Proof,
    /// The region whose certificate signs its document.
    pub region: String,
}
