//! Where clusters are, for what comes in: machines' connections and operators' calls are led to the master that has theirs. A
//! master that is alone has all of them.
//!
//! Used by `server` before anything is answered. It knows what was read last, and waits only where nobody has a cluster.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use aot_proto::ids::ClusterName;
use aot_proto::limits::MAX_MASTERS;
use aot_proto::route::Route;
use aot_store::Hold;
use aot_store::fleet::{Fleet, FleetMaster, FleetView, Whereabouts};
use tokio::time::Instant;

/// Between two looks while nobody has a cluster.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Of the lock: nobody who has it runs what may panic.
const UNHURT: &str = "nobody panics with it";

/// After so long without a beat that was taken a master is passed over.
const CUT_OFF: Duration = Duration::from_secs(30);

/// Where clusters are. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClusterFinder {
    /// `None` where no other master can have one.
    fleet: Option<Arc<dyn Fleet>>,
    /// Whether a cluster is here, which is known before, and after, it is read.
    is_here: Arc<OnceLock<IsHere>>,
    /// Clusters that other masters say they have taken from this one, with their epochs: known while the store can't be read.
    taken: Arc<Mutex<BTreeMap<ClusterName, (String, i64)>>>,
}

/// Says whether a cluster is here.
type IsHere = Box<dyn Fn(&ClusterName) -> bool + Send + Sync>;

impl ClusterFinder {
    /// Of a master among others, or of one alone.
    pub(crate) fn new(fleet: Option<Arc<dyn Fleet>>) -> Self {
        Self {
            fleet,
            is_here: Arc::default(),
            taken: Arc::default(),
        }
    }

    /// From now on this says which clusters are here, whatever was read.
    pub(crate) fn ask_here(&self, is_here: impl Fn(&ClusterName) -> bool + Send + Sync + 'static) {
        let _ = self.is_here.set(Box::new(is_here)); // there is one master in a process
    }

    fn view(&self) -> Option<Arc<FleetView>> {
        let fleet = self.fleet.as_ref()?;
        let view = fleet.view().borrow().clone();
        Some(view)
    }

    /// Whether this master has no others, and never will.
    pub(crate) fn is_alone(&self) -> bool {
        self.fleet.is_none()
    }

    /// The id of this master; `None` for one alone, which needs none.
    pub(crate) fn me(&self) -> Option<String> {
        Some(self.view()?.me.clone())
    }

    /// All that is known, of a master among others.
    pub(crate) fn known(&self) -> Option<Arc<FleetView>> {
        self.view()
    }

    /// Whether this master has a cluster; asks once more before it says that it has not.
    pub(crate) async fn is_here(&self, cluster: &ClusterName) -> bool {
        if let (Some(fleet), false) = (&self.fleet, self.whereabouts(cluster) == Whereabouts::Here)
        {
            let _ = fleet.refresh().await; // what is known will have to do
        }
        self.whereabouts(cluster) == Whereabouts::Here
    }

    /// The masters that live besides this one.
    pub(crate) fn others(&self) -> Vec<FleetMaster> {
        let others = |view: Arc<FleetView>| view.others().cloned().collect();
        self.view().map_or_else(Vec::new, others)
    }

    /// Says that a cluster is to be this master's; `false` where it can't be.
    ///
    /// # Errors
    /// When the store can't be reached.
    pub(crate) async fn prefer(
        &self,
        cluster: &ClusterName,
        master: &str,
    ) -> Result<bool, aot_store::Error> {
        match &self.fleet {
            Some(fleet) => fleet.prefer(cluster, master).await,
            None => Ok(false),
        }
    }

    /// Says that a master gives its clusters away, or takes its share again; `false` where there is no such master.
    ///
    /// # Errors
    /// When the store can't be reached.
    pub(crate) async fn drain(
        &self,
        master: &str,
        is_draining: bool,
    ) -> Result<bool, aot_store::Error> {
        match &self.fleet {
            Some(fleet) => fleet.drain(master, is_draining).await,
            None => Ok(false),
        }
    }

    /// Whether this master gives its clusters away.
    pub(crate) fn is_draining(&self) -> bool {
        self.view().is_some_and(|view| view.is_draining())
    }

    /// Whether this master has had no say for so long that others may have its clusters.
    pub(crate) fn is_cut_off(&self) -> bool {
        let standing = self.fleet.as_ref().map(|fleet| fleet.standing());
        let is_out = |hold: &Hold| hold.is_lost() || hold.unusable_for() > Some(CUT_OFF);
        standing.is_some_and(|hold| is_out(hold))
    }

    /// All clusters of all masters, in the order of their names; `None` for a master alone, which has them itself.
    pub(crate) fn clusters(&self) -> Option<Vec<ClusterName>> {
        Some(self.view()?.owners.keys().cloned().collect())
    }

    /// The cluster of a route, as far as is known now.
    pub(crate) fn known_route(&self, route: &Route) -> Option<ClusterName> {
        self.view()?.routes.get(route).cloned()
    }

    /// Whether it is known that no master has a cluster of this name, nor ever had.
    pub(crate) fn is_none(&self, cluster: &ClusterName) -> bool {
        let view = self.view();
        view.is_some_and(|view| !view.masters.is_empty() && !view.owners.contains_key(cluster))
    }

    /// Where machines find the masters: what this one advertises, then what the others do; each once, and no more than machines
    /// take.
    pub(crate) fn addresses(&self, own: &[String]) -> Vec<String> {
        let others = self.others();
        let others = others.iter().flat_map(|master| &master.says.agents);
        let mut all: Vec<String> = Vec::new();
        for address in own.iter().chain(others) {
            if all.len() < MAX_MASTERS && !all.contains(address) {
                all.push(address.clone());
            }
        }
        all
    }

    /// The cluster of a route, where there is one; asks once more before it says that there is none.
    pub(crate) async fn cluster_of_route(&self, route: &Route) -> Option<ClusterName> {
        let fleet = self.fleet.as_ref()?;
        match self.known_route(route) {
            None => {
                let _ = fleet.refresh().await; // what is known will have to do
                self.known_route(route)
            }
            found => found,
        }
    }

    /// Where a cluster is, as far as is known now.
    pub(crate) fn whereabouts(&self, cluster: &ClusterName) -> Whereabouts {
        let Some(view) = self.view() else {
            return Whereabouts::Here;
        };
        let is_here = self.is_here.get().map(|is_here| is_here(cluster));
        if is_here != Some(true)
            && let Some(taker) = self.taker(&view, cluster)
        {
            return Whereabouts::Elsewhere(taker);
        }
        match (is_here, view.whereabouts(cluster)) {
            (Some(true), _) => Whereabouts::Here,
            // About to come, or gone a moment ago.
            (Some(false), Whereabouts::Here) => Whereabouts::Nowhere,
            (_, read) => read,
        }
    }

    /// The master that says it has taken a cluster, where that is later than what was read.
    fn taker(&self, view: &FleetView, cluster: &ClusterName) -> Option<FleetMaster> {
        let taken = self.taken.lock().expect(UNHURT);
        let (master, epoch) = taken.get(cluster)?;
        let read = view.owners.get(cluster).map(|owner| owner.epoch);
        let is_later = read.is_none_or(|read| read < *epoch);
        view.masters.get(master).filter(|_| is_later).cloned()
    }

    /// Another master says that it has taken a cluster from this one.
    pub(crate) fn note_taken(&self, cluster: &ClusterName, master: &str, epoch: i64) {
        let mut taken = self.taken.lock().expect(UNHURT);
        taken.insert(cluster.clone(), (master.to_owned(), epoch));
        // What was read since then knows better.
        let view = self.view();
        taken.retain(|cluster, (_, epoch)| {
            let owner = view.as_ref().and_then(|view| view.owners.get(cluster));
            owner.is_some_and(|owner| owner.epoch < *epoch)
        });
    }

    /// Where a cluster is; while nobody has it, or its master does not live, that is waited for. What is there in the end, if that takes
    /// too long.
    pub(crate) async fn find(&self, cluster: &ClusterName, within: Duration) -> Whereabouts {
        let Some(fleet) = &self.fleet else {
            return Whereabouts::Here;
        };
        let until = Instant::now() + within;
        let mut has_looked = false;
        loop {
            let found = self.whereabouts(cluster);
            match &found {
                Whereabouts::Here => return found,
                Whereabouts::Elsewhere(master) if master.is_alive => return found,
                Whereabouts::Unknown if has_looked => return found,
                _ if has_looked && Instant::now() >= until => return found,
                _ => {}
            }
            if has_looked {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let _ = fleet.refresh().await; // what is known will have to do
            has_looked = true;
        }
    }
}

#[cfg(test)]
mod tests;
