//! What was started and what was forgotten, on disk before anything happens, so that nothing runs twice. Used by the
//! runner only. `runs/<run id>/spec.json` is a run; a line in `tombstones` is one that the master has dropped.

mod from_wire;
mod lock;
mod spec;
mod tombstones;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_host::files::{shut_dir, write_private};
use aot_host::removal::remove_tree;
use aot_proto::ids::RunId;

use super::command::STDIN;
use super::spool::SPOOL;
pub use lock::{SPEC, lock_if_free, pid_in};
pub(crate) use spec::{RenderSpec, Spec, Work};
use tombstones::Tombstones;

/// How long the folder of a forgotten run stays, at most how many of them, and how much output each may have.
const GONE: Duration = Duration::from_secs(30);
const MOST_GONE: usize = 256;
const SMALL_BYTES: u64 = 16 << 10;

/// The journal of one agent.
pub(crate) struct Journal {
    runs_dir: PathBuf,
    runs_folder: File,
    tombstones: Tombstones,
    /// Folders of forgotten runs, with the time of that.
    gone: VecDeque<(Instant, PathBuf)>,
}

impl Journal {
    /// Opens the journal in `state_dir`, clearing what a crash left half made. Returns the runs in it as well.
    ///
    /// # Errors
    /// As mkdir(2), readdir(3), read(2).
    pub(crate) fn open(state_dir: &Path) -> io::Result<(Self, Vec<RunId>)> {
        let runs_dir = state_dir.join("runs");
        shut_dir(&runs_dir)?;
        let tombstones = Tombstones::open(state_dir.join("tombstones"))?;
        let mut runs = Vec::new();
        for entry in fs::read_dir(&runs_dir)? {
            let entry = entry?;
            let id: Option<RunId> = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            match id {
                Some(id) if !tombstones.has(id) => runs.push(id),
                // Half made, or forgotten but not yet removed.
                _ => remove(&entry.path()),
            }
        }
        runs.sort_unstable();
        Ok((
            Self {
                runs_folder: File::open(&runs_dir)?,
                runs_dir,
                tombstones,
                gone: VecDeque::new(),
            },
            runs,
        ))
    }

    /// Folder of a run.
    pub(crate) fn dir(&self, id: RunId) -> PathBuf {
        self.runs_dir.join(id.to_string())
    }

    /// Whether the run was ever journalled here.
    pub(crate) fn knows(&self, id: RunId) -> bool {
        self.tombstones.has(id) || self.dir(id).exists()
    }

    /// Writes the run down. By one sync, of the folder that holds all runs, what is on disk when this returns is the name of
    /// its own folder: that it is known and will not be started again. Its record may be lost by a power cut, which ends the
    /// run anyway.
    ///
    /// # Errors
    /// As write(2); then the run is not in the journal.
    pub(crate) fn begin(&mut self, spec: &Spec, stdin: &[u8]) -> io::Result<PathBuf> {
        self.reopen_if_removed()?;
        let dir = self.dir(spec.run_id);
        let fresh = self.runs_dir.join(format!("{}.new", spec.run_id));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&fresh)?;
        write_private(&fresh.join(SPEC), &serde_json::to_vec(spec)?)?;
        if !stdin.is_empty() {
            write_private(&fresh.join(STDIN), stdin)?;
        }
        // By a rename, so that a folder with this name never lacks its record while the machine runs.
        fs::rename(&fresh, &dir)?;
        self.runs_folder.sync_all()?;
        Ok(dir)
    }

    /// Somebody may have removed the state folder, or what is in it, while we had it open.
    fn reopen_if_removed(&mut self) -> io::Result<()> {
        if self.runs_folder.metadata()?.nlink() == 0 {
            shut_dir(&self.runs_dir)?;
            self.runs_folder = File::open(&self.runs_dir)?;
        }
        Ok(())
    }

    /// The record of a run.
    ///
    /// # Errors
    /// As read(2); when it is garbled.
    pub(crate) fn spec(&self, id: RunId) -> io::Result<Spec> {
        let text = fs::read(self.dir(id).join(SPEC))?;
        let line = text.split(|byte| *byte == b'\n').next();
        Ok(serde_json::from_slice(line.unwrap_or_default())?)
    }

    /// Drops the run's folder and keeps its id. First the id, so that a killed agent knows one or the other. Not synced:
    /// the master asks for this when the end is on its own disk, and never starts that run again. What a power cut takes is of
    /// use only against a start that came before and is still on its way, and no session outlives one. A small folder stays
    /// aside for a while: no command should wait for its removal, and ext4 without a journal takes no inode again for minutes
    /// after it was freed, which it finds out one by one (`recently_deleted` in Linux's fs/ext4/ialloc.c).
    ///
    /// # Errors
    /// As write(2), unlink(2).
    pub(crate) fn forget(&mut self, id: RunId, now: Instant) -> io::Result<()> {
        if !self.dir(id).exists() {
            return Ok(());
        }
        self.tombstones.add(id)?;
        // Out of the way first: a shim that comes up late must find the end or nothing, not a folder half removed.
        let gone = self.runs_dir.join(format!("{id}.gone"));
        fs::rename(self.dir(id), &gone)?;
        if self.gone.len() < MOST_GONE && is_small(&gone)? {
            self.gone.push_back((now, gone));
            return Ok(());
        }
        remove(&gone);
        Ok(())
    }

    /// Removes what is left of runs that were forgotten a while ago.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let is_due = |since: &Instant| now.saturating_duration_since(*since) >= GONE;
        while self.gone.front().is_some_and(|(since, _)| is_due(since)) {
            if let Some((_, gone)) = self.gone.pop_front() {
                remove(&gone);
            }
        }
    }
}

/// Removes what is of no use any more. What can't be removed stays until the agent is started again, and stops nothing.
fn remove(path: &Path) {
    match remove_tree(path) {
        Err(error) if !error.is_not_found() => {
            tracing::warn!(error = %Chain(&error), "cannot remove what an old run left");
        }
        _ => {}
    }
}

/// Whether the folder has nothing but the record and little output.
fn is_small(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_small = name == SPEC || name == SPOOL && entry.metadata()?.len() <= SMALL_BYTES;
        if !is_small {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
