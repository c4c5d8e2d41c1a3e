//! Rows of the folder into a table: page by page as they are read, none in the place of another.

use std::sync::Arc;

use aot_proto::ids::ClusterName;
use aot_store::sqlite::export::{RecordTable, RowsDigest, SqliteExport, StoredCell, StoredRow};
use tokio::sync::mpsc;
use tokio_postgres::types::ToSql;

use super::Transaction;
use crate::Error;
use crate::parts::Column;

/// Pages that are read ahead.
const AHEAD: usize = 2;

/// The columns of a table, in the order of [`RecordTable`].
pub(super) fn columns(table: RecordTable) -> &'static str {
    match table {
        RecordTable::Clusters => "cluster, record",
        RecordTable::Instances | RecordTable::Facts => "cluster, name, record",
        RecordTable::Jobs => "id, cluster, ended_ms, record",
        RecordTable::Targets => "job, instance, record",
        RecordTable::Tasks => "job, record",
        RecordTable::Runs => "id, job, instance, kind, open, record",
        RecordTable::Spools => "run, bytes",
    }
}

impl Transaction<'_> {
    /// Writes the rows of a cluster in a table; count and hash of what was read.
    pub(super) async fn write(
        &self,
        export: &Arc<SqliteExport>,
        cluster: &ClusterName,
        table: RecordTable,
    ) -> Result<RowsDigest, Error> {
        let (pages, mut queue) = mpsc::channel::<Vec<StoredRow>>(AHEAD);
        let (export, cluster) = (export.clone(), cluster.clone());
        let reading = tokio::task::spawn_blocking(move || {
            export.rows(&cluster, table, |page| pages.blocking_send(page).is_ok())
        });
        let mut digest = RowsDigest::default();
        while let Some(page) = queue.recv().await {
            page.iter().for_each(|row| digest.add(row));
            self.insert(table, page).await?;
        }
        let read = reading.await.map_err(|_| aot_store::Error::Stopped)?;
        read?;
        Ok(digest)
    }

    async fn insert(&self, table: RecordTable, page: Vec<StoredRow>) -> Result<(), Error> {
        let values = transposed(page);
        let places: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(at, column)| format!("${}::{}", at + 1, column.kind()))
            .collect();
        let sql = format!(
            "INSERT INTO {} ({}) SELECT * FROM unnest({})",
            table.as_str(),
            columns(table),
            places.join(", ")
        );
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(Column::value).collect();
        self.run(&sql, &values).await.map(drop)
    }
}

/// Rows of one table as their columns.
fn transposed(page: Vec<StoredRow>) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    for row in page {
        for (at, cell) in row.0.into_iter().enumerate() {
            if columns.len() <= at {
                columns.push(match cell {
                    StoredCell::Text(_) => Column::Texts(Vec::new()),
                    StoredCell::Number(_) => Column::Times(Vec::new()),
                    StoredCell::Flag(_) => Column::Flags(Vec::new()),
                    StoredCell::Bytes(_) => Column::Bytes(Vec::new()),
                });
            }
            match (&mut columns[at], cell) {
                (Column::Texts(rows), StoredCell::Text(value)) => rows.push(value),
                (Column::Times(rows), StoredCell::Number(value)) => rows.push(value),
                (Column::Flags(rows), StoredCell::Flag(value)) => rows.push(value),
                (Column::Bytes(rows), StoredCell::Bytes(value)) => rows.push(value),
                // A column has one kind; the engine refuses columns of different lengths by their nulls.
                _ => {}
            }
        }
    }
    columns
}
