//! What the names in a cluster's file stand for at its provider: found once, kept, and the same again on resume.
//! Made by `provider`, stored with the cluster, read when machines are asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything a launch call needs besides the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ground {
    /// Image ids by [`Ground::image_key`].
    pub images: BTreeMap<String, String>,
    /// By instance type.
    pub types: BTreeMap<String, TypeGround>,
    /// By the file's text; the empty one is where machines go that name none.
    pub subnets: BTreeMap<String, SubnetGround>,
    /// Security group ids by [`Ground::group_key`].
    pub groups: BTreeMap<String, String>,
    /// What `$discovery_token` stands for.
    pub discovery_token: Option<String>,
    /// What was made or changed just now, for a person. Not kept.
    #[serde(skip)]
    pub news: Vec<String>,
}

/// What an instance type is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TypeGround {
    /// EC2's word: `x86_64` or `arm64`.
    pub arch: String,
    /// Instance store drives that a mapping can name (not the NVMe ones, which are always there).
    pub ephemeral_drives: u32,
}

/// A subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubnetGround {
    /// Its id; empty leaves the choice within the default VPC to EC2.
    pub id: String,
    /// Its VPC.
    pub vpc: String,
    /// Its availability zone; empty when EC2 chooses.
    pub zone: String,
}

impl Ground {
    /// Forgets what may mean something else by now: a new launch looks subnets, groups and types up again. Images and the
    /// discovery token stay as they are for the cluster's life.
    pub fn forget_lookups(&mut self) {
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
