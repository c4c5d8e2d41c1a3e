//! Masters that put what is long into a folder, by what lies in it and what operators are shown.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use aot_model::job::{Job, TargetRecord};
use aot_model::outcome::Outcome;
use aot_model::run::{Run, RunKind};
use aot_model::spec::ProviderKind;
use aot_model::world::Changes;
use aot_proto::v1::{frame::Body, job_event};
use aot_store::blobs::{BlobFolder, UNNAMED};
use aot_store::contract::samples;
use prost::bytes::Bytes;

use super::*;

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(10);

struct Rig {
    dir: tempfile::TempDir,
}

/// A master that runs.
struct Master {
    running: Running,
    stop: CancellationToken,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        aot_host::files::private_dir(&dir.path().join("state/spools")).expect("makes");
        Self { dir }
    }

    fn blobs(&self) -> PathBuf {
        self.dir.path().join("blobs")
    }

    fn spool(&self, run: &Run) -> PathBuf {
        let spools = self.dir.path().join("state/spools");
        spools.join(run.id.to_string())
    }

    async fn start(&self) -> Master {
        let options = ServeOptions {
            blobs: Some(Arc::new(BlobFolder::new(&self.blobs()))),
            ..options(self.dir.path())
        };
        let opened = Opened::open(options).await.expect("opens");
        let bound = opened.bind().await.expect("binds");
        let stop = Stop::default();
        let token = stop.token.clone();
        Master {
            running: bound.run(stop).await.expect("runs"),
            stop: token,
        }
    }

    /// What a master before has left.
    async fn record(&self, jobs: Vec<Job>, runs: Vec<Run>) {
        let state = self.dir.path().join("state");
        record(&state, jobs, runs).await;
    }

    /// Where the objects of a kind lie, once there are any.
    async fn there(&self, kind: &str) -> PathBuf {
        until(|| {
            let masters = fs::read_dir(self.blobs()).into_iter().flatten().flatten();
            let mut kinds = masters.map(|master| master.path().join(kind));
            kinds.find(|kind| kind.exists())
        })
        .await
    }

    /// What a job has come to, and what it printed.
    async fn job(&self, id: &Run) -> (Vec<v1::Outcome>, Vec<u8>) {
        let mut client = operator(&self.dir.path().join("operators.sock")).await;
        let request = v1::FollowRequest {
            job_id: id.job.to_string(),
            live: false,
            output: true,
        };
        let events = client.follow(request).await.expect("is there");
        let mut events = events.into_inner();
        let (mut ends, mut printed) = (Vec::new(), Vec::new());
        while let Some(event) = events.message().await.expect("reads") {
            match event.body {
                Some(job_event::Body::Output(output)) => printed.extend_from_slice(&output.data),
                Some(job_event::Body::Ended(ended)) => ends.push(ended.outcome()),
                Some(job_event::Body::Notice(notice)) => panic!("{notice:?}"),
                _ => {}
            }
        }
        (ends, printed)
    }

    /// Waits for a job's end.
    async fn ended(&self, run: &Run) -> (Vec<v1::Outcome>, Vec<u8>) {
        let ended = async {
            loop {
                let found = self.job(run).await;
                if !found.0.is_empty() {
                    return found;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(LIMIT, ended).await.expect("in time")
    }
}

impl Master {
    async fn end(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(LIMIT, self.running.ended()).await;
        ended.expect("in time").expect("was asked to");
    }
}

async fn until<T>(look: impl Fn() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.expect("in time")
}

/// Puts on record what a master before has left.
pub(super) async fn record(state: &Path, jobs: Vec<Job>, runs: Vec<Run>) {
    let open = aot_store::Backend::open(&Sqlite, state).await;
    let open = open.expect("opens");
    let target = |run: &Run| {
        let (place, end) = match &run.verdict {
            Some(verdict) => (None, Some(verdict.clone())),
            None => (Some(0), None),
        };
        let name = run.at.instance.clone();
        (run.job, name, TargetRecord { place, end })
    };
    let mut cluster = samples::cluster();
    (cluster.spec.provider, cluster.spec.region) = (ProviderKind::Local, None);
    let changes = Changes {
        clusters: vec![cluster],
        instances: vec![samples::instance("a")],
        targets: runs.iter().map(target).collect(),
        jobs,
        runs,
        ..Changes::default()
    };
    let done = open.store.commit(&open.hold, changes, Vec::new());
    done.await.expect("commits");
    open.store.close(&open.hold).await;
}

pub(super) fn run(number: u64, ended: bool) -> Run {
    Run {
        what: RunKind::Task,
        output: None,
        ..samples::run(number, number, ended)
    }
}

pub(super) fn job(number: u64, ended: bool) -> Job {
    Job {
        ended_ms: ended.then(aot_host::clock::unix_ms),
        ..samples::job(number, ended)
    }
}

/// A whole spool that prints so many bytes.
pub(super) fn spool(bytes: usize) -> Vec<u8> {
    let mut spool = Vec::new();
    let printed = vec![b'x'; bytes];
    let pieces = printed.chunks(32 << 10).map(Bytes::copy_from_slice);
    let end = Body::Ended(v1::Ended {
        kind: v1::EndKind::Exited as i32,
        ..v1::Ended::default()
    });
    for body in pieces.map(Body::Stdout).chain([end]) {
        let body = Some(body);
        aot_proto::frame::encode(&v1::Frame { unix_ms: 1, body }, &mut spool);
    }
    spool
}

#[tokio::test]
async fn what_was_there_before_is_put_and_read_there_and_what_nothing_names_goes() {
    const BYTES: usize = 200_000;
    let rig = Rig::new();
    let ended = run(1, true);
    rig.record(vec![job(1, true)], vec![ended.clone()]).await;
    fs::write(rig.spool(&ended), spool(BYTES)).expect("writes");
    let master = rig.start().await;
    let cluster = rig
        .there("outputs")
        .await
        .join(ended.at.cluster.to_string());
    let object = |number| cluster.join(run(number, true).id.to_string());
    let bytes = until(|| fs::read(object(1)).ok()).await;
    assert_eq!(bytes, spool(BYTES), "it is there whole or not at all");
    let agents = rig.there("agents").await;
    until(|| fs::read_dir(&agents).ok()?.flatten().next()).await;
    master.end().await;

    fs::remove_file(rig.spool(&ended)).expect("was there");
    for (number, age) in [(8, Duration::ZERO), (9, 2 * UNNAMED)] {
        let stray = fs::File::create(object(number)).expect("makes");
        let then = SystemTime::now() - age;
        stray.set_modified(then).expect("sets");
    }
    let master = rig.start().await;
    let (ends, printed) = rig.job(&ended).await;
    assert_eq!((ends.len(), printed.len()), (1, BYTES));
    until(|| (!object(9).exists()).then_some(())).await;
    assert!(object(8).exists(), "it may be about to be named");
    assert!(object(1).exists());
    master.end().await;
}

#[tokio::test]
async fn the_agents_that_are_handed_out_are_put_before_there_is_a_cluster() {
    let rig = Rig::new();
    let master = rig.start().await;
    let agents = rig.there("agents").await;
    until(|| fs::read_dir(&agents).ok()?.flatten().next()).await;
    master.end().await;
}

#[tokio::test]
async fn an_end_that_a_master_did_not_come_to_waits_until_its_output_is_put() {
    let rig = Rig::new();
    let (long, short) = (run(1, false), run(2, false));
    let runs = vec![long.clone(), short.clone()];
    rig.record(vec![job(1, false), job(2, false)], runs).await;
    for (run, bytes) in [(&long, 200_000), (&short, 1_000)] {
        fs::write(rig.spool(run), spool(bytes)).expect("writes");
    }
    // Nothing can be put below a file.
    fs::write(rig.blobs(), "in the way").expect("writes");
    let master = rig.start().await;
    let (ends, printed) = rig.ended(&short).await;
    assert_eq!(
        (&*ends, printed.len()),
        (&[v1::Outcome::from(Outcome::Succeeded)][..], 1_000)
    );
    let (ends, printed) = rig.job(&long).await;
    assert!(ends.is_empty(), "an end before its output is put: {ends:?}");
    assert_eq!(printed.len(), 200_000, "it is read all the same");
    let mut client = operator(&rig.dir.path().join("operators.sock")).await;
    let notes = async {
        loop {
            let reply = client.info(v1::InfoRequest::default()).await;
            let notes = reply.expect("is answered").into_inner().notes;
            if !notes.is_empty() {
                return notes;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let notes = tokio::time::timeout(LIMIT, notes).await.expect("in time");
    assert!(notes[0].contains("the end of 1 run waits"), "{notes:?}");

    fs::remove_file(rig.blobs()).expect("was there");
    let (ends, printed) = rig.ended(&long).await;
    assert_eq!((ends.len(), printed.len()), (1, 200_000));
    let object = rig.there("outputs").await;
    let object = object
        .join(long.at.cluster.to_string())
        .join(long.id.to_string());
    assert_eq!(fs::read(object).expect("is there"), spool(200_000));
    master.end().await;
}
