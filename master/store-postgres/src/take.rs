//! Who may write: a master gets the hold when it starts, from nobody, from itself of before, or from one that is dead. Dead is
//! who has not beaten for a while, by the clock of whoever asks.

use std::time::Duration;

use aot_host::boot_id::kernel_boot_id;
use aot_host::chain::Chain;
use aot_host::clock::Moment;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;

use crate::Error;
use crate::connect::EngineLink;
use crate::silence::Silence;

/// Longest wait for one of the statements here.
const WITHIN: Duration = Duration::from_secs(15);

/// How long an engine that went away while a hold was waited for is asked again.
const AWAY: Duration = Duration::from_secs(60);

/// How often a master beats, after how long without one it is dead, and for how long one makes its hold good.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two beats.
    pub beat: Duration,
    /// By the clock of whoever asks.
    pub dead: Duration,
    /// The same for one whose port refuses connections: its process has ended, or its host has no way for it. It may be below
    /// `good`: what a master that lives does in that time is fenced where it counts.
    pub refused: Duration,
    /// From when a beat was sent. Well below `dead`: clocks differ, and whoever asks looks only now and then.
    pub good: Duration,
    /// Longest that the records of one cluster may take to be read: then its take is given up, and others are not held up.
    pub load: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            beat: Duration::from_secs(2),
            dead: Duration::from_secs(15),
            refused: Duration::from_secs(4),
            good: Duration::from_secs(10),
            load: Duration::from_secs(60), // some 0.1 ms an instance
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
    /// The host's, since it was booted: what was started under another one is gone, or is on another host.
    pub(crate) boot: String,
    /// Highest level of records that it understands.
    pub(crate) level: i32,
}

/// The hold as it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
    /// It was another master's, which did not give it back, and nothing was written since that says so.
    pub(crate) is_taken_over: bool,
    /// Level that its records may have.
    pub(crate) level: i32,
    /// When it was asked for.
    pub(crate) asked: Moment,
}

/// Enters this start: from here on its beats count, and those of an earlier one with its id do not.
pub(crate) async fn enter(link: &EngineLink, id: &str, level: i32) -> Result<Me, Error> {
    // Never one that a former start had, also after its entry was taken out.
    let sql = "INSERT INTO masters (id, incarnation, beat, version, level) \
        VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 0, $2, $3) \
        ON CONFLICT (id) DO UPDATE SET incarnation = greatest(masters.incarnation + 1, excluded.incarnation), \
        beat = masters.beat + 1, version = excluded.version, level = excluded.level, draining = false \
        RETURNING incarnation";
    let version = env!("CARGO_PKG_VERSION");
    let what = "enter this master in";
    let values: [&(dyn ToSql + Sync); 3] = [&id, &version, &level];
    let rows = link.query(what, sql, &values, WITHIN).await?;
    Ok(Me {
        id: id.to_owned(),
        incarnation: rows[0].get(0),
        boot: kernel_boot_id().unwrap_or_default(),
        level,
    })
}

/// Takes the entry back, of a start that failed or a master that ended.
pub(crate) async fn leave(link: &EngineLink, me: &Me) -> Result<(), Error> {
    let sql = "DELETE FROM masters WHERE id = $1 AND incarnation = $2";
    let values: [&(dyn ToSql + Sync); 2] = [&me.id, &me.incarnation];
    let left = link.query("take this master's entry out of", sql, &values, WITHIN);
    left.await.map(|_| ())
}

/// What is known of who has a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) owner: String,
    /// Of the owner's host, when it took the hold.
    boot: String,
    pub(crate) epoch: i64,
    /// The start that took it, and its beat, which stands still once there is a later start; `None` once the owner has left.
    pub(crate) beat: Option<(i64, i64)>,
    /// The only master that may have it, if not any.
    pub(crate) pinned: String,
    /// The last master that served what it is on; empty where none did.
    pub(crate) served_by: String,
    /// Level that its records may have, or will have once it is taken.
    pub(crate) level: i32,
}

impl Seen {
    /// Nobody has it but perhaps a former start of this master, which the folder's lock says is gone.
    pub(crate) fn is_free_for(&self, me: &str, boot: &str) -> bool {
        self.owner.is_empty() || self.is_own(me, boot) || self.beat.is_none()
    }

    /// Whether its owner has not started anew since.
    pub(crate) fn is_of_newest_start(&self) -> bool {
        self.beat.is_some_and(|(_, beat)| beat != OF_AN_ENDED_START)
    }

    /// The same folder on the same boot of the same host: a copy of it, or of its disk, is elsewhere.
    fn is_own(&self, me: &str, boot: &str) -> bool {
        self.owner == me && self.boot == boot && !boot.is_empty()
    }
}

/// Who has it; its row is made where there is none.
pub(crate) async fn read_holder(link: &EngineLink, hold: &str) -> Result<Seen, Error> {
    let sql = "SELECT o.owner, o.epoch, o.boot, o.pinned, o.incarnation, m.incarnation, m.beat, \
        greatest(o.level, (SELECT level FROM fleet)), o.served_by FROM owners o \
        LEFT JOIN masters m ON m.id = o.owner WHERE o.cluster = $1";
    let made = "INSERT INTO owners (cluster, owner, incarnation, epoch, seq) \
        VALUES ($1, '', 0, 0, 0) ON CONFLICT DO NOTHING";
    let what = "look who has the hold on";
    let mut rows = link.query(what, sql, &[&hold], WITHIN).await?;
    if rows.is_empty() {
        link.query(what, made, &[&hold], WITHIN).await?;
        rows = link.query(what, sql, &[&hold], WITHIN).await?;
    }
    let Some(row) = rows.first() else {
        let owner = "nobody: its row is gone".to_owned();
        return Err(Error::Fenced {
            place: link.place(),
            owner,
        });
    };
    Ok(Seen {
        owner: row.get(0),
        epoch: row.get(1),
        boot: row.get(2),
        pinned: row.get(3),
        beat: beat_of(row.get(4), row.get(5), row.get(6)),
        level: row.get(7),
        served_by: row.get(8),
    })
}

/// Stands for the beat of a start that was followed by another.
const OF_AN_ENDED_START: i64 = -1;

/// Whether two ids of masters are of the same state folder, whatever their hosts are called.
pub(crate) fn is_same_folder(one: &str, other: &str) -> bool {
    let folder = |id: &str| id.rsplit_once('/').map(|(_, folder)| folder.to_owned());
    folder(one).is_some() && folder(one) == folder(other)
}

/// The beat of the start that took a hold: an earlier start than the newest does not beat any more.
pub(crate) fn beat_of(of_hold: i64, newest: Option<i64>, beat: Option<i64>) -> Option<(i64, i64)> {
    let is_newest = newest? == of_hold;
    let beat = if is_newest { beat? } else { OF_AN_ENDED_START };
    Some((of_hold, beat))
}

/// Waits until the hold may be taken, and takes it.
///
/// # Errors
/// When another master lives, the records are of a later level, or the engine is away.
pub(crate) async fn take(
    link: &EngineLink,
    hold: &str,
    me: &Me,
    timing: Timing,
) -> Result<Taken, Error> {
    let mut silence = Silence::default();
    let mut seen = read_holder(link, hold).await?;
    let mut first = seen.clone();
    loop {
        if seen.level > me.level {
            return Err(Error::later_level(link.place(), seen.level, me.level));
        }
        let is_free = seen.is_free_for(&me.id, &me.boot);
        if (&seen.owner, seen.epoch) != (&first.owner, first.epoch) {
            silence.interrupt();
            first = seen.clone();
        } else if seen.beat != first.beat && !is_free {
            let (place, owner) = (link.place(), seen.owner);
            return Err(Error::Alive { place, owner });
        }
        let beat = seen.beat.unwrap_or_default();
        let is_dead = silence.read(beat, Instant::now(), timing.beat) >= timing.dead;
        if (is_free || is_dead)
            && let Some(taken) = try_take(link, hold, me, &seen).await?
        {
            return Ok(taken);
        }
        if !is_free && silence.counted().is_zero() {
            tracing::info!(owner = %seen.owner, "waiting whether the master that has the hold lives");
        }
        tokio::time::sleep(timing.beat / 4).await;
        seen = read_again(link, hold, &mut silence).await?;
    }
}

/// Reads until it works, but not for ever.
async fn read_again(link: &EngineLink, hold: &str, silence: &mut Silence) -> Result<Seen, Error> {
    let begun = Instant::now();
    loop {
        match read_holder(link, hold).await {
            Err(error) if error.may_pass() && begun.elapsed() < AWAY => {
                tracing::warn!(error = %Chain(&error), "cannot see whether the master that has the hold lives");
                silence.interrupt();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            read => return read,
        }
    }
}

/// Takes it as it was seen; `None` when it has changed meanwhile.
pub(crate) async fn try_take(
    link: &EngineLink,
    hold: &str,
    me: &Me,
    seen: &Seen,
) -> Result<Option<Taken>, Error> {
    // Agents refuse an epoch below the one they know: also of records that come from a backup, or of a row that is made again.
    let sql = "UPDATE owners SET owner = $4, incarnation = $5, boot = $6, doubt = doubt OR $7, \
        level = greatest(level, (SELECT level FROM fleet)), \
        epoch = greatest(epoch + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) \
        WHERE cluster = $1 AND epoch = $2 AND owner = $3 AND ($8 OR EXISTS (SELECT FROM silent)) \
        AND greatest(level, (SELECT level FROM fleet)) <= $12 RETURNING epoch, seq, doubt, level";
    // Taken from a silent one only if it is silent still: its row is locked, so that its next beat comes after this.
    let sql = format!(
        "WITH silent AS (SELECT FROM masters WHERE id = $3 AND ($9 OR incarnation = $10 AND beat = $11) FOR UPDATE) {sql}"
    );
    let is_free = seen.is_free_for(&me.id, &me.boot);
    let is_ended = !seen.is_of_newest_start();
    let (incarnation, beat) = seen.beat.unwrap_or_default();
    let may_live = !seen.owner.is_empty() && !seen.is_own(&me.id, &me.boot);
    let (owner, epoch) = (&seen.owner, &seen.epoch);
    let values: [&(dyn ToSql + Sync); 12] = [
        &hold,
        epoch,
        owner,
        &me.id,
        &me.incarnation,
        &me.boot,
        &may_live,
        &is_free,
        &is_ended,
        &incarnation,
        &beat,
        &me.level,
    ];
    let asked = Moment::now();
    let rows = link
        .query("take the hold on", &sql, &values, WITHIN)
        .await?;
    Ok(rows.first().map(|row| Taken {
        epoch: row.get(0),
        seq: row.get(1),
        is_taken_over: row.get(2),
        level: row.get(3),
        asked,
    }))
}

/// What was in doubt after a take-over is on record by now.
pub(crate) async fn end_doubt(link: &EngineLink, hold: &str, epoch: i64) -> Result<(), Error> {
    let sql = "UPDATE owners SET doubt = false WHERE cluster = $1 AND epoch = $2";
    let values: [&(dyn ToSql + Sync); 2] = [&hold, &epoch];
    let ended = link.query("end the doubt in", sql, &values, WITHIN);
    ended.await.map(|_| ())
}

/// The master that served last, empty when none did, and the clusters of clones, which are only where that is.
pub(crate) async fn last_served(
    link: &EngineLink,
    hold: &str,
) -> Result<(String, Vec<String>), Error> {
    let sql = "SELECT (SELECT served_by FROM owners WHERE cluster = $1), \
        (SELECT array_agg(cluster ORDER BY cluster) FROM clusters \
            WHERE record::json -> 'spec' ->> 'provider' = 'local')";
    let rows = link
        .query("look who served in", sql, &[&hold], WITHIN)
        .await?;
    let (served_by, clones): (Option<String>, Option<Vec<String>>) =
        (rows[0].get(0), rows[0].get(1));
    Ok((served_by.unwrap_or_default(), clones.unwrap_or_default()))
}

/// Notes that this master serves, with the hold on all: its records may have what it knows, as no other master has any of them. The
/// level that they have then.
pub(crate) async fn serve(
    link: &EngineLink,
    hold: &str,
    me: &Me,
    taken: &Taken,
) -> Result<i32, Error> {
    let sql = "UPDATE owners SET served_by = $3, level = greatest(level, $4) WHERE cluster = $1 AND epoch = $2 RETURNING level";
    let values: [&(dyn ToSql + Sync); 4] = [&hold, &taken.epoch, &me.id, &me.level];
    let noted = link.query("enter the hold in", sql, &values, WITHIN);
    let rows = noted.await?;
    Ok(rows.first().map_or(taken.level, |row| row.get(0)))
}

/// Gives the hold back, so that whoever comes next need not wait.
pub(crate) async fn release(link: &EngineLink, hold: &str, epoch: i64) -> Result<(), Error> {
    let sql = "UPDATE owners SET owner = '' WHERE cluster = $1 AND epoch = $2";
    let values: [&(dyn ToSql + Sync); 2] = [&hold, &epoch];
    let released = link.query("give back the hold on", sql, &values, WITHIN);
    released.await.map(|_| ())
}

/// Gives all back that this start has.
pub(crate) async fn release_all(link: &EngineLink, me: &Me) -> Result<(), Error> {
    let sql = "UPDATE owners SET owner = '' WHERE owner = $1 AND incarnation = $2";
    let values: [&(dyn ToSql + Sync); 2] = [&me.id, &me.incarnation];
    let released = link.query("give back the holds in", sql, &values, WITHIN);
    released.await.map(|_| ())
}

/// The master that has the hold, if it beats.
pub(crate) async fn alive_owner(
    link: &EngineLink,
    hold: &str,
    beat: Duration,
) -> Result<Option<String>, Error> {
    let first = read_holder(link, hold).await?;
    if first.owner.is_empty() || first.beat.is_none() {
        return Ok(None);
    }
    tokio::time::sleep(beat * 2).await;
    let second = read_holder(link, hold).await?;
    let is_alive = second.owner == first.owner && second.beat != first.beat;
    Ok(is_alive.then_some(second.owner))
}

/// Whether there is such a hold.
pub(crate) async fn exists(link: &EngineLink, hold: &str) -> Result<bool, Error> {
    let sql = "SELECT FROM owners WHERE cluster = $1";
    let what = "look who has the hold on";
    let rows = link.query(what, sql, &[&hold], WITHIN).await?;
    Ok(!rows.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(epoch: i64, beat: i64) -> Seen {
        Seen {
            owner: "host/1".to_owned(),
            boot: "boot".to_owned(),
            epoch,
            beat: Some((1, beat)),
            pinned: String::new(),
            served_by: String::new(),
            level: 1,
        }
    }

    #[test]
    fn a_former_start_is_gone_only_where_the_folder_has_its_lock() {
        let of_mine = seen(1, 5);
        assert!(of_mine.is_free_for("host/1", "boot"));
        // Rebooted, or a copy of the folder on another host of that name.
        assert!(!of_mine.is_free_for("host/1", "other boot"));
        assert!(!of_mine.is_free_for("host/2", "boot"));
        let unknown = Seen {
            boot: String::new(),
            ..of_mine
        };
        assert!(!unknown.is_free_for("host/1", ""));
    }

    #[test]
    fn the_beat_of_a_hold_is_that_of_the_start_that_took_it() {
        assert_eq!(beat_of(3, Some(3), Some(17)), Some((3, 17)));
        assert_eq!(beat_of(3, Some(4), Some(18)), Some((3, -1)));
        assert_eq!(beat_of(3, Some(4), Some(19)), Some((3, -1)));
        assert_eq!(beat_of(3, None, None), None);
    }
}
