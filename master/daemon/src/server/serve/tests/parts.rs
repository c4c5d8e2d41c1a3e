//! Two masters on one store, without a place that both put outputs into: each has what came to it on a disk of its own.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use aot_model::outcome::{Outcome, Verdict};
use aot_model::run::{LongOutput, Run, RunKind};
use aot_proto::v1::job_event::Body;
use aot_store::fleet::{FixedFleet, sample_view};
use aot_store::{Backend, OpenStore, Pending};

use super::blobs::{job, record, run, spool};
use super::*;
use crate::fleet::ClusterFinder;

/// What a run printed, and what of its spool is where the cluster was before.
const BYTES: usize = 400_000;
const PART: usize = 100_000;

/// The records of both.
struct Shared(PathBuf);

impl Backend for Shared {
    fn open<'a>(&'a self, _: &'a Path) -> Pending<'a, Result<OpenStore, aot_store::Error>> {
        Sqlite.open(&self.0)
    }
}

/// One of the masters, which has its records with the other.
struct OneOfTwo {
    dir: tempfile::TempDir,
    records: PathBuf,
}

impl OneOfTwo {
    fn new(records: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        aot_host::files::private_dir(&dir.path().join("state/spools")).expect("makes");
        let records = records.to_owned();
        Self { dir, records }
    }

    /// So much of the spool of a run is here.
    fn has(&self, run: &Run, spool: &[u8]) {
        let path = self
            .dir
            .path()
            .join("state/spools")
            .join(run.id.to_string());
        fs::write(path, spool).expect("writes");
    }

    /// Runs it, among masters `a`, which it is, and `b`; gives what `ask` found.
    async fn while_it_runs<T>(&self, ask: impl AsyncFnOnce(OperatorClient<Channel>) -> T) -> T {
        let options = ServeOptions {
            store: Arc::new(Shared(self.records.clone())),
            ..options(self.dir.path())
        };
        let bound = Opened::open(options).await.expect("opens").bind().await;
        let bound = bound.expect("binds");
        let cluster = run(1, true).at.cluster.to_string();
        let view = sample_view("a", &[(&cluster, "a")]);
        let finder = ClusterFinder::new(Some(Arc::new(FixedFleet::new(view))));
        let stop = Stop::default();
        let token = stop.token.clone();
        let running = bound.run_among(stop, Some(finder)).await.expect("runs");
        let found = ask(operator(&self.dir.path().join("operators.sock")).await).await;
        token.cancel();
        let ended = tokio::time::timeout(LIMIT, running.ended()).await;
        ended.expect("in time").expect("was asked to");
        found
    }
}

/// What is told of a job: how much it printed, its end, and what its summary says.
#[derive(Default)]
struct Told {
    bytes: usize,
    ended: Option<v1::JobEnded>,
    exit_code: u32,
    incomplete: String,
}

async fn told(client: &mut OperatorClient<Channel>, run: &Run) -> Told {
    let request = v1::FollowRequest {
        job_id: run.job.to_string(),
        live: false,
        output: true,
    };
    let events = client.follow(request).await.expect("is there");
    let (mut events, mut told) = (events.into_inner(), Told::default());
    while let Some(event) = events.message().await.expect("no fault") {
        match event.body {
            Some(Body::Output(output)) => told.bytes += output.data.len(),
            Some(Body::Ended(ended)) => told.ended = Some(ended),
            Some(Body::Summary(summary)) => {
                (told.exit_code, told.incomplete) = (summary.exit_code, summary.incomplete);
            }
            _ => {}
        }
    }
    told
}

/// A job whose end is on record. Its own target has it too.
async fn ended(master: &OneOfTwo, run: &Run) -> Told {
    master
        .while_it_runs(async |mut client| {
            let ended = async {
                loop {
                    let told = told(&mut client, run).await;
                    if told.ended.is_some() {
                        return told;
                    }
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(LIMIT, ended).await.expect("in time")
        })
        .await
}

#[tokio::test]
async fn a_former_owner_says_that_it_has_a_part_and_the_one_that_took_the_end_has_all() {
    let records = tempfile::tempdir().expect("a folder");
    aot_host::files::private_dir(&records.path().join("records")).expect("makes");
    let records = records.path().join("records");
    let (first, second) = (OneOfTwo::new(&records), OneOfTwo::new(&records));
    let (open, all) = (run(1, false), spool(BYTES));
    record(&records, vec![job(1, false)], vec![open.clone()]).await;
    first.has(&open, &all[..PART]);
    second.has(&open, &all);
    let whole = ended(&second, &open).await;
    assert_eq!(whole.bytes, BYTES);
    let end = whole.ended.expect("it has ended");
    assert_eq!((whole.exit_code, &*whole.incomplete), (0, ""));
    assert!(!end.truncated, "{end:?}");

    let part = ended(&first, &open).await;
    assert!((1..=PART).contains(&part.bytes), "{}", part.bytes);
    let end = part.ended.expect("it has ended");
    assert_eq!(end.outcome(), v1::Outcome::from(Outcome::Succeeded));
    let read = all.len() as u64 - end.cut_bytes;
    assert!(end.truncated && read <= PART as u64, "{end:?}");
    let begins = "only 98 KiB of its 391 KiB of output is here: ";
    assert!(end.detail.starts_with(begins), "{}", end.detail);
    assert_eq!(part.exit_code, 1, "a part is a failure");
    let incomplete = &part.incomplete;
    assert!(incomplete.ends_with(&end.detail), "{incomplete}");
}

#[tokio::test]
async fn logs_and_jobs_name_the_master_that_has_the_rest() {
    let records = tempfile::tempdir().expect("a folder");
    aot_host::files::private_dir(&records.path().join("records")).expect("makes");
    let records = records.path().join("records");
    let master = OneOfTwo::new(&records);
    let verdict = Verdict {
        exit_code: Some(0),
        ..Verdict::without_run(Outcome::Succeeded, "")
    };
    let stage = |number, at: &str| Run {
        what: RunKind::Stage {
            index: 0,
            attempt: u32::try_from(number).expect("small"),
        },
        verdict: Some(verdict.clone()),
        output: Some(LongOutput {
            bytes: spool(BYTES).len() as u64,
            ended: true,
            at: at.to_owned(),
        }),
        ..run(number, true)
    };
    let (whole, none) = (stage(1, "a"), stage(2, "b"));
    let jobs = vec![job(1, true), job(2, true)];
    record(&records, jobs, vec![whole.clone(), none.clone()]).await;
    master.has(&whole, &spool(BYTES));
    master
        .while_it_runs(async |mut client| {
            let shown = told(&mut client, &whole).await;
            assert_eq!((shown.bytes, &*shown.incomplete), (BYTES, ""));
            let lacking = told(&mut client, &none).await;
            let detail = lacking.ended.expect("it has ended").detail;
            assert!(
                detail.contains("none of its 391 KiB of output is here: the master b has all"),
                "{detail}"
            );
            let request = v1::LogsRequest {
                target: "*".to_owned(),
                ..v1::LogsRequest::default()
            };
            let lines = client.logs(request).await.expect("are there");
            let (mut lines, mut notes, mut bytes) = (lines.into_inner(), Vec::new(), 0);
            let mut last = v1::LogLine::default();
            while let Some(line) = lines.message().await.expect("no fault") {
                bytes += line.data.len();
                notes.extend((!line.note.is_empty()).then(|| line.note.clone()));
                last = line;
            }
            assert_eq!(bytes, BYTES);
            let begins = "the output of a/0 is not whole: none of its 391 KiB";
            assert!(last.incomplete.starts_with(begins), "{last:?}");
            let note = notes.last().expect("a note");
            assert!(note.starts_with("attempt 2: none of its 391 KiB"), "{note}");
        })
        .await;
}
