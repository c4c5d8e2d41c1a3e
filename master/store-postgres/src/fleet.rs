//! The holds of several masters, one for each cluster: who lives, who has what, and how a cluster changes hands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_model::spec::ProviderKind;
use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use aot_store::fleet::{Announcement, Fleet, FleetView, Master, Owner, Take, TakenCluster};
use aot_store::{Hold, HoldPosition, Loaded, Pending};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::beat::Kept;
use crate::connect::EngineLink;
use crate::held::HeldHolds;
use crate::load::{self, Of};
use crate::silence::Silence;
use crate::take::{self, Me, Taken, Timing};
use crate::{Error, PostgresUrl};

/// Longest wait for one of the statements here.
const WITHIN: Duration = Duration::from_secs(5);

/// What is held by whoever sees to what belongs to no cluster. No cluster's name begins like this.
const JANITOR: &str = "~janitor";

/// The masters of a database, as one of them sees them.
pub(crate) struct PostgresFleet {
    link: EngineLink,
    /// A connection of its own: what is loaded is read in a transaction.
    loader: Mutex<EngineLink>,
    me: Me,
    timing: Timing,
    holds: Arc<HeldHolds>,
    standing: Arc<Hold>,
    view: watch::Sender<Arc<FleetView>>,
    /// Of each other master. Its lock is held for a whole look.
    silences: Mutex<BTreeMap<String, Silence>>,
    /// It was said that records are of a later level.
    is_level_told: AtomicBool,
}

/// What a look finds.
struct Rows {
    masters: Vec<Row>,
    owners: Vec<Row>,
}

impl PostgresFleet {
    pub(crate) fn new(
        url: &PostgresUrl,
        me: Me,
        timing: Timing,
        kept: Kept,
    ) -> Result<Self, Error> {
        let view = FleetView {
            me: me.id.clone(),
            ..FleetView::default()
        };
        let Kept { standing, holds } = kept;
        Ok(Self {
            link: EngineLink::new(url)?,
            loader: Mutex::new(EngineLink::new(url)?),
            me,
            timing,
            holds,
            standing,
            view: watch::Sender::new(Arc::new(view)),
            silences: Mutex::default(),
            is_level_told: AtomicBool::new(false),
        })
    }

    async fn rows(&self) -> Result<Rows, Error> {
        let what = "look for the masters of";
        let masters = "SELECT id, incarnation, beat, agents, peer, build, draining FROM masters";
        let owners = "SELECT cluster, owner, epoch, pinned, incarnation FROM owners";
        Ok(Rows {
            masters: self.link.query(what, masters, &[], WITHIN).await?,
            owners: self.link.query(what, owners, &[], WITHIN).await?,
        })
    }

    async fn looked(&self) {
        let mut silences = self.silences.lock().await;
        let view = match self.rows().await {
            Ok(rows) => self.view_of(&rows, &mut silences),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot see who has which cluster");
                silences.values_mut().for_each(Silence::interrupt);
                return;
            }
        };
        self.view.send_replace(Arc::new(view));
    }

    fn view_of(&self, rows: &Rows, silences: &mut BTreeMap<String, Silence>) -> FleetView {
        let mut view = FleetView {
            me: self.me.id.clone(),
            ..FleetView::default()
        };
        let now = Instant::now();
        let mut starts: BTreeMap<String, i64> = BTreeMap::new();
        for row in &rows.masters {
            let master = self.master(row, silences, now);
            starts.insert(master.id.clone(), row.get(1));
            view.masters.insert(master.id.clone(), master);
        }
        silences.retain(|id, _| view.masters.contains_key(id));
        for row in &rows.owners {
            let owner = owner(row, &starts);
            match row.get::<_, &str>(0).parse::<ClusterName>() {
                Ok(cluster) => {
                    view.routes.insert(Route::of(&cluster), cluster.clone());
                    view.owners.insert(cluster, owner);
                }
                Err(_) if row.get::<_, &str>(0) == JANITOR => view.janitor = owner,
                Err(_) => {} // of a newer version
            }
        }
        view
    }

    fn master(&self, row: &Row, silences: &mut BTreeMap<String, Silence>, now: Instant) -> Master {
        let id: String = row.get(0);
        let is_me = id == self.me.id;
        let silence = silences.entry(id.clone()).or_default();
        let beat = (row.get(1), row.get(2));
        let silent_for = silence.read(beat, now, self.timing.beat);
        Master {
            id,
            says: Announcement {
                agents: row.get(3),
                peer: row.get(4),
                build: row.get(5),
            },
            is_draining: row.get(6),
            silent_for,
            is_alive: is_me || silent_for < self.timing.dead,
        }
    }

    /// Takes a hold that is free, or whose owner is dead.
    async fn taken(&self, name: &str) -> Result<Option<(Taken, String)>, Error> {
        let seen = take::read_holder(&self.link, name).await?;
        if seen.level > self.me.level {
            self.warn_of_level(name, seen.level);
            return Ok(None);
        }
        let may = seen.pinned.is_empty() || seen.pinned == self.me.id;
        let is_free = seen.is_free_for(&self.me.id, &self.me.boot);
        if !may || !(is_free || self.is_dead(&seen).await) {
            return Ok(None);
        }
        let served_by = self.served_by(name).await?;
        let taken = take::try_take(&self.link, name, &self.me, &seen).await?;
        Ok(taken.map(|taken| (taken, served_by)))
    }

    /// Once: it is so for every cluster, and every time that one is free.
    fn warn_of_level(&self, name: &str, level: i32) {
        if !self.is_level_told.swap(true, Ordering::Relaxed) {
            let later = Error::later_level(self.link.place(), level, self.me.level);
            tracing::warn!(hold = name, error = %Chain(&later), "this master takes no cluster of a later level");
        }
    }

    /// Whether the owner was silent for long, and still is.
    async fn is_dead(&self, seen: &take::Seen) -> bool {
        let silences = self.silences.lock().await;
        let silence = silences.get(&seen.owner);
        let newest = silence.is_some_and(|it| seen.beat.is_some_and(|beat| it.is_of(beat)));
        newest && silence.is_some_and(|it| it.counted() >= self.timing.dead)
    }

    async fn served_by(&self, name: &str) -> Result<String, Error> {
        let sql = "SELECT served_by FROM owners WHERE cluster = $1";
        let what = "look who served in";
        let rows = self.link.query(what, sql, &[&name], WITHIN).await?;
        Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
    }

    async fn held(&self, name: &str, taken: &Taken) -> Arc<Hold> {
        let hold = Arc::new(Hold::renewable(name));
        *hold.position().await = HoldPosition {
            epoch: taken.epoch,
            seq: taken.seq,
            unsure: None,
        };
        self.holds.add(&hold, taken.epoch, taken.is_taken_over);
        hold.renew(taken.asked + self.timing.good);
        hold
    }

    async fn take_cluster(&self, cluster: &ClusterName) -> Result<Take, aot_store::Error> {
        let name = cluster.as_str();
        let Some((taken, served_by)) = self.taken(name).await? else {
            return Ok(Take::Others);
        };
        let hold = self.held(name, &taken).await;
        let loaded = self.accept(name, &taken, &served_by).await;
        match loaded {
            Ok(Some(loaded)) => {
                tracing::info!(%cluster, epoch = taken.epoch, taken_over = taken.is_taken_over, "the cluster is this master's");
                Ok(Take::Taken(Box::new(TakenCluster {
                    hold,
                    loaded,
                    is_taken_over: taken.is_taken_over,
                })))
            }
            Ok(None) => {
                self.holds.remove(name, taken.epoch);
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
        let loaded = {
            let loader = self.loader.lock().await;
            load::load(&loader, Of::Cluster(name), Some((name, taken.epoch))).await?
        };
        let is_local =
            |cluster: &aot_model::cluster::Cluster| cluster.spec.provider == ProviderKind::Local;
        let is_local = loaded.clusters.iter().any(is_local);
        let is_mine = served_by.is_empty() || served_by == self.me.id;
        let (owner, pinned, server) = match (is_local, is_mine) {
            (false, _) => (&*self.me.id, "", &*self.me.id),
            (true, true) => (&*self.me.id, &*self.me.id, &*self.me.id),
            (true, false) => ("", served_by, served_by),
        };
        let sql = "UPDATE owners SET owner = $3, pinned = $4, served_by = $5 WHERE cluster = $1 AND epoch = $2";
        let values: [&(dyn ToSql + Sync); 5] = [&name, &taken.epoch, &owner, &pinned, &server];
        let what = "enter the hold in";
        self.link.query(what, sql, &values, WITHIN).await?;
        Ok((!is_local || is_mine).then_some(loaded))
    }

    /// Gives a hold back, or takes its row out.
    async fn released(&self, name: &str, epoch: i64, is_empty: bool) {
        self.holds.remove(name, epoch);
        let released = match is_empty {
            true => take::forget(&self.link, name, epoch).await,
            false => take::release(&self.link, name, epoch).await,
        };
        if let Err(error) = released {
            tracing::warn!(hold = name, error = %Chain(&error), "a hold was not given back: another master waits until this one ends");
        }
    }

    async fn announced(&self, says: Announcement) -> Result<(), Error> {
        let sql = "UPDATE masters SET agents = $3, peer = $4, build = $5 WHERE id = $1 AND incarnation = $2";
        let Announcement {
            agents,
            peer,
            build,
        } = says;
        let values: [&(dyn ToSql + Sync); 5] =
            [&self.me.id, &self.me.incarnation, &agents, &peer, &build];
        let what = "announce this master in";
        self.link.query(what, sql, &values, WITHIN).await?;
        Ok(())
    }
}

/// Whose it is; nobody's where the start that took it is over.
fn owner(row: &Row, starts: &BTreeMap<String, i64>) -> Owner {
    let master: String = row.get(1);
    let is_of_newest = starts.get(&master) == Some(&row.get(4));
    Owner {
        master: if is_of_newest { master } else { String::new() },
        epoch: row.get(2),
        pinned: row.get(3),
    }
}

impl Fleet for PostgresFleet {
    fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.view.subscribe()
    }

    fn look(&self) -> Pending<'_, ()> {
        Box::pin(self.looked())
    }

    fn announce(&self, says: Announcement) -> Pending<'_, Result<(), aot_store::Error>> {
        Box::pin(async { Ok(self.announced(says).await?) })
    }

    fn take<'a>(&'a self, cluster: &'a ClusterName) -> Pending<'a, Result<Take, aot_store::Error>> {
        Box::pin(self.take_cluster(cluster))
    }

    fn take_janitor(&self) -> Pending<'_, Result<Option<Arc<Hold>>, aot_store::Error>> {
        Box::pin(async {
            let taken = self.taken(JANITOR).await?;
            Ok(match taken {
                Some((taken, _)) => Some(self.held(JANITOR, &taken).await),
                None => None,
            })
        })
    }

    fn peek<'a>(
        &'a self,
        cluster: &'a ClusterName,
    ) -> Pending<'a, Result<Loaded, aot_store::Error>> {
        Box::pin(async {
            let loader = self.loader.lock().await;
            load::load(&loader, Of::Cluster(cluster.as_str()), None).await
        })
    }

    fn standing(&self) -> &Arc<Hold> {
        &self.standing
    }

    fn give_back<'a>(&'a self, hold: &'a Hold, is_empty: bool) -> Pending<'a, ()> {
        Box::pin(async move {
            let epoch = hold.position().await.epoch; // after whoever writes
            self.released(hold.name(), epoch, is_empty).await;
        })
    }
}
