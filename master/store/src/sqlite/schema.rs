//! Tables, and the numbered steps from one version of them to the next.

mod batches;

use std::path::Path;

use rusqlite::Connection;

use crate::Error;

/// What brings a store from one version to the next.
enum Migration {
    Sql(&'static str),
    /// What SQL can't do.
    Code(fn(&Connection) -> rusqlite::Result<()>),
}

/// Step N brings a store from version N to N + 1. Never changed once released; only added to.
const STEPS: &[Migration] = &[Migration::Sql("
CREATE TABLE clusters  (name TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
CREATE TABLE instances (cluster TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (cluster, name)) STRICT;
CREATE TABLE facts     (cluster TEXT NOT NULL, name TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (cluster, name)) STRICT;
CREATE TABLE jobs      (id TEXT PRIMARY KEY, cluster TEXT NOT NULL, open INTEGER NOT NULL, record TEXT NOT NULL) STRICT;
CREATE TABLE runs      (id TEXT PRIMARY KEY, job TEXT NOT NULL, instance TEXT NOT NULL, kind TEXT NOT NULL,
                        open INTEGER NOT NULL, record TEXT NOT NULL) STRICT;
CREATE TABLE spools    (run TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE INDEX jobs_open ON jobs (open) WHERE open;
CREATE INDEX runs_open ON runs (open) WHERE open;
CREATE INDEX runs_job ON runs (job);
CREATE INDEX runs_instance ON runs (instance, kind);
"), Migration::Sql("
CREATE TABLE tasks (job TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;
"), Migration::Sql("
UPDATE clusters SET record =
    json_set(json_remove(record, '$.ground'), '$.prerequisites', json_extract(record, '$.ground'))
    WHERE json_type(record, '$.ground') IS NOT NULL;
"), Migration::Sql("
CREATE TABLE targets (job TEXT NOT NULL, instance TEXT NOT NULL, record TEXT NOT NULL, PRIMARY KEY (job, instance)) STRICT, WITHOUT ROWID;
INSERT INTO targets
    SELECT jobs.id, target.key, CASE target.type WHEN 'null' THEN '{}' ELSE json_object('end', json(target.value)) END
    FROM jobs, json_each(jobs.record, '$.targets') AS target;
INSERT INTO targets
    SELECT jobs.id, waits.value, json_object('place', waits.key)
    FROM jobs, json_each(jobs.record, '$.waiting') AS waits WHERE true
    ON CONFLICT DO UPDATE SET record = json_set(record, '$.place', json_extract(excluded.record, '$.place'));
UPDATE jobs SET record = json_remove(record, '$.targets', '$.waiting');
"), Migration::Code(batches::name_their_pools)];

/// Brings the store to the newest version.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let sql = |source| Error::Sql {
        path: path.to_owned(),
        source,
    };
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(sql)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(sql)?;
    connection
        .pragma_update(None, "foreign_keys", true)
        .map_err(sql)?;
    let found: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .map_err(sql)?;
    let known = u32::try_from(STEPS.len()).expect("there are few steps");
    if found > known {
        return Err(Error::TooNew { found, known });
    }
    for (version, step) in (0..).zip(STEPS).skip(found as usize) {
        let transaction = connection.transaction().map_err(sql)?;
        match step {
            Migration::Sql(text) => transaction.execute_batch(text),
            Migration::Code(change) => change(&transaction),
        }
        .map_err(sql)?;
        transaction
            .pragma_update(None, "user_version", version + 1)
            .map_err(sql)?;
        transaction.commit().map_err(sql)?;
    }
    Ok(())
}
