//! What the names in a cluster's file stand for at its provider: found once, kept, and the same again on resume.
//! Made by `provider`, stored with the cluster, read when machines are asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything a launch call needs besides the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prerequisites {
    /// Image ids by [`Prerequisites::image_key`].
    pub images: BTreeMap<String, String>,
    /// By instance type.
    pub types: BTreeMap<String, ResolvedType>,
    /// By the file's text; the empty one is where machines go that name none.
    pub subnets: BTreeMap<String, ResolvedSubnet>,
    /// Security group ids by [`Prerequisites::group_key`].
    pub groups: BTreeMap<String, String>,
    /// What `$discovery_token` stands for.
    pub discovery_token: Option<String>,
    /// Groups of our own making, by id or name, and when they were made or last found (milliseconds since 1970): for a
    /// while the provider may not know them everywhere.
    pub made_ms: BTreeMap<String, u64>,
    /// What was made or changed just now, for a person. Not stored.
    #[serde(skip)]
    pub notices: Vec<String>,
}

/// What an instance type is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolvedType {
    /// As EC2 calls it: `x86_64` or `arm64`.
    pub arch: String,
    /// Instance store drives that a mapping can name (not the NVMe ones, which are always there).
    pub ephemeral_drives: u32,
}

/// A subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResolvedSubnet {
    /// Its id; empty leaves the choice within the default VPC to EC2.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Its availability zone; empty when EC2 chooses.
    pub zone: String,
}

impl Prerequisites {
    /// Forgets what may mean something else by now: a new launch resolves subnets, groups and types again. Images and the
    /// discovery token stay as they are for the cluster's life: one whose members differ by the day they were added is worse
    /// than one that is a month old. Naming another image, or cleaning up, gives a new one.
    pub(crate) fn forget_lookups(&mut self) {
        self.types.clear();
        self.subnets.clear();
        self.groups.clear();
    }

    /// Key of an image: as the file names it, on this architecture.
    pub fn image_key(text: &str, arch: &str) -> String {
        format!("{text} {arch}")
    }

    /// Key of a group: as the file names it, in this VPC.
    pub fn group_key(text: &str, vpc: &str) -> String {
        format!("{vpc} {text}")
    }
}
