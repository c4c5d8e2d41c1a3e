//! What jobs and their outputs take on disk, and dropping what is kept no longer.

use aot_model::retention::Sweep;
use aot_proto::ids::JobId;
use rusqlite::{Connection, Params, Row};

use super::read::SqliteReader;
use crate::{ClosedJob, Error, StoredOutputs};

impl SqliteReader {
    pub(super) fn closed_jobs(&self) -> Result<Vec<ClosedJob>, Error> {
        let sql = "SELECT id, json_extract(record, '$.ended_ms') FROM jobs \
                   WHERE NOT open AND id NOT IN (SELECT job FROM runs WHERE open) ORDER BY id";
        let rows = self.rows(&self.connection(), sql, [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?))
        })?;
        let closed = rows.into_iter().filter_map(|(id, ended_ms)| {
            Some(ClosedJob {
                id: id.parse().ok()?,
                ended_ms: ended_ms?.unsigned_abs(),
            })
        });
        Ok(closed.collect())
    }

    pub(super) fn outputs(&self, jobs: Option<&[JobId]>) -> Result<StoredOutputs, Error> {
        const ALL: &str = "SELECT runs.job, runs.id, coalesce(length(spools.bytes), 0) \
                           FROM runs LEFT JOIN spools ON spools.run = runs.id";
        let mut outputs = StoredOutputs::new();
        let Some(jobs) = jobs else {
            self.add_outputs(ALL, [], &mut outputs)?;
            return Ok(outputs);
        };
        for job in jobs {
            let sql = format!("{ALL} WHERE runs.job = ?1");
            self.add_outputs(&sql, [job.to_string()], &mut outputs)?;
        }
        Ok(outputs)
    }

    fn add_outputs(
        &self,
        sql: &str,
        values: impl Params,
        outputs: &mut StoredOutputs,
    ) -> Result<(), Error> {
        let read = |row: &Row<'_>| {
            let (job, run): (String, String) = (row.get(0)?, row.get(1)?);
            Ok((job, run, row.get::<_, i64>(2)?))
        };
        for (job, run, bytes) in self.rows(&self.connection(), sql, values, read)? {
            if let (Ok(job), Ok(run)) = (job.parse(), run.parse()) {
                let of_job: &mut Vec<_> = outputs.entry(job).or_default();
                of_job.push((run, bytes.unsigned_abs()));
            }
        }
        Ok(())
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
