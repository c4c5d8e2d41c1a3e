//! Sees to it that every cluster has a master: looks who lives and who has what, and takes what nobody has. What to take, and
//! when, is decided in `free`; `failed` has what could not be taken; `balance` says what others are asked for.

mod balance;
mod failed;
mod free;

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::ids::ClusterName;
use aot_store::fleet::{Fleet, FleetView};
use futures::StreamExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Engines;
use balance::Balance;
use failed::FailedTakes;
use free::{FreeSince, is_wished_elsewhere};

/// Between two looks. What is given back waits for one of them.
const LOOK: Duration = Duration::from_secs(1);

/// Clusters whose records are read side by side.
const AT_ONCE: usize = 4;

/// Longest wait for one of them. Its records are read on, within a limit of the store's; the other clusters do not wait for it.
const TAKE: Duration = Duration::from_secs(10);

/// Silence after which an owner is dialled.
const SUSPICIOUS: Duration = Duration::from_secs(3);

/// Longest wait for its host to refuse.
const DIAL: Duration = Duration::from_millis(500);

/// Takes clusters for one master.
pub(crate) struct ClusterKeeper {
    fleet: Arc<dyn Fleet>,
    engines: Engines,
    free: FreeSince,
    failed: FailedTakes,
    balance: Balance,
}

/// What came of one that was to be taken.
enum TriedTake {
    /// It is here, or another's.
    Over,
    /// It is to be tried again.
    Failed,
}

impl ClusterKeeper {
    /// For the master with these engines.
    pub(crate) fn new(fleet: Arc<dyn Fleet>, engines: Engines) -> Self {
        Self {
            fleet,
            engines,
            free: FreeSince::default(),
            failed: FailedTakes::default(),
            balance: Balance::new(Instant::now()),
        }
    }

    /// Looks and takes until the master stops.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
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
        let owners = view.owners.iter();
        let mut wanted = self.free.wanted(owners, &view, has, Instant::now());
        self.failed.retain(|name| view.owners.contains_key(name));
        wanted.retain(|name| self.failed.may_try(name, Instant::now()));
        self.take_all(wanted).await;
        let is_turn = self.free.is_janitor_wanted(&view, Instant::now());
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
        self.ask_for_share(&view).await;
    }

    /// Asks another master for a cluster, where this one has few.
    async fn ask_for_share(&mut self, view: &FleetView) {
        let Some(cluster) = self.balance.wanted(view, Instant::now()) else {
            return;
        };
        match self.fleet.ask_for(&cluster).await {
            Ok(true) => {
                let owner = view.owners.get(&cluster);
                let from = owner.map(|owner| &*owner.master).unwrap_or_default();
                tracing::info!(%cluster, from, "asked another master for a cluster: this one has fewer, and comes before it in the cluster's order");
            }
            Ok(false) => self.balance.note_refused(cluster),
            Err(error) => {
                tracing::debug!(%cluster, error = %Chain(&error), "cannot ask another master for a cluster");
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

    async fn take_all(&mut self, clusters: Vec<ClusterName>) {
        let this = &*self;
        let tried = futures::stream::iter(clusters)
            .map(|cluster| async move { (this.take(&cluster).await, cluster) })
            .buffer_unordered(AT_ONCE);
        let tried: Vec<_> = tried.collect().await;
        for (tried, cluster) in tried {
            match tried {
                TriedTake::Over => self.failed.forget(&cluster),
                TriedTake::Failed => {
                    let pause = self.failed.note(&cluster, Instant::now());
                    tracing::info!(%cluster, seconds = pause.as_secs(), "will try again to take the cluster");
                }
            }
        }
    }

    async fn take(&self, cluster: &ClusterName) -> TriedTake {
        match tokio::time::timeout(TAKE, self.engines.take(cluster)).await {
            Ok(Ok(_)) => TriedTake::Over,
            Ok(Err(error)) => {
                tracing::warn!(%cluster, error = %Chain(&error), "cannot take a cluster; will try again");
                TriedTake::Failed
            }
            Err(_) => {
                let seconds = TAKE.as_secs();
                tracing::warn!(%cluster, seconds, "the records of a cluster are long in being read; the others do not wait for them");
                TriedTake::Failed
            }
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
                let _ = self.take(cluster).await; // if not now, then in the next round
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
