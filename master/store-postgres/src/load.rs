//! What a master needs to continue: read once, when it has the hold and nobody else writes.

use std::collections::BTreeMap;

use aot_model::cluster::Cluster;
use aot_model::instance::{Instance, NodeFacts};
use aot_proto::ids::InstanceName;
use aot_store::{Error, Loaded, record};
use tokio_postgres::Row;

use crate::connect::{EngineLink, EngineSession};
use crate::read;

/// Reads all of it. It may take as long as it takes: only a connection that breaks ends it.
pub(crate) async fn load(link: &EngineLink) -> Result<Loaded, Error> {
    let session = link.session().await?;
    let open = "(j.ended_ms IS NULL OR EXISTS (SELECT FROM runs r WHERE r.job = j.id AND r.open))";
    let jobs = format!(
        "{}, k.record FROM jobs j LEFT JOIN tasks k ON k.job = j.id WHERE {open} ORDER BY j.id",
        read::JOB
    );
    let runs = "SELECT record FROM runs WHERE open ORDER BY id";
    let jobs = rows(link, &session, &jobs).await?;
    let runs = rows(link, &session, runs).await?;
    let runs = runs.iter().map(|row| record::read("runs", row.get(0)));
    Ok(Loaded {
        clusters: clusters(link, &session).await?,
        jobs: jobs.iter().map(read::job).collect::<Result<_, _>>()?,
        runs: runs.collect::<Result<_, _>>()?,
    })
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
