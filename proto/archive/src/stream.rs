//! A tar stream entry by entry, with a bound on what is read of it between the contents.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use tar::Archive;

use super::Limits;
use super::entry::Item;
use super::error::{Error, garbled};

/// Most bytes of the stream between the contents of two entries: headers, long names, extended attributes. The tar
/// reader holds these in memory.
const HEADER_BYTES: u64 = 4 << 20;

/// What is done with entries.
pub(super) trait Sink {
    /// One entry; `content` is a regular file's, and ends where it ends. Says how many bytes of it count.
    fn entry(&mut self, item: &Item, content: &mut dyn Read, left: u64) -> Result<u64, Error>;
}

/// Gives every entry of a plain tar to `sink`.
pub(super) fn entries(
    stream: impl Read,
    limits: Limits,
    sink: &mut impl Sink,
) -> Result<(), Error> {
    let allowance = Rc::new(Cell::new(HEADER_BYTES));
    let mut archive = Archive::new(Metered {
        stream,
        left: allowance.clone(),
    });
    let mut left = limits.bytes;
    let mut count = 0;
    for entry in archive.entries().map_err(garbled)? {
        let mut entry = entry.map_err(garbled)?;
        count += 1;
        if count > limits.entries {
            return Err(Error::TooMany(limits.entries));
        }
        // The content is bounded by what is left of the limit; the rest of the allowance is for the next header.
        allowance.set(left.saturating_add(HEADER_BYTES));
        let Some((item, mut content)) = Item::read(&mut entry)? else {
            allowance.set(HEADER_BYTES);
            continue;
        };
        if item.size > left {
            return Err(Error::TooBig {
                name: item.name,
                limit: limits.bytes,
            });
        }
        left -= sink.entry(&item, &mut content, left)?;
        // What nobody wanted is read as well: a cut-off stream shows itself there.
        let rest = left.saturating_add(1);
        io::copy(&mut content.take(rest), &mut io::sink()).map_err(garbled)?;
        allowance.set(HEADER_BYTES);
    }
    Ok(())
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
        let len = self.stream.read(&mut buffer[..most])?;
        self.left.set(self.left.get() - len as u64);
        Ok(len)
    }
}

#[cfg(test)]
mod tests;
