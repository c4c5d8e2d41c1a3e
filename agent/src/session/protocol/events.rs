//! What goes into a session's decisions and what comes out of them. No code: shapes alone.

use std::time::{Duration, Instant};

use aot_proto::builtin::Builtin;
use aot_proto::ids::RunId;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::{
    BuiltinReply, ClusterFacts, ClusterFactsApplied, CopyProgress, FactsReport, MasterMessage,
    OpenShell, OpenTunnel, StartRun, Volumes, VolumesMounted,
};

/// What is decided on.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time is decided on; the largest message starts a stage"
)]
pub enum SessionInput {
    /// A message of the master's.
    Master(MasterMessage),
    /// A run's spool has this length now.
    Grown(RunId, u64),
    /// Facts were collected.
    FactsCollected(Box<FactsReport>),
    /// Cluster facts were applied, or not.
    Applied(ClusterFactsApplied),
    /// Volumes were put in place, or one was not.
    Mounted(VolumesMounted),
    /// A run was journalled (`Ok`), or why it was not.
    Started(String, Result<(), String>),
    /// A signing request for the next certificate is made; `None` when it could not be.
    Csr(Option<Vec<u8>>),
    /// A renewed certificate is in place; the next one is wanted then.
    Installed(Instant),
    /// A file was read for a builtin, or why it was not.
    FileRead(BuiltinReply),
    /// How far a copy's files have come.
    Fetched(CopyProgress),
    /// Time has passed.
    Tick,
    /// The agent is to stop.
    Stop,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum SessionOutput {
    /// Send it to the master.
    Send(Up),
    /// Dial these from now on, as far as they can be dialled: not yet made harmless.
    LearnMasters(Vec<String>),
    /// Obey no master of this cluster with a lower epoch from now on.
    LearnEpoch(i64),
    /// Give the machine this host name, when it has another.
    NameHost(String),
    /// Collect facts; the main login user is this one.
    CollectFacts(String),
    /// Put cluster facts of this cluster in place.
    Apply(String, Box<ClusterFacts>),
    /// Journal and start a run.
    Start(Box<StartRun>),
    /// Cancel a run with this grace in ms.
    Cancel(RunId, u64),
    /// Drop a run's spool.
    Forget(RunId),
    /// Put volumes in place.
    Mount(Volumes),
    /// Read a file for the call of this id.
    ReadFile(u64, Builtin),
    /// Open a terminal, on a connection of its own.
    OpenShell(Box<OpenShell>),
    /// Open a forwarded connection, on a connection of its own.
    OpenTunnel(Box<OpenTunnel>),
    /// Make a key and a signing request.
    MakeCsr,
    /// Check and store a renewed certificate (PEM).
    Install(String),
    /// End the session once everything is sent.
    Close(Closed),
}

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The agent stops.
    Stopping,
    /// The machine is to be rebooted.
    Reboot,
    /// The master said goodbye.
    ByMaster {
        /// Why.
        reason: String,
        /// It asks to come back within this.
        within: Duration,
    },
    /// Nothing came from the master for too long.
    Silent,
    /// The stream ended or broke.
    Broken(String),
    /// The master does not take our certificate, or not any more.
    Refused(String),
}
