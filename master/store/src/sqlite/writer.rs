//! The thread that owns the writing connection: it commits what waits in one transaction, and answers once that is on disk.
//! Started by `SqliteStore::open`; `rows` says what a change is in SQL.

use std::path::Path;
use std::sync::Arc;

use aot_model::retention::Sweep;
use aot_model::world::Changes;
use aot_proto::ids::RunId;
use prost::bytes::Bytes;
use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use super::{prune, rows};
use crate::Error;

/// Writes that may wait for the writer. When full, whoever decides waits: nothing is decided that can't be kept.
pub(super) const QUEUE: usize = 256;

/// Most writes in one transaction: all that wait. Each cluster's loop brings its own, and a sync costs the same for one as for all.
const BATCH: usize = QUEUE;

/// What one transaction has, with others or alone.
pub(super) struct Write {
    pub(super) changes: Changes,
    pub(super) spools: Vec<(RunId, Bytes)>,
    pub(super) sweep: Sweep,
    pub(super) done: oneshot::Sender<Result<(), Error>>,
}

pub(super) fn write_loop(
    mut connection: Connection,
    mut queue: mpsc::Receiver<Write>,
    path: &Path,
) {
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(more) = queue.try_recv()
        {
            batch.push(more);
        }
        let result = write_batch(&mut connection, &batch).map_err(Arc::new);
        for write in batch {
            let answer = result.clone().map_err(|source| Error::Write {
                path: path.to_owned(),
                source,
            });
            let _ = write.done.send(answer); // whoever asked may be gone: it is on disk all the same
        }
    }
}

fn write_batch(connection: &mut Connection, batch: &[Write]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for write in batch {
        rows::write_changes(&transaction, &write.changes)?;
        for (run, bytes) in &write.spools {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO spools (run, bytes) VALUES (?1, ?2)")?
                .execute(params![run.to_string(), bytes.as_ref()])?;
        }
        prune::drop_old(&transaction, &write.sweep)?;
    }
    transaction.commit()
}
