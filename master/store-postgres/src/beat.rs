//! The sign that a master lives, by a thread of its own: nothing that the master works on is in its way. It also learns when
//! somebody else has the hold, though nothing was written since.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
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
    epoch: Arc<AtomicI64>,
    thread: Option<JoinHandle<()>>,
}

struct Pulse {
    link: EngineLink,
    hold: Arc<Hold>,
    me: Me,
    timing: Timing,
    /// Of the hold; 0 = not taken yet.
    epoch: Arc<AtomicI64>,
}

impl Beat {
    /// Beats from now on.
    pub(crate) fn start(
        url: &PostgresUrl,
        hold: &Arc<Hold>,
        me: &Me,
        timing: Timing,
    ) -> Result<Self, Error> {
        let (stop, epoch) = (CancellationToken::new(), Arc::new(AtomicI64::new(0)));
        let pulse = Pulse {
            link: EngineLink::new(&url.connecting_within(CONNECT_WITHIN))?,
            hold: hold.clone(),
            me: me.clone(),
            timing,
            epoch: epoch.clone(),
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
            epoch,
            thread: Some(thread.map_err(io)?),
        })
    }

    /// From now on this epoch is the one that must stay.
    pub(crate) fn has_taken(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::SeqCst);
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
    /// Until somebody else has the hold.
    async fn run(self) {
        let mut tick = tokio::time::interval(self.timing.beat);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut is_away, mut logins) = (false, 0);
        loop {
            tick.tick().await;
            let (sent, beaten) = self.beat_once().await;
            match beaten {
                Ok(None) => {
                    logins = 0;
                    if self.epoch.load(Ordering::SeqCst) != 0 {
                        self.hold.renew(sent + self.timing.good);
                    }
                    if std::mem::take(&mut is_away) {
                        tracing::info!("the store takes this master's beats again");
                    }
                }
                Ok(Some(owner)) => {
                    let fenced = Error::Fenced {
                        place: self.link.place(),
                        owner,
                    };
                    self.hold.lose(&fenced.to_string());
                    return;
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

    /// When it was sent, and what came of it. The way there is not counted: it may be long, and lasts.
    async fn beat_once(&self) -> (Duration, Result<Option<String>, Error>) {
        let connected = self.link.session().await;
        let sent = since_boot();
        match connected {
            Ok(_) => (sent, self.beat().await),
            Err(error) => (sent, Err(error)),
        }
    }

    /// Who has the hold, when it is somebody else.
    async fn beat(&self) -> Result<Option<String>, Error> {
        let sql = "WITH b AS (UPDATE masters SET beat = beat + 1 \
            WHERE id = $1 AND incarnation = $2 RETURNING 1) \
            SELECT (SELECT count(*) FROM b), o.owner, o.epoch FROM owners o WHERE o.cluster = $3";
        let hold = self.hold.name();
        let values: [&(dyn ToSql + Sync); 3] = [&self.me.id, &self.me.incarnation, &hold];
        let epoch = self.epoch.load(Ordering::SeqCst);
        let rows = self.link.query("beat in", sql, &values, WITHIN).await?;
        if epoch == 0 {
            return Ok(None);
        }
        let Some(row) = rows.first() else {
            return Ok(Some("nobody: its row is gone".to_owned()));
        };
        let (beaten, owner, found): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
        let is_mine = beaten == 1 && found == epoch;
        Ok((!is_mine).then_some(owner))
    }
}
