//! Clusters of several masters: how one becomes this master's, and how it is given away or lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use aot_host::chain::Chain;
use aot_model::world::{Input, RoutingKey, World};
use aot_proto::ids::{ClusterName, RunId};
use aot_store::Hold;
use aot_store::fleet::Take;
use tokio::sync::broadcast;

use super::{Engines, UNHURT};
use crate::run::engine::{Engine, Unanswered};
use crate::session::Closed;

/// A cluster that was another master's, which may not know that it has lost it.
#[derive(Debug, Clone)]
pub(crate) struct TakenOver {
    /// Which.
    pub cluster: ClusterName,
    /// With which it was taken.
    pub epoch: i64,
    /// The id of the other master.
    pub from: String,
}

impl Engines {
    /// Whether a cluster is here.
    pub(crate) fn has(&self, cluster: &ClusterName) -> bool {
        self.get(cluster).is_some()
    }

    /// Whether this master's word counts for a cluster: it is here, or can be nowhere else.
    pub(crate) fn is_decided_here(&self, cluster: &ClusterName) -> bool {
        self.0.parts.fleet.is_none() || self.has(cluster)
    }

    /// Takes a cluster that nobody has, or that is this master's from before; says whether it is here now.
    ///
    /// # Errors
    /// When it can't be asked for, or read.
    pub(crate) async fn take(&self, cluster: &ClusterName) -> Result<bool, aot_store::Error> {
        let Some(fleet) = self.0.parts.fleet.clone() else {
            return Ok(true);
        };
        // In a task of its own: whoever asks may be gone before it is here, and then it is here all the same.
        let (engines, cluster) = (self.clone(), cluster.clone());
        let taken = self.0.parts.tasks.spawn(async move {
            let lock = engines.lock_of(&cluster);
            let _one = lock.lock().await;
            if engines.has(&cluster) {
                return Ok(true);
            }
            let Take::Taken(taken) = fleet.take(&cluster).await? else {
                return Ok(false);
            };
            let (is_taken_over, epoch) = (taken.is_taken_over, taken.hold.epoch());
            if !taken.from.is_empty() {
                let taken_over = TakenOver {
                    cluster: cluster.clone(),
                    epoch,
                    from: taken.from,
                };
                let _ = engines.0.taken_over.send(taken_over); // nobody may listen yet
            }
            engines.start_loaded(cluster, taken.loaded, taken.hold, is_taken_over);
            let _ = fleet.refresh().await; // the next one will do: this master knows it already
            Ok(true)
        });
        taken.await.unwrap_or(Err(aot_store::Error::Stopped))
    }

    /// Shared by all that take this cluster at the moment.
    fn lock_of(&self, cluster: &ClusterName) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.0.taking.lock().expect(UNHURT);
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(cluster.clone()).or_default().clone()
    }

    /// What is taken over from masters that may live, from now on.
    pub(crate) fn taken_over(&self) -> broadcast::Receiver<TakenOver> {
        self.0.taken_over.subscribe()
    }

    /// Another master says that it has a cluster, with this epoch. It is lost where that is higher than this master's own, though
    /// the store may be out of reach.
    pub(crate) fn lose(&self, cluster: &ClusterName, epoch: i64, to: &str) {
        let engine = self.get(cluster);
        if let Some(engine) = engine.filter(|engine| engine.hold.epoch() < epoch) {
            let why = format!("the master {to} has taken cluster {cluster} over");
            engine.hold.lose(&why);
        }
    }

    /// Whether a request may take a cluster: not where it is to be another's.
    fn may_take(&self, cluster: &ClusterName) -> bool {
        let Some(fleet) = &self.0.parts.fleet else {
            return true;
        };
        let view = fleet.view().borrow().clone();
        let wished = view.owners.get(cluster).map(|owner| &*owner.preferred);
        let elsewhere = wished.is_some_and(|to| to != view.me && view.is_able(to));
        !elsewhere && (!view.is_draining() || !view.has_able_others())
    }

    /// Nothing more is done for a cluster that is lost, also while its loop still waits for the answer to a write.
    pub(super) async fn end_when_lost(self, name: ClusterName, engine: Engine) {
        tokio::select! {
            _ = engine.hold.until_lost() => {}
            () = engine.stop.cancelled() => return,
        }
        engine.stop.cancel();
        self.forget(&name, &engine);
        self.0.parts.registry.end_all(&name, &Closed::Moved);
    }

    /// Where a request is decided on: its cluster is taken if nobody has it. `None` for a token that no cluster has.
    ///
    /// # Errors
    /// [`Unanswered::Elsewhere`], and why it can't be found out.
    pub(super) async fn engine_for(&self, input: &Input) -> Result<Option<Engine>, Unanswered> {
        let found = self.destination(input);
        let RoutingKey::Cluster(name) = input.routing_key() else {
            return Ok(found);
        };
        if found.is_some() || self.is_stopping() {
            return Ok(found);
        }
        if !self.may_take(name) {
            return Err(Unanswered::Elsewhere);
        }
        match self.take(name).await {
            Ok(true) => Ok(self.get(name)),
            Ok(false) => Err(Unanswered::Elsewhere),
            Err(error) => {
                tracing::warn!(cluster = %name, error = %Chain(&error), "cannot see whose the cluster is");
                Err(Unanswered::Away)
            }
        }
    }

    /// Gives a cluster to whoever takes it next: its loop ends, and with it all that was under way here. Its machines leave.
    pub(crate) fn give_away(&self, cluster: &ClusterName) {
        if let Some(engine) = self.get(cluster) {
            engine.stop.cancel();
        }
    }

    /// A loop has ended while the master continues: the cluster was given away, or is another's already.
    pub(super) async fn leave(&self, name: &ClusterName, engine: &Engine) {
        self.forget(name, engine);
        let parts = &self.0.parts;
        parts.registry.end_all(name, &Closed::Moved);
        // Should it come back: what is here of an output is then only a part, and its machine sends all of it again.
        let open: Vec<RunId> = engine.read(|world| world.runs.keys().copied().collect());
        let spools = parts.spools.clone();
        let removed = tokio::task::spawn_blocking(move || {
            open.into_iter().for_each(|run| spools.remove(run));
        });
        let _ = removed.await; // it says itself what it can't remove
        if let Some(fleet) = parts.fleet.as_ref().filter(|_| !engine.hold.is_lost()) {
            fleet.give_back(&engine.hold, false).await;
        }
    }

    pub(super) fn forget(&self, name: &ClusterName, engine: &Engine) {
        let mut engines = self.0.engines.write().expect(UNHURT);
        if engines.get(name).is_some_and(|of| of.is(engine)) {
            engines.remove(name);
        }
    }

    /// Reads all worlds of all masters, one after the other: of clusters that are elsewhere what is on record.
    ///
    /// # Errors
    /// When that can't be read: who reads all must miss none.
    pub(crate) async fn read_everywhere<T>(
        &self,
        read: impl Fn(&World) -> T,
    ) -> Result<Vec<T>, aot_store::Error> {
        let Some(fleet) = &self.0.parts.fleet else {
            return Ok(self.read_each(read));
        };
        fleet.refresh().await?;
        let view = fleet.view().borrow().clone();
        let here = self.all().into_iter();
        let here: BTreeMap<ClusterName, Engine> = here.collect();
        let mut found: Vec<T> = here.values().map(|engine| engine.read(&read)).collect();
        for cluster in view.owners.keys().filter(|name| !here.contains_key(*name)) {
            let loaded = fleet.peek(cluster).await?;
            found.push(read(&self.world_of(loaded)));
        }
        Ok(found)
    }

    /// What is written with that belongs to no cluster; `None` while another master does that.
    pub(crate) fn janitor_hold(&self) -> Option<Arc<Hold>> {
        let parts = &self.0.parts;
        match &parts.fleet {
            None => Some(parts.hold.clone()),
            Some(_) => self
                .0
                .janitor
                .borrow()
                .clone()
                .filter(|hold| hold.is_good()),
        }
    }

    /// Whether this master has, or had, what belongs to no cluster.
    pub(crate) fn is_janitor(&self) -> bool {
        let held = self.0.janitor.borrow();
        held.as_ref().is_some_and(|hold| !hold.is_lost())
    }

    /// From now on this master sees to what belongs to no cluster.
    pub(crate) fn set_janitor(&self, hold: Arc<Hold>) {
        self.0.janitor.send_replace(Some(hold));
    }
}
