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
    /// A stage of its instance, the task of its job, or a check.
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
    /// What it printed, where that is not in the records; on record with its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<LongOutput>,
}

/// An output that is too long for the records: what is found of it later is compared with this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongOutput {
    /// Bytes of its spool, as the master had it that took its end.
    pub bytes: u64,
    /// They came to the spool's end. Else the run was ended in another way, and the rest was never here.
    pub ended: bool,
    /// The id of the master of several on whose disk it is; empty where it is in their bucket, or where there is one master.
    #[serde(default)]
    pub at: String,
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
    /// Whether all is well after a change of its instance.
    Health { argv: Vec<String>, timeout_ms: u64 },
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
