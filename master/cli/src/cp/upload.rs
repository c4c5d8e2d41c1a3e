//! Packs files while they are sent to the master. Memory is bounded by a few pieces.

use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aot_archive::{Digesting, PackError, Source};
use aot_proto::v1::{UploadChunk, UploadReply};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::dial::Client;
use super::super::error::Error;

/// Bytes of one message.
const PIECE_BYTES: usize = 256 << 10;
/// Messages that are packed and not yet sent. When full, packing waits.
const PIECES: usize = 8;

/// What was sent.
#[derive(Debug)]
pub(super) struct Uploaded {
    /// The archive, as the master has it.
    pub reply: UploadReply,
    /// What is to be said about it: things that were left out.
    pub notes: Vec<String>,
}

/// Sends the archive of `sources`; `sent` counts its bytes. An archive that is not whole is never kept: the call is broken
/// off instead of ended.
///
/// # Errors
/// When something can't be read or changed meanwhile, the master refuses, or `interrupt` comes first.
pub(super) async fn upload(
    client: &mut Client,
    sources: Vec<Source>,
    sent: Arc<AtomicU64>,
    interrupt: impl Future<Output = ()>,
) -> Result<Uploaded, Error> {
    let (pieces, stream) = mpsc::channel(PIECES);
    let packing = tokio::task::spawn_blocking(move || {
        let mut notes = Vec::new();
        let mut out = Digesting::new(PieceWriter {
            piece: Vec::with_capacity(PIECE_BYTES),
            pieces,
            sent,
        });
        let packed = aot_archive::pack(&sources, &mut out, &mut |note| notes.push(note));
        // The sender goes back as well: the stream ends when it is dropped, and must not before it is known to be whole.
        (packed, out.finish(), notes)
    });
    let call = client.upload(ReceiverStream::new(stream));
    tokio::pin!(packing, call, interrupt);
    let nothing = || Error::Interrupted {
        goes_on: "nothing was copied".to_owned(),
    };
    let refused = |status: tonic::Status| Error::from(status);
    let (packed, (sender, sha256), notes) = tokio::select! {
        packed = &mut packing => packed.map_err(|error| Error::Output(io::Error::other(error)))?,
        reply = &mut call => return Err(match reply {
            Err(status) => refused(status),
            Ok(_) => Error::Output(io::Error::other("the master took an archive before its end")),
        }),
        () = &mut interrupt => return Err(nothing()),
    };
    match packed {
        Ok(_) => drop(sender),
        // The master broke off, and says why.
        Err(PackError::Write(_)) => {
            return match call.await {
                Err(status) => Err(refused(status)),
                Ok(_) => Err(Error::Output(io::ErrorKind::BrokenPipe.into())),
            };
        }
        Err(error) => return Err(error.into()),
    }
    let reply = tokio::select! {
        reply = &mut call => reply.map_err(refused)?.into_inner(),
        () = &mut interrupt => return Err(nothing()),
    };
    if reply.sha256 != sha256 {
        return Err(Error::Output(io::Error::other(
            "the master received other bytes than were sent: try again",
        )));
    }
    Ok(Uploaded { reply, notes })
}

/// A writer whose bytes become messages.
struct PieceWriter {
    piece: Vec<u8>,
    pieces: mpsc::Sender<UploadChunk>,
    sent: Arc<AtomicU64>,
}

impl PieceWriter {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        let chunk = UploadChunk { data: piece.into() };
        self.pieces
            .blocking_send(chunk)
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..len]);
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.send()
    }
}
