//! Packs a folder so that the same tree gives the same bytes, whenever, wherever and by whomever it is done.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::{BundleError, Census, link};

/// Deepest folder; a loop of mounts ends here.
const MAX_DEPTH: usize = 128;

/// Writes the tree under `root` as a plain tar, names in the order of their bytes, times and owners zero, modes 0755
/// (folders and what may be run) or 0644.
pub(super) fn pack(root: &Path, out: &mut impl Write) -> Result<(), BundleError> {
    let meta = fs::metadata(root).map_err(BundleError::io("read", root))?;
    if !meta.is_dir() {
        return Err(BundleError::Kind {
            path: root.to_owned(),
            wanted: "folder",
        });
    }
    let mut packer = Packer {
        root,
        tar: Builder::new(io::BufWriter::new(out)),
        census: Census::default(),
    };
    packer.folder(Path::new(""), 0)?;
    packer.census.script(root)?;
    let finished = packer.tar.into_inner().and_then(|mut out| out.flush());
    finished.map_err(BundleError::io("pack", root))
}

struct Packer<'a, W: Write> {
    root: &'a Path,
    tar: Builder<W>,
    census: Census,
}

impl<W: Write> Packer<'_, W> {
    fn folder(&mut self, inside: &Path, depth: usize) -> Result<(), BundleError> {
        let full = self.root.join(inside);
        if depth > MAX_DEPTH {
            return Err(self.bad(inside, "is nested too deep"));
        }
        let read = fs::read_dir(&full)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let mut names: Vec<_> = read.map_err(BundleError::io("read", &full))?;
        names.sort();
        for name in names {
            self.entry(&inside.join(name), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, inside: &Path, depth: usize) -> Result<(), BundleError> {
        let full = self.root.join(inside);
        let meta = fs::symlink_metadata(&full).map_err(BundleError::io("read", &full))?;
        let parts = link::parts(inside).map_err(|why| self.bad(inside, why))?;
        let size = if meta.is_file() { meta.len() } else { 0 };
        self.census.add(&parts, !meta.is_dir(), size, self.root)?;
        if meta.is_dir() {
            let header = header(EntryType::Directory, 0o755, 0);
            self.append(header, inside, io::empty())?;
            self.folder(inside, depth + 1)
        } else if meta.is_symlink() {
            self.link(inside, &full, depth)
        } else if meta.is_file() {
            self.file(inside, &full, &meta)
        } else {
            Err(self.bad(inside, "is neither file, folder nor link"))
        }
    }

    fn link(&mut self, inside: &Path, full: &Path, depth: usize) -> Result<(), BundleError> {
        let to: PathBuf = fs::read_link(full).map_err(BundleError::io("read", full))?;
        link::symlink(depth, &to).map_err(|why| self.bad(inside, why))?;
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.tar
            .append_link(&mut header, inside, &to)
            .map_err(BundleError::io("pack", full))
    }

    fn file(&mut self, inside: &Path, full: &Path, meta: &Metadata) -> Result<(), BundleError> {
        let runs = meta.permissions().mode() & 0o111 != 0;
        let mut file = File::open(full).map_err(BundleError::io("read", full))?;
        // The header is written first, so exactly as many bytes must follow as it says.
        let header = header(
            EntryType::Regular,
            if runs { 0o755 } else { 0o644 },
            meta.len(),
        );
        let mut counted = Counted {
            file: (&mut file).take(meta.len()),
            read: 0,
        };
        self.append(header, inside, &mut counted)?;
        let same =
            counted.read == meta.len() && file.metadata().is_ok_and(|now| now.len() == meta.len());
        if same {
            Ok(())
        } else {
            Err(self.bad(inside, "changed while it was packed"))
        }
    }

    fn append(
        &mut self,
        mut header: Header,
        inside: &Path,
        data: impl Read,
    ) -> Result<(), BundleError> {
        let appended = self.tar.append_data(&mut header, inside, data);
        appended.map_err(BundleError::io("pack", &self.root.join(inside)))
    }

    fn bad(&self, inside: &Path, why: &'static str) -> BundleError {
        BundleError::Entry {
            path: self.root.to_owned(),
            entry: inside.display().to_string(),
            why,
        }
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

struct Counted<R> {
    file: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buf)?;
        self.read += read as u64;
        Ok(read)
    }
}
