//! The records of a state folder, brought into the database: a transaction a cluster, in which what was written is read again and
//! compared before it counts. What was brought is noted, so that a try that was interrupted continues where it was.
//!
//! Masters may be at work meanwhile: they see a cluster once all of it is there, and take it then. `compare` reads back.

mod compare;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aot_model::level::LEVEL;
use aot_proto::ids::ClusterName;
use aot_store::sqlite::export::{ExportedCluster, RecordTable, RowsDigest, SqliteExport};
use tokio::time::timeout;

use crate::connect::{EngineLink, EngineSession};
use crate::store::{ALL, Postgres};
use crate::{Error, schema};

/// Longest wait for one statement: a page of rows, or a commit of many.
const WITHIN: Duration = Duration::from_secs(120);

/// Longest time between two statements: a page of the folder is read meanwhile.
const IDLE: &str = "SET LOCAL idle_in_transaction_session_timeout = '600s'";

/// A cluster of the folder, and whether it is in the database as it is there.
struct PlannedCluster {
    cluster: ExportedCluster,
    /// Count and hash of its rows in each table, where it was imported before.
    is_there: bool,
}

/// What there is to import; checked, and nothing of it written.
pub struct ImportPlan {
    export: Arc<SqliteExport>,
    clusters: Vec<PlannedCluster>,
}

impl ImportPlan {
    /// How many clusters there are.
    pub fn clusters(&self) -> usize {
        self.clusters.len()
    }
}

/// A cluster that is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedCluster {
    /// Its name.
    pub name: ClusterName,
    /// How many rows of it there were in all tables.
    pub rows: u64,
    /// A try before this one has brought it.
    pub was_there: bool,
}

impl Postgres {
    /// Looks what there is to import, and whether it can be. Makes the tables, and writes nothing else.
    ///
    /// # Errors
    /// When the folder has clones, a name is taken, one master has the database for itself, or either side can't be read.
    pub async fn plan_import(&self, export: Arc<SqliteExport>) -> Result<ImportPlan, Error> {
        let clusters = on_disk(&export, SqliteExport::clusters).await?;
        let local = clusters.iter().filter(|cluster| cluster.is_local);
        let local: Vec<&str> = local.map(|cluster| cluster.name.as_str()).collect();
        if !local.is_empty() {
            return Err(Error::LocalClusters {
                dir: export.dir().to_owned(),
                clusters: local.join(", "),
            });
        }
        let link = EngineLink::new(&self.url)?;
        schema::migrate(&link).await?;
        let known = Known::read(&link).await?;
        let mut planned = Vec::new();
        for cluster in clusters {
            let is_there = match known.imports.get(cluster.name.as_str()) {
                Some(digest) => {
                    let name = cluster.name.clone();
                    *digest == on_disk(&export, move |export| export.digest(&name)).await?
                }
                None => false,
            };
            planned.push(PlannedCluster { cluster, is_there });
        }
        let new = planned.iter().filter(|planned| !planned.is_there);
        let names = new.map(|planned| planned.cluster.name.as_str());
        let taken: Vec<&str> = names.filter(|it| known.has(it)).collect();
        if !taken.is_empty() {
            return Err(Error::ClustersExist {
                place: link.place(),
                clusters: taken.join(", "),
            });
        }
        Ok(ImportPlan {
            export,
            clusters: planned,
        })
    }

    /// Brings all of it, cluster by cluster, and says each that is there. What is there already is left alone.
    ///
    /// # Errors
    /// When either side can't be used, or a table is not what was written to it: then nothing of that cluster is there.
    pub async fn import(
        &self,
        plan: &ImportPlan,
        mut done: impl FnMut(ImportedCluster),
    ) -> Result<(), Error> {
        let link = EngineLink::new(&self.url)?;
        for PlannedCluster { cluster, is_there } in &plan.clusters {
            let rows = match is_there {
                true => 0,
                false => bring(&link, &plan.export, cluster).await?,
            };
            done(ImportedCluster {
                name: cluster.name.clone(),
                rows,
                was_there: *is_there,
            });
        }
        Ok(())
    }
}

/// What the database has.
struct Known {
    /// Names that something is on record of that a master must continue.
    names: Vec<String>,
    /// Digests of what was imported, by the cluster's name.
    imports: BTreeMap<String, String>,
}

impl Known {
    async fn read(link: &EngineLink) -> Result<Self, Error> {
        let what = "look for clusters in";
        let owners = "SELECT served_by FROM owners WHERE cluster = $1";
        if let Some(row) = link.read(what, owners, &[&ALL]).await?.first() {
            let (place, owner) = (link.place(), row.get(0));
            return Err(Error::UnsharedKeys { place, owner });
        }
        let names = "SELECT cluster FROM clusters UNION SELECT cluster FROM owners";
        let names = link.read(what, names, &[]).await?;
        let imports = "SELECT cluster, digest FROM imports";
        let imports = link.read(what, imports, &[]).await?;
        Ok(Self {
            names: names.iter().map(|row| row.get(0)).collect(),
            imports: imports.iter().map(|row| (row.get(0), row.get(1))).collect(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

/// Reads the folder where it holds up nobody.
async fn on_disk<T: Send + 'static>(
    export: &Arc<SqliteExport>,
    read: impl FnOnce(&SqliteExport) -> Result<T, aot_store::Error> + Send + 'static,
) -> Result<T, Error> {
    let export = export.clone();
    let read = tokio::task::spawn_blocking(move || read(&export)).await;
    Ok(read.map_err(|_| aot_store::Error::Stopped)??)
}

/// One cluster, in one transaction; how many rows it has.
async fn bring(
    link: &EngineLink,
    export: &Arc<SqliteExport>,
    cluster: &ExportedCluster,
) -> Result<u64, Error> {
    let session = link.session().await?;
    let transaction = Transaction {
        link,
        session: &session,
    };
    let brought = transaction.bring(export, cluster).await;
    if brought.is_err() {
        link.discard(&session).await; // with its transaction
    }
    brought
}

/// A transaction that brings a cluster.
struct Transaction<'a> {
    link: &'a EngineLink,
    session: &'a EngineSession,
}

impl Transaction<'_> {
    async fn bring(
        &self,
        export: &Arc<SqliteExport>,
        cluster: &ExportedCluster,
    ) -> Result<u64, Error> {
        self.batch(&format!("BEGIN; {IDLE}")).await?;
        if cluster.is_open {
            self.add_owner(&cluster.name).await?;
        }
        let mut wanted = Vec::new();
        for table in RecordTable::ALL {
            wanted.push((table, self.write(export, &cluster.name, table).await?));
        }
        for (table, wanted) in &wanted {
            let found = self.read_back(&cluster.name, *table).await?;
            if found != *wanted {
                return Err(Error::Differs {
                    place: self.link.place(),
                    cluster: cluster.name.to_string(),
                    table: table.as_str(),
                    wanted: wanted.to_string(),
                    found: found.to_string(),
                });
            }
        }
        self.note(&cluster.name, &wanted).await?;
        self.batch("COMMIT").await?;
        Ok(wanted.iter().map(|(_, digest)| digest.rows()).sum())
    }

    /// Nobody's: the first master that sees it takes it. Its records may have all that this program knows.
    async fn add_owner(&self, cluster: &ClusterName) -> Result<(), Error> {
        let sql = "INSERT INTO owners (cluster, owner, incarnation, epoch, seq, level) \
            VALUES ($1, '', 0, 0, 0, $2)";
        self.run(sql, &[&cluster.as_str(), &LEVEL]).await.map(drop)
    }

    /// Notes what was brought, as [`SqliteExport::digest`] has it.
    async fn note(
        &self,
        cluster: &ClusterName,
        tables: &[(RecordTable, RowsDigest)],
    ) -> Result<(), Error> {
        let of = |(table, digest): &(RecordTable, RowsDigest)| {
            let table = table.as_str();
            format!("{table}={digest}")
        };
        let digest: Vec<String> = tables.iter().map(of).collect();
        let sql = "INSERT INTO imports (cluster, digest) VALUES ($1, $2) \
            ON CONFLICT (cluster) DO UPDATE SET digest = excluded.digest";
        let digest = digest.join(" ");
        self.run(sql, &[&cluster.as_str(), &digest]).await.map(drop)
    }

    async fn run(
        &self,
        sql: &str,
        values: crate::connect::SqlValues<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, Error> {
        match timeout(WITHIN, self.session.query(sql, values)).await {
            Ok(rows) => rows.map_err(|source| self.link.sql("import a cluster into", source)),
            Err(_) => Err(self.link.silent()),
        }
    }

    async fn batch(&self, sql: &str) -> Result<(), Error> {
        match timeout(WITHIN, self.session.batch(sql)).await {
            Ok(done) => done.map_err(|source| self.link.sql("import a cluster into", source)),
            Err(_) => Err(self.link.silent()),
        }
    }
}
