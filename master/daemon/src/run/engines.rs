//! Each cluster's world has a loop and an `Engine` of its own, so that no cluster waits for another's decisions and writes; this
//! leads what comes in, and whoever reads, to the right one.
//!
//! A loop begins with the first input that names its cluster, and ends when nothing of it is left. What is on its way to one
//! that ends is led to the next: it changes nothing that it comes after what was sent later, as there is nothing left to change.

mod inherited;
mod owned;
mod requests;
mod seeds;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_model::unix_ms::UnixMs;
use aot_model::world::{Answer, Input, Refused, RoutingKey, World};
use aot_proto::ids::ClusterName;
use aot_proto::v1;
use aot_store::fatal::vital;
use aot_store::{Hold, Loaded};
use tokio::sync::{broadcast, mpsc, watch};

use super::decide::Loop;
use super::engine::{Engine, QueuedInput};
use super::event_feed::{EventFeed, Remembered};
use super::updates::Published;
use super::{Parts, now_ms};
pub(crate) use inherited::Inherited;
use inherited::by_cluster;
pub(crate) use owned::TakenOver;
use seeds::Seeds;

/// Clusters that may be taken over before the master of one is told.
const TAKEN_OVER: usize = 1024;

/// The way to whoever decides, for all clusters. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engines(Arc<Shared>);

struct Shared {
    /// By the clusters that they are for.
    engines: RwLock<BTreeMap<ClusterName, Engine>>,
    /// Stands for the worlds of clusters that have none.
    vacant: World,
    events: EventFeed,
    seeds: Seeds,
    /// Whoever takes a cluster has its lock meanwhile.
    taking: Mutex<BTreeMap<ClusterName, Arc<tokio::sync::Mutex<()>>>>,
    taken_over: broadcast::Sender<TakenOver>,
    /// What this master writes with what belongs to no cluster, where masters share that and it is the one.
    janitor: watch::Sender<Option<Arc<Hold>>>,
    parts: Arc<Parts>,
}

impl Engines {
    /// Starts a loop for each cluster of which something is on record. All loops end when `stop` fires. `seed` comes from the
    /// system's random numbers.
    pub(crate) fn start(inherited: Inherited, parts: Arc<Parts>, seed: [u8; 32]) -> Self {
        let seeds = Seeds::new(&seed);
        let feed = seeds.draw();
        let feed = feed.first_chunk().expect("a seed has 32 bytes");
        let engines = Self(Arc::new(Shared {
            engines: RwLock::default(),
            vacant: world_of(Loaded::default(), &parts, seeds.draw(), now_ms()),
            events: EventFeed::new(u64::from_le_bytes(*feed), now_ms()),
            seeds,
            taking: Mutex::default(),
            taken_over: broadcast::channel(TAKEN_OVER).0,
            janitor: watch::Sender::default(),
            parts,
        }));
        for (name, loaded) in by_cluster(inherited.loaded) {
            let hold = engines.0.parts.hold.clone();
            engines.start_loaded(name, loaded, hold, inherited.is_taken_over);
        }
        engines
    }

    /// Reads the world of a cluster; an empty one where there is none. Its loop waits meanwhile: `read` must be short, and must
    /// not block.
    pub(crate) fn read<T>(&self, cluster: &ClusterName, read: impl FnOnce(&World) -> T) -> T {
        match self.get(cluster) {
            Some(engine) => engine.read(read),
            None => read(&self.0.vacant),
        }
    }

    /// Reads all worlds, one after the other, in the order of their clusters' names.
    pub(crate) fn read_each<T>(&self, mut read: impl FnMut(&World) -> T) -> Vec<T> {
        let all = self.all().into_iter();
        all.map(|(_, engine)| engine.read(&mut read)).collect()
    }

    /// All clusters, in the order of their names.
    pub(crate) fn clusters(&self) -> Vec<ClusterName> {
        let names = |world: &World| world.clusters.keys().cloned().collect::<Vec<_>>();
        self.read_each(names).concat()
    }

    /// The cluster with the batch that has this join token, also one whose time is over. It waits for the decisions of others
    /// only where none of those that decide nothing has it.
    pub(crate) fn cluster_of_token(&self, token_sha256: &str) -> Option<ClusterName> {
        let has = |world: &World| world.token_is_known(token_sha256);
        let mut busy = Vec::new();
        for (name, engine) in &*self.0.engines.read().expect(UNHURT) {
            match engine.try_read(has) {
                Some(true) => return Some(name.clone()),
                Some(false) => {}
                None => busy.push((name.clone(), engine.clone())),
            }
        }
        let mut busy = busy.into_iter();
        busy.find(|(_, engine)| engine.read(has))
            .map(|(name, _)| name)
    }

    /// How many instances there are in all clusters: no more have a session.
    pub(crate) fn instance_count(&self) -> usize {
        let engines = self.0.engines.read().expect(UNHURT);
        engines.values().map(Engine::instance_count).sum()
    }

    /// Changes whenever the provider has shown this cluster's machines, or could not; ends with the cluster.
    pub(crate) fn machines_shown(&self, cluster: &ClusterName) -> watch::Receiver<u64> {
        match self.get(cluster) {
            Some(engine) => engine.shown.subscribe(),
            None => watch::channel(0).1,
        }
    }

    /// Of the hold that this cluster is written with; 0 where nobody else can have it.
    pub(crate) fn epoch(&self, cluster: &ClusterName) -> i64 {
        self.hold(cluster).epoch()
    }

    /// What this cluster's records may have, see [`aot_model::level`].
    pub(crate) fn level(&self, cluster: &ClusterName) -> i32 {
        self.hold(cluster).level()
    }

    /// What this cluster is written with.
    fn hold(&self, cluster: &ClusterName) -> Arc<Hold> {
        let engine = self.get(cluster);
        engine.map_or_else(|| self.0.parts.hold.clone(), |engine| engine.hold)
    }

    /// For how long nothing could be put on record, at least of one cluster.
    pub(crate) fn away_for(&self) -> Option<Duration> {
        let engines = self.0.engines.read().expect(UNHURT);
        let holds = engines.values().map(|engine| &engine.hold);
        let all = holds.chain([&self.0.parts.hold]);
        all.filter_map(|hold| hold.unusable_for()).max()
    }

    /// All events of all clusters from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Published> {
        self.0.events.subscribe()
    }

    /// What is remembered of a cluster and was not seen yet, and all events of all clusters from now on.
    pub(crate) fn subscribe_from(
        &self,
        cluster: &ClusterName,
        cursor: &v1::EventCursor,
    ) -> (Remembered, broadcast::Receiver<Published>) {
        self.0.events.subscribe_from(cluster, cursor)
    }

    /// Leads an input to its loop; to the next one when that has ended meanwhile.
    async fn send(&self, mut message: QueuedInput) {
        while let Some(engine) = self.destination(&message.input) {
            if engine.stop.is_cancelled() {
                break; // it is another master's, or this one stops
            }
            match engine.send(message).await {
                None => return,
                Some(returned) => message = returned,
            }
        }
        let is_strange = matches!(message.input.routing_key(), RoutingKey::JoinToken(_));
        if let Some(reply) = message.reply.filter(|_| is_strange && !self.is_stopping()) {
            let _ = reply.send(Answer::Refused(Refused::UnknownToken)); // whoever asked may be gone
        }
    }

    /// Where an input is decided on; `None` for a token that no cluster has, for a cluster that may be another master's, and while
    /// this one stops.
    fn destination(&self, input: &Input) -> Option<Engine> {
        if self.is_stopping() {
            return None; // the loops have ended, or are about to
        }
        match input.routing_key() {
            RoutingKey::Cluster(name) => self.get_or_start(name),
            RoutingKey::JoinToken(token) => self.get(&self.cluster_of_token(token)?),
            RoutingKey::OwnWorld => {
                debug_assert!(false, "{input:?} is brought by the loop itself");
                None
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.0.parts.stop.is_cancelled()
    }

    fn get(&self, cluster: &ClusterName) -> Option<Engine> {
        let engines = self.0.engines.read().expect(UNHURT);
        engines.get(cluster).cloned()
    }

    /// Where any master may have a cluster, its loop begins only once it was taken.
    fn get_or_start(&self, cluster: &ClusterName) -> Option<Engine> {
        let found = self.get(cluster);
        if found.is_some() || self.0.parts.fleet.is_some() {
            return found;
        }
        let hold = self.0.parts.hold.clone();
        Some(self.start_loaded(cluster.clone(), Loaded::default(), hold, false))
    }

    /// Starts the loop of a cluster with what is on record of it, unless somebody else has meanwhile.
    fn start_loaded(
        &self,
        name: ClusterName,
        loaded: Loaded,
        hold: Arc<Hold>,
        is_taken_over: bool,
    ) -> Engine {
        let mut engines = self.0.engines.write().expect(UNHURT);
        let start = || {
            let mut world = self.world_of(loaded);
            if is_taken_over {
                world.doubt_calls();
            }
            self.start_one(name.clone(), world, hold)
        };
        let entry = engines.entry(name.clone());
        entry.or_insert_with(start).clone()
    }

    fn all(&self) -> Vec<(ClusterName, Engine)> {
        let engines = self.0.engines.read().expect(UNHURT);
        let all = engines.iter();
        all.map(|(name, engine)| (name.clone(), engine.clone()))
            .collect()
    }

    fn world_of(&self, loaded: Loaded) -> World {
        let shared = &*self.0;
        world_of(loaded, &shared.parts, shared.seeds.draw(), now_ms())
    }

    /// Starts the loop of a cluster. Its world has that one and no other, whatever comes.
    fn start_one(&self, name: ClusterName, world: World, hold: Arc<Hold>) -> Engine {
        let parts = &self.0.parts;
        let stop = parts.stop.child_token();
        let (engine, queue) = Engine::new(world, hold, self.0.events.clone(), stop);
        let owner = Loop::new(engine.clone(), parts.clone());
        if parts.fleet.is_some() {
            parts
                .tasks
                .spawn(self.clone().end_when_lost(name.clone(), engine.clone()));
        }
        let engines = self.clone();
        let of = engine.clone();
        let work = async move {
            let left = owner.run(queue).await;
            debug_assert!(of.read(|world| world.is_only(&name)), "{name} alone");
            match left {
                Some(queue) => engines.end(&name, &of, queue).await,
                None if !engines.is_stopping() => engines.leave(&name, &of).await,
                None => {}
            }
        };
        parts.tasks.spawn(vital("the loop of a cluster", work));
        engine
    }

    /// Forgets a loop that has ended, and leads to the next one what is still in its queue.
    async fn end(
        &self,
        name: &ClusterName,
        engine: &Engine,
        mut queue: mpsc::Receiver<QueuedInput>,
    ) {
        // First of all: whoever finds the queue closed looks for another loop.
        self.forget(name, engine);
        if let Some(fleet) = &self.0.parts.fleet {
            fleet.give_back(&engine.hold, true).await;
        }
        queue.close();
        while let Some(message) = queue.recv().await {
            // Somebody waits for it: as when it had come a moment later.
            if message.reply.is_some()
                && let Err(error) = self.take(name).await
            {
                tracing::warn!(cluster = %name, error = %Chain(&error), "cannot take the cluster again");
            }
            self.send(message).await;
        }
    }
}

/// Of the lock: nobody who has it runs what may panic.
const UNHURT: &str = "nobody panics with it";

fn world_of(loaded: Loaded, parts: &Parts, seed: [u8; 32], now: UnixMs) -> World {
    let Loaded {
        clusters,
        jobs,
        runs,
    } = loaded;
    World::new(clusters, jobs, runs, parts.join_key.clone(), seed, now)
}
