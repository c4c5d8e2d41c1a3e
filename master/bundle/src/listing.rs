//! What is in a bundle that was packed: its entries with their digests, and the text of short files. Bounded in time and memory:
//! a bundle that is larger is not listed.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use aot_archive::Unreadable;
use aws_lc_rs::digest::{Context, SHA256};
use tar::{Archive, Entry, EntryType};

use super::{BundleError, open, too_large};

/// Most bytes of a bundle that are read, unpacked.
const MAX_READ_BYTES: u64 = 1 << 30;

/// Most entries of a bundle that is listed.
const MAX_LISTED: usize = 100_000;

/// Longest file whose text is kept, and most text of a bundle.
const MAX_TEXT_BYTES: u64 = 128 << 10;
const MAX_ALL_TEXT_BYTES: u64 = 16 << 20;

/// The entries of a bundle by their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BundleList(pub(super) BTreeMap<PathBuf, ListedEntry>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListedEntry {
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) content: ListedContent,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ListedContent {
    Folder,
    /// Where a link leads.
    Link(PathBuf),
    File {
        bytes: u64,
        sha256: Vec<u8>,
        /// Of one that is short, and text.
        text: Option<String>,
    },
}

/// Lists a bundle as it was packed.
///
/// # Errors
/// When it can't be read, or is larger than what is listed.
pub fn list(path: &Path) -> Result<BundleList, BundleError> {
    let damaged = |source| BundleError::Damaged {
        path: path.to_owned(),
        source,
    };
    let stream = aot_archive::decompress(open(path)?).map_err(|error| match error {
        Unreadable::Format(format) => BundleError::Format {
            path: path.to_owned(),
            format,
        },
        Unreadable::Io(source) => damaged(source),
    })?;
    let mut stream = stream.take(MAX_READ_BYTES);
    let listed = entries(&mut stream);
    match listed {
        _ if stream.limit() == 0 => Err(too_large(path, "bytes unpacked", MAX_READ_BYTES)),
        Ok(list) if list.0.len() > MAX_LISTED => Err(too_large(path, "entries", MAX_LISTED as u64)),
        listed => listed.map_err(damaged),
    }
}

/// Stops after the first entry too many.
fn entries(stream: &mut impl Read) -> io::Result<BundleList> {
    let (mut list, mut text_left) = (BundleList::default(), MAX_ALL_TEXT_BYTES);
    let mut archive = Archive::new(stream);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = name(&mut entry)?;
        if name.as_os_str().is_empty() {
            continue; // the folder itself
        }
        let mode = entry.header().mode()? & 0o7777;
        let content = content(&mut entry, &mut text_left)?;
        list.0.insert(name, ListedEntry { mode, content });
        if list.0.len() > MAX_LISTED {
            break;
        }
    }
    Ok(list)
}

/// `a/b` of `./a//b/`. What leaves the bundle was refused when it was packed.
fn name(entry: &mut Entry<'_, impl Read>) -> io::Result<PathBuf> {
    let path = entry.path()?;
    let parts = path.components();
    Ok(parts
        .filter(|part| matches!(part, Component::Normal(_)))
        .collect())
}

fn content(entry: &mut Entry<'_, impl Read>, text_left: &mut u64) -> io::Result<ListedContent> {
    match entry.header().entry_type() {
        EntryType::Directory => Ok(ListedContent::Folder),
        EntryType::Symlink | EntryType::Link => {
            let to = entry.link_name()?.unwrap_or_default();
            Ok(ListedContent::Link(to.into_owned()))
        }
        _ => file(entry, text_left),
    }
}

fn file(entry: &mut Entry<'_, impl Read>, text_left: &mut u64) -> io::Result<ListedContent> {
    let is_short = entry.size() <= MAX_TEXT_BYTES.min(*text_left);
    let (mut hash, mut bytes, mut kept) = (Context::new(&SHA256), 0, Vec::new());
    let mut buffer = vec![0; 32 << 10];
    loop {
        let read = entry.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
        if is_short {
            kept.extend_from_slice(&buffer[..read]);
        }
    }
    let text = String::from_utf8(kept).ok();
    let text = text.filter(|text| is_short && !text.contains('\0'));
    *text_left -= text.as_ref().map_or(0, |text| text.len() as u64);
    Ok(ListedContent::File {
        bytes,
        sha256: hash.finish().as_ref().to_vec(),
        text,
    })
}
