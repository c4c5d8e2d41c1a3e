//! What a test does in the lab's account beside the product, and what it finds there: boto3, in a process of its own.

use std::path::Path;

use serde_json::Value;

use super::{Lab, VERB};
use crate::process::Running;

/// Everything that is there and carries the tag with a cluster's uuid, as `kind id`.
const LEFT: &str = r#"
import boto3, json, sys
ec2 = boto3.client("ec2")
def ours(things):
    return [t for t in things if {"Key": "aot:cluster-uuid", "Value": sys.argv[1]} in t.get("Tags", [])]
pages = ec2.get_paginator("describe_instances").paginate()
instances = [i for p in pages for r in p["Reservations"] for i in r["Instances"] if i["State"]["Name"] != "terminated"]
found = {"instance": ("InstanceId", instances),
         "volume": ("VolumeId", ec2.describe_volumes()["Volumes"]),
         "interface": ("NetworkInterfaceId", ec2.describe_network_interfaces()["NetworkInterfaces"]),
         "address": ("AllocationId", ec2.describe_addresses()["Addresses"]),
         "security-group": ("GroupId", ec2.describe_security_groups()["SecurityGroups"]),
         "placement-group": ("GroupName", ec2.describe_placement_groups()["PlacementGroups"])}
print(json.dumps([f"{kind} {thing[key]}" for kind, (key, things) in found.items() for thing in ours(things)]))
"#;

impl Lab {
    /// The JSON that a Python script prints; its arguments are in `sys.argv`.
    #[track_caller]
    pub fn python(&self, script: &str, args: &[&str]) -> Value {
        let mut command = self.inside(Path::new(self.info("python")));
        command.args(["-c", script]).args(args);
        let asked = Running::start(command).finish(VERB);
        serde_json::from_str(&asked.expect(0).text()).expect("the script prints JSON")
    }

    /// The value of a Python expression, in which `ec2` is boto3's client and `args` are the arguments.
    #[track_caller]
    pub fn ec2(&self, expression: &str, args: &[&str]) -> Value {
        let script = format!(
            "import boto3, json, sys\nec2, args = boto3.client('ec2'), sys.argv[1:]\n\
             print(json.dumps({expression}, default=str))"
        );
        self.python(&script, args)
    }

    /// What is there and carries the tag with this uuid, as `kind id`; terminated instances are not.
    #[track_caller]
    pub fn left(&self, uuid: &str) -> Vec<String> {
        serde_json::from_value(self.python(LEFT, &[uuid])).expect("a list of texts")
    }

    /// The uuid that a cluster's instances are tagged with.
    #[track_caller]
    pub fn uuid(&self, cluster: &str) -> String {
        let cloud = self.cloud(cluster);
        let first = cloud.instances.first().expect("the cluster has a machine");
        first.tags["aot:cluster-uuid"].clone()
    }
}
