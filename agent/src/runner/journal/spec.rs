//! A run as it was asked for: the record in its folder, as JSON. Read by all of the runner; only `from_wire` makes one.

use std::collections::BTreeMap;

use aot_proto::ids::RunId;
use serde::{Deserialize, Serialize};

/// One run as it was asked for. Never printed: its environment may hold secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub run_id: RunId,
    /// The job that it belongs to.
    pub job_id: String,
    /// Boot during which it was journalled.
    pub boot_id: String,
    /// 0 = none.
    pub timeout_ms: u64,
    /// 0 = none.
    pub silence_timeout_ms: u64,
    /// Output that is kept; 0 = the default.
    pub output_cap_bytes: u64,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    pub what: Work,
}

/// What a run does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    Exec {
        argv: Vec<String>,
        /// Empty = /.
        cwd: String,
        /// Empty = root.
        user: String,
    },
    /// One attempt of a stage.
    Stage {
        /// From 0.
        index: u32,
        /// For people.
        name: String,
        /// Of the bundle, hex.
        bundle_sha256: String,
        /// Of the bundle, packed.
        bundle_bytes: u64,
        /// Of bootstrap.sh.
        args: Vec<String>,
        /// From 1.
        attempt: u32,
        /// How often it asked for a reboot.
        reboots: u32,
        /// How its templates are rendered; none = they are not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        render: Option<RenderSpec>,
    },
    /// Files to this machine.
    CopyIn {
        /// Of the archive, hex.
        sha256: String,
        /// Of the archive.
        bytes: u64,
        /// Where they go, absolute.
        path: String,
        /// `path` is a folder, made when missing.
        into: bool,
        /// What may stand at the top of the archive; none = any.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        names: Vec<String>,
    },
    /// Files from this machine.
    CopyOut {
        /// Absolute.
        paths: Vec<String>,
    },
}

/// How the templates of a stage's bundle are rendered.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RenderSpec {
    /// The variables that they see, a JSON object.
    pub vars_json: String,
    /// The stage is not run when they become what has this SHA-256, hex; empty = it is run in any case.
    pub unless: String,
}
