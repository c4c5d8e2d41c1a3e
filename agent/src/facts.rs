//! What this machine is: one JSON object for the master, and its public ssh keys. Called by the service, off the
//! session's thread. Reads only, but for ssh keys that are made where there are none.

use std::fs;
use std::path::{Path, PathBuf};

use aot_proto::limits::MAX_FACTS_BYTES;
use aot_proto::v1::FactsReport;
use serde_json::{Map, Value, json};
use sysinfo::{Disks, MemoryRefreshKind, Networks, System};

use crate::imds::{self, Imds};
use crate::service::Chain;
use crate::{VERSION, sshkeys, users};

/// Facts that change by themselves all the time: a report with other values of these is no news.
const VOLATILE: [&str; 1] = ["uptime_seconds"];

/// Where facts are looked for.
#[derive(Debug, Clone)]
pub struct Sources {
    /// `/etc`.
    pub etc_dir: PathBuf,
    /// Root's home.
    pub root_home: PathBuf,
    /// This boot.
    pub boot_id: String,
    /// Main login user; empty = none.
    pub main_user: String,
}

/// The report, with `cloud` as its part of that name. Blocking.
pub fn collect(sources: &Sources, cloud: Option<Value>) -> FactsReport {
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

/// The JSON text; what is long is left out before it grows past the limit.
fn bounded(mut node: Map<String, Value>) -> String {
    for key in ["disks", "interfaces", "cloud"] {
        let text = Value::Object(node.clone()).to_string();
        if text.len() <= MAX_FACTS_BYTES {
            return text;
        }
        node.insert(key.to_owned(), Value::Null);
    }
    Value::Object(node).to_string()
}

/// Whether two reports say the same but for what always changes.
pub fn is_news(old: &FactsReport, new: &FactsReport) -> bool {
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

/// Name and version from os-release(5), kernel from uname(2).
fn os(etc_dir: &Path) -> Value {
    let text = fs::read_to_string(etc_dir.join("os-release"))
        .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let field = |key: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value
            .map(|value| value.trim_matches(['"', '\'']).to_owned())
            .unwrap_or_default()
    };
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    // Targets say `fact:os.name=debian`: the name is the short one, the long one is kept beside it.
    json!({
        "name": field("ID"), "version": field("VERSION_ID"), "id": field("ID"), "pretty_name": field("PRETTY_NAME"),
        "kernel": kernel, "arch": std::env::consts::ARCH,
    })
}

/// The name with a domain that hosts(5) has for this host name, else the host name.
fn fqdn(hostname: &str, hosts: &str) -> String {
    let lines = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let mut names = lines.map(|line| line.split_ascii_whitespace().skip(1).collect::<Vec<_>>());
    let found = names.find_map(|names| {
        let prefix = format!("{hostname}.");
        names
            .contains(&hostname)
            .then(|| names.iter().find(|name| name.starts_with(&prefix)).copied())?
    });
    found.unwrap_or(hostname).to_owned()
}

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(['.', ' '])
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

fn memory() -> u64 {
    let Ok(mut system) = System::new() else {
        return 0;
    };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    system.total_memory()
}

fn disks() -> Value {
    let Ok(disks) = Disks::new_with_refreshed_list() else {
        return Value::Null;
    };
    let disks = disks.into_iter().map(|disk| {
        json!({
            "mount": disk.mount_point().to_string_lossy(), "fs": disk.file_system().to_string_lossy(),
            "bytes": disk.total_space(), "free": disk.available_space(),
        })
    });
    disks.collect()
}

fn interfaces() -> Value {
    let Ok(networks) = Networks::new_with_refreshed_list() else {
        return Value::Null;
    };
    let mut all: Vec<(String, Value)> = networks
        .iter()
        .map(|(name, data)| {
            let name = name.to_string_lossy().into_owned();
            let mut addresses: Vec<String> = data.ip_networks().iter().map(|ip| ip.addr.to_string()).collect();
            addresses.sort_unstable();
            let value = json!({"name": name, "mac": data.mac_address().to_string(), "addresses": addresses});
            (name, value)
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.into_iter().map(|(_, value)| value).collect()
}

/// What IMDS says of the machine, by its own names.
const CLOUD: [&str; 15] = [
    "ami-id",
    "ami-launch-index",
    "hostname",
    "instance-id",
    "instance-life-cycle",
    "instance-type",
    "local-hostname",
    "local-ipv4",
    "mac",
    "placement/availability-zone",
    "placement/availability-zone-id",
    "placement/region",
    "public-hostname",
    "public-ipv4",
    "reservation-id",
];

/// The machine's facts from IMDS, keys with `_` for `-` and the last part of a path.
///
/// # Errors
/// When IMDS does not answer.
pub async fn cloud(base: &str) -> Result<Value, imds::Error> {
    let imds = Imds::open(base).await?;
    let mut facts = Map::new();
    for path in CLOUD {
        if let Some(text) = imds.find(&format!("/latest/meta-data/{path}")).await? {
            let key = path.rsplit('/').next().unwrap_or(path).replace('-', "_");
            facts.insert(key, Value::String(text.trim().to_owned()));
        }
    }
    Ok(Value::Object(facts))
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
    fn only_news_are_news() {
        let report = |uptime: u64, free: u64, cpus: u64| {
            FactsReport {
            node_json: json!({"uptime_seconds": uptime, "cpus": cpus, "disks": [{"mount": "/", "free": free}]}).to_string(),
            ..FactsReport::default()
        }
        };
        assert!(!is_news(&report(1, 1, 2), &report(9, 9, 2)));
        assert!(is_news(&report(1, 1, 2), &report(1, 1, 4)));
        assert!(is_news(
            &report(1, 1, 2),
            &FactsReport {
                root_public_key: "k".into(),
                ..report(1, 1, 2)
            }
        ));
    }

    #[test]
    fn the_full_name_is_the_one_with_a_domain() {
        let hosts = "127.0.0.1 localhost\n10.0.0.1 web1.ec2.internal web1 # web1.x\n";
        assert_eq!(fqdn("web1", hosts), "web1.ec2.internal");
        assert_eq!(fqdn("web2", hosts), "web2");
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
