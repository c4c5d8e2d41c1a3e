//! What can happen to the world: what operators ask for, what agents bring, what a provider answered, and time.

use aot_proto::ids::{ClusterName, InstanceName, JobId, MachineId, RunId};
use aot_proto::v1;

use super::asks::{
    ApplyAsk, AskedBy, DeleteOrphansAsk, EnrolAsk, ExecAsk, LaunchAsk, LifecycleAsk,
};
use super::provider_call::{CallAnswer, CallFailure, ReceiptLine};
use crate::identity::PeerProcess;
use crate::instance::NodeFacts;
use crate::job::Job;
use crate::key::{ClusterId, InstanceKey};
use crate::stage::LastLines;

/// One thing that happened, to decide on.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub enum Input {
    /// An operator wants a file launched.
    Launch(Box<LaunchAsk>),
    /// An operator wants stages run again.
    Apply(ApplyAsk),
    /// An operator wants a command run.
    Exec(ExecAsk),
    /// An operator wants to know how far a job is, and to be sent what comes.
    Follow { cluster: ClusterName, job: JobId },
    /// An operator wants a job ended.
    Cancel {
        cluster: ClusterName,
        job: JobId,
        /// Between TERM and KILL; 0 = the agent's default.
        grace_ms: u64,
        operator: String,
    },
    /// A job that is already over (built-ins), for the record.
    Record(Box<Job>),
    /// An operator wants machines terminated.
    Terminate {
        cluster: ClusterName,
        instances: Vec<InstanceName>,
        by: AskedBy,
    },
    /// An operator wants all of a cluster gone.
    Cleanup { cluster: ClusterName, by: AskedBy },
    /// An operator wants machines started, stopped or rebooted.
    Lifecycle(LifecycleAsk),
    /// An operator wants the provider asked for machines as they are now.
    Update {
        cluster: ClusterName,
        /// Which instances; never none.
        instances: Vec<InstanceName>,
        by: AskedBy,
    },
    /// An operator wants all of a cluster gone that is not known here.
    DeleteOrphans(DeleteOrphansAsk),
    /// How far a region of such a deletion is.
    OrphansSeen {
        job: JobId,
        /// For a person.
        text: String,
    },
    /// A region of such a deletion is done, or could not be.
    OrphansDeleted {
        job: JobId,
        /// The target.
        place: InstanceName,
        /// What became of each thing.
        result: Result<Vec<ReceiptLine>, CallFailure>,
    },
    /// Whoever follows a job wants to know that all that follows from what has come is on record.
    Reconcile { cluster: ClusterName },
    /// Ask the provider now.
    Poll { cluster: ClusterName },
    /// An agent wants a certificate.
    Enrol(EnrolAsk),
    /// An operator wants the identities of machines taken away.
    Revoke {
        cluster: ClusterName,
        /// Whose; those without a machine are passed over.
        instances: Vec<InstanceName>,
        operator: String,
    },
    /// A certificate was made, and is given out unless this is refused.
    Issued {
        /// For whom.
        at: InstanceKey,
        /// Whose machine it is.
        machine: MachineId,
        /// The session that asked for it as its renewal; `None` = it was enrolled.
        session: Option<u64>,
        /// Serial of the certificate that asked, in a renewal.
        asked_with: Option<String>,
        /// SHA-256 of the key that it is for, hex.
        key_sha256: String,
        /// In hex.
        serial: String,
        /// Seconds since 1970.
        expires_unix: u64,
    },
    /// A session still answers although a newer one took its place.
    StillThere {
        at: InstanceKey,
        /// Its number.
        session: u64,
    },
    /// A certificate was shown in a call.
    CertificateSeen {
        at: InstanceKey,
        /// Its serial, hex.
        serial: String,
    },
    /// A boot script reported a step.
    BootStep {
        /// SHA-256 of the join token that it showed, hex.
        token_sha256: String,
        /// The machine that it says it is.
        machine: MachineId,
        step: String,
        /// More, for a person.
        detail: String,
    },
    /// Something that an agent brings, in a session of its own. Believed only as far as [`World::agent_reports`] finds it
    /// to be about the instance whose certificate opened that session.
    ///
    /// [`World::agent_reports`]: super::World::agent_reports
    Agent {
        /// Whose certificate opened the session.
        at: InstanceKey,
        /// The session's number.
        session: u64,
        /// What it brings.
        report: AgentInput,
    },
    /// This much of a run's spool is here.
    Measured { run: RunId, bytes: u64 },
    /// The master's own copy of a run's output is whole, whoever has told it: found so at its start, or put where outputs are
    /// kept. Its end is not yet on record.
    Recovered {
        run: RunId,
        /// Its last frame.
        ended: Box<v1::Ended>,
    },
    /// What a call to the provider of a cluster came to.
    Answered {
        /// The cluster that it was made for.
        cluster: ClusterId,
        /// What the provider said.
        answer: CallAnswer,
    },
    /// Time passed.
    Tick,
}

/// What says which cluster's world decides on an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoutingKey<'a> {
    /// The cluster that it names.
    Cluster(&'a ClusterName),
    /// The cluster with the batch that has this join token: its SHA-256, hex.
    JoinToken(&'a str),
    /// Nothing: whoever decides brings it to itself.
    OwnWorld,
}

impl Input {
    /// The id that an operator's request says for its job.
    pub fn request(&self) -> Option<JobId> {
        match self {
            Self::Launch(ask) => ask.request,
            Self::Apply(ask) => ask.request,
            Self::Exec(ask) => ask.request,
            Self::Lifecycle(ask) => ask.by.request,
            Self::DeleteOrphans(ask) => ask.by.request,
            Self::Terminate { by, .. } | Self::Cleanup { by, .. } | Self::Update { by, .. } => {
                by.request
            }
            _ => None,
        }
    }

    /// Which cluster's world is to decide on it.
    pub fn routing_key(&self) -> RoutingKey<'_> {
        match self {
            Self::Launch(ask) => RoutingKey::Cluster(&ask.spec.name),
            Self::Apply(ask) => RoutingKey::Cluster(&ask.cluster),
            Self::Exec(ask) => RoutingKey::Cluster(&ask.cluster),
            Self::Lifecycle(ask) => RoutingKey::Cluster(&ask.cluster),
            Self::DeleteOrphans(ask) => RoutingKey::Cluster(&ask.cluster),
            Self::Record(job) => RoutingKey::Cluster(&job.cluster),
            Self::Follow { cluster, .. }
            | Self::Cancel { cluster, .. }
            | Self::Terminate { cluster, .. }
            | Self::Cleanup { cluster, .. }
            | Self::Update { cluster, .. }
            | Self::Reconcile { cluster }
            | Self::Poll { cluster }
            | Self::Revoke { cluster, .. } => RoutingKey::Cluster(cluster),
            Self::Issued { at, .. }
            | Self::StillThere { at, .. }
            | Self::CertificateSeen { at, .. }
            | Self::Agent { at, .. } => RoutingKey::Cluster(&at.cluster),
            Self::Answered { cluster, .. } => RoutingKey::Cluster(&cluster.name),
            Self::Enrol(ask) => RoutingKey::JoinToken(&ask.token_sha256),
            Self::BootStep { token_sha256, .. } => RoutingKey::JoinToken(token_sha256),
            Self::OrphansSeen { .. }
            | Self::OrphansDeleted { .. }
            | Self::Measured { .. }
            | Self::Recovered { .. }
            | Self::Tick => RoutingKey::OwnWorld,
        }
    }
}

/// What an agent brings. Nothing in it says whose it is: that is in [`Input::Agent`], from the certificate.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub enum AgentInput {
    /// Its session began.
    Attached(Box<v1::Hello>),
    /// What its connection and its first message say of who holds it.
    HeldBy(Box<SessionHolder>),
    /// Facts about its machine.
    Facts(Box<NodeFacts>),
    /// It wrote cluster facts, or could not.
    Applied {
        /// Of the cluster facts that it means.
        generation: u64,
        /// Empty = all well.
        error: String,
    },
    /// It has put volumes in place, or could not.
    VolumesMounted {
        /// Of the message that asked for it.
        id: u64,
        /// Empty = all well.
        error: String,
    },
    /// It has a run in its journal, or refused it.
    RunAnswer {
        run: RunId,
        /// It is in the journal.
        accepted: bool,
        reason: String,
    },
    /// The last that a run printed. Comes before the end of a stage that did not succeed.
    Printed {
        run: RunId,
        /// At most [`LastLines::MAX`].
        lines: Box<LastLines>,
    },
    /// A run's spool is whole and on disk here.
    RunEnded {
        run: RunId,
        /// Its last frame.
        ended: Box<v1::Ended>,
    },
    /// Its session is over.
    Closed { why: String },
}

/// Who holds a session, and whose place it took.
#[derive(Debug)]
pub struct SessionHolder {
    /// What distinguishes its process from others.
    pub peer: PeerProcess,
    /// Serial of the certificate that it showed, hex.
    pub serial: String,
    /// How long ago the session was heard that it took the place of; `None` when that had ended.
    pub replaced_ms: Option<u64>,
}
