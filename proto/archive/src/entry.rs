//! What one entry of a tar says, in the terms of this module. The first gate of every archive: names and kinds that are
//! taken nowhere end here.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tar::{Entry, EntryType};

use super::error::{Error, garbled, shown};
use super::sparse::{Expanded, Posix};
use super::{MAX_DEPTH, PART};

/// Longest name of one file or folder (NAME_MAX, limits.h(0p)).
const MAX_NAME_BYTES: usize = 255;
/// Longest target of a link: PATH_MAX without its final NUL (limits.h(0p)).
const MAX_TARGET_BYTES: usize = 4095;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Its name, for people.
    pub name: String,
    /// The names of its path, without `.` and empty ones; none = the folder itself.
    pub path: Vec<Box<[u8]>>,
    pub kind: EntryKind,
    /// Mode bits without setuid, setgid and sticky.
    pub mode: u32,
    /// Time of change, seconds since 1970.
    pub mtime: Option<u64>,
    /// Bytes of a regular file as it will be, holes and all; 0 of others.
    pub size: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    Folder,
    /// With holes: what is not written reads as zeros.
    File {
        holes: bool,
    },
    Symlink(Vec<u8>),
    /// To this path of the archive.
    HardLink(Vec<Box<[u8]>>),
}

impl Item {
    /// What the entry says, and its content; `None` for one that only describes others.
    pub(crate) fn read<'e, 'a, R: Read>(
        entry: &'e mut Entry<'a, R>,
    ) -> Result<Option<(Self, EntryContent<'e, 'a, R>)>, Error> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(None);
        }
        let mut bytes = entry.path_bytes().into_owned();
        let posix = match Posix::of(entry).map_err(garbled)? {
            Some(posix) if is_file(kind) => Some(posix),
            _ => None,
        };
        if let Some(name) = posix.as_ref().and_then(|posix| posix.name.clone()) {
            bytes = name;
        }
        let name = shown(&bytes);
        let refused = |why| Error::Refused {
            name: name.clone(),
            why,
        };
        let path = parts(&bytes).map_err(refused)?;
        let kind = kind_of(entry, kind, bytes.ends_with(b"/")).map_err(refused)?;
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let mtime = entry.header().mtime().ok();
        let (kind, size, content) = match (kind, posix) {
            (EntryKind::File { .. }, Some(posix)) => {
                let expanded =
                    Expanded::new(entry, &posix).map_err(|error| match error.kind() {
                        io::ErrorKind::Unsupported => {
                            refused("is a sparse file in an old form: pack it without --sparse")
                        }
                        _ => refused("is a sparse file whose map is damaged"),
                    })?;
                let size = expanded.size();
                (
                    EntryKind::File { holes: true },
                    size,
                    EntryContent::Expanded(expanded),
                )
            }
            (kind @ EntryKind::File { .. }, None) => {
                (kind, entry.size(), EntryContent::Plain(entry))
            }
            (kind, _) => (kind, 0, EntryContent::Plain(entry)),
        };
        let item = Self {
            name,
            path,
            kind,
            mode,
            mtime,
            size,
        };
        Ok(Some((item, content)))
    }
}

/// What follows an entry's header.
pub(super) enum EntryContent<'e, 'a, R: Read> {
    Plain(&'e mut Entry<'a, R>),
    Expanded(Expanded<&'e mut Entry<'a, R>>),
}

impl<R: Read> Read for EntryContent<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(entry) => entry.read(buffer),
            Self::Expanded(expanded) => expanded.read(buffer),
        }
    }
}

fn is_file(kind: EntryType) -> bool {
    matches!(kind, EntryType::Regular | EntryType::Continuous)
}

/// `slash`: the name ends in one, which is how V7 tar wrote folders (tar(5), "Old-Style Archive Format").
fn kind_of<R: Read>(
    entry: &Entry<'_, R>,
    kind: EntryType,
    slash: bool,
) -> Result<EntryKind, &'static str> {
    match kind {
        EntryType::Directory => Ok(EntryKind::Folder),
        kind if is_file(kind) && slash => Ok(EntryKind::Folder),
        kind if is_file(kind) => Ok(EntryKind::File { holes: false }),
        EntryType::GNUSparse => Ok(EntryKind::File { holes: true }),
        EntryType::Symlink | EntryType::Link => {
            let to = entry.link_name_bytes().unwrap_or_default();
            if to.is_empty() {
                Err("is a link to nowhere")
            } else if to.contains(&0) {
                Err("is a link whose target holds a NUL byte")
            } else if to.len() > MAX_TARGET_BYTES {
                Err("is a link whose target is longer than a path may be")
            } else if kind == EntryType::Symlink {
                Ok(EntryKind::Symlink(to.into_owned()))
            } else {
                let to = parts(&to).map_err(|_| "is a hard link that leaves the archive")?;
                Ok(EntryKind::HardLink(to))
            }
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => Err("is a device or a pipe"),
        _ => Err("is not a file, a folder or a link"),
    }
}

/// The names of a path, or why it is not taken.
pub(super) fn parts(path: &[u8]) -> Result<Vec<Box<[u8]>>, &'static str> {
    if path.starts_with(b"/") {
        return Err("has an absolute path");
    }
    if path.contains(&0) {
        return Err("has a NUL byte in its path");
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err("has .. in its path"),
            part if part.len() > MAX_NAME_BYTES => return Err("has a name of more than 255 bytes"),
            part => parts.push(part.into()),
        }
        if parts.len() > MAX_DEPTH + 1 {
            return Err("is deeper than 200 folders");
        }
    }
    Ok(parts)
}

/// Whether a symbolic link in a folder that is `depth` folders deep (real ones) stays inside, whatever its target is made
/// of. `..` may stand only at the front: after a name it would be counted from where that name, itself a link, leads to.
pub(super) fn link_stays(to: &[u8], depth: usize) -> Result<(), &'static str> {
    if to.starts_with(b"/") {
        return Err("is a link to an absolute path");
    }
    let mut up = 0;
    let mut named = false;
    for part in to.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if named => return Err("is a link with .. after a name"),
            b".." => up += 1,
            _ => named = true,
        }
    }
    if up > depth {
        return Err("is a link that leaves the bundle");
    }
    Ok(())
}

/// Whether the name is one of a file that is not whole yet.
pub(super) fn is_part(name: &[u8]) -> bool {
    name.starts_with(PART.as_bytes())
}

/// A name that needs no lossy reading.
pub(super) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// A path of such names.
pub(super) fn to_path(target: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside() {
        for (depth, to, good) in [
            (0, "a", true),
            (0, "./a/b", true),
            (0, "..", false),
            (1, "..", true),
            (1, "../a", true),
            (1, "../../a", false),
            (2, "../../a", true),
            (2, "a/../b", false),
            (0, "/etc/passwd", false),
        ] {
            assert_eq!(
                link_stays(to.as_bytes(), depth).is_ok(),
                good,
                "{to} at {depth}"
            );
        }
    }

    #[test]
    fn paths_stay_inside_and_are_bounded() {
        let read = |path: &str| parts(path.as_bytes());
        assert_eq!(
            read("./a/.//b/").unwrap(),
            [Box::from(&b"a"[..]), Box::from(&b"b"[..])]
        );
        let (deep, long) = ("a/".repeat(202), "a".repeat(256));
        for bad in ["../a", "a/../../b", "a/..", "/a", "a\0b", &deep, &long] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
        assert!(read(&"a/".repeat(201)).is_ok());
        assert_eq!(shown(&[b'a'; 70_000]).len(), 203);
    }
}
