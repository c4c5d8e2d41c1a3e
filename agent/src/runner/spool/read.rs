//! Pieces of a spool as they are sent to the master: whole frames from any offset.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use aot_proto::frame::{self, HEADER_BYTES};
use aot_proto::limits::SPOOL_CHUNK_BYTES;
use aot_proto::v1::Frame;
use aot_proto::v1::frame::Body;
use hyper::body::Bytes;
use prost::Message;

/// A piece of a spool.
#[derive(Debug)]
pub struct Chunk {
    /// Whole frames; empty when there is none yet.
    pub data: Bytes,
    /// The last of them is the end record.
    pub end: bool,
}

/// Whole frames from `offset` on, at most `most` bytes.
///
/// # Errors
/// As open(2) and read(2); when the bytes are not frames.
pub fn read(path: &Path, offset: u64, most: usize) -> io::Result<Chunk> {
    read_open(&File::open(path)?, offset, most)
}

/// [`read`] of a spool that is open already. Moves its position.
///
/// # Errors
/// As read(2); when the bytes are not frames.
pub(crate) fn read_open(mut file: &File, offset: u64, most: usize) -> io::Result<Chunk> {
    let most = most.min(SPOOL_CHUNK_BYTES);
    let left = file.metadata()?.len().saturating_sub(offset);
    let wanted = most.min(usize::try_from(left).unwrap_or(usize::MAX));
    let mut bytes = Vec::with_capacity(wanted);
    file.seek(SeekFrom::Start(offset))?;
    file.take(wanted as u64).read_to_end(&mut bytes)?;
    let bad = |error: frame::BadSpool| io::Error::new(io::ErrorKind::InvalidData, error);
    let whole = frame::complete_frames(&bytes, most).map_err(bad)?;
    let data = Bytes::from(bytes).slice(..whole);
    let end = ends(&data);
    Ok(Chunk { data, end })
}

/// Whether the last of these whole frames is the end record.
fn ends(frames: &Bytes) -> bool {
    let (mut last, mut at) = (0, 0);
    while let Some(header) = frames.get(at..at + HEADER_BYTES) {
        let len = u32::from_le_bytes(header.try_into().expect("as long as it was cut")) as usize;
        last = at + HEADER_BYTES;
        at = last + len;
    }
    let body = Frame::decode(frames.slice(last..)).map(|frame| frame.body);
    matches!(body, Ok(Some(Body::Ended(_))))
}
