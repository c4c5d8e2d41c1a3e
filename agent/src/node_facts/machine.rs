//! What the machine itself says: its system, its name, its memory, disks and interfaces. What can't be found out is left
//! empty; nothing here fails.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sysinfo::{Disks, MemoryRefreshKind, Networks, System};

/// Name and version from os-release(5), kernel from uname(2).
pub(super) fn os(etc_dir: &Path) -> Value {
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
pub(super) fn fqdn(hostname: &str, hosts: &str) -> String {
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

pub(super) fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(['.', ' '])
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

pub(super) fn memory() -> u64 {
    let Ok(mut system) = System::new() else {
        return 0;
    };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    system.total_memory()
}

pub(super) fn disks() -> Value {
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

pub(super) fn interfaces() -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_name_is_the_one_with_a_domain() {
        let hosts = "127.0.0.1 localhost\n10.0.0.1 web1.ec2.internal web1 # web1.x\n";
        assert_eq!(fqdn("web1", hosts), "web1.ec2.internal");
        assert_eq!(fqdn("web2", hosts), "web2");
    }
}
