//! An open folder: what is in it is reached by one name at a time, and never through a link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, UTIME_OMIT};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::PART;

/// How a folder is opened.
const OPEN: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// Numbers the files of this process that are not whole yet.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// An open folder.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens the folder that the caller asked for by its own path: links in that path are followed.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(fs::open(path, OPEN, Mode::empty())?))
    }

    /// A folder in it, made with mode 0755 when nothing has that name.
    ///
    /// # Errors
    /// When a file or a link has it; as mkdir(2).
    pub fn inner(&self, name: &OsStr) -> io::Result<Self> {
        let taken = || {
            io::Error::new(
                io::ErrorKind::NotADirectory,
                "a file or link is in its place",
            )
        };
        let (folder, made) = self.enter_or_make(name)?.ok_or_else(taken)?;
        if made {
            folder.set_mode_and_time(0o755, None)?;
        }
        Ok(folder)
    }

    /// The same folder once more.
    pub(super) fn clone_of(folder: &Self) -> io::Result<Self> {
        Ok(Self(folder.0.try_clone()?))
    }

    /// A folder in it. `None` when something else has that name.
    pub(super) fn enter(&self, name: &OsStr) -> io::Result<Option<Self>> {
        match fs::openat(&self.0, name, OPEN | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A folder in it, made (mode 0700) when nothing has that name; whether it was. `None` as in [`Folder::enter`].
    pub(super) fn enter_or_make(&self, name: &OsStr) -> io::Result<Option<(Self, bool)>> {
        let made = match fs::mkdirat(&self.0, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(self.enter(name)?.map(|folder| (folder, made)))
    }

    /// What has this name, a link itself and not what it leads to; `None` when nothing has.
    pub(super) fn stat(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Names in it, sorted.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a file in it for reading: without waiting for the other end of a pipe, and not through a link.
    pub(super) fn read(&self, name: &OsStr) -> io::Result<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(fs::openat(&self.0, name, flags, Mode::empty())?.into())
    }

    /// Opens a regular file of our own in it, in a folder that is ours alone, whatever its mode; the mode is then 0600.
    pub(super) fn open_own(&self, name: &OsStr) -> io::Result<File> {
        fs::chmodat(&self.0, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(fs::openat(&self.0, name, flags, Mode::empty())?.into())
    }

    /// Where a link in it leads to.
    pub(super) fn link_of(&self, name: &OsStr) -> io::Result<OsString> {
        let target = fs::readlinkat(&self.0, name, Vec::new())?;
        Ok(OsStr::from_bytes(target.to_bytes()).to_owned())
    }

    /// A new name that nothing has, made by `make`, which fails with EXIST when something has it.
    pub(super) fn fresh<T>(
        &self,
        make: impl Fn(&OwnedFd, &str) -> rustix::io::Result<T>,
    ) -> io::Result<(String, T)> {
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("{PART}{}-{number}", std::process::id());
            match make(&self.0, &name) {
                Err(Errno::EXIST) => {}
                other => return Ok((name, other?)),
            }
        }
    }

    /// Renames within it, over any file or link that is there. Over a folder it fails.
    pub(super) fn rename_over(&self, from: &str, to: &OsStr) -> io::Result<()> {
        let renamed = fs::renameat(&self.0, from, &self.0, to);
        // Of two names of one file rename(2) keeps both; after an error it is of no use.
        let _ = fs::unlinkat(&self.0, from, AtFlags::empty());
        Ok(renamed?)
    }

    /// Removes a file or link that is not needed any more.
    pub(super) fn drop_file(&self, name: &str) {
        // It may never have been made; what is left over is recognised by its name.
        let _ = fs::unlinkat(&self.0, name, AtFlags::empty());
    }

    /// Removes a file or link in it.
    pub(super) fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes an empty folder in it.
    pub(super) fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Moves `name` to another folder, over any file or link there.
    pub(super) fn move_to(&self, name: &OsStr, to: &Folder) -> io::Result<()> {
        Ok(fs::renameat(&self.0, name, &to.0, name)?)
    }

    /// Sets its mode and, when given, its time of change.
    pub(super) fn set_mode_and_time(&self, mode: u32, mtime: Option<u64>) -> io::Result<()> {
        if let Some(mtime) = mtime {
            fs::futimens(&self.0, &times(mtime))?;
        }
        Ok(fs::fchmod(&self.0, Mode::from_raw_mode(mode))?)
    }

    /// Its mode bits.
    pub(super) fn mode(&self) -> io::Result<u32> {
        Ok(Mode::from_raw_mode(fs::fstat(&self.0)?.st_mode).as_raw_mode())
    }

    /// The descriptor, for calls that take one.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.0
    }
}

/// Kind of what a stat is of.
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The time of change alone, in seconds since 1970.
pub(super) fn times(mtime: u64) -> Timestamps {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    Timestamps {
        last_access: omit,
        last_modification: Timespec {
            tv_sec: i64::try_from(mtime).unwrap_or(i64::MAX),
            tv_nsec: 0,
        },
    }
}
