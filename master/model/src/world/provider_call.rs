//! Calls to the provider of a cluster: what they ask, and what they come to.

use std::collections::BTreeMap;

use aot_proto::ids::{InstanceName, JobId, MachineId};

use crate::attestation::Secret;
use crate::job::JobKind;
use crate::machine::{ElasticIp, ErrorKind, Leftovers, Listing, Machine};
use crate::prerequisites::Prerequisites;

/// What a provider is asked.
#[derive(Debug)]
pub enum Call {
    /// Machines for a batch.
    Launch {
        /// The batch's client token.
        token: String,
    },
    /// To make and find the prerequisites of the launch.
    Prepare,
    /// Lasting addresses for these machines, each with its instance.
    AssignAddresses(Vec<(MachineId, InstanceName)>),
    /// Challenges as tags on these machines, each with its tag's value.
    SetChallenges(Vec<(MachineId, Secret)>),
    /// To remove the tags of challenges from these.
    RemoveChallenges(Vec<MachineId>),
    /// Why these are silent.
    Explain(Vec<MachineId>),
    /// What a job wants of its machines.
    Change {
        /// Whose call it is.
        job: JobId,
        /// [`JobKind::Start`], [`JobKind::Stop`] or [`JobKind::Reboot`].
        kind: JobKind,
        /// All of the job that have one, each once.
        machines: Vec<MachineId>,
    },
    /// To start the stopped machines of a launch.
    Start(Vec<MachineId>),
    /// All machines of the cluster.
    Describe,
    /// These machines, by their ids.
    Find(Vec<MachineId>),
    /// To end these.
    Terminate(Vec<MachineId>),
    /// Names for machines, those together that were made by one call.
    SetNames(Vec<Vec<(MachineId, InstanceName)>>),
    /// To delete what is left of the cluster.
    Cleanup,
}

/// What a call came to. An answer about machines names those that were asked about.
#[derive(Debug)]
pub enum CallAnswer {
    /// Of [`Call::Launch`].
    Launched {
        /// The batch's client token.
        token: String,
        /// Its machines, or why not.
        result: Result<Vec<Machine>, CallFailure>,
    },
    /// Of [`Call::Prepare`]: what the file's names stand for.
    Prepared(Result<Prerequisites, CallFailure>),
    /// Of [`Call::AssignAddresses`], for each machine.
    Addressed(Vec<(MachineId, Result<ElasticIp, CallFailure>)>),
    /// Of [`Call::SetChallenges`], for each machine.
    ChallengesSet(Vec<(MachineId, Result<(), CallFailure>)>),
    /// Of [`Call::RemoveChallenges`].
    ChallengesRemoved {
        /// From which.
        machines: Vec<MachineId>,
        /// Why from none of them.
        error: Option<CallFailure>,
    },
    /// Of [`Call::Explain`]: several lines each, for a person.
    Explained(BTreeMap<MachineId, String>),
    /// Of [`Call::Change`].
    Changed {
        /// Whose call it was.
        job: JobId,
        /// What became of its machines, or why nobody was asked.
        result: Result<Terminations, CallFailure>,
        /// Why not all of them change, in one message.
        error: Option<CallFailure>,
    },
    /// Of [`Call::Start`]: why not all of them start, in one message.
    Started(Option<String>),
    /// Of [`Call::Describe`].
    Described(Result<Listing, CallFailure>),
    /// Of [`Call::Find`].
    Found {
        /// Those that were asked for.
        machines: Vec<MachineId>,
        /// Those of them that are there, or why that is not known.
        result: Result<Listing, CallFailure>,
    },
    /// Of [`Call::Terminate`].
    Terminated {
        /// Those that were asked to end.
        machines: Vec<MachineId>,
        /// What became of them, or why nobody was asked.
        result: Result<Terminations, CallFailure>,
    },
    /// Of [`Call::SetNames`].
    Named {
        /// Those that were to be named.
        machines: Vec<MachineId>,
        /// Why not all of them have their names.
        result: Result<(), CallFailure>,
    },
    /// Of [`Call::Cleanup`]: what became of each thing.
    Cleaned(Result<Vec<ReceiptLine>, CallFailure>),
}

/// What a provider said about machines that were asked to end, or to change. Those that it does not name are on their way.
#[derive(Debug, Clone, Default)]
pub struct Terminations {
    /// It does not know them: they are gone, or too new.
    pub unknown: Vec<MachineId>,
    /// They are terminated already.
    pub terminated: Vec<MachineId>,
    /// They stay, and why.
    pub refused: Vec<(MachineId, CallFailure)>,
}

/// A provider's error, without what can't be decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailure {
    /// What to do about it.
    pub kind: ErrorKind,
    /// What may be there all the same.
    pub leftovers: Leftovers,
    /// For a person.
    pub message: String,
}

/// Kind, id, state of a thing that was to be deleted, and whether it is still there.
pub type ReceiptLine = (String, String, String, bool);
