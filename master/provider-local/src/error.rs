//! What can go wrong with a clone, and what of that the trait's callers learn.

use std::io;
use std::path::PathBuf;

use aot_proto::ids::{InstanceName, MachineId};
use aot_provider::{ErrorKind, Leftovers, ProviderError};

use crate::control::END_LIMIT;

/// What can go wrong with a clone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or process of ours.
    #[error("the clones' folder can't be used")]
    Io(#[from] io::Error),
    /// The agent to put inside.
    #[error("the agent {} cannot be read", path.display())]
    Agent {
        /// Where it should lie.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No such clone in this cluster.
    #[error("no local machine {0} in this cluster")]
    Unknown(MachineId),
    /// It can't be started again.
    #[error("local machine {0} is terminated")]
    Terminated(MachineId),
    /// The token's machines are gone.
    #[error("the client token was used for {0}, which is terminated: launch with a new attempt")]
    TokenSpent(MachineId),
    /// Same token, other members.
    #[error("the client token was used for other members: launch with a new attempt")]
    TokenMismatch,
    /// It did not come up.
    #[error("local machine {id} ({name}) did not start: {why}")]
    Start {
        /// Its id.
        id: MachineId,
        /// Its member.
        name: InstanceName,
        /// What its supervisor said.
        why: String,
    },
    /// It did not go down.
    #[error("local machine {0} did not end within {limit} s", limit = END_LIMIT.as_secs())]
    Stuck(MachineId),
    /// No address left.
    #[error("too many local machines")]
    TooMany,
}

impl Error {
    /// For the trait; `leftovers` is what the call at hand may have made.
    pub(crate) fn into_provider(self, leftovers: Leftovers) -> ProviderError {
        let (kind, leftovers) = match &self {
            Self::TokenSpent(_) => (ErrorKind::TokenSpent, Leftovers::Unknown),
            Self::TokenMismatch => (ErrorKind::Invalid, Leftovers::Unknown),
            Self::Agent { .. } | Self::Unknown(_) | Self::Terminated(_) => {
                (ErrorKind::Invalid, leftovers)
            }
            Self::TooMany => (ErrorKind::Quota, leftovers),
            Self::Io(_) | Self::Start { .. } | Self::Stuck(_) => (ErrorKind::Other, leftovers),
        };
        let message = match std::error::Error::source(&self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        };
        ProviderError {
            kind,
            leftovers,
            message,
            code: None,
        }
    }
}
