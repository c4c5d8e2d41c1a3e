//! The bulk lane: a bundle or copy, read from disk as fast as the agent takes it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::time::Duration;

use aot_proto::v1;
use prost::bytes::Bytes;
use tokio::sync::mpsc;
use tonic::Status;

/// Bytes of a bundle or copy that are read at once.
const READ_BYTES: usize = 256 << 10;

/// Bytes of it in one message: a fetch holds a few of them in buffers of its own, and thousands of machines fetch at once.
const FETCH_BYTES: usize = 64 << 10;

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
        for chunk in chunks(data.into(), total) {
            let sent = tokio::time::timeout(UNREAD, sender.send(Ok(chunk))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// Messages that share the memory of what was read.
fn chunks(mut read: Bytes, total_bytes: u64) -> impl Iterator<Item = v1::FetchChunk> {
    std::iter::from_fn(move || {
        let data = read.split_to(read.len().min(FETCH_BYTES));
        (!data.is_empty()).then_some(v1::FetchChunk { data, total_bytes })
    })
}

fn read_piece(file: &mut File) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(READ_BYTES);
    match file.take(READ_BYTES as u64).read_to_end(&mut data)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;

    #[tokio::test]
    async fn a_file_comes_from_where_it_was_left_off_in_messages_that_are_not_long() {
        let content: Vec<u8> = (0..READ_BYTES * 2 + 77)
            .map(|at| (at / 1000) as u8)
            .collect();
        let mut bundle = tempfile::NamedTempFile::new().expect("a file");
        bundle.write_all(&content).expect("writes");
        for from in [0, 5, READ_BYTES, content.len()] {
            let (file, total) =
                open_either(bundle.path(), Path::new("/"), from as u64).expect("opens");
            let (sender, mut chunks) = mpsc::channel(CHUNKS);
            let sending = send_file(file, from as u64, total, sender);
            let mut read = Vec::new();
            let reading = async {
                while let Some(chunk) = chunks.recv().await {
                    let chunk = chunk.expect("is read");
                    assert!(!chunk.data.is_empty() && chunk.data.len() <= FETCH_BYTES);
                    assert_eq!(chunk.total_bytes, content.len() as u64);
                    read.extend_from_slice(&chunk.data);
                }
            };
            tokio::join!(sending, reading);
            assert!(read == content[from..], "from {from}: {} bytes", read.len());
        }
    }
}
