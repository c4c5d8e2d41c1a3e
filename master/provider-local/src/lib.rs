//! The `local` provider: an instance is a copy-on-write clone of this machine, with the real agent inside.
//!
//! A clone has its own mount, pid, uts and ipc namespaces, an overlay over this machine's files, and an address of its
//! own in 127.0.0.0/8; it shares kernel and network. It outlives the master: a supervisor process holds it
//! (`machine_run`), and everything about it lies in its folder. Mounts exist in the clone's own namespace only.

#![warn(unreachable_pub)]

mod address;
mod boot;
mod clone_dirs;
mod console;
mod control;
mod error;
mod init;
mod inside;
mod layers;
mod machines;
mod mounts;
mod prepare;
mod probe;
mod provider;
mod record;
mod supervisor;
mod userns;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use init::machine_init;
pub use supervisor::machine_run;

use clone_dirs::CloneDirs;
use error::Error;

/// Clones of this machine, below one state directory.
pub struct LocalProvider {
    clones: Arc<CloneDirs>,
    exe: PathBuf,
    /// Changes of state come one call after the other: two that end the same machine must not meet.
    changing: tokio::sync::Mutex<()>,
}

impl LocalProvider {
    /// Keeps its clones below `root`, the folder `local` of the state directory. Makes nothing yet.
    pub fn new(root: PathBuf) -> Self {
        // Stays the running program when the file is replaced by an upgrade.
        Self::new_with_exe(root, PathBuf::from("/proc/self/exe"))
    }

    /// As `new`, with the program that is run as `EXE machine-run FOLDER`; it must call `machine_run` and, started
    /// by itself as `EXE machine-init FOLDER`, `machine_init`.
    pub fn new_with_exe(root: PathBuf, exe: PathBuf) -> Self {
        let root = std::path::absolute(&root).unwrap_or(root);
        Self {
            clones: Arc::new(CloneDirs::new(root)),
            exe,
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Runs something that blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&CloneDirs) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let clones = Arc::clone(&self.clones);
        match tokio::task::spawn_blocking(move || work(&clones)).await {
            Ok(result) => result,
            Err(error) => Err(io::Error::other(error).into()),
        }
    }
}
