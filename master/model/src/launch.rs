//! A launch as it is on record: since when, until when, what it made. Begun and ended by `world`, stored with its cluster.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{InstanceName, JobId};
use serde::{Deserialize, Serialize};

use super::rolling::Rolling;
use super::unix_ms::UnixMs;

/// One `launch` or `apply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Its job.
    pub job: JobId,
    /// When it began.
    pub started_ms: UnixMs,
    /// Until when every instance must have enrolled.
    pub deadline_ms: UnixMs,
    /// When it was over.
    pub ended_ms: Option<UnixMs>,
    /// Whether it had anything to do.
    pub changed: bool,
    /// Why it failed; empty when it did not.
    pub error: String,
    /// Instances that it asked machines for: what a rollback terminates.
    pub made: Vec<InstanceName>,
    /// Of an apply: the instances whose stages it runs, and by which it is judged. `None` = all, as a launch.
    #[serde(default)]
    pub only: Option<BTreeSet<InstanceName>>,
    /// An operator cancelled it: no stage of it starts any more.
    #[serde(default)]
    pub cancelled: bool,
    /// What it made is terminated, or will be when it shows up late.
    #[serde(default)]
    pub rolled_back: bool,
    /// How long its instances have to enrol; the deadline is put off by it when machines are made again.
    #[serde(default)]
    pub timeout_ms: u64,
    /// How often each instance's silent machine was made again.
    #[serde(default)]
    pub replaced: BTreeMap<InstanceName, u32>,
    /// Instances whose machines were stopped when it began: it starts them and waits for their agents.
    #[serde(default)]
    pub starts: BTreeSet<InstanceName>,
    /// How it goes over instances that were ready, where they are not changed all at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Rolling>,
}

impl Launch {
    /// Its rolling, while somebody may still be given a turn.
    pub(crate) fn active_rolling(&self) -> Option<&Rolling> {
        let is_on = self.ended_ms.is_none() && !self.cancelled;
        let rolling = self.rolling.as_ref().filter(|_| is_on);
        rolling.filter(|rolling| rolling.stopped.is_none())
    }
}
