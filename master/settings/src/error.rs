//! Why settings can't be used. Raised by every step from a file's text to the merged settings; printed by both programs.

use std::io;
use std::path::PathBuf;

use aot_host::environment::NotText;

/// Why settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A file can't be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file says something wrong.
    #[error("cannot use {}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What, with its line.
        message: String,
    },
    /// A variable can't be read.
    #[error(transparent)]
    Variable(#[from] NotText),
    /// A value makes no sense.
    #[error("{from} is {value:?}: {why}")]
    Value {
        /// Flag, variable or key.
        from: String,
        /// What was given.
        value: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// Nothing says where the state is to lie.
    #[error("cannot place {what}: neither {tried} is set")]
    NoHome {
        /// state dir or socket.
        what: &'static str,
        /// What was looked for.
        tried: &'static str,
    },
}
