//! What a master remembers of the others from look to look: who was silent, and for how long. Does no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use aot_store::fleet::{Announcement, ClusterOwner, FleetMaster, FleetView};
use tokio::time::Instant;
use tokio_postgres::Row;

use crate::silence::Silence;
use crate::take::{self, Timing};

/// What is held by whoever sees to what belongs to no cluster. No cluster's name begins like this.
pub(crate) const JANITOR: &str = "~janitor";

/// What a look finds.
pub(crate) struct FleetRows {
    pub(crate) masters: Vec<Row>,
    pub(crate) owners: Vec<Row>,
}

/// What is kept from look to look.
pub(crate) struct SeenFleet {
    timing: Timing,
    /// Of each other master.
    silences: BTreeMap<String, Silence>,
    /// Masters whose port refuses connections.
    refusing: BTreeSet<String>,
    /// Of holds whose owner has started anew since it took them, and has not taken them back.
    ended_starts: BTreeMap<String, Silence>,
    /// The number of the last look that worked.
    pub(crate) look: u64,
}

impl SeenFleet {
    /// Nothing yet.
    pub(crate) fn new(timing: Timing) -> Self {
        Self {
            timing,
            silences: BTreeMap::new(),
            refusing: BTreeSet::new(),
            ended_starts: BTreeMap::new(),
            look: 0,
        }
    }

    /// A look did not work: what is known is no longer of now.
    pub(crate) fn interrupt(&mut self) {
        self.silences.values_mut().for_each(Silence::interrupt);
        self.ended_starts.clear();
        self.refusing.clear();
    }

    /// Nobody listens where this master did, until it beats again.
    pub(crate) fn note_refusing(&mut self, master: &str) {
        self.refusing.insert(master.to_owned());
    }

    /// After so much silence a master is dead.
    fn dead_after(&self, master: &str) -> Duration {
        match self.refusing.contains(master) {
            true => self.timing.refused,
            false => self.timing.dead,
        }
    }

    /// What a look means, for the master of this id.
    pub(crate) fn view_of(&mut self, rows: &FleetRows, me: &str, now: Instant) -> FleetView {
        let mut view = FleetView {
            me: me.to_owned(),
            ..FleetView::default()
        };
        let mut starts: BTreeMap<String, i64> = BTreeMap::new();
        for row in &rows.masters {
            let master = self.master(row, me, now);
            starts.insert(master.id.clone(), row.get(1));
            view.masters.insert(master.id.clone(), master);
        }
        self.silences.retain(|id, _| view.masters.contains_key(id));
        for row in &rows.owners {
            let owner = owner(row, &starts, me);
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

    fn master(&mut self, row: &Row, me: &str, now: Instant) -> FleetMaster {
        let id: String = row.get(0);
        let is_me = id == me;
        let silence = self.silences.entry(id.clone()).or_default();
        let beat = (row.get(1), row.get(2));
        if !silence.is_of(beat) {
            self.refusing.remove(&id);
        }
        let silent_for = silence.read(beat, now, self.timing.beat);
        let is_alive = is_me || silent_for < self.dead_after(&id);
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
            is_alive,
        }
    }

    /// Whether the start that took a hold was silent for long, and still is.
    pub(crate) fn is_dead(&mut self, name: &str, seen: &take::Seen, now: Instant) -> bool {
        let Some(beat) = seen.beat else {
            return true; // its entry is gone
        };
        let silence = self.silences.get(&seen.owner);
        if let Some(silence) = silence.filter(|it| it.is_of(beat)) {
            return silence.counted() >= self.dead_after(&seen.owner);
        }
        if seen.is_of_newest_start() {
            return false; // it has beaten since it was looked at
        }
        // A later start that has not taken it back: of another boot, or that of a copied folder.
        let silence = self.ended_starts.entry(name.to_owned()).or_default();
        let begun = (beat.0, seen.epoch);
        silence.read(begun, now, self.timing.beat) >= self.timing.dead
    }
}

/// Whose it is; nobody's where the start that took it is over, unless that was one of this master.
fn owner(row: &Row, starts: &BTreeMap<String, i64>, me: &str) -> ClusterOwner {
    let master: String = row.get(1);
    let has_it = master == me || starts.get(&master) == Some(&row.get(4));
    // The host of this folder may have another name by now.
    let own = |id: String| match take::is_same_folder(&id, me) {
        true => me.to_owned(),
        false => id,
    };
    ClusterOwner {
        master: if has_it { master } else { String::new() },
        epoch: row.get(2),
        pinned: own(row.get(3)),
        preferred: row.get(5),
        placed: own(row.get(6)),
    }
}
