//! Bundles: a plain tar that anyone made, into an empty folder, or only inspected. Both go the same way: every entry is
//! fed to the model, and what the model answers is done on disk, or not.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;

use super::entry::{EntryKind, Item, to_path};
use super::error::{Error, garbled};
use super::folder::Folder;
use super::stream::{Sink, entries};
use super::tree::{EntryAction, SCRIPT, Tree};
use super::write::{Writer, link};
use super::{Limits, Totals};

/// Mode of folders that no entry describes.
const PLAIN_FOLDER: u32 = 0o755;
/// Without these its owner can't put anything into a folder.
const OWNER: u32 = 0o700;
/// Bytes of a script's beginning that are kept for whoever inspects it.
const HEAD_BYTES: u64 = 64 << 10;
/// Scripts whose beginning is kept. A bundle has one; those of more folders at the top are not run.
const MAX_HEADS: usize = 16;

/// How files begin, by their path in the bundle.
pub type Heads = BTreeMap<PathBuf, Vec<u8>>;

/// Reads a bundle without unpacking it; also gives the first 64 KiB of `bootstrap.sh` at the top and in folders at
/// the top, and of the file `also`.
///
/// # Errors
/// Those of [`unpack_bundle`] but for those of the disk.
pub fn inspect(
    stream: impl Read,
    limits: Limits,
    also: Option<&Path>,
) -> Result<(Tree, Heads), Error> {
    let mut inspector = Inspector {
        tree: Tree::new(limits),
        also,
        heads: Heads::new(),
    };
    entries(stream, limits, &mut inspector)?;
    Ok((inspector.tree, inspector.heads))
}

struct Inspector<'a> {
    tree: Tree,
    also: Option<&'a Path>,
    heads: Heads,
}

impl Inspector<'_> {
    fn wants(&self, path: &Path) -> bool {
        let script = path.file_name() == Some(OsStr::new(SCRIPT)) && path.iter().count() <= 2;
        self.also == Some(path)
            || script && (self.heads.len() < MAX_HEADS || self.heads.contains_key(path))
    }
}

impl Sink for Inspector<'_> {
    fn entry(&mut self, item: &Item, content: &mut dyn Read, _: u64) -> Result<u64, Error> {
        let mut head = None;
        match self.tree.step(item)? {
            EntryAction::File(path) if self.wants(&path) => {
                let mut bytes = Vec::new();
                let read = content.take(HEAD_BYTES).read_to_end(&mut bytes);
                head = Some(read.map_err(garbled)? as u64);
                self.heads.insert(path, bytes);
            }
            EntryAction::HardLink { path, from } => {
                if let Some(bytes) = self.heads.get(&from).cloned() {
                    self.heads.insert(path, bytes);
                }
            }
            EntryAction::Folder { path, .. } | EntryAction::Symlink { path, .. } => {
                self.heads.remove(&path);
            }
            _ => {}
        }
        // A content that is shorter than it says is a cut-off stream.
        let rest = item.size - head.unwrap_or(0).min(item.size);
        let read = io::copy(&mut content.take(rest), &mut io::sink()).map_err(garbled)?;
        if matches!(item.kind, EntryKind::File { .. }) && read < rest {
            return Err(Error::Garbled(io::ErrorKind::UnexpectedEof));
        }
        Ok(item.size)
    }
}

/// Unpacks a bundle into the empty `folder`. Modes are kept but for setuid and its like, owners and times are not.
///
/// # Errors
/// At the first entry that is refused or can't be written; what was unpacked before it stays in the folder.
pub fn unpack_bundle(
    stream: impl Read,
    folder: &Folder,
    limits: Limits,
) -> Result<(Tree, Totals), Error> {
    let mut disk = Disk {
        base: folder,
        tree: Tree::new(limits),
        writer: Writer::new(limits.bytes, false),
        closed: BTreeMap::new(),
        last: None,
    };
    entries(stream, limits, &mut disk)?;
    disk.close_folders()?;
    Ok((disk.tree, disk.writer.totals))
}

struct Disk<'a> {
    base: &'a Folder,
    tree: Tree,
    writer: Writer,
    /// Modes of folders that their owner can't write to; set last, so that what is in them can be written.
    closed: BTreeMap<PathBuf, u32>,
    /// The folder of the last entry: the next one is often there too.
    last: Option<(PathBuf, Folder)>,
}

impl Sink for Disk<'_> {
    fn entry(&mut self, item: &Item, content: &mut dyn Read, _: u64) -> Result<u64, Error> {
        let step = self.tree.step(item)?;
        let wrote = Error::write(&item.name);
        match step {
            EntryAction::Nothing => Ok(0),
            EntryAction::Folder { path, replaces } => {
                self.folder(&path, replaces, item.mode).map_err(wrote)?;
                Ok(0)
            }
            EntryAction::File(path) => {
                let (folder, name) = self.at(&path).map_err(wrote)?;
                let wrote = self.writer.file(&folder, &name, item, None, content);
                self.set_last(&path, folder);
                wrote
            }
            EntryAction::Symlink { path, to } => {
                let (folder, name) = self.at(&path).map_err(&wrote)?;
                link(&folder, to_path(&to), &name, None).map_err(wrote)?;
                self.set_last(&path, folder);
                Ok(0)
            }
            EntryAction::HardLink { path, from } => {
                let (open, old) = self.at(&from).map_err(&wrote)?;
                let (folder, name) = self.at(&path).map_err(&wrote)?;
                let linked = folder.fresh(|at, fresh| {
                    rustix::fs::linkat(open.fd(), &*old, at, fresh, AtFlags::empty())
                });
                linked
                    .and_then(|(part, ())| folder.rename_over(&part, &name))
                    .map_err(wrote)?;
                Ok(0)
            }
        }
    }
}

impl Disk<'_> {
    /// The open folder of `path`, and the last name of it.
    fn at(&mut self, path: &Path) -> io::Result<(Folder, std::ffi::OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.walk(parent)?, name.to_owned()))
    }

    fn folder(&mut self, path: &Path, replaces: bool, mode: u32) -> io::Result<()> {
        if replaces {
            let (parent, name) = self.at(path)?;
            parent.remove_file(&name)?;
        }
        self.closed.remove(path);
        let folder = self.walk(path)?;
        if mode & OWNER == OWNER {
            folder.set_mode_and_time(mode, None)?;
        } else {
            folder.set_mode_and_time(mode | OWNER, None)?;
            self.closed.insert(path.to_owned(), mode);
        }
        Ok(())
    }

    /// Opens a folder, name by name, making what is missing. Nothing in the path is a link: the model has resolved them.
    fn walk(&mut self, path: &Path) -> io::Result<Folder> {
        if let Some((_, folder)) = self.last.take_if(|(last, _)| last == path) {
            return Ok(folder);
        }
        let mut open = Folder::clone_of(self.base)?;
        for part in path {
            let in_the_way = io::Error::from(io::ErrorKind::NotADirectory);
            let (inner, made) = open.enter_or_make(part)?.ok_or(in_the_way)?;
            if made {
                inner.set_mode_and_time(PLAIN_FOLDER, None)?;
            }
            open = inner;
        }
        Ok(open)
    }

    fn set_last(&mut self, path: &Path, folder: Folder) {
        let parent = path.parent().unwrap_or(Path::new(""));
        self.last = Some((parent.to_owned(), folder));
    }

    fn close_folders(&mut self) -> Result<(), Error> {
        for (path, mode) in std::mem::take(&mut self.closed).into_iter().rev() {
            let closed = self
                .walk(&path)
                .and_then(|folder| folder.set_mode_and_time(mode, None));
            closed.map_err(Error::write(&path.to_string_lossy()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
