//! A master that answers from a script, on a real unix socket, for the tests of the commands.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

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
pub enum Then {
    /// The stream ends.
    #[default]
    End,
    /// The master is killed.
    Die,
}

/// What the fake answers.
#[derive(Clone, Default)]
pub struct Script {
    /// Refuses every call so.
    pub refuse: Option<(tonic::Code, String)>,
    /// Of `Plan`.
    pub plan: Vec<PlanLine>,
    /// Of `Plan` too.
    pub things: Vec<PlanThing>,
    /// Of `Plan` too.
    pub problems: Vec<Problem>,
    /// Of `Orphans`.
    pub orphans: OrphansReply,
    /// Of `ApiCalls`: the first when it is opened, the others when `Info` is asked for.
    pub calls: Vec<ApiCall>,
    /// Of every call that streams events.
    pub events: Vec<Event>,
    /// Of `Exec`.
    pub exec: Vec<exec_event::Body>,
    /// Of `Logs`.
    pub logs: Vec<LogLine>,
    /// After the last of them.
    pub then: Then,
    /// Of `Status` and `Update`.
    pub status: StatusReply,
    /// Of `Facts`.
    pub facts: Vec<facts_reply::Entry>,
    /// Of `Jobs`.
    pub jobs: Vec<jobs_reply::Entry>,
    /// Of `Agents`.
    pub agents: Vec<agents_reply::Entry>,
    /// Of `Info` and `Shutdown`.
    pub pid: u32,
}

/// The running fake; its tasks end with it.
pub struct Fake {
    runtime: Option<Runtime>,
    /// Holds the socket.
    pub dir: tempfile::TempDir,
    /// Every request, as `Debug` shows it.
    pub asked: Arc<Mutex<Vec<String>>>,
    dying: Arc<Notify>,
}

struct Answers {
    script: Script,
    asked: Arc<Mutex<Vec<String>>>,
    dying: Arc<Notify>,
    drained: Arc<Notify>,
}

impl Fake {
    /// Answers on `master.sock` in a folder of its own.
    pub fn start(script: Script) -> Self {
        Self::start_at(script, "master.sock")
    }

    /// Answers on another name in that folder.
    pub fn start_at(script: Script, name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (asked, dying) = (Arc::default(), Arc::new(Notify::new()));
        let answers = Answers {
            script,
            asked: Arc::clone(&asked),
            dying: Arc::clone(&dying),
            drained: Arc::default(),
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
            dying,
        }
    }

    /// What was asked of it, one text a request.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("not poisoned").clone()
    }

    /// Dies as soon as the script says so.
    pub async fn die_in_time(&mut self) {
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
    fn note<T: std::fmt::Debug>(&self, request: &Request<T>) -> Result<(), Status> {
        self.asked
            .lock()
            .expect("not poisoned")
            .push(format!("{:?}", request.get_ref()));
        match &self.script.refuse {
            Some((code, message)) => Err(Status::new(*code, message.clone())),
            None => Ok(()),
        }
    }

    /// The first call now, the others once [`Answers::more_calls`] says so; never an end.
    fn calls(&self) -> Response<Streamed<ApiCall>> {
        let (asked, rest) = (Arc::clone(&self.drained), self.script.calls.clone());
        let first = stream::iter(rest.first().cloned().map(Ok));
        let others = stream::once(async move {
            asked.notified().await;
            stream::iter(rest.into_iter().skip(1).map(Ok)).chain(stream::pending())
        });
        Response::new(Box::pin(first.chain(others.flatten())))
    }

    /// Lets the other calls go; the number of the last.
    fn more_calls(&self) -> u64 {
        self.drained.notify_one();
        self.script.calls.last().map_or(0, |call| call.number)
    }

    fn exec_events(&self) -> Response<Streamed<ExecEvent>> {
        let events = self.script.exec.iter().cloned();
        self.streamed(events.map(|body| ExecEvent { body: Some(body) }).collect())
    }

    fn streamed<T: Send + 'static>(&self, items: Vec<T>) -> Response<Streamed<T>> {
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
            type ExecStream = Streamed<ExecEvent>;
            type LogsStream = Streamed<LogLine>;
            type ApiCallsStream = Streamed<ApiCall>;
            type FollowStream = Streamed<ExecEvent>;
            type CancelJobStream = Streamed<ExecEvent>;
            type RetryJobStream = Streamed<ExecEvent>;
            type CopyStream = Streamed<ExecEvent>;
            type ShellStream = Streamed<ShellOutput>;
            async fn follow(&self, request: Request<FollowRequest>) -> Answer<Self::FollowStream> {
                self.note(&request)?;
                Ok(self.exec_events())
            }
            async fn cancel_job(&self, request: Request<CancelJobRequest>) -> Answer<Self::CancelJobStream> {
                self.note(&request)?;
                Ok(self.exec_events())
            }
            async fn retry_job(&self, request: Request<RetryJobRequest>) -> Answer<Self::RetryJobStream> {
                self.note(&request)?;
                Ok(self.exec_events())
            }
            async fn copy(&self, request: Request<CopyRequest>) -> Answer<Self::CopyStream> {
                self.note(&request)?;
                Ok(self.exec_events())
            }
            async fn upload(&self, request: Request<tonic::Streaming<UploadChunk>>) -> Answer<UploadReply> {
                let (mut pieces, mut digest) = (request.into_inner(), aot_proto::archive::Digest::default());
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
            async fn revoke(&self, request: Request<TargetRequest>) -> Answer<AgentsReply> {
                self.note(&request)?;
                Ok(Response::new(AgentsReply { agents: self.script.agents.clone() }))
            }
            $(
                type $stream = Streamed<Event>;
                async fn $method(&self, request: Request<$request>) -> Answer<Self::$stream> {
                    self.note(&request)?;
                    Ok(self.streamed(self.script.events.clone()))
                }
            )*
            async fn info(&self, request: Request<InfoRequest>) -> Answer<InfoReply> {
                self.note(&request)?;
                Ok(Response::new(InfoReply { pid: self.script.pid, listen: "127.0.0.1:7440".into(), api_calls: self.more_calls(), ..InfoReply::default() }))
            }
            async fn plan(&self, request: Request<PlanRequest>) -> Answer<PlanReply> {
                self.note(&request)?;
                Ok(Response::new(PlanReply {
                    lines: self.script.plan.clone(),
                    things: self.script.things.clone(),
                    problems: self.script.problems.clone(),
                }))
            }
            async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusReply> {
                self.note(&request)?;
                Ok(Response::new(self.script.status.clone()))
            }
            async fn update(&self, request: Request<TargetRequest>) -> Answer<StatusReply> {
                self.note(&request)?;
                Ok(Response::new(self.script.status.clone()))
            }
            async fn facts(&self, request: Request<TargetRequest>) -> Answer<FactsReply> {
                self.note(&request)?;
                Ok(Response::new(FactsReply { entries: self.script.facts.clone() }))
            }
            async fn exec(&self, request: Request<ExecRequest>) -> Answer<Self::ExecStream> {
                self.note(&request)?;
                Ok(self.exec_events())
            }
            async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
                self.note(&request)?;
                Ok(self.streamed(self.script.logs.clone()))
            }
            async fn agents(&self, request: Request<AgentsRequest>) -> Answer<AgentsReply> {
                self.note(&request)?;
                Ok(Response::new(AgentsReply { agents: self.script.agents.clone() }))
            }
            async fn jobs(&self, request: Request<JobsRequest>) -> Answer<JobsReply> {
                self.note(&request)?;
                Ok(Response::new(JobsReply { jobs: self.script.jobs.clone() }))
            }
            async fn orphans(&self, request: Request<OrphansRequest>) -> Answer<OrphansReply> {
                self.note(&request)?;
                Ok(Response::new(self.script.orphans.clone()))
            }
            async fn api_calls(&self, request: Request<ApiCallsRequest>) -> Answer<Self::ApiCallsStream> {
                self.note(&request)?;
                Ok(self.calls())
            }
            async fn shutdown(&self, request: Request<ShutdownRequest>) -> Answer<ShutdownReply> {
                self.note(&request)?;
                Ok(Response::new(ShutdownReply { pid: self.script.pid }))
            }
        }
    };
}

events!(
    launch LaunchStream LaunchRequest,
    watch WatchStream WatchRequest,
    apply ApplyStream ApplyRequest,
    terminate TerminateStream TerminateRequest,
    lifecycle LifecycleStream LifecycleRequest,
    cleanup CleanupStream CleanupRequest,
    delete_orphans DeleteOrphansStream DeleteOrphansRequest,
    wait WaitStream WaitRequest
);
