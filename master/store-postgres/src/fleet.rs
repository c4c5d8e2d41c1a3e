//! The holds of several masters, one for each cluster: who lives, who has what, and how a cluster changes hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_model::spec::ProviderKind;
use aot_proto::ids::ClusterName;
use aot_store::fleet::{Announcement, Fleet, FleetView, Take, TakenCluster};
use aot_store::{Hold, Loaded, Pending};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_postgres::types::ToSql;

use crate::connect::EngineLink;
use crate::held::KeptHolds;
use crate::loaders::Loaders;
use crate::seen::{FleetRows, JANITOR, SeenFleet};
use crate::take::{self, Me, Taken, Timing};
use crate::{Error, PostgresUrl, on_record};

/// Longest wait for one of the statements here.
const WITHIN: Duration = Duration::from_secs(5);

/// The masters of a database, as one of them sees them.
pub(crate) struct PostgresFleet {
    link: EngineLink,
    loaders: Loaders,
    me: Me,
    timing: Timing,
    kept: KeptHolds,
    view: watch::Sender<Arc<FleetView>>,
    /// Looks that have begun.
    begun: AtomicU64,
    /// Its lock is held for a whole look.
    seen: Mutex<SeenFleet>,
    /// It was said that records are of a later level.
    is_level_told: AtomicBool,
}

/// Whose a hold was before it was taken.
struct Before {
    /// The master that had it and did not give it back.
    owner: String,
    /// The last that served what it is on.
    served_by: String,
}

impl PostgresFleet {
    pub(crate) fn new(
        url: &PostgresUrl,
        me: Me,
        timing: Timing,
        kept: KeptHolds,
    ) -> Result<Self, Error> {
        let view = FleetView {
            me: me.id.clone(),
            ..FleetView::default()
        };
        Ok(Self {
            link: EngineLink::new(url)?,
            loaders: Loaders::new(url, timing.load)?,
            me,
            timing,
            kept,
            view: watch::Sender::new(Arc::new(view)),
            begun: AtomicU64::new(0),
            seen: Mutex::new(SeenFleet::new(timing)),
            is_level_told: AtomicBool::new(false),
        })
    }

    async fn rows(&self) -> Result<FleetRows, Error> {
        let what = "look for the masters of";
        let masters =
            "SELECT id, incarnation, beat, agents, peer, build, draining, link FROM masters";
        let owners =
            "SELECT cluster, owner, epoch, pinned, incarnation, preferred, placed FROM owners";
        Ok(FleetRows {
            masters: self.link.query(what, masters, &[], WITHIN).await?,
            owners: self.link.query(what, owners, &[], WITHIN).await?,
        })
    }

    /// Many that ask at once share a look: one that began after they had asked is theirs.
    async fn refreshed(&self) -> Result<(), Error> {
        let asked = self.begun.load(Ordering::SeqCst);
        let mut seen = self.seen.lock().await;
        if seen.look > asked {
            return Ok(());
        }
        let look = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let rows = match self.rows().await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot see who has which cluster");
                seen.interrupt();
                return Err(error);
            }
        };
        let view = seen.view_of(&rows, &self.me.id, Instant::now());
        self.view.send_replace(Arc::new(view));
        seen.look = look;
        Ok(())
    }

    /// Takes a hold that is free, or whose owner is dead.
    async fn taken(&self, name: &str) -> Result<Option<(Taken, Before)>, Error> {
        // A hold is good from its take on: by one whose own beats are not taken it would be, for that time, for nobody.
        if !self.kept.standing.is_good() {
            return Ok(None);
        }
        let seen = take::read_holder(&self.link, name).await?;
        if seen.level > self.me.level {
            self.warn_of_level(name, seen.level);
            return Ok(None);
        }
        let may = seen.pinned.is_empty() || take::is_same_folder(&seen.pinned, &self.me.id);
        let is_free = seen.is_free_for(&self.me.id, &self.me.boot);
        if !may || !(is_free || self.seen.lock().await.is_dead(name, &seen, Instant::now())) {
            return Ok(None);
        }
        let taken = take::try_take(&self.link, name, &self.me, &seen).await?;
        let before = Before {
            served_by: seen.served_by,
            owner: if is_free { String::new() } else { seen.owner },
        };
        Ok(taken.map(|taken| (taken, before)))
    }

    /// Once: it is so for every cluster, and every time that one is free.
    fn warn_of_level(&self, name: &str, level: i32) {
        if !self.is_level_told.swap(true, Ordering::Relaxed) {
            let later = Error::later_level(self.link.place(), level, self.me.level);
            tracing::warn!(hold = name, error = %Chain(&later), "this master takes no cluster of a later level");
        }
    }

    async fn take_cluster(&self, cluster: &ClusterName) -> Result<Take, aot_store::Error> {
        let name = cluster.as_str();
        let Some((taken, before)) = self.taken(name).await? else {
            return Ok(Take::Others);
        };
        let hold = self.kept.add_taken(name, &taken, self.timing.good).await;
        let loaded = self.accept(name, &taken, &before.served_by).await;
        match loaded {
            Ok(Some(loaded)) => {
                tracing::info!(%cluster, epoch = taken.epoch, taken_over = taken.is_taken_over, "the cluster is this master's");
                Ok(Take::Taken(Box::new(TakenCluster {
                    hold,
                    loaded,
                    is_taken_over: taken.is_taken_over,
                    from: before.owner,
                })))
            }
            Ok(None) => {
                self.kept.holds.remove(name, taken.epoch);
                Ok(Take::Others)
            }
            Err(error) => {
                self.released(name, taken.epoch, false).await;
                Err(error)
            }
        }
    }

    /// What is on record of a cluster that was taken; `None` when its machines are clones of another master's host, which then gets
    /// it back.
    async fn accept(
        &self,
        name: &str,
        taken: &Taken,
        served_by: &str,
    ) -> Result<Option<Loaded>, aot_store::Error> {
        let loaded = self.loaders.load(name, Some(taken.epoch)).await?;
        let is_local =
            |cluster: &aot_model::cluster::Cluster| cluster.spec.provider == ProviderKind::Local;
        let is_local = loaded.clusters.iter().any(is_local);
        let is_mine = served_by.is_empty() || take::is_same_folder(served_by, &self.me.id);
        let (owner, pinned, server) = match (is_local, is_mine) {
            (false, _) => (&*self.me.id, "", &*self.me.id),
            (true, true) => (&*self.me.id, &*self.me.id, &*self.me.id),
            (true, false) => ("", served_by, served_by),
        };
        let sql = "UPDATE owners SET owner = $3, pinned = $4, served_by = $5, \
            preferred = CASE preferred WHEN $3 THEN '' ELSE preferred END WHERE cluster = $1 AND epoch = $2";
        let values: [&(dyn ToSql + Sync); 5] = [&name, &taken.epoch, &owner, &pinned, &server];
        let what = "enter the hold in";
        self.link.query(what, sql, &values, WITHIN).await?;
        Ok((!is_local || is_mine).then_some(loaded))
    }

    /// Gives a hold back, or takes its row out.
    async fn released(&self, name: &str, epoch: i64, is_empty: bool) {
        self.kept.holds.remove(name, epoch);
        let released = match is_empty {
            true => match on_record::forget(&self.link, name, epoch).await {
                Ok(true) => Ok(()),
                // Something of it is on record all the same.
                Ok(false) => take::release(&self.link, name, epoch).await,
                Err(error) => Err(error),
            },
            false => take::release(&self.link, name, epoch).await,
        };
        if let Err(error) = released {
            tracing::warn!(hold = name, error = %Chain(&error), "a hold was not given back: another master waits until this one ends");
        }
    }

    async fn preferred(&self, cluster: &str, master: &str) -> Result<bool, Error> {
        let sql = "UPDATE owners SET preferred = $2, placed = $2 WHERE cluster = $1 AND pinned IN ('', $2) RETURNING 1";
        let what = "move a cluster in";
        let values: [&(dyn ToSql + Sync); 2] = [&cluster, &master];
        let rows = self.link.query(what, sql, &values, WITHIN).await?;
        Ok(!rows.is_empty())
    }

    async fn asked_for(&self, cluster: &str) -> Result<bool, Error> {
        // Clones are pinned only once their cluster was given away, which it need not be for this.
        let sql = "UPDATE owners SET preferred = $2 WHERE cluster = $1 AND owner NOT IN ('', $2) AND pinned = '' \
            AND placed IN ('', $2) AND preferred IN ('', owner) AND NOT EXISTS (SELECT FROM clusters c \
            WHERE c.cluster = $1 AND c.record::json -> 'spec' ->> 'provider' = 'local') RETURNING 1";
        let what = "ask for a cluster in";
        let values: [&(dyn ToSql + Sync); 2] = [&cluster, &self.me.id];
        let rows = self.link.query(what, sql, &values, WITHIN).await?;
        Ok(!rows.is_empty())
    }

    async fn drained(&self, master: &str, is_draining: bool) -> Result<bool, Error> {
        let sql = "UPDATE masters SET draining = $2 WHERE id = $1 RETURNING 1";
        let what = "drain a master of";
        let values: [&(dyn ToSql + Sync); 2] = [&master, &is_draining];
        let rows = self.link.query(what, sql, &values, WITHIN).await?;
        Ok(!rows.is_empty())
    }

    async fn announced(&self, says: Announcement) -> Result<(), Error> {
        let sql = "UPDATE masters SET agents = $3, peer = $4, build = $5, link = $6 WHERE id = $1 AND incarnation = $2";
        let Announcement {
            agents,
            peer,
            link,
            build,
        } = says;
        let own = (&self.me.id, &self.me.incarnation);
        let values: [&(dyn ToSql + Sync); 6] = [own.0, own.1, &agents, &peer, &build, &link];
        let what = "announce this master in";
        self.link.query(what, sql, &values, WITHIN).await?;
        Ok(())
    }
}

impl Fleet for PostgresFleet {
    fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.view.subscribe()
    }

    fn refresh(&self) -> Pending<'_, Result<(), aot_store::Error>> {
        Box::pin(async { Ok(self.refreshed().await?) })
    }

    fn announce(&self, says: Announcement) -> Pending<'_, Result<(), aot_store::Error>> {
        Box::pin(async { Ok(self.announced(says).await?) })
    }

    fn presume_dead<'a>(&'a self, master: &'a str) -> Pending<'a, ()> {
        Box::pin(async move {
            self.seen.lock().await.note_refusing(master);
        })
    }

    fn take<'a>(&'a self, cluster: &'a ClusterName) -> Pending<'a, Result<Take, aot_store::Error>> {
        Box::pin(self.take_cluster(cluster))
    }

    fn take_janitor(&self) -> Pending<'_, Result<Option<Arc<Hold>>, aot_store::Error>> {
        Box::pin(async {
            let taken = self.taken(JANITOR).await?;
            Ok(match taken {
                Some((taken, _)) => {
                    let good = self.timing.good;
                    Some(self.kept.add_taken(JANITOR, &taken, good).await)
                }
                None => None,
            })
        })
    }

    fn peek<'a>(
        &'a self,
        cluster: &'a ClusterName,
    ) -> Pending<'a, Result<Loaded, aot_store::Error>> {
        Box::pin(async { self.loaders.load(cluster.as_str(), None).await })
    }

    fn prefer<'a>(
        &'a self,
        cluster: &'a ClusterName,
        master: &'a str,
    ) -> Pending<'a, Result<bool, aot_store::Error>> {
        Box::pin(async { Ok(self.preferred(cluster.as_str(), master).await?) })
    }

    fn ask_for<'a>(
        &'a self,
        cluster: &'a ClusterName,
    ) -> Pending<'a, Result<bool, aot_store::Error>> {
        Box::pin(async { Ok(self.asked_for(cluster.as_str()).await?) })
    }

    fn drain<'a>(
        &'a self,
        master: &'a str,
        is_draining: bool,
    ) -> Pending<'a, Result<bool, aot_store::Error>> {
        Box::pin(async move { Ok(self.drained(master, is_draining).await?) })
    }

    fn standing(&self) -> &Arc<Hold> {
        &self.kept.standing
    }

    fn give_back<'a>(&'a self, hold: &'a Hold, is_empty: bool) -> Pending<'a, ()> {
        Box::pin(async move {
            let epoch = hold.position().await.epoch; // after whoever writes
            self.released(hold.name(), epoch, is_empty).await;
        })
    }
}
