//! Why a session is over: decided by `protocol`, or brought about from outside through `end`. Its texts go into events and logs.

use aot_proto::version::NoCommonVersion;

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// It said goodbye, or ended the stream.
    #[error("the agent disconnected{0}")]
    ByAgent(String),
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Broken(&'static str),
    /// It said nothing for too long.
    #[error("the agent stopped answering")]
    Silent,
    /// It broke the protocol.
    #[error("the agent broke the protocol: {0}")]
    Protocol(&'static str),
    /// It speaks no version of the protocol that is known here.
    #[error(transparent)]
    Version(#[from] NoCommonVersion),
    /// A newer session of the same instance.
    #[error("a newer session took over")]
    Replaced,
    /// The same, and this one answered after that: two processes hold the identity.
    #[error("a newer session took over, and this one still answers")]
    StillThere,
    /// Its identity was taken away.
    #[error("its identity was revoked")]
    Revoked,
    /// Its certificate is over, and it did not ask for another one in time.
    #[error("its certificate has expired")]
    Expired,
    /// More waits for it than may.
    #[error("the agent did not read what it was sent")]
    Unread,
    /// Another master has the cluster: nobody listens here any more.
    #[error("the cluster has moved to another master")]
    Moved,
    /// The master stops.
    #[error("the master is stopping")]
    Stopping,
}

impl Closed {
    /// Whether the agent is no longer to be heard, nor anything to be sent to it.
    pub fn is_at_once(&self) -> bool {
        matches!(
            self,
            Self::Revoked | Self::Expired | Self::Unread | Self::Moved
        )
    }
}
