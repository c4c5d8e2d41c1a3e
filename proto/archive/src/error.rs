//! Why an archive can't be unpacked.

use std::io;

/// Bytes of a name that errors quote: enough to find it.
const SHOWN_BYTES: usize = 200;

/// An archive that is not unpacked, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No tar, or a damaged one. The reader's own words may quote what is in it, and are left out.
    #[error("it is damaged, or not a tar: {0}")]
    Garbled(io::ErrorKind),
    /// One entry could not be written.
    #[error("{name:?} cannot be written")]
    Write {
        /// Name of the entry, cut to 200 bytes.
        name: String,
        /// As open(2), write(2), rename(2).
        source: io::Error,
    },
    /// An entry is refused.
    #[error("the entry {name:?} {why}")]
    Refused {
        /// Name of the entry, cut to 200 bytes.
        name: String,
        /// The rule that it breaks; follows the name in a sentence.
        why: &'static str,
    },
    /// More bytes than the limit, counted as they are unpacked.
    #[error("more than {limit} bytes unpacked, at the entry {name:?}")]
    TooBig {
        /// Name of the entry, cut to 200 bytes.
        name: String,
        /// Most bytes that the archive may unpack to.
        limit: u64,
    },
    /// Too many entries, or too many names made by them.
    #[error("more than {0} entries")]
    TooMany(u64),
}

impl Error {
    /// An entry that could not be written.
    pub(super) fn write(name: &str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Write {
            name: shown(name.as_bytes()),
            source,
        }
    }
}

pub(super) fn garbled(error: io::Error) -> Error {
    Error::Garbled(error.kind())
}

/// A name for people: cut, and text in any case.
pub(super) fn shown(name: &[u8]) -> String {
    let cut = name.len().min(SHOWN_BYTES);
    let mut text = String::from_utf8_lossy(&name[..cut]).into_owned();
    if cut < name.len() {
        text.push_str("...");
    }
    text
}
