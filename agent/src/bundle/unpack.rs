//! One tar stream into one empty folder, entry by entry.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, EntryType};

/// Most bytes of the stream between the contents of two entries: headers, long names, extended attributes. The tar
/// reader holds these in memory.
const HEADER_BYTES: u64 = 4 << 20;

/// How much a bundle may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Sum of the files' sizes.
    pub bytes: u64,
    /// Entries of any kind.
    pub entries: u64,
}

/// A bundle that is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk, or a stream that ends too early or is garbled.
    #[error("cannot read the bundle or make its folder")]
    Io(#[from] io::Error),
    /// No tar, or a damaged one. The reader's own words may quote what is in it, and are left out.
    #[error("it is damaged, or no tar (plain, gzip or zstd): {0}")]
    Garbled(io::ErrorKind),
    /// One entry could not be written.
    #[error("entry {name} cannot be written: {source}")]
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
    /// No bootstrap.sh.
    #[error("no bootstrap.sh at the top or in the only folder there")]
    NoScript,
    /// More than one folder with a bootstrap.sh.
    #[error("several folders with a bootstrap.sh and none at the top: put one at the top")]
    ManyScripts,
}

/// Unpacks a tar (plain, gzip or zstd, told by its first bytes) into the empty `folder`.
///
/// # Errors
/// At the first entry that is refused or can't be written; what was unpacked before it stays in the folder.
pub fn unpack(packed: impl Read, folder: &Path, limits: Limits) -> Result<(), Error> {
    let mut packed = BufReader::with_capacity(64 << 10, packed);
    let stream: Box<dyn Read> = match packed.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(packed)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
        _ => Box::new(packed),
    };
    let allowance = Rc::new(Cell::new(HEADER_BYTES));
    let mut archive = Archive::new(Metered {
        stream,
        left: allowance.clone(),
    });
    let mut target = Target {
        folder,
        left_bytes: limits.bytes,
        limits,
        modes: Vec::new(),
    };
    let mut entries = 0;
    for entry in archive.entries().map_err(garbled)? {
        let mut entry = entry.map_err(garbled)?;
        entries += 1;
        if entries > limits.entries {
            return Err(Error::TooMany(limits.entries));
        }
        // The content is bounded by what is left of the limit; the rest of the allowance is for the next header.
        allowance.set(target.left_bytes.saturating_add(HEADER_BYTES));
        target.place(&mut entry)?;
        io::copy(
            &mut (&mut entry).take(target.left_bytes + 1),
            &mut io::sink(),
        )
        .map_err(garbled)?;
        allowance.set(HEADER_BYTES);
    }
    target.set_modes()
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
        let read = self.stream.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}

struct Target<'a> {
    folder: &'a Path,
    left_bytes: u64,
    limits: Limits,
    /// Folders get their mode last, or nothing could be written into a read-only one.
    modes: Vec<(PathBuf, u32)>,
}

impl Target<'_> {
    fn place<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<(), Error> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |why| Error::Refused {
            name: name.clone(),
            why,
        };
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader | EntryType::XHeader) {
            return Ok(());
        }
        let path = entry.path().map_err(|_| refused("its name is no path"))?;
        let Some(path) = inside(&path) else {
            return Err(refused("its name leaves the folder"));
        };
        if path.as_os_str().is_empty() {
            return if kind.is_dir() {
                Ok(())
            } else {
                Err(refused("it would replace the folder itself"))
            };
        }
        let mode = entry.header().mode().unwrap_or(0o644) & 0o777;
        let wrote = |source| Error::Write {
            name: name.clone(),
            source,
        };
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        if !self.make_folders(&parent).map_err(wrote)? {
            return Err(refused("it would be written through a link or a file"));
        }
        let at = self.folder.join(&path);
        match kind {
            EntryType::Directory => {
                if !self.make_folders(&path).map_err(wrote)? {
                    return Err(refused("it would replace a link or a file"));
                }
                self.modes.push((at, mode));
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.clear(&at).map_err(wrote)?;
                self.write(entry, &at, mode, &name)
            }
            EntryType::Symlink => {
                let to = entry
                    .link_name()
                    .ok()
                    .flatten()
                    .ok_or_else(|| refused("it is a link to nowhere"))?;
                if !link_stays(&to, &parent) {
                    return Err(refused("it is a link that may leave the folder"));
                }
                self.clear(&at)
                    .and_then(|()| symlink(&to, &at))
                    .map_err(wrote)
            }
            EntryType::Link => {
                let to = entry.link_name().ok().flatten().and_then(|to| inside(&to));
                let to = to
                    .filter(|to| self.is_plain_file(to))
                    .ok_or_else(|| refused("it is a hard link to no file of the bundle"))?;
                let to = self.folder.join(to);
                if to == at {
                    return Ok(());
                }
                self.clear(&at)
                    .and_then(|()| fs::hard_link(to, &at))
                    .map_err(wrote)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                Err(refused("it is a device or a pipe"))
            }
            _ => Err(refused("it is of an unknown kind")),
        }
    }

    fn write<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        at: &Path,
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
                limit: self.limits.bytes,
            });
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(at)
            .map_err(wrote)?;
        let copied = io::copy(&mut entry.take(self.left_bytes + 1), &mut file).map_err(wrote)?;
        if copied > self.left_bytes {
            return Err(Error::TooBig {
                name: name.to_owned(),
                limit: self.limits.bytes,
            });
        }
        self.left_bytes -= copied;
        file.set_permissions(Permissions::from_mode(mode))
            .map_err(wrote)
    }

    /// Makes `path` and the folders above it; false when something that is no folder is in the way.
    fn make_folders(&self, path: &Path) -> io::Result<bool> {
        let mut at = self.folder.to_owned();
        for part in path.components() {
            at.push(part);
            match at.symlink_metadata() {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(&at)?;
                    fs::set_permissions(&at, Permissions::from_mode(0o755))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// A later entry replaces an earlier file or link, as tar(1) does, but never a folder.
    fn clear(&self, at: &Path) -> io::Result<()> {
        match at.symlink_metadata() {
            Ok(meta) if meta.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => fs::remove_file(at),
            Err(_) => Ok(()),
        }
    }

    /// A regular file reached through folders only.
    fn is_plain_file(&self, path: &Path) -> bool {
        let mut at = self.folder.to_owned();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            at.push(part);
            let Ok(meta) = at.symlink_metadata() else {
                return false;
            };
            if !(if parts.peek().is_some() {
                meta.is_dir()
            } else {
                meta.is_file()
            }) {
                return false;
            }
        }
        at != self.folder
    }

    fn set_modes(&self) -> Result<(), Error> {
        for (path, mode) in self.modes.iter().rev() {
            File::open(path)?.set_permissions(Permissions::from_mode(*mode))?;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const LIMITS: Limits = Limits {
        bytes: 10_000,
        entries: 100,
    };

    #[derive(Debug, Clone)]
    struct Item {
        kind: EntryType,
        name: String,
        target: String,
        content: Vec<u8>,
    }

    fn item(kind: EntryType, name: &str, target: &str) -> Item {
        Item {
            kind,
            name: name.into(),
            target: target.into(),
            content: Vec::new(),
        }
    }

    fn file(name: &str, content: &[u8]) -> Item {
        Item {
            content: content.to_vec(),
            ..item(EntryType::Regular, name, "")
        }
    }

    /// A tar of any entries, bad ones too: names are written as they are.
    fn tar(items: &[Item]) -> Vec<u8> {
        let mut out = Vec::new();
        for item in items {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..item.name.len()].copy_from_slice(item.name.as_bytes());
            header.as_old_mut().linkname[..item.target.len()]
                .copy_from_slice(item.target.as_bytes());
            header.set_entry_type(item.kind);
            header.set_mode(0o6755);
            header.set_size(item.content.len() as u64);
            header.set_cksum();
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(&item.content);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn try_unpack(items: &[Item]) -> (tempfile::TempDir, Result<(), Error>) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("in");
        fs::create_dir(&folder).unwrap();
        let result = unpack(&tar(items)[..], &folder, LIMITS);
        (dir, result)
    }

    #[test]
    fn every_format_is_told_by_its_first_bytes() {
        let plain = tar(&[
            file("bootstrap.sh", b"hello"),
            item(EntryType::Directory, "d/", ""),
            item(EntryType::Symlink, "d/l", "../bootstrap.sh"),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        for packed in [
            gzip.finish().unwrap(),
            zstd::stream::encode_all(&plain[..], 1).unwrap(),
            plain,
        ] {
            let dir = tempfile::tempdir().unwrap();
            unpack(&packed[..], dir.path(), LIMITS).unwrap();
            assert_eq!(fs::read(dir.path().join("d/l")).unwrap(), b"hello");
            let mode = fs::metadata(dir.path().join("bootstrap.sh"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o7777, 0o755, "setuid is taken away");
        }
    }

    #[test]
    fn what_could_leave_the_folder_is_refused() {
        use EntryType::{Block, Char, Fifo, Link, Symlink};
        for (name, items) in [
            ("absolute", vec![file("/abs", b"x")]),
            ("dots", vec![file("a/../../x", b"x")]),
            ("absolute link", vec![item(Symlink, "l", "/etc/passwd")]),
            ("link up", vec![item(Symlink, "d/l", "../../x")]),
            (
                "link up after a name",
                vec![
                    item(Symlink, "a/b/k", "../.."),
                    item(Symlink, "m", "a/b/k/.."),
                ],
            ),
            (
                "through a link",
                vec![
                    item(EntryType::Directory, "d", ""),
                    item(Symlink, "l", "d"),
                    file("l/x", b"x"),
                ],
            ),
            (
                "a folder over a link",
                vec![
                    item(Symlink, "l", "d"),
                    item(EntryType::Directory, "l/", ""),
                ],
            ),
            ("hard link out", vec![item(Link, "h", "../x")]),
            (
                "hard link to a link",
                vec![item(Symlink, "l", "d"), item(Link, "h", "l")],
            ),
            ("hard link to nothing", vec![item(Link, "h", "nothing")]),
            ("character device", vec![item(Char, "c", "")]),
            ("block device", vec![item(Block, "b", "")]),
            ("pipe", vec![item(Fifo, "f", "")]),
            ("the folder itself", vec![file("./", b"x"), file(".", b"x")]),
        ] {
            let last = items.last().unwrap().name.clone();
            match try_unpack(&items).1 {
                Err(Error::Refused { name: refused, .. }) => assert!(
                    last.contains(&refused) || refused == "./",
                    "{name}: {refused}"
                ),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn links_that_stay_are_made() {
        let items = [
            file("a/x", b"1"),
            item(EntryType::Symlink, "b", "a/x"),
            item(EntryType::Link, "c", "a/x"),
            file("a/x", b"2"),
        ];
        let (dir, result) = try_unpack(&items);
        result.unwrap();
        assert_eq!(fs::read(dir.path().join("in/b")).unwrap(), b"2");
        assert_eq!(
            fs::read(dir.path().join("in/c")).unwrap(),
            b"1",
            "a file is replaced, not written through its other name"
        );
    }

    #[test]
    fn a_bomb_is_stopped() {
        let many: Vec<Item> = (0..101).map(|n| file(&format!("f{n}"), b"")).collect();
        assert!(matches!(try_unpack(&many).1, Err(Error::TooMany(100))));
        let big = [file("a", &[0; 6000]), file("b", &[0; 6000])];
        assert!(matches!(try_unpack(&big).1, Err(Error::TooBig { name, .. }) if name == "b"));
        let name = Item {
            content: vec![b'a'; 5 << 20],
            ..item(EntryType::GNULongName, "././@LongLink", "")
        };
        assert!(matches!(
            try_unpack(&[name, file("x", b"")]).1,
            Err(Error::Garbled(_))
        ));
        let cut = tar(&[file("a", &[0; 6000])]);
        let dir = tempfile::tempdir().unwrap();
        assert!(
            unpack(&cut[..3000], dir.path(), LIMITS).is_err(),
            "a stream that ends too early"
        );
    }

    fn any_item() -> impl Strategy<Value = Item> {
        let part = prop::sample::select(vec!["a", "b", "c", "..", ".", "", "/", "a/b", "../.."]);
        let path = prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"));
        let kind = prop::sample::select(vec![
            EntryType::Regular,
            EntryType::Directory,
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Fifo,
        ]);
        (
            kind,
            path.clone(),
            path,
            prop::collection::vec(any::<u8>(), 0..50),
        )
            .prop_map(|(kind, name, target, content)| Item {
                kind,
                name,
                target,
                content: if kind == EntryType::Regular {
                    content
                } else {
                    Vec::new()
                },
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn no_entry_ever_lands_outside(items in prop::collection::vec(any_item(), 1..12)) {
            let (dir, _) = try_unpack(&items);
            let outside: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
            prop_assert_eq!(outside, vec!["in"]);
            let root = dir.path().join("in").canonicalize().unwrap();
            let mut open = vec![root.clone()];
            while let Some(folder) = open.pop() {
                for entry in fs::read_dir(folder).unwrap().flatten() {
                    if let Ok(real) = entry.path().canonicalize() {
                        prop_assert!(real.starts_with(&root), "{:?} leads to {:?}", entry.path(), real);
                    }
                    if entry.file_type().unwrap().is_dir() { open.push(entry.path()); }
                }
            }
        }
    }
}
