//! What a master needs to continue: read once, when it has the hold and nobody else writes.

use std::collections::BTreeMap;
use std::time::Duration;

use aot_model::cluster::Cluster;
use aot_model::instance::{Instance, NodeFacts};
use aot_proto::ids::InstanceName;
use aot_store::{Error, Loaded, record};
use tokio_postgres::Row;

use crate::commit::FencedWriter;
use crate::connect::{EngineLink, EngineSession};
use crate::read;

/// Longest time that the rows of one table may take to be taken apart here: the engine ends what is idle for longer.
const READ_ROWS_WITHIN: Duration = Duration::from_secs(600);

/// Reads all of it as of one moment, in which this epoch had the hold. It may take as long as it takes: only a connection
/// that breaks ends it.
///
/// # Errors
/// When somebody else has the hold, or it can't be read.
pub(crate) async fn load(writer: &FencedWriter, hold: &str, epoch: i64) -> Result<Loaded, Error> {
    let link = &writer.link;
    let session = link.session().await?;
    let loaded = in_one_moment(writer, &session, hold, epoch).await;
    if loaded.is_err() {
        link.discard(&session).await; // with its transaction
    }
    loaded
}

async fn in_one_moment(
    writer: &FencedWriter,
    session: &EngineSession,
    hold: &str,
    epoch: i64,
) -> Result<Loaded, Error> {
    let link = &writer.link;
    let sql = |source| link.sql("read the records in", source);
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; \
         SET LOCAL idle_in_transaction_session_timeout = '{}s'",
        READ_ROWS_WITHIN.as_secs()
    );
    session.batch(&begin).await.map_err(sql)?;
    let owners = "SELECT owner FROM owners WHERE cluster = $1 AND epoch <> $2";
    let others = session.query(owners, &[&hold, &epoch]).await.map_err(sql)?;
    if let Some(row) = others.first() {
        return Err(writer.fenced(row.get(0)).into());
    }
    let open = "(j.ended_ms IS NULL OR EXISTS (SELECT FROM runs r WHERE r.job = j.id AND r.open))";
    let jobs = format!(
        "{}, k.record FROM jobs j LEFT JOIN tasks k ON k.job = j.id WHERE {open} ORDER BY j.id",
        read::JOB
    );
    let runs = "SELECT record FROM runs WHERE open ORDER BY id";
    let jobs = rows(link, session, &jobs).await?;
    let runs = rows(link, session, runs).await?;
    let runs = runs.iter().map(|row| record::read("runs", row.get(0)));
    let loaded = Loaded {
        clusters: clusters(link, session).await?,
        jobs: jobs.iter().map(read::job).collect::<Result<_, _>>()?,
        runs: runs.collect::<Result<_, _>>()?,
    };
    session.batch("COMMIT").await.map_err(sql)?;
    Ok(loaded)
}

async fn clusters(link: &EngineLink, session: &EngineSession) -> Result<Vec<Cluster>, Error> {
    let mut clusters: BTreeMap<String, Cluster> = BTreeMap::new();
    for row in rows(link, session, "SELECT cluster, record FROM clusters").await? {
        clusters.insert(row.get(0), record::read("clusters", row.get(1))?);
    }
    let of = "SELECT cluster, name, record FROM";
    for row in rows(link, session, &format!("{of} instances")).await? {
        let instance: Instance = record::read("instances", row.get(2))?;
        if let Some(cluster) = clusters.get_mut(row.get::<_, &str>(0)) {
            cluster.instances.insert(instance.name.clone(), instance);
        }
    }
    for row in rows(link, session, &format!("{of} facts")).await? {
        let facts: NodeFacts = record::read("facts", row.get(2))?;
        let cluster = clusters.get_mut(row.get::<_, &str>(0));
        let name = row.get::<_, &str>(1).parse::<InstanceName>().ok();
        let instance = cluster
            .zip(name)
            .and_then(|(cluster, name)| cluster.instances.get_mut(&name));
        if let Some(instance) = instance.filter(|it| it.identity.is_some()) {
            instance.facts = Some(facts.into());
        }
    }
    Ok(clusters.into_values().collect())
}

async fn rows(link: &EngineLink, session: &EngineSession, sql: &str) -> Result<Vec<Row>, Error> {
    let rows = session.query(sql, &[]).await;
    Ok(rows.map_err(|source| link.sql("read the records in", source))?)
}
