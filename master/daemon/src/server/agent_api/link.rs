//! What an agent with a certificate may open: its session, a bundle or copy, the stream of a terminal or of a forwarded
//! connection.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::v1;
use aot_proto::v1::agent_link_server::AgentLink;
use axum::extract::State;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::broken::in_words;
use super::fetch::{CHUNKS, open_either, send_file};
use super::inbound::Inbound;
use super::outgoing::{self, Messages};
use super::{AgentApi, Caller, peer};
use crate::server::pending::{PendingLinks, StreamHalves};
use crate::session::life::Attached;
use crate::session::registry::Open;
use crate::session::stream::Broken;
use crate::session::{Closed, wall};

/// Messages that may wait to go out on one stream, past HTTP/2's own window.
const OUTBOUND: usize = 16;

/// Pieces of a forwarded connection that may wait to go out, past HTTP/2's own window. When full, the operator is not read.
const TUNNEL_PIECES: usize = 4;

/// How long an agent that opened a terminal's stream, or a connection's, may take to say which.
const STREAM_HELLO: Duration = Duration::from_secs(10);

/// What a session is sent.
type FromAgent = BoxStream<'static, Result<v1::AgentMessage, Status>>;
type AttachResponse = axum::http::Response<axum::body::Body>;
type DownStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Chunks = DownStream<v1::FetchChunk>;

/// What the streams of one kind have of their own, which an agent opens for somebody who waits here.
struct LinkKind<U> {
    /// As messages call what it carries.
    what: &'static str,
    /// Messages that may wait to go out on it.
    places: usize,
    admit: fn(U) -> Result<U, wall::Breach>,
    /// The id that its hello names; `None` of any other message.
    id: fn(U) -> Option<String>,
}

impl AgentApi {
    /// Takes the stream that this agent opens to whoever waits for the id in its hello.
    async fn bring<U: 'static, D: Send + 'static>(
        &self,
        request: Request<Streaming<U>>,
        waiting: &PendingLinks<StreamHalves<Streaming<U>, D>>,
        kind: LinkKind<U>,
    ) -> Result<Response<DownStream<D>>, Status> {
        let (at, open) = self.open(&peer(&request)?).await?;
        let mut up = request.into_inner();
        let hello = tokio::select! {
            hello = tokio::time::timeout(STREAM_HELLO, up.message()) => hello,
            () = open.shut_out().cancelled() => return Err(shut_out()),
        };
        let hello = hello.map_err(|_| Status::deadline_exceeded("no hello in 10 s"))??;
        let hello = hello.map(kind.admit).transpose();
        let hello = hello.map_err(Status::invalid_argument)?;
        let Some(id) = hello.and_then(kind.id) else {
            return Err(Status::invalid_argument("the first message is a hello"));
        };
        let (down, stream) = mpsc::channel(kind.places);
        let over = open.shut_out().clone();
        let brought = waiting.bring(&id, &at, StreamHalves { up, down, over });
        let nobody = |_| Status::not_found(format!("nobody waits for this {}", kind.what));
        brought.map_err(nobody)?;
        Ok(Response::new(Box::pin(until_shut_out(
            ReceiverStream::new(stream),
            open,
        ))))
    }
}

#[tonic::async_trait]
impl AgentLink for AgentApi {
    type AttachStream = Messages;
    type FetchStream = Chunks;
    type ShellStream = DownStream<v1::ShellDown>;
    type TunnelStream = DownStream<v1::TunnelPiece>;

    async fn shell(
        &self,
        request: Request<Streaming<v1::ShellUp>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        let kind = LinkKind {
            what: "terminal",
            places: OUTBOUND,
            admit: wall::admit_shell,
            id: |up: v1::ShellUp| match up.body? {
                v1::shell_up::Body::Hello(hello) => Some(hello.shell_id),
                _ => None,
            },
        };
        self.bring(request, &self.shells, kind).await
    }

    async fn tunnel(
        &self,
        request: Request<Streaming<v1::TunnelUp>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let kind = LinkKind {
            what: "connection",
            places: TUNNEL_PIECES,
            admit: wall::admit_tunnel,
            id: |up: v1::TunnelUp| match up.body? {
                v1::tunnel_up::Body::Hello(hello) => Some(hello.tunnel_id),
                _ => None,
            },
        };
        self.bring(request, &self.tunnels, kind).await
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Messages>, Status> {
        Ok(Response::new(
            self.begin_session(request.map(StreamExt::boxed))?,
        ))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Chunks>, Status> {
        let peer = peer(&request)?;
        let (at, open) = self.open(&peer).await?;
        let request = wall::admit_fetch(request.into_inner()).map_err(Status::invalid_argument)?;
        if !self
            .engine
            .read(&at.cluster, |world| world.may_fetch(&at, &request.sha256))
        {
            return Err(Status::not_found("it is not for this instance"));
        }
        let (bundle, transfer) = self.brought(&request.sha256).await?;
        let from = request.offset;
        let opened = tokio::task::spawn_blocking(move || open_either(&bundle, &transfer, from));
        let (file, total) = opened
            .await
            .map_err(|_| Status::internal("opening it was interrupted"))?
            .map_err(|error| Status::not_found(format!("it cannot be read: {error}")))?;
        if from > total {
            return Err(Status::out_of_range(format!("there are {total} bytes")));
        }
        let (sender, stream) = mpsc::channel(CHUNKS);
        let over = open.shut_out().clone();
        let sending = send_file(file, from, total, sender);
        self.tasks.spawn(async move {
            if over.run_until_cancelled_owned(sending).await.is_none() {
                peer.hang_up.cancel(); // it may not be read
            }
        });
        Ok(Response::new(Box::pin(until_shut_out(
            ReceiverStream::new(stream),
            open,
        ))))
    }
}

impl AgentApi {
    /// Begins a session; gives what it sends.
    fn begin_session(&self, request: Request<FromAgent>) -> Result<Messages, Status> {
        let peer = peer(&request)?;
        let Caller { at, id, serial, .. } = self.known(&peer)?;
        let registered = self.registry.register(&at);
        let session = registered.session;
        // Shut out meanwhile: then nobody ends what was registered after that.
        if let Err(refused) = self.known(&peer) {
            self.registry.remove(&at, session);
            return Err(refused);
        }
        let (outbound, stream) = mpsc::channel::<Box<v1::MasterMessage>>(OUTBOUND);
        tracing::info!(instance = %at, session, address = %peer.address, "session begins");
        let end = registered.end.clone();
        let attached = Box::new(Attached {
            master: self.clone(),
            at,
            id,
            serial,
            address: peer.address.ip(),
            registered,
            hang_up: peer.hang_up,
        });
        let inbound = request.into_inner();
        let broken = move |status: Status| {
            tracing::debug!(session, %status, "the stream of an agent broke");
            Broken(in_words(&status))
        };
        let inbound = inbound.map(move |message| message.map_err(broken));
        self.tasks
            .spawn(attached.run(inbound, outbound, self.stop.clone()));
        let messages = ReceiverStream::new(stream).map(|message| Ok(*message));
        // It learns why, where that is more than a goodbye.
        let last = stream::once(async move { end.why().and_then(status) });
        let last = last.filter_map(|status| std::future::ready(status.map(Err)));
        Ok(Box::pin(messages.chain(last)))
    }

    /// Where a bundle of this name and an upload of this name would be; one of them is there, where this master has it or can
    /// have it.
    async fn brought(&self, sha256: &str) -> Result<(PathBuf, PathBuf), Status> {
        let paths = self.bundles.path(sha256).zip(self.uploads.path(sha256));
        let paths =
            paths.ok_or_else(|| Status::invalid_argument("it is named by its SHA-256 in hex"))?;
        for contents in [&self.bundles, &self.uploads] {
            if paths.0.exists() || paths.1.exists() {
                break;
            }
            let brought = contents.bring(sha256).await;
            brought.map_err(|error| {
                tracing::warn!(error = %Chain(&error), "cannot bring what a machine asks for");
                Status::unavailable("the master can't fetch it for the moment")
            })?;
        }
        Ok(paths)
    }
}

/// `Attach` itself, past tonic's own service: see `inbound` and `outgoing`.
pub(crate) fn routes(api: AgentApi) -> axum::Router {
    let path = "/aot.v1.AgentLink/Attach";
    axum::Router::new()
        .route(path, axum::routing::post(attach))
        .with_state(api)
}

async fn attach(State(api): State<AgentApi>, request: axum::extract::Request) -> AttachResponse {
    let (parts, body) = request.into_parts();
    let headers = MetadataMap::from_headers(parts.headers);
    let inbound = Inbound::new(body).boxed();
    match api.begin_session(Request::from_parts(headers, parts.extensions, inbound)) {
        Ok(messages) => outgoing::response(messages),
        Err(status) => status.into_http(),
    }
}

fn shut_out() -> Status {
    Status::permission_denied("its identity was revoked")
}

/// What an agent learns at the end of its session, where it can't just come back.
fn status(why: &Closed) -> Option<Status> {
    match why {
        Closed::Revoked => Some(shut_out()),
        Closed::Expired => Some(Status::unauthenticated(why.to_string())),
        _ => None,
    }
}

/// A stream to a machine that breaks off when that is shut out.
fn until_shut_out<T>(
    stream: impl Stream<Item = Result<T, Status>>,
    open: Open,
) -> impl Stream<Item = Result<T, Status>> {
    let over = open.shut_out().clone();
    let last = stream::once(async move { open.shut_out().is_cancelled().then(shut_out) });
    let last = last.filter_map(|status| std::future::ready(status.map(Err)));
    stream.take_until(over.cancelled_owned()).chain(last)
}
