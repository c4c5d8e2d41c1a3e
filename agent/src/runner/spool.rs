//! A run's spool on disk: frames appended by one writer, read from any offset by the session. Used by the shim (write),
//! by the runner (ends that no shim wrote) and by the session (read). Never rewrites what was written.

mod read;
mod scan;
mod writer;

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aot_proto::v1::{EndKind, Ended};

pub(crate) use read::read_open;
pub use read::{Chunk, read};
pub(crate) use scan::{Scan, scan, scan_open, shift};
pub(crate) use writer::SpoolWriter;

/// Name of the spool in a run's folder.
pub const SPOOL: &str = "spool";
/// Mode of a spool that grows.
const OPEN_MODE: u32 = 0o600;
/// Mode of a spool whose last frame is the end record: nobody may write to it any more.
const ENDED_MODE: u32 = 0o400;

/// An end record that is not an exit.
pub(crate) fn ended(kind: EndKind, detail: impl Into<String>) -> Ended {
    Ended {
        kind: kind.into(),
        detail: detail.into(),
        ..Ended::default()
    }
}

/// For a reader and a writer in one. Who is not root can't open a marked spool to write: the mark goes, and comes back with
/// the end record.
fn open_to_write(path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(OPEN_MODE)
            .open(path)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(path, Permissions::from_mode(OPEN_MODE))?;
            open()
        }
        other => other,
    }
}

/// Makes the spool in `dir`, so that it can be followed from its first byte, whatever becomes of its name.
///
/// # Errors
/// As open(2).
pub(crate) fn make(dir: &Path) -> io::Result<File> {
    open_to_write(&dir.join(SPOOL))
}

/// What stat(2) says of a spool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpoolStat {
    /// Its length, a torn last frame included.
    pub bytes: u64,
    /// Marked as ended. After a power cut the mark alone says nothing: it may have outlived the end record.
    pub marked: bool,
    /// Whether it still has a name: its run's folder may have been removed while it was open.
    pub has_name: bool,
}

impl SpoolStat {
    fn of(meta: &Metadata) -> Self {
        Self {
            bytes: meta.len(),
            marked: is_marked(meta),
            has_name: meta.nlink() > 0,
        }
    }
}

/// Length and mark of the spool at `path`.
///
/// # Errors
/// As stat(2).
pub fn stat(path: &Path) -> io::Result<SpoolStat> {
    Ok(SpoolStat::of(&fs::metadata(path)?))
}

/// [`stat`] of a spool that is open.
///
/// # Errors
/// As fstat(2).
pub(crate) fn stat_open(file: &File) -> io::Result<SpoolStat> {
    Ok(SpoolStat::of(&file.metadata()?))
}

fn is_marked(meta: &Metadata) -> bool {
    meta.permissions().readonly()
}

#[cfg(test)]
mod tests;
