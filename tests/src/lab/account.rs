//! What is in the lab's account, asked of the API itself and not of aot: for tests that look for leaks.

use serde::Deserialize;

use super::Lab;

/// One instance that is not terminated.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Live {
    /// `i-...`.
    pub id: String,
    /// `pending`, `running`, ...
    pub state: String,
    /// Its pool's label, by its tag.
    pub pool: String,
    /// Its Cluster tag.
    pub cluster: String,
}

/// Everything that costs money or takes up a name, of one cluster or of all. Groups without the default ones.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// Instances that are neither terminated nor on the way there.
    pub instances: Vec<Live>,
    /// Volumes, by id.
    pub volumes: Vec<String>,
    /// Network interfaces, by id.
    pub interfaces: Vec<String>,
    /// Elastic IPs, by allocation id.
    pub addresses: Vec<String>,
    /// Security groups, by id.
    pub groups: Vec<String>,
    /// Placement groups, by name.
    pub placement_groups: Vec<String>,
}

impl Account {
    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Lab {
    /// What the API has of a cluster, by its tag; of all when the name is empty.
    #[track_caller]
    pub fn account(&self, cluster: &str) -> Account {
        let answer = self.ask(&serde_json::json!({"verb": "account", "cluster": cluster}));
        serde_json::from_value(answer).expect("has the shape of an Account")
    }
    /// The value of a Python expression in which `ec2` is boto3's client and `args` are the arguments: for what a test does
    /// in the account by hand, and sees there.
    #[track_caller]
    pub fn ec2(&self, expression: &str, args: &[&str]) -> serde_json::Value {
        let script = format!(
            "import boto3, json, sys\nec2, args = boto3.client('ec2'), sys.argv[1:]\n\
             print(json.dumps({expression}, default=str))"
        );
        self.python(&script, args)
    }
}
