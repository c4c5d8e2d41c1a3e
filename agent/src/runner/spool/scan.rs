//! Walks over a whole spool: how many bytes of it are whole frames, and which one is the last.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use aot_proto::frame::{self, HEADER_BYTES, MAX_FRAME_BYTES};
use aot_proto::v1::Frame;
use aot_proto::v1::frame::Body;

/// Least and most that a scan reads at once.
const SCAN_BUFFER: (u64, u64) = (512, 256 << 10);

/// What a spool holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Bytes of whole frames.
    pub whole_bytes: u64,
    /// The last whole frame.
    pub last: Option<Frame>,
    /// Where that one starts.
    pub last_start: u64,
}

impl Scan {
    /// Whether the last frame is the end record.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(
            &self.last,
            Some(Frame {
                body: Some(Body::Ended(_)),
                ..
            })
        )
    }
}

/// Walks over the frames of a spool; a torn last frame does not count.
///
/// # Errors
/// As open(2) and read(2).
pub(crate) fn scan(path: &Path) -> io::Result<Scan> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    scan_file(&file, len)
}

/// [`scan`] of a spool that is open. Moves its position.
///
/// # Errors
/// As read(2).
pub(crate) fn scan_open(mut file: &File) -> io::Result<Scan> {
    file.rewind()?;
    let len = file.metadata()?.len();
    scan_file(file, len)
}

/// As above, of a file that is open, at its start and so long.
pub(super) fn scan_file(file: &File, len: u64) -> io::Result<Scan> {
    if len == 0 {
        return Ok(Scan::default());
    }
    let room = len.clamp(SCAN_BUFFER.0, SCAN_BUFFER.1);
    let room = usize::try_from(room).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut reader = io::BufReader::with_capacity(room, file);
    let (mut at, mut last) = (0u64, None);
    loop {
        let mut header = [0u8; HEADER_BYTES];
        let body = match reader.read_exact(&mut header) {
            Ok(()) => u64::from(u32::from_le_bytes(header)),
            Err(_) => break,
        };
        let end = at + HEADER_BYTES as u64 + body;
        if body > MAX_FRAME_BYTES as u64 || end > len {
            break;
        }
        reader.seek_relative(i64::try_from(body).map_err(|_| io::ErrorKind::InvalidData)?)?;
        last = Some((at, end - at));
        at = end;
    }
    let last_start = last.map_or(0, |(start, _)| start);
    let last = match last {
        None => None,
        Some((start, frame_bytes)) => {
            let mut bytes =
                vec![0; usize::try_from(frame_bytes).map_err(|_| io::ErrorKind::InvalidData)?];
            reader.seek(SeekFrom::Start(start))?;
            reader.read_exact(&mut bytes)?;
            frame::decode(&bytes).ok().flatten().map(|(frame, _)| frame)
        }
    };
    Ok(Scan {
        whole_bytes: at,
        last,
        last_start,
    })
}

/// How much later than here the end record comes in the master's copy, when the master holds `acked` bytes of this
/// ended spool. Zero unless a power cut took output from this disk that the master had already got: then the end that
/// was written afterwards belongs behind what the master has.
pub(crate) fn shift(scan: &Scan, acked: u64) -> u64 {
    if scan.is_ended() && acked > scan.last_start && acked != scan.whole_bytes {
        acked - scan.last_start
    } else {
        0
    }
}
