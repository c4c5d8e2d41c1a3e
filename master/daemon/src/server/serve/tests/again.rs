//! Requests that come twice, at a master that runs: whoever lost an answer finds the job by its id, also at the next master.

use aot_model::spec::ProviderKind;
use aot_model::world::Changes;
use aot_proto::headers;
use aot_proto::ids::JobId;
use aot_proto::v1::job_event;
use aot_store::contract::samples;
use tonic::{Code, Request, Status, Streaming};

use super::*;
use crate::run::now_ms;

struct Rig {
    dir: tempfile::TempDir,
    client: OperatorClient<Channel>,
    running: Option<Running>,
    stop: CancellationToken,
}

impl Rig {
    /// With a cluster of one instance, which is away.
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let state = dir.path().join("state");
        aot_host::files::private_dir(&state).expect("makes");
        let open = aot_store::Backend::open(&Sqlite, &state).await;
        let open = open.expect("opens");
        let mut cluster = samples::cluster();
        (cluster.spec.provider, cluster.spec.region) = (ProviderKind::Local, None);
        let changes = Changes {
            clusters: vec![cluster],
            instances: vec![samples::instance("a")],
            ..Changes::default()
        };
        let done = open.store.commit(&open.hold, changes, Vec::new());
        done.await.expect("commits");
        open.store.close(&open.hold).await;
        let (running, stop) = Self::start(&dir).await;
        let client = operator(&dir.path().join("operators.sock")).await;
        Self {
            dir,
            client,
            running: Some(running),
            stop,
        }
    }

    async fn start(dir: &tempfile::TempDir) -> (Running, CancellationToken) {
        let opened = Opened::open(options(dir.path())).await.expect("opens");
        let bound = opened.bind().await.expect("binds");
        let stop = Stop::default();
        let token = stop.token.clone();
        (bound.run(stop).await.expect("runs"), token)
    }

    /// The next master of the same records.
    async fn restart(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            let ended = tokio::time::timeout(LIMIT, running.ended()).await;
            ended.expect("in time").expect("was asked to");
        }
        let (running, stop) = Self::start(&self.dir).await;
        (self.running, self.stop) = (Some(running), stop);
        self.client = operator(&self.dir.path().join("operators.sock")).await;
    }

    /// The job that a command is; it waits for its instance.
    async fn exec(&mut self, id: &str, word: &str) -> Result<String, Status> {
        let exec = v1::ExecRequest {
            target: "a".to_owned(),
            argv: vec!["echo".to_owned(), word.to_owned()],
            queue_ms: 3_600_000,
            ..v1::ExecRequest::default()
        };
        let events = self.client.exec(with(id, exec)).await?;
        started(events.into_inner()).await
    }

    async fn jobs(&mut self) -> Vec<String> {
        let jobs = self.client.jobs(v1::JobsRequest::default()).await;
        let jobs = jobs.expect("is answered").into_inner().jobs;
        jobs.into_iter().map(|job| job.job_id).collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn with<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    headers::set(request.metadata_mut(), headers::REQUEST, id);
    request
}

/// The job that the first event names.
async fn started(mut events: Streaming<v1::JobEvent>) -> Result<String, Status> {
    match events.message().await?.expect("an event").body {
        Some(job_event::Body::Started(started)) => Ok(started.job_id),
        other => panic!("{other:?}"),
    }
}

fn id(number: u128) -> String {
    JobId::from_parts(now_ms(), number).to_string()
}

#[tokio::test]
async fn a_command_that_is_asked_for_twice_is_one_job_also_at_the_next_master() {
    let mut rig = Rig::new().await;
    let (one, two) = (id(1), id(2));
    assert_eq!(rig.exec(&one, "x").await.expect("begins"), one);
    assert_eq!(rig.exec(&one, "x").await.expect("joins"), one);
    rig.restart().await;
    assert_eq!(rig.exec(&one, "x").await.expect("joins"), one);
    assert_eq!(rig.exec(&two, "x").await.expect("begins"), two);
    let mut jobs = rig.jobs().await;
    jobs.sort();
    let mut both = [one.clone(), two];
    both.sort();
    assert_eq!(jobs, both);

    let other = rig.exec(&one, "y").await.expect_err("is another's");
    assert_eq!(other.code(), Code::AlreadyExists, "{other:?}");
    assert!(other.message().contains(&one), "{other:?}");
    for bad in [
        "",
        "x",
        &one.to_lowercase(),
        "job-00000000000000000000000001",
    ] {
        let bad = rig.exec(bad, "x").await.expect_err("is none");
        assert_eq!(bad.code(), Code::InvalidArgument, "{bad:?}");
    }
    assert_eq!(rig.jobs().await.len(), 2);
}

#[tokio::test]
async fn a_termination_is_followed_by_its_id_once_its_answer_was_lost() {
    let mut rig = Rig::new().await;
    let one = id(1);
    let request = || {
        let terminate = v1::TerminateRequest {
            target: "a".to_owned(),
            ..v1::TerminateRequest::default()
        };
        with(&one, terminate)
    };
    for _ in 0..2 {
        let answer = rig.client.terminate(request()).await.expect("is answered");
        assert_eq!(headers::get(answer.metadata(), headers::JOB), Some(&*one));
        let mut events = answer.into_inner();
        let mut last = None;
        while let Some(event) = events.message().await.expect("comes") {
            last = Some(event);
        }
        let last = last.expect("an event");
        assert!(last.last && last.exit_code == 0, "{last:?}");
        rig.restart().await;
    }
    assert_eq!(rig.jobs().await, std::slice::from_ref(&one));
    let watch = |job_id: &str| v1::WatchRequest {
        job_id: job_id.to_owned(),
        ..v1::WatchRequest::default()
    };
    let events = rig.client.watch(watch(&one)).await.expect("is there");
    let event = events.into_inner().message().await.expect("comes");
    assert!(event.expect("an event").last);
    let none = rig.client.watch(watch(&id(3))).await.expect_err("is none");
    assert_eq!(none.code(), Code::NotFound);

    let begun = rig.exec(&id(4), "x").await.expect("begins");
    let refused = rig
        .client
        .watch(watch(&begun))
        .await
        .expect_err("is no job of it");
    assert!(refused.message().contains("jobs follow"), "{refused:?}");
    // A command's id is no termination's.
    let terminate = v1::TerminateRequest {
        target: "a".to_owned(),
        ..v1::TerminateRequest::default()
    };
    let refused = rig.client.terminate(with(&begun, terminate)).await;
    assert_eq!(refused.expect_err("another's").code(), Code::AlreadyExists);
}
