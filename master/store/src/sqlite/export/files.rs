//! The long files of a state folder, by their names among the blobs, and putting them there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aot_model::task::Task;
use aot_proto::ids::{ClusterName, RunId};
use rusqlite::OptionalExtension;
use tokio::task::JoinSet;

use super::SqliteExport;
use crate::blobs::{self, BlobKey, BlobKind, Blobs};
use crate::{Error, record};

/// Files that are put at once.
const AT_ONCE: usize = 8;

/// Where outputs lie in a state folder,
const SPOOLS: &str = "spools";

/// and what is named by its content.
const CONTENTS: [(BlobKind, &str); 3] = [
    (BlobKind::Bundles, "bundles"),
    (BlobKind::Agents, "agents"),
    (BlobKind::Uploads, "transfers"),
];

/// A file of a state folder that belongs among the blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongFile {
    /// Its name there.
    pub key: BlobKey,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// What was put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PutFiles {
    /// Files that were not there before.
    pub files: usize,
    /// All of them together.
    pub bytes: u64,
}

impl SqliteExport {
    /// All of them: outputs of runs that have ended, which are not in the records, and what machines are given. What an open run
    /// has printed is not here: its agent has all of it, and sends it to whoever continues the run. What was copied from instances is
    /// not either: whoever asked for it has it.
    ///
    /// # Errors
    /// When the folder or the records can't be read.
    pub fn files(&self) -> Result<Vec<LongFile>, Error> {
        let mut found = Vec::new();
        for (name, path, bytes) in entries(&self.dir().join(SPOOLS))? {
            let key = match name.parse() {
                Ok(run) => self.output_key(run)?,
                Err(_) => None, // not an output
            };
            found.extend(key.map(|key| LongFile { key, path, bytes }));
        }
        for (kind, folder) in CONTENTS {
            let all = entries(&self.dir().join(folder))?.into_iter();
            found.extend(all.filter_map(|(name, path, bytes)| {
                let key = BlobKey::content(kind, &name)?;
                Some(LongFile { key, path, bytes })
            }));
        }
        Ok(found)
    }

    /// The name of the output of a run that has ended and that anybody may ask for.
    fn output_key(&self, run: RunId) -> Result<Option<BlobKey>, Error> {
        let sql = "SELECT r.instance, t.record FROM runs AS r LEFT JOIN tasks AS t ON t.job = r.job \
             WHERE r.id = ?1 AND NOT r.open";
        let found: Option<(String, Option<String>)> = {
            let connection = self.connection();
            let found = connection.prepare_cached(sql).and_then(|mut statement| {
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                statement.query_row([run.to_string()], read).optional()
            });
            found.map_err(|source| self.sql(source))?
        };
        let Some((instance, task)) = found else {
            return Ok(None);
        };
        if let Some(task) = task
            && let Task::CopyOut(_) = record::read("tasks", &task)?
        {
            return Ok(None);
        }
        let cluster = instance.split('/').next().unwrap_or_default();
        let cluster: ClusterName = record::read("runs", &record::write(&cluster))?;
        Ok(Some(BlobKey::output(&cluster, run)))
    }
}

/// Files of a folder with their lengths; none where there is no folder.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf, u64)>, Error> {
    let io = |source| Error::Io {
        what: "look into",
        path: dir.to_owned(),
        source,
    };
    let read = match std::fs::read_dir(dir) {
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.map_err(io)?,
    };
    let mut found = Vec::new();
    for entry in read {
        let entry = entry.map_err(io)?;
        let meta = entry.metadata().map_err(io)?;
        if meta.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            found.push((name, entry.path(), meta.len()));
        }
    }
    found.sort();
    Ok(found)
}

/// Puts those that are not there.
///
/// # Errors
/// When the place can't be asked or does not take one, or a file can't be read.
pub async fn put_files(
    files: &[LongFile],
    blobs: &Arc<dyn Blobs>,
) -> Result<PutFiles, blobs::Error> {
    let (mut under_way, mut done) = (JoinSet::new(), PutFiles::default());
    let mut seen = HashSet::new();
    for file in files {
        if !seen.insert(&file.key) {
            continue;
        }
        while under_way.len() >= AT_ONCE {
            done.add(under_way.join_next().await)?;
        }
        let (file, blobs) = (file.clone(), blobs.clone());
        under_way.spawn(async move {
            let found = blobs.find(&file.key).await?;
            if found.is_some_and(|found| found.bytes == file.bytes) {
                return Ok(None);
            }
            blobs.put(&file.key, &file.path).await?;
            Ok(Some(file.bytes))
        });
    }
    while !under_way.is_empty() {
        done.add(under_way.join_next().await)?;
    }
    Ok(done)
}

/// What became of one: its length, where it was not there before.
type PutEnd = Result<Result<Option<u64>, blobs::Error>, tokio::task::JoinError>;

impl PutFiles {
    fn add(&mut self, put: Option<PutEnd>) -> Result<(), blobs::Error> {
        let bytes = match put {
            None => None,
            Some(Ok(put)) => put?,
            Some(Err(ended)) => std::panic::resume_unwind(ended.into_panic()),
        };
        self.files += usize::from(bytes.is_some());
        self.bytes += bytes.unwrap_or(0);
        Ok(())
    }
}
