//! A change of instances that are ready, some at a time, as it is on record: the paces with their launch, and each instance's
//! place with the instance. Begun and moved by `world` alone.

use std::collections::BTreeMap;

use aot_proto::ids::{JobId, RunId};
use serde::{Deserialize, Serialize};

use super::health::HealthSpec;
use super::pace::Pace;
use super::stage::StagePlan;
use super::unix_ms::UnixMs;

/// What is the same for all of one launch or apply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rolling {
    /// Whose instances have a pace of their own.
    pub groups: Vec<RollingGroup>,
    /// What they are changed to, by pool label.
    pub stages: BTreeMap<String, Vec<StagePlan>>,
    /// From this stage on all run again, also what succeeded.
    #[serde(default)]
    pub from: Option<usize>,
    /// Machines came or went with it, so templates may become others.
    #[serde(default)]
    pub moves: bool,
    /// Why nobody else has a turn.
    #[serde(default)]
    pub stopped: Option<String>,
}

/// Instances that are changed at one pace: a pool, or single instances of which the same is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollingGroup {
    /// For a person.
    pub label: String,
    /// How they are gone over.
    pub pace: Pace,
    /// What each must pass before its place goes to the next.
    #[serde(default)]
    pub health: Option<HealthSpec>,
    /// Groups that go first, since stages of this one need theirs.
    #[serde(default)]
    pub after: Vec<usize>,
    /// How many had been given a turn when a batch last ended, and when that was; only where there is a pause between batches.
    #[serde(default)]
    pub batch_ended: Option<(usize, UnixMs)>,
}

/// The place of an instance in the last launch or apply that went over it at a pace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RollingTurn {
    /// Its job.
    pub job: JobId,
    /// Which of its groups.
    pub group: usize,
    /// Who comes first in it.
    pub place: usize,
    /// How far it is.
    pub step: TurnStep,
    /// An earlier change was not found good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// The last line that a check which failed printed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
}

/// How far an instance is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TurnStep {
    /// It is as it was before, and waits.
    Waiting,
    /// An earlier change of it was under way when its agent was lost. It holds nobody up until it is back, and is changing from then on.
    Lost,
    /// Its stages are those to be; they run, or one of them failed.
    Changing,
    /// They have succeeded, and whether all is well is being asked.
    Checking {
        /// Tries so far.
        tries: u32,
        /// When the next one is due.
        next_ms: UnixMs,
        /// The one that is under way.
        run: Option<RunId>,
    },
    /// All is well.
    Passed,
    /// Its stages have succeeded, and all is not well.
    Unhealthy,
}

impl RollingTurn {
    /// It was changed, and nobody knows that all is well.
    pub fn is_unproven(&self) -> bool {
        match self.step {
            TurnStep::Waiting => self.unproven,
            TurnStep::Passed => false,
            TurnStep::Lost
            | TurnStep::Changing
            | TurnStep::Checking { .. }
            | TurnStep::Unhealthy => true,
        }
    }

    /// It has had a turn, or has one.
    pub fn has_begun(&self) -> bool {
        !matches!(self.step, TurnStep::Waiting | TurnStep::Lost)
    }

    /// It waits in this job.
    pub fn waits_in(&self, job: JobId) -> bool {
        self.job == job && self.step == TurnStep::Waiting
    }
}
