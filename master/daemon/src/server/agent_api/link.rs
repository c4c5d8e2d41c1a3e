//! What an agent with a certificate may open: its session, a bundle or copy, a terminal's stream.

use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::v1;
use aot_proto::v1::agent_link_server::AgentLink;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::broken::in_words;
use super::fetch::{CHUNKS, open_either, send_file};
use super::{AgentApi, Caller, peer};
use crate::server::shells::StreamHalves;
use crate::session::life::Attached;
use crate::session::registry::Open;
use crate::session::stream::Broken;
use crate::session::{Closed, wall};

/// Messages that may wait to go out on one stream, past HTTP/2's own window.
const OUTBOUND: usize = 16;

/// How long an agent that opened a terminal's stream may take to say which.
const SHELL_HELLO: Duration = Duration::from_secs(10);

type Outbound = Pin<Box<dyn Stream<Item = Result<v1::MasterMessage, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<v1::FetchChunk, Status>> + Send>>;

#[tonic::async_trait]
impl AgentLink for AgentApi {
    type AttachStream = Outbound;
    type FetchStream = Chunks;
    type ShellStream = Pin<Box<dyn Stream<Item = Result<v1::ShellDown, Status>> + Send>>;

    async fn shell(
        &self,
        request: Request<Streaming<v1::ShellUp>>,
    ) -> Result<Response<Self::ShellStream>, Status> {
        let (at, open) = self.open(&peer(&request)?).await?;
        let mut up = request.into_inner();
        let hello = tokio::select! {
            hello = tokio::time::timeout(SHELL_HELLO, up.message()) => hello,
            () = open.shut_out().cancelled() => return Err(shut_out()),
        };
        let hello = hello.map_err(|_| Status::deadline_exceeded("no hello in 10 s"))??;
        let hello = hello.map(wall::admit_shell).transpose();
        let hello = hello.map_err(Status::invalid_argument)?;
        let Some(v1::shell_up::Body::Hello(v1::ShellHello { shell_id })) =
            hello.and_then(|hello| hello.body)
        else {
            return Err(Status::invalid_argument("the first message is a hello"));
        };
        let (down, stream) = mpsc::channel(OUTBOUND);
        let over = open.shut_out().clone();
        let brought = self
            .shells
            .bring(&shell_id, &at, StreamHalves { up, down, over });
        brought.map_err(|_| Status::not_found("nobody waits for this terminal"))?;
        Ok(Response::new(Box::pin(until_shut_out(
            ReceiverStream::new(stream),
            open,
        ))))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Outbound>, Status> {
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
        let attached = Attached {
            master: self.clone(),
            at,
            id,
            serial,
            address: peer.address.ip(),
            registered,
            hang_up: peer.hang_up,
        };
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
        Ok(Response::new(Box::pin(messages.chain(last))))
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
