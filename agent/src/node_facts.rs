//! What this machine is: one JSON object for the master, and its public ssh keys. Called by the service, off the
//! session's thread. Reads only, but for ssh keys that are made where there are none.

mod cloud;
mod machine;

use std::fs;
use std::path::PathBuf;

use aot_host::chain::Chain;
use aot_proto::limits::MAX_FACTS_BYTES;
use aot_proto::v1::FactsReport;
use serde_json::{Map, Value, json};

use crate::{VERSION, sshkeys, users};
pub(crate) use cloud::cloud;
use machine::{disks, fqdn, interfaces, memory, os, uptime};

/// Facts that change by themselves all the time: a report with other values of these alone is not sent.
const VOLATILE: [&str; 1] = ["uptime_seconds"];

/// Where facts are read from.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub etc_dir: PathBuf,
    pub root_home: PathBuf,
    pub boot_id: String,
    /// Main login user; empty = none.
    pub main_user: String,
}

/// The report, with `cloud` as its part of that name. Blocking.
pub(crate) fn collect(sources: &Sources, cloud: Option<Value>) -> FactsReport {
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut node = Map::new();
    let mut set = |key: &str, value: Value| {
        node.insert(key.to_owned(), value);
    };
    set("os", os(&sources.etc_dir));
    set("hostname", json!(hostname));
    set(
        "fqdn",
        json!(fqdn(
            &hostname,
            &fs::read_to_string(sources.etc_dir.join("hosts")).unwrap_or_default()
        )),
    );
    set(
        "cpus",
        json!(std::thread::available_parallelism().map_or(1, usize::from)),
    );
    set("memory_bytes", json!(memory()));
    set("disks", disks());
    set("interfaces", interfaces());
    set("boot_id", json!(sources.boot_id));
    set("uptime_seconds", json!(uptime()));
    set("agent_version", json!(VERSION));
    if let Some(cloud) = cloud {
        set("cloud", cloud);
    }
    let key = |result: Result<String, sshkeys::Error>| {
        result.unwrap_or_else(|error| {
            tracing::warn!(error = %Chain(&error), "an ssh key is missing");
            String::new()
        })
    };
    let ssh_host_keys = sshkeys::host_keys(&sources.etc_dir, &hostname).unwrap_or_else(|error| {
        tracing::warn!(error = %Chain(&error), "no ssh host keys");
        Vec::new()
    });
    let user = Some(&sources.main_user).filter(|name| !name.is_empty() && *name != "root");
    let user = user.and_then(|name| users::find(name, &sources.etc_dir));
    FactsReport {
        node_json: bounded(node),
        ssh_host_keys,
        root_public_key: key(sshkeys::user_key(
            &sources.root_home,
            &format!("root@{hostname}"),
            None,
        )),
        user_public_key: user.as_ref().map_or_else(String::new, |user| {
            key(sshkeys::user_key(
                &user.home,
                &format!("{}@{hostname}", user.name),
                Some(user),
            ))
        }),
        main_user: user.map_or_else(String::new, |user| user.name),
    }
}

/// Room for the keys that go with the JSON text: the master counts the report as a whole.
const KEYS_BYTES: usize = 32 << 10;

/// The JSON text; what is long is left out before it grows past the limit.
fn bounded(mut node: Map<String, Value>) -> String {
    for key in ["disks", "interfaces", "cloud"] {
        let text = Value::Object(node.clone()).to_string();
        if text.len() <= MAX_FACTS_BYTES - KEYS_BYTES {
            return text;
        }
        node.insert(key.to_owned(), Value::Null);
    }
    Value::Object(node).to_string()
}

/// Whether two reports differ, but for what always changes (uptime, free space).
pub(crate) fn differs(old: &FactsReport, new: &FactsReport) -> bool {
    let stable = |report: &FactsReport| {
        let mut node: Value = serde_json::from_str(&report.node_json).unwrap_or_default();
        if let Some(node) = node.as_object_mut() {
            node.retain(|key, _| !VOLATILE.contains(&key.as_str()));
        }
        for disk in node
            .get_mut("disks")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            disk.as_object_mut().map(|disk| disk.remove("free"));
        }
        (
            FactsReport {
                node_json: String::new(),
                ..report.clone()
            },
            node,
        )
    };
    stable(old) != stable(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_every_part() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("os-release"),
            "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\n",
        )
        .unwrap();
        let sources = Sources {
            etc_dir: dir.path().into(),
            root_home: dir.path().into(),
            boot_id: "b".into(),
            main_user: "nobody-here".into(),
        };
        let report = collect(&sources, Some(json!({"instance_id": "i-1"})));
        let node: Value = serde_json::from_str(&report.node_json).unwrap();
        assert_eq!(
            (&node["os"]["name"], &node["os"]["version"]),
            (&json!("debian"), &json!("12"))
        );
        assert_eq!(
            (&node["cloud"]["instance_id"], &node["boot_id"]),
            (&json!("i-1"), &json!("b"))
        );
        assert!(node["memory_bytes"].as_u64().unwrap() > 1 << 20);
        assert!(node["cpus"].as_u64().unwrap() >= 1);
        assert!(
            node["interfaces"]
                .as_array()
                .unwrap()
                .iter()
                .any(|i| i["name"] == "lo"),
            "{node}"
        );
        assert_eq!(
            (report.ssh_host_keys.len(), report.main_user.as_str()),
            (1, "")
        );
        assert!(report.root_public_key.starts_with("ssh-ed25519"));
    }

    #[test]
    fn what_always_changes_is_not_a_difference() {
        let report = |uptime: u64, free: u64, cpus: u64| {
            FactsReport {
            node_json: json!({"uptime_seconds": uptime, "cpus": cpus, "disks": [{"mount": "/", "free": free}]}).to_string(),
            ..FactsReport::default()
        }
        };
        assert!(!differs(&report(1, 1, 2), &report(9, 9, 2)));
        assert!(differs(&report(1, 1, 2), &report(1, 1, 4)));
        assert!(differs(
            &report(1, 1, 2),
            &FactsReport {
                root_public_key: "k".into(),
                ..report(1, 1, 2)
            }
        ));
    }

    #[test]
    fn facts_that_are_too_long_lose_the_long_parts_first() {
        let long = Value::String("x".repeat(MAX_FACTS_BYTES));
        let node: Map<String, Value> = [("cpus".into(), json!(2)), ("disks".into(), long)]
            .into_iter()
            .collect();
        let text = bounded(node);
        assert!(text.len() < 100 && text.contains("\"cpus\":2"), "{text}");
    }
}
