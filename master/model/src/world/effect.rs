//! What is to be done outside, once the changes that led to it are on disk. Done in order by the loop in `run`.

use aot_proto::facts::Pieces;
use aot_proto::ids::{ClusterName, InstanceName, JobId, RunId};
use aot_proto::v1;

use super::provider_call::{Call, CallFailure};
use crate::event::Event;
use crate::key::{ClusterId, InstanceKey};
use crate::outcome::Verdict;
use crate::secret::WantedSecret;

/// What is to be done, once the changes are on disk.
#[derive(Debug)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub enum Effect {
    /// Give an agent a message, in this session and no later one.
    Send {
        at: InstanceKey,
        session: u64,
        body: Box<v1::master_message::Body>,
    },
    /// Give an agent a run with secrets, which are opened for it or which it reads by itself, in this session and no later one.
    StartWithSecrets {
        at: InstanceKey,
        session: u64,
        run: RunId,
        /// Without them.
        start: Box<v1::StartRun>,
        /// What it is to have.
        secrets: Vec<WantedSecret>,
    },
    /// Give an agent cluster facts, in this session and no later one: piece after piece, as fast as it takes them.
    HandOut {
        at: InstanceKey,
        session: u64,
        facts: Pieces,
    },
    /// End a session at once: it is not let in.
    Close { at: InstanceKey, session: u64 },
    /// End a session whose certificate is over.
    Expire { at: InstanceKey, session: u64 },
    /// End all at once that the machine of an instance has open: it is not that instance any more.
    ShutOut { at: InstanceKey },
    /// Call the provider of a cluster, unless another one has its name by now. What it came to is an
    /// [`Input::Answered`](super::Input::Answered).
    Call {
        cluster: ClusterId,
        /// What is asked.
        call: Call,
    },
    /// Terminate and delete what carries the uuid of an unknown cluster in one region.
    CallOrphans {
        job: JobId,
        /// The cluster's name, by its tag.
        cluster: ClusterName,
        /// Its uuid.
        uuid: String,
        /// The target.
        place: InstanceName,
        /// Its region; `None` is this host.
        region: Option<String>,
    },
    /// Send an event to whoever follows the cluster.
    Event(Box<Event>),
    /// A run of a job was asked for: whoever follows the job reads its output.
    RunBegan {
        job: JobId,
        instance: InstanceName,
        run: RunId,
    },
    /// Find out how much of a run's spool is here.
    Measure { run: RunId },
    /// Something about a job that is neither an end nor output.
    JobNote {
        job: JobId,
        /// Which target; `None` = all of it.
        instance: Option<InstanceName>,
        /// For a person.
        text: String,
    },
    /// A job's call was answered.
    CallAnswered {
        job: JobId,
        /// Why not all of it was taken.
        error: Option<CallFailure>,
    },
    /// A target of a job ended.
    TargetEnded {
        job: JobId,
        instance: InstanceName,
        verdict: Verdict,
    },
}
