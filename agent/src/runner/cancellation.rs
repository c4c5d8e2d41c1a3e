//! A cancellation on its way from the agent to a shim: a file in the run's folder, and a signal that says to read it. Used by
//! the runner, which asks, and by shims, which heed it. The file comes first: a shim that comes up later finds it by itself.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use aot_host::files::write_atomic;
use rustix::process::{Pid, kill_process};

use super::journal::{lock_if_free, pid_in};
use super::signals::CANCEL_SIGNAL;

/// Name of the file in the run's folder: the grace in ms, in decimal; 0 = the default.
pub const CANCEL: &str = "cancel";

/// Detail of the end of a run that was cancelled in time.
pub(crate) const NOT_STARTED: &str = "cancelled before it was started";

/// Whether the run in `dir` is to be cancelled.
pub(crate) fn is_requested(dir: &Path) -> bool {
    dir.join(CANCEL).exists()
}

/// Puts a cancellation on record, whether a shim is there or not.
///
/// # Errors
/// As write(2).
pub(crate) fn request(dir: &Path, grace_ms: u64) -> io::Result<()> {
    write_atomic(&dir.join(CANCEL), grace_ms.to_string().as_bytes(), 0o600)
}

/// From TERM to KILL, as the cancellation says; `default` where it says nothing of use.
pub(crate) fn grace(dir: &Path, default: Duration) -> Duration {
    let text = fs::read_to_string(dir.join(CANCEL)).unwrap_or_default();
    match text.trim().parse() {
        Ok(ms) if ms > 0 => Duration::from_millis(ms),
        _ => default,
    }
}

/// Has the run's shim read the cancellation now. One that has not come up yet looks for the file when it does.
pub fn wake(dir: &Path) {
    // Only while its lock is held the number in the record is that of a shim; afterwards the kernel may give it to anybody.
    let lives = matches!(lock_if_free(dir), Ok(None));
    if let Some(pid) = pid_in(dir).filter(|_| lives).and_then(Pid::from_raw) {
        // Gone meanwhile: then there is nothing to cancel, and this signal does nothing to anybody else.
        let _ = kill_process(pid, CANCEL_SIGNAL);
    }
}
