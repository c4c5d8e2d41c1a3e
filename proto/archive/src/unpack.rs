//! A copy's archive into a folder. It was made by [`super::pack`], or by somebody who pretends so: only the names that
//! were asked for are taken, each folder before what is in it, and nothing is written through a link.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read};

use super::entry::{EntryKind, Item, is_part, os, to_path};
use super::error::Error;
use super::folder::Folder;
use super::source::Source;
use super::stream::{Sink, entries};
use super::write::{Writer, is_file, link};
use super::{Limits, Totals};

/// Names that may stand at the top of an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tops {
    /// Any: what is in a folder was asked for, and nobody here knows that.
    #[default]
    Any,
    /// The last names of what was asked for. None of them is a link, since a link that is asked for is followed.
    Named(BTreeSet<OsString>),
}

impl Tops {
    /// Those of the archive that [`super::pack`] makes of these.
    pub fn of(sources: &[Source]) -> Self {
        let names: Option<BTreeSet<_>> = sources.iter().map(|source| source.name.clone()).collect();
        names
            .filter(|names| !names.is_empty())
            .map_or(Self::Any, Self::Named)
    }

    /// From names on the wire; none = any.
    pub fn from_names<T: Into<OsString>>(names: impl IntoIterator<Item = T>) -> Self {
        let names: BTreeSet<OsString> = names.into_iter().map(Into::into).collect();
        if names.is_empty() {
            Self::Any
        } else {
            Self::Named(names)
        }
    }
}

/// What is taken from a copy's archive, and how.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How much it may hold.
    pub limits: Limits,
    /// What may stand at its top.
    pub tops: Tops,
    /// New name of the only top entry.
    pub rename: Option<OsString>,
}

/// Unpacks a plain tar into `folder`. Files are replaced as a whole and keep owner and mode of what was there; folders that
/// are there are kept as they are; links are made as they are. Times are kept.
///
/// # Errors
/// At the first entry that is refused or can't be written; what was unpacked before it stays in the folder.
pub fn unpack(stream: impl Read, folder: &Folder, rules: &Rules) -> Result<Totals, Error> {
    let mut target = UnpackTarget {
        base: folder,
        open: Folder::clone_of(folder).map_err(Error::write("."))?,
        inside: Vec::new(),
        rules,
        top: None,
        writer: Writer::new(rules.limits.bytes, true),
    };
    entries(stream, rules.limits, &mut target)?;
    target.leave(0)?;
    Ok(target.writer.totals)
}

/// A folder that is not left yet.
struct OpenFolder {
    name: OsString,
    /// Mode and time, set when it is left, so that what is in it can be written; `None` for one that was there.
    mode_and_time: Option<(u32, Option<u64>)>,
}

struct UnpackTarget<'a> {
    base: &'a Folder,
    /// The folder that `inside` leads to.
    open: Folder,
    inside: Vec<OpenFolder>,
    rules: &'a Rules,
    /// The archive's first top name, when it is to be renamed.
    top: Option<Box<[u8]>>,
    writer: Writer,
}

impl Sink for UnpackTarget<'_> {
    fn entry(&mut self, item: &Item, content: &mut dyn Read, _: u64) -> Result<u64, Error> {
        let refused = |why| Error::Refused {
            name: item.name.clone(),
            why,
        };
        self.may_be_here(item).map_err(refused)?;
        let Some((last, parents)) = item.path.split_last() else {
            return Ok(0);
        };
        let new = &self.rules.rename;
        let named = |index: usize, name: &[u8]| match new {
            Some(new) if index == 0 => new.clone(),
            _ => os(name).to_owned(),
        };
        let last = named(parents.len(), last);
        let same = parents.len() <= self.inside.len()
            && parents
                .iter()
                .zip(&self.inside)
                .enumerate()
                .all(|(index, (name, inside))| named(index, name) == inside.name);
        // Only then it is sure that every folder above was made, or opened, by this very stream.
        if !same {
            return Err(refused("does not come right after its folder"));
        }
        self.leave(parents.len())?;
        let wrote = Error::write(&item.name);
        match &item.kind {
            EntryKind::Folder => {
                let entered = self.open.enter_or_make(&last).map_err(wrote)?;
                let Some((folder, made)) = entered else {
                    return Err(refused("would replace a link or a file"));
                };
                self.open = folder;
                self.inside.push(OpenFolder {
                    name: last,
                    mode_and_time: made.then_some((item.mode, item.mtime)),
                });
                Ok(0)
            }
            EntryKind::File { .. } => {
                // Of a link nothing is kept: it is replaced as what it is.
                let there = self.open.stat(&last).map_err(wrote)?;
                let there = there.filter(is_file);
                self.writer
                    .file(&self.open, &last, item, there.as_ref(), content)
            }
            // As it is, also one that leads elsewhere: /etc is full of them. Nothing is ever written through it.
            EntryKind::Symlink(to) => {
                link(&self.open, to_path(to), &last, item.mtime).map_err(wrote)?;
                Ok(0)
            }
            EntryKind::HardLink(_) => Err(refused("is a hard link, which no copy has")),
        }
    }
}

impl UnpackTarget<'_> {
    /// Whether something of that name and kind was asked for.
    fn may_be_here(&mut self, item: &Item) -> Result<(), &'static str> {
        let Some(top) = item.path.first() else {
            return match (&self.rules.tops, &item.kind) {
                (Tops::Any, EntryKind::Folder) => Ok(()),
                _ => Err("would replace the folder itself"),
            };
        };
        if item.path.iter().any(|name| is_part(name)) {
            return Err("has the name of a file that is not complete yet");
        }
        if let Tops::Named(names) = &self.rules.tops {
            if !names.contains(os(top)) {
                return Err("was not asked for");
            }
            if item.path.len() == 1 && matches!(item.kind, EntryKind::Symlink(_)) {
                return Err("is a link in place of what was asked for");
            }
        }
        if self.rules.rename.is_some() {
            let known = self.top.get_or_insert_with(|| top.clone());
            if known != top {
                return Err("is one of several, and a new name fits only one file or folder");
            }
        }
        Ok(())
    }

    /// Leaves folders until only this many are left.
    fn leave(&mut self, depth: usize) -> Result<(), Error> {
        while self.inside.len() > depth {
            let Some(left) = self.inside.pop() else {
                return Ok(());
            };
            let name = left.name.to_string_lossy();
            let wrote = Error::write(&name);
            if let Some((mode, mtime)) = left.mode_and_time {
                self.open.set_mode_and_time(mode, mtime).map_err(&wrote)?;
            }
            self.open = self.reopen().map_err(wrote)?;
        }
        Ok(())
    }

    /// From the top: what is open may have been moved elsewhere, and its `..` with it.
    fn reopen(&self) -> io::Result<Folder> {
        let mut open = Folder::clone_of(self.base)?;
        for inside in &self.inside {
            open = open
                .enter(&inside.name)?
                .ok_or(io::ErrorKind::NotADirectory)?;
        }
        Ok(open)
    }
}

#[cfg(test)]
mod tests;
