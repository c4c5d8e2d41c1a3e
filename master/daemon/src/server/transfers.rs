//! Archives of copies on their way to instances: taken from an operator, kept by content, fetched by agents. One that no
//! open job uses stays for an hour after its upload, so that the copy can be retried. Decides nothing about jobs.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aot_archive::Digesting;
use aot_host::chain::Chain;
use aot_host::hash::is_sha256;
use aot_proto::ids::{InstanceName, JobId};
use aot_proto::limits::MAX_COPY_BYTES;
use aot_proto::v1;
use aot_store::room::Room;
use futures::{Stream, StreamExt};
use prost::bytes::Bytes;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::run::Engines;
use crate::run::blob_janitor::named_uploads;

/// How long an archive stays that no open job uses.
const KEPT: Duration = Duration::from_secs(3600);
/// Archives that no open job uses take at most this much together; the oldest go first.
const KEPT_BYTES: u64 = 4 << 30;
/// How often what is not needed any more is removed.
const TIDY: Duration = Duration::from_secs(60);
/// Pieces between the socket and the disk. When full, the operator waits.
const PIECES: usize = 8;
/// Reports of progress that may wait for one reader. When there are more, the oldest are lost: newer ones follow.
const PROGRESS: usize = 1024;

/// How far a copy to one instance is.
#[derive(Debug, Clone)]
pub(crate) struct Copied {
    /// The copy.
    pub job: JobId,
    /// Where to.
    pub instance: InstanceName,
    /// Bytes that are there.
    pub bytes: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Where archives lie, and how far their copies are.
#[derive(Debug)]
pub(crate) struct Transfers {
    dir: PathBuf,
    room: Arc<Room>,
    progress: broadcast::Sender<Copied>,
}

impl Transfers {
    /// Opens the folder, and removes uploads that were cut off.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn open(dir: &Path, room: Arc<Room>) -> io::Result<Self> {
        aot_host::files::private_dir(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if sha256_of(&path).is_none() {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            room,
            progress: broadcast::Sender::new(PROGRESS),
        })
    }

    /// Where the archive with this digest is, or would be. `None` when it is not a digest.
    pub(crate) fn path(&self, sha256: &str) -> Option<PathBuf> {
        is_sha256(sha256).then(|| self.dir.join(sha256))
    }

    /// Whether the archive with this digest is here.
    pub(crate) fn has(&self, sha256: &str) -> bool {
        self.path(sha256).is_some_and(|path| path.exists())
    }

    /// Passes on how far a copy is; nobody has to listen.
    pub(crate) fn publish(&self, copied: Copied) {
        let _ = self.progress.send(copied); // no one follows
    }

    /// How far copies are, from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Copied> {
        self.progress.subscribe()
    }

    /// Receives an archive to its end.
    ///
    /// # Errors
    /// When the stream breaks off, the disk is full, or there is too much; then nothing of it stays.
    pub(crate) async fn receive(
        &self,
        pieces: impl Stream<Item = Result<v1::UploadChunk, Status>>,
    ) -> Result<v1::UploadReply, Status> {
        let (to_disk, from_socket) = mpsc::channel(PIECES);
        let dir = self.dir.clone();
        let writing = tokio::task::spawn_blocking(move || write(&dir, from_socket));
        let mut bytes = 0;
        let mut broken = None;
        futures::pin_mut!(pieces);
        loop {
            let piece = match pieces.next().await {
                Some(Ok(piece)) => Some(piece.data),
                Some(Err(status)) => {
                    broken = Some(status);
                    break;
                }
                None => None,
            };
            bytes += piece.as_ref().map_or(0, |data| data.len() as u64);
            if bytes > MAX_COPY_BYTES {
                broken = Some(Status::invalid_argument(format!(
                    "more than {MAX_COPY_BYTES} bytes in one copy"
                )));
                break;
            }
            if let Err(full) = self.room.check() {
                broken = Some(Status::resource_exhausted(full.to_string()));
                break;
            }
            let last = piece.is_none();
            // A writer that is gone says why below.
            if to_disk.send(piece).await.is_err() || last {
                break;
            }
        }
        drop(to_disk);
        let written = writing
            .await
            .map_err(|_| Status::internal("writing the files was interrupted"))?;
        match (broken, written) {
            (Some(status), _) => Err(status),
            (None, Ok(sha256)) => Ok(v1::UploadReply { sha256, bytes }),
            (None, Err(error)) => Err(Status::resource_exhausted(format!(
                "the master cannot keep the files in {}: {}",
                self.dir.display(),
                Chain(&error)
            ))),
        }
    }

    /// Removes what is not needed any more, now and then.
    pub(crate) async fn tidy_regularly(&self, engine: Engines, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TIDY);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            let used = engine
                .read_each(named_uploads)
                .into_iter()
                .flatten()
                .collect();
            if let Err(error) = tidy(&self.dir, &used, SystemTime::now()) {
                tracing::warn!(error = %Chain(&error), "cannot remove the files of finished copies");
            }
        }
    }
}

fn sha256_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str().filter(|name| is_sha256(name))
}

/// Writes pieces until the one that says that it was the last; says the digest.
fn write(dir: &Path, mut pieces: mpsc::Receiver<Option<Bytes>>) -> io::Result<String> {
    let mut out = Digesting::new(tempfile::NamedTempFile::new_in(dir)?);
    loop {
        match pieces.blocking_recv() {
            Some(Some(data)) => out.write_all(&data)?,
            Some(None) => break,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
    let (file, sha256) = out.finish();
    file.persist(dir.join(&sha256))
        .map_err(|error| error.error)?;
    Ok(sha256)
}

/// What a call on something that is there comes to; `None` when it is not, or no longer.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Removes archives that nobody uses: those of more than an hour, and the oldest of too much. What someone else has removed,
/// a file or the folder itself, needs no removal.
fn tidy(dir: &Path, used: &HashSet<String>, now: SystemTime) -> io::Result<()> {
    let mut idle = Vec::new();
    for entry in if_there(fs::read_dir(dir))?.into_iter().flatten() {
        let path = entry?.path();
        if sha256_of(&path).is_none_or(|sha256| used.contains(sha256)) {
            continue;
        }
        if let Some(meta) = if_there(fs::metadata(&path))? {
            idle.push((meta.modified()?, meta.len(), path));
        }
    }
    idle.sort();
    let mut bytes: u64 = idle.iter().map(|(_, bytes, _)| bytes).sum();
    for (uploaded, size, path) in idle {
        let old = now.duration_since(uploaded).is_ok_and(|age| age > KEPT);
        if old || bytes > KEPT_BYTES {
            if_there(fs::remove_file(path))?;
            bytes -= size;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn room(dir: &Path) -> Arc<Room> {
        Arc::new(Room::new(dir, 0))
    }

    fn chunk(data: &'static [u8]) -> Result<v1::UploadChunk, Status> {
        Ok(v1::UploadChunk { data: data.into() })
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a folder").flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[tokio::test]
    async fn an_upload_is_kept_by_its_content_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a folder");
        let transfers = Transfers::open(dir.path(), room(dir.path())).expect("opens");
        let cut = futures::stream::iter([chunk(b"ab"), Err(Status::cancelled("gone"))]);
        assert!(transfers.receive(cut).await.is_err());
        assert!(names(dir.path()).is_empty(), "nothing of it stays");
        for _ in 0..2 {
            let pieces = futures::stream::iter([chunk(b"ab"), chunk(b"c")]);
            let reply = transfers.receive(pieces).await.expect("is taken");
            assert_eq!((reply.sha256.as_str(), reply.bytes), (ABC, 3));
        }
        assert_eq!(names(dir.path()), [ABC]);
        let path = transfers.path(ABC).expect("a digest");
        assert_eq!(fs::read(path).expect("reads"), b"abc");
        assert!(transfers.path("../../etc/passwd").is_none());
        fs::write(dir.path().join(".tmpX"), "half").expect("writes");
        Transfers::open(dir.path(), room(dir.path())).expect("opens");
        assert_eq!(names(dir.path()), [ABC], "what was cut off is swept");
    }

    #[tokio::test]
    async fn without_room_an_upload_is_refused_by_name_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let all = Arc::new(Room::without_any(dir.path()));
        let transfers = Transfers::open(dir.path(), all).expect("opens");
        let taken = transfers
            .receive(futures::stream::iter([chunk(b"x")]))
            .await;
        let status = taken.expect_err("there is no room");
        assert!(
            status.message().starts_with("no space left in "),
            "{status}"
        );
        assert!(names(dir.path()).is_empty(), "nothing of it stays");
    }

    #[tokio::test]
    async fn a_disk_that_refuses_is_said_with_its_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let transfers = Transfers::open(dir.path(), room(dir.path())).expect("opens");
        fs::remove_dir(dir.path()).expect("removes");
        let taken = transfers
            .receive(futures::stream::iter([chunk(b"x")]))
            .await;
        let status = taken.expect_err("there is no folder");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(status.message().contains(&*dir.path().to_string_lossy()));
    }

    #[test]
    fn a_folder_that_was_removed_is_not_an_error_and_one_that_is_not_a_folder_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let gone = dir.path().join("gone");
        tidy(&gone, &HashSet::new(), SystemTime::now()).expect("nothing to remove");
        fs::write(&gone, "").expect("writes");
        assert!(tidy(&gone, &HashSet::new(), SystemTime::now()).is_err());
    }

    #[test]
    fn what_a_job_uses_stays_and_the_rest_goes_after_an_hour() {
        let dir = tempfile::tempdir().expect("a folder");
        let (used, idle) = ("a".repeat(64), "b".repeat(64));
        for name in [&used, &idle] {
            fs::write(dir.path().join(name), "x").expect("writes");
        }
        let keep = HashSet::from([used.clone()]);
        let now = SystemTime::now();
        tidy(dir.path(), &keep, now).expect("tidies");
        assert_eq!(names(dir.path()).len(), 2);
        tidy(dir.path(), &keep, now + KEPT * 2).expect("tidies");
        assert_eq!(names(dir.path()), std::slice::from_ref(&used));
        let big = fs::File::create(dir.path().join(&idle)).expect("a file");
        big.set_len(KEPT_BYTES + 1).expect("a sparse one");
        tidy(dir.path(), &keep, now).expect("tidies");
        assert_eq!(names(dir.path()), [used]);
    }
}
