//! Empties one folder after the other, with one of them open at a time, and enters none that is on another mount.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::Error;

/// How a folder is opened.
pub(super) const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How often a folder is read again that others put files into while it is being removed.
const MOST_READS: u32 = 100;

/// Which file a folder is, and on which mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
    /// `None` where the kernel does not report it.
    mount: Option<u64>,
}

impl Id {
    fn of(folder: &OwnedFd) -> rustix::io::Result<Self> {
        let stat = fs::fstat(folder)?;
        let mount = fs::statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .ok()
            .filter(|statx| statx.stx_mask & StatxFlags::MNT_ID.bits() != 0)
            .map(|statx| statx.stx_mnt_id);
        Ok(Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            mount,
        })
    }

    fn is_on_the_mount_of(self, other: Self) -> bool {
        match (self.mount, other.mount) {
            (Some(mine), Some(its)) => mine == its,
            _ => self.device == other.device,
        }
    }
}

/// A folder that is being emptied.
struct Level {
    name: OsString,
    id: Id,
    /// Folders in it that were seen and are still to be removed.
    inner: Vec<OsString>,
    reads: u32,
}

/// Goes through a tree with one open folder, so that no depth is too deep; on the way up it makes sure that it comes to
/// the folders that it came from.
pub(super) struct Walk {
    folder: OwnedFd,
    /// From the top of the tree down to the open folder.
    levels: Vec<Level>,
    /// Of the open folder.
    path: PathBuf,
}

impl Walk {
    pub(super) fn enter(parent: &OwnedFd, name: &OsStr, path: PathBuf) -> Result<Self, Error> {
        let io_at = |error: Errno| Error::Io {
            path: path.clone(),
            source: error.into(),
        };
        let folder = open(parent, name).map_err(io_at)?;
        let id = Id::of(&folder).map_err(io_at)?;
        let level = Level {
            name: name.to_owned(),
            id,
            inner: Vec::new(),
            reads: 0,
        };
        Ok(Self {
            folder,
            levels: vec![level],
            path,
        })
    }

    /// Removes all that is in the tree, and leaves its empty top.
    pub(super) fn empty(&mut self) -> Result<(), Error> {
        while let Some(level) = self.levels.last_mut() {
            match level.inner.pop() {
                Some(name) => self.down(name)?,
                None if self.read()? => {}
                None if self.levels.len() == 1 => return Ok(()),
                None => self.up()?,
            }
        }
        Ok(())
    }

    fn failed<E: Into<io::Error>>(&self, error: E) -> Error {
        Error::Io {
            path: self.path.clone(),
            source: error.into(),
        }
    }

    /// Removes what is not a folder in the open one, and notes the folders; whether there were any.
    fn read(&mut self) -> Result<bool, Error> {
        let mut inner = Vec::new();
        for entry in Dir::read_from(&self.folder).map_err(|error| self.failed(error))? {
            let entry = entry.map_err(|error| self.failed(error))?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let is_folder = entry.file_type() == FileType::Directory
                || entry.file_type() == FileType::Unknown && self.is_folder(name);
            if is_folder {
                inner.push(name.to_owned());
            } else {
                let path = self.path.join(name);
                unlink(&self.folder, name, AtFlags::empty(), &path)?;
            }
        }
        let busy = self.failed(io::ErrorKind::DirectoryNotEmpty);
        let Some(level) = self.levels.last_mut() else {
            return Ok(false);
        };
        level.reads += 1;
        if level.reads > MOST_READS {
            return Err(busy);
        }
        level.inner = inner;
        Ok(!level.inner.is_empty())
    }

    fn is_folder(&self, name: &OsStr) -> bool {
        let stat = fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
    }

    /// Enters a folder of the open one.
    fn down(&mut self, name: OsString) -> Result<(), Error> {
        let below = Self::enter(&self.folder, &name, self.path.join(&name));
        let mut below = match below {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        let top = self.levels.first().map(|top| top.id);
        let found = below.levels.pop();
        let Some(level) =
            found.filter(|level| top.is_some_and(|top| level.id.is_on_the_mount_of(top)))
        else {
            return Err(Error::Mounted(below.path));
        };
        self.levels.push(level);
        self.folder = below.folder;
        self.path = below.path;
        Ok(())
    }

    /// Leaves the open folder, which is empty, and removes it.
    fn up(&mut self) -> Result<(), Error> {
        let above = fs::openat(&self.folder, "..", OPEN, Mode::empty());
        let above = above.map_err(|error| self.failed(error))?;
        let id = Id::of(&above).map_err(|error| self.failed(error))?;
        let left = self.levels.pop();
        let (Some(left), Some(level)) = (left, self.levels.last_mut()) else {
            return Ok(());
        };
        if id != level.id {
            // Somebody has moved it meanwhile: where to is no longer ours.
            return Err(self.failed(io::Error::other("it was moved while it was being removed")));
        }
        match unlink(&above, &left.name, AtFlags::REMOVEDIR, &self.path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::DirectoryNotEmpty => {
                // Something was put into it: once more.
                level.inner.push(left.name);
            }
            other => other?,
        }
        self.folder = above;
        self.path.pop();
        Ok(())
    }
}

/// Opens a folder, also one that its owner may not enter.
fn open(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    match fs::openat(parent, name, OPEN, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let path = fs::openat(parent, name, OPEN | OFlags::PATH, Mode::empty())?;
            open_up(&path)?;
            fs::openat(parent, name, OPEN, Mode::empty())
        }
        other => other,
    }
}

/// Gives its owner all rights to a folder. fchmod(2) wants a file that may be read; this one need not be.
fn open_up(folder: &OwnedFd) -> rustix::io::Result<()> {
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let done = std::fs::set_permissions(path, Permissions::from_mode(0o700));
    done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::ACCESS))
}

/// Removes one name; gone already is as good.
pub(super) fn unlink(
    folder: &OwnedFd,
    name: &OsStr,
    flags: AtFlags,
    path: &Path,
) -> Result<(), Error> {
    let mut done = fs::unlinkat(folder, name, flags);
    if done == Err(Errno::ACCESS) && open_up(folder).is_ok() {
        done = fs::unlinkat(folder, name, flags);
    }
    match done {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // Only a mount point says so (unlink(2), rmdir(2)).
        Err(Errno::BUSY) => Err(Error::Mounted(path.to_owned())),
        Err(error) => Err(Error::Io {
            path: path.to_owned(),
            source: error.into(),
        }),
    }
}
