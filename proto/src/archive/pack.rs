//! Files and folders into one tar stream. The same files give the same bytes: names are sorted, owners left out.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, Stat};
use tar::{Builder, EntryType, Header};

use super::Totals;
use super::folder::{Folder, kind};

/// Bytes that are read and passed on at once.
const PIECE_BYTES: usize = 256 << 10;
/// Folders in folders: each is open while those in it are packed.
const MAX_DEPTH: usize = 200;
/// Size of a block of a tar (tar(5)).
const BLOCK_BYTES: u64 = 512;

/// One thing to pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is. When it is a link, what that leads to is packed.
    pub path: PathBuf,
    /// Its name in the archive; `None` = what is in it, without itself.
    pub name: Option<OsString>,
}

/// Something that is not packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It can't be read, or is not there.
    #[error("{}: {source}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Two sources have one name.
    #[error("{0} is the name of two of them: copy them one by one")]
    SameName(String),
    /// It has no name of its own.
    #[error("{} is no file or folder that can be copied", .0.display())]
    NoName(PathBuf),
    /// It is a device, a pipe or a socket.
    #[error("{} is a device, a pipe or a socket: only files, folders and links are copied", .0.display())]
    Special(PathBuf),
    /// It changed meanwhile.
    #[error("{} changed while it was read: copy it again when nobody writes to it", .0.display())]
    Changed(PathBuf),
    /// Too many folders in folders.
    #[error("{} is deeper than {MAX_DEPTH} folders", .0.display())]
    TooDeep(PathBuf),
    /// Whoever takes the stream does not.
    #[error("cannot pass the archive on: {0}")]
    Write(io::Error),
}

/// What these paths mean: the last name of each, or what is in it where it ends in `.`, `..` or is `/`.
///
/// # Errors
/// When two have the same name, or one has none.
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, PackError> {
    let mut names = BTreeSet::new();
    let mut sources = Vec::new();
    for path in paths {
        let text = path.to_string_lossy();
        let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or("");
        let name = match last {
            "" if text.is_empty() => return Err(PackError::NoName(path.clone())),
            "" | "." | ".." => None,
            _ => path.file_name().map(ToOwned::to_owned),
        };
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            return Err(PackError::SameName(name.to_string_lossy().into_owned()));
        }
        sources.push(Source {
            path: path.clone(),
            name,
        });
    }
    Ok(sources)
}

/// Writes the archive to `out`. What is left out, or was cut at the length that it had, is told to `note`.
///
/// # Errors
/// At the first thing that can't be read, or was changed while it was read. `out` then has no whole archive.
pub fn pack(
    sources: &[Source],
    out: impl Write,
    note: &mut dyn FnMut(String),
) -> Result<Totals, PackError> {
    // All are looked at before the first byte goes out.
    for source in sources {
        look(&source.path)?;
    }
    let mut packer = Packer {
        out: Builder::new(out),
        buffer: vec![0; PIECE_BYTES],
        totals: Totals::default(),
        note,
    };
    for source in sources {
        packer.top(source)?;
    }
    packer.out.finish().map_err(PackError::Write)?;
    packer.out.get_mut().flush().map_err(PackError::Write)?;
    Ok(packer.totals)
}

fn look(path: &Path) -> Result<Metadata, PackError> {
    let meta = fs::metadata(path).map_err(read(path))?;
    if meta.is_dir() || meta.is_file() {
        Ok(meta)
    } else {
        Err(PackError::Special(path.to_owned()))
    }
}

fn read(path: &Path) -> impl FnOnce(io::Error) -> PackError {
    let path = path.to_owned();
    move |source| PackError::Read { path, source }
}

struct Packer<'a, W: Write> {
    out: Builder<W>,
    buffer: Vec<u8>,
    totals: Totals,
    note: &'a mut dyn FnMut(String),
}

impl<W: Write> Packer<'_, W> {
    fn top(&mut self, source: &Source) -> Result<(), PackError> {
        let path = &source.path;
        let inside = source.name.as_ref().map(PathBuf::from).unwrap_or_default();
        if !look(path)?.is_dir() {
            let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
            let file = fs::OpenOptions::new()
                .read(true)
                .custom_flags(flags)
                .open(path)
                .map_err(read(path))?;
            return self.file(file, &inside, path);
        }
        let folder = Folder::open(path).map_err(read(path))?;
        self.folder(&folder, &inside, path, 0)
    }

    fn folder(
        &mut self,
        folder: &Folder,
        inside: &Path,
        path: &Path,
        depth: usize,
    ) -> Result<(), PackError> {
        if depth == MAX_DEPTH {
            return Err(PackError::TooDeep(path.to_owned()));
        }
        if !inside.as_os_str().is_empty() {
            let stat = rustix::fs::fstat(folder.fd()).map_err(|error| read(path)(error.into()))?;
            self.header(EntryType::Directory, inside, &stat, 0)?;
        }
        for name in folder.names().map_err(read(path))? {
            let (inside, path) = (inside.join(&name), path.join(&name));
            let Some(stat) = folder.look(&name).map_err(read(&path))? else {
                continue; // gone since the folder was read
            };
            match kind(&stat) {
                FileType::Directory => match folder.enter(&name).map_err(read(&path))? {
                    Some(inner) => self.folder(&inner, &inside, &path, depth + 1)?,
                    None => return Err(PackError::Changed(path)),
                },
                FileType::RegularFile => match folder.read(&name) {
                    Ok(file) => self.file(file, &inside, &path)?,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(read(&path)(error)),
                },
                FileType::Symlink => {
                    let to = folder.link_of(&name).map_err(read(&path))?;
                    self.link(&inside, Path::new(&to), &stat)?;
                }
                _ => (self.note)(format!(
                    "{} was left out: a device, a pipe or a socket",
                    path.display()
                )),
            }
        }
        Ok(())
    }

    fn header(
        &mut self,
        kind: EntryType,
        inside: &Path,
        stat: &Stat,
        size: u64,
    ) -> Result<(), PackError> {
        let mut header = header(kind, stat.st_mode, stat.st_mtime, size);
        // The content follows by our own hand: it is checked while it is read.
        self.out
            .append_data(&mut header, inside, io::empty())
            .map_err(PackError::Write)
    }

    fn link(&mut self, inside: &Path, to: &Path, stat: &Stat) -> Result<(), PackError> {
        let mut header = header(EntryType::Symlink, stat.st_mode, stat.st_mtime, 0);
        self.out
            .append_link(&mut header, inside, to)
            .map_err(PackError::Write)
    }

    /// What the file has when it is opened; one that grows is cut there, any other change is an error.
    fn file(&mut self, mut file: File, inside: &Path, path: &Path) -> Result<(), PackError> {
        let changed = || PackError::Changed(path.to_owned());
        let before = file.metadata().map_err(read(path))?;
        if !before.is_file() {
            return Err(changed());
        }
        let size = before.len();
        let stat = rustix::fs::fstat(&file).map_err(|error| read(path)(error.into()))?;
        self.header(EntryType::Regular, inside, &stat, size)?;
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let len = match file.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(changed()),
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read(path)(error)),
            };
            self.out
                .get_mut()
                .write_all(&self.buffer[..len])
                .map_err(PackError::Write)?;
            left -= len as u64;
        }
        self.pad(size)?;
        let after = file.metadata().map_err(read(path))?;
        let moment = |meta: &Metadata| (meta.mtime(), meta.mtime_nsec());
        if after.len() < size || (after.len() == size && moment(&after) != moment(&before)) {
            return Err(changed());
        }
        if after.len() > size {
            (self.note)(format!(
                "{} grew while it was read: its first {size} bytes were taken",
                path.display()
            ));
        }
        self.totals.files += 1;
        self.totals.bytes += size;
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<(), PackError> {
        let over = size % BLOCK_BYTES;
        let zeros = [0; BLOCK_BYTES as usize];
        let pad = if over == 0 { 0 } else { BLOCK_BYTES - over };
        let pad = usize::try_from(pad).expect("less than a block");
        self.out
            .get_mut()
            .write_all(&zeros[..pad])
            .map_err(PackError::Write)
    }
}

/// Mode without setuid, setgid and sticky bits; no owner.
fn header(kind: EntryType, mode: u32, mtime: i64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode & 0o777);
    header.set_mtime(u64::try_from(mtime).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}
