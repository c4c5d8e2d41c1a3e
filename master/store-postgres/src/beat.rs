//! The sign that a master lives, by a thread of its own: nothing that the master works on is in its way. It also learns when
//! somebody else has the hold, though nothing was written since.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_store::fatal::Vital;
use tokio::sync::watch;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::connect::EngineLink;
use crate::take::{Me, Timing};
use crate::url::PostgresUrl;

/// Longest wait for a beat to be taken.
const WITHIN: Duration = Duration::from_secs(2);

/// Who has a hold now, when it is not this master.
pub(crate) type Lost = watch::Sender<Option<String>>;

/// The thread, until it is dropped.
pub(crate) struct Beat {
    stop: CancellationToken,
    epoch: Arc<AtomicI64>,
    thread: Option<JoinHandle<()>>,
}

struct Pulse {
    link: EngineLink,
    hold: &'static str,
    me: Me,
    every: Duration,
    /// Of the hold; 0 = not taken yet.
    epoch: Arc<AtomicI64>,
    lost: Lost,
}

impl Beat {
    /// Beats from now on.
    pub(crate) fn start(
        url: &PostgresUrl,
        hold: &'static str,
        me: &Me,
        timing: Timing,
        lost: &Lost,
    ) -> Result<Self, Error> {
        let (stop, epoch) = (CancellationToken::new(), Arc::new(AtomicI64::new(0)));
        let pulse = Pulse {
            link: EngineLink::new(url)?,
            hold,
            me: me.clone(),
            every: timing.beat,
            epoch: epoch.clone(),
            lost: lost.clone(),
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
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_away = false;
        loop {
            tick.tick().await;
            match self.beat().await {
                Ok(None) => {
                    if std::mem::take(&mut is_away) {
                        tracing::info!("the store takes this master's beats again");
                    }
                }
                Ok(Some(owner)) => {
                    self.lost.send_replace(Some(owner));
                    return;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!(error = %Chain(&error), "the store does not take this master's beats");
                    }
                }
            }
        }
    }

    /// Who has the hold, when it is somebody else.
    async fn beat(&self) -> Result<Option<String>, Error> {
        let sql = "WITH b AS (UPDATE masters SET beat = beat + 1 \
            WHERE id = $1 AND incarnation = $2 RETURNING 1) \
            SELECT (SELECT count(*) FROM b), o.owner, o.epoch FROM owners o WHERE o.cluster = $3";
        let values: [&(dyn ToSql + Sync); 3] = [&self.me.id, &self.me.incarnation, &self.hold];
        let epoch = self.epoch.load(Ordering::SeqCst);
        let rows = self.link.query("beat in", sql, &values, WITHIN).await?;
        let Some(row) = rows.first().filter(|_| epoch != 0) else {
            return Ok(None);
        };
        let (beaten, owner, found): (i64, String, i64) = (row.get(0), row.get(1), row.get(2));
        let is_mine = beaten == 1 && found == epoch;
        Ok((!is_mine).then_some(owner))
    }
}
