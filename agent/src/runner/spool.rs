//! A run's spool on disk: frames appended by one writer, read from any offset by the session. Used by the shim (write),
//! by the runner (ends that no shim wrote) and by the session (read). Never rewrites what was written.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use aot_proto::frame::{self, HEADER_BYTES, MAX_FRAME_BYTES};
use aot_proto::limits::SPOOL_CHUNK_BYTES;
use aot_proto::v1::frame::Body;
use aot_proto::v1::{EndKind, Ended, Frame};
use hyper::body::Bytes;
use prost::Message;

/// Name of the spool in a run's folder.
pub const SPOOL: &str = "spool";
/// Mode of a spool that grows.
const OPEN_MODE: u32 = 0o600;
/// Mode of a spool whose last frame is the end record: nobody may write to it any more.
const ENDED_MODE: u32 = 0o400;
/// Least and most that a scan reads at once.
const SCAN_BUFFER: (u64, u64) = (512, 256 << 10);

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An end record that is not an exit.
pub fn ended(kind: EndKind, detail: impl Into<String>) -> Ended {
    Ended {
        kind: kind.into(),
        detail: detail.into(),
        ..Ended::default()
    }
}

/// The one writer of a spool.
pub struct Writer {
    path: PathBuf,
    file: File,
    good_bytes: u64,
    buffer: Vec<u8>,
    dirty: bool,
    has_end: bool,
}

impl Writer {
    /// Opens (or makes, mode 0600) the spool in `dir`, cuts off a torn last frame, and takes back a mark that is not true
    /// (a power cut took the end record).
    ///
    /// # Errors
    /// As open(2); when the file is no spool.
    pub fn open(dir: &Path) -> io::Result<(Self, Scan)> {
        let path = dir.join(SPOOL);
        let file = open_to_write(&path)?;
        let meta = file.metadata()?;
        let scan = scan_file(&file, meta.len())?;
        if meta.len() > scan.whole_bytes {
            file.set_len(scan.whole_bytes)?;
        }
        if is_marked(&meta) && !scan.is_ended() {
            file.set_permissions(Permissions::from_mode(OPEN_MODE))?;
        }
        let good_bytes = scan.whole_bytes;
        Ok((
            Self {
                path,
                file,
                good_bytes,
                buffer: Vec::new(),
                dirty: false,
                has_end: scan.is_ended(),
            },
            scan,
        ))
    }

    /// Appends one frame, whole or not at all.
    ///
    /// # Errors
    /// As write(2): the disk may be full. What was written of the frame is cut off again.
    pub fn append(&mut self, body: Body) -> io::Result<()> {
        self.buffer.clear();
        frame::encode(
            &Frame {
                unix_ms: unix_ms(),
                body: Some(body),
            },
            &mut self.buffer,
        );
        self.write(&[])
    }

    /// Appends one frame of output, whole or not at all, without a copy of it.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn append_output(&mut self, bytes: &[u8], body: fn(Bytes) -> Body) -> io::Result<()> {
        self.buffer.clear();
        let frame = Frame {
            unix_ms: unix_ms(),
            body: Some(body(Bytes::new())),
        };
        frame::encode_head(&frame, bytes.len(), &mut self.buffer);
        self.write(bytes)
    }

    /// Writes the buffer and then `payload`.
    fn write(&mut self, payload: &[u8]) -> io::Result<()> {
        if let Err(error) = write_both(&mut self.file, &self.buffer, payload) {
            self.file.set_len(self.good_bytes)?;
            return Err(error);
        }
        self.good_bytes += (self.buffer.len() + payload.len()) as u64;
        self.dirty = true;
        Ok(())
    }

    /// Whether there is something that [`Writer::sync`] would bring to disk.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// fdatasync(2).
    ///
    /// # Errors
    /// As fdatasync(2).
    pub fn sync(&mut self) -> io::Result<()> {
        self.dirty = false;
        self.file.sync_data()
    }

    /// Appends the end record and marks the run as ended. May be called again after an error: the record is written once.
    /// A power cut before [`Writer::sync`] may cost the record, and leave the mark.
    ///
    /// # Errors
    /// As write(2).
    pub fn conclude(&mut self, ended: Ended) -> io::Result<()> {
        if !self.has_end {
            self.append(Body::Ended(ended))?;
            self.has_end = true;
        }
        self.mark();
        Ok(())
    }

    /// As above, and waits until it is on disk.
    ///
    /// # Errors
    /// As write(2) and fdatasync(2).
    pub fn end(&mut self, ended: Ended) -> io::Result<()> {
        self.conclude(ended)?;
        self.sync()
    }

    /// Whether the run was forgotten: the master has it whole, and nobody will open this spool again.
    pub fn is_forgotten(&self) -> bool {
        let there = fs::metadata(&self.path);
        there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Leaves the mark that saves a scan, when there is an end record. Without it the spool is scanned: that it can't be
    /// set must not make a good end fail.
    pub fn mark(&self) {
        if self.has_end {
            let _ = self
                .file
                .set_permissions(Permissions::from_mode(ENDED_MODE));
        }
    }
}

/// All of the one and then of the other, by one writev(2) mostly.
fn write_both(file: &mut File, first: &[u8], second: &[u8]) -> io::Result<()> {
    let slices = [IoSlice::new(first), IoSlice::new(second)];
    let wrote = loop {
        match file.write_vectored(&slices) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    file.write_all(&first[wrote.min(first.len())..])?;
    file.write_all(&second[wrote.saturating_sub(first.len())..])
}

/// For a reader and a writer in one. Who is not root can't open a marked spool to write: the mark goes, and comes back with
/// the end record.
fn open_to_write(path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(OPEN_MODE)
            .open(path)
    };
    match open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(path, Permissions::from_mode(OPEN_MODE))?;
            open()
        }
        other => other,
    }
}

/// Makes the spool in `dir`, so that it can be followed from its first byte.
///
/// # Errors
/// As open(2).
pub fn make(dir: &Path) -> io::Result<()> {
    open_to_write(&dir.join(SPOOL)).map(drop)
}

/// Length of a spool, and whether it is marked as ended. After a power cut the mark alone says nothing.
///
/// # Errors
/// As stat(2).
pub fn look(path: &Path) -> io::Result<(u64, bool)> {
    let meta = fs::metadata(path)?;
    Ok((meta.len(), is_marked(&meta)))
}

fn is_marked(meta: &Metadata) -> bool {
    meta.permissions().readonly()
}

/// What a spool holds.
#[derive(Debug, Default)]
pub struct Scan {
    /// Bytes of whole frames.
    pub whole_bytes: u64,
    /// The last whole frame.
    pub last: Option<Frame>,
    /// Where that one starts.
    pub last_start: u64,
}

impl Scan {
    /// Whether the last frame is the end record.
    pub fn is_ended(&self) -> bool {
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
pub fn scan(path: &Path) -> io::Result<Scan> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    scan_file(&file, len)
}

/// As above, of a file that is open, at its start and so long.
fn scan_file(file: &File, len: u64) -> io::Result<Scan> {
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
pub fn shift(scan: &Scan, acked: u64) -> u64 {
    if scan.is_ended() && acked > scan.last_start && acked != scan.whole_bytes {
        acked - scan.last_start
    } else {
        0
    }
}

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
/// As open(2) and read(2); when the bytes are no frames.
pub fn read(path: &Path, offset: u64, most: usize) -> io::Result<Chunk> {
    read_from(&File::open(path)?, offset, most)
}

/// [`read`] of a spool that is open already. Moves its position.
///
/// # Errors
/// As read(2); when the bytes are no frames.
pub fn read_from(mut file: &File, offset: u64, most: usize) -> io::Result<Chunk> {
    let most = most.min(SPOOL_CHUNK_BYTES);
    let left = file.metadata()?.len().saturating_sub(offset);
    let wanted = most.min(usize::try_from(left).unwrap_or(usize::MAX));
    let mut bytes = Vec::with_capacity(wanted);
    file.seek(SeekFrom::Start(offset))?;
    file.take(wanted as u64).read_to_end(&mut bytes)?;
    let bad = |error: frame::BadSpool| io::Error::new(io::ErrorKind::InvalidData, error);
    let whole = frame::whole_frames(&bytes, most).map_err(bad)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_torn_frame_is_cut_off_and_the_end_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SPOOL);
        let (mut writer, scan) = Writer::open(dir.path()).unwrap();
        assert_eq!((scan.whole_bytes, scan.is_ended()), (0, false));
        writer.append_output(b"one", Body::Stdout).unwrap();
        let whole = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&[9, 0, 0, 0, 1])
            .unwrap();
        assert_eq!(
            read(&path, 0, 1000).unwrap().data.len() as u64,
            whole,
            "a reader ignores what is torn"
        );
        let (mut writer, scan) = Writer::open(dir.path()).unwrap();
        assert_eq!(scan.whole_bytes, whole);
        for _ in 0..2 {
            writer.end(ended(EndKind::Interrupted, "x")).unwrap();
        }
        assert!(super::scan(&path).unwrap().is_ended());
        assert!(look(&path).unwrap().1, "it is marked");
        let chunk = read(&path, 0, 1000).unwrap();
        assert!(chunk.end);
        assert_eq!(frame::decode_all(&chunk.data).unwrap().0.len(), 2);
    }

    #[test]
    fn a_mark_is_true_or_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SPOOL);
        let (mut writer, _) = Writer::open(dir.path()).unwrap();
        writer.append(Body::Stdout(vec![b'x'; 10].into())).unwrap();
        writer.mark();
        let open = look(&path).unwrap();
        assert!(!open.1, "there is no end record yet");
        writer.end(ended(EndKind::Exited, "")).unwrap();
        let (len, marked) = look(&path).unwrap();
        assert!(len > open.0 && marked);
        // An ended one can be opened again, by anybody, and gets no second end.
        let (mut writer, scan) = Writer::open(dir.path()).unwrap();
        assert!(scan.is_ended());
        writer.end(ended(EndKind::Interrupted, "late")).unwrap();
        assert_eq!(look(&path).unwrap(), (len, true));
        // A power cut took the end and left the mark.
        fs::set_permissions(&path, Permissions::from_mode(OPEN_MODE)).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..usize::try_from(open.0).unwrap()]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(ENDED_MODE)).unwrap();
        let (writer, scan) = Writer::open(dir.path()).unwrap();
        assert_eq!((scan.whole_bytes, scan.is_ended()), (open.0, false));
        assert_eq!(look(&path).unwrap(), (open.0, false));
        assert!(!writer.is_forgotten());
        fs::remove_file(&path).unwrap();
        assert!(writer.is_forgotten());
    }

    proptest! {
        #[test]
        fn pieces_put_together_are_the_file(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..20), most in MAX_FRAME_BYTES..SPOOL_CHUNK_BYTES,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (mut writer, _) = Writer::open(dir.path()).unwrap();
            for part in &parts {
                writer.append_output(part, Body::Stderr).unwrap();
            }
            writer.end(ended(EndKind::Exited, "")).unwrap();
            let path = dir.path().join(SPOOL);
            let file = std::fs::read(&path).unwrap();
            let mut got = Vec::new();
            loop {
                let chunk = read(&path, got.len() as u64, most).unwrap();
                prop_assert!(!chunk.data.is_empty() && chunk.data.len() <= most);
                got.extend_from_slice(&chunk.data);
                prop_assert_eq!(chunk.end, got.len() == file.len());
                if chunk.end { break; }
            }
            prop_assert_eq!(got, file);
        }
    }

    #[test]
    fn an_end_written_after_a_power_cut_goes_behind_what_the_master_has() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _) = Writer::open(dir.path()).unwrap();
        writer.append(Body::Stdout(vec![b'x'; 10].into())).unwrap();
        let start = std::fs::metadata(dir.path().join(SPOOL)).unwrap().len();
        writer.end(ended(EndKind::Interrupted, "power")).unwrap();
        let scan = scan(&dir.path().join(SPOOL)).unwrap();
        assert_eq!(scan.last_start, start);
        for (acked, wanted) in [
            (0, 0),
            (start, 0),
            (scan.whole_bytes, 0),
            (start + 1, 1),
            (scan.whole_bytes + 100, scan.whole_bytes + 100 - start),
        ] {
            assert_eq!(shift(&scan, acked), wanted, "acked {acked}");
        }
        let open = Scan::default();
        assert_eq!(shift(&open, 5), 0, "one that goes on is left alone");
    }
}
