//! The master's byte-exact copies of runs' spools, and readers that follow them while they grow. Copies, not events in the
//! store: offsets are the only sequence numbers, and resend and dedupe are a seek. Given up: querying output by SQL.
//!
//! A short spool that arrives whole in one piece stays in memory until the store has it (`Arrived::Whole`); a longer one
//! becomes a file, appended by `writer`'s threads. What is reported as `Progress` is in the file, and on disk once it has
//! ended; until then the agent has it too. `reader` follows a copy; what came last it takes from memory (`tail`), the
//! rest from the file.

mod feed;
mod files;
mod last;
mod meter;
mod reader;
mod tail;
mod writer;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aot_proto::ids::RunId;
use prost::bytes::Bytes;
use tokio::sync::oneshot;

pub use feed::{Arrived, Progress};
pub use files::end_record;
pub use last::last_lines;
pub use reader::SpoolReader;

use crate::blobs::{BlobKey, Blobs};
use feed::Feed;
use tail::Budget;
use writer::{Append, Writers};

/// Longest spool that goes to the store instead of a file.
pub const WHOLE_BYTES: usize = 64 << 10;

/// All copies.
pub struct Spools {
    dir: PathBuf,
    feeds: Mutex<HashMap<RunId, Arc<Feed>>>,
    writers: Writers,
    budget: Arc<Budget>,
}

impl Spools {
    /// Uses `dir`, making it when needed.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub fn open(dir: &Path) -> Result<Arc<Self>, super::Error> {
        let io = |source| super::Error::Io {
            what: "make the folder",
            path: dir.to_owned(),
            source,
        };
        aot_host::files::private_dir(dir).map_err(io)?;
        Ok(Arc::new(Self {
            dir: dir.to_owned(),
            feeds: Mutex::default(),
            writers: Writers::start(dir).map_err(|source| super::Error::Io {
                what: "start the writers of",
                path: dir.to_owned(),
                source,
            })?,
            budget: Arc::default(),
        }))
    }

    /// Where the copy of a run's spool lies, or would.
    pub fn path(&self, run: RunId) -> PathBuf {
        self.dir.join(run.to_string())
    }

    fn feed(&self, run: RunId) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().expect("nobody panics with it");
        let fresh = || {
            let bytes = std::fs::metadata(self.path(run)).map_or(0, |meta| meta.len());
            Arc::new(Feed::new(bytes, self.budget.clone()))
        };
        feeds.entry(run).or_insert_with(fresh).clone()
    }

    /// How many bytes of a run's spool are here. Only asks: a run that is not known costs nothing that stays.
    pub fn have(&self, run: RunId) -> u64 {
        let feeds = self.feeds.lock().expect("nobody panics with it");
        let feed = feeds.get(&run).cloned();
        drop(feeds);
        feed.map_or_else(|| self.size(run), |feed| feed.progress.borrow().bytes)
    }

    /// Whether the last piece of a run's spool was appended in this life of the master.
    fn is_at_end(&self, run: RunId) -> bool {
        let feeds = self.feeds.lock().expect("nobody panics with it");
        feeds
            .get(&run)
            .is_some_and(|feed| feed.progress.borrow().ended)
    }

    /// Appends a piece: done once the piece is queued behind those that came before it. What that gives is done once the
    /// piece is written; the last one, once all is on disk. One that is there already changes nothing; one that leaves a
    /// gap is an error. `cap` is what the run may send in all.
    ///
    /// # Errors
    /// When the disk refuses, or the piece leaves a gap. `FileTooLarge` says that the run has sent more than its cap,
    /// `InvalidData` that what it sends is not output.
    pub async fn append(
        &self,
        run: RunId,
        offset: u64,
        data: Bytes,
        end: bool,
        cap: u64,
    ) -> io::Result<impl Future<Output = io::Result<Arrived>> + Send + use<>> {
        let feed = self.feed(run);
        let mut waits = None;
        let mut data = data;
        let kept = || feed.whole.lock().expect("nobody panics with it").clone();
        let kept = end.then(kept).flatten();
        if let Some(whole) = kept.filter(|whole| ends_within(offset, &data, whole)) {
            // It came before, and its end was not taken: its session was replaced meanwhile.
            data = whole;
        } else if offset == 0
            && end
            && data.len() <= WHOLE_BYTES
            && feed.progress.borrow().bytes == 0
        {
            *feed.whole.lock().expect("nobody panics with it") = Some(data.clone());
            feed.progress.send_replace(Progress {
                bytes: data.len() as u64,
                ended: true,
            });
        } else {
            let (done, answer) = oneshot::channel();
            let append = Append {
                run,
                offset,
                data: data.clone(),
                end,
                cap,
                done,
            };
            self.writers.append(append).await?;
            waits = Some(answer);
        }
        Ok(async move {
            let Some(answer) = waits else {
                return Ok(Arrived::Whole(data));
            };
            let progress = answer.await.map_err(|_| writer::stopped())??;
            feed.tail
                .lock()
                .expect("nobody panics with it")
                .push(offset, data);
            feed.progress.send_replace(progress);
            Ok(Arrived::Part(progress))
        })
    }

    /// Lets go of a copy that gets no more: its run was ended from here.
    pub async fn close(&self, run: RunId) {
        let (done, _) = oneshot::channel();
        let append = Append {
            run,
            offset: 0,
            data: Bytes::new(),
            end: true,
            cap: 0,
            done,
        };
        let _ = self.writers.append(append).await; // a writer that is gone holds nothing
    }

    /// A run that has ended and is in the store: nobody new will follow it, and those who do get no more.
    pub fn finish(&self, run: RunId) {
        let feed = self
            .feeds
            .lock()
            .expect("nobody panics with it")
            .remove(&run);
        if let Some(feed) = feed {
            feed.progress.send_modify(|progress| progress.ended = true);
        }
    }

    /// Follows a run's spool from its start; `stored` is the whole of it when the store has it.
    pub fn read(&self, run: RunId, stored: Option<Vec<u8>>, live: bool) -> SpoolReader {
        match stored {
            Some(bytes) => SpoolReader::of_bytes(bytes.into()),
            None if live => SpoolReader::of_feed(self.path(run), self.feed(run)),
            None => SpoolReader::of_file(self.path(run)),
        }
    }

    /// Reads the spool of a run that has ended, from the file or, where that is not here, from there. `is_part`: the file is not
    /// all of it, and is read only where nothing is there.
    pub fn read_or(
        &self,
        run: RunId,
        blobs: Arc<dyn Blobs>,
        key: BlobKey,
        is_part: bool,
    ) -> SpoolReader {
        SpoolReader::of_blob(self.path(run), blobs, key, is_part)
    }
}

/// Whether a last piece has nothing that a spool of which all is here lacks.
fn ends_within(offset: u64, data: &Bytes, whole: &Bytes) -> bool {
    offset.saturating_add(data.len() as u64) <= whole.len() as u64
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]
mod tests;
