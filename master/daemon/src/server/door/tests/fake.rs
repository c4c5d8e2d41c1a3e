//! Operators' calls, answered with who answers and who has asked, as far as that is believed.

use std::pin::Pin;

use aot_proto::v1::operator_server::Operator;
use aot_proto::v1::*;
use futures::{Stream, stream};
use tokio::sync::watch;
use tonic::{Code, Response, Status, Streaming};

use super::*;
use crate::server::peer::PeerChannel;

/// One kind of each call; the others are not asked for.
#[derive(Clone)]
pub(crate) struct Fake {
    id: String,
    /// Calls that were given up by whoever asked.
    pub(crate) dropped: watch::Sender<usize>,
    /// Events of the last call for many of them that have gone out.
    pub(crate) sent: watch::Sender<usize>,
}

/// Counts when it is dropped.
struct Dropped(watch::Sender<usize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// What a refusal has besides its text.
pub(crate) const DETAILS: &[u8] = b"\x00\xffdetails";

fn refusal() -> Status {
    Status::with_details(Code::Aborted, "in the middle: \u{e9}", DETAILS.into())
}

/// Who asked, by whom it was answered.
pub(crate) async fn asked_for(channel: PeerChannel) -> Result<(String, String), Status> {
    let mut client = OperatorClient::new(channel);
    let reply = client.facts(TargetRequest::default()).await?;
    Ok(who(reply.into_inner()))
}

pub(crate) fn who(reply: FactsReply) -> (String, String) {
    let entry = reply.entries.into_iter().next().expect("an entry");
    (entry.facts_json, entry.instance)
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

impl Fake {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            dropped: watch::Sender::new(0),
            sent: watch::Sender::new(0),
        }
    }

    fn guard(&self) -> Dropped {
        Dropped(self.dropped.clone())
    }

    fn entry<T>(&self, request: &Request<T>) -> facts_reply::Entry {
        facts_reply::Entry {
            instance: self.id.clone(),
            facts_json: ways::operator(request),
        }
    }
}

/// So many events, each of which goes out before the next is made.
pub(crate) const MANY: usize = 5000;

fn many(sent: watch::Sender<usize>) -> impl Stream<Item = Result<JobEvent, Status>> {
    stream::iter(0..MANY).then(move |_| {
        sent.send_modify(|count| *count += 1);
        async {
            tokio::task::yield_now().await;
            Ok(printed(b"."))
        }
    })
}

fn printed(data: &'static [u8]) -> JobEvent {
    let output = JobOutput {
        data: data.into(),
        ..JobOutput::default()
    };
    let body = Some(job_event::Body::Output(output));
    JobEvent { body }
}

macro_rules! fake {
    (unary: $($call:ident $asked:ident $reply:ident),*; streams: $($method:ident $stream:ident $request:ident $item:ident),*) => {
        #[tonic::async_trait]
        impl Operator for Fake {
            type ExecStream = Streamed<JobEvent>;
            type ShellStream = Streamed<ShellOutput>;
            type TunnelStream = Streamed<TunnelOutput>;

            async fn facts(&self, request: Request<TargetRequest>) -> Answer<FactsReply> {
                match request.get_ref().target.as_deref() {
                    Some("refuse") => Err(refusal()),
                    Some("never") => {
                        let _guard = self.guard();
                        std::future::pending().await
                    }
                    _ => Ok(Response::new(FactsReply { entries: vec![self.entry(&request)] })),
                }
            }

            async fn exec(&self, request: Request<ExecRequest>) -> Answer<Self::ExecStream> {
                let first = stream::iter([Ok(printed(b"one")), Ok(printed(b"two"))]);
                let guard = self.guard();
                let then: Streamed<JobEvent> = match &*request.get_ref().target {
                    "refuse" => Box::pin(stream::iter([Err(refusal())])),
                    "many" => Box::pin(many(self.sent.clone())),
                    "endless" => Box::pin(stream::once(async move {
                        let _guard = guard;
                        std::future::pending().await
                    })),
                    _ => Box::pin(stream::empty()),
                };
                Ok(Response::new(Box::pin(first.chain(then))))
            }

            async fn upload(&self, request: Request<Streaming<UploadChunk>>) -> Answer<UploadReply> {
                let sha256 = self.entry(&request).instance;
                let (mut pieces, mut bytes) = (request.into_inner(), 0);
                while let Some(piece) = pieces.message().await? {
                    bytes += piece.data.len() as u64;
                }
                Ok(Response::new(UploadReply { sha256, bytes }))
            }

            /// Says back what is typed, until that ends.
            async fn shell(&self, request: Request<Streaming<ShellInput>>) -> Answer<Self::ShellStream> {
                let typed = request.into_inner().map(|input| {
                    let body = match input?.body {
                        Some(shell_input::Body::Data(data)) => Some(shell_output::Body::Data(data)),
                        _ => None,
                    };
                    Ok(ShellOutput { body })
                });
                Ok(Response::new(Box::pin(typed)))
            }

            async fn tunnel(&self, _: Request<Streaming<TunnelInput>>) -> Answer<Self::TunnelStream> {
                Ok(Response::new(Box::pin(stream::empty())))
            }

            $(
                async fn $call(&self, _: Request<$asked>) -> Answer<$reply> {
                    Ok(Response::new($reply::default()))
                }
            )*
            $(
                type $stream = Streamed<$item>;
                async fn $method(&self, _: Request<$request>) -> Answer<Self::$stream> {
                    Ok(Response::new(Box::pin(stream::empty())))
                }
            )*
        }
    };
}

fake!(
    unary: info InfoRequest InfoReply, plan PlanRequest PlanReply, status StatusRequest StatusReply, last_lines LastLinesRequest LastLinesReply,
    revoke TargetRequest AgentsReply, update TargetRequest StatusReply, agents AgentsRequest AgentsReply,
    jobs JobsRequest JobsReply, orphans OrphansRequest OrphansReply, shutdown ShutdownRequest ShutdownReply, taken_over TakenOverRequest TakenOverReply,
    move_cluster MoveClusterRequest MoveClusterReply, drain_master DrainMasterRequest DrainMasterReply,
    masters MastersRequest MastersReply, examine ExamineRequest ExamineReply;
    streams: launch LaunchStream LaunchRequest Event, watch WatchStream WatchRequest Event,
    apply ApplyStream ApplyRequest Event, apply_file ApplyFileStream ApplyFileRequest Event,
        terminate TerminateStream TerminateRequest Event,
    cleanup CleanupStream CleanupRequest Event, wait WaitStream WaitRequest Event,
    lifecycle LifecycleStream LifecycleRequest Event, api_calls ApiCallsStream ApiCallsRequest ApiCall,
    delete_orphans DeleteOrphansStream DeleteOrphansRequest Event, follow FollowStream FollowRequest JobEvent,
    cancel_job CancelJobStream CancelJobRequest JobEvent, retry_job RetryJobStream RetryJobRequest JobEvent,
    forward ForwardStream ForwardRequest ForwardEvent, copy CopyStream CopyRequest JobEvent, logs LogsStream LogsRequest LogLine
);
