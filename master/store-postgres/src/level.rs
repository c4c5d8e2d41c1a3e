//! The level of records: what may be in them that older masters do not know and would drop. A master says which it knows, and
//! takes no cluster of a later one; the fleet writes what all of its masters know, and continues to the next when it is told to. What came
//! with which level is in `aot_model::level`: each hold says what its records may have.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::ToSql;

use crate::connect::EngineLink;
use crate::store::Postgres;
use crate::{Error, schema};

/// Longest wait for one of the statements here.
const WITHIN: Duration = Duration::from_secs(5);

/// So many beats may be late before their master is taken for dead.
const BEATS: u32 = 4;

/// What a master understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterLevel {
    /// Host and folder.
    pub id: String,
    /// Highest level that it knows.
    pub level: i32,
    /// It was seen to beat.
    pub is_alive: bool,
}

/// What became of a wish for a higher level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelRaise {
    /// The fleet's level before,
    pub was: i32,
    /// and now.
    pub is: i32,
    /// By their ids.
    pub masters: Vec<MasterLevel>,
}

/// A start, its beat and its level, by the master's id.
type Beats = BTreeMap<String, (i64, i64, i32)>;

impl Postgres {
    /// Raises the fleet's level to the highest that all masters know which live. Those that do not are waited for as long as a beat may
    /// take: what they had is taken by others, and they take nothing that they do not know.
    ///
    /// # Errors
    /// When there is no fleet, or the engine is away.
    pub async fn raise_level(&self) -> Result<LevelRaise, Error> {
        let link = EngineLink::new(&self.url)?;
        if schema::id(&link).await?.is_none() {
            let place = link.place();
            return Err(Error::NoFleet { place });
        }
        schema::migrate(&link).await?;
        let masters = self.levels(&link).await?;
        let was = level_of(&link).await?;
        let alive = masters.iter().filter(|master| master.is_alive);
        if let Some(lowest) = alive.map(|master| master.level).min() {
            raise(&link, lowest, &masters).await?;
        }
        Ok(LevelRaise {
            was,
            is: level_of(&link).await?,
            masters,
        })
    }

    /// All masters, and which of them beat.
    async fn levels(&self, link: &EngineLink) -> Result<Vec<MasterLevel>, Error> {
        let first = beats(link).await?;
        let deadline = Instant::now() + self.timing.beat * BEATS;
        loop {
            let now = beats(link).await?;
            let has_beaten = |id: &String, beat: &(i64, i64, i32)| first.get(id) != Some(beat);
            let silent = now.iter().filter(|(id, beat)| !has_beaten(id, beat));
            if silent.count() == 0 || Instant::now() >= deadline {
                let level = |(id, beat): (&String, &(i64, i64, i32))| MasterLevel {
                    id: id.clone(),
                    level: beat.2,
                    is_alive: has_beaten(id, beat),
                };
                return Ok(now.iter().map(level).collect());
            }
            tokio::time::sleep(self.timing.beat / 4).await;
        }
    }
}

async fn beats(link: &EngineLink) -> Result<Beats, Error> {
    let sql = "SELECT id, incarnation, beat, level FROM masters";
    let rows = link.read("look for the masters of", sql, &[]).await?;
    let beat = |row: &tokio_postgres::Row| (row.get(0), (row.get(1), row.get(2), row.get(3)));
    Ok(rows.iter().map(beat).collect())
}

async fn level_of(link: &EngineLink) -> Result<i32, Error> {
    let sql = "SELECT level FROM fleet";
    let rows = link.read("read the level of", sql, &[]).await?;
    Ok(rows[0].get(0))
}

/// Unless a master has come meanwhile that knows less.
async fn raise(link: &EngineLink, level: i32, masters: &[MasterLevel]) -> Result<(), Error> {
    let sql = "UPDATE fleet SET level = $1 WHERE level < $1 \
        AND NOT EXISTS (SELECT FROM masters WHERE level < $1 AND id <> ALL($2))";
    let dead = masters.iter().filter(|master| !master.is_alive);
    let dead: Vec<&str> = dead.map(|master| &*master.id).collect();
    let values: [&(dyn ToSql + Sync); 2] = [&level, &dead];
    let raised = link.query("raise the level of", sql, &values, WITHIN);
    raised.await.map(|_| ())
}
