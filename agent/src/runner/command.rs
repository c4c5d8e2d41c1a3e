//! What a shim is told: JSON on its standard input, in a file in memory that the agent has written to its end before it
//! starts the shim. So it is there whole when the agent dies, and what is secret in it is in no further file on disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

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
    /// A file in memory that holds it, to be read from its start (memfd_create(2)).
    ///
    /// # Errors
    /// As memfd_create(2) and write(2).
    pub fn to_file(&self) -> io::Result<File> {
        let mut file = File::from(memfd_create("command", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        Ok(file)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// As read(2); when it is no such file.
    pub fn read(mut from: impl Read) -> io::Result<Self> {
        // Most fit in one read(2).
        let mut bytes = Vec::with_capacity(4 << 10);
        from.read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}
