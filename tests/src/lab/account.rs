//! What is in the lab's account, asked of the API itself and not of aot: for tests that look for leaks.

use serde::Deserialize;
use serde_json::Value;

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

const LOOK: &str = r#"
import boto3, json, sys
ec2, cluster = boto3.client("ec2"), sys.argv[1]
mine = [{"Name": "tag:Cluster", "Values": [cluster]}] if cluster else []
tags = lambda thing: {t["Key"]: t["Value"] for t in thing.get("Tags", [])}
pages = ec2.get_paginator("describe_instances").paginate(Filters=mine)
live = [i for p in pages for r in p["Reservations"] for i in r["Instances"]
        if i["State"]["Name"] not in ("terminated", "shutting-down")]
print(json.dumps({
    "instances": [{"id": i["InstanceId"], "state": i["State"]["Name"], "pool": tags(i).get("aot:pool", ""),
                   "cluster": tags(i).get("Cluster", "")} for i in live],
    "volumes": [v["VolumeId"] for v in ec2.describe_volumes(Filters=mine)["Volumes"]],
    "interfaces": [n["NetworkInterfaceId"] for n in ec2.describe_network_interfaces(Filters=mine)["NetworkInterfaces"]],
    "addresses": [a["AllocationId"] for a in ec2.describe_addresses(Filters=mine)["Addresses"]],
    "groups": [g["GroupId"] for g in ec2.describe_security_groups(Filters=mine)["SecurityGroups"] if g["GroupName"] != "default"],
    "placement_groups": [g["GroupName"] for g in ec2.describe_placement_groups(Filters=mine)["PlacementGroups"]]}))
"#;

impl Lab {
    /// What the API has of a cluster, by its tag; of all when the name is empty.
    #[track_caller]
    pub fn account(&self, cluster: &str) -> Account {
        serde_json::from_value(self.python(LOOK, &[cluster])).expect("has the shape of an Account")
    }
    /// The value of a Python expression in which `ec2` is boto3's client and `args` are the arguments: for what a test does
    /// in the account by hand, and sees there.
    #[track_caller]
    pub fn ec2(&self, expression: &str, args: &[&str]) -> Value {
        let script = format!(
            "import boto3, json, sys\nec2, args = boto3.client('ec2'), sys.argv[1:]\n\
             print(json.dumps({expression}, default=str))"
        );
        self.python(&script, args)
    }
}
