//! What the tables have of a cluster, read again by the transaction that wrote it.

use aot_proto::ids::ClusterName;
use aot_store::sqlite::export::{RecordTable, RowsDigest, StoredCell, StoredRow};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::Transaction;
use super::write::columns;
use crate::Error;

/// Rows of a page where they are short,
const SHORT: u32 = 500;

/// and where one may have a MiB.
const LONG: u32 = 16;

/// What this transaction has written, and nothing that was there before: jobs of a cluster of that name that is gone.
const MINE: &str = "xmin = pg_current_xact_id()::xid";

/// Which rows, and their order.
fn which(table: RecordTable, cluster: &ClusterName) -> String {
    let name = cluster.as_str(); // letters, digits and hyphens
    match table {
        RecordTable::Clusters => format!("cluster = '{name}'"),
        RecordTable::Instances | RecordTable::Facts => {
            format!("cluster = '{name}' ORDER BY name")
        }
        RecordTable::Jobs => format!("cluster = '{name}' ORDER BY id"),
        RecordTable::Targets => "true ORDER BY job, instance".to_owned(),
        RecordTable::Tasks => "true ORDER BY job".to_owned(),
        RecordTable::Runs => "true ORDER BY id".to_owned(),
        RecordTable::Spools => "true ORDER BY run".to_owned(),
    }
}

impl Transaction<'_> {
    /// Count and hash of what was written to a table.
    pub(super) async fn read_back(
        &self,
        cluster: &ClusterName,
        table: RecordTable,
    ) -> Result<RowsDigest, Error> {
        let name = table.as_str();
        self.batch(&format!(
            "DECLARE written_{name} NO SCROLL CURSOR FOR SELECT {} FROM {name} WHERE {MINE} AND {}",
            columns(table),
            which(table, cluster)
        ))
        .await?;
        let page = match table {
            RecordTable::Clusters | RecordTable::Tasks | RecordTable::Spools => LONG,
            _ => SHORT,
        };
        let fetch = format!("FETCH {page} FROM written_{name}");
        let mut digest = RowsDigest::default();
        loop {
            let rows = self.run(&fetch, &[]).await?;
            if rows.is_empty() {
                break;
            }
            rows.iter().for_each(|row| digest.add(&stored(row)));
        }
        self.batch(&format!("CLOSE written_{name}")).await?;
        Ok(digest)
    }
}

fn stored(row: &Row) -> StoredRow {
    let cell = |(at, column): (usize, &tokio_postgres::Column)| match *column.type_() {
        Type::INT8 => StoredCell::Number(row.get(at)),
        Type::BOOL => StoredCell::Flag(row.get(at)),
        Type::BYTEA => StoredCell::Bytes(row.get(at)),
        _ => StoredCell::Text(row.get(at)),
    };
    StoredRow(row.columns().iter().enumerate().map(cell).collect())
}
