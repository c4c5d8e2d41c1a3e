//! What can happen to the world, what it answers, and what it wants done.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aot_proto::ids::{ClusterName, InstanceName, JobId, MachineId, RunId};
use aot_proto::v1;

use crate::model::cluster::{BootRecord, Cluster, Instance, Key, NodeFacts, StagePlan};
use crate::model::event::Event;
use crate::model::file::ClusterSpec;
use crate::model::ground::Ground;
use crate::model::job::{Job, JobKind, Run, Task, Verdict};
use crate::model::machine::{ElasticIp, ErrorKind, Leftovers, Machine};
use crate::model::pace::Pace;

/// One thing that happened, to decide on.
#[derive(Debug)]
pub enum Input {
    /// An operator wants a file launched.
    Launch(Box<LaunchAsk>),
    /// An operator wants stages run again.
    Apply(ApplyAsk),
    /// An operator wants a command run.
    Exec(ExecAsk),
    /// An operator wants to know how far a job is, and to be told what comes.
    Follow {
        /// Which.
        job: JobId,
    },
    /// An operator wants a job ended.
    Cancel {
        /// Which.
        job: JobId,
        /// Between TERM and KILL; 0 = the agent's default.
        grace_ms: u64,
        /// Who.
        operator: String,
    },
    /// A job that is already over (built-ins), for the record.
    Record(Box<Job>),
    /// An operator wants machines terminated.
    Terminate {
        /// Cluster.
        cluster: ClusterName,
        /// Which.
        instances: Vec<InstanceName>,
    },
    /// An operator wants all of a cluster gone.
    Cleanup {
        /// Cluster.
        cluster: ClusterName,
    },
    /// Ask the provider now.
    Poll {
        /// Cluster.
        cluster: ClusterName,
    },
    /// An agent wants a certificate.
    Enrol(EnrolAsk),
    /// An operator wants the identities of machines taken away.
    Revoke {
        /// Cluster.
        cluster: ClusterName,
        /// Whose; those without a machine are passed over.
        instances: Vec<InstanceName>,
        /// Who asks.
        operator: String,
    },
    /// A certificate was made.
    Issued {
        /// For whom.
        at: Key,
        /// SHA-256 of the key that it is for, hex.
        key_sha256: String,
        /// Hex.
        serial: String,
        /// Seconds since 1970.
        expires_unix: u64,
    },
    /// A boot script reported a step.
    BootStep {
        /// SHA-256 of the join token that it showed, hex.
        token_sha256: String,
        /// The machine that it says it is.
        machine: MachineId,
        /// Which step.
        step: String,
        /// More, for a person.
        detail: String,
    },
    /// A session began.
    Attached {
        /// Whose.
        at: Key,
        /// Its number.
        session: u64,
        /// Its first message.
        hello: Box<v1::Hello>,
    },
    /// An agent reported facts.
    Facts {
        /// Whose.
        at: Key,
        /// In which session.
        session: u64,
        /// The facts.
        facts: Box<NodeFacts>,
    },
    /// An agent wrote cluster facts.
    Applied {
        /// Whose.
        at: Key,
        /// In which session.
        session: u64,
        /// Which ones.
        generation: u64,
        /// Empty = all well.
        error: String,
    },
    /// An agent has put volumes in place, or could not.
    VolumesMounted {
        /// Whose.
        at: Key,
        /// In which session.
        session: u64,
        /// Of the message that asked for it.
        id: u64,
        /// Empty = all well.
        error: String,
    },
    /// An agent has a run in its journal, or refused it.
    RunAnswer {
        /// Which.
        run: RunId,
        /// It is in the journal.
        accepted: bool,
        /// Why not.
        reason: String,
    },
    /// A run's spool is whole and on disk here.
    RunEnded {
        /// Which.
        run: RunId,
        /// Its last frame.
        ended: Box<v1::Ended>,
    },
    /// A session is over.
    Closed {
        /// Whose.
        at: Key,
        /// Its number.
        session: u64,
        /// Why.
        why: String,
    },
    /// A provider answered a batch.
    Launched {
        /// Cluster.
        cluster: ClusterName,
        /// The batch's client token.
        token: String,
        /// Machines, or why not.
        result: Result<Vec<Machine>, Failure>,
    },
    /// A provider showed a cluster's machines.
    Described {
        /// Cluster.
        cluster: ClusterName,
        /// Machines, or why not.
        result: Result<Vec<Machine>, Failure>,
    },
    /// What a launch stands on is there, or could not be made.
    Prepared {
        /// Cluster.
        cluster: ClusterName,
        /// What the file's names stand for.
        result: Result<Ground, Failure>,
    },
    /// Lasting addresses were given, or not.
    Addressed {
        /// Cluster.
        cluster: ClusterName,
        /// Each machine's.
        results: Vec<(MachineId, Result<ElasticIp, Failure>)>,
    },
    /// What the provider knows of silent machines.
    Explained {
        /// Cluster.
        cluster: ClusterName,
        /// For a person, several lines each.
        texts: BTreeMap<MachineId, String>,
    },
    /// A provider took a termination, or did not.
    Terminated {
        /// Cluster.
        cluster: ClusterName,
        /// Machines that it does not know.
        unknown: Vec<MachineId>,
        /// Why it failed.
        error: Option<String>,
    },
    /// A lifecycle call is over.
    LifecycleDone {
        /// Cluster.
        cluster: ClusterName,
        /// Why it failed.
        error: Option<String>,
    },
    /// A provider cleaned up.
    Cleaned {
        /// Cluster.
        cluster: ClusterName,
        /// (kind, id, state, left) of each thing, or why not.
        result: Result<Vec<(String, String, String, bool)>, Failure>,
    },
    /// Time passed.
    Tick,
}

/// A provider's error, without what can't be decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What may be there all the same.
    pub leftovers: Leftovers,
    /// For a person.
    pub message: String,
}

/// A launch that was parsed, and whose bundles are in the store.
#[derive(Debug)]
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
    /// What machines are told of the master.
    pub boot: BootRecord,
    /// Used when the cluster is new.
    pub fresh_uuid: String,
    /// Who asks.
    pub operator: String,
}

/// Stages again.
#[derive(Debug)]
pub struct ApplyAsk {
    /// Cluster.
    pub cluster: ClusterName,
    /// Which instances.
    pub instances: Vec<InstanceName>,
    /// Stages by pool label, packed anew.
    pub stages: BTreeMap<String, Vec<StagePlan>>,
    /// Run this stage and all after it, also what succeeded.
    pub from: Option<usize>,
    /// Run every stage, also what succeeded; from `from` on where that is given.
    pub force: bool,
    /// Of these only the instances that failed, and those that wait for them.
    pub failed: bool,
    /// As typed, for the record.
    pub what: String,
    /// Who asks.
    pub operator: String,
}

/// A command over instances.
#[derive(Debug)]
pub struct ExecAsk {
    /// Cluster.
    pub cluster: ClusterName,
    /// Which instances; never empty.
    pub instances: Vec<InstanceName>,
    /// Exec or copy.
    pub kind: JobKind,
    /// What.
    pub task: Task,
    /// How it goes over its targets.
    pub pace: Pace,
    /// Milliseconds that it is kept for absent instances; 0 = not at all.
    pub queue_ms: u64,
    /// As typed, for the record.
    pub what: String,
    /// Who asks.
    pub operator: String,
}

/// An agent that wants a certificate.
#[derive(Debug)]
pub struct EnrolAsk {
    /// SHA-256 of the token that it showed, hex.
    pub token_sha256: String,
    /// The machine that it says it is.
    pub machine: MachineId,
    /// SHA-256 of its public key, hex; it proved to have the private one.
    pub key_sha256: String,
    /// EC2 identity document, as sent.
    pub document: String,
    /// Its signature.
    pub signature: String,
}

/// Who an agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Cluster and instance.
    pub at: Key,
    /// Its pool.
    pub pool: String,
    /// Its machine.
    pub machine: MachineId,
}

/// Why an agent was refused: for the log. The wire says less.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No batch has it.
    #[error("the join token is unknown")]
    UnknownToken,
    /// The launch that the token belongs to is over or was given up.
    #[error("the join token has expired: its launch is over")]
    Expired,
    /// The token is bound to other machines.
    #[error("the join token belongs to other machines than {0}")]
    OtherMachine(MachineId),
    /// The provider has not yet said which machines the token is for.
    #[error("the provider has not answered yet which machines this launch made")]
    TooEarly,
    /// Someone with another key came first.
    #[error("{0} has already enrolled with another key")]
    Used(MachineId),
    /// The machine is no longer wanted.
    #[error("{0} is being terminated")]
    Ending(MachineId),
    /// An operator has shut it out.
    #[error("the identity of {0} was revoked")]
    Revoked(MachineId),
}

/// What a step answers to whoever asked.
#[derive(Debug)]
pub enum Answer {
    /// Nothing to say.
    None,
    /// A job runs: how it ends is told by events.
    Started(JobId),
    /// There was nothing to do.
    Nothing(JobId),
    /// A job's targets, as they were when this was asked; what comes after is told as effects.
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

/// Why an operator's wish can't be fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// No such cluster.
    #[error("there is no cluster {0:?}")]
    NoCluster(String),
    /// No such job, or one that was over long ago.
    #[error("there is no job {0:?}")]
    NoJob(String),
    /// No such instances.
    #[error("no instance of cluster {0:?} is meant")]
    NoInstance(String),
    /// Something is in the way.
    #[error("{0}")]
    Conflict(String),
    /// There is no such thing.
    #[error("{0}")]
    Invalid(String),
}

/// What is to be done, once the changes are on disk.
#[derive(Debug)]
pub enum Effect {
    /// Give an agent a message, in this session and no later one.
    Send {
        /// Whom.
        at: Key,
        /// Session number.
        session: u64,
        /// What.
        body: Box<v1::master_message::Body>,
    },
    /// End a session at once: its machine is shut out.
    Close {
        /// Whose.
        at: Key,
        /// Session number.
        session: u64,
    },
    /// Ask the provider for a batch.
    CallLaunch {
        /// Cluster.
        cluster: ClusterName,
        /// The batch's client token.
        token: String,
    },
    /// Make and find what a launch stands on.
    CallPrepare {
        /// Cluster.
        cluster: ClusterName,
    },
    /// Give machines lasting addresses.
    CallAddresses {
        /// Cluster.
        cluster: ClusterName,
        /// Which, and whose.
        machines: Vec<(MachineId, InstanceName)>,
    },
    /// Ask why machines are silent.
    CallExplain {
        /// Cluster.
        cluster: ClusterName,
        /// Which.
        machines: Vec<MachineId>,
    },
    /// Start stopped machines.
    CallStart {
        /// Cluster.
        cluster: ClusterName,
        /// Which.
        machines: Vec<MachineId>,
    },
    /// Ask the provider for a cluster's machines.
    CallDescribe {
        /// Cluster.
        cluster: ClusterName,
    },
    /// Terminate.
    CallTerminate {
        /// Cluster.
        cluster: ClusterName,
        /// Which.
        machines: Vec<MachineId>,
    },
    /// Name machines.
    CallName {
        /// Cluster.
        cluster: ClusterName,
        /// Which, how.
        names: Vec<(MachineId, InstanceName)>,
    },
    /// Delete what is left of a cluster.
    CallCleanup {
        /// Cluster.
        cluster: ClusterName,
    },
    /// Tell whoever watches.
    Event(Box<Event>),
    /// A run of a job was asked for: whoever follows the job reads its output.
    RunBegan {
        /// Job.
        job: JobId,
        /// Where.
        instance: InstanceName,
        /// Which.
        run: RunId,
    },
    /// Something about a job that is no end and no output.
    JobNote {
        /// Job.
        job: JobId,
        /// Which target; `None` = all of it.
        instance: Option<InstanceName>,
        /// For a person.
        text: String,
    },
    /// A target of a job ended.
    TargetEnded {
        /// Job.
        job: JobId,
        /// Which target.
        instance: InstanceName,
        /// How.
        verdict: Verdict,
    },
}

/// What a step changed, for the store.
#[derive(Debug, Default)]
pub struct Changes {
    /// Without their instances.
    pub clusters: Vec<Cluster>,
    /// Without facts.
    pub instances: Vec<(Key, Instance)>,
    /// Facts.
    pub facts: Vec<(Key, Arc<NodeFacts>)>,
    /// Jobs.
    pub jobs: Vec<Job>,
    /// What new jobs do.
    pub tasks: Vec<(JobId, Arc<Task>)>,
    /// Runs.
    pub runs: Vec<Run>,
    /// Clusters that are cleaned up.
    pub removed: Vec<Cluster>,
}

impl Changes {
    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
            && self.instances.is_empty()
            && self.facts.is_empty()
            && self.jobs.is_empty()
            && self.runs.is_empty()
            && self.removed.is_empty()
    }
}
