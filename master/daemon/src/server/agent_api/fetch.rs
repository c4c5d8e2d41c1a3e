//! The bulk lane: a bundle or copy, read from disk as fast as the agent takes it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::Duration;

use aot_proto::v1;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Status;

/// Bytes of a bundle or copy in one message.
const FETCH_BYTES: usize = 256 << 10;

/// Such messages that wait to be sent to one agent. When there are more, the disk is not read.
pub(super) const CHUNKS: usize = 4;

/// An agent that takes nothing for this long is let go: it continues from there with another call.
const UNREAD: Duration = Duration::from_secs(120);

/// A bundle, or else a transfer, to be read from there on, and its length.
pub(super) fn open_either(bundle: &Path, transfer: &Path, from: u64) -> io::Result<(File, u64)> {
    let file = match File::open(bundle) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(transfer),
        other => other,
    };
    let mut file = file.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            error.kind(),
            "the master no longer has it: copy the files again",
        ),
        _ => error,
    })?;
    let total = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(from))?;
    Ok((file, total))
}

/// The file's bytes from `at` on, where it stands, piece by piece. It waits for the agent after a few of them.
pub(super) async fn send_file(
    mut file: File,
    mut at: u64,
    total: u64,
    sender: mpsc::Sender<Result<v1::FetchChunk, Status>>,
) {
    while at < total {
        let read = tokio::task::spawn_blocking(move || {
            let piece = read_piece(&mut file);
            piece.map(|data| (file, data))
        });
        let read = read
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        let (same, data) = match read {
            Ok(read) => read,
            Err(error) => {
                let _ = sender.send(Err(Status::data_loss(error.to_string()))).await; // the agent may be gone
                return;
            }
        };
        file = same;
        at += data.len() as u64;
        let chunk = v1::FetchChunk {
            data: Bytes::from(data),
            total_bytes: total,
        };
        let sent = tokio::time::timeout(UNREAD, sender.send(Ok(chunk))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

fn read_piece(file: &mut File) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(FETCH_BYTES);
    match file.take(FETCH_BYTES as u64).read_to_end(&mut data)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(data),
    }
}
