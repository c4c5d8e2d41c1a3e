//! Why the world does not do what an agent or an operator asked for.

use aot_proto::ids::MachineId;

use crate::attestation::Flaw;

/// Why an agent was refused: for the log. The wire says less.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
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
    /// It has an agent, which alone speaks for it.
    #[error("{0} has joined: its agent reports for it")]
    Joined(MachineId),
    /// The machine is no longer wanted.
    #[error("{0} is being terminated")]
    Ending(MachineId),
    /// An operator has shut it out.
    #[error("the identity of {0} was revoked")]
    Revoked(MachineId),
    /// It has lost its right to be that instance, or another session speaks for it now.
    #[error("{0} is no longer that instance, or not in this session")]
    NotCurrent(MachineId),
    /// Its identity document does not prove that it is the machine.
    #[error("{machine} is not admitted")]
    NotProven {
        machine: MachineId,
        #[source]
        flaw: Flaw,
    },
    /// It answered its challenge with another value.
    #[error("{0} answered its challenge wrongly: the request does not come from that machine")]
    WrongAnswer(MachineId),
    /// Its last challenge is over, and its tag not yet removed.
    #[error("the last challenge of {0} is still being removed")]
    Unchallenging(MachineId),
    /// It answered a challenge whose time is up, or that nobody gave it.
    #[error("{0} answered its challenge too late")]
    LateAnswer(MachineId),
}

/// Why an operator's request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// No such cluster.
    #[error("no cluster {0:?}")]
    NoCluster(String),
    /// No such job, or one that was over long ago.
    #[error("no job {0:?}")]
    NoJob(String),
    /// No such instances.
    #[error("the target matches no instance of cluster {0:?}")]
    NoInstance(String),
    /// No such machines.
    #[error("no instance of the target in cluster {0} has a machine")]
    NoMachine(String),
    /// Something is in the way.
    #[error("{0}")]
    Conflict(String),
    /// It names what is not there.
    #[error("{0}")]
    Invalid(String),
}
