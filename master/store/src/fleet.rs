//! Masters that share their records: who they are, and which of them has which cluster. A store that only one master can use
//! knows nothing of it.
//!
//! What is read here decides where a connection or a call is led, never whether a write counts: it may be some seconds old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aot_host::hash::sha256_hex;
use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use tokio::sync::watch;

use crate::{Error, Hold, Loaded, Pending};

/// What a master says of itself to the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// What agents dial, `host:port` each.
    pub agents: Vec<String>,
    /// What other masters dial, `host:port`.
    pub peer: String,
    /// What other masters dial to pass a machine's connection on: the agents' port of this very master, `host:port`.
    pub link: String,
    /// Version and commit.
    pub build: String,
}

/// One of the masters that share their records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetMaster {
    /// Host and state folder.
    pub id: String,
    /// What it says of itself.
    pub says: Announcement,
    /// It gives its clusters away, and takes no others.
    pub is_draining: bool,
    /// Since when it was not seen to beat, by the clock of whoever looks.
    pub silent_for: Duration,
    /// Whether that is so short that it lives.
    pub is_alive: bool,
}

impl Announcement {
    /// Where machines' connections are passed on to: the master's own port where that is known, else what machines dial.
    pub fn links(&self) -> impl Iterator<Item = &String> {
        let own = (!self.link.is_empty()).then_some(&self.link);
        let rest = own.is_none().then_some(&self.agents);
        own.into_iter().chain(rest.into_iter().flatten())
    }
}

/// Who has a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterOwner {
    /// The id of a master; empty while nobody has it.
    pub master: String,
    /// How often it has changed hands, among other things: a later one is larger.
    pub epoch: i64,
    /// The only master that may have it, since its machines are that one's host's; empty where any may.
    pub pinned: String,
    /// The master that is to have it next; empty where none is.
    pub preferred: String,
    /// The master that an operator has put it on, whoever has it now; empty where none has.
    pub placed: String,
}

/// All masters and clusters, as they were read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetView {
    /// The id of the master that reads.
    pub me: String,
    /// By their ids, this one too.
    pub masters: BTreeMap<String, FleetMaster>,
    /// Of each cluster that anything is on record of.
    pub owners: BTreeMap<ClusterName, ClusterOwner>,
    /// The clusters behind the routes.
    pub routes: BTreeMap<Route, ClusterName>,
    /// Who sees to what belongs to no cluster.
    pub janitor: ClusterOwner,
}

/// Where a cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// With the master that asks.
    Here,
    /// With this one.
    Elsewhere(FleetMaster),
    /// Its master is gone or gave it back, and the next has not taken it yet.
    Nowhere,
    /// There is no such cluster.
    Unknown,
}

impl FleetView {
    /// Where a cluster is.
    pub fn whereabouts(&self, cluster: &ClusterName) -> Whereabouts {
        let Some(owner) = self.owners.get(cluster) else {
            return Whereabouts::Unknown;
        };
        if owner.master == self.me {
            return Whereabouts::Here;
        }
        match self.masters.get(&owner.master) {
            Some(master) => Whereabouts::Elsewhere(master.clone()),
            None => Whereabouts::Nowhere,
        }
    }

    /// Whether a master has any cluster.
    pub fn has_clusters(&self, master: &str) -> bool {
        self.owners.values().any(|owner| owner.master == master)
    }

    /// Whether a master lives.
    pub fn lives(&self, master: &str) -> bool {
        let master = self.masters.get(master);
        master.is_some_and(|master| master.is_alive)
    }

    /// Whether the master that reads gives its clusters away.
    pub fn is_draining(&self) -> bool {
        let me = self.masters.get(&self.me);
        me.is_some_and(|me| me.is_draining)
    }

    /// Whether a master takes clusters.
    pub fn is_able(&self, master: &str) -> bool {
        let master = self.masters.get(master);
        master.is_some_and(|master| master.is_alive && !master.is_draining)
    }

    /// Whether another master takes clusters.
    pub fn has_able_others(&self) -> bool {
        self.others().any(|master| !master.is_draining)
    }

    /// When it is the turn of the master that reads to take what is free, counted from 0: each name has an order of the masters
    /// of its own, so that what a dead one had is divided (rendezvous hashing). `None` where it takes nothing.
    pub fn turn_for(&self, name: &str) -> Option<u32> {
        let rank = |id: &str| sha256_hex(format!("{name}\n{id}").as_bytes());
        let own = rank(&self.me);
        let able = self.masters.values();
        let able = able.filter(|master| master.is_alive && !master.is_draining);
        let mut ranks = able.map(|master| rank(&master.id)).filter(|it| *it <= own);
        let first = ranks.by_ref().count();
        first
            .checked_sub(1)
            .and_then(|turn| u32::try_from(turn).ok())
    }

    /// All that live, but for the one that reads.
    pub fn others(&self) -> impl Iterator<Item = &FleetMaster> {
        let all = self.masters.values();
        all.filter(|master| master.is_alive && master.id != self.me)
    }
}

/// A cluster that has become this master's.
#[derive(Debug)]
pub struct TakenCluster {
    /// What each write to it is made with. Lost by itself, the master has its other clusters still.
    pub hold: Arc<Hold>,
    /// What is on record of it.
    pub loaded: Loaded,
    /// It was another master's that fell silent and may live: calls to providers that it had begun may still be made.
    pub is_taken_over: bool,
    /// The id of that master; empty where it was given back, or was this one's.
    pub from: String,
}

/// What became of a wish for a cluster.
#[derive(Debug)]
pub enum Take {
    /// It is this master's.
    Taken(Box<TakenCluster>),
    /// It is, or has become, another's. The view says whose, once it is read again.
    Others,
}

/// The holds of several masters on the clusters of one store.
pub trait Fleet: Send + Sync {
    /// What is known of all of it; changes each time it is read anew.
    fn view(&self) -> watch::Receiver<Arc<FleetView>>;

    /// Reads it anew.
    ///
    /// # Errors
    /// When the store can't be read: what is known stays as it was.
    fn refresh(&self) -> Pending<'_, Result<(), Error>>;

    /// Says this to the other masters from now on.
    ///
    /// # Errors
    /// When the store can't be reached.
    fn announce(&self, says: Announcement) -> Pending<'_, Result<(), Error>>;

    /// Nobody listens any more where this master did. It counts as dead from now on if it has been silent for some beats, and until
    /// it beats again.
    fn presume_dead<'a>(&'a self, master: &'a str) -> Pending<'a, ()>;

    /// Takes a cluster that nobody has, whose master is dead, or of which nothing is on record yet.
    ///
    /// # Errors
    /// When the store can't be reached.
    fn take<'a>(&'a self, cluster: &'a ClusterName) -> Pending<'a, Result<Take, Error>>;

    /// Takes what belongs to no cluster, as `take` does; `None` where it is another's.
    ///
    /// # Errors
    /// When the store can't be reached.
    fn take_janitor(&self) -> Pending<'_, Result<Option<Arc<Hold>>, Error>>;

    /// What is on record of a cluster, whoever has it, as of one moment.
    ///
    /// # Errors
    /// When the store can't be read.
    fn peek<'a>(&'a self, cluster: &'a ClusterName) -> Pending<'a, Result<Loaded, Error>>;

    /// An operator says that from now on this master is to have a cluster: whoever has it gives it away. `false` where there is no such cluster, or it is
    /// another's for good.
    ///
    /// # Errors
    /// When the store can't be reached.
    fn prefer<'a>(
        &'a self,
        cluster: &'a ClusterName,
        master: &'a str,
    ) -> Pending<'a, Result<bool, Error>>;

    /// The master that asks is to have a cluster which another has, as that one gives it away. `false` where it may not be moved for
    /// that: an operator has put it elsewhere, or asked for it; its machines are clones; or another master has asked for it already.
    ///
    /// # Errors
    /// When the store can't be reached.
    fn ask_for<'a>(&'a self, cluster: &'a ClusterName) -> Pending<'a, Result<bool, Error>>;

    /// From now on a master gives its clusters away and takes no others, until its next start; or takes its share again. `false`
    /// where there is no such master.
    ///
    /// # Errors
    /// When the store can't be reached.
    fn drain<'a>(&'a self, master: &'a str, is_draining: bool) -> Pending<'a, Result<bool, Error>>;

    /// Good while no other master can have taken anything from this one; lost when this master has no say any more.
    fn standing(&self) -> &Arc<Hold>;

    /// Gives a cluster back that nothing more is written to, so that another takes it at once; forgets it where nothing of it is
    /// left on record.
    fn give_back<'a>(&'a self, hold: &'a Hold, is_empty: bool) -> Pending<'a, ()>;
}

/// A fleet for tests, whose view is what it is given: nothing is taken, and nothing lives or dies by itself.
#[cfg(any(test, feature = "samples"))]
#[derive(Debug)]
pub struct FixedFleet {
    view: watch::Sender<Arc<FleetView>>,
    standing: Arc<Hold>,
}

#[cfg(any(test, feature = "samples"))]
impl FixedFleet {
    /// With this view.
    pub fn new(view: FleetView) -> Self {
        Self {
            view: watch::Sender::new(Arc::new(view)),
            standing: Arc::new(Hold::kept("~beat")),
        }
    }

    /// From now on it is another one.
    pub fn change(&self, change: impl FnOnce(&mut FleetView)) {
        self.view.send_modify(|view| change(Arc::make_mut(view)));
    }
}

#[cfg(any(test, feature = "samples"))]
impl Fleet for FixedFleet {
    fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.view.subscribe()
    }

    fn refresh(&self) -> Pending<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }

    fn announce(&self, says: Announcement) -> Pending<'_, Result<(), Error>> {
        self.change(|view| {
            let me = view.me.clone();
            if let Some(master) = view.masters.get_mut(&me) {
                master.says = says;
            }
        });
        Box::pin(async { Ok(()) })
    }

    fn presume_dead<'a>(&'a self, master: &'a str) -> Pending<'a, ()> {
        self.change(|view| {
            if let Some(master) = view.masters.get_mut(master) {
                master.is_alive = false;
            }
        });
        Box::pin(async {})
    }

    fn take<'a>(&'a self, _: &'a ClusterName) -> Pending<'a, Result<Take, Error>> {
        Box::pin(async { Ok(Take::Others) })
    }

    fn take_janitor(&self) -> Pending<'_, Result<Option<Arc<Hold>>, Error>> {
        Box::pin(async { Ok(None) })
    }

    fn peek<'a>(&'a self, _: &'a ClusterName) -> Pending<'a, Result<Loaded, Error>> {
        Box::pin(async { Ok(Loaded::default()) })
    }

    fn prefer<'a>(
        &'a self,
        cluster: &'a ClusterName,
        master: &'a str,
    ) -> Pending<'a, Result<bool, Error>> {
        self.change(|view| {
            if let Some(owner) = view.owners.get_mut(cluster) {
                owner.preferred = master.to_owned();
                owner.placed = master.to_owned();
            }
        });
        Box::pin(async move { Ok(self.view.borrow().owners.contains_key(cluster)) })
    }

    fn ask_for<'a>(&'a self, _: &'a ClusterName) -> Pending<'a, Result<bool, Error>> {
        Box::pin(async { Ok(false) })
    }

    fn drain<'a>(&'a self, master: &'a str, is_draining: bool) -> Pending<'a, Result<bool, Error>> {
        self.change(|view| {
            if let Some(master) = view.masters.get_mut(master) {
                master.is_draining = is_draining;
            }
        });
        Box::pin(async move { Ok(self.view.borrow().masters.contains_key(master)) })
    }

    fn standing(&self) -> &Arc<Hold> {
        &self.standing
    }

    fn give_back<'a>(&'a self, _: &'a Hold, _: bool) -> Pending<'a, ()> {
        Box::pin(async {})
    }
}

/// For tests: masters `a` and `b`, which live, and these clusters with their masters.
#[cfg(any(test, feature = "samples"))]
pub fn sample_view(me: &str, owners: &[(&str, &str)]) -> FleetView {
    let master = |id: &str| FleetMaster {
        id: id.to_owned(),
        says: Announcement::default(),
        is_draining: false,
        silent_for: Duration::ZERO,
        is_alive: true,
    };
    let mut view = FleetView {
        me: me.to_owned(),
        ..FleetView::default()
    };
    for id in ["a", "b"] {
        view.masters.insert(id.to_owned(), master(id));
    }
    for (name, id) in owners {
        let name: ClusterName = name.parse().expect("a name of a cluster");
        let owner = ClusterOwner {
            master: (*id).to_owned(),
            epoch: 1,
            ..ClusterOwner::default()
        };
        view.routes.insert(Route::of(&name), name.clone());
        view.owners.insert(name, owner);
    }
    view
}
