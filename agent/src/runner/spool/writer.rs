//! Appends frames to a spool, each whole or not at all, and writes its end. A spool has one writer at a time: who holds the
//! run's lock.

use std::fs::{self, File, Permissions};
use std::io::{self, IoSlice, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aot_proto::frame;
use aot_proto::v1::frame::Body;
use aot_proto::v1::{Ended, Frame};
use hyper::body::Bytes;

use super::scan::{Scan, scan_file};
use super::{ENDED_MODE, OPEN_MODE, SPOOL, is_marked, open_to_write};

/// The one writer of a spool.
pub(crate) struct SpoolWriter {
    path: PathBuf,
    file: File,
    good_bytes: u64,
    buffer: Vec<u8>,
    dirty: bool,
    has_end: bool,
}

impl SpoolWriter {
    /// Opens (or makes, mode 0600) the spool in `dir`, cuts off a torn last frame, and takes back a mark that is not true
    /// (a power cut took the end record).
    ///
    /// # Errors
    /// As open(2); when the file is not a spool.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Scan)> {
        let path = dir.join(SPOOL);
        Self::over(open_to_write(&path)?, path)
    }

    /// As [`SpoolWriter::open`], of a spool that is open already for reading and appending: it may have lost its name.
    ///
    /// # Errors
    /// As read(2); when the file is not a spool.
    pub(crate) fn over(mut file: File, path: PathBuf) -> io::Result<(Self, Scan)> {
        file.rewind()?;
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
    pub(crate) fn append(&mut self, body: Body) -> io::Result<()> {
        self.buffer.clear();
        frame::encode(
            &Frame {
                unix_ms: aot_host::clock::unix_ms(),
                body: Some(body),
            },
            &mut self.buffer,
        );
        self.write(&[])
    }

    /// Appends one frame of output, whole or not at all, without a copy of it.
    ///
    /// # Errors
    /// As [`SpoolWriter::append`].
    pub(crate) fn append_output(
        &mut self,
        bytes: &[u8],
        body: fn(Bytes) -> Body,
    ) -> io::Result<()> {
        self.buffer.clear();
        let frame = Frame {
            unix_ms: aot_host::clock::unix_ms(),
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

    /// Whether there is something that [`SpoolWriter::sync`] would bring to disk.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// fdatasync(2).
    ///
    /// # Errors
    /// As fdatasync(2).
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.dirty = false;
        self.file.sync_data()
    }

    /// Appends the end record and marks the run as ended. May be called again after an error: the record is written once.
    /// A power cut before [`SpoolWriter::sync`] may cost the record, and leave the mark.
    ///
    /// # Errors
    /// As write(2).
    pub(crate) fn conclude(&mut self, ended: Ended) -> io::Result<()> {
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
    pub(crate) fn end(&mut self, ended: Ended) -> io::Result<()> {
        self.conclude(ended)?;
        self.sync()
    }

    /// Whether the run was forgotten: the master has it whole, and nobody will open this spool again.
    pub(crate) fn is_forgotten(&self) -> bool {
        let there = fs::metadata(&self.path);
        there.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Leaves the mark that saves a scan, when there is an end record. Without it the spool is scanned: that it can't be
    /// set must not make a good end fail.
    pub(crate) fn mark(&self) {
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
