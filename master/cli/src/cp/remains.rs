//! Folders in which copies are made up beside their place, and what is left of those whose program was killed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aot_archive::PART;
use aot_host::removal::{Scratch, remove_tree};
use rustix::fs::{FlockOperation, flock};

/// A folder on the same file system as its place, only ours, gone with this value. It is locked as long as its program
/// lives.
pub(super) struct StagingDir {
    folder: Scratch,
    /// Holds the lock (flock(2)), which ends with the process, however that ends.
    _lock: File,
}

impl StagingDir {
    /// A new one in `place`.
    ///
    /// # Errors
    /// As mkdir(2) and flock(2).
    pub(super) fn new(place: &Path) -> io::Result<Self> {
        let folder = Scratch::new_in(place, PART)?;
        let lock = File::open(folder.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what killed copies of this user left in `place`. What can't be removed stays: it is of no use, and no harm.
pub(super) fn remove(place: &Path) {
    let ours = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_ours = entry
            .metadata()
            .is_ok_and(|meta| meta.is_dir() && meta.uid() == ours && meta.mode() & 0o077 == 0);
        if name.as_encoded_bytes().starts_with(PART.as_bytes()) && is_ours && is_left(&entry.path())
        {
            let _ = remove_tree(&entry.path());
        }
    }
}

/// Whether nobody holds the lock of a folder. One that is just being made has none for a moment; it is empty then, so it
/// is left alone.
fn is_left(folder: &Path) -> bool {
    let empty = fs::read_dir(folder).map_or(true, |mut names| names.next().is_none());
    let Ok(lock) = File::open(folder) else {
        return false;
    };
    !empty && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_copy_left_goes_and_what_is_in_use_stays() {
        let dir = tempfile::tempdir().expect("a folder");
        let live = StagingDir::new(dir.path()).expect("a folder");
        let mode = fs::metadata(live.path()).expect("is there").mode();
        assert_eq!(mode & 0o777, 0o700, "only ours");
        fs::write(live.path().join("x"), "x").expect("writes");
        let dead = StagingDir::new(dir.path()).expect("a folder");
        fs::write(dead.path().join("x"), "x").expect("writes");
        let StagingDir {
            folder,
            _lock: lock,
        } = dead;
        let left = folder.persist();
        fs::create_dir(dir.path().join("mine")).expect("a folder");
        drop(lock);
        remove(dir.path());
        assert!(!left.exists(), "nobody uses it");
        assert!(live.path().join("x").exists() && dir.path().join("mine").exists());
    }
}
