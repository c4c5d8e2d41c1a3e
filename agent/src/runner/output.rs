//! How much of a child's output is kept, and bringing it from its pipes to the spool. Used by the shim.

use std::io::{self, Read};

use aot_proto::limits::FRAME_BYTES;
use aot_proto::v1::Truncated;
use aot_proto::v1::frame::Body;
use hyper::body::Bytes;

use super::mask::Masker;
use super::spool::SpoolWriter;

/// How much output is kept.
pub(super) struct CappedOutput {
    left: u64,
    cap: u64,
    truncated: bool,
    /// Bytes of standard output that were dropped.
    pub cut_stdout: u64,
    /// Bytes of standard error that were dropped.
    pub cut_stderr: u64,
}

impl CappedOutput {
    /// Keeps `cap` bytes of both together.
    pub(super) fn new(cap: u64) -> Self {
        Self {
            left: cap,
            cap,
            truncated: false,
            cut_stdout: 0,
            cut_stderr: 0,
        }
    }

    /// The same of more than a frame has, or of nothing.
    pub(super) fn append_all(
        &mut self,
        bytes: &[u8],
        spool: &mut SpoolWriter,
        body: fn(Bytes) -> Body,
    ) {
        for piece in bytes.chunks(FRAME_BYTES) {
            self.append(piece, spool, body);
        }
    }

    /// Writes what is kept of `bytes` and counts the rest. A full disk cuts like the cap does.
    pub(super) fn append(
        &mut self,
        bytes: &[u8],
        spool: &mut SpoolWriter,
        body: fn(Bytes) -> Body,
    ) {
        let keep = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let mut kept = 0;
        if keep > 0 && spool.append_output(&bytes[..keep], body).is_ok() {
            kept = keep;
            self.left -= keep as u64;
        }
        let cut = (bytes.len() - kept) as u64;
        match body(Bytes::new()) {
            Body::Stderr(_) => self.cut_stderr += cut,
            _ => self.cut_stdout += cut,
        }
        if cut > 0 && !self.truncated {
            self.left = 0;
            self.truncated = spool
                .append(Body::Truncated(Truncated {
                    cap_bytes: self.cap,
                }))
                .is_ok();
        }
    }
}

/// Moves what is in the pipe now, secrets hidden; false at its end.
pub(super) fn pump<R: Read>(
    pipe: &mut Option<R>,
    buffer: &mut [u8],
    masker: &mut Masker<'_>,
    output: &mut CappedOutput,
    spool: &mut SpoolWriter,
    body: fn(Bytes) -> Body,
) -> bool {
    let Some(reader) = pipe else { return false };
    match reader.read(buffer) {
        Ok(0) => {
            output.append_all(&masker.finish(), spool, body);
            false
        }
        Ok(len) => {
            output.append_all(&masker.step(&buffer[..len]), spool, body);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::Interrupted,
    }
}
