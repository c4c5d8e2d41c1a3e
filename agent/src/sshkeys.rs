//! The machine's ssh keys: its host keys, root's and the main user's key pair. Made once where there is none, never
//! replaced. Called by `facts`. Works through open folders, so that a user can't lead root astray with links.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchown, mkdirat, openat};
use rustix::io::Errno;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use crate::users::User;

/// A key that could not be made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read or make the key {name}")]
    File { name: String, source: io::Error },
    /// Making it failed.
    #[error("cannot make an ssh key: {0}")]
    Key(String),
}

/// Public host keys of sshd, `type base64` each. Where there is none at all, an ed25519 one is made first.
///
/// # Errors
/// When the folder can't be made, or the key can't be written.
pub(crate) fn host_keys(etc_dir: &Path, hostname: &str) -> Result<Vec<String>, Error> {
    let dir = etc_dir.join("ssh");
    let failed = |source| Error::File {
        name: "ssh_host_ed25519_key".into(),
        source,
    };
    if !any_host_key(&dir) {
        fs::create_dir_all(&dir).map_err(failed)?;
        let folder = open_dir(&dir).map_err(|error| failed(error.into()))?;
        make_pair(
            &folder,
            "ssh_host_ed25519_key",
            &format!("root@{hostname}"),
            None,
        )?;
    }
    let mut keys: Vec<String> = fs::read_dir(&dir)
        .map_err(failed)?
        .flatten()
        .filter(|entry| is_host_key(&entry.file_name().to_string_lossy(), "_key.pub"))
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        })
        .collect();
    keys.sort_unstable();
    Ok(keys)
}

fn is_host_key(name: &str, end: &str) -> bool {
    name.starts_with("ssh_host_") && name.ends_with(end)
}

fn any_host_key(dir: &Path) -> bool {
    let names = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    names.into_iter().any(|name| {
        is_host_key(&name.to_string_lossy(), "_key")
            || is_host_key(&name.to_string_lossy(), "_key.pub")
    })
}

/// The public key line of `home/.ssh/id_ed25519`, made when missing; owned by `owner`, or by us when `None`.
///
/// # Errors
/// When it can't be made or read.
pub(crate) fn user_key(home: &Path, comment: &str, owner: Option<&User>) -> Result<String, Error> {
    let failed = |error: Errno| Error::File {
        name: "id_ed25519".into(),
        source: error.into(),
    };
    let home = open_dir(home).map_err(failed)?;
    match mkdirat(&home, ".ssh", Mode::RWXU) {
        Ok(()) => {
            let made = open_below(&home, ".ssh").map_err(failed)?;
            give(&made, owner).map_err(failed)?;
        }
        Err(Errno::EXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    let folder = open_below(&home, ".ssh").map_err(failed)?;
    match read_small(&folder, "id_ed25519.pub") {
        Ok(line) => Ok(line),
        Err(Errno::NOENT) => make_pair(&folder, "id_ed25519", comment, owner),
        Err(error) => Err(failed(error)),
    }
}

/// Writes a new pair, or only the public half of a private key that is there. Returns the public line.
fn make_pair(
    folder: &OwnedFd,
    name: &str,
    comment: &str,
    owner: Option<&User>,
) -> Result<String, Error> {
    let failed = |error: Errno| Error::File {
        name: name.to_owned(),
        source: error.into(),
    };
    let bad = |error: ssh_key::Error| Error::Key(error.to_string());
    let key = match read_small(folder, name) {
        Ok(text) => PrivateKey::from_openssh(text).map_err(bad)?,
        Err(Errno::NOENT) => {
            let mut seed = [0u8; 32];
            aws_lc_rs::rand::fill(&mut seed).map_err(|_| Error::Key("no random numbers".into()))?;
            let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
            key.set_comment(comment);
            write_new(
                folder,
                name,
                &key.to_openssh(LineEnding::LF).map_err(bad)?,
                0o600,
                owner,
            )
            .map_err(failed)?;
            key
        }
        Err(error) => return Err(failed(error)),
    };
    let line = key.public_key().to_openssh().map_err(bad)?;
    write_new(
        folder,
        &format!("{name}.pub"),
        &format!("{line}\n"),
        0o644,
        owner,
    )
    .map_err(failed)?;
    Ok(line)
}

pub(crate) fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    openat(
        CWD,
        path,
        OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY,
        Mode::empty(),
    )
}

pub(crate) fn open_below(folder: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(
        folder,
        name,
        OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY,
        Mode::empty(),
    )
}

/// The trimmed text of a file of at most 64 KiB that is not a link.
fn read_small(folder: &OwnedFd, name: &str) -> Result<String, Errno> {
    let fd = openat(
        folder,
        name,
        OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::RDONLY,
        Mode::empty(),
    )?;
    let mut text = String::new();
    fs::File::from(fd)
        .take(64 << 10)
        .read_to_string(&mut text)
        .map_err(|_| Errno::IO)?;
    Ok(text.trim_end().to_owned())
}

fn write_new(
    folder: &OwnedFd,
    name: &str,
    text: &str,
    mode: u32,
    owner: Option<&User>,
) -> Result<(), Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    let fd = openat(folder, name, flags, Mode::from_raw_mode(mode))?;
    give(&fd, owner)?;
    let mut file = fs::File::from(fd);
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|_| Errno::IO)
}

pub(crate) fn give(fd: &OwnedFd, owner: Option<&User>) -> Result<(), Errno> {
    match owner {
        Some(user) => fchown(
            fd,
            Some(Uid::from_raw(user.uid)),
            Some(Gid::from_raw(user.gid)),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pair_is_made_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = user_key(dir.path(), "root@web1", None).unwrap();
        assert!(
            first.starts_with("ssh-ed25519 AAAA") && first.ends_with(" root@web1"),
            "{first}"
        );
        assert_eq!(user_key(dir.path(), "other", None).unwrap(), first);
        let mode = |name: &str| {
            fs::metadata(dir.path().join(".ssh").join(name))
                .unwrap()
                .permissions()
                .mode()
                & 0o777
        };
        assert_eq!(
            (mode(""), mode("id_ed25519"), mode("id_ed25519.pub")),
            (0o700, 0o600, 0o644)
        );
        fs::remove_file(dir.path().join(".ssh/id_ed25519.pub")).unwrap();
        assert_eq!(
            user_key(dir.path(), "other", None).unwrap(),
            first,
            "made again from the private half"
        );
    }

    #[test]
    fn links_of_a_user_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (home, target) = (dir.path().join("home"), dir.path().join("target"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, home.join(".ssh")).unwrap();
        assert!(user_key(&home, "x", None).is_err());
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }

    #[test]
    fn host_keys_are_made_only_where_there_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let made = host_keys(dir.path(), "web1").unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!(host_keys(dir.path(), "web1").unwrap(), made);
        let other = tempfile::tempdir().unwrap();
        fs::create_dir(other.path().join("ssh")).unwrap();
        fs::write(
            other.path().join("ssh/ssh_host_rsa_key.pub"),
            "ssh-rsa AAAAB3 root@x\n",
        )
        .unwrap();
        assert_eq!(host_keys(other.path(), "web1").unwrap(), ["ssh-rsa AAAAB3"]);
        assert!(!other.path().join("ssh/ssh_host_ed25519_key").exists());
    }
}
