//! Cluster facts: what every machine is told of every other.

use aot_proto::v1;
use serde_json::{Map, Value, json};

use super::cluster::{Cluster, Instance, NodeFacts};
use super::hash::sha256_hex;

/// One generation, without its number: made from the instances that have reported and are alive.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterFacts {
    /// `/etc/cluster_facts.json`, byte for byte.
    pub json: Vec<u8>,
    /// Of `json` and of the peers' keys: another one is another generation. Who is missing is no content: joining makes
    /// one new generation, not two.
    pub content_sha256: String,
    /// Of `json` alone.
    pub json_sha256: String,
    /// Wanted instances that are not in it.
    pub missing: Vec<String>,
    /// Who may log in where, and how to know them.
    pub peers: Vec<v1::Peer>,
}

/// Whether an instance belongs into the cluster facts.
pub fn counts(instance: &Instance) -> bool {
    instance.has_machine() && instance.facts.is_some()
}

/// The cluster facts as they are now.
pub fn of(cluster: &Cluster) -> ClusterFacts {
    let mut all = Map::new();
    let mut peers = Vec::new();
    for instance in cluster
        .instances
        .values()
        .filter(|instance| counts(instance))
    {
        let facts = instance.facts.as_ref().expect("counts says so");
        all.insert(instance.name.to_string(), entry(cluster, instance, facts));
        peers.push(peer(instance, facts));
    }
    let missing = cluster
        .wanted()
        .filter(|i| !counts(i))
        .map(|i| i.name.to_string())
        .collect();
    let mut json =
        serde_json::to_vec_pretty(&Value::Object(all)).expect("a JSON value can be written");
    json.push(b'\n');
    let json_sha256 = sha256_hex(&json);
    ClusterFacts {
        content_sha256: sha256_hex(format!("{json_sha256} {peers:?}").as_bytes()),
        json_sha256,
        json,
        missing,
        peers,
    }
}

fn entry(cluster: &Cluster, instance: &Instance, facts: &NodeFacts) -> Value {
    let machine = instance.machine.as_ref();
    let addresses = instance.addresses();
    json!({
        "name": instance.name.as_str(),
        "ip_address": addresses.private_ip,
        "hostname": instance.hostname,
        "subnet": machine.and_then(|m| m.subnet.clone()),
        "main_user": main_user(instance, facts),
        "owner": instance.owner,
        "public_ip": addresses.public_ip,
        "private_dns": addresses.private_dns,
        "public_dns": addresses.public_dns,
        "machine_id": instance.machine_id().map(ToString::to_string),
        "instance_type": machine.and_then(|m| m.instance_type.clone()),
        "availability_zone": machine.and_then(|m| m.availability_zone.clone()),
        "region": machine.and_then(|m| m.region.clone()).or_else(|| cluster.spec.region.clone()),
        "pool": instance.pool.as_ref().map(ToString::to_string),
        "ssh_host_keys": facts.ssh_host_keys,
        "node": lasting(&facts.node),
    })
}

/// An agent's own facts without those that change by themselves (a reboot, or a file written, makes no new generation),
/// and without the addresses that the provider attests: a new one would be told twice, a moment apart.
fn lasting(node: &Value) -> Value {
    let mut node = node.clone();
    if let Some(node) = node.as_object_mut() {
        node.remove("boot_id");
        node.remove("uptime_seconds");
        if let Some(cloud) = node.get_mut("cloud").and_then(Value::as_object_mut) {
            cloud.remove("public_ipv4");
            cloud.remove("public_hostname");
        }
    }
    for disk in node
        .get_mut("disks")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(disk) = disk.as_object_mut() {
            disk.remove("free");
        }
    }
    node
}

fn main_user(instance: &Instance, facts: &NodeFacts) -> Option<String> {
    instance
        .user
        .clone()
        .or_else(|| (!facts.main_user.is_empty()).then(|| facts.main_user.clone()))
}

fn peer(instance: &Instance, facts: &NodeFacts) -> v1::Peer {
    let known = instance.addresses();
    let addresses = [known.private_ip, known.public_ip];
    let keys = [&facts.root_public_key, &facts.user_public_key];
    v1::Peer {
        name: instance.name.to_string(),
        hostname: instance.hostname.clone(),
        addresses: addresses.into_iter().flatten().collect(),
        ssh_host_keys: facts.ssh_host_keys.clone(),
        public_keys: keys
            .into_iter()
            .filter(|key| !key.is_empty())
            .cloned()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_by_itself_is_no_content() {
        let at = |free: u64, boot: &str| {
            lasting(&json!({
                "boot_id": boot, "uptime_seconds": free, "cpus": 2,
                "cloud": {"instance_id": "i-1", "public_ipv4": boot, "public_hostname": boot},
                "disks": [{"mount": "/", "bytes": 10, "free": free}],
            }))
        };
        assert_eq!(at(1, "a"), at(2, "b"));
        assert_eq!(
            at(1, "a"),
            json!({
                "cpus": 2, "cloud": {"instance_id": "i-1"},
                "disks": [{"mount": "/", "bytes": 10}],
            })
        );
        assert_eq!(lasting(&Value::Null), Value::Null);
    }
}
