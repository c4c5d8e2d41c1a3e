//! The master's byte-exact copies of runs' spools, and readers that follow them while they grow.
//!
//! A spool that arrives whole in one piece stays in memory until the store has it (`Arrived::Whole`); a longer one
//! becomes a file, appended by one thread that syncs what it wrote before it answers. What is told as `Progress` is on
//! disk, or in the hands of the writer that makes it so.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aot_proto::frame;
use aot_proto::ids::RunId;
use aot_proto::v1::{Ended, Frame, frame::Body};
use prost::bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

/// Appends that may wait. When full, sessions stop reading from their agents.
const QUEUE: usize = 256;

/// Most appends between two syncs.
const BATCH: usize = 64;

/// Bytes that a reader takes at once.
const READ_BYTES: usize = 256 << 10;

/// How far the copy of a spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes on disk here.
    pub bytes: u64,
    /// They are all there will be.
    pub ended: bool,
}

/// What an append came to.
#[derive(Debug, Clone)]
pub enum Arrived {
    /// So much is on disk; say so to the agent.
    Part(Progress),
    /// The whole spool in one piece: it goes to the store with the run's end.
    Whole(Bytes),
}

struct Feed {
    progress: watch::Sender<Progress>,
    whole: Mutex<Option<Bytes>>,
}

struct Append {
    run: RunId,
    offset: u64,
    data: Bytes,
    end: bool,
    done: oneshot::Sender<io::Result<Progress>>,
}

/// All copies.
pub struct Spools {
    dir: PathBuf,
    feeds: Mutex<HashMap<RunId, Arc<Feed>>>,
    appends: mpsc::Sender<Append>,
}

impl Spools {
    /// Uses `dir`, making it when needed.
    ///
    /// # Errors
    /// When the folder can't be used.
    pub fn open(dir: &Path) -> Result<Arc<Self>, super::Error> {
        let io = |source| super::Error::Io {
            what: "make the folder",
            path: dir.to_owned(),
            source,
        };
        crate::files::private_dir(dir).map_err(io)?;
        let (appends, queue) = mpsc::channel(QUEUE);
        let spools = Arc::new(Self {
            dir: dir.to_owned(),
            feeds: Mutex::default(),
            appends,
        });
        let thread_dir = dir.to_owned();
        std::thread::Builder::new()
            .name("spools".to_owned())
            .spawn(move || append_loop(&thread_dir, queue))
            .map_err(|source| super::Error::Io {
                what: "start the writer of",
                path: dir.to_owned(),
                source,
            })?;
        Ok(spools)
    }

    fn path(&self, run: RunId) -> PathBuf {
        self.dir.join(run.to_string())
    }

    fn feed(&self, run: RunId) -> Arc<Feed> {
        let mut feeds = self.feeds.lock().expect("nobody panics with it");
        let fresh = || {
            let bytes = std::fs::metadata(self.path(run)).map_or(0, |meta| meta.len());
            Arc::new(Feed {
                progress: watch::Sender::new(Progress {
                    bytes,
                    ended: false,
                }),
                whole: Mutex::new(None),
            })
        };
        feeds.entry(run).or_insert_with(fresh).clone()
    }

    /// How many bytes of a run's spool are on disk here.
    pub fn have(&self, run: RunId) -> u64 {
        self.feed(run).progress.borrow().bytes
    }

    /// Takes a piece. One that is there already changes nothing; one that leaves a gap is an error.
    ///
    /// # Errors
    /// When the disk refuses, or the piece leaves a gap.
    pub async fn append(
        &self,
        run: RunId,
        offset: u64,
        data: Bytes,
        end: bool,
    ) -> io::Result<Arrived> {
        let feed = self.feed(run);
        if offset == 0 && end && feed.progress.borrow().bytes == 0 {
            *feed.whole.lock().expect("nobody panics with it") = Some(data.clone());
            feed.progress.send_replace(Progress {
                bytes: data.len() as u64,
                ended: true,
            });
            return Ok(Arrived::Whole(data));
        }
        let (done, answer) = oneshot::channel();
        let append = Append {
            run,
            offset,
            data,
            end,
            done,
        };
        self.appends
            .send(append)
            .await
            .map_err(|_| io::Error::other("the writer of spools has stopped"))?;
        let progress = answer
            .await
            .map_err(|_| io::Error::other("the writer of spools has stopped"))??;
        feed.progress.send_replace(progress);
        Ok(Arrived::Part(progress))
    }

    /// A run that has ended and is in the store: nobody new will follow it, and those who do get no more.
    pub fn settle(&self, run: RunId) {
        let feed = self
            .feeds
            .lock()
            .expect("nobody panics with it")
            .remove(&run);
        if let Some(feed) = feed {
            feed.progress.send_modify(|progress| progress.ended = true);
        }
    }

    /// Bytes of every spool that is a file, by run.
    pub fn sizes(&self) -> HashMap<RunId, u64> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let run = entry.file_name().to_str()?.parse().ok()?;
                Some((run, entry.metadata().ok()?.len()))
            })
            .collect()
    }

    /// Bytes of a spool that is a file; 0 when it is none.
    pub fn size(&self, run: RunId) -> u64 {
        std::fs::metadata(self.path(run)).map_or(0, |meta| meta.len())
    }

    /// Removes a spool's file, if it is one.
    pub fn remove(&self, run: RunId) {
        if let Err(error) = std::fs::remove_file(self.path(run))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%run, %error, "cannot remove an output");
        }
    }

    /// The end record of a spool that is whole in a file: what a restart may find.
    pub fn end_of(&self, run: RunId) -> Option<Ended> {
        let bytes = std::fs::read(self.path(run)).ok()?;
        let (frames, _) = frame::decode_all(&bytes).ok()?;
        end_record(frames.last()?)
    }

    /// Follows a run's spool from its start; `stored` is the whole of it when the store has it.
    pub fn read(&self, run: RunId, stored: Option<Vec<u8>>, live: bool) -> Reader {
        let source = match stored {
            Some(bytes) => Source::Whole(bytes.into()),
            None if live => Source::Live(self.feed(run)),
            None => Source::File,
        };
        Reader {
            path: self.path(run),
            source,
            at: 0,
            buffer: Vec::new(),
            over: false,
        }
    }
}

/// The end record, when the frame is one.
pub fn end_record(frame: &Frame) -> Option<Ended> {
    match &frame.body {
        Some(Body::Ended(ended)) => Some(ended.clone()),
        _ => None,
    }
}

enum Source {
    Whole(Bytes),
    Live(Arc<Feed>),
    File,
}

/// Reads frames in order, waiting for more while a run goes on.
pub struct Reader {
    path: PathBuf,
    source: Source,
    at: u64,
    buffer: Vec<u8>,
    over: bool,
}

impl Reader {
    /// Nothing will be added to what there is.
    pub fn has_ended(&self) -> bool {
        match &self.source {
            Source::Live(feed) => feed.progress.borrow().ended,
            Source::Whole(_) | Source::File => true,
        }
    }

    /// The next frames; `None` after the end record, or where a file stops.
    ///
    /// # Errors
    /// When the copy can't be read.
    pub async fn next(&mut self) -> io::Result<Option<Vec<Frame>>> {
        while !self.over {
            let (bytes, ended) = self.more().await?;
            let stop = bytes == 0 && ended;
            let (frames, len) = frame::decode_all(&self.buffer).map_err(io::Error::other)?;
            self.buffer.drain(..len);
            self.over = stop
                || frames
                    .last()
                    .is_some_and(|frame| end_record(frame).is_some());
            if !frames.is_empty() {
                return Ok(Some(frames));
            }
        }
        Ok(None)
    }

    /// Reads on; says how many bytes came, and whether there will be no more after them.
    async fn more(&mut self) -> io::Result<(usize, bool)> {
        let feed = match &self.source {
            Source::Whole(bytes) => {
                self.buffer.extend_from_slice(bytes);
                let len = bytes.len();
                self.source = Source::Whole(Bytes::new());
                return Ok((len, true));
            }
            Source::File => return self.read_file().await.map(|len| (len, true)),
            Source::Live(feed) => feed.clone(),
        };
        let mut watch = feed.progress.subscribe();
        let at = self.at;
        let progress = match watch.wait_for(|p| p.bytes > at || p.ended).await {
            Ok(progress) => *progress,
            Err(_) => Progress {
                bytes: at,
                ended: true,
            },
        };
        let whole = feed.whole.lock().expect("nobody panics with it").clone();
        if let Some(bytes) = whole {
            let rest = bytes.slice(usize::try_from(at).unwrap_or(0).min(bytes.len())..);
            self.buffer.extend_from_slice(&rest);
            self.at += rest.len() as u64;
            return Ok((rest.len(), true));
        }
        let len = self.read_file().await?;
        Ok((len, progress.ended))
    }

    async fn read_file(&mut self) -> io::Result<usize> {
        let (path, at) = (self.path.clone(), self.at);
        let read = tokio::task::spawn_blocking(move || -> io::Result<Vec<u8>> {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let mut bytes = vec![0; READ_BYTES];
            let len = file.read_at(&mut bytes, at)?;
            bytes.truncate(len);
            Ok(bytes)
        });
        let bytes = read.await.map_err(io::Error::other)??;
        self.buffer.extend_from_slice(&bytes);
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }
}

/// Appends in order, syncing each file once a batch before anyone is answered.
fn append_loop(dir: &Path, mut queue: mpsc::Receiver<Append>) {
    let mut files: HashMap<RunId, File> = HashMap::new();
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(more) = queue.try_recv()
        {
            batch.push(more);
        }
        let results: Vec<io::Result<Progress>> =
            batch.iter().map(|a| append(dir, &mut files, a)).collect();
        let touched: std::collections::HashSet<RunId> =
            batch.iter().map(|append| append.run).collect();
        let failed: HashMap<RunId, io::ErrorKind> = touched
            .iter()
            .filter_map(|run| Some((*run, files.get(run)?.sync_data().err()?.kind())))
            .collect();
        for (append, result) in batch.into_iter().zip(results) {
            let ended = append.end && result.is_ok();
            let answer = match failed.get(&append.run) {
                Some(kind) => Err(io::Error::from(*kind)),
                None => result,
            };
            let _ = append.done.send(answer); // its session may be gone: the agent sends it again
            if ended {
                files.remove(&append.run);
            }
        }
    }
}

fn append(dir: &Path, files: &mut HashMap<RunId, File>, append: &Append) -> io::Result<Progress> {
    let file = match files.entry(append.run) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => {
            let path = dir.join(append.run.to_string());
            entry.insert(
                File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .read(true)
                    .open(path)?,
            )
        }
    };
    let have = file.metadata()?.len();
    if append.offset > have {
        return Err(io::Error::other(format!(
            "a gap: {} bytes are here, the piece starts at {}",
            have, append.offset
        )));
    }
    let skip = usize::try_from(have - append.offset)
        .unwrap_or(usize::MAX)
        .min(append.data.len());
    file.write_all_at(&append.data[skip..], have)?;
    Ok(Progress {
        bytes: have + (append.data.len() - skip) as u64,
        ended: append.end,
    })
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]
mod tests {
    use super::*;

    fn spool(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            let body = Body::Stdout(Bytes::copy_from_slice(part));
            frame::encode(
                &Frame {
                    unix_ms: 1,
                    body: Some(body),
                },
                &mut bytes,
            );
        }
        let end = Body::Ended(Ended {
            exit_code: 7,
            ..Ended::default()
        });
        frame::encode(
            &Frame {
                unix_ms: 2,
                body: Some(end),
            },
            &mut bytes,
        );
        bytes
    }

    async fn all(mut reader: Reader) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(more) = reader.next().await.expect("reads") {
            frames.extend(more);
        }
        frames
    }

    #[tokio::test]
    async fn pieces_that_come_twice_or_overlap_leave_one_exact_copy() {
        let dir = tempfile::tempdir().expect("a folder");
        let spools = Spools::open(dir.path()).expect("opens");
        let run = RunId::from_parts(1, 1);
        let bytes = Bytes::from(spool(&[b"one", b"two", b"three"]));
        let follower = tokio::spawn(all(spools.read(run, None, true)));
        for (from, to) in [(0, 10), (0, 10), (5, 20), (20, 21)] {
            spools
                .append(run, from, bytes.slice(from as usize..to), false)
                .await
                .expect("appends");
        }
        assert_eq!(spools.have(run), 21);
        assert!(
            spools
                .append(run, 30, bytes.slice(30..), false)
                .await
                .is_err(),
            "a gap was taken"
        );
        spools
            .append(run, 21, bytes.slice(21..), true)
            .await
            .expect("appends");
        assert_eq!(
            std::fs::read(dir.path().join(run.to_string())).expect("reads"),
            bytes
        );
        assert_eq!(follower.await.expect("ends").len(), 4);
        assert_eq!(spools.end_of(run).expect("whole").exit_code, 7);
    }

    #[tokio::test]
    async fn a_small_spool_never_becomes_a_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let spools = Spools::open(dir.path()).expect("opens");
        let run = RunId::from_parts(1, 1);
        let follower = tokio::spawn(all(spools.read(run, None, true)));
        let bytes = Bytes::from(spool(&[b"x"]));
        let arrived = spools
            .append(run, 0, bytes.clone(), true)
            .await
            .expect("appends");
        assert!(matches!(arrived, Arrived::Whole(whole) if whole == bytes));
        assert!(!dir.path().join(run.to_string()).exists());
        assert_eq!(follower.await.expect("ends").len(), 2);
        assert_eq!(
            all(spools.read(run, Some(bytes.to_vec()), false))
                .await
                .len(),
            2
        );
    }
}
