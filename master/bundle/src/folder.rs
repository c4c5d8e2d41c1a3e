//! Packs a folder so that the same tree gives the same bytes, whenever, wherever and by whomever it is done. What `ignored` leaves
//! out is as if it were not there.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aot_archive::Tree;
use tar::{Builder, EntryType, Header};

use super::ignored::{IGNORE_FILE, IgnoreRules};
use super::{BundleError, LIMITS, script, too_large};

/// Bytes of the script that are looked at.
const HEAD_BYTES: u64 = 64 << 10;

/// Writes the tree under `root` as a plain tar, names in the order of their bytes, times and owners zero, modes 0755
/// (folders and what may be run) or 0644; gives what is in it.
pub(super) fn pack(root: &Path, out: &mut impl Write) -> Result<Tree, BundleError> {
    let meta = fs::metadata(root).map_err(BundleError::io("read", root))?;
    if !meta.is_dir() {
        return Err(BundleError::Kind {
            path: root.to_owned(),
            wanted: "folder",
        });
    }
    let mut packer = FolderPacker {
        root,
        tar: Builder::new(io::BufWriter::new(out)),
        tree: Tree::new(LIMITS),
        ignored: IgnoreRules::defaults()?,
        bytes: 0,
    };
    packer.folder(Path::new(""))?;
    packer.script()?;
    let finished = packer.tar.into_inner().and_then(|mut out| out.flush());
    finished.map_err(BundleError::io("pack", root))?;
    Ok(packer.tree)
}

struct FolderPacker<'a, W: Write> {
    root: &'a Path,
    tar: Builder<W>,
    /// What machines will make of it.
    tree: Tree,
    /// What is left out, in the folder that is being packed.
    ignored: IgnoreRules,
    /// Of all files.
    bytes: u64,
}

impl<W: Write> FolderPacker<'_, W> {
    fn folder(&mut self, inside: &Path) -> Result<(), BundleError> {
        let full = self.root.join(inside);
        let read = fs::read_dir(&full)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let mut names: Vec<_> = read.map_err(BundleError::io("read", &full))?;
        names.sort();
        let has_rules = names.iter().any(|name| name == IGNORE_FILE);
        if has_rules {
            self.ignored.enter(self.root, inside)?;
        }
        for name in names.into_iter().filter(|name| name != IGNORE_FILE) {
            self.entry(&inside.join(name))?;
        }
        if has_rules {
            self.ignored.leave();
        }
        Ok(())
    }

    fn entry(&mut self, inside: &Path) -> Result<(), BundleError> {
        let full = self.root.join(inside);
        let refused = |error| BundleError::of_archive(error, self.root);
        let meta = fs::symlink_metadata(&full).map_err(BundleError::io("read", &full))?;
        if self.ignored.leave_out(inside, meta.is_dir()) {
            Ok(())
        } else if meta.is_dir() {
            self.tree.folder(inside).map_err(refused)?;
            let header = header(EntryType::Directory, 0o755, 0);
            self.append(header, inside, io::empty())?;
            self.folder(inside)
        } else if meta.is_symlink() {
            let to: PathBuf = fs::read_link(&full).map_err(BundleError::io("read", &full))?;
            self.tree.symlink(inside, &to).map_err(refused)?;
            let mut header = header(EntryType::Symlink, 0o777, 0);
            self.tar
                .append_link(&mut header, inside, &to)
                .map_err(BundleError::io("pack", &full))
        } else if meta.is_file() {
            self.tree.file(inside).map_err(refused)?;
            self.bytes = self.bytes.saturating_add(meta.len());
            if self.bytes > LIMITS.bytes {
                return Err(too_large(self.root, "bytes unpacked", LIMITS.bytes));
            }
            self.file(inside, &full, &meta)
        } else {
            Err(self.bad(inside, "is not a file, a folder or a link"))
        }
    }

    fn script(&self) -> Result<(), BundleError> {
        self.tree
            .script_folder()
            .map_err(|missing| BundleError::no_script(missing, self.root))?;
        let Some(file) = self.tree.script_file() else {
            return Ok(());
        };
        let full = self.root.join(&file);
        let mut head = Vec::new();
        File::open(&full)
            .and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head))
            .map_err(BundleError::io("read", &full))?;
        script::check(&head).map_err(|bad| bad.of(self.root, &file))
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
            entry: inside.to_string_lossy().into_owned(),
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
