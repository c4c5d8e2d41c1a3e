//! Where clusters are, for what comes in: machines' connections and operators' calls are led to the master that has theirs. A
//! master that is alone has all of them.
//!
//! Used by `server` before anything is answered. It knows what was read last, and waits only where nobody has a cluster.

use std::sync::Arc;
use std::time::Duration;

use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use aot_store::fleet::{Fleet, FleetView, Master, Whereabouts};
use tokio::time::Instant;

/// Between two looks while nobody has a cluster.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Where clusters are. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Finder {
    /// `None` where no other master can have one.
    fleet: Option<Arc<dyn Fleet>>,
}

impl Finder {
    /// Of a master among others, or of one alone.
    pub(crate) fn new(fleet: Option<Arc<dyn Fleet>>) -> Self {
        Self { fleet }
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
            fleet.look().await;
        }
        self.whereabouts(cluster) == Whereabouts::Here
    }

    /// The masters that live besides this one.
    pub(crate) fn others(&self) -> Vec<Master> {
        let others = |view: Arc<FleetView>| view.others().cloned().collect();
        self.view().map_or_else(Vec::new, others)
    }

    /// All clusters of all masters, in the order of their names; `None` for a master alone, which has them itself.
    pub(crate) fn clusters(&self) -> Option<Vec<ClusterName>> {
        Some(self.view()?.owners.keys().cloned().collect())
    }

    /// The cluster of a route, where there is one; asks once more before it says that there is none.
    pub(crate) async fn cluster_of_route(&self, route: &Route) -> Option<ClusterName> {
        let fleet = self.fleet.as_ref()?;
        let known = |view: Arc<FleetView>| view.routes.get(route).cloned();
        match self.view().and_then(known) {
            None => {
                fleet.look().await;
                self.view().and_then(known)
            }
            found => found,
        }
    }

    /// Where a cluster is, as far as is known now.
    pub(crate) fn whereabouts(&self, cluster: &ClusterName) -> Whereabouts {
        let view = self.view();
        view.map_or(Whereabouts::Here, |view| view.whereabouts(cluster))
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
            fleet.look().await;
            has_looked = true;
        }
    }
}

#[cfg(test)]
mod tests;
