//! Puts cluster facts and peers' keys where people and ssh look for them. Called by the service at start (what was kept)
//! and by the session (what is new). Blocking; safe to repeat; never touches a byte outside its own blocks and files.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use aot_proto::v1::{ClusterFacts, Peer};
use prost::Message;
use serde_json::json;

use crate::blocks::{Marks, replace};
use crate::files::{sha256_hex, write_atomic};

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The agent's own folder.
    pub state_dir: PathBuf,
    /// `/etc`.
    pub etc_dir: PathBuf,
    /// Root's home.
    pub root_home: PathBuf,
}

/// Cluster facts that could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The digest is not that of the bytes.
    #[error("the facts have SHA-256 {got}, not {wanted}")]
    Digest {
        /// Of what came.
        got: String,
        /// As announced.
        wanted: String,
    },
    /// A file can't be written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Name of the kept message in the state folder.
const KEPT: &str = "cluster_facts.pb";

/// Writes every file for `facts`, then keeps the message for the next start.
///
/// # Errors
/// At the first file that can't be written; the ones before it are in place.
pub fn apply(places: &Places, cluster: &str, facts: &ClusterFacts) -> Result<(), Error> {
    let got = sha256_hex(&facts.facts_json);
    if got != facts.sha256 {
        return Err(Error::Digest {
            got,
            wanted: facts.sha256.clone(),
        });
    }
    let etc = &places.etc_dir;
    let marks = Marks::of_cluster(cluster);
    write_file(&etc.join("cluster_facts.json"), &facts.facts_json, 0o644)?;
    let ssh = places.root_home.join(".ssh");
    make_dir(&ssh, 0o700)?;
    make_dir(&etc.join("ssh"), 0o755)?;
    write_block(
        &ssh.join("authorized_keys"),
        &marks,
        &authorized_keys(&facts.peers),
        0o600,
    )?;
    write_block(
        &etc.join("ssh/ssh_known_hosts"),
        &marks,
        &known_hosts(&facts.peers),
        0o644,
    )?;
    write_block(&etc.join("hosts"), &marks, &hosts(&facts.peers), 0o644)?;
    // Last of what others see: who finds this generation here finds all of it in place.
    make_dir(&etc.join("aot"), 0o755)?;
    let state = json!({"generation": facts.generation, "sha256": facts.sha256, "complete": facts.complete, "missing": facts.missing});
    write_file(
        &etc.join("aot/cluster_state.json"),
        format!("{state:#}\n").as_bytes(),
        0o644,
    )?;
    write_file(&places.state_dir.join(KEPT), &facts.encode_to_vec(), 0o600)
}

/// The cluster facts that were applied last; `None` when there are none that can be read.
pub fn kept(state_dir: &Path) -> Option<ClusterFacts> {
    ClusterFacts::decode(&fs::read(state_dir.join(KEPT)).ok()?[..]).ok()
}

/// Every peer's keys, one a line.
fn authorized_keys(peers: &[Peer]) -> Vec<String> {
    let lines = peers
        .iter()
        .flat_map(|peer| &peer.public_keys)
        .filter_map(|line| clean_key(line, true));
    sorted(lines.collect())
}

/// Every peer's host keys for its name, host name and addresses (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
fn known_hosts(peers: &[Peer]) -> Vec<String> {
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
fn hosts(peers: &[Peer]) -> Vec<String> {
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

fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    let made = || {
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))
    };
    made().map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    write_atomic(path, bytes, mode).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

/// Replaces the block in a file; writes nothing when nothing changes. A link is followed and stays a link; owner and mode
/// stay; a file that can't be replaced (a mount point) is written in place.
fn write_block(path: &Path, marks: &Marks, lines: &[String], mode: u32) -> Result<(), Error> {
    let wrote = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(wrote(error)),
    };
    let old = match fs::read(&real) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.map_err(wrote)?),
    };
    let new = replace(old.as_deref().unwrap_or_default(), marks, lines);
    if old.as_ref() == Some(&new) {
        return Ok(());
    }
    let meta = real.metadata().ok();
    let mode = meta
        .as_ref()
        .map_or(mode, |meta| meta.permissions().mode() & 0o7777);
    match write_atomic(&real, &new, mode) {
        Ok(()) => match meta {
            Some(meta) if (meta.uid(), meta.gid()) != own_ids() => {
                chown(&real, Some(meta.uid()), Some(meta.gid())).map_err(wrote)
            }
            _ => Ok(()),
        },
        Err(error)
            if matches!(
                error
                    .raw_os_error()
                    .map(rustix::io::Errno::from_raw_os_error),
                Some(rustix::io::Errno::BUSY | rustix::io::Errno::XDEV)
            ) =>
        {
            let mut file = OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(&real)
                .map_err(wrote)?;
            file.write_all(&new)
                .and_then(|()| file.sync_all())
                .map_err(wrote)
        }
        Err(error) => Err(wrote(error)),
    }
}

fn own_ids() -> (u32, u32) {
    (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAbcd";

    fn places(dir: &Path) -> Places {
        let places = Places {
            state_dir: dir.join("state"),
            etc_dir: dir.join("etc"),
            root_home: dir.join("root"),
        };
        for path in [&places.state_dir, &places.etc_dir, &places.root_home] {
            fs::create_dir(path).unwrap();
        }
        places
    }

    fn facts(generation: u64, names: &[&str]) -> ClusterFacts {
        let facts_json = format!("{{\"n\":{}}}", names.len()).into_bytes();
        ClusterFacts {
            generation,
            sha256: sha256_hex(&facts_json),
            facts_json,
            complete: true,
            missing: Vec::new(),
            peers: names
                .iter()
                .enumerate()
                .map(|(n, name)| Peer {
                    name: (*name).to_owned(),
                    hostname: format!("{name}.internal"),
                    addresses: vec![format!("10.0.0.{n}"), "1.2.3.4".into()],
                    ssh_host_keys: vec![format!("{KEY}{n} root@x")],
                    public_keys: vec![
                        format!("{KEY}{n} root@{name}"),
                        format!("{KEY}u{n} admin@{name}"),
                    ],
                })
                .collect(),
        }
    }

    #[test]
    fn every_file_is_put_in_place_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        fs::create_dir(places.root_home.join(".ssh")).unwrap();
        let authorized = places.root_home.join(".ssh/authorized_keys");
        fs::write(&authorized, "ssh-rsa AAAA person").unwrap();
        fs::write(places.etc_dir.join("hosts"), "127.0.0.1 localhost\n").unwrap();
        apply(&places, "c", &facts(1, &["web1", "web2"])).unwrap();
        apply(&places, "c", &facts(2, &["web1"])).unwrap();
        apply(&places, "c", &facts(2, &["web1"])).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(read("etc/cluster_facts.json"), "{\"n\":1}");
        assert_eq!(
            read("root/.ssh/authorized_keys"),
            format!(
                "ssh-rsa AAAA person\n# BEGIN aot cluster c\n{KEY}0 root@web1\n{KEY}u0 admin@web1\n# END aot cluster c\n"
            )
        );
        assert_eq!(
            read("etc/ssh/ssh_known_hosts"),
            format!(
                "# BEGIN aot cluster c\nweb1,web1.internal,10.0.0.0,1.2.3.4 {KEY}0\n# END aot cluster c\n"
            )
        );
        assert_eq!(
            read("etc/hosts"),
            "127.0.0.1 localhost\n# BEGIN aot cluster c\n10.0.0.0 web1 web1.internal\n# END aot cluster c\n"
        );
        let state: serde_json::Value =
            serde_json::from_str(&read("etc/aot/cluster_state.json")).unwrap();
        assert_eq!(
            (&state["generation"], &state["complete"]),
            (&json!(2), &json!(true))
        );
        assert_eq!(kept(&places.state_dir).unwrap(), facts(2, &["web1"]));
        let mode = |path: &str| {
            fs::metadata(dir.path().join(path))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(
            (
                mode("etc/cluster_facts.json"),
                mode("etc/ssh/ssh_known_hosts"),
                mode("root/.ssh")
            ),
            (0o644, 0o644, 0o755)
        );
    }

    #[test]
    fn a_linked_file_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        fs::write(dir.path().join("real"), "x\n").unwrap();
        std::os::unix::fs::symlink("../real", places.etc_dir.join("hosts")).unwrap();
        apply(&places, "c", &facts(1, &["web1"])).unwrap();
        assert!(places.etc_dir.join("hosts").is_symlink());
        assert!(
            fs::read_to_string(dir.path().join("real"))
                .unwrap()
                .contains("10.0.0.0 web1")
        );
    }

    #[test]
    fn facts_that_were_garbled_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        let mut bad = facts(1, &["web1"]);
        bad.facts_json.push(b' ');
        assert!(matches!(
            apply(&places, "c", &bad),
            Err(Error::Digest { .. })
        ));
        assert_eq!(fs::read_dir(&places.etc_dir).unwrap().count(), 0);
        assert!(kept(&places.state_dir).is_none());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path());
        fs::create_dir(places.etc_dir.join("hosts")).unwrap();
        let error = apply(&places, "c", &facts(1, &["web1"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("etc/hosts"), "{error}");
    }

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
        let mut facts = facts(1, &["web1"]);
        facts.peers[0].hostname = "x\n6.6.6.6 bank".into();
        facts.peers[0].addresses = vec!["10.0.0.1 evil".into(), "10.0.0.2".into()];
        assert_eq!(hosts(&facts.peers), ["10.0.0.2 web1"]);
        assert_eq!(known_hosts(&facts.peers), [format!("web1,10.0.0.2 {KEY}0")]);
    }
}
