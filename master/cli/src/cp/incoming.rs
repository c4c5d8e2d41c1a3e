//! One instance's archive while it arrives: unpacked by a thread of its own into a folder beside its destination, and put
//! there when its checksum is right. Used by `receive` alone. What an instance sends is never trusted: see `aot_archive`.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::sync::Arc;
use std::thread::JoinHandle;

use aot_archive::{Destination, Digest, Folder, Limits, Rules, Tops};
use aot_host::chain::Chain;
use aot_proto::ids::InstanceName;
use aot_proto::limits::{MAX_COPY_BYTES, MAX_COPY_ENTRIES};
use tokio::sync::mpsc;

use super::remains::StagingDir;

/// Pieces of one instance that wait to be unpacked. When full, the job's events wait.
const PIECES: usize = 16;

/// One instance's archive on its way.
pub(super) struct Incoming {
    pieces: Option<mpsc::Sender<Vec<u8>>>,
    digest: Digest,
    bytes: u64,
    unpacking: JoinHandle<Result<StagingDir, String>>,
}

impl Incoming {
    pub(super) fn begin(destination: Arc<Destination>, tops: Tops) -> Self {
        let (pieces, inbox) = mpsc::channel(PIECES);
        // A thread and no task: as many as there are instances wait for their bytes at the same time.
        let unpacking = std::thread::spawn(move || unpack(&destination, tops, inbox));
        Self {
            pieces: Some(pieces),
            digest: Digest::default(),
            bytes: 0,
            unpacking,
        }
    }

    /// The next bytes, once there is room for them. Not cancel safe: a piece may be lost.
    pub(super) async fn piece(&mut self, data: &[u8]) {
        self.digest.update(data);
        self.bytes += data.len() as u64;
        if let Some(pieces) = &self.pieces
            && pieces.send(data.to_vec()).await.is_err()
        {
            // It was refused; why is said at the end.
            self.pieces = None;
        }
    }

    /// How much has come.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Drops what came. Blocks until it is removed.
    pub(super) fn discard(self) {
        drop(self.end());
    }

    /// Puts what came in its destination, or in the folder `own` there, when it is what the instance says that it sent. Blocks.
    ///
    /// # Errors
    /// Why nothing of it is there, for a person.
    pub(super) fn publish(
        self,
        sha256: &str,
        destination: &Destination,
        own: Option<&str>,
    ) -> Result<(), String> {
        let (got, unpacked) = self.end();
        let unpacked = unpacked.map_err(|error| format!("what it sent is refused: {error}"))?;
        if got != sha256 {
            return Err(format!(
                "what came is not what was sent: its SHA-256 is {got}"
            ));
        }
        let wrote = |error: io::Error| format!("cannot put it in place: {error}");
        let from = Folder::open(unpacked.path()).map_err(wrote)?;
        let Some(own) = own else {
            return aot_archive::merge(&from, &destination.folder).map_err(wrote);
        };
        // The name of a folder here: it is taken from nobody unread.
        let name: InstanceName = own
            .parse()
            .map_err(|error| format!("its name cannot be the name of a folder: {error}"))?;
        let to = destination.folder.inner(OsStr::new(name.as_str()));
        aot_archive::merge(&from, &to.map_err(wrote)?).map_err(wrote)
    }

    /// The digest of what came, and what it was unpacked to.
    fn end(self) -> (String, Result<StagingDir, String>) {
        drop(self.pieces);
        let unpacked = self.unpacking.join();
        let broke_off = || Err("unpacking it was interrupted".to_owned());
        (self.digest.hex(), unpacked.unwrap_or_else(|_| broke_off()))
    }
}

fn unpack(
    destination: &Destination,
    tops: Tops,
    pieces: mpsc::Receiver<Vec<u8>>,
) -> Result<StagingDir, String> {
    let text = |error: io::Error| error.to_string();
    let beside = StagingDir::new(&destination.path).map_err(text)?;
    let folder = Folder::open(beside.path()).map_err(text)?;
    let rules = Rules {
        limits: Limits {
            bytes: MAX_COPY_BYTES,
            entries: MAX_COPY_ENTRIES,
        },
        tops,
        rename: destination.rename.clone(),
    };
    let mut stream = PieceReader {
        pieces,
        piece: Vec::new(),
        read: 0,
    };
    aot_archive::unpack(&mut stream, &folder, &rules).map_err(|error| Chain(&error).to_string())?;
    // Past the last entry there are blocks of zeros.
    io::copy(&mut stream, &mut io::sink()).map_err(text)?;
    Ok(beside)
}

/// A reader of pieces as they come.
struct PieceReader {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    read: usize,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.piece.len() {
            let Some(piece) = self.pieces.blocking_recv() else {
                return Ok(0);
            };
            (self.piece, self.read) = (piece, 0);
        }
        let rest = &self.piece[self.read..];
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}
