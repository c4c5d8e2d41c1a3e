//! What instances are reached by: their views beside their facts. For `inventory` and `ssh-config`, which hand it to
//! programs that trust what they read: what a machine only claims is checked here before it is passed on.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use aot_proto::v1::{InstanceView, MachineState, TargetRequest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::Ctx;
use super::args::MaybeTarget;
use super::connect::{Start, connect};
use super::dial::{QUERY, within};
use super::error::Error;
use super::status::ask;

/// Most host keys of one machine that are taken over; sshd has three or four.
const MAX_KEYS: usize = 16;

/// Types of host keys (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"; ssh -Q key-plain).
const KEY_TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// One instance that has a machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LiveHost {
    /// As `status` has it.
    pub view: InstanceView,
    /// Its entry of the facts; `null` while it has none.
    pub facts: Value,
}

/// The instances of a target that have a machine, and the saved targets of their cluster's file.
pub(crate) struct TargetHosts {
    /// In the master's order.
    pub instances: Vec<LiveHost>,
    pub cluster: String,
    /// By name.
    pub groups: BTreeMap<String, String>,
}

/// Looks them up. The target must be of one cluster.
///
/// # Errors
/// When nothing matches, or the master can't be asked.
pub(crate) async fn find(ctx: &mut Ctx<'_>, which: &MaybeTarget) -> Result<TargetHosts, Error> {
    // With a target, the master refuses to guess between clusters.
    let which = MaybeTarget {
        target: Some(which.target.clone().unwrap_or_else(|| "*".to_owned())),
        narrow: which.narrow.clone(),
    };
    let reply = ask(ctx, &which, false).await?;
    let mut client = connect(ctx, Start::WithState).await?;
    let request = TargetRequest {
        cluster: ctx.cluster.clone(),
        target: which.target,
        exclude: which.narrow.exclude(),
        limit: which.narrow.limit(),
    };
    let facts = client.facts(within(QUERY, request)).await?.into_inner();
    let mut facts: HashMap<String, Value> = facts
        .entries
        .into_iter()
        .map(|entry| {
            let facts = serde_json::from_str(&entry.facts_json).unwrap_or(Value::Null);
            (entry.instance, facts)
        })
        .collect();
    let live = reply.instances.into_iter().filter(is_live);
    let with_facts = live.map(|view| LiveHost {
        facts: facts.remove(&view.name).unwrap_or(Value::Null),
        view,
    });
    let cluster = reply.clusters.into_iter().next().unwrap_or_default();
    Ok(TargetHosts {
        instances: with_facts.collect(),
        cluster: cluster.name,
        groups: cluster.groups.into_iter().collect(),
    })
}

/// Whether there is a machine that is not gone, nor going.
fn is_live(view: &InstanceView) -> bool {
    let ending = [MachineState::Terminated, MachineState::ShuttingDown];
    view.state != 0 && !ending.contains(&view.state())
}

impl LiveHost {
    /// The public address, or the private one. Only what is an address or a host's name.
    pub(crate) fn address(&self) -> Option<&str> {
        let all = [&self.view.public_ip, &self.view.private_ip];
        let mut known = all.into_iter().map(String::as_str);
        known.find(|text| is_host(text))
    }

    /// The main user: the file's, or the one that the machine found. Only what is a user's name.
    pub(crate) fn user(&self) -> Option<&str> {
        let user = self.facts.get("main_user").and_then(Value::as_str);
        user.filter(|name| is_user(name))
    }

    /// `type base64` of each host key that the machine claims and that is one.
    pub(crate) fn host_keys(&self) -> Vec<String> {
        let claimed = self.facts.get("ssh_host_keys").and_then(Value::as_array);
        let lines = claimed.into_iter().flatten().filter_map(Value::as_str);
        lines.filter_map(host_key).take(MAX_KEYS).collect()
    }
}

/// An address, or a DNS name.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label))
}

/// useradd(8): letters, digits, `_`, `-` and `.`, not beginning with a dash or a dot.
fn is_user(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && !name.starts_with(['-', '.'])
}

/// `type base64` of a line `type base64 comment`; `None` unless it is one line, the type is known, and the key says the
/// same type of itself (RFC 4253, 6.6: it begins with its type as a string).
fn host_key(line: &str) -> Option<String> {
    if line.chars().any(char::is_control) {
        return None;
    }
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let (kind, key) = (words.next()?, words.next()?);
    if !KEY_TYPES.contains(&kind) {
        return None;
    }
    let bytes = BASE64_STANDARD.decode(key).ok()?;
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    (rest.len() > len && rest.get(..len)? == kind.as_bytes()).then(|| format!("{kind} {key}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// A good key of that type.
    pub(crate) fn key_of(kind: &str) -> String {
        let mut bytes = u32::try_from(kind.len())
            .expect("short")
            .to_be_bytes()
            .to_vec();
        bytes.extend(kind.as_bytes());
        bytes.extend([0, 0, 0, 4, 1, 2, 3, 4]);
        format!("{kind} {}", BASE64_STANDARD.encode(bytes))
    }

    #[test]
    fn only_a_key_is_a_key() {
        let good = key_of("ssh-ed25519");
        assert_eq!(host_key(&good), Some(good.clone()));
        assert_eq!(host_key(&format!("{good} root@web1")), Some(good.clone()));
        let (_, base64) = good.split_once(' ').expect("two words");
        for bad in [
            String::new(),
            "ssh-ed25519".to_owned(),
            "ssh-ed25519 AAAA".to_owned(),
            "ssh-ed25519 %%%%".to_owned(),
            format!("ssh-rsa {base64}"),
            format!("x-new {base64}"),
            format!("@cert-authority * {good}"),
            format!("* {good}"),
            format!("command=\"x\" {good}"),
            format!("{good}\n* {good}"),
            format!("{good}\r* {good}"),
            format!("ssh-ed25519\n{base64}"),
            format!("{good} \u{85}x"),
            format!("\n{good}"),
        ] {
            assert_eq!(host_key(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_a_name_is_a_name() {
        for good in ["admin", "ec2-user", "_apt", "a.b", "core"] {
            assert!(is_user(good), "{good}");
        }
        for bad in [
            "",
            "-oProxyCommand=x",
            ".a",
            "a b",
            "a\nUser b",
            "a%h",
            "{{x}}",
            "é",
            "\"a",
        ] {
            assert!(!is_user(bad), "{bad:?}");
        }
        for good in ["10.0.0.1", "::1", "fe80::1", "ec2-1.compute.internal"] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "", "-x", "a b", "a\nb", "a..b", "%h", "$(x)", "a;b", "{{x}}",
        ] {
            assert!(!is_host(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_is_hostile_is_left_out() {
        let live = LiveHost {
            view: InstanceView {
                public_ip: "1.2.3.4\nProxyCommand x".into(),
                private_ip: "10.0.0.1".into(),
                ..InstanceView::default()
            },
            facts: json!({"main_user": "root\nProxyCommand x", "ssh_host_keys": ["x", 1, key_of("ssh-rsa")]}),
        };
        assert_eq!(live.address(), Some("10.0.0.1"));
        assert_eq!(live.user(), None);
        assert_eq!(live.host_keys(), [key_of("ssh-rsa")]);
        let many: Vec<String> = (0..99).map(|_| key_of("ssh-rsa")).collect();
        let live = LiveHost {
            facts: json!({"ssh_host_keys": many}),
            ..live
        };
        assert_eq!(live.host_keys().len(), MAX_KEYS);
    }
}
