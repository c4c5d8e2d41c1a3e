//! What a shim is told: one JSON file in the run's folder, written by the agent before it starts the shim.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files::write_private;

/// Name of the file in a run's folder.
pub const COMMAND: &str = "command.json";
/// Name of the file with the process's standard input, when there is one.
pub const STDIN: &str = "stdin";

/// A user to become before the program is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Become {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Every group.
    pub groups: Vec<u32>,
}

/// One process to be started.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The run, for the first frame.
    pub run_id: String,
    /// The boot, for the first frame.
    pub boot_id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working folder.
    pub cwd: String,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Another user than root.
    pub become_user: Option<Become>,
    /// Ended after this; zero = never.
    pub timeout: Duration,
    /// Ended when it prints nothing for so long; zero = never.
    pub silence_timeout: Duration,
    /// Output that is kept.
    pub output_cap_bytes: u64,
}

impl Command {
    /// Writes it into the run's folder, mode 0600. Not synced: a shim is started right after, or never.
    ///
    /// # Errors
    /// As write(2).
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        write_private(&dir.join(COMMAND), &serde_json::to_vec(self)?)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// As read(2); when it is no such file.
    pub fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join(COMMAND))?)?)
    }
}
