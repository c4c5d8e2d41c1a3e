//! What a program does before and besides its commands: prints a result, says an error, names its exit status. Used by both
//! programs of the master.

use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aot_host::chain::Chain;

use crate::view::{StreamKind, Streams};

/// Exit status after bad usage, bad settings, a bad file.
pub const BAD_USAGE: u8 = 2;

/// Prints an error with all that it came from.
pub fn fail(error: &dyn Error, code: u8) -> ExitCode {
    message(&format!("error: {}", Chain(error)));
    ExitCode::from(code)
}

/// Prints something that is not a result. Where it can't be printed, the exit code still says it.
pub fn message(text: &str) {
    let _ = writeln!(Streams::of_process().stderr, "{text}");
}

/// Prints a result.
pub fn print(text: &str, json: bool) -> ExitCode {
    let mut out = Streams::of_process().stdout;
    out.set_seen(StreamKind { json, ..out.seen() });
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Whoever read it has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// What a program is built from: its version, and the commit where that is known.
pub fn build(commit: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match commit {
        "" => version.to_owned(),
        commit => format!("{version} ({commit})"),
    }
}

/// The path from the root on, links and all; as it is where there is no working folder.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
