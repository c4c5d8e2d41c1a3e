//! Which of the cluster's keys may log in on this machine: a block in root's authorized_keys or in that of the main user, as
//! the cluster wants it, and in no other's.

use std::fs;
use std::io;

use aot_proto::v1::Peer;

use super::files::{drop_block, make_dir, write_block, write_file};
use super::lines::authorized_keys;
use super::{Error, FactsPaths};
use crate::blocks::Marks;
use crate::userkeys;
use crate::users::{self, User};

/// Names the user whose own authorized_keys has a block.
const KEYS_OF: &str = "ssh_user";

/// The block in root's authorized_keys, where the cluster wants it; else none.
pub(super) fn of_root(
    paths: &FactsPaths,
    marks: &Marks,
    access: &str,
    peers: &[&Peer],
) -> Result<(), Error> {
    let ssh = paths.root_home.join(".ssh");
    let path = ssh.join("authorized_keys");
    // A master that says nothing of it means root.
    if matches!(access, "" | "root") {
        make_dir(&ssh, 0o700)?;
        let lines = peers.iter().flat_map(|peer| &peer.public_keys);
        write_block(&path, marks, &authorized_keys(lines), 0o600)
    } else if path.exists() {
        drop_block(&path, marks)
    } else {
        Ok(())
    }
}

/// The block in the main user's own authorized_keys, where the cluster wants it; else none, nor in that of whoever had it
/// before.
pub(super) fn of_user(
    paths: &FactsPaths,
    marks: &Marks,
    instance: &str,
    access: &str,
    peers: &[&Peer],
) -> Result<(), Error> {
    let own = peers.iter().find(|peer| peer.name == instance);
    let name = own.map(|peer| peer.main_user.as_str());
    let name = name.filter(|name| access == "users" && !name.is_empty() && *name != "root");
    let user = name.and_then(|name| users::find(name, &paths.etc_dir));
    let record = paths.state_dir.join(KEYS_OF);
    let before = fs::read_to_string(&record).unwrap_or_default();
    if !before.is_empty() && user.as_ref().is_none_or(|user| user.name != before) {
        if let Some(former) = users::find(&before, &paths.etc_dir) {
            userkeys::write_block(&former, marks, None).map_err(|error| at(&former, error))?;
        }
        write_file(&record, b"", 0o600)?;
    }
    let Some(user) = user else {
        return Ok(());
    };
    // Recorded first: what is not yet there can be taken back all the same.
    write_file(&record, user.name.as_bytes(), 0o600)?;
    let lines = authorized_keys(peers.iter().flat_map(|peer| &peer.user_keys));
    userkeys::write_block(&user, marks, Some(&lines)).map_err(|error| at(&user, error))
}

/// Takes the block out of the authorized_keys of whoever has one, but for root's.
///
/// # Errors
/// When that file can't be written.
pub(super) fn withdraw(paths: &FactsPaths, marks: &Marks) -> Result<(), Error> {
    let user = fs::read_to_string(paths.state_dir.join(KEYS_OF)).unwrap_or_default();
    let user = (!user.is_empty()).then(|| users::find(&user, &paths.etc_dir));
    match user.flatten() {
        Some(user) => userkeys::write_block(&user, marks, None).map_err(|error| at(&user, error)),
        None => Ok(()),
    }
}

fn at(user: &User, source: io::Error) -> Error {
    Error::File {
        path: user.home.join(".ssh/authorized_keys"),
        source,
    }
}
