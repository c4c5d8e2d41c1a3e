//! A stage of an instance as it is on record: what to run, and how far it is. Moved by `world`, compared by `plan`.

mod end;
mod ledger_key;

use std::collections::BTreeMap;
use std::time::Duration;

use aot_proto::ids::RunId;
use serde::{Deserialize, Serialize};

pub use end::{LastLines, StageEnd, StageOutcome, describe_stage_end, stage_end};
pub use ledger_key::{key_with_secrets, ledger_key};

use super::secret::{SecretUse, SecretVersions};
use super::spec::Need;
use super::unix_ms::UnixMs;

/// What a stage is, from the file and its bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// As messages and views call it.
    pub name: String,
    /// Content address of the bundle, hex.
    pub bundle_sha256: String,
    /// Its size.
    pub bundle_bytes: u64,
    /// Arguments of bootstrap.sh.
    pub args: Vec<String>,
    /// More environment.
    pub env: BTreeMap<String, String>,
    /// Longest run.
    pub timeout: Option<Duration>,
    /// Longest silence.
    pub silence_timeout: Option<Duration>,
    /// What it waits for.
    pub needs: Vec<Need>,
    /// Same key = same bundle, args and env = done once is done, unless its templates become something else.
    pub key: String,
    /// The bundle has templates, which are rendered on the machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub templates: bool,
    /// What it is given in secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
    /// Versions of those of them that its key is made of: none, unless another value is to run it again.
    #[serde(default, skip_serializing_if = "SecretVersions::is_empty")]
    pub secret_versions: SecretVersions,
}

/// What the templates of a stage were rendered from, and what they have become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderRecord {
    /// SHA-256 of the variables, hex.
    pub vars_sha256: String,
    /// Generation of the cluster facts that the machine had at least.
    pub generation: u64,
    /// SHA-256 of the files that they have become, as the agent says; empty while that is not known.
    pub sha256: String,
}

/// One stage of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What to run.
    pub plan: StagePlan,
    /// How far it is.
    pub state: StageState,
    /// Tries so far; the current one's number while it runs.
    pub attempt: u32,
    /// Reboots (exit 194) within this attempt.
    pub reboots: u32,
    /// Times in a row that a try was interrupted.
    pub interruptions: u32,
    /// The run that is, or was, its last try.
    pub run: Option<RunId>,
    /// Exit status of the last try, when it had one.
    pub exit_code: Option<i32>,
    /// Why, for a person.
    pub detail: String,
    /// Start of the last try.
    pub started_ms: UnixMs,
    /// End of the last try; 0 while it runs.
    pub ended_ms: UnixMs,
    /// Boot id when a reboot was asked for; another one means that it happened.
    pub reboot_from: String,
    /// How the last try ended; `None` while it runs, and in records of before this was kept.
    #[serde(default)]
    pub outcome: Option<StageOutcome>,
    /// The last that it printed, when it did not succeed.
    #[serde(default, skip_serializing_if = "LastLines::is_empty")]
    pub printed: LastLines,
    /// Of a stage with templates: of its last try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rendered: Option<RenderRecord>,
    /// It has succeeded, as this says, and is run again only if its templates become something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Stage>>,
}

impl Stage {
    /// A new one that waits.
    pub fn waiting(plan: StagePlan) -> Self {
        Self {
            plan,
            state: StageState::Waiting,
            attempt: 0,
            reboots: 0,
            interruptions: 0,
            run: None,
            exit_code: None,
            detail: String::new(),
            started_ms: 0,
            ended_ms: 0,
            reboot_from: String::new(),
            outcome: None,
            printed: LastLines::default(),
            rendered: None,
            before: None,
        }
    }

    /// How the last try ended; `None` when none has.
    pub fn outcome(&self) -> Option<StageOutcome> {
        self.outcome.or(match self.state {
            StageState::Succeeded => Some(StageOutcome::Succeeded),
            StageState::Failed => Some(StageOutcome::Failed),
            StageState::Waiting | StageState::Running | StageState::Rebooting => None,
        })
    }

    /// Waits again, as if it had never run on this machine; attempts keep counting.
    pub fn reset(&mut self) {
        let attempt = self.attempt;
        *self = Self::waiting(self.plan.clone());
        self.attempt = attempt;
    }
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageState {
    /// Not begun, or to be tried again.
    Waiting,
    /// A run was asked for.
    Running,
    /// It asked for a reboot, which has not happened yet.
    Rebooting,
    /// Done, and stays so while its key stays the same.
    Succeeded,
    /// Not done; nothing after it runs.
    Failed,
}

impl StageState {
    /// As users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Rebooting => "rebooting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}
