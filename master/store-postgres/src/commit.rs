//! One write: all parts behind the fence, in one statement, or in one transaction when they are large. What became of it is
//! never guessed: without an answer the hold's row is asked, on a new connection, in a way that shuts the write out for good
//! when it was not made by then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_store::HoldPosition;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;

use crate::connect::{EngineLink, EngineSession};
use crate::parts::{self, SqlPart};
use crate::{Error, error};

/// The first wait for an answer. Each further try waits twice as long: an engine that is merely slow gets through.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The longest.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(32);

/// Between two questions to an engine that is away: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Between two logins that are refused: a password that is being changed, and no account that is locked.
const LOGIN_PAUSE: Duration = Duration::from_secs(30);

/// More than this is written in a transaction,
const WHOLE: usize = 4 << 20;

/// in pieces of about this much: each is sent well before the engine takes the transaction for idle.
const PIECE: usize = 512 << 10;

/// How often what may be refused for ever is tried.
const TRIES: u32 = 4;

/// Raises the number of writes of whoever has this epoch and has made so many, and notes which one: one row, or none.
const FENCE: &str = "UPDATE owners SET seq = seq + 1, write_id =";

/// Writes behind the fence.
pub(crate) struct FencedWriter {
    pub(crate) link: EngineLink,
    /// One write at a time has the connection, with all that becomes of it.
    turn: tokio::sync::Mutex<()>,
    /// How often it was asked what became of a write,
    pub(crate) asked: AtomicU64,
    /// and how often it was not made.
    pub(crate) unmade: AtomicU64,
}

/// What is known of a write after a try.
enum Tried {
    Taken,
    /// Nothing of it was written, and nothing ever will be.
    Refused(Error),
    /// Nothing was sent.
    Away(Error),
    /// Anything. Whether the engine may say the same for ever.
    Unsure(Error, bool),
}

/// What the hold's row says of a write.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Taken,
    /// And never will be.
    NotTaken,
    Lost(String),
    /// It was changed while it was read.
    Again,
}

/// The hold's row as it is found.
struct FoundRow {
    /// The question took the write's place.
    is_closed: bool,
    epoch: i64,
    seq: i64,
    write_id: String,
    owner: String,
}

impl FoundRow {
    /// What it says of the write with this id after this position; `closing` is what the question itself writes.
    fn means(self, at: HoldPosition, write: &str, closing: &str) -> Found {
        match self.seq - at.seq {
            _ if self.is_closed => Found::NotTaken,
            _ if self.epoch != at.epoch => Found::Lost(self.owner),
            0 => Found::Again,
            1 if self.write_id == write => Found::Taken,
            // An answer to the same question was lost.
            1 if self.write_id == closing => Found::NotTaken,
            _ => Found::Lost("nobody: its row was changed by hand".to_owned()),
        }
    }
}

/// A write, for the row of the hold.
fn write_id(id: u128) -> String {
    ulid::Ulid(id).to_string()
}

impl FencedWriter {
    pub(crate) fn new(link: EngineLink) -> Self {
        Self {
            link,
            turn: tokio::sync::Mutex::default(),
            asked: AtomicU64::new(0),
            unmade: AtomicU64::new(0),
        }
    }

    /// The connection, if nobody has it.
    pub(crate) fn try_turn(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        self.turn.try_lock().ok()
    }

    /// The connection, once nobody has it.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Writes all parts or none, and counts it. Returns only what is known; for that it waits as long as it takes. Whoever calls
    /// it has the turn.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the hold is somebody else's, else why the engine will not take it.
    pub(crate) async fn write(
        &self,
        hold: &str,
        position: &mut HoldPosition,
        parts: Vec<SqlPart>,
    ) -> Result<(), Error> {
        let written = self.write_once_sure(hold, position, parts);
        self.link.in_turn(written).await
    }

    async fn write_once_sure(
        &self,
        hold: &str,
        position: &mut HoldPosition,
        parts: Vec<SqlPart>,
    ) -> Result<(), Error> {
        if let Some(given_up) = position.unsure {
            self.ask(hold, position, given_up).await?;
        }
        let pieces = pieces(parts);
        let (mut within, mut pause, mut tries) = (ANSWER_WITHIN, Pause::new(), 0);
        loop {
            let id = ulid::Ulid::generate().0;
            position.unsure = Some(id); // should this future be dropped
            match self.attempt(hold, *position, id, &pieces, within).await {
                Tried::Taken => {
                    position.unsure = None;
                    position.seq += 1;
                    break;
                }
                Tried::Refused(error) => {
                    position.unsure = None;
                    return Err(error);
                }
                Tried::Away(error) => {
                    position.unsure = None;
                    pause.wait(&error).await;
                }
                Tried::Unsure(why, may_last) => {
                    tracing::debug!(error = %Chain(&why), "a write to the store has no answer; asking what became of it");
                    if self.ask(hold, position, id).await? {
                        break;
                    }
                    tries += u32::from(may_last);
                    if tries >= TRIES {
                        return Err(why);
                    }
                    within = (within * 2).min(LAST_ANSWER_WITHIN);
                    pause.wait(&why).await;
                }
            }
        }
        pause.over();
        Ok(())
    }

    async fn attempt(
        &self,
        hold: &str,
        at: HoldPosition,
        id: u128,
        pieces: &[Vec<SqlPart>],
        within: Duration,
    ) -> Tried {
        let session = match self.link.session().await {
            Ok(session) => session,
            Err(error) if error.may_pass() || error.is_login() => return Tried::Away(error),
            Err(error) => return Tried::Refused(error),
        };
        let fence = Fence {
            hold,
            at,
            write: write_id(id),
        };
        let sent = match pieces {
            [one] => timeout(within, one_statement(&session, &fence, one)).await,
            many => {
                let pieces = u32::try_from(many.len()).unwrap_or(u32::MAX);
                let within = within.saturating_mul(pieces);
                timeout(within, transaction(&session, &fence, many)).await
            }
        };
        let source = match sent {
            Ok(Ok(true)) => return Tried::Taken,
            // Another master, which is found out by asking.
            Ok(Ok(false)) => return Tried::Unsure(self.fenced("another".to_owned()), false),
            Ok(Err(source)) => Some(source),
            Err(_) => None,
        };
        self.link.discard(&session).await; // with a transaction that it may have open
        match source {
            Some(source) if !error::may_pass(&source) => {
                Tried::Refused(self.link.sql("write to", source))
            }
            Some(source) => {
                let may_last = error::may_last(&source);
                Tried::Unsure(self.link.sql("write to", source), may_last)
            }
            None => Tried::Unsure(self.link.silent(), false),
        }
    }

    /// Finds out whether this write, the one after this position, was made, and sees to it that it is not from now on. The
    /// position is then the one behind it. Asks until it is told.
    async fn ask(&self, hold: &str, position: &mut HoldPosition, id: u128) -> Result<bool, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.link.reset().await; // the write may still be on its way there
        let write = write_id(id);
        let closing = format!("{write} was not made");
        let sql = format!(
            "WITH closed AS ({FENCE} $4 WHERE cluster = $1 AND epoch = $2 AND seq = $3 RETURNING 1) \
            SELECT (SELECT count(*) FROM closed) = 1, epoch, seq, write_id, owner FROM owners WHERE cluster = $1"
        );
        let mut pause = Pause::new();
        let is_taken = loop {
            let values: [&(dyn ToSql + Sync); 4] =
                [&hold, &position.epoch, &position.seq, &closing];
            let what = "ask about the last write to";
            let rows = match self.link.query(what, &sql, &values, ANSWER_WITHIN).await {
                Ok(rows) => rows,
                Err(error) if error.may_pass() || error.is_login() => {
                    pause.wait(&error).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some(row) = rows.first() else {
                return Err(self.fenced("nobody: its row is gone".to_owned()));
            };
            let found = FoundRow {
                is_closed: row.get(0),
                epoch: row.get(1),
                seq: row.get(2),
                write_id: row.get(3),
                owner: row.get(4),
            };
            match found.means(*position, &write, &closing) {
                Found::Taken => break true,
                Found::NotTaken => break false,
                Found::Lost(owner) => return Err(self.fenced(owner)),
                Found::Again => {}
            }
        };
        pause.over();
        position.seq += 1;
        position.unsure = None;
        self.unmade
            .fetch_add(u64::from(!is_taken), Ordering::Relaxed);
        Ok(is_taken)
    }

    pub(crate) fn fenced(&self, owner: String) -> Error {
        Error::Fenced {
            place: self.link.place(),
            owner,
        }
    }
}

/// What goes together in one statement each.
fn pieces(parts: Vec<SqlPart>) -> Vec<Vec<SqlPart>> {
    let weight: usize = parts.iter().map(SqlPart::weight).sum();
    match weight > WHOLE {
        false => vec![parts],
        true => {
            let cut = parts.into_iter().flat_map(|part| part.cut(PIECE));
            cut.map(|part| vec![part]).collect()
        }
    }
}

/// What is passed by the one write that it is for.
struct Fence<'a> {
    hold: &'a str,
    at: HoldPosition,
    write: String,
}

/// Whether the fence was passed.
async fn one_statement(
    session: &EngineSession,
    fence: &Fence<'_>,
    parts: &[SqlPart],
) -> Result<bool, tokio_postgres::Error> {
    let sql = parts::statement(
        |next| {
            let [write, cluster, epoch, seq] = [next, next + 1, next + 2, next + 3];
            format!(
                "{FENCE} ${write} WHERE cluster = ${cluster} AND epoch = ${epoch} AND seq = ${seq} RETURNING 1"
            )
        },
        parts,
    );
    let mut values = parts::values(parts);
    let own: [&(dyn ToSql + Sync); 4] = [&fence.write, &fence.hold, &fence.at.epoch, &fence.at.seq];
    values.extend(own);
    let rows = session.query(&sql, &values).await?;
    Ok(rows.first().is_some_and(|row| row.get::<_, i64>(0) == 1))
}

/// The fence first: its row is locked until the end, and nothing is sent for nothing.
async fn transaction(
    session: &EngineSession,
    fence: &Fence<'_>,
    pieces: &[Vec<SqlPart>],
) -> Result<bool, tokio_postgres::Error> {
    session.batch("BEGIN").await?;
    if !one_statement(session, fence, &[]).await? {
        session.batch("ROLLBACK").await?;
        return Ok(false);
    }
    for parts in pieces {
        let sql = parts::statement(|_| "SELECT 1".to_owned(), parts);
        session.query(&sql, &parts::values(parts)).await?;
    }
    session.batch("COMMIT").await?;
    Ok(true)
}

/// Waits longer from time to time, and says once that it does.
struct Pause {
    next: Duration,
    is_told: bool,
}

impl Pause {
    fn new() -> Self {
        Self {
            next: PAUSES.0,
            is_told: false,
        }
    }

    async fn wait(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(error = %Chain(error), "the store is away; what is to be written waits");
        }
        let pause = match error.is_login() {
            true => LOGIN_PAUSE,
            false => self.next,
        };
        tokio::time::sleep(pause).await;
        self.next = (self.next * 2).min(PAUSES.1);
    }

    fn over(&self) {
        if self.is_told {
            tracing::info!("the store is back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_says_what_became_of_a_write_and_nothing_is_guessed() {
        let at = HoldPosition {
            epoch: 3,
            seq: 7,
            unsure: Some(1),
        };
        let row = |is_closed, epoch, seq, write_id: &str| {
            let row = FoundRow {
                is_closed,
                epoch,
                seq,
                write_id: write_id.to_owned(),
                owner: "other".to_owned(),
            };
            row.means(at, "mine", "closing")
        };
        assert_eq!(row(true, 3, 7, "before"), Found::NotTaken);
        assert_eq!(row(false, 3, 8, "mine"), Found::Taken);
        assert_eq!(row(false, 3, 8, "closing"), Found::NotTaken);
        // Made between the look at the row and the try to close it: the next look shows it.
        assert_eq!(row(false, 3, 7, "before"), Found::Again);
        assert_eq!(row(false, 4, 8, "mine"), Found::Lost("other".to_owned()));
        for (seq, write) in [(8, "another"), (9, "mine"), (6, "mine")] {
            let Found::Lost(why) = row(false, 3, seq, write) else {
                panic!("{seq} {write}");
            };
            assert!(why.contains("by hand"), "{why}");
        }
    }
}
