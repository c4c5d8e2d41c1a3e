//! One tar stream into one folder, entry by entry. Whatever the entries are called and lead to, nothing is written
//! outside of that folder.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use tar::{Archive, EntryType};

use super::Totals;
use super::folder::{Folder, kind, times};

/// Most bytes of the stream between the contents of two entries: headers, long names, extended attributes. The tar
/// reader holds these in memory.
const HEADER_BYTES: u64 = 4 << 20;
/// Bytes that are read and written at once.
const PIECE_BYTES: usize = 256 << 10;
/// Mode of folders that no entry describes.
const PLAIN_FOLDER: u32 = 0o755;

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Entries of any kind.
    pub entries: u64,
}

/// What is taken from an archive, and how.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How much it may hold.
    pub limits: Limits,
    /// It was made by anyone, for a folder that stands alone: hard links and sparse files are taken, links that may lead
    /// out of the folder are refused, times are not kept. Else it was made by [`super::pack`]: links are made as they
    /// are (and never written through), times are kept.
    pub bundle: bool,
    /// New name of the only top entry.
    pub rename: Option<OsString>,
}

/// An archive that is not unpacked, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No tar, or a damaged one. The reader's own words may quote what is in it, and are left out.
    #[error("it is damaged, or no tar: {0}")]
    Garbled(io::ErrorKind),
    /// One entry could not be written.
    #[error("{name} cannot be written: {source}")]
    Write {
        /// The entry.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// An entry is refused.
    #[error("entry {name} is refused: {why}")]
    Refused {
        /// The entry.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// Too many bytes.
    #[error("more than {limit} bytes, at entry {name}")]
    TooBig {
        /// The entry.
        name: String,
        /// The bound.
        limit: u64,
    },
    /// Too many entries.
    #[error("more than {0} entries")]
    TooMany(u64),
}

/// Unpacks a plain tar into `folder`. Files are replaced as a whole, folders that are there are kept as they are.
///
/// # Errors
/// At the first entry that is refused or can't be written; what was unpacked before it stays in the folder.
pub fn unpack(stream: impl Read, folder: &Folder, rules: &Rules) -> Result<Totals, Error> {
    let allowance = Rc::new(Cell::new(HEADER_BYTES));
    let mut archive = Archive::new(Metered {
        stream,
        left: allowance.clone(),
    });
    let mut target = Target {
        folder,
        rules,
        left_bytes: rules.limits.bytes,
        top: None,
        made: BTreeMap::new(),
        last: None,
        buffer: vec![0; PIECE_BYTES],
        totals: Totals::default(),
    };
    let mut entries = 0;
    for entry in archive.entries().map_err(garbled)? {
        let mut entry = entry.map_err(garbled)?;
        entries += 1;
        if entries > rules.limits.entries {
            return Err(Error::TooMany(rules.limits.entries));
        }
        // The content is bounded by what is left of the limit; the rest of the allowance is for the next header.
        allowance.set(target.left_bytes.saturating_add(HEADER_BYTES));
        target.place(&mut entry)?;
        let rest = target.left_bytes.saturating_add(1);
        io::copy(&mut (&mut entry).take(rest), &mut io::sink()).map_err(garbled)?;
        allowance.set(HEADER_BYTES);
    }
    target.dress_folders()?;
    Ok(target.totals)
}

fn garbled(error: io::Error) -> Error {
    Error::Garbled(error.kind())
}

/// A reader that fails when more is read than was allowed.
struct Metered<R> {
    stream: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left.get())
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 && !buffer.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "names or attributes of an entry are too long",
            ));
        }
        let len = self.stream.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - len as u64);
        Ok(len)
    }
}

/// What a folder that was made here is to look like in the end.
#[derive(Debug, Clone, Copy)]
struct Dress {
    mode: u32,
    mtime: Option<u64>,
}

struct Target<'a> {
    folder: &'a Folder,
    rules: &'a Rules,
    left_bytes: u64,
    /// The archive's first top name, when it is to be renamed.
    top: Option<OsString>,
    /// Folders that were made here; dressed last, so that what is in them can be written.
    made: BTreeMap<PathBuf, Dress>,
    /// The folder of the last entry: the next one is often there too.
    last: Option<(PathBuf, Folder)>,
    buffer: Vec<u8>,
    totals: Totals,
}

impl Target<'_> {
    fn place<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), Error> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |why| Error::Refused {
            name: name.clone(),
            why,
        };
        let wrote = |source| Error::Write {
            name: name.clone(),
            source,
        };
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = entry.path().map_err(|_| refused("its name is no path"))?;
        let path = inside(&path).ok_or_else(|| refused("its name leaves the folder"))?;
        let path = self.renamed(path).map_err(refused)?;
        let (Some(parent), Some(last)) = (path.parent(), path.file_name()) else {
            return if kind.is_dir() {
                Ok(())
            } else {
                Err(refused("it would replace the folder itself"))
            };
        };
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let mtime = self.mtime(entry.header());
        let Some(folder) = self.walk(parent).map_err(wrote)? else {
            return Err(refused("it would be written through a link or a file"));
        };
        match kind {
            EntryType::Directory => {
                self.keep(parent, folder);
                if self.walk(&path).map_err(wrote)?.is_none() {
                    return Err(refused("it would replace a link or a file"));
                }
                if let Some(dress) = self.made.get_mut(&path) {
                    *dress = Dress { mode, mtime };
                }
                return Ok(());
            }
            EntryType::Regular | EntryType::Continuous => {
                self.file(entry, &folder, last, mode, &name)?;
            }
            EntryType::GNUSparse if self.rules.bundle => {
                self.file(entry, &folder, last, mode, &name)?;
            }
            EntryType::Symlink => {
                let to = entry.link_name().ok().flatten();
                let to = to.ok_or_else(|| refused("it is a link to nowhere"))?;
                if self.rules.bundle && !link_stays(&to, parent) {
                    return Err(refused("it is a link that may leave the folder"));
                }
                link(&folder, &to, last, mtime).map_err(wrote)?;
            }
            EntryType::Link if self.rules.bundle => {
                let to = entry.link_name().ok().flatten().and_then(|to| inside(&to));
                let linked = to.map(|to| self.hard_link(&to, &folder, last));
                match linked.transpose().map_err(wrote)? {
                    Some(true) => {}
                    _ => return Err(refused("it is a hard link to no file of the bundle")),
                }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                return Err(refused("it is a device or a pipe"));
            }
            _ => return Err(refused("it is of a kind that is not taken")),
        }
        self.keep(parent, folder);
        Ok(())
    }

    /// The path with its top name replaced, where that is wanted.
    fn renamed(&mut self, path: PathBuf) -> Result<PathBuf, &'static str> {
        let Some(new) = &self.rules.rename else {
            return Ok(path);
        };
        let mut parts = path.components();
        let Some(top) = parts.next() else {
            return Ok(path);
        };
        let known = self.top.get_or_insert_with(|| top.as_os_str().to_owned());
        if known != top.as_os_str() {
            return Err("a new name is for one file or folder, and there are several");
        }
        let rest = parts.as_path();
        Ok(if rest.as_os_str().is_empty() {
            PathBuf::from(new)
        } else {
            Path::new(new).join(rest)
        })
    }

    fn mtime(&self, header: &tar::Header) -> Option<u64> {
        if self.rules.bundle {
            return None;
        }
        header.mtime().ok()
    }

    /// A temporary file in the folder that gets its name once it is whole.
    fn file<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        folder: &Folder,
        last: &OsStr,
        mode: u32,
        name: &str,
    ) -> Result<(), Error> {
        let wrote = |source| Error::Write {
            name: name.to_owned(),
            source,
        };
        if entry.size() > self.left_bytes {
            return Err(Error::TooBig {
                name: name.to_owned(),
                limit: self.rules.limits.bytes,
            });
        }
        let mtime = self.mtime(entry.header());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (part, fd) = folder
            .fresh(|at, name| rustix::fs::openat(at, name, flags, Mode::RUSR | Mode::WUSR))
            .map_err(wrote)?;
        let filled = self
            .fill(entry, File::from(fd), mode, mtime, name)
            .and_then(|bytes| folder.settle(&part, last).map(|()| bytes).map_err(wrote));
        if filled.is_err() {
            folder.drop_file(&part);
        }
        self.totals.bytes += filled?;
        self.totals.files += 1;
        Ok(())
    }

    fn fill<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        mut file: File,
        mode: u32,
        mtime: Option<u64>,
        name: &str,
    ) -> Result<u64, Error> {
        let wrote = |source| Error::Write {
            name: name.to_owned(),
            source,
        };
        let size = entry.size();
        let mut copied = 0;
        loop {
            let len = match entry.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(garbled(error)),
            };
            copied += len as u64;
            if copied > self.left_bytes {
                return Err(Error::TooBig {
                    name: name.to_owned(),
                    limit: self.rules.limits.bytes,
                });
            }
            file.write_all(&self.buffer[..len]).map_err(wrote)?;
        }
        if copied < size {
            return Err(Error::Garbled(io::ErrorKind::UnexpectedEof));
        }
        self.left_bytes -= copied;
        file.set_permissions(Permissions::from_mode(mode))
            .map_err(wrote)?;
        if let Some(mtime) = mtime {
            rustix::fs::futimens(&file, &times(mtime)).map_err(|error| wrote(error.into()))?;
        }
        Ok(copied)
    }

    /// Opens the folder `path`, name by name, making what is missing; `None` when something else is in the way.
    fn walk(&mut self, path: &Path) -> io::Result<Option<Folder>> {
        if let Some((_, folder)) = self.last.take_if(|(last, _)| last == path) {
            return Ok(Some(folder));
        }
        let mut at = PathBuf::new();
        let mut open = Folder::clone_of(self.folder)?;
        for part in path.components() {
            at.push(part);
            let Some((inner, made)) = open.enter_or_make(part.as_os_str())? else {
                return Ok(None);
            };
            if made {
                let dress = Dress {
                    mode: PLAIN_FOLDER,
                    mtime: None,
                };
                self.made.insert(at.clone(), dress);
            }
            open = inner;
        }
        Ok(Some(open))
    }

    fn keep(&mut self, path: &Path, folder: Folder) {
        self.last = Some((path.to_owned(), folder));
    }

    /// Gives a regular file, reached through folders only, one more name; false when `to` is none.
    fn hard_link(&self, to: &Path, folder: &Folder, last: &OsStr) -> io::Result<bool> {
        let (Some(parent), Some(name)) = (to.parent(), to.file_name()) else {
            return Ok(false);
        };
        let mut open = Folder::clone_of(self.folder)?;
        for part in parent.components() {
            match open.enter(part.as_os_str()) {
                Ok(Some(inner)) => open = inner,
                Ok(None) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        let plain = open
            .look(name)?
            .is_some_and(|stat| kind(&stat) == FileType::RegularFile);
        if !plain {
            return Ok(false);
        }
        let (part, ()) = folder
            .fresh(|at, fresh| rustix::fs::linkat(open.fd(), name, at, fresh, AtFlags::empty()))?;
        folder.settle(&part, last)?;
        Ok(true)
    }

    fn dress_folders(&mut self) -> Result<(), Error> {
        self.last = None;
        for (path, dress) in std::mem::take(&mut self.made).into_iter().rev() {
            let dressed = self.walk(&path).and_then(|folder| {
                let folder = folder.ok_or(io::ErrorKind::NotADirectory)?;
                folder.dress(dress.mode, dress.mtime)
            });
            dressed.map_err(|source| Error::Write {
                name: path.to_string_lossy().into_owned(),
                source,
            })?;
        }
        Ok(())
    }
}

/// A link to `to`, in place of any file or link of that name.
fn link(folder: &Folder, to: &Path, last: &OsStr, mtime: Option<u64>) -> io::Result<()> {
    let (part, ()) = folder.fresh(|at, fresh| rustix::fs::symlinkat(to, at, fresh))?;
    if let Some(mtime) = mtime {
        // Some file systems keep no times of links.
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let _ = rustix::fs::utimensat(folder.fd(), &part, &times(mtime), flags);
    }
    folder.settle(&part, last)
}

/// The path without `.`; `None` when it is absolute or has `..`.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// Whether a link in the folder `parent` (real folders only) stays inside, whatever its target is made of: `..` is taken
/// at the front only, because after a name it would be counted from where that name, itself a link, leads to.
fn link_stays(to: &Path, parent: &Path) -> bool {
    let mut up = 0;
    let mut named = false;
    for part in to.components() {
        match part {
            Component::ParentDir if named => return false,
            Component::ParentDir => up += 1,
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    !to.as_os_str().is_empty() && up <= parent.components().count()
}
