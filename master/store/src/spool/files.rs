//! The copies as files, whoever writes them: their sizes, their ends, and removing them.

use std::collections::HashMap;
use std::io;

use aot_host::chain::Chain;
use aot_proto::ids::RunId;
use aot_proto::v1::{Ended, Frame, frame::Body};

use prost::bytes::Bytes;

use super::{Progress, Spools, WHOLE_BYTES, last, reader};

/// Names the boot that the copies are of.
const BOOT: &str = "boot";

impl Spools {
    /// Copies that are not whole were never synced: after a power cut they may hold anything, and go. Their agents still
    /// have all of it. `boot` names the boot of this machine, `open` the runs that have not ended.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn distrust_other_boots(
        &self,
        boot: &str,
        open: impl Iterator<Item = RunId>,
    ) -> io::Result<()> {
        let path = self.dir.join(BOOT);
        let last = aot_host::files::read_optional(&path)?;
        if last.as_deref() == Some(boot.as_bytes()) {
            return Ok(());
        }
        if last.is_some() {
            open.for_each(|run| self.remove(run));
        }
        aot_host::files::write_atomic(&path, boot.as_bytes(), 0o600)
    }

    /// Bytes of every spool that is a file, by run.
    pub fn sizes(&self) -> HashMap<RunId, u64> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let run = entry.file_name().to_str()?.parse().ok()?;
                Some((run, entry.metadata().ok()?.len()))
            })
            .collect()
    }

    /// Runs whose copy is a file without an end. Reads each of them, as they are asked for.
    pub fn unfinished(&self) -> impl Iterator<Item = RunId> + '_ {
        let files = std::iter::once_with(|| self.sizes().into_keys());
        let files = files.flatten();
        files.filter(|run| self.synced_end_of(*run).is_none())
    }

    /// Bytes of a spool that is a file; 0 when it is none.
    pub fn size(&self, run: RunId) -> u64 {
        std::fs::metadata(self.path(run)).map_or(0, |meta| meta.len())
    }

    /// How much of a run's spool is here, and whether it came to its end; `None` when nothing is. Reads the file's frames where it
    /// did not come to this master in this life.
    pub fn extent(&self, run: RunId) -> Option<Progress> {
        let bytes = self.have(run);
        (bytes > 0).then(|| Progress {
            bytes,
            ended: self.is_at_end(run) || self.end_of(run).is_some(),
        })
    }

    /// A spool that is whole in a file and short enough for the store. Blocks.
    pub fn short(&self, run: RunId) -> Option<Bytes> {
        let is_short = |bytes| usize::try_from(bytes).is_ok_and(|bytes| bytes <= WHOLE_BYTES);
        let file = std::fs::metadata(self.path(run)).ok()?;
        is_short(file.len()).then(|| std::fs::read(self.path(run)).ok().map(Bytes::from))?
    }

    /// Removes a spool's file, if it is one.
    pub fn remove(&self, run: RunId) {
        if let Err(error) = std::fs::remove_file(self.path(run))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%run, error = %Chain(&error), "cannot remove an output");
        }
    }

    /// The end record of a spool that is whole in a file. Reads little of it, however long it is.
    pub fn end_of(&self, run: RunId) -> Option<Ended> {
        reader::last_frame(&self.path(run)).and_then(|frame| end_record(&frame))
    }

    /// The last frames of a spool that is in a file, as far as they are short enough together; see [`last_lines`].
    pub fn last_frames(&self, run: RunId) -> Vec<Frame> {
        last::last_frames(&self.path(run))
    }

    /// The line that a run has printed last so far. Blocks, and reads little: how far it came is remembered while the run is here.
    pub fn last_line(&self, run: RunId) -> Option<String> {
        let feeds = self.feeds.lock().expect("nobody panics with it");
        let feed = feeds.get(&run).cloned();
        drop(feeds);
        let Some(feed) = feed else {
            return last::last_line(&self.path(run), 0).1;
        };
        let mut last_at = feed.last_at.lock().expect("nobody panics with it");
        let (next, line) = last::last_line(&self.path(run), *last_at);
        *last_at = next;
        line
    }

    /// [`Spools::end_of`] of a copy that a master before this one left, which may not have come to its sync. `None` too
    /// when it can't be synced: its agent sends the end once more.
    pub fn synced_end_of(&self, run: RunId) -> Option<Ended> {
        let ended = self.end_of(run)?;
        let file = std::fs::File::open(self.path(run)).ok()?;
        file.sync_data().ok()?;
        Some(ended)
    }
}

/// The end record, when the frame is one.
pub fn end_record(frame: &Frame) -> Option<Ended> {
    match &frame.body {
        Some(Body::Ended(ended)) => {
            let mut ended = ended.clone();
            aot_model::text::clean(&mut ended.detail); // a machine wrote it
            Some(ended)
        }
        _ => None,
    }
}
