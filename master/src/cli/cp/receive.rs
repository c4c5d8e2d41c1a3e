//! What instances send, into folders here: unpacked while it arrives into a folder beside its place, and put in place
//! when its checksum is right. What an instance sends is never trusted: see `aot_proto::archive`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use aot_proto::archive::{self, Digest, Folder, Limits, PART, Place, Rules};
use aot_proto::ids::InstanceName;
use aot_proto::limits::{MAX_COPY_BYTES, MAX_COPY_ENTRIES};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Pieces of one instance that wait to be unpacked. When full, the job's events wait.
const PIECES: usize = 16;

/// Where everything goes.
pub struct Receive {
    place: Arc<Place>,
    /// Each instance has a folder of its own.
    folders: bool,
    coming: HashMap<String, Coming>,
}

/// One instance's archive on its way.
struct Coming {
    pieces: Option<mpsc::Sender<Vec<u8>>>,
    digest: Digest,
    bytes: u64,
    unpacking: JoinHandle<Result<TempDir, String>>,
}

impl Receive {
    /// Into `to`; with one folder an instance, or straight.
    ///
    /// # Errors
    /// When there is no such place and it can't be made.
    pub fn new(to: &Path, into: bool, folders: bool) -> Result<Self, archive::PlaceError> {
        Ok(Self {
            place: Arc::new(archive::place(to, into || folders)?),
            folders,
            coming: HashMap::new(),
        })
    }

    /// The next bytes of an instance's archive. Cancel safe it is not: a job is followed to its end.
    pub async fn piece(&mut self, instance: &str, data: &[u8]) {
        let place = &self.place;
        let coming = self
            .coming
            .entry(instance.to_owned())
            .or_insert_with(|| Coming::begin(place.clone()));
        coming.digest.update(data);
        coming.bytes += data.len() as u64;
        if let Some(pieces) = &coming.pieces
            && pieces.send(data.to_vec()).await.is_err()
        {
            // It was refused; why is said at the end.
            coming.pieces = None;
        }
    }

    /// How much of an instance's archive has come.
    pub fn bytes(&self, instance: &str) -> u64 {
        self.coming.get(instance).map_or(0, |coming| coming.bytes)
    }

    /// Puts what came in its place, when it is what the instance says that it sent.
    ///
    /// # Errors
    /// Why nothing of it is there, for a person.
    pub async fn finish(&mut self, instance: &str, sha256: &str) -> Result<(), String> {
        let coming = self.coming.remove(instance).ok_or("nothing came")?;
        let (place, folders) = (self.place.clone(), self.folders);
        let (instance, sha256) = (instance.to_owned(), sha256.to_owned());
        let settling = move || {
            let own = folders.then_some(instance.as_str());
            settle(coming, &sha256, &place, own)
        };
        tokio::task::spawn_blocking(settling)
            .await
            .unwrap_or_else(|_| Err("putting it in place broke off".to_owned()))
    }

    /// Drops what came of an instance.
    pub fn drop_of(&mut self, instance: &str) {
        if let Some(coming) = self.coming.remove(instance) {
            drop(coming.end());
        }
    }
}

impl Drop for Receive {
    /// What is not in its place is removed before the program may end.
    fn drop(&mut self) {
        for (_, coming) in self.coming.drain() {
            drop(coming.end());
        }
    }
}

impl Coming {
    fn begin(place: Arc<Place>) -> Self {
        let (pieces, inbox) = mpsc::channel(PIECES);
        // A thread and no task: as many as there are instances wait for their bytes at the same time.
        let unpacking = std::thread::spawn(move || unpack(&place, inbox));
        Self {
            pieces: Some(pieces),
            digest: Digest::default(),
            bytes: 0,
            unpacking,
        }
    }

    /// The digest of what came, and what it was unpacked to.
    fn end(self) -> (String, Result<TempDir, String>) {
        drop(self.pieces);
        let unpacked = self.unpacking.join();
        let broke_off = || Err("unpacking it broke off".to_owned());
        (self.digest.hex(), unpacked.unwrap_or_else(|_| broke_off()))
    }
}

/// Into its place, or the folder `own` in it.
fn settle(coming: Coming, sha256: &str, place: &Place, own: Option<&str>) -> Result<(), String> {
    let (got, unpacked) = coming.end();
    let unpacked = unpacked.map_err(|error| format!("what it sent is refused: {error}"))?;
    if got != sha256 {
        return Err(format!(
            "what came is not what was sent: its SHA-256 is {got}"
        ));
    }
    let wrote = |error: io::Error| format!("cannot put it in place: {error}");
    let from = Folder::open(unpacked.path()).map_err(wrote)?;
    let Some(own) = own else {
        return archive::merge(&from, &place.folder).map_err(wrote);
    };
    // The name of a folder here: it is taken from nobody unread.
    let name: InstanceName = own
        .parse()
        .map_err(|error| format!("its name is no name for a folder: {error}"))?;
    let to = place.folder.inner(OsStr::new(name.as_str()));
    archive::merge(&from, &to.map_err(wrote)?).map_err(wrote)
}

fn unpack(place: &Place, pieces: mpsc::Receiver<Vec<u8>>) -> Result<TempDir, String> {
    let text = |error: io::Error| error.to_string();
    // On the same file system as its place, and only ours.
    let beside = tempfile::Builder::new()
        .prefix(PART)
        .tempdir_in(&place.path);
    let beside = beside.map_err(text)?;
    let folder = Folder::open(beside.path()).map_err(text)?;
    let rules = Rules {
        limits: Limits {
            bytes: MAX_COPY_BYTES,
            entries: MAX_COPY_ENTRIES,
        },
        bundle: false,
        rename: place.rename.clone(),
    };
    let mut stream = Pieces {
        pieces,
        piece: Vec::new(),
        read: 0,
    };
    archive::unpack(&mut stream, &folder, &rules).map_err(|error| error.to_string())?;
    // Past the last entry there are blocks of zeros.
    io::copy(&mut stream, &mut io::sink()).map_err(text)?;
    Ok(beside)
}

/// A reader of pieces as they come.
struct Pieces {
    pieces: mpsc::Receiver<Vec<u8>>,
    piece: Vec<u8>,
    read: usize,
}

impl Read for Pieces {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn packed(path: PathBuf) -> (Vec<u8>, String) {
        let mut out = archive::Digesting::new(Vec::new());
        let sources = archive::sources(&[path]).expect("sources");
        archive::pack(&sources, &mut out, &mut |_| {}).expect("packs");
        out.finish()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a folder").flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// An archive of one entry with that name, as a hostile agent may send it.
    fn hostile(name: &str) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(0);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(2048, 0);
        bytes
    }

    #[tokio::test]
    async fn each_instance_has_its_folder_and_only_what_is_right_is_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("log")).expect("a folder");
        fs::write(at("log/a"), vec![7; 100_000]).expect("writes");
        let (bytes, sha256) = packed(at("log"));
        let to = at("to");
        let mut receive = Receive::new(&to, false, true).expect("a place");
        for (instance, end) in [
            ("web1", bytes.len()),
            ("web2", bytes.len() / 2),
            ("web3", bytes.len()),
            ("web4", 1000),
        ] {
            for piece in bytes[..end].chunks(30_000) {
                receive.piece(instance, piece).await;
            }
        }
        receive.finish("web1", &sha256).await.expect("is right");
        let cut = receive.finish("web2", &sha256).await.expect_err("is cut");
        assert!(cut.contains("refused"), "{cut}");
        let other = "0".repeat(64);
        let wrong = receive
            .finish("web3", &other)
            .await
            .expect_err("is other bytes");
        assert!(wrong.contains(&sha256), "{wrong}");
        assert!(
            receive.finish("web5", &sha256).await.is_err(),
            "nothing came"
        );
        for name in ["../x", "/x", "web1/../../x"] {
            receive.piece("web6", &hostile(name)).await;
            let digest = {
                let mut digest = Digest::default();
                digest.update(&hostile(name));
                digest.hex()
            };
            assert!(receive.finish("web6", &digest).await.is_err(), "{name}");
        }
        receive.piece("../up", &bytes).await;
        assert!(receive.finish("../up", &sha256).await.is_err());
        receive.drop_of("web4");
        assert_eq!(names(&to), ["web1"]);
        assert_eq!(
            fs::read(to.join("web1/log/a")).expect("reads").len(),
            100_000
        );
        assert_eq!(names(dir.path()), ["log", "to"]);
    }

    #[tokio::test]
    async fn what_was_not_finished_is_gone_and_what_was_there_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), vec![7; 100_000]).expect("writes");
        let (bytes, sha256) = packed(at("a"));
        fs::create_dir(at("to")).expect("a folder");
        fs::write(at("to/new"), "old").expect("writes");
        let mut receive = Receive::new(&at("to/new"), false, false).expect("a place");
        receive.piece("web1", &bytes[..bytes.len() / 2]).await;
        drop(receive);
        assert_eq!(names(&at("to")), ["new"]);
        assert_eq!(fs::read(at("to/new")).expect("reads"), b"old");
        let mut receive = Receive::new(&at("to/new"), false, false).expect("a place");
        receive.piece("web1", &bytes).await;
        receive.finish("web1", &sha256).await.expect("is right");
        assert_eq!(fs::read(at("to/new")).expect("reads").len(), 100_000);
    }
}
