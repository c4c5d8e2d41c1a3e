//! The sign that a master lives, by a thread of its own: nothing that the master works on is in its way. It also learns when
//! somebody else has one of its holds, though nothing was written since.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_host::clock::since_boot;
use aot_store::Hold;
use aot_store::fatal::Vital;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::connect::EngineLink;
use crate::held::{FoundHolds, HeldHolds};
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

/// The thread, until it is dropped.
pub(crate) struct Beat {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What beats are for.
#[derive(Clone)]
pub(crate) struct KeptHolds {
    /// Good while this master's beats are taken, whatever else it has; lost when another start has its entry.
    pub(crate) standing: Arc<Hold>,
    /// All that it has taken.
    pub(crate) holds: Arc<HeldHolds>,
}

struct Pulse {
    link: EngineLink,
    kept: KeptHolds,
    me: Me,
    timing: Timing,
}

/// What the engine says to a beat.
struct BeatAnswer {
    /// Whether it knows this start of the master.
    is_known: bool,
    /// What was asked about,
    asked: BTreeMap<String, i64>,
    /// and what was found of it.
    found: FoundHolds,
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
            let _vital = Vital::new("the beat");
            runtime.block_on(async {
                tokio::select! {
                    () = pulse.run() => {}
                    () = until.cancelled() => {}
                }
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
        loop {
            tick.tick().await;
            let (sent, beaten) = self.beat_once().await;
            match beaten {
                Ok(answer) => {
                    logins = 0;
                    if !self.apply(answer, sent + self.timing.good) {
                        return;
                    }
                    if std::mem::take(&mut is_away) {
                        tracing::info!("the store takes this master's beats again");
                    }
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
    fn apply(&self, answer: BeatAnswer, until: Duration) -> bool {
        let fenced = |owner: &str| {
            let (place, owner) = (self.link.place(), owner.to_owned());
            Error::Fenced { place, owner }.to_string()
        };
        let KeptHolds { standing, holds } = &self.kept;
        if !answer.is_known {
            holds.compare(&answer.asked, &FoundHolds::new(), until, |_| {
                fenced("another start of it")
            });
            standing.lose(&fenced("another start of it"));
            return false;
        }
        // What is lost is lost before calls that waited for this beat are made.
        holds.compare(&answer.asked, &answer.found, until, fenced);
        standing.renew(until);
        true
    }

    /// When it was sent, and what came of it. The way there is not counted: it may be long, and lasts.
    async fn beat_once(&self) -> (Duration, Result<BeatAnswer, Error>) {
        let connected = self.link.session().await;
        let sent = since_boot();
        match connected {
            Ok(_) => (sent, self.beat().await),
            Err(error) => (sent, Err(error)),
        }
    }

    async fn beat(&self) -> Result<BeatAnswer, Error> {
        let sql =
            "UPDATE masters SET beat = beat + 1 WHERE id = $1 AND incarnation = $2 RETURNING 1";
        let values: [&(dyn ToSql + Sync); 2] = [&self.me.id, &self.me.incarnation];
        let known = self.link.query("beat in", sql, &values, WITHIN).await?;
        // A statement of its own, which sees what was taken while the beat waited for whoever took it.
        let asked = self.kept.holds.epochs();
        let names: Vec<&str> = asked.keys().map(String::as_str).collect();
        let sql = "SELECT cluster, owner, epoch FROM owners WHERE cluster = ANY($1)";
        let rows = self.link.query("beat in", sql, &[&names], WITHIN).await?;
        let found = rows
            .iter()
            .map(|row| (row.get(0), (row.get(1), row.get(2))));
        Ok(BeatAnswer {
            is_known: !known.is_empty(),
            found: found.collect(),
            asked,
        })
    }
}
