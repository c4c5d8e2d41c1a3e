//! What a job does on each of its targets: a command, or a copy to or from it. Stored once, beside the job's record.

use std::collections::BTreeMap;

use aot_proto::limits::DEFAULT_OUTPUT_CAP_BYTES;
use serde::{Deserialize, Serialize};

use super::secret::SecretUse;

/// What a job does on each of its targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Runs a command.
    Command(Exec),
    /// Fetches an archive and unpacks it.
    CopyIn(CopyIn),
    /// Packs these absolute paths and prints the archive.
    CopyOut(Vec<String>),
}

impl Task {
    /// Output that is kept of each target, both streams together, bytes. Archives go whole: what a spool of one may hold
    /// is bounded by the disk.
    pub fn output_cap(&self) -> u64 {
        match self {
            Self::Command(exec) if exec.output_cap_bytes > 0 => exec.output_cap_bytes,
            Self::Command(_) | Self::CopyIn(_) => DEFAULT_OUTPUT_CAP_BYTES,
            Self::CopyOut(_) => u64::MAX,
        }
    }
}

/// A command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// More environment.
    pub env: BTreeMap<String, String>,
    /// Folder; empty = /.
    pub cwd: String,
    /// User; empty = root.
    pub user: String,
    /// Its standard input.
    pub stdin: Vec<u8>,
    /// Longest run, 0 = none.
    pub timeout_ms: u64,
    /// Output that is kept of each target, bytes; 0 = the default.
    #[serde(default)]
    pub output_cap_bytes: u64,
    /// What it is given in secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
}

/// An archive for a target. See `CopyInSpec` of agent.proto.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyIn {
    /// Of the archive, hex.
    pub sha256: String,
    /// Of the archive.
    pub bytes: u64,
    /// Where it goes, absolute.
    pub path: String,
    /// `path` is a folder, made when missing.
    pub into: bool,
    /// What may stand at the top of the archive; none = any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}
