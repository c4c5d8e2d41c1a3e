//! Files whose content the kernel makes when they are read, as in /proc and /sys: their size is no measure of it.

use std::fs::{File, Metadata};
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;

/// Most that is read of such a file. A longer one is taken for what its size says.
const MAX_BYTES: u64 = 4 << 20;

/// What such a file holds; `None` for all others.
pub(super) fn content(mut file: &File, meta: &Metadata) -> Option<Vec<u8>> {
    // It has no room on a disk, and a size that is a guess: nothing, or a page.
    if meta.blocks() > 0 || meta.len() > MAX_BYTES {
        return None;
    }
    file.rewind().ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    let len = u64::try_from(bytes.len()).ok()?;
    // An ordinary file that somebody writes to meanwhile has another size afterwards.
    let is_guess = len != meta.len() && file.metadata().ok()?.len() == meta.len();
    (is_guess && len <= MAX_BYTES).then_some(bytes)
}
