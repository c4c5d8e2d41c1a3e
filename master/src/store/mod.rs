//! What survives a restart: records in SQLite, outputs and bundles as files. The only module that knows SQL.
//!
//! One thread owns the writing connection and commits what waits in one transaction (WAL, synchronous=FULL), so a write
//! that was acknowledged is on disk. Readers have connections of their own. Nothing outside learns that it is SQLite.

mod keep;
mod schema;
pub mod spool;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use aot_proto::ids::{InstanceName, JobId, RunId};
use prost::bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use crate::files;
use crate::model::cluster::{Cluster, Instance, Key, NodeFacts};
use crate::model::job::{Job, Run, Task};
use crate::model::retention::Sweep;
use crate::model::world::Changes;

/// Writes that may wait for the writer. When full, whoever decides waits: nothing is decided that can't be kept.
const QUEUE: usize = 256;

/// Pages that a connection keeps, KiB (SQLite, PRAGMA cache_size).
const CACHE_KIB: i64 = 512;

/// Most writes in one transaction.
const BATCH: usize = 64;

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
    /// A record that this version does not understand.
    #[error("a record of {table} in the store is not readable")]
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
    /// The writer thread is gone.
    #[error("the store's writer has stopped")]
    Stopped,
}

/// All that the store had when it was opened.
#[derive(Debug, Default)]
pub struct Loaded {
    /// With their instances and facts.
    pub clusters: Vec<Cluster>,
    /// Jobs with an open target.
    pub jobs: Vec<Job>,
    /// Runs that have not ended.
    pub runs: Vec<Run>,
}

struct Write {
    changes: Changes,
    spools: Vec<(RunId, Bytes)>,
    sweep: Sweep,
    done: oneshot::Sender<Result<(), Error>>,
}

/// A handle on the store. Cheap calls block for microseconds, `commit` waits for the disk.
pub struct Store {
    path: PathBuf,
    writes: mpsc::Sender<Write>,
    reader: Mutex<Connection>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens or makes the store in `dir`, and reads all that is needed to go on.
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
        let loaded = load(&connection, &path)?;
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

    async fn write(
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

    /// The whole spool of a run that was kept inside the store; `None` when it is a file, or not there.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn small_spool(&self, run: RunId) -> Result<Option<Vec<u8>>, Error> {
        let reader = self.reader.lock().expect("no reader panics");
        reader
            .query_row(
                "SELECT bytes FROM spools WHERE run = ?1",
                [run.to_string()],
                |row| row.get(0),
            )
            .optional()
            .map_err(|source| self.sql(source))
    }

    /// The newest jobs first, at most `limit`; all clusters' when `cluster` is `None`.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn jobs(&self, cluster: Option<&str>, limit: u32) -> Result<Vec<Job>, Error> {
        let reader = self.reader.lock().expect("no reader panics");
        let mut statement = reader
            .prepare_cached("SELECT record FROM jobs WHERE ?1 IS NULL OR cluster = ?1 ORDER BY id DESC LIMIT ?2")
            .map_err(|source| self.sql(source))?;
        let rows = statement
            .query_map(params![cluster, limit], |row| row.get::<_, String>(0))
            .map_err(|source| self.sql(source))?;
        rows.map(|row| record("jobs", &row.map_err(|source| self.sql(source))?))
            .collect()
    }

    /// A job with its task.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        let reader = self.reader.lock().expect("no reader panics");
        let text = |sql: &str| -> Result<Option<String>, Error> {
            reader
                .query_row(sql, [id.to_string()], |row| row.get(0))
                .optional()
                .map_err(|source| self.sql(source))
        };
        let Some(found) = text("SELECT record FROM jobs WHERE id = ?1")? else {
            return Ok(None);
        };
        let task = match text("SELECT record FROM tasks WHERE job = ?1")? {
            Some(task) => Some(Arc::new(record("tasks", &task)?)),
            None => None,
        };
        Ok(Some(Job {
            task,
            ..record("jobs", &found)?
        }))
    }

    /// The runs of a job.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn runs_of(&self, job: JobId) -> Result<Vec<Run>, Error> {
        self.runs_where("job = ?1", &job.to_string())
    }

    /// Every stage run of an instance, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn stage_runs(&self, at: &Key) -> Result<Vec<Run>, Error> {
        self.runs_where("kind = 'stage' AND instance = ?1", &at.to_string())
    }

    fn runs_where(&self, condition: &str, value: &str) -> Result<Vec<Run>, Error> {
        let reader = self.reader.lock().expect("no reader panics");
        let mut statement = reader
            .prepare_cached(&format!(
                "SELECT record FROM runs WHERE {condition} ORDER BY id"
            ))
            .map_err(|source| self.sql(source))?;
        let rows = statement
            .query_map([value], |row| row.get::<_, String>(0))
            .map_err(|source| self.sql(source))?;
        rows.map(|row| record("runs", &row.map_err(|source| self.sql(source))?))
            .collect()
    }

    fn sql(&self, source: rusqlite::Error) -> Error {
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

fn record<T: DeserializeOwned>(table: &'static str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|source| Error::Record { table, source })
}

fn text<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("records have string keys only")
}

fn write_loop(mut connection: Connection, mut queue: mpsc::Receiver<Write>, path: &Path) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(more) = queue.try_recv()
        {
            batch.push(more);
        }
        let result = write_batch(&mut connection, &batch);
        let failed = result.is_err();
        if let Err(error) = &result {
            tracing::error!(%error, "cannot write to the store");
        }
        for write in batch {
            let answer = if failed {
                Err(Error::Sql {
                    path: path.to_owned(),
                    source: rusqlite::Error::ExecuteReturnedResults,
                })
            } else {
                Ok(())
            };
            let _ = write.done.send(answer); // whoever asked may be gone: it is on disk all the same
        }
    }
}

fn write_batch(connection: &mut Connection, batch: &[Write]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for write in batch {
        write_changes(&transaction, &write.changes)?;
        for (run, bytes) in &write.spools {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO spools (run, bytes) VALUES (?1, ?2)")?
                .execute(params![run.to_string(), bytes.as_ref()])?;
        }
        keep::drop_old(&transaction, &write.sweep)?;
    }
    transaction.commit()
}

fn write_changes(connection: &Connection, changes: &Changes) -> rusqlite::Result<()> {
    for cluster in &changes.clusters {
        connection
            .prepare_cached("INSERT OR REPLACE INTO clusters (name, record) VALUES (?1, ?2)")?
            .execute(params![cluster.spec.name.as_str(), text(cluster)])?;
    }
    for (key, instance) in &changes.instances {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO instances (cluster, name, record) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![
                key.cluster.as_str(),
                key.instance.as_str(),
                text(instance)
            ])?;
    }
    for (key, facts) in &changes.facts {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO facts (cluster, name, record) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![
                key.cluster.as_str(),
                key.instance.as_str(),
                text(facts.as_ref())
            ])?;
    }
    for job in &changes.jobs {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO jobs (id, cluster, open, record) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                job.id.to_string(),
                job.cluster.as_str(),
                job.ended_ms.is_none(),
                text(job)
            ])?;
    }
    for (job, task) in &changes.tasks {
        connection
            .prepare_cached("INSERT OR REPLACE INTO tasks (job, record) VALUES (?1, ?2)")?
            .execute(params![job.to_string(), text(task.as_ref())])?;
    }
    for run in &changes.runs {
        let kind = match run.what {
            crate::model::job::RunKind::Stage { .. } => "stage",
            crate::model::job::RunKind::Task => "task",
        };
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO runs (id, job, instance, kind, open, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                run.id.to_string(),
                run.job.to_string(),
                run.at.to_string(),
                kind,
                run.verdict.is_none(),
                text(run)
            ])?;
    }
    for cluster in &changes.removed {
        let name = cluster.spec.name.as_str();
        for table in ["instances", "facts"] {
            connection.execute(&format!("DELETE FROM {table} WHERE cluster = ?1"), [name])?;
        }
        connection.execute("DELETE FROM clusters WHERE name = ?1", [name])?;
    }
    Ok(())
}

fn load(connection: &Connection, path: &Path) -> Result<Loaded, Error> {
    let rows = |sql: &str| -> Result<Vec<(String, String)>, Error> {
        let read = || -> rusqlite::Result<Vec<(String, String)>> {
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        read().map_err(|source| Error::Sql {
            path: path.to_owned(),
            source,
        })
    };
    let mut loaded = Loaded::default();
    for (_, text) in rows("SELECT name, record FROM clusters ORDER BY name")? {
        loaded.clusters.push(record("clusters", &text)?);
    }
    for (cluster, text) in rows("SELECT cluster, record FROM instances")? {
        let instance: Instance = record("instances", &text)?;
        if let Some(cluster) = loaded
            .clusters
            .iter_mut()
            .find(|c| c.spec.name.as_str() == cluster)
        {
            cluster.instances.insert(instance.name.clone(), instance);
        }
    }
    for (key, text) in rows("SELECT cluster || '/' || name, record FROM facts")? {
        let facts: NodeFacts = record("facts", &text)?;
        let (cluster, name) = key.split_once('/').unwrap_or_default();
        let instance = loaded
            .clusters
            .iter_mut()
            .find(|c| c.spec.name.as_str() == cluster)
            .zip(name.parse().ok())
            .and_then(|(c, name): (_, InstanceName)| c.instances.get_mut(&name));
        if let Some(instance) = instance.filter(|i| i.identity.is_some()) {
            instance.facts = Some(facts.into());
        }
    }
    let open = "open OR id IN (SELECT job FROM runs WHERE open)";
    let mut tasks: std::collections::HashMap<String, Arc<Task>> = std::collections::HashMap::new();
    for (job, text) in rows(&format!(
        "SELECT job, record FROM tasks WHERE job IN (SELECT id FROM jobs WHERE {open})"
    ))? {
        tasks.insert(job, Arc::new(record("tasks", &text)?));
    }
    for (id, text) in rows(&format!("SELECT id, record FROM jobs WHERE {open}"))? {
        let task = tasks.remove(&id);
        loaded.jobs.push(Job {
            task,
            ..record("jobs", &text)?
        });
    }
    for (_, text) in rows("SELECT id, record FROM runs WHERE open")? {
        loaded.runs.push(record("runs", &text)?);
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::model::job::{JobKind, Outcome, RunKind, RunState, Verdict};

    fn job(id: u64, ended: bool) -> Job {
        Job {
            ended_ms: ended.then_some(2),
            ..Job::new(
                JobId::from_parts(id, 0),
                JobKind::Exec,
                "c".parse().expect("a name"),
                "x".to_owned(),
                "root".to_owned(),
                1,
            )
        }
    }

    fn run(id: u64, job: u64, ended: bool) -> Run {
        Run {
            id: RunId::from_parts(id, 0),
            job: JobId::from_parts(job, 0),
            cancel: None,
            at: Key {
                cluster: "c".parse().expect("a name"),
                instance: "a".parse().expect("a name"),
            },
            what: RunKind::Stage {
                index: 0,
                attempt: 1,
            },
            state: RunState::Asked,
            asked_ms: 1,
            verdict: ended.then(|| Verdict::without_run(Outcome::Failed, "x")),
        }
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_a_restart_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let (store, loaded) = Store::open(dir.path()).expect("opens");
        assert!(loaded.clusters.is_empty() && loaded.jobs.is_empty());
        let changes = Changes {
            jobs: vec![job(1, false), job(2, true), job(3, true)],
            runs: vec![run(1, 1, true), run(2, 3, false)],
            ..Changes::default()
        };
        let spool = (RunId::from_parts(1, 0), Bytes::from_static(b"frames"));
        store.commit(changes, vec![spool]).await.expect("commits");
        store.close();
        let (store, loaded) = Store::open(dir.path()).expect("opens again");
        let ids: Vec<JobId> = loaded.jobs.iter().map(|job| job.id).collect();
        assert_eq!(
            ids,
            [1, 3].map(|id| JobId::from_parts(id, 0)),
            "open jobs, and those with an open run"
        );
        assert_eq!(loaded.runs, [run(2, 3, false)]);
        assert_eq!(
            store.small_spool(RunId::from_parts(1, 0)).expect("reads"),
            Some(b"frames".to_vec())
        );
        assert_eq!(
            store.small_spool(RunId::from_parts(9, 0)).expect("reads"),
            None
        );
        assert_eq!(store.jobs(Some("c"), 2).expect("reads").len(), 2);
        assert_eq!(store.jobs(Some("other"), 2).expect("reads").len(), 0);
        assert_eq!(
            store.stage_runs(&run(1, 1, true).at).expect("reads").len(),
            2
        );
        store.close();
    }

    #[tokio::test]
    async fn what_is_dropped_is_gone_and_an_emptied_job_says_so() {
        let dir = tempfile::tempdir().expect("a folder");
        let (store, _) = Store::open(dir.path()).expect("opens");
        let task = Arc::new(Task::CopyOut(vec!["/x".to_owned()]));
        let changes = Changes {
            jobs: vec![job(1, true), job(2, true), job(3, false)],
            tasks: vec![(JobId::from_parts(1, 0), task.clone())],
            runs: vec![run(1, 1, true), run(2, 2, true), run(3, 3, false)],
            ..Changes::default()
        };
        let spools = [1, 2].map(|id| (RunId::from_parts(id, 0), Bytes::from_static(b"frames")));
        store.commit(changes, spools.into()).await.expect("commits");
        let (none, file) = (
            HashSet::new(),
            HashMap::from([(RunId::from_parts(2, 0), 100)]),
        );
        let kept = store.kept(&none, &file).expect("reads");
        let shown: Vec<_> = kept
            .iter()
            .map(|job| (job.ended_ms, job.outputs[0].1))
            .collect();
        assert_eq!(shown, [(2, 6), (2, 106)], "the open one is not looked at");
        assert_eq!(store.output_of(kept[1].id, |_| 100).expect("reads"), 106);
        let needed = HashSet::from([kept[0].outputs[0].0]);
        assert!(store.kept(&needed, &file).expect("reads")[0].needed);
        let sweep = Sweep {
            jobs: vec![kept[0].id],
            emptied: vec![kept[1].id],
            spools: kept.iter().map(|job| job.outputs[0].0).collect(),
        };
        assert_eq!(
            store
                .job(kept[0].id)
                .expect("reads")
                .expect("is there")
                .task,
            Some(task)
        );
        store.sweep(sweep).await.expect("sweeps");
        assert_eq!(store.job(kept[0].id).expect("reads"), None);
        let emptied = store.job(kept[1].id).expect("reads").expect("stays");
        assert!(emptied.output_dropped);
        assert_eq!(
            store.small_spool(kept[1].outputs[0].0).expect("reads"),
            None
        );
        assert_eq!(store.run_ids().expect("reads").len(), 2);
    }

    #[test]
    fn a_store_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let (store, _) = Store::open(dir.path()).expect("opens");
        store.close();
        let connection = Connection::open(dir.path().join("aot.sqlite")).expect("opens");
        connection
            .pragma_update(None, "user_version", 999)
            .expect("sets");
        drop(connection);
        assert!(matches!(
            Store::open(dir.path()),
            Err(Error::TooNew { found: 999, .. })
        ));
    }
}
