//! What a master begins with, divided by cluster.

use std::collections::BTreeMap;

use aot_proto::ids::ClusterName;
use aot_store::Loaded;

/// What the last master left on record.
#[derive(Default)]
pub(crate) struct Inherited {
    /// All of it.
    pub loaded: Loaded,
    /// That master may still be there: calls that it made may still be on their way.
    pub is_taken_over: bool,
}

/// What is on record, by the cluster that it is of; of some there may be jobs alone.
pub(super) fn by_cluster(loaded: Loaded) -> BTreeMap<ClusterName, Loaded> {
    let mut all: BTreeMap<ClusterName, Loaded> = BTreeMap::new();
    for cluster in loaded.clusters {
        let of = all.entry(cluster.spec.name.clone()).or_default();
        of.clusters.push(cluster);
    }
    for job in loaded.jobs {
        all.entry(job.cluster.clone()).or_default().jobs.push(job);
    }
    for run in loaded.runs {
        let of = all.entry(run.at.cluster.clone()).or_default();
        of.runs.push(run);
    }
    all
}
