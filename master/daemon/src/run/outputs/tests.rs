use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use aot_proto::v1::{self, frame::Body};
use aot_store::Pending;
use aot_store::blobs::{BlobBytes, BlobFolder, StoredBlob};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(3600);

/// A folder that is away when the test says so.
struct Scripted {
    folder: BlobFolder,
    is_away: AtomicBool,
    puts: AtomicUsize,
}

impl Scripted {
    fn check(&self) -> Result<(), blobs::Error> {
        match self.is_away.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(blobs::Error {
                what: "reach",
                place: self.folder.place().to_owned(),
                object: String::new(),
                hint: "wait",
                source: "it is away".into(),
            }),
        }
    }
}

impl Blobs for Scripted {
    fn place(&self) -> &str {
        self.folder.place()
    }

    fn put<'a>(
        &'a self,
        key: &'a BlobKey,
        file: &'a Path,
    ) -> Pending<'a, Result<(), blobs::Error>> {
        Box::pin(async move {
            self.puts.fetch_add(1, Ordering::SeqCst);
            self.check()?;
            self.folder.put(key, file).await
        })
    }

    fn get<'a>(
        &'a self,
        key: &'a BlobKey,
        from: u64,
    ) -> Pending<'a, Result<Option<BlobBytes>, blobs::Error>> {
        Box::pin(async move {
            self.check()?;
            self.folder.get(key, from).await
        })
    }

    fn find<'a>(
        &'a self,
        key: &'a BlobKey,
    ) -> Pending<'a, Result<Option<StoredBlob>, blobs::Error>> {
        Box::pin(async move {
            self.check()?;
            self.folder.find(key).await
        })
    }

    fn delete<'a>(&'a self, key: &'a BlobKey) -> Pending<'a, Result<(), blobs::Error>> {
        Box::pin(async move {
            self.check()?;
            self.folder.delete(key).await
        })
    }

    fn list(&self, kind: BlobKind) -> Pending<'_, Result<Vec<StoredBlob>, blobs::Error>> {
        Box::pin(async move {
            self.check()?;
            self.folder.list(kind).await
        })
    }

    fn drop_unfinished(&self) -> Pending<'_, Result<(), blobs::Error>> {
        self.folder.drop_unfinished()
    }
}

/// A master's outputs, with a place that several masters share.
struct Rig {
    dir: TempDir,
    blobs: Arc<Scripted>,
    outputs: Arc<Outputs>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

fn scripted(dir: &Path) -> Arc<Scripted> {
    Arc::new(Scripted {
        folder: BlobFolder::new(&dir.join("blobs")),
        is_away: AtomicBool::new(false),
        puts: AtomicUsize::new(0),
    })
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let blobs = scripted(dir.path());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self {
            outputs: outputs(&dir, &blobs, &stop, &tasks, "spools"),
            dir,
            blobs,
            stop,
            tasks,
        }
    }

    fn set_away(&self, is_away: bool) {
        self.blobs.is_away.store(is_away, Ordering::SeqCst);
    }

    fn write(&self, run: RunId, content: &[u8]) {
        std::fs::write(self.outputs.spools.path(run), content).expect("writes");
    }

    /// Has an output put; what comes says that it was.
    fn put(&self, run: RunId) -> mpsc::Receiver<()> {
        let (done, is_done) = mpsc::channel(1);
        self.outputs.put_then(&cluster(), run, async move {
            done.send(()).await.expect("the test waits");
        });
        is_done
    }

    /// Waits until it was tried so often, in all.
    async fn tried(&self, times: usize) {
        let tried = async {
            while self.blobs.puts.load(Ordering::SeqCst) < times {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(LIMIT, tried).await.expect("in time");
    }

    /// Another master: the same place, a folder of its own.
    fn elsewhere(&self) -> Arc<Outputs> {
        outputs(&self.dir, &self.blobs, &self.stop, &self.tasks, "other")
    }

    async fn there(&self) -> usize {
        let listed = self.blobs.folder.list(BlobKind::Outputs).await;
        listed.expect("lists").len()
    }
}

fn outputs(
    dir: &TempDir,
    blobs: &Arc<Scripted>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
    name: &str,
) -> Arc<Outputs> {
    let spools = Spools::open(&dir.path().join(name)).expect("opens");
    let blobs: Arc<dyn Blobs> = blobs.clone();
    let (tasks, stop) = (tasks.clone(), stop.clone());
    Arc::new(Outputs::new(spools, Some(blobs), tasks, stop))
}

fn cluster() -> ClusterName {
    "web".parse().expect("a name")
}

fn run(number: u64) -> RunId {
    RunId::from_parts(number, 1)
}

/// A run that has ended, with this on record of its output.
fn record(number: u64, output: Option<LongOutput>) -> Run {
    let mut record = aot_store::contract::samples::run(number, number, true);
    (record.id, record.output) = (run(number), output);
    record.at.cluster = cluster();
    record
}

fn spool(text: &'static str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let out = Body::Stdout(Bytes::from_static(text.as_bytes()));
    let end = Body::Ended(v1::Ended::default());
    for body in [out, end] {
        let body = Some(body);
        aot_proto::frame::encode(&v1::Frame { unix_ms: 1, body }, &mut bytes);
    }
    bytes
}

/// What an output shows, or why it can't be read.
async fn text(mut reader: SpoolReader) -> Result<String, String> {
    let mut text = Vec::new();
    while let Some(frames) = reader.next().await.map_err(|error| error.to_string())? {
        for frame in frames {
            if let Some(Body::Stdout(data)) = frame.body {
                text.extend_from_slice(&data);
            }
        }
    }
    Ok(String::from_utf8(text).expect("is text"))
}

#[tokio::test(start_paused = true)]
async fn while_the_place_is_away_ends_wait_and_then_come_once_each() {
    let rig = Rig::new();
    rig.set_away(true);
    rig.write(run(1), b"one");
    let mut first = rig.put(run(1));
    let mut again = rig.put(run(1)); // as the next session tells it
    rig.tried(3).await;
    assert!(first.try_recv().is_err(), "an end before its output is put");
    let note = rig.outputs.note().expect("is told");
    let place = rig.blobs.folder.place();
    assert!(note.starts_with("the end of 1 run waits until"), "{note}");
    assert!(
        note.contains(place) && note.contains("it is away"),
        "{note}"
    );
    assert_eq!(rig.there().await, 0);

    rig.set_away(false);
    assert_eq!(first.recv().await, Some(()));
    assert_eq!(again.recv().await, None, "one end is enough");
    assert_eq!((rig.there().await, rig.outputs.note()), (1, None));
    assert!(rig.outputs.is_put(run(1)));
}

#[tokio::test(start_paused = true)]
async fn an_output_that_waits_holds_up_no_other() {
    let rig = Rig::new();
    rig.set_away(true);
    let many: Vec<_> = (0..3 * AT_ONCE as u64)
        .map(|number| {
            rig.write(run(number), b"x");
            rig.put(run(number))
        })
        .collect();
    rig.tried(2 * many.len()).await;
    rig.set_away(false);
    for mut one in many {
        assert_eq!(one.recv().await, Some(()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_put_when_the_master_stopped_is_put_by_the_next() {
    let rig = Rig::new();
    rig.set_away(true);
    rig.write(run(1), b"one");
    let mut end = rig.put(run(1));
    rig.tried(2).await;
    rig.stop.cancel();
    rig.tasks.close();
    tokio::time::timeout(LIMIT, rig.tasks.wait())
        .await
        .expect("it waits for nobody");
    assert!(end.try_recv().is_err(), "its end is not told");

    rig.set_away(false);
    let next = Rig {
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        ..rig
    };
    let outputs = outputs(&next.dir, &next.blobs, &next.stop, &next.tasks, "spools");
    let next = Rig { outputs, ..next };
    assert_eq!(next.put(run(1)).recv().await, Some(()));
}

#[tokio::test(start_paused = true)]
async fn an_output_that_is_gone_is_waited_for_no_longer() {
    let rig = Rig::new();
    rig.set_away(true);
    rig.write(run(1), b"one");
    let mut end = rig.put(run(1));
    rig.tried(1).await;
    rig.outputs.spools.remove(run(1));
    assert_eq!(end.recv().await, None);
    rig.tasks.close();
    rig.tasks.wait().await;
}

#[tokio::test]
async fn another_master_reads_what_was_put_and_says_why_when_it_cannot() {
    let rig = Rig::new();
    let content = spool("printed\n");
    rig.write(run(1), &content);
    rig.put(run(1)).recv().await.expect("is put");
    let other = rig.elsewhere();
    for outputs in [&rig.outputs, &other] {
        let read = text(outputs.read(&record(1, None), None)).await;
        assert_eq!(read.as_deref(), Ok("printed\n"));
        let none = text(outputs.read(&record(2, None), None)).await;
        assert_eq!(none.as_deref(), Ok(""));
    }
    assert_eq!(other.size(run(1)), 0, "it has not looked yet");
    other.list_put().await.expect("looks");
    assert_eq!(other.size(run(1)), content.len() as u64);

    rig.set_away(true);
    let here = text(rig.outputs.read(&record(1, None), None)).await;
    assert_eq!(here.as_deref(), Ok("printed\n"), "it has a copy");
    let error = text(other.read(&record(1, None), None)).await;
    let error = error.expect_err("it has none");
    assert!(error.contains(rig.blobs.folder.place()), "{error}");
}

#[tokio::test]
async fn what_is_removed_is_removed_in_both_places_or_stays_known() {
    let rig = Rig::new();
    for number in [1, 2] {
        rig.write(run(number), b"x");
        rig.put(run(number)).recv().await.expect("is put");
    }
    let other = rig.elsewhere();
    other.list_put().await.expect("looks");
    assert!(
        !other.may_go(run(1)),
        "it is young, and may be about to be named"
    );
    assert!(other.may_go(run(9)), "it is not there");
    rig.outputs.remove(vec![run(1)]).await;
    assert_eq!((rig.there().await, rig.outputs.size(run(1))), (1, 0));

    rig.set_away(true);
    rig.outputs.remove(vec![run(2)]).await;
    assert_eq!(rig.outputs.sizes(), HashMap::from([(run(2), 1)]));
    rig.set_away(false);
    rig.outputs.remove(vec![run(2)]).await;
    assert_eq!(rig.there().await, 0);
    assert!(rig.outputs.sizes().is_empty());
}

#[tokio::test]
async fn a_part_of_when_the_cluster_was_here_before_does_not_stand_for_what_was_put() {
    let rig = Rig::new();
    let content = spool("all that was printed\n");
    rig.write(run(1), &content);
    rig.put(run(1)).recv().await.expect("is put");
    let long = rig.outputs.on_record(run(1)).expect("it is here");
    let want = LongOutput {
        bytes: content.len() as u64,
        ended: true,
        at: String::new(),
    };
    assert_eq!(long, want);
    let whole = record(1, Some(long));
    assert!(rig.outputs.is_whole_here(&whole));

    let other = rig.elsewhere();
    std::fs::write(other.spools.path(run(1)), &content[..9]).expect("writes");
    assert!(!other.is_whole_here(&whole));
    let read = text(other.read(&whole, None)).await;
    assert_eq!(read.as_deref(), Ok("all that was printed\n"));
    // Where it was never put, the part is better than nothing.
    let never = record(2, whole.output.clone());
    let frames = [&content[..], &content[..9]].concat();
    std::fs::write(other.spools.path(run(2)), frames).expect("writes");
    let read = text(other.read(&never, None)).await;
    assert_eq!(read.as_deref(), Ok("all that was printed\n"));
}

#[tokio::test]
async fn an_output_is_on_record_with_the_master_that_has_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let spools = Spools::open(dir.path()).expect("opens");
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let outputs = Outputs::new(spools, None, tasks, stop).of_master(Some("a".to_owned()));
    assert!(outputs.are_shared());
    assert_eq!(outputs.on_record(run(1)), None, "nothing came");
    let content = spool("printed\n");
    let part = content.len() - 1;
    for (bytes, ended) in [(content.len(), true), (part, false)] {
        std::fs::write(outputs.spools.path(run(1)), &content[..bytes]).expect("writes");
        let want = LongOutput {
            bytes: bytes as u64,
            ended,
            at: "a".to_owned(),
        };
        assert_eq!(outputs.on_record(run(1)), Some(want));
    }
}
