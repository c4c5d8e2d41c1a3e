//! A master that answers from a script, on a real unix socket, for the tests of the commands.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aot_proto::headers;
use aot_proto::v1::operator_server::{Operator, OperatorServer};
use aot_proto::v1::*;
use futures::{Stream, StreamExt, stream};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

/// What follows the last scripted event.
#[derive(Clone, Copy, Default)]
pub(crate) enum Then {
    /// The stream ends.
    #[default]
    End,
    /// The master is killed.
    Die,
}

/// What the fake answers.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Refuses every call so.
    pub refuse: Option<Status>,
    /// Of `Plan`.
    pub plan: Vec<PlanLine>,
    /// Of `Plan` too.
    pub things: Vec<PlanThing>,
    /// Of `Plan` too.
    pub problems: Vec<Problem>,
    /// Of `Plan` too.
    pub other_file: String,
    /// Of `Orphans`.
    pub orphans: OrphansReply,
    /// Of `ApiCalls`: the first when it is opened, the others when `Info` is asked for.
    pub calls: Vec<ApiCall>,
    /// Of every call that streams events.
    pub events: Vec<Event>,
    /// Of `Exec`.
    pub exec: Vec<job_event::Body>,
    /// Of `Logs`.
    pub logs: Vec<LogLine>,
    /// After the last of them.
    pub then: Then,
    /// Of the calls that stream, in the order in which they come: how many items are told before it breaks off so.
    pub breaks: Vec<(usize, Status)>,
    /// Of `Watch`.
    pub rest: Vec<Event>,
    /// The job that calls which stream events say to have begun.
    pub job: String,
    /// Of `Info`.
    pub keeps_requests: bool,
    /// Of `Info` too.
    pub others: Vec<InfoReply>,
    /// Of `Status` and `Update`.
    pub status: StatusReply,
    /// Of `LastLines`.
    pub last_lines: Vec<last_lines_reply::Line>,
    /// Of `Info` too.
    pub sessions: Option<u64>,
    /// Of `Facts`.
    pub facts: Vec<facts_reply::Entry>,
    /// Of `Jobs`.
    pub jobs: Vec<jobs_reply::Entry>,
    /// Of `Agents`.
    pub agents: Vec<agents_reply::Entry>,
    /// Of `Examine`.
    pub findings: Vec<Finding>,
    /// Of `Masters`.
    pub masters: MastersReply,
    /// Of `Info` and `Shutdown`.
    pub pid: u32,
    /// Of `Info`, `Plan` and `Status`, as version 0.1.0 that was started in the background. Empty = a master from before
    /// there was such a field: `Plan` and `Status` don't say how it was started, either.
    pub build: String,
}

/// The running fake; its tasks end with it.
pub(crate) struct Fake {
    runtime: Option<Runtime>,
    /// Holds the socket.
    pub dir: tempfile::TempDir,
    /// Every request, as `Debug` shows it.
    pub asked: Arc<Mutex<Vec<String>>>,
    addressed: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<String>>>,
    infos: Arc<AtomicUsize>,
    dying: Arc<Notify>,
}

struct Answers {
    script: Script,
    asked: Arc<Mutex<Vec<String>>>,
    addressed: Arc<Mutex<Vec<String>>>,
    requests: Arc<Mutex<Vec<String>>>,
    streams: AtomicUsize,
    infos: Arc<AtomicUsize>,
    dying: Arc<Notify>,
    drained: Arc<Notify>,
    opened: AtomicBool,
}

impl Fake {
    /// Answers on `master.sock` in a folder of its own.
    pub(crate) fn start(script: Script) -> Self {
        Self::start_at(script, "master.sock")
    }

    /// Answers on another name in that folder.
    pub(crate) fn start_at(script: Script, name: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), script, name)
    }

    /// In the place of one that has died.
    pub(crate) fn start_again(before: Self, script: Script) -> Self {
        let dir = before.end();
        std::fs::remove_file(dir.path().join("master.sock")).expect("it was there");
        Self::start_in(dir, script, "master.sock")
    }

    fn start_in(dir: tempfile::TempDir, script: Script, name: &str) -> Self {
        let (asked, dying) = (Arc::default(), Arc::new(Notify::new()));
        let addressed: Arc<Mutex<Vec<String>>> = Arc::default();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let infos: Arc<AtomicUsize> = Arc::default();
        let answers = Answers {
            script,
            asked: Arc::clone(&asked),
            addressed: Arc::clone(&addressed),
            requests: Arc::clone(&requests),
            streams: AtomicUsize::default(),
            infos: Arc::clone(&infos),
            dying: Arc::clone(&dying),
            drained: Arc::default(),
            opened: AtomicBool::default(),
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(dir.path().join(name)).expect("a socket")
        };
        runtime.spawn(
            tonic::transport::Server::builder()
                .add_service(OperatorServer::new(answers))
                .serve_with_incoming(UnixListenerStream::new(listener)),
        );
        Self {
            runtime: Some(runtime),
            dir,
            asked,
            addressed,
            requests,
            infos,
            dying,
        }
    }

    fn end(mut self) -> tempfile::TempDir {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a folder"))
    }

    /// The ids that requests said for their jobs, empty where one said none.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// What the headers of those requests named: `cluster web`, `job job-01`, or nothing; since this was last read.
    pub(crate) fn addressed(&self) -> Vec<String> {
        std::mem::take(&mut *self.addressed.lock().expect("not poisoned"))
    }

    /// What was asked of it, one text a request.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }

    /// How often `Info` was asked for, since this was last read.
    pub(crate) fn infos(&self) -> usize {
        self.infos.swap(0, Ordering::Relaxed)
    }

    /// Dies as soon as the script says so.
    pub(crate) async fn die_in_time(&mut self) {
        self.dying.notified().await;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

impl Answers {
    fn record<T: std::fmt::Debug>(&self, request: &Request<T>) -> Result<(), Status> {
        self.asked
            .lock()
            .expect("not poisoned")
            .push(format!("{:?}", request.get_ref()));
        let named = [(headers::CLUSTER, "cluster"), (headers::JOB, "job")];
        let named = named.iter().filter_map(|(name, what)| {
            let value = headers::get(request.metadata(), name)?;
            Some(format!("{what} {value}"))
        });
        let named: Vec<String> = named.collect();
        let mut addressed = self.addressed.lock().expect("not poisoned");
        addressed.push(named.join(" "));
        let id = headers::get(request.metadata(), headers::REQUEST);
        let id = id.unwrap_or_default().to_owned();
        self.requests.lock().expect("not poisoned").push(id);
        match &self.script.refuse {
            Some(status) => Err(status.clone()),
            None => Ok(()),
        }
    }

    /// The first calls now, up to the own number, the others once [`Answers::more_calls`] says so; never an end.
    fn calls(&self) -> Response<Streamed<ApiCall>> {
        self.opened.store(true, Ordering::Relaxed);
        let (asked, rest) = (Arc::clone(&self.drained), self.script.calls.clone());
        let own = rest.iter().position(|call| call.master.is_empty());
        let told = own.map_or(0, |own| own + 1);
        let first: Vec<_> = rest.iter().take(told).cloned().map(Ok).collect();
        let first = stream::iter(first);
        let others = stream::once(async move {
            asked.notified().await;
            stream::iter(rest.into_iter().skip(told).map(Ok)).chain(stream::pending())
        });
        Response::new(Box::pin(first.chain(others.flatten())))
    }

    /// Lets the other calls go; the number of the last.
    fn more_calls(&self) -> u64 {
        self.drained.notify_one();
        let own = self.script.calls.iter().rev();
        let mut own = own.filter(|call| call.master.is_empty());
        own.next().map_or(0, |call| call.number)
    }

    fn exec_events(&self) -> Response<Streamed<JobEvent>> {
        let events = self.script.exec.iter().cloned();
        self.streamed(events.map(|body| JobEvent { body: Some(body) }).collect())
    }

    /// Events of what was begun, and which job that is.
    fn begun(&self, events: &[Event]) -> Response<Streamed<Event>> {
        let mut response = self.streamed(events.to_vec());
        if !self.script.job.is_empty() {
            headers::set(response.metadata_mut(), headers::JOB, &self.script.job);
        }
        response
    }

    fn streamed<T: Send + 'static>(&self, mut items: Vec<T>) -> Response<Streamed<T>> {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        if let Some((told, status)) = self.script.breaks.get(number) {
            items.truncate(*told);
            let end = stream::iter([Err(status.clone())]);
            return Response::new(Box::pin(stream::iter(items.into_iter().map(Ok)).chain(end)));
        }
        let items = stream::iter(items.into_iter().map(Ok));
        match self.script.then {
            Then::End => Response::new(Box::pin(items)),
            Then::Die => {
                let dying = Arc::clone(&self.dying);
                let end = stream::once(async move {
                    dying.notify_one();
                    std::future::pending().await
                });
                Response::new(Box::pin(items.chain(end)))
            }
        }
    }
}

macro_rules! events {
    ($($method:ident $stream:ident $request:ident),*) => {
        #[tonic::async_trait]
        impl Operator for Answers {
            type ExecStream = Streamed<JobEvent>;
            type LogsStream = Streamed<LogLine>;
            type ApiCallsStream = Streamed<ApiCall>;
            type FollowStream = Streamed<JobEvent>;
            type CancelJobStream = Streamed<JobEvent>;
            type RetryJobStream = Streamed<JobEvent>;
            type CopyStream = Streamed<JobEvent>;
            type ShellStream = Streamed<ShellOutput>;
            type ForwardStream = Streamed<ForwardEvent>;
            type TunnelStream = Streamed<TunnelOutput>;
            async fn follow(&self, request: Request<FollowRequest>) -> Answer<Self::FollowStream> {
                self.record(&request)?;
                Ok(self.exec_events())
            }
            async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Answer<Self::CancelJobStream> {
                self.record(&request)?;
                Ok(self.exec_events())
            }
            async fn retry_job(&self, request: Request<RetryJobRequest>) -> Answer<Self::RetryJobStream> {
                self.record(&request)?;
                Ok(self.exec_events())
            }
            async fn copy(&self, request: Request<CopyRequest>) -> Answer<Self::CopyStream> {
                self.record(&request)?;
                Ok(self.exec_events())
            }
            async fn upload(&self, request: Request<tonic::Streaming<UploadChunk>>) -> Answer<UploadReply> {
                let (mut pieces, mut digest) = (request.into_inner(), aot_archive::Digest::default());
                let mut bytes = 0;
                while let Some(piece) = pieces.message().await? {
                    digest.update(&piece.data);
                    bytes += piece.data.len() as u64;
                }
                Ok(Response::new(UploadReply { sha256: digest.hex(), bytes }))
            }
            async fn shell(&self, _: Request<tonic::Streaming<ShellInput>>) -> Answer<Self::ShellStream> {
                Err(Status::unimplemented("the fake has no terminal"))
            }
            async fn forward(&self, request: Request<ForwardRequest>) -> Answer<Self::ForwardStream> {
                self.record(&request)?;
                Err(Status::unimplemented("the fake leads nowhere"))
            }
            async fn tunnel(&self, _: Request<tonic::Streaming<TunnelInput>>) -> Answer<Self::TunnelStream> {
                Err(Status::unimplemented("the fake leads nowhere"))
            }
            async fn revoke(&self, request: Request<TargetRequest>) -> Answer<AgentsReply> {
                self.record(&request)?;
                Ok(Response::new(AgentsReply { agents: self.script.agents.clone(), absent: Vec::new() }))
            }
            type WatchStream = Streamed<Event>;
            async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
                self.record(&request)?;
                Ok(self.begun(&self.script.rest))
            }
            $(
                type $stream = Streamed<Event>;
                async fn $method(&self, request: Request<$request>) -> Answer<Self::$stream> {
                    self.record(&request)?;
                    Ok(self.begun(&self.script.events))
                }
            )*
            async fn info(&self, _: Request<InfoRequest>) -> Answer<InfoReply> {
                // Every command begins with one, to see that a master is there: that is only counted.
                self.infos.fetch_add(1, Ordering::Relaxed);
                if let Some(status) = &self.script.refuse {
                    return Err(status.clone());
                }
                let opened = self.opened.load(Ordering::Relaxed);
                let api_calls = if opened { self.more_calls() } else { 0 };
                Ok(Response::new(InfoReply {
                    pid: self.script.pid,
                    listen: "127.0.0.1:7440".into(),
                    api_calls,
                    version: "0.1.0".into(),
                    build: self.script.build.clone(),
                    background: true,
                    keeps_requests: self.script.keeps_requests,
                    others: self.script.others.clone(),
                    sessions: self.script.sessions,
                    started_unix: 1_767_225_784,
                    ..InfoReply::default()
                }))
            }
            async fn plan(&self, request: Request<PlanRequest>) -> Answer<PlanReply> {
                self.record(&request)?;
                Ok(Response::new(PlanReply {
                    lines: self.script.plan.clone(),
                    things: self.script.things.clone(),
                    problems: self.script.problems.clone(),
                    other_file: self.script.other_file.clone(),
                    build: self.script.build.clone(),
                    background: !self.script.build.is_empty(),
                    ..PlanReply::default()
                }))
            }
            async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusReply> {
                self.record(&request)?;
                Ok(Response::new(StatusReply { build: self.script.build.clone(), background: !self.script.build.is_empty(), ..self.script.status.clone() }))
            }
            async fn last_lines(&self, request: Request<LastLinesRequest>) -> Answer<LastLinesReply> {
                self.record(&request)?;
                let asked = &request.get_ref().instances;
                let lines = self.script.last_lines.iter();
                let lines = lines.filter(|line| asked.contains(&line.instance)).cloned().collect();
                Ok(Response::new(LastLinesReply { lines }))
            }
            async fn update(&self, request: Request<TargetRequest>) -> Answer<StatusReply> {
                self.record(&request)?;
                Ok(Response::new(self.script.status.clone()))
            }
            async fn facts(&self, request: Request<TargetRequest>) -> Answer<FactsReply> {
                self.record(&request)?;
                Ok(Response::new(FactsReply { entries: self.script.facts.clone() }))
            }
            async fn exec(&self, request: Request<ExecRequest>) -> Answer<Self::ExecStream> {
                self.record(&request)?;
                Ok(self.exec_events())
            }
            async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
                self.record(&request)?;
                Ok(self.streamed(self.script.logs.clone()))
            }
            async fn agents(&self, request: Request<AgentsRequest>) -> Answer<AgentsReply> {
                self.record(&request)?;
                Ok(Response::new(AgentsReply { agents: self.script.agents.clone(), absent: self.script.status.absent.clone() }))
            }
            async fn jobs(&self, request: Request<JobsRequest>) -> Answer<JobsReply> {
                self.record(&request)?;
                Ok(Response::new(JobsReply { jobs: self.script.jobs.clone() }))
            }
            async fn orphans(&self, request: Request<OrphansRequest>) -> Answer<OrphansReply> {
                self.record(&request)?;
                Ok(Response::new(self.script.orphans.clone()))
            }
            async fn api_calls(&self, request: Request<ApiCallsRequest>) -> Answer<Self::ApiCallsStream> {
                self.record(&request)?;
                Ok(self.calls())
            }
            async fn examine(&self, request: Request<ExamineRequest>) -> Answer<ExamineReply> {
                self.record(&request)?;
                Ok(Response::new(ExamineReply { findings: self.script.findings.clone() }))
            }
            async fn masters(&self, request: Request<MastersRequest>) -> Answer<MastersReply> {
                self.record(&request)?;
                Ok(Response::new(self.script.masters.clone()))
            }
            async fn move_cluster(&self, request: Request<MoveClusterRequest>) -> Answer<MoveClusterReply> {
                let cluster = request.get_ref().cluster.clone();
                self.record(&request)?;
                let of = |it: &&aot_proto::v1::masters_reply::Entry| it.clusters.contains(&cluster);
                let master = self.script.masters.masters.iter().find(of);
                let master = master.map(|it| it.id.clone()).unwrap_or_default();
                Ok(Response::new(MoveClusterReply { master }))
            }
            async fn drain_master(&self, request: Request<DrainMasterRequest>) -> Answer<DrainMasterReply> {
                self.record(&request)?;
                let of = |it: &&aot_proto::v1::masters_reply::Entry| it.clusters.is_empty();
                let masters = &self.script.masters.masters;
                let master = masters.iter().find(of).or(masters.first());
                let master = master.map(|it| it.id.clone()).unwrap_or_default();
                Ok(Response::new(DrainMasterReply { master }))
            }
            async fn taken_over(&self, request: Request<TakenOverRequest>) -> Answer<TakenOverReply> {
                self.record(&request)?;
                Ok(Response::new(TakenOverReply {}))
            }
            async fn shutdown(&self, request: Request<ShutdownRequest>) -> Answer<ShutdownReply> {
                self.record(&request)?;
                Ok(Response::new(ShutdownReply { pid: self.script.pid }))
            }
        }
    };
}

events!(
    launch LaunchStream LaunchRequest,
    apply ApplyStream ApplyRequest,
    apply_file ApplyFileStream ApplyFileRequest,
    terminate TerminateStream TerminateRequest,
    lifecycle LifecycleStream LifecycleRequest,
    cleanup CleanupStream CleanupRequest,
    delete_orphans DeleteOrphansStream DeleteOrphansRequest,
    wait WaitStream WaitRequest
);
