//! Writes bundles: folders, archives, and archives that must be refused.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

/// A bundle as a folder with this `bootstrap.sh`; what is there already is replaced.
///
/// # Panics
/// When it can't be written.
pub fn folder(path: &Path, script: &str) {
    fs::create_dir_all(path).expect("a folder for the bundle");
    let file = path.join("bootstrap.sh");
    fs::write(&file, script).expect("bootstrap.sh");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// One entry of an archive; nothing about it is checked.
#[derive(Debug, Clone)]
pub enum Entry<'a> {
    /// A file with this content.
    File(&'a str, &'a str),
    /// A symbolic link: name, where it leads.
    Symlink(&'a str, &'a str),
    /// A hard link: name, to which entry.
    Hardlink(&'a str, &'a str),
    /// A block device.
    Device(&'a str),
    /// A named pipe.
    Pipe(&'a str),
}

/// Writes an archive, compressed by gzip when its name ends so. Names go into it as they are, however bad.
///
/// # Panics
/// When it can't be written.
pub fn archive(path: &Path, entries: &[Entry<'_>]) {
    let file = File::create(path).expect("a file for the bundle");
    if path
        .extension()
        .is_some_and(|end| end == "gz" || end == "tgz")
    {
        let gz = write(GzEncoder::new(file, Compression::fast()), entries);
        gz.finish().expect("the end of the gzip file");
    } else {
        write(file, entries);
    }
}

fn write<W: Write>(to: W, entries: &[Entry<'_>]) -> W {
    let mut builder = Builder::new(to);
    for entry in entries {
        let (name, kind, link, content) = match entry {
            Entry::File(name, content) => (*name, EntryType::Regular, "", *content),
            Entry::Symlink(name, to) => (*name, EntryType::Symlink, *to, ""),
            Entry::Hardlink(name, to) => (*name, EntryType::Link, *to, ""),
            Entry::Device(name) => (*name, EntryType::Block, "", ""),
            Entry::Pipe(name) => (*name, EntryType::Fifo, "", ""),
        };
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        if kind == EntryType::Block {
            header.set_device_major(8).expect("ustar has devices");
            header.set_device_minor(0).expect("ustar has devices");
        }
        // Not `set_path`: that refuses what is to be refused by the programs under test.
        let fields = header.as_ustar_mut().expect("made as ustar");
        put(&mut fields.name, name);
        put(&mut fields.linkname, link);
        header.set_cksum();
        builder
            .append(&header, content.as_bytes())
            .expect("an entry");
    }
    builder.into_inner().expect("the end of the archive")
}

fn put(field: &mut [u8], text: &str) {
    field[..text.len()].copy_from_slice(text.as_bytes());
}
