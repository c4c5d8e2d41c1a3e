//! Threads that append to copies. A run's pieces all go to one thread, in order; several threads, because a disk syncs
//! many files at once in little more time than one.
//!
//! Only a copy that is whole is synced: until the end of a run is on record its agent has all of it, and is asked for what
//! a power cut took from here.

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

/// How many threads there are.
const THREADS: usize = 8;

/// Appends that may wait for one thread. When full, sessions stop reading from their agents.
const QUEUE: usize = 64;

/// Bytes of a copy between two words to the disk that it may begin to write.
const BEGIN_BYTES: u64 = 8 << 20;

/// One piece on its way to disk.
pub struct Append {
    /// Of which run.
    pub run: RunId,
    /// Of its first byte.
    pub offset: u64,
    /// Its bytes.
    pub data: Bytes,
    /// They are the last ones.
    pub end: bool,
    /// Answered once it is written; when it is the last, once all is on disk.
    pub done: oneshot::Sender<io::Result<Progress>>,
}

/// All threads. They end when this is dropped.
pub struct Writers(Vec<mpsc::Sender<Append>>);

impl Writers {
    /// Starts them, for files in `dir`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(dir: &Path) -> io::Result<Self> {
        let start = |number| {
            let (appends, queue) = mpsc::channel(QUEUE);
            let dir = dir.to_owned();
            std::thread::Builder::new()
                .name(format!("spools-{number}"))
                .spawn(move || append_loop(&dir, queue))?;
            Ok(appends)
        };
        (0..THREADS).map(start).collect::<io::Result<_>>().map(Self)
    }

    /// Gives an append its place behind those of the same run that came before.
    ///
    /// # Errors
    /// When the thread is gone.
    pub async fn append(&self, append: Append) -> io::Result<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(append.run);
        let index = hash % self.0.len() as u64;
        let thread = &self.0[usize::try_from(index).expect("less than the threads")];
        thread.send(append).await.map_err(|_| stopped())
    }
}

/// A thread is gone.
pub fn stopped() -> io::Error {
    io::Error::other("the writer of spools has stopped")
}

/// A copy that grows.
struct Copy {
    file: File,
    /// Its length.
    len: u64,
    /// The disk was told to begin with what comes before.
    begun: u64,
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
        })
    }

    /// Adds what of the piece is not here yet.
    fn append(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset > self.len {
            return Err(io::Error::other(format!(
                "a gap: {} bytes are here, the piece starts at {offset}",
                self.len
            )));
        }
        let skip = usize::try_from(self.len - offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        self.file.write_all_at(&data[skip..], self.len)?;
        self.len += (data.len() - skip) as u64;
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
        let answer = take(dir, &mut copies, &append);
        if append.end || answer.is_err() {
            copies.remove(&append.run);
        }
        let _ = append.done.send(answer); // its session may be gone: the agent sends it again
    }
}

fn take(dir: &Path, copies: &mut HashMap<RunId, Copy>, append: &Append) -> io::Result<Progress> {
    let copy = match copies.entry(append.run) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Copy::open(&dir.join(append.run.to_string()))?),
    };
    copy.append(append.offset, &append.data)?;
    if append.end {
        copy.file.sync_data()?;
    }
    Ok(Progress {
        bytes: copy.len,
        ended: append.end,
    })
}
