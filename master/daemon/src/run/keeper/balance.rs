//! Which cluster a master asks another for, so that masters that were restarted get their share back. Pure.
//!
//! Gentle: a move ends sessions and costs commands a second or two. One cluster at a time, and only once the masters have been the
//! same for a while. A cluster goes to the first in its order of masters and stays there, so it is moved once however many ask. What
//! an operator has put somewhere (`placed`) goes nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aot_proto::ids::ClusterName;
use aot_store::fleet::{ClusterOwner, FleetView};
use tokio::time::Instant;

/// For how long the masters that take clusters must have been the same.
const SAME: Duration = Duration::from_secs(5 * 60);

/// Between two clusters.
const PAUSE: Duration = Duration::from_secs(60);

/// A master with fewer clusters than another by this many asks that one.
const FEWER: usize = 2;

/// What is remembered from round to round.
#[derive(Debug)]
pub(super) struct Balance {
    /// The masters that take clusters, as last seen.
    able: BTreeSet<String>,
    /// Since when they have been the same, as far as this master has seen.
    since: Instant,
    asked: Option<Instant>,
    /// What was asked for and may not be moved.
    refused: BTreeSet<ClusterName>,
}

impl Balance {
    /// Of a master that starts.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            able: BTreeSet::new(),
            since: now,
            asked: None,
            refused: BTreeSet::new(),
        }
    }

    /// The cluster that this master is to ask for now, if any; it counts as asked for.
    pub(super) fn wanted(&mut self, view: &FleetView, now: Instant) -> Option<ClusterName> {
        let able = view.masters.keys().filter(|id| view.is_able(id));
        let able: BTreeSet<String> = able.cloned().collect();
        if self.able != able {
            (self.able, self.since) = (able, now);
            self.refused.clear();
        }
        let is_early = |since: Instant, pause| now.duration_since(since) < pause;
        if is_early(self.since, SAME) || self.asked.is_some_and(|asked| is_early(asked, PAUSE)) {
            return None;
        }
        let found = self.find(view)?;
        self.asked = Some(now);
        Some(found)
    }

    /// What was asked for may not be moved.
    pub(super) fn note_refused(&mut self, cluster: ClusterName) {
        self.refused.insert(cluster);
    }

    /// From the one that has most.
    fn find(&self, view: &FleetView) -> Option<ClusterName> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for owner in view.owners.values() {
            if is_under_way(owner, view) {
                return None;
            }
            *counts.entry(&owner.master).or_default() += 1;
        }
        let count = |id: &str| counts.get(id).copied().unwrap_or(0);
        let own = count(&view.me);
        let has_many = |owner: &ClusterOwner| {
            let is_other = owner.master != view.me && view.is_able(&owner.master);
            is_other && count(&owner.master) >= own + FEWER
        };
        let all = view.owners.iter();
        let may = all.filter(|(name, owner)| has_many(owner) && !self.refused.contains(*name));
        let may =
            may.filter(|(name, owner)| owner.pinned.is_empty() && is_to_be(name, owner, view));
        let (name, _) = may.max_by_key(|(_, owner)| count(&owner.master))?;
        Some(name.clone())
    }
}

/// Whether a cluster is about to change hands.
fn is_under_way(owner: &ClusterOwner, view: &FleetView) -> bool {
    let is_wished = !owner.preferred.is_empty() && owner.preferred != owner.master;
    let is_free = owner.pinned.is_empty() && !view.lives(&owner.master);
    is_free || is_wished && view.is_able(&owner.preferred)
}

/// Whether it is the master's that reads: where an operator has put it, else first in its order.
fn is_to_be(name: &ClusterName, owner: &ClusterOwner, view: &FleetView) -> bool {
    match &*owner.placed {
        "" => view.turn_for(name.as_str()) == Some(0),
        placed => placed == view.me,
    }
}

#[cfg(test)]
mod tests {
    use aot_store::fleet::sample_view;

    use super::*;

    /// Clusters that are all of `b`, of which some are first `a`'s.
    const ALL: [&str; 8] = ["c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8"];

    fn name(text: &str) -> ClusterName {
        text.parse().expect("a name")
    }

    fn all_of_b(me: &str) -> FleetView {
        sample_view(me, &ALL.map(|name| (name, "b")))
    }

    fn give(view: &mut FleetView, cluster: &ClusterName, master: &str) {
        let owner = view.owners.get_mut(cluster).expect("is there");
        master.clone_into(&mut owner.master);
    }

    /// What `a` asks for, once the masters have been the same for long enough.
    fn asked(view: &FleetView) -> Option<ClusterName> {
        let now = Instant::now();
        let mut balance = Balance::new(now);
        assert_eq!(balance.wanted(view, now), None, "it has just started");
        balance.wanted(view, now + SAME)
    }

    #[test]
    fn a_master_that_came_back_gets_its_share_one_by_one_and_then_all_is_quiet() {
        let (mut of_a, start) = (all_of_b("a"), Instant::now());
        let mut balances = [Balance::new(start), Balance::new(start)];
        let (mut now, mut moved) = (start, Vec::new());
        for _ in 0..10 * 60 * 2 {
            now += Duration::from_secs(1);
            let of_b = FleetView {
                me: "b".to_owned(),
                ..of_a.clone()
            };
            assert_eq!(balances[1].wanted(&of_b, now), None, "it has enough");
            if let Some(cluster) = balances[0].wanted(&of_a, now) {
                assert!(of_a.turn_for(cluster.as_str()) == Some(0));
                give(&mut of_a, &cluster, "a");
                moved.push((now - start, cluster));
            }
        }
        let of_a = of_a.owners.values().filter(|owner| owner.master == "a");
        let count = of_a.count();
        assert_eq!(count, moved.len(), "none was moved twice");
        assert!((1..=ALL.len() / 2).contains(&count), "{moved:?}");
        assert!(moved[0].0 >= SAME);
        let pauses = moved.windows(2).map(|two| two[1].0 - two[0].0);
        assert!(pauses.min().is_none_or(|least| least >= PAUSE), "{moved:?}");
    }

    #[test]
    fn nothing_is_asked_for_while_masters_come_and_go_or_a_cluster_moves() {
        let view = all_of_b("a");
        let first = asked(&view).expect("some are its own");
        let now = Instant::now();
        let mut balance = Balance::new(now);
        balance.wanted(&view, now);
        let mut without = view.clone();
        without.masters.get_mut("b").expect("is there").is_draining = true;
        let almost = now + SAME - Duration::from_secs(1);
        assert_eq!(balance.wanted(&without, almost), None);
        assert_eq!(balance.wanted(&view, almost), None);
        assert_eq!(
            balance.wanted(&view, now + SAME),
            None,
            "it came back just now"
        );
        assert_eq!(balance.wanted(&view, almost + SAME), Some(first));
        let mut moving = view.clone();
        let other = moving.owners.values_mut().next_back().expect("is there");
        other.preferred = "a".to_owned();
        assert_eq!(asked(&moving), None);
        let mut free = view.clone();
        give(&mut free, &name("c1"), "");
        assert_eq!(asked(&free), None, "that is to be taken first");
    }

    #[test]
    fn pinned_and_placed_clusters_stay_where_they_are() {
        let mut pinned = all_of_b("a");
        let owners = pinned.owners.values_mut();
        owners.for_each(|owner| owner.pinned = "b".to_owned());
        assert_eq!(asked(&pinned), None);
        let mut placed = all_of_b("a");
        for owner in placed.owners.values_mut() {
            owner.placed = "b".to_owned();
        }
        assert_eq!(asked(&placed), None);
        // By a master that has left for ever, too: an operator knows why.
        for owner in placed.owners.values_mut() {
            owner.placed = "z".to_owned();
        }
        assert_eq!(asked(&placed), None);
        // Whatever the order says, it comes back to where it was put.
        let mut back = placed.clone();
        let of_b = ALL.map(name);
        let mut of_b = of_b.into_iter();
        let second = of_b.find(|name| back.turn_for(name.as_str()) != Some(0));
        let second = second.expect("some are first b's");
        let owner = back.owners.get_mut(&second).expect("is there");
        owner.placed = "a".to_owned();
        assert_eq!(asked(&back), Some(second));
    }

    #[test]
    fn a_difference_of_one_is_none_and_what_is_refused_is_not_asked_for_again() {
        let mut even = all_of_b("a");
        for cluster in ALL.iter().take(4) {
            give(&mut even, &name(cluster), "a");
        }
        assert_eq!(asked(&even), None);
        let one = sample_view("a", &[("c1", "b")]);
        assert_eq!(asked(&one), None);
        let (view, now) = (all_of_b("a"), Instant::now());
        let mut balance = Balance::new(now);
        balance.wanted(&view, now);
        let first = balance.wanted(&view, now + SAME).expect("some are its own");
        balance.note_refused(first.clone());
        let next = balance.wanted(&view, now + SAME + PAUSE);
        assert_ne!(next, Some(first));
    }
}
