//! Who owns a run: the lock on its record, and the pid of the shim behind it. Used by shims, which hold the lock, and by the
//! runner, which takes it before it writes an end in a dead shim's stead.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Name of the record in a run's folder: one line. Held (flock) by a shim until it has written the end, and by the agent
/// while it writes one in a dead shim's stead. A second line is the pid of the shim, which is also its session; without it
/// no shim got so far as to start something. One file for all that, as each costs more than all that is in it.
pub const SPEC: &str = "spec.json";

/// The shim that a run has or had; `None` when none came so far as to start something.
pub fn pid_in(dir: &Path) -> Option<i32> {
    let text = fs::read_to_string(dir.join(SPEC)).ok()?;
    text.split_once('\n')?.1.trim().parse().ok()
}

/// Takes a run's lock if no shim holds it: while the file is open no shim can start.
///
/// # Errors
/// As open(2) and flock(2).
pub fn lock_if_free(dir: &Path) -> io::Result<Option<File>> {
    let mut lock = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.join(SPEC))?;
    lock.flush()?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_only_while_nobody_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_if_free(dir.path()).unwrap();
        assert!(held.is_some());
        assert!(lock_if_free(dir.path()).unwrap().is_none());
        drop(held);
        assert!(lock_if_free(dir.path()).unwrap().is_some());
    }
}
