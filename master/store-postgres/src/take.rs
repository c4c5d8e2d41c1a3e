//! Who may write: a master gets the hold when it starts, from nobody, from itself of before, or from one that is dead. Dead is
//! who has not beaten for a while, by the clock of whoever asks.

use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::connect::EngineLink;

/// Longest wait for one of the statements here.
const WITHIN: Duration = Duration::from_secs(5);

/// How often a master beats, and after how long without one it is dead.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two beats.
    pub beat: Duration,
    /// By the clock of whoever asks.
    pub dead: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(2),
            dead: Duration::from_secs(15),
        }
    }
}

/// This process among all that ever used the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Me {
    /// Host and state folder; the same at the next start there.
    pub(crate) id: String,
    /// Raised by each start.
    pub(crate) incarnation: i64,
}

/// Enters this start: from here on its beats count, and those of an earlier one with its id do not.
pub(crate) async fn enter(link: &EngineLink, id: &str) -> Result<Me, Error> {
    let sql = "INSERT INTO masters (id, incarnation, beat, version) VALUES ($1, 1, 0, $2) \
        ON CONFLICT (id) DO UPDATE SET incarnation = masters.incarnation + 1, \
        beat = masters.beat + 1, version = excluded.version RETURNING incarnation";
    let version = env!("CARGO_PKG_VERSION");
    let what = "enter this master in";
    let rows = link.query(what, sql, &[&id, &version], WITHIN).await?;
    Ok(Me {
        id: id.to_owned(),
        incarnation: rows[0].get(0),
    })
}

/// Takes the entry back, of a start that failed or a master that ended.
pub(crate) async fn leave(link: &EngineLink, me: &Me) -> Result<(), Error> {
    let sql = "DELETE FROM masters WHERE id = $1 AND incarnation = $2";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&me.id, &me.incarnation];
    let left = link.query("take this master's entry out of", sql, &values, WITHIN);
    left.await.map(|_| ())
}

/// What is known of who has the hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    owner: String,
    epoch: i64,
    /// Of the owner's newest start; `None` once it has left.
    beat: Option<(i64, i64)>,
}

async fn read_holder(link: &EngineLink, hold: &str) -> Result<Seen, Error> {
    let sql = "SELECT o.owner, o.epoch, m.incarnation, m.beat FROM owners o \
        LEFT JOIN masters m ON m.id = o.owner WHERE o.cluster = $1";
    let made = "INSERT INTO owners (cluster, owner, incarnation, epoch, seq) \
        VALUES ($1, '', 0, 0, 0) ON CONFLICT DO NOTHING";
    let what = "look who has the hold on";
    let mut rows = link.query(what, sql, &[&hold], WITHIN).await?;
    if rows.is_empty() {
        link.query(what, made, &[&hold], WITHIN).await?;
        rows = link.query(what, sql, &[&hold], WITHIN).await?;
    }
    let row = &rows[0];
    let (incarnation, beat): (Option<i64>, Option<i64>) = (row.get(2), row.get(3));
    Ok(Seen {
        owner: row.get(0),
        epoch: row.get(1),
        beat: incarnation.zip(beat),
    })
}

/// Waits until the hold may be taken, and takes it: the epoch and sequence number to write with.
///
/// # Errors
/// When another master lives, or the engine is away.
pub(crate) async fn take(
    link: &EngineLink,
    hold: &str,
    me: &Me,
    timing: Timing,
) -> Result<(i64, i64), Error> {
    let mut first: Option<(Seen, Instant)> = None;
    loop {
        let seen = read_holder(link, hold).await?;
        let is_free = seen.owner.is_empty() || seen.owner == me.id || seen.beat.is_none();
        let since = first
            .as_ref()
            .filter(|(before, _)| before.owner == seen.owner);
        let is_dead = match since {
            Some((before, _)) if before.beat != seen.beat => {
                return Err(Error::Alive {
                    place: link.place(),
                    owner: seen.owner,
                });
            }
            Some((_, since)) => since.elapsed() >= timing.dead,
            None => false,
        };
        if is_free || is_dead {
            if let Some(taken) = try_take(link, hold, me, seen.epoch).await? {
                return Ok(taken);
            }
            continue; // somebody was faster
        }
        if since.is_none() {
            tracing::info!(owner = %seen.owner, "waiting whether the master that has the hold lives");
            first = Some((seen, Instant::now()));
        }
        tokio::time::sleep(timing.beat / 4).await;
    }
}

async fn try_take(
    link: &EngineLink,
    hold: &str,
    me: &Me,
    epoch: i64,
) -> Result<Option<(i64, i64)>, Error> {
    let sql = "UPDATE owners SET owner = $3, incarnation = $4, epoch = epoch + 1 \
        WHERE cluster = $1 AND epoch = $2 RETURNING epoch, seq";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&hold, &epoch, &me.id, &me.incarnation];
    let rows = link.query("take the hold on", sql, &values, WITHIN).await?;
    Ok(rows.first().map(|row| (row.get(0), row.get(1))))
}

/// Gives the hold back, so that whoever comes next need not wait.
pub(crate) async fn release(link: &EngineLink, hold: &str, epoch: i64) -> Result<(), Error> {
    let sql = "UPDATE owners SET owner = '' WHERE cluster = $1 AND epoch = $2";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&hold, &epoch];
    let released = link.query("give back the hold on", sql, &values, WITHIN);
    released.await.map(|_| ())
}
