//! The targets of jobs, which are rows of their own. Read by whatever reads a job: `load` and `read`.

use std::path::Path;

use aot_model::job::Job;
use aot_proto::ids::InstanceName;
use rusqlite::Connection;

use crate::{Error, record};

/// Reads a job's targets into it.
pub(super) fn add_targets(
    connection: &Connection,
    path: &Path,
    job: &mut Job,
) -> Result<(), Error> {
    let read = || -> rusqlite::Result<Vec<(String, String)>> {
        let mut statement =
            connection.prepare_cached("SELECT instance, record FROM targets WHERE job = ?1")?;
        let rows =
            statement.query_map([job.id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    let rows = read().map_err(|source| Error::Sql {
        path: path.to_owned(),
        source,
    })?;
    for (name, text) in rows {
        // Through a record, so that a name that is none is refused as a record is that can't be read.
        let name: InstanceName = record::read("targets", &record::write(&name))?;
        job.add_target(name, record::read("targets", &text)?);
    }
    Ok(())
}
