//! Puts cluster facts and peers' keys where people and ssh look for them. Called by the service at start (those that were
//! applied last) and by the session (new ones). Blocking; safe to repeat; never touches a byte outside its own blocks and
//! files.

mod files;
mod lines;
mod login_keys;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aot_host::hash::sha256_hex;
use aot_proto::facts::{BadChange, Content};
use aot_proto::v1::{ClusterFacts, Peer};
use prost::Message;
use prost::bytes::Bytes;
use serde_json::json;

use crate::blocks::Marks;
use files::{drop_block, make_dir, write_block, write_file};

/// Where the files are.
#[derive(Debug, Clone)]
pub(crate) struct FactsPaths {
    /// The agent's own folder.
    pub state_dir: PathBuf,
    pub etc_dir: PathBuf,
    pub root_home: PathBuf,
}

/// Cluster facts that could not be put in place.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// They do not come to what the master has.
    #[error(transparent)]
    BadChange(#[from] BadChange),
    /// A file can't be written.
    #[error("cannot write {}", path.display())]
    File { path: PathBuf, source: io::Error },
}

/// Name of the message in the state folder that was applied last.
const LAST_APPLIED: &str = "cluster_facts.pb";

/// Applies a change, or a whole, to the cluster facts that were applied last, and puts the result in place; gives the SHA-256 of
/// the facts file, hex.
///
/// # Errors
/// When it does not come to what the master has, and nothing is written; or at the first file that can't be written, when the ones
/// before it are in place.
pub(crate) fn apply(
    paths: &FactsPaths,
    cluster: &str,
    instance: &str,
    facts: ClusterFacts,
) -> Result<String, Error> {
    let last = last_applied(&paths.state_dir).filter(|_| facts.base > 0);
    let content = last.unwrap_or_default().changed(facts)?;
    put(paths, cluster, instance, &content)
}

/// Writes every file for cluster facts, then stores them for the next start; gives the SHA-256 of the facts file, hex.
///
/// # Errors
/// At the first file that can't be written; the ones before it are in place.
pub(crate) fn put(
    paths: &FactsPaths,
    cluster: &str,
    instance: &str,
    content: &Content,
) -> Result<String, Error> {
    let etc = &paths.etc_dir;
    let marks = Marks::of_cluster(cluster);
    let (json, facts) = (content.json(), content.message());
    let peers: Vec<&Peer> = content.peers().collect();
    write_file(&etc.join("cluster_facts.json"), &json, 0o644)?;
    make_dir(&etc.join("ssh"), 0o755)?;
    login_keys::of_root(paths, &marks, &facts.ssh, &peers)?;
    login_keys::of_user(paths, &marks, instance, &facts.ssh, &peers)?;
    write_block(
        &etc.join("ssh/ssh_known_hosts"),
        &marks,
        &lines::known_hosts(&peers),
        0o644,
    )?;
    write_block(&etc.join("hosts"), &marks, &lines::hosts(&peers), 0o644)?;
    // Last of what others see: who finds this generation here finds all of it in place.
    make_dir(&etc.join("aot"), 0o755)?;
    let sha256 = sha256_hex(&json);
    let state = json!({"generation": facts.generation, "sha256": sha256, "complete": facts.complete, "missing": facts.missing});
    write_file(
        &etc.join("aot/cluster_state.json"),
        format!("{state:#}\n").as_bytes(),
        0o644,
    )?;
    let last = paths.state_dir.join(LAST_APPLIED);
    write_file(&last, &facts.encode_to_vec(), 0o600)?;
    Ok(sha256)
}

/// The cluster facts that were applied last; `None` when there are none that can be read and are whole.
pub(crate) fn last_applied(state_dir: &Path) -> Option<Content> {
    let bytes = fs::read(state_dir.join(LAST_APPLIED)).ok()?;
    let facts = ClusterFacts::decode(Bytes::from(bytes)).ok()?;
    Content::from_whole(facts).ok()
}

/// The generation that was applied last; 0 when there is none.
pub(crate) fn last_generation(state_dir: &Path) -> u64 {
    last_applied(state_dir).map_or(0, |content| content.message().generation)
}

/// Takes back what the facts of a cluster gave: no peer of it is let in, known or named any more.
///
/// # Errors
/// At the first file that can't be written; the ones before it are done.
pub(crate) fn withdraw(paths: &FactsPaths, cluster: &str) -> Result<(), Error> {
    let (etc, marks) = (&paths.etc_dir, Marks::of_cluster(cluster));
    let blocks = [
        paths.root_home.join(".ssh/authorized_keys"),
        etc.join("ssh/ssh_known_hosts"),
        etc.join("hosts"),
    ];
    for path in blocks.iter().filter(|path| path.exists()) {
        drop_block(path, &marks)?;
    }
    login_keys::withdraw(paths, &marks)?;
    for name in ["cluster_facts.json", "aot/cluster_state.json"] {
        let path = etc.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::File { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
