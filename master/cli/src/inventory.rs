//! `inventory`: what Ansible asks an inventory script for, `--list` and `--host NAME` (docs.ansible.com, "Developing
//! dynamic inventory"). Only what has a machine is in it.

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::v1::{MachineState, Phase};
use serde_json::{Map, Value, json};

use super::Ctx;
use super::args::{InventoryArgs, MaybeTarget};
use super::error::{Error, Exit};
use super::hosts::{LiveHost, TargetHosts, find};
use super::status::ask;
use crate::view::harmless_json;

/// Group names that mean something else to Ansible.
const RESERVED: [&str; 3] = ["all", "ungrouped", "_meta"];

/// Signs that begin an expression of Ansible's templates (Jinja2), which are evaluated where Ansible runs.
const TEMPLATES: [&str; 3] = ["{{", "{%", "{#"];

/// The hosts of one cluster, and the members of the saved targets of its file.
struct ClusterHosts {
    hosts: Vec<LiveHost>,
    saved: BTreeMap<String, Vec<String>>,
}

/// `aot-master inventory`: of the cluster of `--cluster`, or of all.
///
/// # Errors
/// When there is no such host, or the master can't be asked.
pub(crate) async fn inventory(ctx: &mut Ctx<'_>, args: InventoryArgs) -> Result<Exit, Error> {
    let all = clusters(ctx, args.host.is_none()).await?;
    let value = match &args.host {
        Some(name) => {
            let mut hosts = hosts(&all);
            let host = hosts.find(|(host, _)| host == name);
            let vars = host.map(|(_, live)| host_vars(live));
            vars.ok_or_else(|| Error::NoMatch {
                target: format!("{name:?}"),
            })?
        }
        None => all_hosts(&all),
    };
    let text = if ctx.json {
        value.to_string()
    } else {
        harmless_json(&format!("{value:#}"))
    };
    ctx.print(&text)?;
    Ok(Exit::Well)
}

/// What there is, a cluster after the other. Ansible takes a refusal for an empty inventory, so several clusters are no
/// reason for one.
async fn clusters(ctx: &mut Ctx<'_>, with_groups: bool) -> Result<Vec<ClusterHosts>, Error> {
    let named = ctx.cluster.clone();
    let names = match &named {
        Some(name) => vec![name.clone()],
        None => {
            let reply = ask(ctx, &MaybeTarget::default(), false).await?;
            let with_hosts: BTreeSet<String> = reply
                .instances
                .into_iter()
                .map(|view| view.cluster)
                .collect();
            with_hosts.into_iter().collect()
        }
    };
    let mut all = Vec::new();
    for name in names {
        ctx.cluster = Some(name.clone());
        let mut found = find(ctx, &MaybeTarget::default()).await?;
        found.instances.retain(|live| live.view.cluster == name);
        let saved = match with_groups {
            true => saved_groups(ctx, &found).await?,
            false => BTreeMap::new(),
        };
        all.push(ClusterHosts {
            hosts: found.instances,
            saved,
        });
    }
    ctx.cluster = named;
    Ok(all)
}

/// Members of the saved targets of the cluster's file. One that can't be read now, or means nobody, is not a group.
async fn saved_groups(
    ctx: &mut Ctx<'_>,
    found: &TargetHosts,
) -> Result<BTreeMap<String, Vec<String>>, Error> {
    let mut groups = BTreeMap::new();
    for name in found.groups.keys() {
        let which = MaybeTarget {
            target: Some(format!("@{name}")),
            ..MaybeTarget::default()
        };
        match ask(ctx, &which, false).await {
            Ok(reply) => {
                let names = reply.instances.into_iter().map(|view| view.name);
                groups.insert(name.clone(), names.collect());
            }
            Err(error) if matches!(error.exit(), Exit::NoMatch | Exit::Usage) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(groups)
}

/// Every host under its name; one whose name is in several clusters under `NAME.CLUSTER`, as a name means one host there.
fn hosts(all: &[ClusterHosts]) -> impl Iterator<Item = (String, &LiveHost)> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for live in all.iter().flat_map(|cluster| &cluster.hosts) {
        *times.entry(&live.view.name).or_default() += 1;
    }
    let lives = all.iter().flat_map(|cluster| &cluster.hosts);
    lives.map(move |live| {
        let view = &live.view;
        let name = match times.get(view.name.as_str()) {
            Some(2..) => format!("{}.{}", view.name, view.cluster),
            _ => view.name.clone(),
        };
        (name, live)
    })
}

/// The answer to `--list`, host variables included, so that Ansible asks for no host by itself.
fn all_hosts(all: &[ClusterHosts]) -> Value {
    let named: Vec<(String, &LiveHost)> = hosts(all).collect();
    let several = all
        .iter()
        .filter(|cluster| !cluster.hosts.is_empty())
        .count()
        > 1;
    // Hosts keep the order of the master, in which web2 comes before web10.
    let mut groups: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let mut grouped = BTreeSet::new();
    let mut place = 0;
    for cluster in all {
        for live in &cluster.hosts {
            let name = &live.view.name;
            let pool = Some(&live.view.pool).filter(|pool| !pool.is_empty());
            let within = cluster
                .saved
                .iter()
                .filter(|(_, names)| names.contains(name));
            let own = Some(&live.view.cluster).filter(|_| several);
            let of = pool
                .into_iter()
                .chain(within.map(|(group, _)| group))
                .chain(own);
            for group in of {
                groups.entry(group_name(group)).or_default().insert(place);
                grouped.insert(place);
            }
            place += 1;
        }
    }
    let alone = (0..named.len()).filter(|place| !grouped.contains(place));
    groups.insert("ungrouped".to_owned(), alone.collect());
    let vars: Map<String, Value> = named
        .iter()
        .map(|(name, live)| (name.clone(), host_vars(live)))
        .collect();
    let mut inventory = Map::new();
    inventory.insert("_meta".to_owned(), json!({ "hostvars": vars }));
    let children: Vec<&String> = groups.keys().collect();
    inventory.insert("all".to_owned(), json!({ "children": children }));
    for (group, places) in &groups {
        let hosts: Vec<&str> = places.iter().map(|at| named[*at].0.as_str()).collect();
        inventory.insert(group.clone(), json!({ "hosts": hosts }));
    }
    Value::Object(inventory)
}

/// A name that Ansible takes for a group without a warning: that of a Python variable, and none of its own.
fn group_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let text: String = name.chars().map(plain).collect();
    match text.starts_with(|c: char| c.is_ascii_digit()) || RESERVED.contains(&text.as_str()) {
        true => format!("group_{text}"),
        false => text,
    }
}

/// `ansible_host`, `ansible_user`, and `aot_...`: the facts. `aot_node` and what `aot_claimed` lists come from the
/// machine alone.
fn host_vars(live: &LiveHost) -> Value {
    let mut vars = Map::new();
    let mut set = |name: &str, value: Value| {
        let empty = value.is_null() || value.as_str() == Some("");
        if let Some(value) = plain(value).filter(|_| !empty) {
            vars.insert(name.to_owned(), value);
        }
    };
    let view = &live.view;
    set("ansible_host", live.address().into());
    set("ansible_user", live.user().into());
    set("aot_instance", view.name.as_str().into());
    set("aot_cluster", view.cluster.as_str().into());
    set("aot_state", MachineState::name_of(view.state).into());
    set("aot_phase", Phase::name_of(view.phase).into());
    set("aot_pool", view.pool.as_str().into());
    set("aot_machine_id", view.machine_id.as_str().into());
    set("aot_private_ip", view.private_ip.as_str().into());
    set("aot_public_ip", view.public_ip.as_str().into());
    set("aot_private_dns", view.private_dns.as_str().into());
    set("aot_public_dns", view.public_dns.as_str().into());
    let properties: Value = serde_json::from_str(&view.properties_json).unwrap_or_default();
    for name in ["tags", "owner", "hostname", "image"] {
        set(&format!("aot_{name}"), properties[name].clone());
    }
    for name in [
        "instance_type",
        "availability_zone",
        "region",
        "subnet",
        "ssh_host_keys",
        "node",
        "claimed",
    ] {
        set(&format!("aot_{name}"), live.facts[name].clone());
    }
    Value::Object(vars)
}

/// The value without the parts that Ansible would evaluate: what a machine says must not run anything anywhere.
fn plain(value: Value) -> Option<Value> {
    let is_plain = |text: &str| !TEMPLATES.iter().any(|sign| text.contains(sign));
    match value {
        Value::String(text) => is_plain(&text).then_some(Value::String(text)),
        Value::Array(items) => Some(items.into_iter().filter_map(plain).collect()),
        Value::Object(map) => {
            // `__ansible_vault` and `__ansible_unsafe` are more than names to its reader of JSON.
            let kept = map
                .into_iter()
                .filter(|(name, _)| is_plain(name) && !name.starts_with("__ansible"))
                .filter_map(|(name, value)| Some((name, plain(value)?)));
            Some(Value::Object(kept.collect()))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aot_proto::v1::InstanceView;

    fn live(name: &str, pool: &str, facts: Value) -> LiveHost {
        LiveHost {
            view: InstanceView {
                cluster: "hadoop".into(),
                name: name.into(),
                pool: pool.into(),
                state: MachineState::Running.into(),
                phase: Phase::Ready.into(),
                machine_id: format!("i-{name}"),
                private_ip: "10.0.0.1".into(),
                properties_json: r#"{"tags":{"env":"prod"},"owner":null,"hostname":"h"}"#.into(),
                ..InstanceView::default()
            },
            facts,
        }
    }

    fn one(hosts: &[LiveHost], saved: BTreeMap<String, Vec<String>>) -> [ClusterHosts; 1] {
        let hosts = hosts.to_vec();
        [ClusterHosts { hosts, saved }]
    }

    #[test]
    fn hosts_of_several_clusters_are_told_apart() {
        let mut other = live("web1", "web", Value::Null);
        other.view.cluster = "shop".into();
        let [first] = one(
            &[live("web1", "web", Value::Null)],
            saved(&[("edge", &["web1"])]),
        );
        let [second] = one(&[other, live("lead", "", Value::Null)], saved(&[]));
        let inventory = all_hosts(&[first, second]);
        for (group, wanted) in [
            ("web", json!(["web1.hadoop", "web1.shop"])),
            ("hadoop", json!(["web1.hadoop", "lead"])),
            ("shop", json!(["web1.shop"])),
            ("edge", json!(["web1.hadoop"])),
        ] {
            assert_eq!(inventory[group]["hosts"], wanted, "{group}");
        }
        assert!(inventory["_meta"]["hostvars"].get("web1.shop").is_some());
    }

    fn saved(groups: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        let group = |(name, names): &(&str, &[&str])| {
            let names = names.iter().map(ToString::to_string).collect();
            ((*name).to_owned(), names)
        };
        groups.iter().map(group).collect()
    }

    #[test]
    fn a_whole_inventory() {
        let facts = json!({
            "main_user": "admin", "region": "us-west-2", "instance_type": "m5.large", "subnet": null,
            "node": {"os": {"name": "debian"}, "cpus": 2}, "claimed": ["node", "ssh_host_keys"],
        });
        let all = [
            live("manager", "", Value::Null),
            live("web2", "web-front", facts),
            live("web10", "web-front", Value::Null),
        ];
        let groups = saved(&[("edge", &["web10", "web2", "gone"]), ("none", &["gone"])]);
        insta::assert_snapshot!(format!("{:#}", all_hosts(&one(&all, groups))));
        assert_eq!(
            all_hosts(&one(&[], saved(&[]))),
            json!({"_meta": {"hostvars": {}}, "all": {"children": ["ungrouped"]}, "ungrouped": {"hosts": []}})
        );
    }

    #[test]
    fn group_names_are_what_ansible_wants() {
        for (name, wanted) in [
            ("web", "web"),
            ("web-front", "web_front"),
            ("2tier", "group_2tier"),
            ("all", "group_all"),
            ("ungrouped", "group_ungrouped"),
            ("-meta", "group__meta"),
            ("é.x", "__x"),
        ] {
            assert_eq!(group_name(name), wanted);
        }
    }

    #[test]
    fn a_pool_and_a_group_of_one_name_are_one_group() {
        let all = [
            live("web1", "web-a", Value::Null),
            live("db1", "db", Value::Null),
        ];
        let inventory = all_hosts(&one(&all, saved(&[("web_a", &["db1"])])));
        assert_eq!(inventory["web_a"], json!({"hosts": ["web1", "db1"]}));
        assert_eq!(inventory["ungrouped"], json!({"hosts": []}));
    }

    #[test]
    fn nothing_that_a_machine_says_is_evaluated() {
        let lie = "{{ lookup('pipe', 'id') }}";
        let facts = json!({
            "main_user": lie, "region": lie, "ssh_host_keys": [lie, "ssh-rsa AAAA"],
            "node": {"a": lie, "b": [{"c": "{% x %}"}], lie: 1, "__ansible_vault": "x", "ok": "{ }", "n": null},
        });
        let vars = host_vars(&live("web1", "", facts));
        let text = vars.to_string();
        assert!(
            !text.contains("{{ ") && !text.contains("{%") && !text.contains("__ansible"),
            "{text}"
        );
        assert_eq!(vars["aot_node"], json!({"b": [{}], "ok": "{ }", "n": null}));
        assert_eq!(vars["aot_ssh_host_keys"], json!(["ssh-rsa AAAA"]));
        assert_eq!(
            (vars.get("ansible_user"), vars.get("aot_region")),
            (None, None)
        );
        assert_eq!(vars["ansible_host"], "10.0.0.1");
    }
}
