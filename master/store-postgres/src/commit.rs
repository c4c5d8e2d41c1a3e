//! One write: all parts behind the fence, in one statement, or in one transaction when they are large. What became of it is
//! never guessed: without an answer the hold's row is asked, on a new connection.

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

/// More than this is written in pieces, in a transaction.
const PIECE: usize = 4 << 20;

/// Raises the number of writes of whoever has this epoch and has made so many: one row, or none.
const FENCE: &str = "UPDATE owners SET seq = seq + 1";

/// Writes behind the fence.
pub(crate) struct FencedWriter {
    pub(crate) link: EngineLink,
    /// How often it was asked what became of a write.
    pub(crate) asked: AtomicU64,
}

/// What is known of a write after a try.
enum Tried {
    Taken,
    /// Nothing of it was written, and nothing ever will be.
    Refused(Error),
    /// Nothing was sent.
    Away(Error),
    /// Anything.
    Unsure(Option<Error>),
}

/// What the hold's row says.
enum Found {
    Taken,
    NotTaken,
    Lost(String),
}

impl FencedWriter {
    pub(crate) fn new(link: EngineLink) -> Self {
        Self {
            link,
            asked: AtomicU64::new(0),
        }
    }

    /// Writes all parts or none, and counts it. Returns only what is known; for that it waits as long as it takes.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the hold is somebody else's, else why the engine will not take it.
    pub(crate) async fn write(
        &self,
        hold: &str,
        position: &mut HoldPosition,
        parts: Vec<SqlPart>,
    ) -> Result<(), Error> {
        if position.is_unsure {
            self.catch_up(hold, position).await?;
        }
        let weight: usize = parts.iter().map(SqlPart::weight).sum();
        let pieces: Vec<Vec<SqlPart>> = match weight > PIECE {
            false => vec![parts],
            true => {
                let cut = parts.into_iter().flat_map(|part| part.cut(PIECE));
                cut.map(|part| vec![part]).collect()
            }
        };
        let (mut within, mut pause) = (ANSWER_WITHIN, Pause::new());
        loop {
            position.is_unsure = true; // should this future be dropped
            let tried = self.attempt(hold, *position, &pieces, within).await;
            position.is_unsure = matches!(tried, Tried::Unsure(_));
            match tried {
                Tried::Taken => break,
                Tried::Refused(error) => return Err(error),
                Tried::Away(error) => pause.wait(&error).await,
                Tried::Unsure(why) => {
                    if let Some(why) = why {
                        tracing::warn!(error = %Chain(&why), "a write to the store has no answer; asking what became of it");
                    }
                    let found = self.ask(hold, *position).await?;
                    position.is_unsure = false;
                    match found {
                        Found::Taken => break,
                        Found::NotTaken => {}
                        Found::Lost(owner) => return Err(self.fenced(owner)),
                    }
                    within = (within * 2).min(LAST_ANSWER_WITHIN);
                }
            }
        }
        pause.over();
        position.seq += 1;
        Ok(())
    }

    /// A write was given up on while it was made: what became of it is asked before the next.
    async fn catch_up(&self, hold: &str, position: &mut HoldPosition) -> Result<(), Error> {
        match self.ask(hold, *position).await? {
            Found::Taken => position.seq += 1,
            Found::NotTaken => {}
            Found::Lost(owner) => return Err(self.fenced(owner)),
        }
        position.is_unsure = false;
        Ok(())
    }

    async fn attempt(
        &self,
        hold: &str,
        at: HoldPosition,
        pieces: &[Vec<SqlPart>],
        within: Duration,
    ) -> Tried {
        let session = match self.link.session().await {
            Ok(session) => session,
            Err(error) if error.may_pass() => return Tried::Away(error),
            Err(error) => return Tried::Refused(error),
        };
        let sent = match pieces {
            [one] => timeout(within, one_statement(&session, hold, at, one)).await,
            many => {
                let pieces = u32::try_from(many.len()).unwrap_or(u32::MAX);
                let within = within.saturating_mul(pieces);
                timeout(within, transaction(&session, hold, at, many)).await
            }
        };
        let source = match sent {
            Ok(Ok(true)) => return Tried::Taken,
            Ok(Ok(false)) => return Tried::Unsure(None), // a former try, or another master
            Ok(Err(source)) => Some(source),
            Err(_) => None,
        };
        self.link.discard(&session).await; // with a transaction that it may have open
        match source {
            Some(source) if !error::may_pass(&source) => {
                Tried::Refused(self.link.sql("write to", source))
            }
            Some(source) => Tried::Unsure(Some(self.link.sql("write to", source))),
            None => Tried::Unsure(Some(self.link.silent())),
        }
    }

    /// What became of the write after this position. Asks until it is told.
    async fn ask(&self, hold: &str, at: HoldPosition) -> Result<Found, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let sql = "SELECT epoch, seq, owner FROM owners WHERE cluster = $1";
        let mut pause = Pause::new();
        let rows = loop {
            let what = "ask about the last write to";
            match self.link.query(what, sql, &[&hold], ANSWER_WITHIN).await {
                Ok(rows) => break rows,
                Err(error) if error.may_pass() => pause.wait(&error).await,
                Err(error) => return Err(error),
            }
        };
        pause.over();
        let Some(row) = rows.first() else {
            return Ok(Found::Lost("nobody: its row is gone".to_owned()));
        };
        let (epoch, seq): (i64, i64) = (row.get(0), row.get(1));
        Ok(match seq - at.seq {
            _ if epoch != at.epoch => Found::Lost(row.get(2)),
            0 => Found::NotTaken,
            1 => Found::Taken,
            _ => Found::Lost("nobody: its row was changed by hand".to_owned()),
        })
    }

    pub(crate) fn fenced(&self, owner: String) -> Error {
        Error::Fenced {
            place: self.link.place(),
            owner,
        }
    }
}

/// Whether the fence was passed.
async fn one_statement(
    session: &EngineSession,
    hold: &str,
    at: HoldPosition,
    parts: &[SqlPart],
) -> Result<bool, tokio_postgres::Error> {
    let fence = |next: usize| {
        let [cluster, epoch, seq] = [next, next + 1, next + 2];
        format!(
            "{FENCE} WHERE cluster = ${cluster} AND epoch = ${epoch} AND seq = ${seq} RETURNING 1"
        )
    };
    let sql = parts::statement(fence, parts);
    let mut values = parts::values(parts);
    let own: [&(dyn ToSql + Sync); 3] = [&hold, &at.epoch, &at.seq];
    values.extend(own);
    let rows = session.query(&sql, &values).await?;
    Ok(rows.first().is_some_and(|row| row.get::<_, i64>(0) == 1))
}

/// The fence first: its row is locked until the end, and nothing is sent for nothing.
async fn transaction(
    session: &EngineSession,
    hold: &str,
    at: HoldPosition,
    pieces: &[Vec<SqlPart>],
) -> Result<bool, tokio_postgres::Error> {
    session.batch("BEGIN").await?;
    if !one_statement(session, hold, at, &[]).await? {
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
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(PAUSES.1);
    }

    fn over(&self) {
        if self.is_told {
            tracing::info!("the store is back");
        }
    }
}
