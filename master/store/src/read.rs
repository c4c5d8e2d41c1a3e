//! What is read while the master runs: jobs, their runs, and small outputs that lie in the store.

use std::sync::Arc;

use aot_model::job::Job;
use aot_model::key::InstanceKey;
use aot_model::run::Run;
use aot_proto::ids::{JobId, RunId};
use rusqlite::{OptionalExtension, params};

use crate::targets::add_targets;
use crate::{Error, Store, record};

impl Store {
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

    /// The newest jobs first, at most `limit`, with their targets and without their tasks; all clusters' when `cluster` is `None`.
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
        let mut jobs = Vec::new();
        for row in rows {
            let mut job = record::read("jobs", &row.map_err(|source| self.sql(source))?)?;
            add_targets(&reader, &self.path, &mut job)?;
            jobs.push(job);
        }
        Ok(jobs)
    }

    /// A job with its task.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        let reader = self.reader.lock().expect("no reader panics");
        // One snapshot: an end that is written meanwhile is in the record and in its row, or in neither.
        let reader = reader
            .unchecked_transaction()
            .map_err(|source| self.sql(source))?;
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
            Some(task) => Some(Arc::new(record::read("tasks", &task)?)),
            None => None,
        };
        let mut job = Job {
            task,
            ..record::read("jobs", &found)?
        };
        add_targets(&reader, &self.path, &mut job)?;
        Ok(Some(job))
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
    pub fn stage_runs(&self, at: &InstanceKey) -> Result<Vec<Run>, Error> {
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
        rows.map(|row| record::read("runs", &row.map_err(|source| self.sql(source))?))
            .collect()
    }
}
