//! Folders for a while: what a caller makes beside something, and moves into its place or gives up.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;

use super::remove_tree;

/// A new folder (mode 0700) that is removed with all that is in it when it is dropped, unless it was persisted.
#[derive(Debug)]
pub struct Scratch {
    path: Option<PathBuf>,
}

impl Scratch {
    /// Makes it in `parent`, with a name of its own behind `prefix`.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn new_in(parent: &Path, prefix: &str) -> io::Result<Self> {
        for number in 0_u64.. {
            let path = parent.join(format!("{prefix}{}-{number}", std::process::id()));
            match mkdir(&path, Mode::RWXU) {
                Ok(()) => return Ok(Self { path: Some(path) }),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Path of the folder, until it is persisted.
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// It has been moved away, or is to stay; where it was.
    pub fn persist(mut self) -> PathBuf {
        self.path.take().unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // What is left is recognised by its name.
            let _ = remove_tree(&path);
        }
    }
}
