//! The records of a state folder as rows, and its long files as what they are named among the blobs: for whoever brings all of
//! it into another engine. Reads alone, but for bringing the tables up to date; whoever calls it has the folder's lock.

mod files;
mod row;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use aot_proto::ids::ClusterName;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

pub use files::{LongFile, PutFiles, put_files};
pub use row::{RecordTable, RowsDigest, StoredCell, StoredRow};

use super::{ELSEWHERE, FILE, moved, schema};
use crate::{Error, record};

/// Rows of a page, however short they are,
const PAGE_ROWS: usize = 1000;

/// and its bytes, after which no other row is added.
const PAGE_BYTES: usize = 1 << 20;

/// The jobs of each cluster by their ids: the table itself has no index for it. It lies in a temporary file.
const JOBS_BY_CLUSTER: &str = "CREATE TEMP TABLE job_of (cluster TEXT NOT NULL, job TEXT NOT NULL,
    PRIMARY KEY (cluster, job)) WITHOUT ROWID;
INSERT INTO temp.job_of SELECT cluster, id FROM jobs;";

/// Everything that anything is on record of, whether it was launched, and whether anything of it is open or by clones.
const CLUSTERS: &str = "SELECT n.name, c.name IS NOT NULL,
    EXISTS (SELECT 1 FROM jobs WHERE jobs.open AND jobs.cluster = n.name)
        OR EXISTS (SELECT 1 FROM runs WHERE runs.open AND runs.instance >= n.name || '/' AND runs.instance < n.name || '0'),
    coalesce(json_extract(c.record, '$.spec.provider') = 'local', 0)
FROM (SELECT name FROM clusters UNION SELECT cluster FROM instances UNION SELECT cluster FROM facts
    UNION SELECT cluster FROM temp.job_of
    UNION SELECT substr(instance, 1, instr(instance, '/') - 1) FROM runs) AS n
LEFT JOIN clusters AS c ON c.name = n.name ORDER BY n.name";

/// Rows of no cluster: a sweep that was cut off left them.
const NOBODYS: &str = "SELECT (SELECT count(*) FROM targets WHERE job NOT IN (SELECT id FROM jobs))
    + (SELECT count(*) FROM tasks WHERE job NOT IN (SELECT id FROM jobs))
    + (SELECT count(*) FROM spools WHERE run NOT IN (SELECT id FROM runs))";

/// A cluster of which there are records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedCluster {
    /// Its name.
    pub name: ClusterName,
    /// It was launched and is not cleaned up, or a job or a run of it is open: a master must continue it.
    pub is_open: bool,
    /// Its machines are clones of the host that the folder is on.
    pub is_local: bool,
}

/// The records of a state folder.
pub struct SqliteExport {
    dir: PathBuf,
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl SqliteExport {
    /// Of this folder, brought up to date.
    ///
    /// # Errors
    /// When it has none, they were moved, or they can't be read.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        moved::check_moved(dir)?;
        let (path, elsewhere) = (dir.join(FILE), dir.join(ELSEWHERE));
        if elsewhere.exists() {
            return Err(Error::Elsewhere { path: elsewhere });
        }
        if !path.is_file() {
            return Err(Error::NoRecords { path });
        }
        let sql = |source| Error::Sql {
            path: path.clone(),
            source,
        };
        let mut connection = Connection::open(&path).map_err(sql)?;
        schema::migrate(&mut connection, &path)?;
        connection.execute_batch(JOBS_BY_CLUSTER).map_err(sql)?;
        Ok(Self {
            dir: dir.to_owned(),
            path,
            connection: Mutex::new(connection),
        })
    }

    /// The state folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().expect("no reader panics")
    }

    fn sql(&self, source: rusqlite::Error) -> Error {
        Error::Sql {
            path: self.path.clone(),
            source,
        }
    }

    /// All clusters, in the order of their names.
    ///
    /// # Errors
    /// When they can't be read, or a name is none.
    pub fn clusters(&self) -> Result<Vec<ExportedCluster>, Error> {
        type ClusterRow = (String, bool, bool, bool);
        let read = || -> rusqlite::Result<Vec<ClusterRow>> {
            let connection = self.connection();
            let mut statement = connection.prepare(CLUSTERS)?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?;
            rows.collect()
        };
        let found = read().map_err(|source| self.sql(source))?;
        let cluster = |(name, is_launched, is_busy, is_local): ClusterRow| {
            Ok(ExportedCluster {
                // Through a record, so that a name that is none is refused as a record is that can't be read.
                name: record::read("clusters", &record::write(&name))?,
                is_open: is_launched || is_busy,
                is_local,
            })
        };
        found.into_iter().map(cluster).collect()
    }

    /// The rows of a cluster in a table, in the order of their keys, in pages, until `page` says that it wants no more.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn rows(
        &self,
        cluster: &ClusterName,
        table: RecordTable,
        mut page: impl FnMut(Vec<StoredRow>) -> bool,
    ) -> Result<(), Error> {
        let mut read = || -> rusqlite::Result<()> {
            let connection = self.connection();
            let mut statement = connection.prepare_cached(select(table))?;
            let columns = statement.column_count();
            let mut rows = statement.query(params![cluster.as_str()])?;
            let (mut next, mut weight) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let row = stored(table, row, columns)?;
                weight += row.weight();
                next.push(row);
                if weight >= PAGE_BYTES || next.len() >= PAGE_ROWS {
                    weight = 0;
                    if !page(std::mem::take(&mut next)) {
                        return Ok(());
                    }
                }
            }
            if !next.is_empty() {
                page(next);
            }
            Ok(())
        };
        read().map_err(|source| self.sql(source))
    }

    /// Count and hash of the rows of a cluster in each table.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn digest(&self, cluster: &ClusterName) -> Result<String, Error> {
        let mut text = String::new();
        for table in RecordTable::ALL {
            let mut digest = RowsDigest::default();
            self.rows(cluster, table, |page| {
                page.iter().for_each(|row| digest.add(row));
                true
            })?;
            let _ = write!(text, "{}={digest} ", table.as_str());
        }
        Ok(text.trim_end().to_owned())
    }

    /// How many rows belong to no cluster, and so to nobody.
    ///
    /// # Errors
    /// When they can't be counted.
    pub fn rows_of_nobody(&self) -> Result<u64, Error> {
        let count = self
            .connection()
            .query_row(NOBODYS, [], |row| row.get::<_, i64>(0));
        let count = count.map_err(|source| self.sql(source))?;
        Ok(count.unsigned_abs())
    }
}

/// A run names its instance as `CLUSTER/NAME`, and `0` is what comes after `/`.
fn select(table: RecordTable) -> &'static str {
    match table {
        RecordTable::Clusters => "SELECT name, record FROM clusters WHERE name = ?1",
        RecordTable::Instances => {
            "SELECT cluster, name, record FROM instances WHERE cluster = ?1 ORDER BY name"
        }
        RecordTable::Facts => {
            "SELECT cluster, name, record FROM facts WHERE cluster = ?1 ORDER BY name"
        }
        RecordTable::Jobs => {
            "SELECT j.id, j.cluster, json_extract(j.record, '$.ended_ms'), j.record \
             FROM temp.job_of AS o JOIN jobs AS j ON j.id = o.job WHERE o.cluster = ?1 ORDER BY o.job"
        }
        RecordTable::Targets => {
            "SELECT t.job, t.instance, t.record FROM temp.job_of AS o JOIN targets AS t ON t.job = o.job \
             WHERE o.cluster = ?1 ORDER BY o.job, t.instance"
        }
        RecordTable::Tasks => {
            "SELECT t.job, t.record FROM temp.job_of AS o JOIN tasks AS t ON t.job = o.job \
             WHERE o.cluster = ?1 ORDER BY o.job"
        }
        RecordTable::Runs => {
            "SELECT id, job, instance, kind, open, record FROM runs \
             WHERE instance >= ?1 || '/' AND instance < ?1 || '0' ORDER BY id"
        }
        RecordTable::Spools => {
            "SELECT s.run, s.bytes FROM runs AS r JOIN spools AS s ON s.run = r.id \
             WHERE r.instance >= ?1 || '/' AND r.instance < ?1 || '0' ORDER BY s.run"
        }
    }
}

fn stored(table: RecordTable, row: &Row<'_>, columns: usize) -> rusqlite::Result<StoredRow> {
    let cell = |at: usize| -> rusqlite::Result<StoredCell> {
        Ok(match (row.get_ref(at)?, table) {
            (ValueRef::Null, _) => StoredCell::Number(None),
            (ValueRef::Integer(number), RecordTable::Runs) => StoredCell::Flag(number != 0),
            (ValueRef::Integer(number), _) => StoredCell::Number(Some(number)),
            (ValueRef::Blob(bytes), _) => StoredCell::Bytes(bytes.to_vec()),
            (ValueRef::Text(_) | ValueRef::Real(_), _) => StoredCell::Text(row.get(at)?),
        })
    };
    let cells: rusqlite::Result<Vec<StoredCell>> = (0..columns).map(cell).collect();
    Ok(StoredRow(cells?))
}

#[cfg(test)]
mod tests;
