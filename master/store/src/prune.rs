//! What jobs and their outputs take on disk, and dropping what is kept no longer.

use std::collections::{HashMap, HashSet};

use aot_model::retention::{EndedJob, Sweep};
use aot_model::world::Changes;
use aot_proto::ids::{JobId, RunId};
use rusqlite::Connection;

use super::{Error, Store};

impl Store {
    /// Jobs that are over, oldest first, with the bytes that they take. `needed` runs are left out; `files` are the sizes
    /// of spools that are files.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn kept(
        &self,
        needed: &HashSet<RunId>,
        files: &HashMap<RunId, u64>,
    ) -> Result<Vec<EndedJob>, Error> {
        let mut runs: HashMap<String, Vec<(RunId, u64)>> = HashMap::new();
        let sql = "SELECT runs.job, runs.id, coalesce(length(spools.bytes), 0) \
                   FROM runs LEFT JOIN spools ON spools.run = runs.id";
        for (job, run, stored) in self.rows(sql, |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get::<_, i64>(2)?,
            ))
        })? {
            if let Ok(run) = run.parse() {
                let bytes = stored.unsigned_abs() + files.get(&run).copied().unwrap_or(0);
                runs.entry(job).or_default().push((run, bytes));
            }
        }
        let sql = "SELECT id, json_extract(record, '$.ended_ms') FROM jobs \
                   WHERE NOT open AND id NOT IN (SELECT job FROM runs WHERE open) ORDER BY id";
        let over = self.rows(sql, |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))
        })?;
        let kept = over.into_iter().filter_map(|(id, ended_ms)| {
            let (mut outputs, id) = (runs.remove(&id).unwrap_or_default(), id.parse().ok()?);
            let all = outputs.len();
            outputs.retain(|(run, _)| !needed.contains(run));
            Some(EndedJob {
                id,
                ended_ms: ended_ms?.unsigned_abs(),
                needed: outputs.len() < all,
                outputs,
            })
        });
        Ok(kept.collect())
    }

    /// Bytes that a job's output takes; `file` says how much of a run's is a file.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn output_of(&self, job: JobId, file: impl Fn(RunId) -> u64) -> Result<u64, Error> {
        let reader = self.reader.lock().expect("no reader panics");
        let sql = "SELECT runs.id, coalesce(length(spools.bytes), 0) \
                   FROM runs LEFT JOIN spools ON spools.run = runs.id WHERE runs.job = ?1";
        let mut statement = reader
            .prepare_cached(sql)
            .map_err(|source| self.sql(source))?;
        let rows = statement
            .query_map([job.to_string()], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            })
            .map_err(|source| self.sql(source))?;
        let mut total = 0;
        for row in rows {
            let (run, stored) = row.map_err(|source| self.sql(source))?;
            total += stored.unsigned_abs() + run.parse().map_or(0, &file);
        }
        Ok(total)
    }

    /// Every run on record.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn run_ids(&self) -> Result<HashSet<RunId>, Error> {
        let ids = self.rows("SELECT id FROM runs", |row| row.get::<_, String>(0))?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    fn rows<T>(
        &self,
        sql: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let reader = self.reader.lock().expect("no reader panics");
        let mut statement = reader
            .prepare_cached(sql)
            .map_err(|source| self.sql(source))?;
        let rows = statement
            .query_map([], read)
            .map_err(|source| self.sql(source))?;
        rows.map(|row| row.map_err(|source| self.sql(source)))
            .collect()
    }

    /// Drops jobs and outputs; returns once that is on disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn sweep(&self, sweep: Sweep) -> Result<(), Error> {
        self.write(Changes::default(), Vec::new(), sweep).await
    }
}

/// Drops what a sweep names.
pub(super) fn drop_old(connection: &Connection, sweep: &Sweep) -> rusqlite::Result<()> {
    for run in &sweep.spools {
        connection
            .prepare_cached("DELETE FROM spools WHERE run = ?1")?
            .execute([run.to_string()])?;
    }
    for job in &sweep.emptied {
        connection
            .prepare_cached("UPDATE jobs SET record = json_set(record, '$.output_dropped', json('true')) WHERE id = ?1")?
            .execute([job.to_string()])?;
    }
    for job in &sweep.jobs {
        for sql in [
            "DELETE FROM runs WHERE job = ?1",
            "DELETE FROM targets WHERE job = ?1",
            "DELETE FROM tasks WHERE job = ?1",
            "DELETE FROM jobs WHERE id = ?1",
        ] {
            connection.prepare_cached(sql)?.execute([job.to_string()])?;
        }
    }
    Ok(())
}
