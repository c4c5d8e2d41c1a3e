//! Connections of a forward: asks the agent to connect, then passes pieces on between the operator's stream and the agent's,
//! unread but for their bounds. What may be under way is granted by the two ends (`TunnelPiece`); queues here are short.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aot_proto::ids::JobId;
use aot_proto::limits::MAX_TUNNELS;
use aot_proto::v1::{self, master_message, tunnel_input, tunnel_output, tunnel_piece, tunnel_up};
use aot_proto::version::FORWARDS;
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::OperatorApi;
use super::shell::random;
use crate::server::forwards::Forward;
use crate::server::pending::TunnelLink;
use crate::session::end::SessionEnd;
use crate::session::registry::SessionCommand;
use crate::session::wall;

/// How long an operator's first message may take.
const FIRST: Duration = Duration::from_secs(10);

/// How long an agent may take to come back and to dial in.
const OPEN: Duration = Duration::from_secs(10);

/// How long it may take to connect after that: a little more than it gives itself.
const CONNECT: Duration = Duration::from_secs(15);

/// How long an operator may take to read why a connection has ended.
const LAST: Duration = Duration::from_secs(2);

/// Pieces that may wait for the operator, past HTTP/2's own window. When full, the agent is not read.
const PIECES: usize = 4;

pub(super) type TunnelEvents = Pin<Box<dyn Stream<Item = Result<v1::TunnelOutput, Status>> + Send>>;

fn output(body: tunnel_output::Body) -> Result<v1::TunnelOutput, Status> {
    Ok(v1::TunnelOutput { body: Some(body) })
}

impl OperatorApi {
    pub(super) async fn do_tunnel(
        &self,
        mut input: Streaming<v1::TunnelInput>,
        operator: String,
    ) -> Result<TunnelEvents, Status> {
        let job = first(&mut input).await?;
        let forward = self.forwards.of(job, &operator);
        let forward = forward.ok_or_else(|| {
            Status::not_found(format!("{job} is no forward of yours that is open"))
        })?;
        let turn = forward.turn().ok_or_else(|| {
            Status::resource_exhausted(format!("the forward has {MAX_TUNNELS} connections open"))
        })?;
        let (sender, stream) = mpsc::channel(PIECES);
        let call = TunnelCall {
            api: self.clone(),
            job,
            forward,
            input,
            sender,
            carried: Counts::default(),
        };
        let tunnel_id = format!("{:032x}", random()?);
        self.tasks.spawn(call.run(tunnel_id, turn));
        Ok(ReceiverStream::new(stream).boxed())
    }
}

async fn first(input: &mut Streaming<v1::TunnelInput>) -> Result<JobId, Status> {
    let first = timeout(FIRST, input.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no connection was requested in 10 s"))??;
    let Some(tunnel_input::Body::Open(open)) = first.and_then(|first| first.body) else {
        let why = "the first message must request a connection";
        return Err(Status::invalid_argument(why));
    };
    let job = open.job_id.parse();
    job.map_err(|_| Status::invalid_argument("the id of a forward is that of its job"))
}

/// What a connection has carried so far, in bytes.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counts {
    fn add(count: &AtomicU64, piece: &v1::TunnelPiece) {
        if let Some(tunnel_piece::Body::Data(data)) = &piece.body {
            count.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
    }
}

/// One connection.
struct TunnelCall {
    api: OperatorApi,
    job: JobId,
    forward: Arc<Forward>,
    input: Streaming<v1::TunnelInput>,
    sender: mpsc::Sender<Result<v1::TunnelOutput, Status>>,
    carried: Counts,
}

impl TunnelCall {
    async fn run(mut self, tunnel_id: String, turn: OwnedSemaphorePermit) {
        let (api, forward) = (self.api.clone(), Arc::clone(&self.forward));
        let began = Instant::now();
        let connected = tokio::select! {
            connected = self.connect(tunnel_id) => connected,
            () = self.sender.closed() => Err("the operator went away".to_owned()),
            () = forward.end.cancelled() => Err("the forward has ended".to_owned()),
            () = api.stop.cancelled() => Err("the master is stopping".to_owned()),
        };
        let refused = connected.as_ref().err().cloned().unwrap_or_default();
        let answer = v1::TunnelAnswer {
            refused: refused.clone(),
        };
        // An operator who is gone is seen below.
        let _ = self
            .sender
            .send(output(tunnel_output::Body::Answer(answer)))
            .await;
        match connected {
            Ok((link, session)) => {
                let why = self.pass(link, &session).await;
                let count = |it: &AtomicU64| it.load(Ordering::Relaxed);
                let (sent, received) = (count(&self.carried.sent), count(&self.carried.received));
                forward.carried(sent, received);
                let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                tracing::info!(job = %self.job, instance = %forward.at, sent, received, ms, why, "a forwarded connection has ended");
            }
            Err(_) => {
                forward.refused();
                tracing::info!(job = %self.job, instance = %forward.at, why = refused, "a connection was not forwarded");
            }
        }
        drop(turn);
    }

    /// The stream of an agent that has connected, and the end of its session; else why not.
    async fn connect(&self, tunnel_id: String) -> Result<(TunnelLink, SessionEnd), String> {
        let (at, deadline) = (&self.forward.at, Instant::now() + OPEN);
        // Nobody is asked before somebody waits.
        let wait = self.api.tunnels.expect(&tunnel_id, at);
        let mut wait = wait.ok_or("too many connections are being opened at once")?;
        self.wait_for_hello(deadline).await?;
        let message = v1::OpenTunnel {
            tunnel_id,
            to: Some(self.forward.to.clone()),
            job_id: self.job.to_string(),
        };
        let command = SessionCommand::Send(Box::new(master_message::Body::OpenTunnel(message)));
        let session = self.api.registry.send_any(at, command);
        let session = session.ok_or("its agent is not connected")?;
        let link = tokio::select! {
            link = timeout_at(deadline.into(), wait.link()) => link.ok().flatten(),
            () = session.come() => return Err("its agent has lost the master".to_owned()),
        };
        let mut link = link.ok_or("its agent did not open a connection in 10 s")?;
        let answer = tokio::select! {
            answer = timeout(CONNECT, answer(&mut link.up)) => answer,
            () = link.over.cancelled() => return Err("its identity was revoked".to_owned()),
            () = session.come() => return Err("its agent has lost the master".to_owned()),
        };
        match answer {
            Ok(Some(refused)) if refused.is_empty() => Ok((link, session)),
            Ok(Some(refused)) => Err(refused),
            Ok(None) => Err("the connection to its agent broke".to_owned()),
            Err(_) => Err("its agent did not connect in 15 s".to_owned()),
        }
    }

    /// Waits for a session that can be asked for a connection.
    async fn wait_for_hello(&self, deadline: Instant) -> Result<(), String> {
        let (at, registry) = (&self.forward.at, &self.api.registry);
        let mut arrivals = registry.arrivals();
        loop {
            self.api.wait_for_return(at, deadline).await;
            match registry.protocol(at) {
                Some(protocol) => return knows_forwards(protocol),
                None if registry.has(at) => {
                    if timeout_at(deadline.into(), arrivals.changed())
                        .await
                        .is_err()
                    {
                        return Err("its agent has not said hello in 10 s".to_owned());
                    }
                }
                None => return Err("its agent is not connected".to_owned()),
            }
        }
    }

    /// Passes pieces on until both ways are over, or one of those who carry them is gone; says why in the latter case.
    async fn pass(&mut self, link: TunnelLink, session: &SessionEnd) -> &'static str {
        let TunnelLink { mut up, down, over } = link;
        let (sender, forward) = (&self.sender, &self.forward);
        let counts = &self.carried;
        let both = async {
            tokio::join!(
                from_agent(&mut up, sender, &counts.received),
                to_agent(&mut self.input, down, &counts.sent)
            )
            .0
        };
        let why = tokio::select! {
            why = both => why,
            () = sender.closed() => return "the operator went away",
            () = over.cancelled() => "its identity was revoked",
            () = session.come() => "its agent has lost the master",
            () = forward.end.cancelled() => "the forward has ended",
            () = self.api.stop.cancelled() => "the master was stopped",
        };
        if !why.is_empty() {
            let _ = timeout(LAST, sender.send(reset(why))).await; // it may not be read
        }
        why
    }
}

/// Whether an agent that speaks this version knows what it would be asked.
fn knows_forwards(protocol: u32) -> Result<(), String> {
    match protocol >= FORWARDS {
        true => Ok(()),
        false => Err(format!(
            "its agent speaks version {protocol} of the protocol and knows no forwards: update the agent, see docs/upgrade-uninstall.md"
        )),
    }
}

fn reset(detail: &str) -> Result<v1::TunnelOutput, Status> {
    let detail = detail.to_owned();
    let body = tunnel_piece::Body::Reset(v1::TunnelReset { detail });
    let piece = v1::TunnelPiece { body: Some(body) };
    output(tunnel_output::Body::Piece(piece))
}

/// Whether the agent has connected: why not, empty when it has. `None` when it is gone.
async fn answer(up: &mut Streaming<v1::TunnelUp>) -> Option<String> {
    let first = up.message().await.ok()??;
    match wall::admit_tunnel(first).ok()?.body {
        Some(tunnel_up::Body::Answer(answer)) => Some(answer.refused),
        _ => None,
    }
}

/// Passes on what comes from the machine, to its end; then says nothing, or why it ended too soon.
async fn from_agent(
    up: &mut Streaming<v1::TunnelUp>,
    sender: &mpsc::Sender<Result<v1::TunnelOutput, Status>>,
    received: &AtomicU64,
) -> &'static str {
    let why = loop {
        let piece = match up.message().await.map(|up| up.map(wall::admit_tunnel)) {
            Ok(None) => return "",
            Ok(Some(Ok(v1::TunnelUp { body }))) => body,
            Ok(Some(Err(breach))) => break breach,
            Err(_) => break "the connection to its agent broke",
        };
        if let Some(tunnel_up::Body::Piece(piece)) = piece {
            Counts::add(received, &piece);
            let piece = output(tunnel_output::Body::Piece(piece));
            // An operator who is gone is the end that `pass` sees.
            let _ = sender.send(piece).await;
        }
    };
    let _ = sender.send(reset(why)).await;
    why
}

/// Passes on what comes from the operator, to its end; then the agent's stream is closed.
async fn to_agent(
    input: &mut Streaming<v1::TunnelInput>,
    down: mpsc::Sender<Result<v1::TunnelPiece, Status>>,
    sent: &AtomicU64,
) {
    while let Ok(Some(v1::TunnelInput { body })) = input.message().await {
        if let Some(tunnel_input::Body::Piece(piece)) = body {
            Counts::add(sent, &piece);
            if down.send(Ok(piece)).await.is_err() {
                return; // the agent's last piece, or its loss, is on its way
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_knows_no_forwards_is_not_asked_and_the_way_out_is_named() {
        assert_eq!(knows_forwards(FORWARDS), Ok(()));
        assert_eq!(knows_forwards(FORWARDS + 1), Ok(()));
        let why = knows_forwards(FORWARDS - 1).expect_err("it is older");
        assert!(
            why.contains("version 4") && why.contains("update the agent"),
            "{why}"
        );
    }

    #[test]
    fn only_what_is_carried_is_counted() {
        let (count, bytes) = (AtomicU64::new(0), vec![0; 3]);
        let pieces = [
            tunnel_piece::Body::Data(bytes.into()),
            tunnel_piece::Body::Granted(1000),
            tunnel_piece::Body::End(true),
        ];
        for body in pieces {
            Counts::add(&count, &v1::TunnelPiece { body: Some(body) });
        }
        assert_eq!(count.into_inner(), 3);
    }
}
