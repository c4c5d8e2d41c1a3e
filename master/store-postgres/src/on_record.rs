//! What the rows of holds have to do with what is on record: each cluster that a master has to see to has one.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use crate::Error;
use crate::connect::EngineLink;

/// Longest wait for one of the statements here.
const WITHIN: Duration = Duration::from_secs(15);

/// All clusters of which something is on record that a master has to see to, as a table with their names. A run names its
/// instance as `CLUSTER/NAME`.
const ON_RECORD: &str = "(SELECT cluster FROM clusters UNION SELECT cluster FROM jobs WHERE ended_ms IS NULL \
    UNION SELECT split_part(instance, '/', 1) FROM runs WHERE open) AS each (cluster)";

/// Takes the row out, unless something is on record of what it was on; whether it did.
pub(crate) async fn forget(link: &EngineLink, hold: &str, epoch: i64) -> Result<bool, Error> {
    // Whatever the master thinks is left: what is on record must be found by those who look for clusters.
    let sql = format!(
        "DELETE FROM owners WHERE cluster = $1 AND epoch = $2 \
        AND NOT EXISTS (SELECT FROM {ON_RECORD} WHERE each.cluster = $1) RETURNING 1"
    );
    let values: [&(dyn ToSql + Sync); 2] = [&hold, &epoch];
    let forgotten = link.query("take a hold out of", &sql, &values, WITHIN);
    forgotten.await.map(|rows| !rows.is_empty())
}

/// Divides what one hold was on among holds for each cluster, and takes its row out. It is this master's.
pub(crate) async fn divide(link: &EngineLink, hold: &str, epoch: i64) -> Result<(), Error> {
    let sql = format!(
        "WITH whole AS (DELETE FROM owners WHERE cluster = $1 AND epoch = $2 RETURNING epoch, served_by, doubt, level) \
        INSERT INTO owners (cluster, owner, incarnation, epoch, seq, served_by, doubt, level) \
        SELECT each.cluster, '', 0, whole.epoch, 0, whole.served_by, whole.doubt, whole.level FROM whole, \
        {ON_RECORD} ON CONFLICT DO NOTHING"
    );
    let values: [&(dyn ToSql + Sync); 2] = [&hold, &epoch];
    let divided = link.query("divide the hold on", &sql, &values, WITHIN);
    divided.await.map(|_| ())
}

/// Makes a row for each cluster with something on record that has none.
pub(crate) async fn name_all(link: &EngineLink) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO owners (cluster, owner, incarnation, epoch, seq) \
        SELECT each.cluster, '', 0, 0, 0 FROM {ON_RECORD} ON CONFLICT DO NOTHING"
    );
    let named = link.query("name the clusters of", &sql, &[], WITHIN);
    named.await.map(|_| ())
}
