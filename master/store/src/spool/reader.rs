//! Follows one copy from its start: frames in order, live while the run continues. Of a run that has ended a copy may lie
//! among the blobs alone; then it is read there, and nothing of it is kept here.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use aot_proto::frame::{self, HEADER_BYTES, MAX_FRAME_BYTES};
use aot_proto::v1::Frame;
use prost::bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use super::{Feed, Progress, end_record};
use crate::blobs::{BlobKey, Blobs};

/// Bytes that a reader takes from a file at once.
const READ_BYTES: usize = 256 << 10;

enum FrameSource {
    Whole(Bytes),
    Live(Following),
    File,
    /// The file, or where there is none an object.
    Blob(Elsewhere),
}

/// An object, opened when it is needed.
struct Elsewhere {
    blobs: Arc<dyn Blobs>,
    key: BlobKey,
    rest: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// It is looked for before the file, which is only a part.
    goes_first: bool,
}

impl Elsewhere {
    /// The next bytes; none at its end, or when there is no such object. Cancel safe.
    async fn read(&mut self, at: u64) -> io::Result<Bytes> {
        if self.rest.is_none() {
            let found = self.blobs.get(&self.key, at).await;
            let found = found.map_err(io::Error::other)?;
            self.rest = found.map(|blob| blob.rest);
        }
        let mut bytes = BytesMut::with_capacity(READ_BYTES);
        if let Some(rest) = &mut self.rest {
            rest.read_buf(&mut bytes).await?;
        }
        Ok(bytes.freeze())
    }
}

/// A place among those who follow a run.
struct Following {
    feed: Arc<Feed>,
    progress: watch::Receiver<Progress>,
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut tail = self.feed.tail.lock().expect("nobody panics with it");
        tail.leave();
    }
}

/// Reads frames in order, waiting for more while a run continues.
pub struct SpoolReader {
    path: PathBuf,
    source: FrameSource,
    file: Option<Arc<File>>,
    at: u64,
    /// What was read and is not a whole frame yet.
    rest: Bytes,
    over: bool,
    has_end: bool,
}

impl SpoolReader {
    fn new(path: PathBuf, source: FrameSource) -> Self {
        Self {
            path,
            source,
            file: None,
            at: 0,
            rest: Bytes::new(),
            over: false,
            has_end: false,
        }
    }

    pub(super) fn of_bytes(bytes: Bytes) -> Self {
        Self::new(PathBuf::new(), FrameSource::Whole(bytes))
    }

    pub(super) fn of_file(path: PathBuf) -> Self {
        Self::new(path, FrameSource::File)
    }

    pub(super) fn of_blob(
        path: PathBuf,
        blobs: Arc<dyn Blobs>,
        key: BlobKey,
        goes_first: bool,
    ) -> Self {
        let elsewhere = Elsewhere {
            blobs,
            key,
            rest: None,
            goes_first,
        };
        Self::new(path, FrameSource::Blob(elsewhere))
    }

    pub(super) fn of_feed(path: PathBuf, feed: Arc<Feed>) -> Self {
        feed.tail.lock().expect("nobody panics with it").follow();
        let progress = feed.progress.subscribe();
        Self::new(path, FrameSource::Live(Following { feed, progress }))
    }

    /// Nothing will be added to what there is.
    pub fn has_ended(&self) -> bool {
        match &self.source {
            FrameSource::Live(live) => live.progress.borrow().ended,
            FrameSource::Whole(_) | FrameSource::File | FrameSource::Blob(_) => true,
        }
    }

    /// How many bytes of the spool were read.
    pub fn read_bytes(&self) -> u64 {
        self.at
    }

    /// Whether the spool was read to its end record: then that was all of it.
    pub fn has_end(&self) -> bool {
        self.has_end
    }

    /// The next frames; `None` after the end record, or where a file stops. Cancel safe.
    ///
    /// # Errors
    /// When the copy can't be read.
    pub async fn next(&mut self) -> io::Result<Option<Vec<Frame>>> {
        while !self.over {
            let (bytes, ended) = self.more().await?;
            let stop = bytes.is_empty() && ended;
            self.at += bytes.len() as u64;
            self.rest = joined(std::mem::take(&mut self.rest), bytes);
            let frames = frame::split_off_all(&mut self.rest).map_err(io::Error::other)?;
            let last = frames.last();
            self.has_end = last.is_some_and(|frame| end_record(frame).is_some());
            self.over = stop || self.has_end;
            if !frames.is_empty() {
                return Ok(Some(frames));
            }
        }
        Ok(None)
    }

    /// The next bytes, and whether there will be no more when there are none.
    async fn more(&mut self) -> io::Result<(Bytes, bool)> {
        let at = self.at;
        let live = match &mut self.source {
            FrameSource::Whole(bytes) => return Ok((std::mem::take(bytes), true)),
            FrameSource::File => return Ok((self.read_file().await?, true)),
            FrameSource::Blob(_) => return Ok((self.read_file_or_blob().await?, true)),
            FrameSource::Live(live) => live,
        };
        let progress = match live.progress.wait_for(|p| p.bytes > at || p.ended).await {
            Ok(progress) => *progress,
            Err(_) => Progress {
                bytes: at,
                ended: true,
            },
        };
        let whole = live
            .feed
            .whole
            .lock()
            .expect("nobody panics with it")
            .clone();
        if let Some(bytes) = whole {
            let from = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            return Ok((bytes.slice(from..), true));
        }
        let held = live
            .feed
            .tail
            .lock()
            .expect("nobody panics with it")
            .from(at);
        match held {
            Some(bytes) => Ok((bytes, progress.ended)),
            None => Ok((self.read_file().await?, progress.ended)),
        }
    }

    /// From the file, or from the object once there was found to be no file; of a part, the other way round.
    async fn read_file_or_blob(&mut self) -> io::Result<Bytes> {
        let at = self.at;
        if let FrameSource::Blob(elsewhere) = &mut self.source
            && elsewhere.goes_first
        {
            let bytes = elsewhere.read(at).await?;
            if elsewhere.rest.is_some() {
                return Ok(bytes);
            }
            elsewhere.goes_first = false;
        }
        let is_open = matches!(&self.source, FrameSource::Blob(it) if it.rest.is_some());
        if !is_open {
            let bytes = self.read_file().await?;
            if self.file.is_some() {
                return Ok(bytes);
            }
        }
        match &mut self.source {
            FrameSource::Blob(elsewhere) => elsewhere.read(at).await,
            _ => Ok(Bytes::new()),
        }
    }

    async fn read_file(&mut self) -> io::Result<Bytes> {
        let (path, at, file) = (self.path.clone(), self.at, self.file.clone());
        let read = tokio::task::spawn_blocking(move || -> io::Result<_> {
            let file = match file.map_or_else(|| File::open(&path).map(Arc::new), Ok) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Ok((None, Bytes::new()));
                }
                Err(error) => return Err(error),
            };
            let mut bytes = vec![0; READ_BYTES];
            let len = file.read_at(&mut bytes, at)?;
            bytes.truncate(len);
            Ok((Some(file), Bytes::from(bytes)))
        });
        let (file, bytes) = read.await.map_err(io::Error::other)??;
        self.file = file;
        Ok(bytes)
    }
}

/// The last whole frame of a file, found by its frames' lengths alone.
pub(super) fn last_frame(path: &Path) -> Option<Frame> {
    let file = File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    let (mut at, mut last) = (0, None);
    let mut header = [0; HEADER_BYTES];
    while file.read_exact_at(&mut header, at).is_ok() {
        let frame_bytes = HEADER_BYTES + u32::from_le_bytes(header) as usize;
        if at + frame_bytes as u64 > len || frame_bytes > HEADER_BYTES + MAX_FRAME_BYTES {
            break;
        }
        last = Some((at, frame_bytes));
        at += frame_bytes as u64;
    }
    let (start, frame_bytes) = last?;
    let mut bytes = vec![0; frame_bytes];
    file.read_exact_at(&mut bytes, start).ok()?;
    frame::decode(&bytes).ok()?.map(|(frame, _)| frame)
}

/// One after the other; copied only when both hold something.
fn joined(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() {
        return second;
    }
    if second.is_empty() {
        return first;
    }
    [first, second].concat().into()
}
