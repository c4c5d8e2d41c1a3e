//! Looks through a tar file of any of the formats that agents read. Streams; unpacks nothing.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use tar::{Archive, Entry, EntryType};

use super::{BundleError, Census, link, open};

/// How the first bytes of other formats look.
const OTHERS: [(&[u8], &str); 4] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-zip"),
];

/// Checks the file at `path`, which errors call `shown`.
pub(super) fn check(path: &Path, shown: &Path) -> Result<(), BundleError> {
    let mut archive = Archive::new(reader(open(path)?, shown)?);
    let mut census = Census::default();
    let broken = || BundleError::io("read the tar file", shown);
    for entry in archive.entries().map_err(broken())? {
        look_at(&entry.map_err(broken())?, shown, &mut census)?;
    }
    census.script(shown)?;
    // The rest is read as well: a cut-off or damaged file often shows only in the checksum at its end.
    io::copy(&mut archive.into_inner(), &mut io::sink())
        .map(drop)
        .map_err(broken())
}

fn reader(file: File, shown: &Path) -> Result<Box<dyn Read>, BundleError> {
    let mut file = BufReader::with_capacity(64 << 10, file);
    let start = file.fill_buf().map_err(BundleError::io("read", shown))?;
    if let Some((_, format)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Err(BundleError::Format {
            path: shown.to_owned(),
            format,
        });
    }
    if start.starts_with(b"\x1f\x8b") {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(file)));
    }
    if start.starts_with(b"\x28\xb5\x2f\xfd") {
        let decoder = zstd::stream::read::Decoder::with_buffer(file)
            .map_err(BundleError::io("read", shown))?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(file))
}

fn look_at<R: Read>(
    entry: &Entry<'_, R>,
    shown: &Path,
    census: &mut Census,
) -> Result<(), BundleError> {
    let bad = |why| BundleError::Entry {
        path: shown.to_owned(),
        entry: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
        why,
    };
    let path = entry
        .path()
        .map_err(|_| bad("has a name that is no path"))?;
    let parts = link::parts(&path).map_err(bad)?;
    let kind = entry.header().entry_type();
    match kind {
        EntryType::Regular
        | EntryType::Continuous
        | EntryType::GNUSparse
        | EntryType::Directory => {}
        EntryType::Symlink => {
            let to = entry
                .link_name()
                .ok()
                .flatten()
                .ok_or_else(|| bad("is a link to nowhere"))?;
            link::symlink(parts.len().saturating_sub(1), &to).map_err(bad)?;
        }
        EntryType::Link => {
            let to = entry
                .link_name()
                .ok()
                .flatten()
                .ok_or_else(|| bad("is a link to nowhere"))?;
            link::parts(&to).map_err(|_| bad("is a hard link that leaves the bundle"))?;
        }
        EntryType::XGlobalHeader => return Ok(()),
        _ => return Err(bad("is neither file, folder nor link")),
    }
    let size = if kind == EntryType::Directory {
        0
    } else {
        entry.size()
    };
    census.add(&parts, kind != EntryType::Directory, size, shown)
}
