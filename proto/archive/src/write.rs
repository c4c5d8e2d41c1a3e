//! Files and links on disk, each whole or not there.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::Totals;
use super::entry::{EntryKind, Item};
use super::error::{Error, garbled};
use super::folder::{Folder, kind, times};

/// Bytes that are read and written at once.
const PIECE_BYTES: usize = 256 << 10;
/// Zeros are left out of files with holes in pieces of this size: a block of the usual file systems.
const HOLE_BYTES: usize = 4 << 10;

/// Writes regular files, up to a number of bytes in all.
pub(super) struct Writer {
    limit: u64,
    /// Whether files get the times that the archive gives them.
    times: bool,
    buffer: Vec<u8>,
    pub totals: Totals,
}

impl Writer {
    pub(crate) fn new(limit: u64, times: bool) -> Self {
        Self {
            limit,
            times,
            buffer: vec![0; PIECE_BYTES],
            totals: Totals::default(),
        }
    }

    /// A temporary file in the folder that gets its name once it is whole. `there`: a regular file of that name, whose
    /// owner and mode are kept. Says how many bytes it has.
    pub(crate) fn file(
        &mut self,
        folder: &Folder,
        name: &OsStr,
        item: &Item,
        there: Option<&Stat>,
        content: &mut dyn Read,
    ) -> Result<u64, Error> {
        let wrote = Error::write(&item.name);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Only ours until it is whole: its own mode comes before its name.
        let (part, fd) = folder
            .fresh(|at, name| rustix::fs::openat(at, name, flags, Mode::RUSR | Mode::WUSR))
            .map_err(&wrote)?;
        let file = File::from(fd);
        let filled = self.fill(&file, item, content).and_then(|bytes| {
            self.set_mode_and_time(&file, item, there)
                .and_then(|()| folder.rename_over(&part, name))
                .map_err(&wrote)?;
            Ok(bytes)
        });
        if filled.is_err() {
            folder.drop_file(&part);
        }
        let bytes = filled?;
        self.totals.bytes += bytes;
        self.totals.files += 1;
        Ok(bytes)
    }

    fn fill(&mut self, mut file: &File, item: &Item, content: &mut dyn Read) -> Result<u64, Error> {
        let wrote = Error::write(&item.name);
        let holes = item.kind == EntryKind::File { holes: true };
        let left = self.limit - self.totals.bytes.min(self.limit);
        let mut copied = 0;
        loop {
            let len = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(garbled(error)),
            };
            copied += len as u64;
            if copied > left {
                return Err(Error::TooBig {
                    name: item.name.clone(),
                    limit: self.limit,
                });
            }
            let piece = &self.buffer[..len];
            if holes {
                write_with_holes(file, piece).map_err(&wrote)?;
            } else {
                file.write_all(piece).map_err(&wrote)?;
            }
        }
        if copied < item.size {
            return Err(Error::Garbled(io::ErrorKind::UnexpectedEof));
        }
        if holes {
            file.set_len(copied).map_err(wrote)?;
        }
        Ok(copied)
    }

    fn set_mode_and_time(&self, file: &File, item: &Item, there: Option<&Stat>) -> io::Result<()> {
        match there {
            Some(there) => copy_owner_and_mode(file, there)?,
            None => file.set_permissions(Permissions::from_mode(item.mode))?,
        }
        if let Some(mtime) = item.mtime.filter(|_| self.times) {
            rustix::fs::futimens(file, &times(mtime))?;
        }
        Ok(())
    }
}

/// Writes what is not zero, and leaves the rest to be a hole.
fn write_with_holes(mut file: &File, piece: &[u8]) -> io::Result<()> {
    for block in piece.chunks(HOLE_BYTES) {
        if block.iter().all(|byte| *byte == 0) {
            let len = i64::try_from(block.len()).expect("a block is small");
            file.seek(SeekFrom::Current(len))?;
        } else {
            file.write_all(block)?;
        }
    }
    Ok(())
}

/// Gives a file that replaces another the other's owner and mode bits, as cp(1) leaves them. Who may not give a file away
/// keeps it, with those of the bits that its new owner's file had: nobody may read it who could not read the other.
pub(super) fn copy_owner_and_mode(file: &File, there: &Stat) -> io::Result<()> {
    use rustix::fs::{Gid, Uid, fchown, fstat};
    let now = fstat(file)?;
    let mut mode = there.st_mode & 0o777;
    if (now.st_uid, now.st_gid) != (there.st_uid, there.st_gid) {
        let (uid, gid) = (Uid::from_raw(there.st_uid), Gid::from_raw(there.st_gid));
        if fchown(file, Some(uid), Some(gid)).is_err() && now.st_gid != there.st_gid {
            // The group's bits were meant for another group.
            mode &= !0o070;
        }
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Whether a stat is of a regular file.
pub(super) fn is_file(stat: &Stat) -> bool {
    kind(stat) == FileType::RegularFile
}

/// A link to `to`, in place of any file or link of that name.
pub(super) fn link(folder: &Folder, to: &Path, name: &OsStr, mtime: Option<u64>) -> io::Result<()> {
    let (part, ()) = folder.fresh(|at, fresh| rustix::fs::symlinkat(to, at, fresh))?;
    if let Some(mtime) = mtime {
        // Some file systems keep no times of links.
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let _ = rustix::fs::utimensat(folder.fd(), &part, &times(mtime), flags);
    }
    folder.rename_over(&part, name)
}
