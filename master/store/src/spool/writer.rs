//! Threads that append to copies. A run's pieces all go to one thread, in order; several threads, because a disk syncs
//! many files at once in little more time than one.
//!
//! A copy is synced once, at its end: until the end of a run is on record its agent has all of it, so an acknowledgement only
//! moves the window. After another boot of the master's machine copies that were not whole are dropped and requested again.
//! Given up: partial output of a run whose agent and whose master lose their power both.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aot_proto::ids::RunId;
use prost::bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use tokio::sync::{mpsc, oneshot};

use super::Progress;
use super::meter::{Meter, SLACK};
use crate::fatal::vital_thread;

/// How many threads there are.
const THREADS: usize = 8;

/// Appends that may wait for one thread. When full, sessions stop reading from their agents.
const QUEUE: usize = 64;

/// Bytes of a copy after which the disk is asked to begin writing them.
const BEGIN_BYTES: u64 = 8 << 20;

/// One piece on its way to disk.
pub(super) struct Append {
    /// Of which run.
    pub run: RunId,
    /// Of its first byte.
    pub offset: u64,
    pub data: Bytes,
    /// They are the last ones.
    pub end: bool,
    /// Most bytes of output that the run may send in all.
    pub cap: u64,
    /// Answered once it is written; when it is the last, once all is on disk.
    pub done: oneshot::Sender<io::Result<Progress>>,
}

/// All threads. They end when this is dropped.
pub(super) struct Writers(Vec<mpsc::Sender<Append>>);

impl Writers {
    /// Starts them, for files in `dir`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn start(dir: &Path) -> io::Result<Self> {
        let start = |number| {
            let (appends, queue) = mpsc::channel(QUEUE);
            let dir = dir.to_owned();
            std::thread::Builder::new()
                .name(format!("spools-{number}"))
                .spawn(move || vital_thread("a writer of outputs", || append_loop(&dir, queue)))?;
            Ok(appends)
        };
        (0..THREADS).map(start).collect::<io::Result<_>>().map(Self)
    }

    /// Gives an append its place behind those of the same run that came before.
    ///
    /// # Errors
    /// When the thread is gone.
    pub(super) async fn append(&self, append: Append) -> io::Result<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(append.run);
        let index = hash % self.0.len() as u64;
        let thread = &self.0[usize::try_from(index).expect("less than the threads")];
        thread.send(append).await.map_err(|_| stopped())
    }
}

/// A thread is gone.
pub(super) fn stopped() -> io::Error {
    io::Error::other("the writer of spools has stopped")
}

/// A copy that grows.
struct Copy {
    file: File,
    /// Its length.
    len: u64,
    /// The disk was asked to begin with what comes before.
    begun: u64,
    /// How much of it is output.
    meter: Meter,
    /// More was sent than may be kept: nothing is added any more.
    refused: bool,
}

/// A run sent more than it may. Recognized by the kind of the error, [`io::ErrorKind::FileTooLarge`].
#[derive(Debug, thiserror::Error)]
#[error("it sent more output than its cap of {cap} bytes")]
struct OverCap {
    cap: u64,
}

impl Copy {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .read(true)
            .open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            file,
            len,
            begun: len,
            meter: Meter::resumed(len),
            refused: false,
        })
    }

    /// Adds what of the piece is not here yet, unless that is more than `cap` allows.
    fn append(&mut self, offset: u64, data: &[u8], cap: u64) -> io::Result<()> {
        let over = || io::Error::new(io::ErrorKind::FileTooLarge, OverCap { cap });
        if self.refused && !data.is_empty() {
            return Err(over());
        }
        if offset > self.len {
            let gap = format!(
                "a gap: {} bytes are here, the piece starts at {offset}",
                self.len
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, gap));
        }
        let skip = usize::try_from(self.len - offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let fresh = &data[skip..];
        let meter = self.meter.plus(fresh);
        let meter = meter.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if meter.counted() > cap.saturating_add(SLACK) && !fresh.is_empty() {
            self.refused = true;
            return Err(over());
        }
        if let Err(error) = self.file.write_all_at(fresh, self.len) {
            // A full disk may have taken a part of it. What stays is whole pieces: where frames begin is known.
            self.file.set_len(self.len)?;
            return Err(error);
        }
        self.meter = meter;
        self.len += fresh.len() as u64;
        self.begin_writing();
        Ok(())
    }

    /// Lets the disk begin with what has come, so that little is left for the sync at the end. Nothing depends on it.
    fn begin_writing(&mut self) {
        let Some(fresh) = NonZeroU64::new(self.len - self.begun).filter(|n| n.get() >= BEGIN_BYTES)
        else {
            return;
        };
        // It writes what is dirty, without waiting (posix_fadvise(2)).
        let _ = fadvise(&self.file, self.begun, Some(fresh), Advice::DontNeed);
        self.begun = self.len;
    }
}

/// Appends in order. What ends a copy is answered once all of it is on disk.
fn append_loop(dir: &Path, mut queue: mpsc::Receiver<Append>) {
    let mut copies: HashMap<RunId, Copy> = HashMap::new();
    while let Some(append) = queue.blocking_recv() {
        let answer = append_piece(dir, &mut copies, &append);
        if append.end && answer.is_ok() || answer.as_ref().is_err_and(is_lost) {
            copies.remove(&append.run);
        }
        let _ = append.done.send(answer); // its session may be gone: the agent sends it again
    }
}

/// Whether nothing is known of a copy after such an error. A piece that does not fit, or for which there is no room, changes
/// nothing about it.
fn is_lost(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, InvalidData, InvalidInput, QuotaExceeded, StorageFull};
    let kinds = [
        FileTooLarge,
        InvalidData,
        InvalidInput,
        QuotaExceeded,
        StorageFull,
    ];
    !kinds.contains(&error.kind())
}

fn append_piece(
    dir: &Path,
    copies: &mut HashMap<RunId, Copy>,
    append: &Append,
) -> io::Result<Progress> {
    let copy = match copies.entry(append.run) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Copy::open(&dir.join(append.run.to_string()))?),
    };
    copy.append(append.offset, &append.data, append.cap)?;
    if append.end {
        copy.file.sync_data()?;
    }
    Ok(Progress {
        bytes: copy.len,
        ended: append.end,
    })
}
