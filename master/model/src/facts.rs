//! Cluster facts: what every machine learns about every other. `generation` has what was handed out, and what changed since.

mod generation;

use aot_proto::v1;
use serde_json::{Map, Value, json};

use super::cluster::Cluster;
use super::instance::{Instance, NodeFacts};
use super::spec::{FactsDetail, SshAccess};
pub(crate) use generation::Generation;

/// Whether an instance belongs into the cluster facts.
pub fn counts(instance: &Instance) -> bool {
    instance.has_machine() && instance.facts.is_some()
}

/// Digest of the cluster facts as they are now, hex: another one is a new generation.
pub fn digest(cluster: &Cluster) -> String {
    Generation::of(cluster, 0).digest()
}

/// Wanted instances that are not in the cluster facts.
fn missing(cluster: &Cluster) -> Vec<String> {
    let missing = cluster.wanted().filter(|instance| !counts(instance));
    missing.map(|instance| instance.name.to_string()).collect()
}

/// An instance's entry as the cluster's machines are to have it.
fn handed_out(cluster: &Cluster, instance: &Instance, facts: &NodeFacts) -> Value {
    let mut entry = attested(cluster, instance);
    entry.append(&mut claimed(instance, facts, lasting(facts.node.value())));
    if cluster.spec.cluster_facts == FactsDetail::Addresses {
        entry.remove("node");
    }
    Value::Object(entry)
}

/// What the provider shows and the file says of an instance: nothing that its machine claims is in it. All names are always there,
/// with `null` where there is no value, so that nothing else can stand in their place.
fn attested(cluster: &Cluster, instance: &Instance) -> Map<String, Value> {
    let machine = instance.machine.as_ref();
    let addresses = instance.addresses();
    let facts = json!({
        "name": instance.name.as_str(),
        "ip_address": addresses.private_ip,
        "hostname": instance.hostname,
        "subnet": machine.and_then(|m| m.subnet.clone()),
        "main_user": instance.user,
        "owner": instance.owner,
        "public_ip": addresses.public_ip,
        "private_dns": addresses.private_dns,
        "public_dns": addresses.public_dns,
        "machine_id": instance.machine_id().map(ToString::to_string),
        "instance_type": machine.and_then(|m| m.instance_type.clone()),
        "availability_zone": machine.and_then(|m| m.availability_zone.clone()),
        "region": machine.and_then(|m| m.region.clone()).or_else(|| cluster.spec.region.clone()),
        "pool": instance.pool.as_ref().map(ToString::to_string),
    });
    object(facts)
}

/// What only the machine says: its facts under `node`, its host keys, and the main user where the file names none.
fn claimed(instance: &Instance, facts: &NodeFacts, node: Value) -> Map<String, Value> {
    let mut claims = object(json!({
        "node": node,
        "ssh_host_keys": facts.ssh_host_keys,
    }));
    if instance.user.is_none() && !facts.main_user.is_empty() {
        claims.insert("main_user".to_owned(), facts.main_user.clone().into());
    }
    claims
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The facts that targets are compared with: in the first nothing comes from the machine, in the second all does. The
/// first has some that are not part of the cluster facts, since they change too often: `state`, `phase`, `tags`, and
/// `cluster` and `provider`.
pub fn for_targets(cluster: &Cluster, instance: &Instance) -> (Value, Value) {
    let mut first = attested(cluster, instance);
    first.append(&mut object(json!({
        "cluster": cluster.spec.name.as_str(),
        "provider": cluster.spec.provider.to_string(),
        "state": instance.state(),
        "phase": instance.phase.as_str(),
        "tags": instance.machine.as_ref().map(|m| &m.tags),
    })));
    let Some(facts) = &instance.facts else {
        return (Value::Object(first), Value::Null);
    };
    // A name that the file leaves open is the machine's to claim.
    let second = claimed(instance, facts, facts.node.value());
    if second.contains_key("main_user") {
        first.remove("main_user");
    }
    (Value::Object(first), Value::Object(second))
}

/// An instance's entry as operators see it: that of the cluster facts, and in `claimed` the names of those that only the
/// machine says. `None` while it has no part in the cluster facts.
pub fn shown(cluster: &Cluster, instance: &Instance) -> Option<Value> {
    let facts = instance.facts.as_ref().filter(|_| counts(instance))?;
    let mut claims = claimed(instance, facts, lasting(facts.node.value()));
    let names: Vec<String> = claims.keys().cloned().collect();
    let mut entry = attested(cluster, instance);
    entry.append(&mut claims);
    entry.insert("claimed".to_owned(), names.into());
    Some(Value::Object(entry))
}

/// An agent's own facts without those that change by themselves (a reboot, or a file written, makes no new generation),
/// and without the addresses that the provider attests: a new one would make two generations, a moment apart.
fn lasting(mut node: Value) -> Value {
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

/// Keys that nobody is to have are left out: what is not there can't be put in the wrong place.
fn peer(instance: &Instance, facts: &NodeFacts, ssh: SshAccess) -> v1::Peer {
    let known = instance.addresses();
    let addresses = [known.private_ip, known.public_ip];
    let (root, user) = (&facts.root_public_key, &facts.user_public_key);
    let some = |keys: &[&String]| -> Vec<String> {
        let keys = keys.iter().filter(|key| !key.is_empty());
        keys.map(|key| (*key).clone()).collect()
    };
    let (public_keys, user_keys) = match ssh {
        SshAccess::Root => (some(&[root, user]), Vec::new()),
        SshAccess::Users => (Vec::new(), some(&[user])),
        SshAccess::None => (Vec::new(), Vec::new()),
    };
    v1::Peer {
        name: instance.name.to_string(),
        hostname: instance.hostname.clone(),
        addresses: addresses.into_iter().flatten().collect(),
        ssh_host_keys: facts.ssh_host_keys.clone(),
        public_keys,
        main_user: instance.user.clone().unwrap_or_default(),
        user_keys,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::samples;
    use crate::selector::{self, Subject};

    /// What a machine has that is given all at once.
    fn content(cluster: &Cluster) -> aot_proto::facts::Content {
        let facts = Generation::of(cluster, 1).change(0);
        aot_proto::facts::Content::from_whole(facts).expect("fits")
    }

    fn file(cluster: &Cluster) -> Vec<u8> {
        content(cluster).json()
    }

    /// The cluster in which web1 claims to be all that it is not.
    fn with_a_liar() -> Cluster {
        let mut cluster = samples::cluster();
        let lies = json!({
            "name": "db1", "ip_address": "203.0.113.1", "hostname": "db1", "subnet": "lie", "owner": "lie",
            "public_ip": "203.0.113.1", "private_dns": "lie", "public_dns": "lie", "machine_id": "i-0lie",
            "instance_type": "lie", "availability_zone": "lie", "region": "lie", "pool": "db", "main_user": "lie",
            "state": "stopped", "phase": "failed", "tags": {"env": "lie"}, "cluster": "lie", "provider": "lie",
            "os": {"name": "debian"},
        });
        let web1 = cluster.instances.get_mut(&"web1".parse().expect("a name"));
        web1.expect("it is there").facts = Some(
            NodeFacts {
                node: lies.into(),
                main_user: "lie".to_owned(),
                ..samples::node_facts()
            }
            .into(),
        );
        cluster
    }

    #[test]
    fn a_claim_never_stands_for_an_attested_fact() {
        let cluster = with_a_liar();
        let web1 = &cluster.instances[&"web1".parse().expect("a name")];
        let (attested, claimed) = for_targets(&cluster, web1);
        let is = |text: &str| {
            let none = Default::default();
            let target = selector::parse(text, &none).expect(text);
            target.matches(&Subject {
                name: "web1",
                pool: Some("web"),
                state: "running",
                phase: "ready",
                tags: &Default::default(),
                attested: Some(&attested),
                claimed: Some(&claimed),
            })
        };
        let lies = web1.facts.as_ref().expect("it has").node.value();
        let lies = lies.as_object().expect("an object").keys();
        let lies = lies.filter(|key| *key != "os");
        for name in lies {
            for lie in [
                "lie",
                "i-0lie",
                "203.0.113.1",
                "db",
                "db1",
                "stopped",
                "failed",
            ] {
                assert!(!is(&format!("fact:{name}={lie}")), "{name}={lie}");
            }
            assert!(is(&format!("fact:node.{name}")), "{name}");
        }
        assert!(!is("fact:tags.env=lie") && is("fact:tags.env=prod"));
        assert!(is("fact:os.name=debian") && is("fact:ip_address=10.0.0.1"));
        assert!(!is("fact:subnet"), "unknown, whatever it claims");
    }

    #[test]
    fn what_only_a_machine_says_is_named() {
        let mut cluster = with_a_liar();
        let name = "web1".parse().expect("a name");
        let entry = shown(&cluster, &cluster.instances[&name]).expect("it has facts");
        assert_eq!(entry["claimed"], json!(["node", "ssh_host_keys"]));
        assert_eq!(
            (&entry["name"], &entry["main_user"]),
            (&json!("web1"), &json!("admin"))
        );
        cluster.instances.get_mut(&name).expect("it is there").user = None;
        let entry = shown(&cluster, &cluster.instances[&name]).expect("it has facts");
        assert_eq!(
            entry["claimed"],
            json!(["node", "ssh_host_keys", "main_user"])
        );
        assert_eq!(entry["main_user"], json!("lie"));
        let planned = &cluster.instances[&"web10".parse().expect("a name")];
        assert_eq!(shown(&cluster, planned), None);
        let all: Value = serde_json::from_slice(&file(&cluster)).expect("JSON");
        assert_eq!(all["web1"].get("claimed"), None, "for operators alone");
    }

    #[test]
    fn only_keys_that_somebody_is_to_have_are_told() {
        let mut cluster = samples::cluster();
        let name = "web1".parse().expect("a name");
        let facts = NodeFacts {
            root_public_key: "root's".to_owned(),
            user_public_key: "user's".to_owned(),
            ..samples::node_facts()
        };
        cluster.instances.get_mut(&name).expect("it is there").facts = Some(facts.into());
        let mut seen = Vec::new();
        for (ssh, public, user) in [
            (SshAccess::Root, &["root's", "user's"][..], &[][..]),
            (SshAccess::Users, &[], &["user's"]),
            (SshAccess::None, &[], &[]),
        ] {
            cluster.spec.ssh = ssh;
            let facts = content(&cluster);
            let web1 = facts.peers().find(|peer| peer.name == "web1");
            let web1 = web1.expect("it has facts");
            assert_eq!(web1.public_keys, public);
            assert_eq!(web1.user_keys, user);
            assert_eq!(facts.message().ssh, ssh.as_str());
            assert_eq!(web1.main_user, "admin");
            assert!(!seen.contains(&digest(&cluster)), "another generation");
            seen.push(digest(&cluster));
        }
    }

    #[test]
    fn with_addresses_alone_no_machine_is_told_what_another_has_found_of_itself() {
        let mut cluster = samples::cluster();
        let full = digest(&cluster);
        let parsed =
            |cluster: &Cluster| -> Value { serde_json::from_slice(&file(cluster)).expect("JSON") };
        assert!(parsed(&cluster)["web1"].get("node").is_some());
        cluster.spec.cluster_facts = FactsDetail::Addresses;
        assert_ne!(digest(&cluster), full, "another generation");
        let entry = &parsed(&cluster)["web1"];
        assert_eq!(entry.get("node"), None);
        assert_eq!(entry["ip_address"], "10.0.0.1");
        let name = "web1".parse().expect("a name");
        let web1 = &cluster.instances[&name];
        let shown = shown(&cluster, web1).expect("it has facts");
        assert!(shown.get("node").is_some(), "operators and targets have it");
        assert!(for_targets(&cluster, web1).1.get("node").is_some());
    }

    #[test]
    fn what_changes_by_itself_is_not_content() {
        let at = |free: u64, boot: &str| {
            lasting(json!({
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
        assert_eq!(lasting(Value::Null), Value::Null);
    }
}
