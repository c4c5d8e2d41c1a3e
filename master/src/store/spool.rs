//! The master's byte-exact copies of runs' spools, and readers that follow them while they grow.
//!
//! A short spool that arrives whole in one piece stays in memory until the store has it (`Arrived::Whole`); a longer one
//! becomes a file, appended by `writer`'s threads. What is told as `Progress` is in the file, and on disk once it has
//! ended; until then the agent has it too. `reader` follows a copy; what came last it takes from memory (`tail`), the
//! rest from the file.

mod reader;
mod tail;
mod writer;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aot_proto::ids::RunId;
use aot_proto::v1::{Ended, Frame, frame::Body};
use prost::bytes::Bytes;
use tokio::sync::{oneshot, watch};

pub use reader::Reader;
use tail::{Budget, Tail};
use writer::{Append, Writers};

/// How far the copy of a spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes that are here.
    pub bytes: u64,
    /// They are all there will be.
    pub ended: bool,
}

/// What an append came to.
#[derive(Debug, Clone)]
pub enum Arrived {
    /// So much is here; say so to the agent.
    Part(Progress),
    /// The whole spool in one piece: it goes to the store with the run's end.
    Whole(Bytes),
}

/// Names the boot that the copies are of.
const BOOT: &str = "boot";

/// Longest spool that goes to the store instead of a file.
const WHOLE_BYTES: usize = 64 << 10;

struct Feed {
    progress: watch::Sender<Progress>,
    whole: Mutex<Option<Bytes>>,
    tail: Mutex<Tail>,
}

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
        crate::files::private_dir(dir).map_err(io)?;
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
        let last = crate::files::read_optional(&path)?;
        if last.as_deref() == Some(boot.as_bytes()) {
            return Ok(());
        }
        if last.is_some() {
            open.for_each(|run| self.remove(run));
        }
        crate::files::write_atomically(&path, boot.as_bytes())
    }

    fn path(&self, run: RunId) -> PathBuf {
        self.dir.join(run.to_string())
    }

    fn feed(&self, run: RunId) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().expect("nobody panics with it");
        let fresh = || {
            let bytes = std::fs::metadata(self.path(run)).map_or(0, |meta| meta.len());
            Arc::new(Feed {
                progress: watch::Sender::new(Progress {
                    bytes,
                    ended: false,
                }),
                whole: Mutex::new(None),
                tail: Mutex::new(Tail::new(self.budget.clone())),
            })
        };
        feeds.entry(run).or_insert_with(fresh).clone()
    }

    /// How many bytes of a run's spool are here.
    pub fn have(&self, run: RunId) -> u64 {
        self.feed(run).progress.borrow().bytes
    }

    /// Takes a piece: done once the piece has its place behind those that were taken before it. What that gives is
    /// done once the piece is written; the last one, once all is on disk. One that is there already changes nothing; one
    /// that leaves a gap is an error.
    ///
    /// # Errors
    /// When the disk refuses, or the piece leaves a gap.
    pub async fn take(
        &self,
        run: RunId,
        offset: u64,
        data: Bytes,
        end: bool,
    ) -> io::Result<impl Future<Output = io::Result<Arrived>> + Send + use<>> {
        let feed = self.feed(run);
        let mut waits = None;
        if offset == 0 && end && data.len() <= WHOLE_BYTES && feed.progress.borrow().bytes == 0 {
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

    /// Takes a piece and waits until it is written.
    ///
    /// # Errors
    /// As [`Spools::take`].
    #[cfg(test)]
    async fn append(&self, run: RunId, offset: u64, data: Bytes, end: bool) -> io::Result<Arrived> {
        self.take(run, offset, data, end).await?.await
    }

    /// A run that has ended and is in the store: nobody new will follow it, and those who do get no more.
    pub fn settle(&self, run: RunId) {
        let feed = self
            .feeds
            .lock()
            .expect("nobody panics with it")
            .remove(&run);
        if let Some(feed) = feed {
            feed.progress.send_modify(|progress| progress.ended = true);
        }
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

    /// Bytes of a spool that is a file; 0 when it is none.
    pub fn size(&self, run: RunId) -> u64 {
        std::fs::metadata(self.path(run)).map_or(0, |meta| meta.len())
    }

    /// Removes a spool's file, if it is one.
    pub fn remove(&self, run: RunId) {
        if let Err(error) = std::fs::remove_file(self.path(run))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%run, %error, "cannot remove an output");
        }
    }

    /// The end record of a spool that is whole in a file. Reads little of it, however long it is.
    pub fn end_of(&self, run: RunId) -> Option<Ended> {
        reader::last_frame(&self.path(run)).and_then(|frame| end_record(&frame))
    }

    /// [`Spools::end_of`] of a copy that a master before this one left, which may not have come to its sync. `None` too
    /// when it can't be synced: its agent sends the end once more.
    pub fn synced_end_of(&self, run: RunId) -> Option<Ended> {
        let ended = self.end_of(run)?;
        let file = std::fs::File::open(self.path(run)).ok()?;
        file.sync_data().ok()?;
        Some(ended)
    }

    /// Follows a run's spool from its start; `stored` is the whole of it when the store has it.
    pub fn read(&self, run: RunId, stored: Option<Vec<u8>>, live: bool) -> Reader {
        match stored {
            Some(bytes) => Reader::of_bytes(bytes.into()),
            None if live => Reader::of_feed(self.path(run), self.feed(run)),
            None => Reader::of_file(self.path(run)),
        }
    }
}

/// The end record, when the frame is one.
pub fn end_record(frame: &Frame) -> Option<Ended> {
    match &frame.body {
        Some(Body::Ended(ended)) => Some(ended.clone()),
        _ => None,
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]
mod tests {
    use super::*;
    use aot_proto::frame;

    fn spool(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            let body = Body::Stdout(Bytes::copy_from_slice(part));
            frame::encode(
                &Frame {
                    unix_ms: 1,
                    body: Some(body),
                },
                &mut bytes,
            );
        }
        let end = Body::Ended(Ended {
            exit_code: 7,
            ..Ended::default()
        });
        frame::encode(
            &Frame {
                unix_ms: 2,
                body: Some(end),
            },
            &mut bytes,
        );
        bytes
    }

    async fn all(mut reader: Reader) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(more) = reader.next().await.expect("reads") {
            frames.extend(more);
        }
        frames
    }

    #[tokio::test]
    async fn pieces_that_come_twice_or_overlap_leave_one_exact_copy() {
        let dir = tempfile::tempdir().expect("a folder");
        let spools = Spools::open(dir.path()).expect("opens");
        let run = RunId::from_parts(1, 1);
        let bytes = Bytes::from(spool(&[b"one", b"two", b"three"]));
        let follower = tokio::spawn(all(spools.read(run, None, true)));
        for (from, to) in [(0, 10), (0, 10), (5, 20), (20, 21)] {
            spools
                .append(run, from, bytes.slice(from as usize..to), false)
                .await
                .expect("appends");
        }
        assert_eq!(spools.have(run), 21);
        assert!(
            spools
                .append(run, 30, bytes.slice(30..), false)
                .await
                .is_err(),
            "a gap was taken"
        );
        spools
            .append(run, 21, bytes.slice(21..), true)
            .await
            .expect("appends");
        assert_eq!(
            std::fs::read(dir.path().join(run.to_string())).expect("reads"),
            bytes
        );
        assert_eq!(follower.await.expect("ends").len(), 4);
        assert_eq!(spools.end_of(run).expect("whole").exit_code, 7);
    }

    #[tokio::test]
    async fn after_a_power_cut_what_was_not_whole_is_asked_for_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let [open, ended] = [1, 2].map(|n| RunId::from_parts(n, 1));
        let bytes = Bytes::from(spool(&[b"one", b"two"]));
        for (boot, kept) in [("b1", 5), ("b1", 5), ("b2", 0)] {
            let spools = Spools::open(dir.path()).expect("opens");
            spools
                .distrust_other_boots(boot, [open].into_iter())
                .expect("looks");
            assert_eq!(spools.have(open), kept * u64::from(spools.have(ended) > 0));
            for (run, len) in [(open, 5), (ended, bytes.len())] {
                let (part, end) = (bytes.slice(..len), len == bytes.len());
                spools
                    .append(run, 0, part.slice(..1), false)
                    .await
                    .expect("appends");
                spools
                    .append(run, 1, part.slice(1..), end)
                    .await
                    .expect("appends");
            }
        }
        let spools = Spools::open(dir.path()).expect("opens");
        assert_eq!(spools.have(ended), bytes.len() as u64, "it was synced");
    }

    #[tokio::test]
    async fn a_long_spool_that_comes_in_one_piece_becomes_a_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let spools = Spools::open(dir.path()).expect("opens");
        let run = RunId::from_parts(1, 1);
        let bytes = Bytes::from(spool(&[&[b'x'; 40_000], &[b'y'; 40_000]]));
        let arrived = spools.append(run, 0, bytes.clone(), true).await;
        assert!(matches!(arrived, Ok(Arrived::Part(progress)) if progress.ended));
        assert_eq!(spools.size(run), bytes.len() as u64);
        assert_eq!(spools.end_of(run).expect("whole").exit_code, 7);
        assert_eq!(spools.synced_end_of(run), spools.end_of(run));
    }

    #[tokio::test]
    async fn a_small_spool_never_becomes_a_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let spools = Spools::open(dir.path()).expect("opens");
        let run = RunId::from_parts(1, 1);
        let follower = tokio::spawn(all(spools.read(run, None, true)));
        let bytes = Bytes::from(spool(&[b"x"]));
        let arrived = spools
            .append(run, 0, bytes.clone(), true)
            .await
            .expect("appends");
        assert!(matches!(arrived, Arrived::Whole(whole) if whole == bytes));
        assert!(!dir.path().join(run.to_string()).exists());
        assert_eq!(follower.await.expect("ends").len(), 2);
        assert_eq!(
            all(spools.read(run, Some(bytes.to_vec()), false))
                .await
                .len(),
            2
        );
    }
}
