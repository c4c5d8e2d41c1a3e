//! What is read while the master runs: jobs, their runs, and small outputs that lie in the store.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use aot_model::job::Job;
use aot_model::key::InstanceKey;
use aot_model::run::Run;
use aot_proto::ids::{JobId, RunId};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::targets::add_targets;
use crate::{Error, record};

/// The reading connection.
pub(super) struct SqliteReader {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl SqliteReader {
    pub(super) fn new(path: PathBuf, connection: Connection) -> Self {
        Self {
            path,
            connection: Mutex::new(connection),
        }
    }

    pub(super) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("no reader panics")
    }

    pub(super) fn sql(&self, source: rusqlite::Error) -> Error {
        Error::Sql {
            path: self.path.clone(),
            source,
        }
    }

    /// What `read` makes of each row.
    pub(super) fn rows<T>(
        &self,
        connection: &Connection,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        let rows = || {
            let mut statement = connection.prepare_cached(sql)?;
            statement
                .query_map(values, read)?
                .collect::<rusqlite::Result<Vec<T>>>()
        };
        rows().map_err(|source| self.sql(source))
    }

    pub(super) fn small_spool(&self, run: RunId) -> Result<Option<Vec<u8>>, Error> {
        let sql = "SELECT bytes FROM spools WHERE run = ?1";
        let mut found = self.rows(&self.connection(), sql, [run.to_string()], |row| row.get(0))?;
        Ok(found.pop())
    }

    pub(super) fn jobs(&self, cluster: Option<&str>, limit: u32) -> Result<Vec<Job>, Error> {
        let sql =
            "SELECT record FROM jobs WHERE ?1 IS NULL OR cluster = ?1 ORDER BY id DESC LIMIT ?2";
        let connection = self.connection();
        let rows = self.rows(&connection, sql, params![cluster, limit], |row| {
            row.get::<_, String>(0)
        })?;
        let mut jobs = Vec::new();
        for text in rows {
            let mut job = record::read("jobs", &text)?;
            add_targets(&connection, &self.path, &mut job)?;
            jobs.push(job);
        }
        Ok(jobs)
    }

    pub(super) fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        let reader = self.connection();
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

    pub(super) fn runs_of(&self, job: JobId) -> Result<Vec<Run>, Error> {
        self.runs_where("job = ?1", &job.to_string())
    }

    pub(super) fn stage_runs(&self, at: &InstanceKey) -> Result<Vec<Run>, Error> {
        self.runs_where("kind = 'stage' AND instance = ?1", &at.to_string())
    }

    fn runs_where(&self, condition: &str, value: &str) -> Result<Vec<Run>, Error> {
        let sql = format!("SELECT record FROM runs WHERE {condition} ORDER BY id");
        let rows = self.rows(&self.connection(), &sql, [value], |row| {
            row.get::<_, String>(0)
        })?;
        rows.iter().map(|text| record::read("runs", text)).collect()
    }
}
