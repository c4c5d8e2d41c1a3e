//! The sign that a master lives, by a thread of its own: nothing that the master works on is in its way. It also learns when
//! somebody else has one of its holds, though nothing was written since, and what the database's clock says.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_host::clock::Moment;
use aot_store::WallClock;
use aot_store::fatal::vital_thread;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::clocks::{ClockCheck, ClockFinding, ClockReading};
use crate::connect::EngineLink;
use crate::held::{FoundHold, FoundHolds, KeptHolds, Renewal};
use crate::take::{Me, Timing};
use crate::url::PostgresUrl;

/// Longest wait for a beat to be taken,
const WITHIN: Duration = Duration::from_secs(2);

/// and for a connection to one address: of several the first may be gone, and the next must be reached in time.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// After logins that were refused again and again: no account is to be locked.
const LOGIN_PAUSE: Duration = Duration::from_secs(30);

/// So many are tried first, as soon as any beat: a failover may refuse some.
const LOGINS: u32 = 5;

/// The sign itself, with this host's time where `$3` says that it is one. It answers with the database's clock, in milliseconds since 1970.
const BEAT: &str = "UPDATE masters SET beat = beat + $3::int, wall_ms = $4 WHERE id = $1 AND incarnation = $2 \
    RETURNING (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// The times that other masters have written down; those of a build that writes none are no witnesses.
const OTHERS: &str = "SELECT id, wall_ms FROM masters WHERE id <> $1 AND wall_ms > 0";

/// What is found of holds, and the fleet's level.
const FOUND: &str = "SELECT cluster, owner, epoch, level, (SELECT level FROM fleet) FROM owners WHERE cluster = ANY($1)";

/// Records of this master's clusters may have more than they could when these were taken. Those that are just being written are left
/// to the next beat.
const RAISE: &str = "UPDATE owners SET level = $3 WHERE cluster IN (SELECT cluster FROM owners \
    WHERE owner = $1 AND incarnation = $2 AND level < $3 FOR UPDATE SKIP LOCKED)";

/// The thread, until it is dropped.
pub(crate) struct Beat {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Pulse {
    link: EngineLink,
    kept: KeptHolds,
    me: Me,
    timing: Timing,
}

/// What the engine says to a beat.
struct BeatAnswer {
    /// Its clock and this host's; `None` where it does not know this start of the master.
    clocks: Option<ClockReading>,
    /// The times that other masters wrote down last.
    others: BTreeMap<String, Duration>,
    /// What was asked about,
    asked: BTreeMap<String, i64>,
    /// and what was found of it.
    found: FoundHolds,
    /// The level that all masters know.
    level: i32,
}

impl Beat {
    /// Beats from now on.
    pub(crate) fn start(
        url: &PostgresUrl,
        kept: KeptHolds,
        me: &Me,
        timing: Timing,
    ) -> Result<Self, Error> {
        let stop = CancellationToken::new();
        let pulse = Pulse {
            link: EngineLink::new(&url.connecting_within(CONNECT_WITHIN))?,
            kept,
            me: me.clone(),
            timing,
        };
        let until = stop.clone();
        let io = |source| Error::Io {
            what: "start the beat of",
            path: me.id.clone().into(),
            source,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io)?;
        let thread = std::thread::Builder::new().name("beat".to_owned());
        let thread = thread.spawn(move || {
            vital_thread("the beat", || {
                runtime.block_on(async {
                    tokio::select! {
                        () = pulse.run() => {}
                        () = until.cancelled() => {}
                    }
                });
            });
            runtime.shutdown_background(); // a name that is being looked up is not waited for
        });
        Ok(Self {
            stop,
            thread: Some(thread.map_err(io)?),
        })
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there has ended the process
        }
    }
}

impl Pulse {
    /// Until another start has this master's entry.
    async fn run(self) {
        let mut tick = tokio::time::interval(self.timing.beat);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut is_away, mut logins) = (false, 0);
        let (mut clocks, mut stood_still) = (ClockCheck::default(), false);
        loop {
            tick.tick().await;
            // Of a master whose clock is far off others are to have what it has.
            let is_sign_of_life = clocks.wall() < WallClock::FarOff;
            match self.beat_once(is_sign_of_life).await {
                Ok(answer) => {
                    logins = 0;
                    let finding = answer.clocks;
                    let finding = finding.map(|reading| clocks.read(reading, &answer.others));
                    if !self.apply(&answer, finding) {
                        return;
                    }
                    self.raise(&answer).await;
                    if std::mem::take(&mut is_away) {
                        tracing::info!("the store takes this master's beats again");
                    }
                    let stood = finding.is_some_and(|it| !it.stood_still.is_zero());
                    if stood && !std::mem::replace(&mut stood_still, stood) {
                        tick.reset_immediately(); // the next one tells whether it goes
                    }
                    stood_still = stood;
                }
                Err(error) => {
                    logins += u32::from(error.is_login());
                    if error.is_login() && logins > LOGINS {
                        tokio::time::sleep(LOGIN_PAUSE).await;
                    }
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(error = %Chain(&error), "the store does not take this master's beats");
                    }
                }
            }
        }
    }

    /// Whether this start is still the one that beats.
    fn apply(&self, answer: &BeatAnswer, finding: Option<ClockFinding>) -> bool {
        let fenced = |owner: &str| {
            let (place, owner) = (self.link.place(), owner.to_owned());
            Error::Fenced { place, owner }.to_string()
        };
        let KeptHolds {
            standing, holds, ..
        } = &self.kept;
        let Some((reading, finding)) = answer.clocks.zip(finding) else {
            holds.compare(
                &answer.asked,
                &FoundHolds::new(),
                Renewal::Withdrawn,
                |_| fenced("another start of it"),
            );
            standing.lose(&fenced("another start of it"));
            return false;
        };
        log(&finding);
        self.kept.note_clock(finding.store_clock());
        let renewal = match finding.is_trusted() {
            true => Renewal::Good(reading.sent, reading.sent.since_boot + self.timing.good),
            false => Renewal::Withdrawn,
        };
        // What is lost is lost before calls that waited for this beat are made.
        holds.compare(&answer.asked, &answer.found, renewal, fenced);
        renewal.apply(standing);
        true
    }

    /// The fleet has come to another level since clusters were taken: the next beat finds theirs.
    async fn raise(&self, answer: &BeatAnswer) {
        let level = answer.level.min(self.me.level);
        if answer.found.values().all(|hold| hold.level >= level) {
            return;
        }
        let values: [&(dyn ToSql + Sync); 3] = [&self.me.id, &self.me.incarnation, &level];
        let what = "raise the level of clusters in";
        if let Err(error) = self.link.query(what, RAISE, &values, WITHIN).await {
            tracing::debug!(error = %Chain(&error), "the level of clusters is raised by a later beat");
        }
    }

    /// What came of one. The way there is not counted: it may be long, and lasts.
    async fn beat_once(&self, is_sign_of_life: bool) -> Result<BeatAnswer, Error> {
        self.link.session().await?;
        let sent = Moment::now();
        let wall_ms = i64::try_from(sent.since_1970.as_millis()).unwrap_or(i64::MAX);
        let by = i32::from(is_sign_of_life);
        let values: [&(dyn ToSql + Sync); 4] = [&self.me.id, &self.me.incarnation, &by, &wall_ms];
        let known = self.link.query("beat in", BEAT, &values, WITHIN).await?;
        let answered = Moment::now();
        let clocks = known.first().map(|row| ClockReading {
            sent,
            answered,
            database: Duration::from_millis(row.get::<_, i64>(0).try_into().unwrap_or(0)),
        });
        let me: [&(dyn ToSql + Sync); 1] = [&self.me.id];
        let others = self.link.query("beat in", OTHERS, &me, WITHIN).await?;
        let others = others.iter().map(|row| {
            let ms: i64 = row.get(1);
            (row.get(0), Duration::from_millis(ms.unsigned_abs()))
        });
        // A statement of its own, which sees what was taken while the beat waited for whoever took it.
        let asked = self.kept.holds.epochs();
        let names: Vec<&str> = asked.keys().map(String::as_str).collect();
        let values: [&(dyn ToSql + Sync); 1] = [&names];
        let rows = self.link.query("beat in", FOUND, &values, WITHIN).await?;
        let found = rows.iter().map(|row| {
            let found = FoundHold {
                owner: row.get(1),
                epoch: row.get(2),
                level: row.get(3),
            };
            (row.get(0), found)
        });
        Ok(BeatAnswer {
            clocks,
            others: others.collect(),
            found: found.collect(),
            level: rows.first().map_or(0, |row| row.get(4)),
            asked,
        })
    }
}

/// Once for each change.
fn log(finding: &ClockFinding) {
    let offset = finding.offset;
    let off_by = offset.by.as_secs_f32();
    let side = match offset.is_behind {
        true => "behind",
        false => "ahead",
    };
    if !finding.stood_still.is_zero() {
        let seconds = finding.stood_still.as_secs_f32();
        tracing::warn!(
            seconds,
            "the clock of this host stood still while the database's went on: the host was suspended, or one of them is wrong; nothing is done until the next beat"
        );
    }
    match finding.wall {
        _ if !finding.is_new => {}
        WallClock::Well => {
            tracing::info!("the clocks of this host and of the database agree again");
        }
        WallClock::Off => tracing::warn!(
            off_by,
            side,
            "the clock of this host does not agree with the database's: have both set by NTP (chrony)"
        ),
        WallClock::Unsure => {} // soon
        WallClock::DatabaseFarOff => tracing::error!(
            off_by,
            side,
            "the clocks of this host and of the database are far apart, and no other master shows that this one's is wrong: it goes on; have both set by NTP (chrony)"
        ),
        WallClock::FarOff => tracing::error!(
            off_by,
            side,
            "the clock of this host is far off those of the database and of other masters: this master does nothing, and others take what it has, until the two agree; have both set by NTP (chrony)"
        ),
    }
}
