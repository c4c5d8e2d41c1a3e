//! The end of a run on disk: written although the disk is full for a while, and synced only where that is of use.

use std::io;

use rustix::event::{Timespec, poll};

use crate::runner::spool::SpoolWriter;

/// How often and how many times the end record is tried on a full disk.
const EVERY: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
const TRIES: u32 = 600;

/// Brings the end of a run to disk; nothing where there is none.
///
/// # Errors
/// As fdatasync(2), once it has been tried for ten minutes.
pub(super) fn sync(spool: Option<SpoolWriter>) -> io::Result<()> {
    spool.map_or(Ok(()), |mut spool| retry_on_full_disk(|| spool.sync()))
}

/// Tries it for ten minutes: an end that is not written would be taken for an interruption.
///
/// # Errors
/// The last one.
pub(super) fn retry_on_full_disk(mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut last = write();
    for _ in 1..TRIES {
        if last.is_ok() {
            break;
        }
        pause(EVERY)?;
        last = write();
    }
    last
}

fn pause(how_long: Timespec) -> io::Result<()> {
    match poll(&mut [], Some(&how_long)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
