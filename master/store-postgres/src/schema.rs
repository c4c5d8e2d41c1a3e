//! Tables, and the numbered steps from one version of them to the next. One master at a time brings them forward.

use std::time::Duration;

use aot_model::level::LEVEL;

use crate::Error;
use crate::connect::EngineLink;

/// Oldest version of PostgreSQL: the first with LZ4 for long values, and the oldest that its community still keeps.
const OLDEST: i32 = 14;

/// Held while tables are changed: `aot` in ASCII, and a number of ours.
const LOCK: i64 = 0x616f_7400_0000_0001;

/// Longest wait for another master that changes tables, and for one step. The engine ends a transaction that is idle longer.
const WITHIN: Duration = Duration::from_secs(60);

/// Step N brings tables from version N to N + 1. Never changed once released; only added to.
///
/// Names and ids are compared by their bytes, as SQLite and the model do. Long records are packed with LZ4 where this engine
/// was built with it.
const STEPS: [&str; 4] = [
    r#"
CREATE TABLE masters (id text COLLATE "C" PRIMARY KEY, incarnation bigint NOT NULL, beat bigint NOT NULL, version text NOT NULL);
CREATE TABLE owners (cluster text COLLATE "C" PRIMARY KEY, owner text COLLATE "C" NOT NULL, incarnation bigint NOT NULL,
    epoch bigint NOT NULL, seq bigint NOT NULL, write_id text NOT NULL DEFAULT '', served_by text COLLATE "C" NOT NULL DEFAULT '',
    boot text NOT NULL DEFAULT '', doubt boolean NOT NULL DEFAULT false);
CREATE TABLE clusters (cluster text COLLATE "C" PRIMARY KEY, record text NOT NULL);
CREATE TABLE instances (cluster text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, record text NOT NULL,
    PRIMARY KEY (cluster, name));
CREATE TABLE facts (cluster text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL, record text NOT NULL,
    PRIMARY KEY (cluster, name));
CREATE TABLE jobs (id text COLLATE "C" PRIMARY KEY, cluster text COLLATE "C" NOT NULL, ended_ms bigint, record text NOT NULL,
    output_dropped boolean NOT NULL DEFAULT false);
CREATE TABLE targets (job text COLLATE "C" NOT NULL, instance text COLLATE "C" NOT NULL, record text NOT NULL,
    PRIMARY KEY (job, instance));
CREATE TABLE tasks (job text COLLATE "C" PRIMARY KEY, record text NOT NULL);
CREATE TABLE runs (id text COLLATE "C" PRIMARY KEY, job text COLLATE "C" NOT NULL, instance text COLLATE "C" NOT NULL,
    kind text NOT NULL, open boolean NOT NULL, record text NOT NULL);
CREATE TABLE spools (run text COLLATE "C" PRIMARY KEY, bytes bytea NOT NULL);
CREATE INDEX jobs_open ON jobs (id) WHERE ended_ms IS NULL;
CREATE INDEX runs_open ON runs (job) WHERE open;
CREATE INDEX runs_job ON runs (job);
CREATE INDEX runs_instance ON runs (instance, kind);
DO $$
DECLARE holder text;
BEGIN
    FOREACH holder IN ARRAY ARRAY['clusters', 'instances', 'facts', 'jobs', 'targets', 'tasks', 'runs'] LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN record SET COMPRESSION lz4', holder);
    END LOOP;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'this engine has no LZ4: records are packed with its default';
END $$;
"#,
    // Several masters: what each says of itself, clusters that only one of them may have, and the level of records (`level`):
    // what a master knows, what a cluster's may have, what the fleet writes. And what came from state folders (`import`).
    "ALTER TABLE masters ADD COLUMN agents text[] NOT NULL DEFAULT '{}', ADD COLUMN peer text NOT NULL DEFAULT '',
    ADD COLUMN link text NOT NULL DEFAULT '', ADD COLUMN build text NOT NULL DEFAULT '', ADD COLUMN draining boolean NOT NULL DEFAULT false;
ALTER TABLE owners ADD COLUMN pinned text COLLATE \"C\" NOT NULL DEFAULT '',
    ADD COLUMN preferred text COLLATE \"C\" NOT NULL DEFAULT '';
ALTER TABLE masters ADD COLUMN level integer NOT NULL DEFAULT 1;
ALTER TABLE owners ADD COLUMN level integer NOT NULL DEFAULT 1;
ALTER TABLE fleet ADD COLUMN level integer NOT NULL DEFAULT 1;
CREATE TABLE imports (cluster text COLLATE \"C\" PRIMARY KEY, digest text NOT NULL);",
    // The master that an operator has put a cluster on.
    "ALTER TABLE owners ADD COLUMN placed text COLLATE \"C\" NOT NULL DEFAULT '';",
    // The time that a master has, with each of its beats.
    "ALTER TABLE masters ADD COLUMN wall_ms bigint NOT NULL DEFAULT 0;",
];

/// Brings the tables to the newest version; the id of this database.
pub(crate) async fn migrate(link: &EngineLink) -> Result<String, Error> {
    check_version(link).await?;
    let session = link.session().await?;
    let sql = |source| link.sql("bring up to date the tables of", source);
    let work = async {
        let lock = format!(
            "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '60s'; \
             SELECT pg_advisory_xact_lock({LOCK}); \
             CREATE TABLE IF NOT EXISTS fleet (\"only\" boolean PRIMARY KEY DEFAULT true CHECK (\"only\"), schema integer NOT NULL, \
             id text NOT NULL DEFAULT gen_random_uuid()::text, sealed bytea); \
             INSERT INTO fleet (schema) VALUES (0) ON CONFLICT DO NOTHING"
        );
        session.batch(&lock).await.map_err(sql)?;
        let rows = session.query("SELECT schema, id FROM fleet", &[]).await;
        let rows = rows.map_err(sql)?;
        let (found, id): (i32, String) = (rows[0].get(0), rows[0].get(1));
        let known = i32::try_from(STEPS.len()).expect("there are few steps");
        if found > known {
            let too_new = Error::TooNew {
                place: link.place(),
                found,
                known,
            };
            session.batch("ROLLBACK").await.map_err(sql)?;
            return Err(too_new);
        }
        for step in STEPS.iter().skip(usize::try_from(found).unwrap_or(0)) {
            session.batch(step).await.map_err(sql)?;
        }
        // Nobody of before has written to tables that are new.
        let done = format!(
            "UPDATE fleet SET level = {LEVEL} WHERE schema = 0; \
             UPDATE fleet SET schema = {known} WHERE schema < {known}; COMMIT"
        );
        session.batch(&done).await.map_err(sql)?;
        Ok(id)
    };
    let migrated = tokio::time::timeout(WITHIN, work).await;
    let migrated = migrated.unwrap_or_else(|_| Err(link.silent()));
    if migrated.is_err() {
        link.discard(&session).await; // with its transaction
    }
    migrated
}

/// The id of this database; `None` where it has no tables of ours yet.
pub(crate) async fn id(link: &EngineLink) -> Result<Option<String>, Error> {
    let what = "ask for the id of";
    let there = link.read(what, "SELECT to_regclass('fleet') IS NOT NULL", &[]);
    if !there.await?[0].get::<_, bool>(0) {
        return Ok(None);
    }
    let rows = link.read(what, "SELECT id FROM fleet", &[]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// What the masters share, if anything.
pub(crate) async fn sealed(link: &EngineLink) -> Result<Option<Vec<u8>>, Error> {
    let sql = "SELECT sealed FROM fleet";
    let rows = link.read("read the masters' keys in", sql, &[]).await?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// Keeps this unless something is there; what is there then.
pub(crate) async fn seal(link: &EngineLink, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    let sql = "UPDATE fleet SET sealed = coalesce(sealed, $1) RETURNING sealed";
    let what = "keep the masters' keys in";
    let rows = link.query(what, sql, &[&sealed], WITHIN).await?;
    Ok(rows[0].get(0))
}

/// Puts this in the place of what was there; false when something else is there.
pub(crate) async fn seal_anew(link: &EngineLink, was: &[u8], sealed: &[u8]) -> Result<bool, Error> {
    let sql = "UPDATE fleet SET sealed = $2 WHERE sealed = $1 RETURNING 1";
    let what = "seal anew the masters' keys in";
    let rows = link.query(what, sql, &[&was, &sealed], WITHIN).await?;
    Ok(!rows.is_empty())
}

async fn check_version(link: &EngineLink) -> Result<(), Error> {
    let sql =
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')";
    let rows = link.read("ask for the version of", sql, &[]).await?;
    let (number, found): (i32, String) = (rows[0].get(0), rows[0].get(1));
    match number >= OLDEST * 10_000 {
        true => Ok(()),
        false => Err(Error::TooOld {
            place: link.place(),
            found,
            needed: OLDEST,
        }),
    }
}
