//! The handle on the store: opens it, hands writes to the writer's thread, ends that. Reading is in `read` and `prune`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::JoinHandle;

use aot_host::files;
use aot_model::retention::Sweep;
use aot_model::world::Changes;
use aot_proto::ids::RunId;
use prost::bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::writer::{QUEUE, Write, write_loop};
use crate::{Error, Loaded, load, schema};

/// Pages that a connection keeps, KiB (SQLite, PRAGMA cache_size).
const CACHE_KIB: i64 = 512;

/// A handle on the store. Cheap calls block for microseconds, `commit` waits for the disk.
pub struct Store {
    pub(crate) path: PathBuf,
    writes: mpsc::Sender<Write>,
    pub(crate) reader: Mutex<Connection>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
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
        let path = dir.join("aot.sqlite");
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
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn({
                let path = path.clone();
                move || write_loop(connection, queue, &path)
            })
            .map_err(|source| Error::Io {
                what: "start the writer of",
                path: path.clone(),
                source,
            })?;
        let store = Self {
            path,
            writes,
            reader: Mutex::new(reader),
            writer: Mutex::new(Some(writer)),
        };
        Ok((store, loaded))
    }

    /// Writes; returns once all of it is on disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn commit(&self, changes: Changes, spools: Vec<(RunId, Bytes)>) -> Result<(), Error> {
        self.write(changes, spools, Sweep::default()).await
    }

    pub(crate) async fn write(
        &self,
        changes: Changes,
        spools: Vec<(RunId, Bytes)>,
        sweep: Sweep,
    ) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.writes
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

    pub(crate) fn sql(&self, source: rusqlite::Error) -> Error {
        Error::Sql {
            path: self.path.clone(),
            source,
        }
    }

    /// Ends the writer once all that was given to it is on disk.
    pub fn close(self) {
        drop(self.writes);
        if let Some(writer) = self.writer.lock().expect("nobody panics with it").take() {
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests;
