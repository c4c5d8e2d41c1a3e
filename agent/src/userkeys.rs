//! The block of peers' keys in a user's own authorized_keys. Called by `keys`. The folder is the user's: what is in it is
//! reached one name at a time and never through a link, so that a user can't lead root astray.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fchmod, fstat, mkdirat, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::blocks::{Marks, replace, without};
use crate::sshkeys::{give, open_below, open_dir};
use crate::users::User;

/// Longest file that is rewritten: what is longer is not a list of keys.
const MOST_BYTES: u64 = 16 << 20;

const NAME: &str = "authorized_keys";

/// Its next content, until it takes the file's place.
const NEXT: &str = ".authorized_keys.aot";

/// Puts `lines` into the user's file as the block with these marks; `None` takes the block out, and makes nothing where
/// there is no file. Owner and mode of a file that is there stay.
///
/// # Errors
/// When the folder or file is a link or no plain file; as open(2), write(2).
pub(crate) fn write_block(user: &User, marks: &Marks, lines: Option<&[String]>) -> io::Result<()> {
    let home = match open_dir(&user.home) {
        Err(Errno::NOENT) if lines.is_none() => return Ok(()),
        other => other?,
    };
    if lines.is_some() {
        match mkdirat(&home, ".ssh", Mode::RWXU) {
            Ok(()) => give(&open_below(&home, ".ssh")?, Some(user))?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let folder = match open_below(&home, ".ssh") {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let (old, mode) = read(&folder)?.unzip();
    let text = old.as_deref().unwrap_or_default();
    let new = match lines {
        Some(lines) => replace(text, marks, lines),
        None => without(text, marks),
    };
    if new == text {
        return Ok(());
    }
    put(&folder, &new, mode.unwrap_or(Mode::RUSR | Mode::WUSR), user)
}

/// The file as it is, and its mode; `None` when there is none.
fn read(folder: &OwnedFd) -> io::Result<Option<(Vec<u8>, Mode)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match openat(folder, NAME, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(unfit("it is a link")),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(unfit("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::from(fd)
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(unfit("it is too long"));
    }
    Ok(Some((bytes, Mode::from_raw_mode(stat.st_mode & 0o7777))))
}

fn unfit(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Replaces the file as a whole.
fn put(folder: &OwnedFd, bytes: &[u8], mode: Mode, user: &User) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Left by an agent that was killed.
    let _ = unlinkat(folder, NEXT, AtFlags::empty());
    let fd = openat(folder, NEXT, flags, Mode::RUSR | Mode::WUSR)?;
    give(&fd, Some(user))?;
    fchmod(&fd, mode)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(renameat(folder, NEXT, folder, NAME)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    fn user(home: &Path) -> User {
        User {
            name: "admin".to_owned(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: Vec::new(),
            home: home.to_owned(),
            shell: String::new(),
        }
    }

    #[test]
    fn the_block_comes_and_goes_and_the_users_own_lines_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (user, marks) = (user(dir.path()), Marks::of_cluster("c"));
        let file = dir.path().join(".ssh/authorized_keys");
        write_block(&user, &marks, None).unwrap();
        assert!(
            !dir.path().join(".ssh").exists(),
            "nothing is made for nothing"
        );
        write_block(&user, &marks, Some(&["key".to_owned()])).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&dir.path().join(".ssh")), mode(&file)),
            (0o700, 0o600)
        );
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("own\n{text}")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        write_block(&user, &marks, Some(&["next".to_owned()])).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(
            text,
            "own\n# BEGIN aot cluster c\nnext\n# END aot cluster c\n"
        );
        write_block(&user, &marks, None).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "own\n");
        assert_eq!(mode(&file), 0o640);
        assert_eq!(fs::read_dir(dir.path().join(".ssh")).unwrap().count(), 1);
    }

    #[test]
    fn a_user_cannot_lead_it_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (user, marks) = (user(&dir.path().join("home")), Marks::of_cluster("c"));
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("authorized_keys"), "other's\n").unwrap();
        fs::create_dir(dir.path().join("home")).unwrap();
        let ssh = dir.path().join("home/.ssh");
        let lines = ["key".to_owned()];
        symlink(&other, &ssh).unwrap();
        assert!(write_block(&user, &marks, Some(&lines)).is_err());
        fs::remove_file(&ssh).unwrap();
        fs::create_dir(&ssh).unwrap();
        let linked = [NAME, NEXT];
        for name in linked {
            symlink(other.join("authorized_keys"), ssh.join(name)).unwrap();
        }
        assert!(write_block(&user, &marks, Some(&lines)).is_err());
        fs::remove_file(ssh.join(NAME)).unwrap();
        write_block(&user, &marks, Some(&lines)).unwrap();
        let text = fs::read_to_string(other.join("authorized_keys")).unwrap();
        assert_eq!(text, "other's\n");
    }
}
