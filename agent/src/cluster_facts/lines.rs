//! What is written of the peers: lines for authorized_keys, known hosts and /etc/hosts. Pure. A peer's own text never makes
//! more than its own line and fields.

use std::net::IpAddr;

use aot_proto::v1::Peer;

/// Keys, one per line.
pub(super) fn authorized_keys<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<String> {
    sorted(keys.filter_map(|line| clean_key(line, true)).collect())
}

/// Every peer's host keys for its name, host name and addresses (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
pub(super) fn known_hosts(peers: &[&Peer]) -> Vec<String> {
    let lines = peers.iter().flat_map(|peer| {
        let mut names: Vec<&str> = [peer.name.as_str(), peer.hostname.as_str()]
            .into_iter()
            .filter(|name| is_host(name))
            .collect();
        names.extend(addresses(peer));
        names.dedup();
        let names = names.join(",");
        let keys = peer
            .ssh_host_keys
            .iter()
            .filter_map(|line| clean_key(line, false));
        keys.filter(|_| !names.is_empty())
            .map(|key| format!("{names} {key}"))
            .collect::<Vec<_>>()
    });
    lines.collect()
}

/// Every peer's first address with its names (hosts(5)).
pub(super) fn hosts(peers: &[&Peer]) -> Vec<String> {
    let lines = peers.iter().filter_map(|peer| {
        let address = addresses(peer).next()?;
        let mut names: Vec<&str> = [peer.name.as_str(), peer.hostname.as_str()]
            .into_iter()
            .filter(|name| is_host(name))
            .collect();
        names.dedup();
        (!names.is_empty()).then(|| format!("{address} {}", names.join(" ")))
    });
    lines.collect()
}

fn addresses(peer: &Peer) -> impl Iterator<Item = &str> {
    peer.addresses
        .iter()
        .map(String::as_str)
        .filter(|address| address.parse::<IpAddr>().is_ok())
}

/// What a peer claims as its name must not be able to write a second field or line.
fn is_host(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_'))
}

/// `type base64 [comment]` and nothing else: no options, which could run a command, and no second line.
fn clean_key(line: &str, comment: bool) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    let kinds = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
    let good_kind = kinds.iter().any(|known| kind.starts_with(known))
        && kind
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-.@".contains(&c));
    let good_key = key.starts_with("AAAA")
        && key
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"+/=".contains(&c));
    if !good_kind || !good_key {
        return None;
    }
    let note = words
        .next()
        .filter(|note| comment && note.bytes().all(|c| c.is_ascii_graphic()));
    Some(note.map_or_else(
        || format!("{kind} {key}"),
        |note| format!("{kind} {key} {note}"),
    ))
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_unstable();
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_cannot_write_more_than_its_key_and_name() {
        for bad in [
            "",
            "command=\"x\" ssh-rsa AAAA",
            "ssh-rsa",
            "ssh-rsa #x",
            "restrict ssh-rsa AAAA",
            "ssh-rsa AAAA\"x\"",
        ] {
            assert_eq!(clean_key(bad, true), None, "{bad}");
        }
        assert_eq!(
            clean_key("ssh-rsa AAAA a\nssh-rsa AAAB", true).as_deref(),
            Some("ssh-rsa AAAA a")
        );
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbcd0";
        let peer = Peer {
            name: "web1".into(),
            hostname: "x\n6.6.6.6 bank".into(),
            addresses: vec!["10.0.0.1 evil".into(), "10.0.0.2".into()],
            ssh_host_keys: vec![format!("{key} root@x")],
            ..Peer::default()
        };
        assert_eq!(hosts(&[&peer]), ["10.0.0.2 web1"]);
        assert_eq!(known_hosts(&[&peer]), [format!("web1,10.0.0.2 {key}")]);
    }
}
