//! Files with holes: the maps that tars have of them (GNU tar manual, "Storing Sparse Files"), and those of files on disk.

use std::io::{self, Read};

use tar::Entry;

/// Most pieces of data of one file. A map has 16 bytes of memory for each.
const MAX_PIECES: usize = 1 << 20;
/// Bytes of a block of a tar: the map of the form 1.0 is filled up to whole ones.
const BLOCK_BYTES: usize = 512;

/// What the extended header of a POSIX archive says of a sparse file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Posix {
    /// Its real name; that of the header is made up.
    pub name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
}

impl Posix {
    /// `None` when it is not a sparse file.
    ///
    /// # Errors
    /// When the extended header is damaged.
    pub(crate) fn of<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Option<Self>> {
        let Some(records) = entry.pax_extensions()? else {
            return Ok(None);
        };
        let mut posix = None;
        for record in records {
            let record = record?;
            let Some(key) = record.key_bytes().strip_prefix(b"GNU.sparse.") else {
                continue;
            };
            let posix: &mut Self = posix.get_or_insert_default();
            let value = record.value_bytes();
            match key {
                b"name" => posix.name = Some(value.to_owned()),
                b"major" => posix.major = Some(number(value)?),
                b"minor" => posix.minor = Some(number(value)?),
                b"realsize" => posix.size = Some(number(value)?),
                _ => {}
            }
        }
        Ok(posix)
    }
}

fn number(text: &[u8]) -> io::Result<u64> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).map_err(|_| bad())?;
    text.parse().ok().filter(|_| digits).ok_or_else(bad)
}

/// Where data is: offset and length, in order and apart.
pub(super) type Map = Vec<(u64, u64)>;

/// A sparse file of the form 1.0 with its holes as zeros.
pub(super) struct Expanded<R> {
    inner: R,
    /// What is not read yet, the next piece last.
    pieces: Map,
    at: u64,
    size: u64,
}

impl<R: Read> Expanded<R> {
    /// Reads the map, which is in front of the data.
    ///
    /// # Errors
    /// `Unsupported` for the older forms 0.0 and 0.1; when the map is damaged, or longer than its bound.
    pub(crate) fn new(mut inner: R, posix: &Posix) -> io::Result<Self> {
        if (posix.major, posix.minor) != (Some(1), Some(0)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let bad = || io::Error::from(io::ErrorKind::InvalidData);
        let size = posix.size.ok_or_else(bad)?;
        let mut lines = NumberLines {
            inner: &mut inner,
            block: [0; BLOCK_BYTES],
            at: BLOCK_BYTES,
        };
        let count = usize::try_from(lines.number()?).map_err(|_| bad())?;
        if count > MAX_PIECES {
            return Err(bad());
        }
        let mut pieces = Map::new();
        let mut end = 0;
        for _ in 0..count {
            let (offset, len) = (lines.number()?, lines.number()?);
            if offset < end {
                return Err(bad());
            }
            end = offset
                .checked_add(len)
                .filter(|end| *end <= size)
                .ok_or_else(bad)?;
            pieces.push((offset, len));
        }
        pieces.reverse();
        Ok(Self {
            inner,
            pieces,
            at: 0,
            size,
        })
    }

    /// Bytes of the file, holes and all.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl<R: Read> Read for Expanded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.pieces.pop_if(|(_, len)| *len == 0).is_some() {}
        let (start, left) = self.pieces.last().copied().unwrap_or((self.size, 0));
        let most = |left: u64| {
            usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len())
        };
        if self.at < start {
            let len = most(start - self.at);
            buffer[..len].fill(0);
            self.at += len as u64;
            return Ok(len);
        }
        let len = match most(left) {
            0 => return Ok(0),
            most => self.inner.read(&mut buffer[..most])?,
        };
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += len as u64;
        if let Some(piece) = self.pieces.last_mut() {
            *piece = (piece.0 + len as u64, piece.1 - len as u64);
        }
        Ok(len)
    }
}

/// Decimal numbers, one in a line, read in whole blocks.
struct NumberLines<R> {
    inner: R,
    block: [u8; BLOCK_BYTES],
    at: usize,
}

impl<R: Read> NumberLines<R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            if self.at == BLOCK_BYTES {
                self.inner.read_exact(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return number(&digits),
                // 2^64 has 20 digits.
                byte if digits.len() < 20 => digits.push(byte),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// Where a file on disk has data, when it has holes and the file system says where (lseek(2), SEEK_DATA); else `None`.
pub(super) fn map_of(file: &std::fs::File, size: u64) -> Option<Map> {
    use rustix::fs::{SeekFrom, seek};
    // A first hole is at the end of every file: one without others needs no map.
    if seek(file, SeekFrom::Hole(0)).ok()? >= size {
        return None;
    }
    let mut map = Map::new();
    let mut at = 0;
    while at < size && map.len() < MAX_PIECES {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(rustix::io::Errno::NXIO) => size, // nothing but a hole follows
            Err(_) => return None,
        };
        if start == size {
            break;
        }
        let end = seek(file, SeekFrom::Hole(start)).ok()?.min(size);
        if end <= start {
            return None; // it is written to
        }
        map.push((start, end - start));
        at = end;
    }
    (map.len() < MAX_PIECES).then_some(map)
}

#[cfg(test)]
mod tests;
