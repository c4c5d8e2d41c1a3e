//! Whose turn it is to take what is free. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use aot_proto::ids::ClusterName;
use aot_store::fleet::{ClusterOwner, FleetView};
use tokio::time::Instant;

/// By how much each master leaves the one before it the first try: two that try at once cost one a wasted read of all records.
const STEP: Duration = Duration::from_secs(1);

/// Turns that a master has for itself which is to have a cluster.
const WISHED: u32 = 5;

/// What stands for what belongs to no cluster.
const JANITOR: &str = "~janitor";

/// Whether a cluster is to be another master's, which can take it.
pub(super) fn is_wished_elsewhere(owner: &ClusterOwner, view: &FleetView) -> bool {
    let to = &*owner.preferred;
    !to.is_empty() && to != view.me && view.is_able(to)
}

/// Since when what is free is known to be.
#[derive(Debug, Default)]
pub(super) struct FreeSince {
    clusters: BTreeMap<ClusterName, Instant>,
    janitor: Option<Instant>,
}

/// Whether something is this master's to take now.
struct FreeTurn {
    /// Since when it is free, where it is.
    free_since: Option<Instant>,
    is_now: bool,
}

impl FreeSince {
    /// The clusters that are this master's to take now, out of all: each is looked at once.
    pub(super) fn wanted<'a>(
        &mut self,
        owners: impl Iterator<Item = (&'a ClusterName, &'a ClusterOwner)>,
        view: &FleetView,
        has: impl Fn(&ClusterName) -> bool,
        now: Instant,
    ) -> Vec<ClusterName> {
        // What is left of it has gone, or is this master's: should it be free again, its time begins anew.
        let mut before = std::mem::take(&mut self.clusters);
        let mut wanted = Vec::new();
        for (cluster, owner) in owners.filter(|(name, _)| !has(name)) {
            let turn = turn(cluster.as_str(), owner, view, before.remove(cluster), now);
            if let Some(since) = turn.free_since {
                self.clusters.insert(cluster.clone(), since);
            }
            if turn.is_now {
                wanted.push(cluster.clone());
            }
        }
        wanted
    }

    /// Whether what belongs to no cluster is.
    pub(super) fn is_janitor_wanted(&mut self, view: &FleetView, now: Instant) -> bool {
        let turn = turn(JANITOR, &view.janitor, view, self.janitor, now);
        self.janitor = turn.free_since;
        turn.is_now
    }
}

/// Whether something is free, and for so long that those before this master have had their turn.
fn turn(
    name: &str,
    owner: &ClusterOwner,
    view: &FleetView,
    known: Option<Instant>,
    now: Instant,
) -> FreeTurn {
    let not_free = |is_now| FreeTurn {
        free_since: None,
        is_now,
    };
    if !owner.pinned.is_empty() && owner.pinned != view.me {
        return not_free(false);
    }
    if owner.master == view.me || owner.pinned == view.me {
        return not_free(true); // from before, or only ever its own
    }
    if view.lives(&owner.master) {
        return not_free(false);
    }
    let since = known.unwrap_or(now);
    let turn = match &*owner.preferred {
        to if to == view.me => Some(0),
        to if view.is_able(to) => view.turn_for(name).map(|turn| turn + WISHED),
        _ => view.turn_for(name),
    };
    FreeTurn {
        free_since: Some(since),
        is_now: turn.is_some_and(|turn| now.duration_since(since) >= STEP * turn),
    }
}

#[cfg(test)]
mod tests {
    use aot_store::fleet::sample_view;

    use super::*;

    const OWNERS: &[(&str, &str)] = &[("one", ""), ("two", ""), ("three", ""), ("four", "")];

    fn wanted(free: &mut FreeSince, view: &FleetView, now: Instant) -> Vec<String> {
        let wanted = free.wanted(view.owners.iter(), view, |_| false, now);
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
        let has = free.wanted(view.owners.iter(), &view, |_| true, now);
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

    #[test]
    fn each_of_many_clusters_is_looked_at_once_a_round() {
        const MANY: usize = 10_000;
        let names: Vec<String> = (0..MANY).map(|number| format!("c{number}")).collect();
        let owners: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "")).collect();
        let view = sample_view("a", &owners);
        let (mut free, mut now) = (FreeSince::default(), Instant::now());
        // All of them are known as free from the first round on.
        for _ in 0..3 {
            let (mut read, asked) = (0, std::cell::Cell::new(0));
            let owners = view.owners.iter().inspect(|_| read += 1);
            let has = |_: &ClusterName| {
                asked.set(asked.get() + 1);
                false
            };
            let wanted = free.wanted(owners, &view, has, now);
            assert!(!wanted.is_empty() && free.clusters.len() == MANY);
            assert_eq!((read, asked.get()), (MANY, MANY));
            now += STEP;
        }
        let none = free.wanted(std::iter::empty(), &view, |_| false, now);
        assert!(none.is_empty() && free.clusters.is_empty(), "they are gone");
    }
}
