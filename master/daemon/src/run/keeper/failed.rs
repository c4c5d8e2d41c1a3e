//! Clusters that could not be taken: each is tried again, and ever more seldom while it fails. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use aot_proto::ids::ClusterName;
use tokio::time::Instant;

/// The first pause, which is doubled with each further failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Those that failed, with the pause and when it is over.
#[derive(Debug, Default)]
pub(super) struct FailedTakes(BTreeMap<ClusterName, (Duration, Instant)>);

impl FailedTakes {
    /// Whether it may be tried now.
    pub(super) fn may_try(&self, cluster: &ClusterName, now: Instant) -> bool {
        let failed = self.0.get(cluster);
        failed.is_none_or(|(_, until)| now >= *until)
    }

    /// It failed, just now; how long it is left alone.
    pub(super) fn note(&mut self, cluster: &ClusterName, now: Instant) -> Duration {
        let before = self.0.get(cluster).map(|(pause, _)| *pause);
        let pause = before.map_or(PAUSES.0, |pause| (pause * 2).min(PAUSES.1));
        self.0.insert(cluster.clone(), (pause, now + pause));
        pause
    }

    /// It was taken, or is another's.
    pub(super) fn forget(&mut self, cluster: &ClusterName) {
        self.0.remove(cluster);
    }

    /// What is no longer there is forgotten.
    pub(super) fn retain(&mut self, is_there: impl Fn(&ClusterName) -> bool) {
        self.0.retain(|cluster, _| is_there(cluster));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_ever_more_seldom_and_never_given_up() {
        let (mut failed, mut now) = (FailedTakes::default(), Instant::now());
        let (web, db) = ("web", "db");
        let [web, db] = [web, db].map(|name| name.parse::<ClusterName>().expect("a name"));
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert!(failed.may_try(&web, now));
            let pause = failed.note(&web, now);
            assert!(!failed.may_try(&web, now) && failed.may_try(&db, now));
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        failed.retain(|name| *name == web);
        assert!(!failed.may_try(&web, now - Duration::from_secs(1)));
        failed.forget(&web);
        assert_eq!(failed.note(&web, now), PAUSES.0, "it begins anew");
        failed.retain(|name| *name == db);
        assert!(failed.may_try(&web, now));
    }
}
