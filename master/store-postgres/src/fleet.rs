//! The holds of several masters, one for each cluster: who lives, who has what, and how a cluster changes hands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_model::spec::ProviderKind;
use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use aot_store::fleet::{
    Announcement, ClusterOwner, Fleet, FleetMaster, FleetView, Take, TakenCluster,
};
use aot_store::{Hold, HoldPosition, Loaded, Pending};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::beat::KeptHolds;
use crate::connect::EngineLink;
use crate::held::HeldHolds;
use crate::load::{self, Of};
use crate::silence::Silence;
use crate::take::{self, Me, Taken, Timing};
use crate::{Error, PostgresUrl};

/// Longest wait for one of the statements here.
const WITHIN: Duration = Duration::from_secs(5);

/// Clusters that are loaded, or looked at, at the same time.
const LOADERS: usize = 4;

/// What is held by whoever sees to what belongs to no cluster. No cluster's name begins like this.
const JANITOR: &str = "~janitor";

/// The masters of a database, as one of them sees them.
pub(crate) struct PostgresFleet {
    link: EngineLink,
    /// Connections of their own: what is loaded is read in a transaction.
    loaders: [Mutex<Loader>; LOADERS],
    me: Me,
    timing: Timing,
    holds: Arc<HeldHolds>,
    standing: Arc<Hold>,
    view: watch::Sender<Arc<FleetView>>,
    /// Looks that have begun.
    begun: AtomicU64,
    /// Its lock is held for a whole look.
    seen: Mutex<SeenFleet>,
    /// It was said that records are of a later level.
    is_level_told: AtomicBool,
}

/// What is kept from look to look.
#[derive(Default)]
struct SeenFleet {
    /// Of each other master.
    silences: BTreeMap<String, Silence>,
    /// Masters whose port refuses connections.
    refusing: BTreeSet<String>,
    /// Of holds whose owner has started anew since it took them, and has not taken them back.
    ended_starts: BTreeMap<String, Silence>,
    /// The number of the last look that worked.
    look: u64,
}

/// A connection on which records are loaded.
struct Loader {
    link: EngineLink,
    /// A load is under way, or was given up: then its transaction is open still.
    is_amid: bool,
}

impl Loader {
    fn new(url: &PostgresUrl) -> Result<Self, Error> {
        Ok(Self {
            link: EngineLink::new(url)?,
            is_amid: false,
        })
    }

    async fn load(
        &mut self,
        cluster: &str,
        epoch: Option<i64>,
    ) -> Result<Loaded, aot_store::Error> {
        if std::mem::replace(&mut self.is_amid, true) {
            self.link.reset().await;
        }
        let hold = epoch.map(|epoch| (cluster, epoch));
        let loaded = load::load(&self.link, Of::Cluster(cluster), hold).await;
        self.is_amid = false;
        loaded
    }
}

/// Whose a hold was before it was taken.
struct Before {
    /// The master that had it and did not give it back.
    owner: String,
    /// The last that served what it is on.
    served_by: String,
}

/// What a look finds.
struct FleetRows {
    masters: Vec<Row>,
    owners: Vec<Row>,
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
        let KeptHolds { standing, holds } = kept;
        Ok(Self {
            link: EngineLink::new(url)?,
            loaders: [
                Mutex::new(Loader::new(url)?),
                Mutex::new(Loader::new(url)?),
                Mutex::new(Loader::new(url)?),
                Mutex::new(Loader::new(url)?),
            ],
            me,
            timing,
            holds,
            standing,
            view: watch::Sender::new(Arc::new(view)),
            begun: AtomicU64::new(0),
            seen: Mutex::default(),
            is_level_told: AtomicBool::new(false),
        })
    }

    async fn rows(&self) -> Result<FleetRows, Error> {
        let what = "look for the masters of";
        let masters =
            "SELECT id, incarnation, beat, agents, peer, build, draining, link FROM masters";
        let owners = "SELECT cluster, owner, epoch, pinned, incarnation, preferred FROM owners";
        Ok(FleetRows {
            masters: self.link.query(what, masters, &[], WITHIN).await?,
            owners: self.link.query(what, owners, &[], WITHIN).await?,
        })
    }

    /// On a connection that is free, or the first that will be.
    async fn load(&self, cluster: &str, epoch: Option<i64>) -> Result<Loaded, aot_store::Error> {
        let free = self.loaders.iter().find_map(|it| it.try_lock().ok());
        let mut loader = match free {
            Some(free) => free,
            None => self.loaders[0].lock().await,
        };
        loader.load(cluster, epoch).await
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
                let all = seen.silences.values_mut();
                all.for_each(Silence::interrupt);
                seen.ended_starts.clear();
                seen.refusing.clear();
                return Err(error);
            }
        };
        let view = self.view_of(&rows, &mut seen);
        self.view.send_replace(Arc::new(view));
        seen.look = look;
        Ok(())
    }

    /// After so much silence a master is dead.
    fn dead_after(&self, is_refusing: bool) -> Duration {
        match is_refusing {
            true => self.timing.refused,
            false => self.timing.dead,
        }
    }

    fn view_of(&self, rows: &FleetRows, seen: &mut SeenFleet) -> FleetView {
        let mut view = FleetView {
            me: self.me.id.clone(),
            ..FleetView::default()
        };
        let now = Instant::now();
        let mut starts: BTreeMap<String, i64> = BTreeMap::new();
        for row in &rows.masters {
            let master = self.master(row, seen, now);
            starts.insert(master.id.clone(), row.get(1));
            view.masters.insert(master.id.clone(), master);
        }
        seen.silences.retain(|id, _| view.masters.contains_key(id));
        for row in &rows.owners {
            let mut owner = owner(row, &starts, &self.me.id);
            if take::is_same_folder(&owner.pinned, &self.me.id) {
                owner.pinned.clone_from(&self.me.id); // its host has another name by now
            }
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

    fn master(&self, row: &Row, seen: &mut SeenFleet, now: Instant) -> FleetMaster {
        let id: String = row.get(0);
        let is_me = id == self.me.id;
        let silence = seen.silences.entry(id.clone()).or_default();
        let beat = (row.get(1), row.get(2));
        if !silence.is_of(beat) {
            seen.refusing.remove(&id);
        }
        let silent_for = silence.read(beat, now, self.timing.beat);
        let dead = self.dead_after(seen.refusing.contains(&id));
        FleetMaster {
            id,
            says: Announcement {
                agents: row.get(3),
                peer: row.get(4),
                build: row.get(5),
                link: row.get(7),
            },
            is_draining: row.get(6),
            silent_for,
            is_alive: is_me || silent_for < dead,
        }
    }

    /// Takes a hold that is free, or whose owner is dead.
    async fn taken(&self, name: &str) -> Result<Option<(Taken, Before)>, Error> {
        // A hold is good from its take on: by one whose own beats are not taken it would be, for that time, for nobody.
        if !self.standing.is_good() {
            return Ok(None);
        }
        let seen = take::read_holder(&self.link, name).await?;
        if seen.level > self.me.level {
            self.warn_of_level(name, seen.level);
            return Ok(None);
        }
        let may = seen.pinned.is_empty() || take::is_same_folder(&seen.pinned, &self.me.id);
        let is_free = seen.is_free_for(&self.me.id, &self.me.boot);
        if !may || !(is_free || self.is_dead(name, &seen).await) {
            return Ok(None);
        }
        let served_by = self.served_by(name).await?;
        let taken = take::try_take(&self.link, name, &self.me, &seen).await?;
        let before = Before {
            served_by,
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

    /// Whether the start that took a hold was silent for long, and still is.
    async fn is_dead(&self, name: &str, seen: &take::Seen) -> bool {
        let Some(beat) = seen.beat else {
            return true; // its entry is gone
        };
        let mut known = self.seen.lock().await;
        let silence = known.silences.get(&seen.owner);
        if let Some(silence) = silence.filter(|it| it.is_of(beat)) {
            let is_refusing = known.refusing.contains(&seen.owner);
            return silence.counted() >= self.dead_after(is_refusing);
        }
        if seen.is_of_newest_start() {
            return false; // it has beaten since it was looked at
        }
        // A later start that has not taken it back: of another boot, or that of a copied folder.
        let silence = known.ended_starts.entry(name.to_owned()).or_default();
        let begun = (beat.0, seen.epoch);
        silence.read(begun, Instant::now(), self.timing.beat) >= self.timing.dead
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
        hold.set_epoch(taken.epoch);
        self.holds.add(&hold, taken.epoch, taken.is_taken_over);
        let own = taken.asked + self.timing.good;
        hold.renew(self.standing.good_until().map_or(own, |end| end.min(own)));
        hold
    }

    async fn take_cluster(&self, cluster: &ClusterName) -> Result<Take, aot_store::Error> {
        let name = cluster.as_str();
        let Some((taken, before)) = self.taken(name).await? else {
            return Ok(Take::Others);
        };
        let hold = self.held(name, &taken).await;
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
        let loaded = self.load(name, Some(taken.epoch)).await?;
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
        self.holds.remove(name, epoch);
        let released = match is_empty {
            true => match take::forget(&self.link, name, epoch).await {
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
        let sql = "UPDATE owners SET preferred = $2 WHERE cluster = $1 AND pinned IN ('', $2) RETURNING 1";
        let what = "move a cluster in";
        let values: [&(dyn ToSql + Sync); 2] = [&cluster, &master];
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

/// Whose it is; nobody's where the start that took it is over, unless that was one of this master.
fn owner(row: &Row, starts: &BTreeMap<String, i64>, me: &str) -> ClusterOwner {
    let master: String = row.get(1);
    let has_it = master == me || starts.get(&master) == Some(&row.get(4));
    ClusterOwner {
        master: if has_it { master } else { String::new() },
        epoch: row.get(2),
        pinned: row.get(3),
        preferred: row.get(5),
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
            self.seen.lock().await.refusing.insert(master.to_owned());
        })
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
        Box::pin(async { self.load(cluster.as_str(), None).await })
    }

    fn prefer<'a>(
        &'a self,
        cluster: &'a ClusterName,
        master: &'a str,
    ) -> Pending<'a, Result<bool, aot_store::Error>> {
        Box::pin(async { Ok(self.preferred(cluster.as_str(), master).await?) })
    }

    fn drain<'a>(
        &'a self,
        master: &'a str,
        is_draining: bool,
    ) -> Pending<'a, Result<bool, aot_store::Error>> {
        Box::pin(async move { Ok(self.drained(master, is_draining).await?) })
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
