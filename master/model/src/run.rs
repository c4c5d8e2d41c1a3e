//! A run as it is on record: one start of one process on one instance. Made by `world` before its agent hears of it.

use aot_proto::ids::{JobId, RunId};
use serde::{Deserialize, Serialize};

use super::key::InstanceKey;
use super::outcome::Verdict;
use super::unix_ms::UnixMs;

/// One start of one process on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id: the agent journals it, and starts it at most once.
    pub id: RunId,
    /// The job that wanted it.
    pub job: JobId,
    /// The instance that runs it: nobody else is believed about it.
    pub at: InstanceKey,
    /// A stage of its instance, or the task of its job.
    pub what: RunKind,
    /// As far as its agent has confirmed.
    pub state: RunState,
    /// When it was asked for.
    pub asked_ms: UnixMs,
    /// How it ended.
    pub verdict: Option<Verdict>,
    /// Someone asked for its end, with this many milliseconds between TERM and KILL (0 = the agent's default).
    #[serde(default)]
    pub cancel: Option<u64>,
    /// When that was first asked for; 0 = never.
    #[serde(default)]
    pub cancelled_ms: UnixMs,
}

/// What a run runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub enum RunKind {
    /// A stage; all else is in the instance's record.
    Stage { index: usize, attempt: u32 },
    /// The task of its job.
    Task,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// On disk here; the agent may or may not have heard of it.
    Asked,
    /// In the agent's journal.
    Accepted,
    /// Its end is on record.
    Ended,
}
