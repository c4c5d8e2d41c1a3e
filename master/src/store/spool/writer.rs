//! Threads that append to copies and sync them. A run's pieces all go to one thread, in order; several threads, because
//! a disk syncs many files at once in little more time than one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aot_proto::ids::RunId;
use prost::bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::Progress;

/// How many threads there are.
const THREADS: usize = 8;

/// Appends that may wait for one thread. When full, sessions stop reading from their agents.
const QUEUE: usize = 64;

/// Most appends between two syncs.
const BATCH: usize = 64;

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
    /// Answered once it is synced.
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

/// Appends in order, syncing each file once a batch before anyone is answered.
fn append_loop(dir: &Path, mut queue: mpsc::Receiver<Append>) {
    let mut files: HashMap<RunId, File> = HashMap::new();
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(more) = queue.try_recv()
        {
            batch.push(more);
        }
        let results: Vec<io::Result<Progress>> =
            batch.iter().map(|a| append(dir, &mut files, a)).collect();
        let touched: HashSet<RunId> = batch.iter().map(|append| append.run).collect();
        let failed: HashMap<RunId, io::ErrorKind> = touched
            .iter()
            .filter_map(|run| Some((*run, files.get(run)?.sync_data().err()?.kind())))
            .collect();
        for (append, result) in batch.into_iter().zip(results) {
            let ended = append.end && result.is_ok();
            let answer = match failed.get(&append.run) {
                Some(kind) => Err(io::Error::from(*kind)),
                None => result,
            };
            let _ = append.done.send(answer); // its session may be gone: the agent sends it again
            if ended {
                files.remove(&append.run);
            }
        }
    }
}

fn append(dir: &Path, files: &mut HashMap<RunId, File>, append: &Append) -> io::Result<Progress> {
    let file = match files.entry(append.run) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => {
            let path = dir.join(append.run.to_string());
            entry.insert(
                File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .read(true)
                    .open(path)?,
            )
        }
    };
    let have = file.metadata()?.len();
    if append.offset > have {
        return Err(io::Error::other(format!(
            "a gap: {} bytes are here, the piece starts at {}",
            have, append.offset
        )));
    }
    let skip = usize::try_from(have - append.offset)
        .unwrap_or(usize::MAX)
        .min(append.data.len());
    file.write_all_at(&append.data[skip..], have)?;
    Ok(Progress {
        bytes: have + (append.data.len() - skip) as u64,
        ended: append.end,
    })
}
