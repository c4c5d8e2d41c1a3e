//! Which agents are simulated: what the process that plays them is started with.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who is simulated, and what they know at first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AgentsPlan {
    /// Folder of their certificates.
    pub certificates: PathBuf,
    /// Their clusters.
    pub clusters: Vec<PlannedCluster>,
    /// Masters that they dial. Those that a welcome names come before them, as with real agents.
    pub addresses: Vec<String>,
    /// Generation of the cluster facts that they have.
    pub generation: u64,
    /// They put cluster facts together and keep them, as real ones do. It costs each the memory of the whole.
    pub keeps_facts: bool,
}

/// A cluster of simulated agents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlannedCluster {
    /// Its name.
    pub name: String,
    /// Their numbers.
    pub agents: Range<usize>,
}

impl AgentsPlan {
    /// How many they are.
    pub fn count(&self) -> usize {
        self.clusters.iter().map(|it| it.agents.len()).sum()
    }

    /// Cluster and number of the agent in this place.
    ///
    /// # Panics
    /// When there are fewer.
    pub(super) fn place(&self, at: usize) -> (&PlannedCluster, usize) {
        let mut before = 0;
        for cluster in &self.clusters {
            if at < before + cluster.agents.len() {
                return (cluster, cluster.agents.start + at - before);
            }
            before += cluster.agents.len();
        }
        panic!("there are only {before} agents");
    }
}
