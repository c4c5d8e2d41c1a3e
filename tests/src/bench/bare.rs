//! What aot's ping is compared with: a program of tonic and mTLS and nothing else that holds N streams of another
//! process, and asks all of them at once. A role of a bench.

use std::io::BufRead;
use std::path::Path;
use std::pin::Pin;
use std::time::Instant;

use aot_proto::v1::agent_link_server::{AgentLink, AgentLinkServer};
use aot_proto::v1::{
    AgentMessage, BuiltinCall, FetchChunk, FetchRequest, MasterMessage, ShellDown, ShellUp,
    TunnelPiece, TunnelUp, Welcome, agent_message, master_message,
};
use futures::Stream;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::agents::Agents;
use super::program::Program;
use super::tls;

/// Both processes; they end when this is dropped.
pub struct Bare {
    _agents: Agents, // first: they end before what they are attached to
    master: Program,
    empty_kib: (f64, f64),
    count: usize,
}

impl Bare {
    /// Starts them with this many streams between.
    ///
    /// # Panics
    /// When they can't be started.
    pub fn start(count: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        tls::write(folder.path(), count);
        let path = folder.path().display().to_string();
        let mut master = Program::start(&["bare-master", &path, &count.to_string()]);
        let address = master.line();
        let empty_kib = super::figures::memory_kib(master.pid());
        let agents = Agents::start(folder.path(), &address, count, 0);
        Self {
            master,
            _agents: agents,
            empty_kib,
            count,
        }
    }

    /// Seconds of one round trip to all.
    ///
    /// # Panics
    /// When the program is gone.
    pub fn round(&mut self) -> f64 {
        self.master.tell("round");
        self.master.line().parse().expect("it prints seconds")
    }

    /// KiB of memory a session, PSS and RSS.
    pub fn session_kib(&self) -> (f64, f64) {
        let full = super::figures::memory_kib(self.master.pid());
        let each = |full: f64, empty: f64| (full - empty) / self.count as f64;
        (
            each(full.0, self.empty_kib.0),
            each(full.1, self.empty_kib.1),
        )
    }
}

type Down = mpsc::Sender<Result<MasterMessage, Status>>;
type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
struct Service {
    joined: mpsc::Sender<Down>,
    replied: mpsc::Sender<()>,
    tasks: TaskTracker,
}

#[tonic::async_trait]
impl AgentLink for Service {
    type AttachStream = ReceiverStream<Result<MasterMessage, Status>>;
    type FetchStream = Boxed<FetchChunk>;
    type ShellStream = Boxed<ShellDown>;
    type TunnelStream = Boxed<TunnelPiece>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (outbound, stream) = mpsc::channel(4);
        let _ = outbound.try_send(down(master_message::Body::Welcome(Welcome::default()))); // it is empty
        let (mut inbound, replied) = (request.into_inner(), self.replied.clone());
        self.tasks.spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                if matches!(message.body, Some(agent_message::Body::BuiltinReply(_))) {
                    let _ = replied.send(()).await; // at the end nobody counts
                }
            }
        });
        let _ = self.joined.send(outbound).await; // the receiver outlives the service
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        Err(Status::unimplemented("only streams"))
    }

    async fn shell(
        &self,
        _: Request<Streaming<ShellUp>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        Err(Status::unimplemented("only streams"))
    }

    async fn tunnel(
        &self,
        _: Request<Streaming<TunnelUp>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        Err(Status::unimplemented("only streams"))
    }
}

fn down(body: master_message::Body) -> Result<MasterMessage, Status> {
    Ok(MasterMessage { body: Some(body) })
}

pub(super) fn play(folder: &Path, count: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (joined, mut joins) = mpsc::channel(count.max(1));
    let (replied, mut replies) = mpsc::channel(count.max(1));
    let tasks = TaskTracker::new();
    let service = Service {
        joined,
        replied,
        tasks: tasks.clone(),
    };
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    println!("{}", listener.local_addr().expect("bound"));
    tasks.spawn_on(
        serve(folder.to_owned(), listener, service),
        runtime.handle(),
    );
    let mut streams: Vec<Down> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        if line.is_err() {
            break;
        }
        let seconds = runtime.block_on(async {
            while streams.len() < count {
                streams.push(joins.recv().await.expect("the service has a sender"));
            }
            round(&streams, &mut replies).await
        });
        println!("{seconds}");
    }
    runtime.shutdown_background();
}

async fn serve(folder: std::path::PathBuf, listener: TcpListener, service: Service) {
    let acceptor = tls::acceptor(&folder);
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, service) = (acceptor.clone(), service.clone());
        let tasks = service.tasks.clone();
        tasks.spawn(async move {
            stream.set_nodelay(true).expect("a TCP stream");
            let stream = acceptor.accept(stream).await.expect("a handshake");
            let routes = TowerToHyperService::new(AgentLinkServer::new(service));
            let connection = http2::Builder::new(TokioExecutor::new());
            // It ends when the agents do.
            let _ = connection
                .serve_connection(TokioIo::new(stream), routes)
                .await;
        });
    }
}

async fn round(streams: &[Down], replies: &mut mpsc::Receiver<()>) -> f64 {
    let started = Instant::now();
    for (id, stream) in streams.iter().enumerate() {
        let call = BuiltinCall {
            id: id as u64,
            name: "ping".to_owned(),
            args: Vec::new(),
        };
        let message = down(master_message::Body::Builtin(call));
        stream.send(message).await.expect("the stream is open");
    }
    for _ in streams {
        replies.recv().await.expect("the service has a sender");
    }
    started.elapsed().as_secs_f64()
}
