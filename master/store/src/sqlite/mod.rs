//! Records in a file of SQLite, which one master has for itself by the lock on its folder.
//!
//! One thread (`writer`) owns the writing connection and commits what waits in one transaction (WAL, synchronous=FULL), so a
//! write that was acknowledged is on disk. Readers (`read`, `prune`) share a connection of their own, off the loop's threads.
//!
//! `export` gives all of it as rows to whoever brings it into another engine; `moved` is the mark that this was done.

pub mod export;
mod load;
mod moved;
mod prune;
mod read;
mod rows;
mod schema;
mod targets;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use aot_host::files;
use aot_model::job::Job;
use aot_model::key::InstanceKey;
use aot_model::retention::Sweep;
use aot_model::run::Run;
use aot_model::world::Changes;
use aot_proto::ids::{JobId, RunId};
use prost::bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::fatal::vital_thread;
use crate::{Backend, ClosedJob, Error, Hold, Loaded, OpenStore, Pending, Store, StoredOutputs};
pub use moved::{MOVED, mark_moved, moved_to};
use read::SqliteReader;
use writer::{QUEUE, Write, write_loop};

/// Pages that a connection keeps, KiB (SQLite, PRAGMA cache_size).
const CACHE_KIB: i64 = 512;

/// The file, in the state folder.
pub const FILE: &str = "aot.sqlite";

/// A file of the state folder that is there when its records lie in another engine.
pub const ELSEWHERE: &str = "master-id";

/// Records in the state folder.
#[derive(Debug, Clone, Copy)]
pub struct Sqlite;

impl Backend for Sqlite {
    fn open<'a>(&'a self, state_dir: &'a Path) -> Pending<'a, Result<OpenStore, Error>> {
        Box::pin(async move {
            let (store, loaded) = SqliteStore::open(state_dir)?;
            Ok(OpenStore {
                store: Arc::new(store),
                hold: Arc::new(Hold::kept("")),
                loaded,
                is_taken_over: false,
                fleet: None,
            })
        })
    }
}

/// A handle on the file. Writes wait for the disk.
pub struct SqliteStore {
    path: PathBuf,
    reader: Arc<SqliteReader>,
    /// `None` once it is closed.
    writer: Mutex<Option<WriterThread>>,
}

struct WriterThread {
    writes: mpsc::Sender<Write>,
    thread: JoinHandle<()>,
}

impl SqliteStore {
    /// Opens or makes the store in `dir`, and reads all that is needed to continue.
    ///
    /// # Errors
    /// When the folder can't be used, or a newer version wrote it.
    pub fn open(dir: &Path) -> Result<(Self, Loaded), Error> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { what, path, source }
        };
        files::private_dir(dir).map_err(io("make the folder", dir))?;
        moved::check_moved(dir)?;
        let elsewhere = dir.join(ELSEWHERE);
        if elsewhere.exists() {
            return Err(Error::Elsewhere { path: elsewhere });
        }
        let path = dir.join(FILE);
        let sql = |source| Error::Sql {
            path: path.clone(),
            source,
        };
        let mut connection = Connection::open(&path).map_err(sql)?;
        files::private_file(&path).map_err(io("set the mode of", &path))?;
        schema::migrate(&mut connection, &path)?;
        let loaded = load::load(&connection, &path)?;
        let reader = Connection::open(&path).map_err(sql)?;
        for connection in [&connection, &reader] {
            // The system keeps its pages in memory as well.
            connection
                .pragma_update(None, "cache_size", -CACHE_KIB)
                .map_err(sql)?;
        }
        let (writes, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn({
                let path = path.clone();
                move || {
                    vital_thread("the store's writer", || {
                        write_loop(connection, queue, &path)
                    })
                }
            })
            .map_err(|source| Error::Io {
                what: "start the writer of",
                path: path.clone(),
                source,
            })?;
        let store = Self {
            reader: Arc::new(SqliteReader::new(path.clone(), reader)),
            path,
            writer: Mutex::new(Some(WriterThread { writes, thread })),
        };
        Ok((store, loaded))
    }

    /// Where the records lie.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn write(
        &self,
        changes: Changes,
        spools: Vec<(RunId, Bytes)>,
        sweep: Sweep,
    ) -> Result<(), Error> {
        let writes = {
            let writer = self.writer.lock().expect("nobody panics with it");
            writer.as_ref().map(|writer| writer.writes.clone())
        };
        let (done, answer) = oneshot::channel();
        writes
            .ok_or(Error::Stopped)?
            .send(Write {
                changes,
                spools,
                sweep,
                done,
            })
            .await
            .map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// Reads on a thread that may block.
    fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&SqliteReader) -> Result<T, Error> + Send + 'static,
    ) -> Pending<'_, Result<T, Error>> {
        let reader = self.reader.clone();
        Box::pin(async move {
            let reading = tokio::task::spawn_blocking(move || read(&reader));
            reading.await.map_err(|_| Error::Stopped)?
        })
    }
}

impl Store for SqliteStore {
    fn commit<'a>(
        &'a self,
        _: &'a Hold,
        changes: Changes,
        spools: Vec<(RunId, Bytes)>,
    ) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.write(changes, spools, Sweep::default()))
    }

    fn sweep<'a>(&'a self, _: &'a Hold, sweep: Sweep) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.write(Changes::default(), Vec::new(), sweep))
    }

    fn jobs(&self, cluster: Option<String>, limit: u32) -> Pending<'_, Result<Vec<Job>, Error>> {
        self.read(move |reader| reader.jobs(cluster.as_deref(), limit))
    }

    fn job(&self, id: JobId) -> Pending<'_, Result<Option<Job>, Error>> {
        self.read(move |reader| reader.job(id))
    }

    fn runs_of(&self, job: JobId) -> Pending<'_, Result<Vec<Run>, Error>> {
        self.read(move |reader| reader.runs_of(job))
    }

    fn stage_runs(&self, at: InstanceKey) -> Pending<'_, Result<Vec<Run>, Error>> {
        self.read(move |reader| reader.stage_runs(&at))
    }

    fn small_spool(&self, run: RunId) -> Pending<'_, Result<Option<Vec<u8>>, Error>> {
        self.read(move |reader| reader.small_spool(run))
    }

    fn outputs(&self, jobs: Option<Vec<JobId>>) -> Pending<'_, Result<StoredOutputs, Error>> {
        self.read(move |reader| reader.outputs(jobs.as_deref()))
    }

    fn closed_jobs(&self) -> Pending<'_, Result<Vec<ClosedJob>, Error>> {
        self.read(SqliteReader::closed_jobs)
    }

    fn close<'a>(&'a self, _: &'a Hold) -> Pending<'a, ()> {
        Box::pin(async move {
            let writer = self.writer.lock().expect("nobody panics with it").take();
            let Some(WriterThread { writes, thread }) = writer else {
                return;
            };
            drop(writes);
            let ended = tokio::task::spawn_blocking(move || thread.join());
            let _ = ended.await; // a panic of the writer has ended the process already
        })
    }
}

#[cfg(test)]
mod tests;
