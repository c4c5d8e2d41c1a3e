//! Which instance of which cluster, and which cluster of those that had a name.

use aot_proto::ids::{ClusterName, InstanceName};
use serde::{Deserialize, Serialize};

/// An instance's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// By the name that it has alone while it is known here.
    pub cluster: ClusterName,
    /// By its name within the cluster.
    pub instance: InstanceName,
}

impl std::fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.cluster, self.instance)
    }
}

/// A cluster's uuid: in the tags of all that was made for it, and never used again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterUuid(String);

impl ClusterUuid {
    /// As it was drawn, or as a tag has it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As tags have it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ClusterUuid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One cluster, and none of the others that have had its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterId {
    /// The name that it has alone while it is known here.
    pub name: ClusterName,
    /// What distinguishes it from one that was cleaned up.
    pub uuid: ClusterUuid,
}
