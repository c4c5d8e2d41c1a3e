//! What a master needs to continue: read once, when it has the hold and nobody else writes. Of one cluster, or of all.

use std::collections::BTreeMap;
use std::time::Duration;

use aot_model::cluster::Cluster;
use aot_model::instance::{Instance, NodeFacts};
use aot_model::job::Job;
use aot_model::run::Run;
use aot_proto::ids::InstanceName;
use aot_store::{Error, Loaded, record};
use tokio_postgres::Row;

use crate::connect::{EngineLink, EngineSession, SqlValues};
use crate::{Error as EngineError, read};

/// Longest time that the rows of one table may take to be taken apart here: the engine ends what is idle for longer.
const READ_ROWS_WITHIN: Duration = Duration::from_secs(600);

/// What is read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of<'a> {
    /// All clusters.
    All,
    /// The one of this name.
    Cluster(&'a str),
}

impl<'a> Of<'a> {
    fn cluster(self) -> Option<&'a str> {
        match self {
            Self::All => None,
            Self::Cluster(name) => Some(name),
        }
    }
}

/// Reads all of it as of one moment, in which this epoch had the hold, where there must be one. It may take as long as it takes:
/// only a connection that breaks ends it.
///
/// # Errors
/// When somebody else has the hold, or it can't be read.
pub(crate) async fn load(
    link: &EngineLink,
    of: Of<'_>,
    hold: Option<(&str, i64)>,
) -> Result<Loaded, Error> {
    let session = link.session().await?;
    let loaded = in_one_moment(link, &session, of, hold).await;
    if loaded.is_err() {
        link.discard(&session).await; // with its transaction
    }
    loaded
}

async fn in_one_moment(
    link: &EngineLink,
    session: &EngineSession,
    of: Of<'_>,
    hold: Option<(&str, i64)>,
) -> Result<Loaded, Error> {
    let sql = |source| link.sql("read the records in", source);
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; \
         SET LOCAL idle_in_transaction_session_timeout = '{}s'",
        READ_ROWS_WITHIN.as_secs()
    );
    session.batch(&begin).await.map_err(sql)?;
    if let Some((hold, epoch)) = hold {
        let owners = "SELECT owner FROM owners WHERE cluster = $1 AND epoch <> $2";
        let others = session.query(owners, &[&hold, &epoch]).await.map_err(sql)?;
        if let Some(row) = others.first() {
            let (place, owner) = (link.place(), row.get(0));
            return Err(EngineError::Fenced { place, owner }.into());
        }
    }
    let reader = RecordReader { link, session, of };
    let loaded = Loaded {
        clusters: reader.clusters().await?,
        jobs: reader.jobs().await?,
        runs: reader.runs().await?,
    };
    session.batch("COMMIT").await.map_err(sql)?;
    Ok(loaded)
}

struct RecordReader<'a> {
    link: &'a EngineLink,
    session: &'a EngineSession,
    of: Of<'a>,
}

impl RecordReader<'_> {
    /// Rows of a table that has the cluster in this column.
    async fn rows(&self, sql: &str, column: &str, order: &str) -> Result<Vec<Row>, Error> {
        let name = self.of.cluster();
        let (only, values): (String, SqlValues<'_>) = match &name {
            Some(name) => (format!("{column} = $1"), &[name]),
            None => ("true".to_owned(), &[]),
        };
        let sql = format!("{sql} {only} {order}");
        let rows = self.session.query(&sql, values).await;
        Ok(rows.map_err(|source| self.link.sql("read the records in", source))?)
    }

    async fn jobs(&self) -> Result<Vec<Job>, Error> {
        let sql = format!(
            "{}, k.record FROM jobs j LEFT JOIN tasks k ON k.job = j.id WHERE \
            (j.ended_ms IS NULL OR EXISTS (SELECT FROM runs r WHERE r.job = j.id AND r.open)) AND",
            read::JOB
        );
        let rows = self.rows(&sql, "j.cluster", "ORDER BY j.id").await?;
        rows.iter().map(read::job).collect()
    }

    async fn runs(&self) -> Result<Vec<Run>, Error> {
        let sql = "SELECT record FROM runs WHERE open AND";
        // A run names its instance as `CLUSTER/NAME`.
        let rows = self.rows(sql, "split_part(instance, '/', 1)", "ORDER BY id");
        let rows = rows.await?;
        let runs = rows.iter().map(|row| record::read("runs", row.get(0)));
        runs.collect()
    }

    async fn clusters(&self) -> Result<Vec<Cluster>, Error> {
        let mut clusters: BTreeMap<String, Cluster> = BTreeMap::new();
        let of = |what, table| format!("SELECT cluster, {what}record FROM {table} WHERE");
        for row in self.rows(&of("", "clusters"), "cluster", "").await? {
            clusters.insert(row.get(0), record::read("clusters", row.get(1))?);
        }
        for row in self.rows(&of("name, ", "instances"), "cluster", "").await? {
            let instance: Instance = record::read("instances", row.get(2))?;
            if let Some(cluster) = clusters.get_mut(row.get::<_, &str>(0)) {
                cluster.instances.insert(instance.name.clone(), instance);
            }
        }
        for row in self.rows(&of("name, ", "facts"), "cluster", "").await? {
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
}
