//! Sees to it that every cluster has a master: looks who lives and who has what, and takes what nobody has. What to take, and
//! when, is decided in `wanted`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::ids::ClusterName;
use aot_store::fatal::Vital;
use aot_store::fleet::{ClusterOwner, Fleet, FleetView};
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Engines;

/// Between two looks. What is given back waits for one of them.
const LOOK: Duration = Duration::from_secs(1);

/// By how much each master leaves the one before it the first try: two that try at once cost one a wasted read of all records.
const STEP: Duration = Duration::from_secs(1);

/// Clusters whose records are read side by side.
const AT_ONCE: usize = 4;

/// Silence after which an owner is dialled.
const SUSPICIOUS: Duration = Duration::from_secs(3);

/// Longest wait for its host to refuse.
const DIAL: Duration = Duration::from_millis(500);

/// Turns that a master has for itself which is to have a cluster.
const WISHED: u32 = 5;

/// What stands for what belongs to no cluster.
const JANITOR: &str = "~janitor";

/// Takes clusters for one master.
pub(crate) struct ClusterKeeper {
    fleet: Arc<dyn Fleet>,
    engines: Engines,
    free: FreeSince,
}

impl ClusterKeeper {
    /// For the master with these engines.
    pub(crate) fn new(fleet: Arc<dyn Fleet>, engines: Engines) -> Self {
        Self {
            fleet,
            engines,
            free: FreeSince::default(),
        }
    }

    /// Looks and takes until the master stops.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let _vital = Vital::new("the keeper of clusters");
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = self.round() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks once, and takes what is this master's turn.
    pub(crate) async fn round(&mut self) {
        if self.fleet.refresh().await.is_err() {
            return; // it is said by the beat; nothing can be taken either
        }
        let mut view = self.fleet.view().borrow().clone();
        if self.ask_silent_ones(&view).await && self.fleet.refresh().await.is_ok() {
            view = self.fleet.view().borrow().clone();
        }
        if view.is_draining() && view.has_able_others() {
            self.give_all_away(&view).await;
            return;
        }
        self.give_away_what_is_wished_elsewhere(&view);
        let has = |name: &ClusterName| self.engines.has(name);
        let wanted = self.free.wanted(&view, has, Instant::now());
        let this = &*self;
        futures::stream::iter(wanted)
            .for_each_concurrent(AT_ONCE, |cluster| async move { this.take(&cluster).await })
            .await;
        let is_turn = self
            .free
            .is_turn_for(JANITOR, &view.janitor, &view, Instant::now());
        if is_turn && !self.engines.is_janitor() {
            match self.fleet.take_janitor().await {
                Ok(hold) => hold
                    .into_iter()
                    .for_each(|hold| self.engines.set_janitor(hold)),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "cannot take what belongs to no cluster; will try again");
                }
            }
        }
    }

    /// Dials owners of clusters that were not heard of for some beats: one that refuses has ended. Whether there is any.
    async fn ask_silent_ones(&self, view: &FleetView) -> bool {
        let mut is_any = false;
        let silent = view
            .others()
            .filter(|master| master.silent_for >= SUSPICIOUS);
        for master in silent.filter(|master| view.has_clusters(&master.id)) {
            if refuses(&master.says.peer).await {
                self.fleet.presume_dead(&master.id).await;
                is_any = true;
            }
        }
        is_any
    }

    fn give_away_what_is_wished_elsewhere(&self, view: &FleetView) {
        let owners = view.owners.iter();
        let wished = owners.filter(|(_, owner)| is_wished_elsewhere(owner, view));
        for (cluster, _) in wished.filter(|(name, _)| self.engines.has(name)) {
            self.engines.give_away(cluster);
        }
    }

    async fn take(&self, cluster: &ClusterName) {
        if let Err(error) = self.engines.take(cluster).await {
            tracing::warn!(%cluster, error = %Chain(&error), "cannot take a cluster; will try again");
        }
    }

    /// A master that drains keeps what no other may have. What it could not give back it takes once more for that.
    async fn give_all_away(&self, view: &FleetView) {
        let movable = view
            .owners
            .iter()
            .filter(|(_, owner)| owner.pinned.is_empty());
        for (cluster, owner) in movable {
            if owner.master == view.me && !self.engines.has(cluster) {
                self.take(cluster).await;
            }
            self.engines.give_away(cluster);
        }
    }
}

/// Whether nobody listens at an address, by the word of its host.
async fn refuses(address: &str) -> bool {
    let dialled = tokio::time::timeout(DIAL, TcpStream::connect(address)).await;
    matches!(dialled, Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused)
}

/// Whether a cluster is to be another master's, which can take it.
fn is_wished_elsewhere(owner: &ClusterOwner, view: &FleetView) -> bool {
    let to = &*owner.preferred;
    !to.is_empty() && to != view.me && view.is_able(to)
}

/// Since when what is free is known to be.
#[derive(Debug, Default)]
struct FreeSince(BTreeMap<String, Instant>);

impl FreeSince {
    /// The clusters that are this master's to take now.
    fn wanted(
        &mut self,
        view: &FleetView,
        has: impl Fn(&ClusterName) -> bool,
        now: Instant,
    ) -> Vec<ClusterName> {
        let of_view = |name: &String| {
            name == JANITOR || view.owners.keys().any(|cluster| cluster.as_str() == name)
        };
        self.0.retain(|name, _| of_view(name));
        let mut wanted = Vec::new();
        for (cluster, owner) in view.owners.iter().filter(|(name, _)| !has(name)) {
            if self.is_turn_for(cluster.as_str(), owner, view, now) {
                wanted.push(cluster.clone());
            }
        }
        wanted
    }

    /// Whether something is free, and for so long that those before this master have had their turn.
    fn is_turn_for(
        &mut self,
        name: &str,
        owner: &ClusterOwner,
        view: &FleetView,
        now: Instant,
    ) -> bool {
        if !owner.pinned.is_empty() && owner.pinned != view.me {
            return false;
        }
        if owner.master == view.me || owner.pinned == view.me {
            return true; // from before, or only ever its own
        }
        if view.lives(&owner.master) {
            self.0.remove(name);
            return false;
        }
        let since = *self.0.entry(name.to_owned()).or_insert(now);
        let turn = match &*owner.preferred {
            to if to == view.me => Some(0),
            to if view.is_able(to) => view.turn_for(name).map(|turn| turn + WISHED),
            _ => view.turn_for(name),
        };
        turn.is_some_and(|turn| now.duration_since(since) >= STEP * turn)
    }
}

#[cfg(test)]
mod tests {
    use aot_store::fleet::sample_view;

    use super::*;

    const OWNERS: &[(&str, &str)] = &[("one", ""), ("two", ""), ("three", ""), ("four", "")];

    fn wanted(free: &mut FreeSince, view: &FleetView, now: Instant) -> Vec<String> {
        let wanted = free.wanted(view, |_| false, now);
        wanted.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_free_is_divided_and_what_one_leaves_the_next_takes() {
        let now = Instant::now();
        let (of_a, of_b) = (sample_view("a", OWNERS), sample_view("b", OWNERS));
        let (mut a, mut b) = (FreeSince::default(), FreeSince::default());
        let (first, second) = (wanted(&mut a, &of_a, now), wanted(&mut b, &of_b, now));
        assert!(first.iter().all(|name| !second.contains(name)));
        assert_eq!(
            first.len() + second.len(),
            OWNERS.len(),
            "{first:?} {second:?}"
        );
        let later = now + STEP;
        assert_eq!(wanted(&mut a, &of_a, later).len(), OWNERS.len());
        // Taken by the other, and free again: the time begins anew.
        let taken = sample_view(
            "a",
            &[("one", "b"), ("two", "b"), ("three", "b"), ("four", "b")],
        );
        assert!(wanted(&mut a, &taken, later).is_empty());
        assert_eq!(wanted(&mut a, &of_a, later), first);
    }

    #[test]
    fn nothing_is_taken_from_one_that_lives_or_that_is_pinned_elsewhere() {
        let now = Instant::now();
        let mut view = sample_view("a", &[("web", "b"), ("own", "a"), ("clones", "")]);
        let clones = view
            .owners
            .values_mut()
            .find(|owner| owner.master.is_empty());
        clones.expect("it is there").pinned = "b".to_owned();
        let mut free = FreeSince::default();
        assert_eq!(wanted(&mut free, &view, now), ["own"], "from before");
        view.masters.get_mut("b").expect("it is there").is_alive = false;
        assert_eq!(wanted(&mut free, &view, now), ["own", "web"]);
        let has = free.wanted(&view, |_| true, now);
        assert!(has.is_empty(), "{has:?}");
    }

    #[test]
    fn a_cluster_goes_where_it_is_wished_and_to_others_only_when_that_one_fails() {
        let now = Instant::now();
        let wish = |me: &str| {
            let mut view = sample_view(me, &[("web", "")]);
            let web = view.owners.values_mut().next().expect("it is there");
            web.preferred = "b".to_owned();
            view
        };
        assert_eq!(wanted(&mut FreeSince::default(), &wish("b"), now), ["web"]);
        let (mut a, of_a) = (FreeSince::default(), wish("a"));
        assert!(is_wished_elsewhere(&of_a.owners[&name("web")], &of_a));
        assert!(wanted(&mut a, &of_a, now).is_empty());
        assert!(wanted(&mut a, &of_a, now + STEP * 2).is_empty());
        assert_eq!(wanted(&mut a, &of_a, now + STEP * (WISHED + 1)), ["web"]);
        let mut alone = of_a.clone();
        alone.masters.get_mut("b").expect("it is there").is_draining = true;
        assert!(!is_wished_elsewhere(&alone.owners[&name("web")], &alone));
        assert_eq!(wanted(&mut FreeSince::default(), &alone, now), ["web"]);
    }

    #[tokio::test]
    async fn only_a_port_that_nobody_has_refuses() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let port = port.expect("binds");
        let address = port.local_addr().expect("is bound").to_string();
        assert!(!refuses(&address).await);
        drop(port);
        assert!(refuses(&address).await);
        assert!(!refuses("").await, "it never said where");
    }

    fn name(text: &str) -> ClusterName {
        text.parse().expect("a name")
    }

    #[test]
    fn one_that_drains_is_passed_over() {
        let now = Instant::now();
        let mut view = sample_view("a", OWNERS);
        view.masters.get_mut("b").expect("it is there").is_draining = true;
        assert_eq!(
            wanted(&mut FreeSince::default(), &view, now).len(),
            OWNERS.len()
        );
    }
}
