//! What an agent and a shim send each other over the shim's standard input, a socket. To the shim: commands, each as JSON
//! behind its length, one run after the other. What is torn is not started, so an agent that dies while it writes has
//! started nothing; what is secret in it is in no further file on disk. Back: [`FREE`].

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mask::HiddenSecret;

/// Name of the file with the process's standard input, when there is one.
pub(crate) const STDIN: &str = "stdin";

/// What a shim answers when nothing is left of the command that it was given.
pub(crate) const FREE: &[u8] = b"\n";

/// A user to become before the program is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Become {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// What a command is given in secret; never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenSecrets {
    /// Where they are as files: removed at its end.
    pub folder: PathBuf,
    /// What is hidden in its output.
    pub hidden: Vec<HiddenSecret>,
}

/// One process to be started.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// The folder of its run.
    pub dir: PathBuf,
    /// The run, for the first frame.
    pub run_id: String,
    /// The boot, for the first frame.
    pub boot_id: String,
    /// The program, then its arguments. A program without a slash is searched for in the PATH of `env`.
    pub argv: Vec<String>,
    /// Working folder, absolute.
    pub cwd: String,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Another user than root.
    pub become_user: Option<Become>,
    /// Put before its standard error; whole lines.
    #[serde(default)]
    pub note: String,
    /// SHA-256 of what the templates of its stage have become, for the end record; empty without any.
    #[serde(default)]
    pub rendered: String,
    /// What it is given in secret.
    #[serde(default)]
    pub secrets: Option<GivenSecrets>,
    /// Ended after this; zero = never.
    pub timeout: Duration,
    /// Ended when it prints nothing for this long; zero = never.
    pub silence_timeout: Duration,
    /// Output that is kept.
    pub output_cap_bytes: u64,
}

impl CommandSpec {
    /// As it is sent: the length of the JSON in 8 bytes, little-endian, and the JSON.
    ///
    /// # Errors
    /// When it can't be written as JSON, which does not happen.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 8];
        serde_json::to_writer(&mut bytes, self)?;
        let len = bytes.len() as u64 - 8;
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        Ok(bytes)
    }

    /// Reads the next one; `None` where there is none, or not all of it, any more.
    ///
    /// # Errors
    /// As read(2); when it is not a command.
    pub fn read(mut from: impl Read) -> io::Result<Option<Self>> {
        let mut len = [0; 8];
        match from.read_exact(&mut len) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let len = u64::from_le_bytes(len);
        // Most fit in one read(2).
        let mut bytes = Vec::with_capacity(4 << 10);
        from.take(len).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == len {
            true => Ok(Some(serde_json::from_slice(&bytes)?)),
            false => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(word: &str) -> CommandSpec {
        CommandSpec {
            dir: "/d".into(),
            run_id: "r".into(),
            boot_id: "b".into(),
            argv: vec![word.to_owned()],
            cwd: "/".into(),
            env: BTreeMap::new(),
            become_user: None,
            note: String::new(),
            rendered: String::new(),
            secrets: None,
            timeout: Duration::ZERO,
            silence_timeout: Duration::ZERO,
            output_cap_bytes: 1,
        }
    }

    #[test]
    fn one_is_read_after_the_other_and_what_is_torn_is_none() {
        let long = "x".repeat(100_000);
        let bytes = [command("first"), command(&long)].map(|c| c.to_bytes().unwrap());
        let bytes = bytes.concat();
        let mut from = bytes.as_slice();
        assert_eq!(
            CommandSpec::read(&mut from).unwrap().unwrap().argv,
            ["first"]
        );
        assert_eq!(CommandSpec::read(&mut from).unwrap().unwrap().argv, [long]);
        assert!(CommandSpec::read(&mut from).unwrap().is_none());
        let first = command("first").to_bytes().unwrap();
        for cut in 0..first.len() {
            assert!(CommandSpec::read(&first[..cut]).unwrap().is_none(), "{cut}");
        }
        assert!(
            CommandSpec::read(
                [[1, 0, 0, 0, 0, 0, 0, 0].as_slice(), b"x"]
                    .concat()
                    .as_slice()
            )
            .is_err()
        );
    }
}
