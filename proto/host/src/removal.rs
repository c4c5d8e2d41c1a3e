//! Removes a folder with all that is in it, and nothing else: never through a link, never across a mount. For both sides;
//! nothing else in the workspace removes folders with their content (see `clippy.toml`).
//!
//! A script that runs as root may mount anything anywhere, and a bind mount of the same file system looks like a plain
//! folder to stat(2). So it is asked for first, before anything is removed: by the kernel's list of mounts
//! (proc_pid_mountinfo(5)). What is mounted only after that is noticed at each folder that is entered, by the id of its
//! mount (statx(2), STATX_MNT_ID; Linux 5.8, before it the device).

mod mounts;
mod scratch;
mod walk;

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode};

pub use mounts::mounts_from;
pub use scratch::Scratch;
use walk::{OPEN, Walk, unlink};

/// What can't be removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something is mounted there: what it holds belongs to somebody else. Nothing, or not all, was removed.
    #[error("something is mounted on {}: unmount it first", .0.display())]
    Mounted(PathBuf),
    /// A file or folder can't be read or removed.
    #[error("cannot remove {}", path.display())]
    Io {
        /// What is still there.
        path: PathBuf,
        /// As open(2), unlink(2), rmdir(2).
        source: io::Error,
    },
}

impl Error {
    /// Whether there was nothing to remove.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl From<Error> for io::Error {
    /// Keeps the kind, and everything in one line.
    fn from(error: Error) -> Self {
        match &error {
            Error::Mounted(_) => Self::new(io::ErrorKind::ResourceBusy, error),
            Error::Io { source, .. } => Self::new(source.kind(), format!("{error}: {source}")),
        }
    }
}

/// Removes the file, link or folder `path`; a folder with all that is in it. Links in the path to it are followed, links
/// below it are removed as what they are. Folders that their owner may not enter are opened up first.
///
/// # Errors
/// When there is nothing of that name; when something is mounted on it or below it, and then nothing was removed; at the
/// first thing that can't be removed.
pub fn remove_tree(path: &Path) -> Result<(), Error> {
    let at = |source: io::Error| Error::Io {
        path: path.to_owned(),
        source,
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(at(io::ErrorKind::InvalidInput.into()));
    };
    let parent = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    let parent = parent.canonicalize().map_err(at)?;
    let real = parent.join(name);
    let folder = fs::open(&parent, OPEN, Mode::empty()).map_err(|error| at(error.into()))?;
    let stat = fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
    let stat = stat.map_err(|error| at(error.into()))?;
    if let Some(mounted) = mounts_from(&real).map_err(at)?.into_iter().next() {
        return Err(Error::Mounted(mounted));
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return unlink(&folder, name, AtFlags::empty(), &real);
    }
    Walk::enter(&folder, name, real.clone())?.empty()?;
    unlink(&folder, name, AtFlags::REMOVEDIR, &real)
}

#[cfg(test)]
mod tests;
