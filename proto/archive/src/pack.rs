//! Files and folders into one tar stream. The same files give the same bytes: names are sorted, owners left out.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags, Stat};
use tar::{Builder, EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::entry::is_part;
use super::folder::{Folder, kind};
use super::made;
use super::source::{PackError, Source};
use super::sparse::{Map, map_of};
use super::{MAX_DEPTH, Totals};

/// Bytes that are read and passed on at once.
const PIECE_BYTES: usize = 256 << 10;
/// Size of a block of a tar (tar(5)).
const BLOCK_BYTES: u64 = 512;

/// Writes the archive to `out`. What is left out, or was cut at the length that it had, is reported by `warn`.
///
/// # Errors
/// At the first thing that can't be read, or was changed while it was read. `out` then has no whole archive.
pub fn pack(
    sources: &[Source],
    out: impl Write,
    warn: &mut dyn FnMut(String),
) -> Result<Totals, PackError> {
    // All are checked before the first byte goes out.
    for source in sources {
        check(&source.path)?;
    }
    let mut packer = Packer {
        out: Builder::new(out),
        buffer: vec![0; PIECE_BYTES],
        totals: Totals::default(),
        warn,
    };
    for source in sources {
        packer.top(source)?;
    }
    packer.out.finish().map_err(PackError::Write)?;
    packer.out.get_mut().flush().map_err(PackError::Write)?;
    Ok(packer.totals)
}

fn check(path: &Path) -> Result<Metadata, PackError> {
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
    warn: &'a mut dyn FnMut(String),
}

impl<W: Write> Packer<'_, W> {
    fn top(&mut self, source: &Source) -> Result<(), PackError> {
        let path = &source.path;
        let inside = source.name.as_ref().map(PathBuf::from).unwrap_or_default();
        if !check(path)?.is_dir() {
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
            let part = is_part(name.as_encoded_bytes());
            let (inside, path) = (inside.join(&name), path.join(&name));
            if part {
                (self.warn)(format!(
                    "{} was left out: it is left from an interrupted copy",
                    path.display()
                ));
                continue;
            }
            let Some(stat) = folder.stat(&name).map_err(read(&path))? else {
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
                _ => (self.warn)(format!(
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
        if let Some(content) = made::content(&file, &before) {
            return self.made(&content, inside, &stat);
        }
        match map_of(&file, size) {
            None => {
                self.header(EntryType::Regular, inside, &stat, size)?;
                file.rewind().map_err(read(path))?;
                self.content(&mut file, size, path)?;
            }
            Some(map) => self.sparse(&mut file, inside, path, &stat, map)?,
        }
        let after = file.metadata().map_err(read(path))?;
        let moment = |meta: &Metadata| (meta.mtime(), meta.mtime_nsec());
        if after.len() < size || (after.len() == size && moment(&after) != moment(&before)) {
            return Err(changed());
        }
        if after.len() > size {
            (self.warn)(format!(
                "{} grew while it was read: its first {size} bytes were taken",
                path.display()
            ));
        }
        self.count(size);
        Ok(())
    }

    fn made(&mut self, content: &[u8], inside: &Path, stat: &Stat) -> Result<(), PackError> {
        let size = content.len() as u64;
        self.header(EntryType::Regular, inside, stat, size)?;
        let out = self.out.get_mut();
        out.write_all(content).map_err(PackError::Write)?;
        self.count(size);
        self.pad(size)
    }

    fn count(&mut self, bytes: u64) {
        self.totals.files += 1;
        self.totals.bytes += bytes;
    }

    /// `size` bytes from where the file stands, filled up to whole blocks.
    fn content(&mut self, file: &mut File, size: u64, path: &Path) -> Result<(), PackError> {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let len = match file.read(&mut self.buffer[..most]) {
                Ok(0) => return Err(PackError::Changed(path.to_owned())),
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
        self.pad(size)
    }

    /// A file with holes in GNU tar's old form (tar(5), "GNU tar archives"): a reader that does not know it refuses it,
    /// instead of making something else of it.
    fn sparse(
        &mut self,
        file: &mut File,
        inside: &Path,
        path: &Path,
        stat: &Stat,
        map: Map,
    ) -> Result<(), PackError> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let blocks = block_aligned(map, size);
        let data = blocks.iter().map(|(_, len)| len).sum();
        let mut header = header(EntryType::GNUSparse, stat.st_mode, stat.st_mtime, data);
        let (first, more) = blocks.split_at(blocks.len().min(4));
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.set_real_size(size);
            first.iter().zip(&mut gnu.sparse).for_each(put_block);
            gnu.isextended = [u8::from(!more.is_empty())];
        }
        self.out
            .append_data(&mut header, inside, io::empty())
            .map_err(PackError::Write)?;
        let mut chunks = more.chunks(21).peekable();
        while let Some(chunk) = chunks.next() {
            let mut extended = GnuExtSparseHeader::new();
            chunk.iter().zip(&mut extended.sparse).for_each(put_block);
            extended.isextended = [u8::from(chunks.peek().is_some())];
            self.out
                .get_mut()
                .write_all(extended.as_bytes())
                .map_err(PackError::Write)?;
        }
        for (offset, len) in blocks {
            file.seek(io::SeekFrom::Start(offset)).map_err(read(path))?;
            self.content(file, len, path)?;
        }
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

/// Pieces of data that begin and, but for the last, end at whole blocks of a tar, as its readers want them; and an empty
/// one at the end of a file that ends with a hole.
fn block_aligned(map: Map, size: u64) -> Map {
    let mut blocks = Map::new();
    for (start, len) in map {
        let first = start - start % BLOCK_BYTES;
        let end = (start + len).next_multiple_of(BLOCK_BYTES).min(size);
        match blocks.last_mut() {
            Some((start, len)) if *start + *len >= first => *len = end.max(*start + *len) - *start,
            _ => blocks.push((first, end - first)),
        }
    }
    if blocks.last().is_none_or(|(start, len)| start + len < size) {
        blocks.push((size, 0));
    }
    blocks
}

fn put_block((block, header): (&(u64, u64), &mut GnuSparseHeader)) {
    header.set_offset(block.0);
    header.set_length(block.1);
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

#[cfg(test)]
mod tests;
