//! Why the store can't be used; each error names the path, none its content.

use std::path::PathBuf;
use std::sync::Arc;

/// Why the store can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The database.
    #[error("the store {path} cannot be used")]
    Sql {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// A write, shared by all who wait for it.
    #[error("the store {path} could not be written")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Arc<rusqlite::Error>,
    },
    /// A record that this version does not understand.
    #[error("a record of {table} in the store cannot be read")]
    Record {
        /// Which table.
        table: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
    /// A newer version wrote it.
    #[error(
        "the store has version {found}, this program knows up to {known}: use the newer aot-master"
    )]
    TooNew {
        /// Version in the file.
        found: u32,
        /// Newest known.
        known: u32,
    },
    /// The records of this state lie in another engine.
    #[error(
        "the records of this state are in a database, as {} says: start with AOT_STORE as before, or with another state folder",
        path.display()
    )]
    Elsewhere {
        /// Which file says so.
        path: PathBuf,
    },
    /// They were brought there, and are no longer kept here.
    #[error(
        "the records of {} were moved to {place}: start masters with AOT_STORE, AOT_FLEET_KEY and another state folder (--state-dir)",
        path.display()
    )]
    Moved {
        /// The folder that they were in.
        path: PathBuf,
        /// Where they are.
        place: String,
    },
    /// It is not the state folder of a master with records of its own.
    #[error("{} is not there: name the state folder of the master whose records are wanted", path.display())]
    NoRecords {
        /// The file that such a folder has.
        path: PathBuf,
    },
    /// Another engine than SQLite; what it says names what was done and where.
    #[error(transparent)]
    Engine(Box<dyn std::error::Error + Send + Sync>),
    /// Another master has the hold; what it says names it.
    #[error("{0}")]
    Lost(Arc<str>),
    /// The writer is gone, or the store was closed.
    #[error("the store's writer has stopped")]
    Stopped,
}
