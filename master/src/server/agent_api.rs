//! Enrolment and the agents' services. Attach starts a session and carries its reports to whoever decides.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_proto::ids::{RunId, SpiffeId};
use aot_proto::limits::{HEARTBEAT, MAX_FACTS_BYTES, SILENCE};
use aot_proto::v1::agent_link_server::AgentLink;
use aot_proto::v1::enrolment_server::Enrolment;
use aot_proto::v1::{self, master_message};
use futures::stream::FuturesOrdered;
use futures::{FutureExt, Stream, StreamExt};
use prost::bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::limits::RateLimit;
use super::listener::Peer;
use super::shells::{Link, Shells};
use super::transfers::{Copied, Transfers};
use crate::enrol::{attest, ca};
use crate::model::cluster::{Key, NodeFacts};
use crate::model::world::{Answer, Input, Refused, World};
use crate::run::Engine;
use crate::session::Session;
use crate::session::protocol::{Protocol, Report};
use crate::session::registry::{Command, Registry};
use crate::store::spool::{Arrived, Spools, end_record};

/// Messages that may wait to go out on one stream, past HTTP/2's own window.
const OUTBOUND: usize = 16;

/// Reports of one session that may wait for a decision. When full, the session stops reading.
const REPORTS: usize = 64;

/// Pieces of output of one session that may be on their way to disk. When full, no more of its reports are taken.
const PIECES: usize = 64;

/// Facts that are taken apart at once; others wait as text. When a thousand agents come back together, what they need for
/// a moment would stay with the process.
pub const FACTS: usize = 64;

/// Bytes of a bundle or copy in one message.
const FETCH_BYTES: usize = 256 << 10;

/// Such messages that wait to be sent to one agent. When there are more, the disk is not read.
const CHUNKS: usize = 4;

/// How long an agent that opened a terminal's stream may take to say which.
const SHELL_HELLO: Duration = Duration::from_secs(10);

/// What the agents' services need.
#[derive(Clone)]
pub struct AgentApi {
    /// Who decides.
    pub engine: Engine,
    /// Who signs.
    pub ca: Arc<ca::Ca>,
    /// Who is there.
    pub registry: Arc<Registry>,
    /// Outputs.
    pub spools: Arc<Spools>,
    /// Terminals that wait for their agents.
    pub shells: Shells<Streaming<v1::ShellUp>>,
    /// Where bundles lie, by content.
    pub bundles: Arc<std::path::Path>,
    /// Archives of copies.
    pub transfers: Arc<Transfers>,
    /// How often one may try to enrol.
    pub limit: Arc<RateLimit>,
    /// Turns of facts that are read and decided on, see [`FACTS`].
    pub facts: Arc<Semaphore>,
    /// Owner of sessions.
    pub tasks: TaskTracker,
    /// Ends sessions.
    pub stop: CancellationToken,
}

fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request
        .extensions()
        .get::<Peer>()
        .cloned()
        .ok_or_else(|| Status::internal("no connection"))
}

#[tonic::async_trait]
impl Enrolment for AgentApi {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolReply>, Status> {
        let peer = peer(&request)?;
        if !self.limit.take(peer.address.ip(), Instant::now()) {
            return Err(Status::resource_exhausted("slow down"));
        }
        let request = request.into_inner();
        let refuse = |why: &dyn std::fmt::Display| {
            tracing::warn!(address = %peer.address, machine = %request.machine_id, error = %why, "refused to enrol");
            Status::permission_denied("not admitted")
        };
        let csr = ca::read_request(&request.csr_der).map_err(|error| refuse(&error))?;
        let ask =
            attest::examine(&request, csr.key_sha256.clone()).map_err(|error| refuse(&error))?;
        let granted = match self.engine.ask(Input::Enrol(ask)).await {
            Some(Answer::Granted(granted)) => granted,
            Some(Answer::Refused(why)) => {
                let status = refuse(&why);
                // A machine may be faster than the answer to the call that made it: that is no refusal.
                return Err(if why == Refused::TooEarly {
                    Status::unavailable("try again")
                } else {
                    status
                });
            }
            _ => return Err(Status::unavailable("the master is stopping")),
        };
        let id = SpiffeId {
            master: self.ca.id().to_owned(),
            cluster: granted.at.cluster.clone(),
            instance: granted.at.instance.clone(),
            machine: granted.machine.clone(),
        };
        let issued = self.issue(&csr, &id, granted.at.clone()).await?;
        Ok(Response::new(v1::EnrolReply {
            certificate_pem: issued.pem,
            ca_pem: self.ca.pem().to_owned(),
            cluster: granted.at.cluster.to_string(),
            instance: granted.at.instance.to_string(),
            pool: granted.pool,
            spiffe_id: id.to_string(),
            expires_unix: issued.expires_unix,
        }))
    }
}

impl AgentApi {
    async fn issue(&self, csr: &ca::Request, id: &SpiffeId, at: Key) -> Result<ca::Issued, Status> {
        let issued = self.ca.issue(csr, id).map_err(|error| {
            tracing::error!(instance = %at, %error, "cannot sign a certificate");
            Status::internal("cannot sign")
        })?;
        let input = Input::Issued {
            at,
            key_sha256: csr.key_sha256.clone(),
            serial: issued.serial.clone(),
            expires_unix: issued.expires_unix,
        };
        self.engine
            .ask(input)
            .await
            .ok_or_else(|| Status::unavailable("the master is stopping"))?;
        Ok(issued)
    }

    /// The instance that a connection's certificate stands for, when its machine is still that instance's.
    fn known(&self, peer: &Peer) -> Result<(Key, SpiffeId), Status> {
        let holder = peer
            .holder
            .as_ref()
            .ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let at = Key {
            cluster: holder.id.cluster.clone(),
            instance: holder.id.instance.clone(),
        };
        let current = self.engine.look(|world| {
            let instance = world.instance(&at);
            instance
                .is_some_and(|i| i.machine_id() == Some(&holder.id.machine) && i.identity.is_some())
        });
        if holder.id.master == self.ca.id() && current {
            return Ok((at, holder.id.clone()));
        }
        tracing::warn!(address = %peer.address, agent = %holder.id, "refused an agent whose machine is no longer that instance's");
        Err(Status::permission_denied("not admitted"))
    }
}

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
        let (at, _) = self.known(&peer(&request)?)?;
        let mut up = request.into_inner();
        let hello = tokio::time::timeout(SHELL_HELLO, up.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello in 10 s"))??;
        let Some(v1::shell_up::Body::Hello(v1::ShellHello { shell_id })) =
            hello.and_then(|hello| hello.body)
        else {
            return Err(Status::invalid_argument("the first message is a hello"));
        };
        let (down, stream) = mpsc::channel(OUTBOUND);
        let brought = self.shells.bring(&shell_id, &at, Link { up, down });
        brought.map_err(|_| Status::not_found("nobody waits for this terminal"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Outbound>, Status> {
        let peer = peer(&request)?;
        let (at, id) = self.known(&peer)?;
        let (session, commands) = self.registry.register(&at);
        let (outbound, stream) = mpsc::channel::<Box<v1::MasterMessage>>(OUTBOUND);
        let (reports, inbox) = mpsc::channel(REPORTS);
        tracing::info!(instance = %at, session, address = %peer.address, "session begins");
        let owner = Session {
            inbound: request.into_inner(),
            outbound,
            commands,
            reports,
            protocol: Protocol::new(Instant::now()),
        };
        let pump = Pump {
            api: self.clone(),
            at: at.clone(),
            id,
            session,
        };
        let (api, stop) = (self.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let (why, ()) = tokio::join!(owner.run(stop), pump.run(inbox));
            tracing::info!(instance = %at, session, error = %why, "session ends");
            api.registry.remove(&at, session);
            api.engine
                .tell(Input::Closed {
                    at,
                    session,
                    why: why.to_string(),
                })
                .await;
        });
        let stream = ReceiverStream::new(stream).map(|message| Ok(*message));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Chunks>, Status> {
        let peer = peer(&request)?;
        self.known(&peer)?;
        let request = request.into_inner();
        let transfer = self
            .transfers
            .path(&request.sha256)
            .ok_or_else(|| Status::invalid_argument("it is named by its SHA-256 in hex"))?;
        let bundle = self.bundles.join(&request.sha256);
        let from = request.offset;
        let opened = tokio::task::spawn_blocking(move || open_either(&bundle, &transfer, from));
        let (file, total) = opened
            .await
            .map_err(|_| Status::internal("opening it broke off"))?
            .map_err(|error| Status::not_found(format!("it cannot be read: {error}")))?;
        if from > total {
            return Err(Status::out_of_range(format!("there are {total} bytes")));
        }
        let (sender, stream) = mpsc::channel(CHUNKS);
        self.tasks.spawn(send_file(file, from, total, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// A bundle, or else a transfer, to be read from there on, and its length.
fn open_either(bundle: &Path, transfer: &Path, from: u64) -> io::Result<(File, u64)> {
    let file = match File::open(bundle) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => File::open(transfer),
        other => other,
    };
    let mut file = file.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            error.kind(),
            "it is not on the master any more: copy the files again",
        ),
        _ => error,
    })?;
    let total = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(from))?;
    Ok((file, total))
}

/// The file's bytes from `at` on, where it stands, piece by piece. It waits for the agent after a few of them.
async fn send_file(
    mut file: File,
    mut at: u64,
    total: u64,
    sender: mpsc::Sender<Result<v1::FetchChunk, Status>>,
) {
    while at < total {
        let read = tokio::task::spawn_blocking(move || {
            let piece = read_piece(&mut file);
            piece.map(|data| (file, data))
        });
        let read = read
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        let (same, data) = match read {
            Ok(read) => read,
            Err(error) => {
                let _ = sender.send(Err(Status::data_loss(error.to_string()))).await; // the agent may be gone
                return;
            }
        };
        file = same;
        at += data.len() as u64;
        let chunk = v1::FetchChunk {
            data: Bytes::from(data),
            total_bytes: total,
        };
        if sender.send(Ok(chunk)).await.is_err() {
            return;
        }
    }
}

fn read_piece(file: &mut File) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(FETCH_BYTES);
    match file.take(FETCH_BYTES as u64).read_to_end(&mut data)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(data),
    }
}

/// Carries one session's reports on, in order.
struct Pump {
    api: AgentApi,
    at: Key,
    id: SpiffeId,
    session: u64,
}

impl Pump {
    async fn run(self, mut inbox: mpsc::Receiver<Box<Report>>) {
        // Output is not waited for: more is taken while the disk is busy.
        let mut pieces = FuturesOrdered::new();
        loop {
            let report = tokio::select! {
                report = inbox.recv(), if pieces.len() < PIECES => report,
                Some(piece) = pieces.next() => {
                    Box::pin(self.arrived(&mut pieces, piece)).await;
                    continue;
                }
            };
            match report.map(|report| *report) {
                Some(Report::Spool { run, data }) => pieces.extend(self.piece(run, data).await),
                // Rare, and its memory is not for every session to hold all the time.
                Some(report) => Box::pin(self.report(report)).await,
                None => break,
            }
        }
        while let Some(piece) = pieces.next().await {
            Box::pin(self.arrived(&mut pieces, piece)).await;
        }
    }

    async fn report(&self, report: Report) {
        match report {
            Report::Hello(hello) => self.hello(hello).await,
            Report::Facts(facts) => self.facts(*facts).await,
            Report::Volumes(mounted) => {
                let told = self.api.engine.tell(Input::VolumesMounted {
                    at: self.at.clone(),
                    session: self.session,
                    id: mounted.id,
                    error: mounted.error,
                });
                told.await;
            }
            Report::Applied(applied) => {
                let told = self.api.engine.tell(Input::Applied {
                    at: self.at.clone(),
                    session: self.session,
                    generation: applied.generation,
                    error: applied.error,
                });
                told.await;
            }
            Report::RunAnswer(answer) => self.run_answer(answer).await,
            Report::Spool { run, data } => {
                if let Some(piece) = self.piece(run, data).await {
                    self.settle(piece.await).await;
                }
            }
            Report::Copied { run, progress } => self.copied(run, &progress),
            Report::Renew(csr) => self.renew(&csr).await,
        }
    }

    fn send(&self, body: master_message::Body) {
        if !self
            .api
            .registry
            .send(&self.at, self.session, Command::Send(Box::new(body)))
        {
            tracing::debug!(instance = %self.at, session = self.session, "the session has ended meanwhile");
        }
    }

    async fn hello(&self, hello: Box<v1::Hello>) {
        let acks = hello.runs.iter().filter_map(|run| {
            let bytes = self.api.spools.have(run.run_id.parse().ok()?);
            Some(v1::SpoolAck {
                run_id: run.run_id.clone(),
                bytes,
            })
        });
        let (main_user, hostname) = self.api.engine.look(|world| {
            let instance = world.instance(&self.at);
            instance.map_or_else(Default::default, |i| (i.user.clone(), i.hostname.clone()))
        });
        self.send(master_message::Body::Welcome(v1::Welcome {
            session: self.session,
            cluster: self.at.cluster.to_string(),
            instance: self.at.instance.to_string(),
            main_user: main_user.unwrap_or_default(),
            hostname,
            heartbeat_ms: u64::try_from(HEARTBEAT.as_millis()).unwrap_or(u64::MAX),
            silence_ms: u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX),
            acks: acks.collect(),
        }));
        self.forget_ended(&hello);
        let (at, session) = (self.at.clone(), self.session);
        self.api
            .engine
            .tell(Input::Attached { at, session, hello })
            .await;
    }

    /// Runs that the agent still has and whose end is on record here.
    fn forget_ended(&self, hello: &v1::Hello) {
        for state in &hello.runs {
            let Ok(run) = state.run_id.parse::<RunId>() else {
                continue;
            };
            if !self.api.engine.look(|world| world.runs.contains_key(&run)) {
                self.send(master_message::Body::ForgetRun(v1::ForgetRun {
                    run_id: state.run_id.clone(),
                }));
            }
        }
    }

    async fn facts(&self, facts: v1::FactsReport) {
        let turn = self.api.facts.acquire().await;
        let node = serde_json::from_str(&facts.node_json).unwrap_or(serde_json::Value::Null);
        if facts.node_json.len() > MAX_FACTS_BYTES || !node.is_object() {
            tracing::warn!(instance = %self.at, bytes = facts.node_json.len(), "facts that are no JSON object, or too large");
            return;
        }
        let facts = Box::new(NodeFacts {
            node,
            ssh_host_keys: facts
                .ssh_host_keys
                .into_iter()
                .filter(|key| one_line(key))
                .collect(),
            root_public_key: Some(facts.root_public_key)
                .filter(|key| one_line(key))
                .unwrap_or_default(),
            user_public_key: Some(facts.user_public_key)
                .filter(|key| one_line(key))
                .unwrap_or_default(),
            main_user: facts.main_user,
        });
        let (at, session) = (self.at.clone(), self.session);
        let input = Input::Facts { at, session, facts };
        let _ = self.api.engine.ask(input).await; // the master stops
        drop(turn);
    }

    async fn run_answer(&self, answer: v1::RunAnswer) {
        if let Ok(run) = answer.run_id.parse() {
            let (accepted, reason) = (answer.accepted, answer.reason);
            self.api
                .engine
                .tell(Input::RunAnswer {
                    run,
                    accepted,
                    reason,
                })
                .await;
        }
    }

    /// A piece of output on its way to disk. Only a run of this very instance may be written to.
    async fn piece(
        &self,
        run: RunId,
        data: v1::SpoolData,
    ) -> Option<impl Future<Output = Piece> + Send + use<>> {
        let is_its_own = |world: &World| {
            let found = world.runs.get(&run);
            found.is_some_and(|found| found.at == self.at)
        };
        if !self.api.engine.look(is_its_own) {
            self.send(master_message::Body::ForgetRun(v1::ForgetRun {
                run_id: run.to_string(),
            }));
            return None;
        }
        let spools = &self.api.spools;
        match spools.take(run, data.offset, data.data, data.end).await {
            Ok(arriving) => Some(async move { (run, arriving.await) }),
            Err(error) => {
                self.not_kept(run, &error);
                None
            }
        }
    }

    fn not_kept(&self, run: RunId, error: &std::io::Error) {
        tracing::error!(instance = %self.at, %run, %error, "cannot keep a piece of output; the agent sends it again");
    }

    /// Takes what else is kept by now, and acknowledges each run's last piece of it.
    async fn arrived<F: Future<Output = Piece> + Send>(
        &self,
        pieces: &mut FuturesOrdered<F>,
        first: Piece,
    ) {
        let mut last = first;
        while let Some(Some(next)) = pieces.next().now_or_never() {
            let before = std::mem::replace(&mut last, next);
            let follows = last.0 == before.0 && last.1.is_ok();
            if !(follows && is_part(&before)) {
                self.settle(before).await;
            }
        }
        self.settle(last).await;
    }

    /// Tells the agent how much is kept, and the engine when that is all.
    async fn settle(&self, (run, arrived): Piece) {
        let whole = match arrived {
            Ok(Arrived::Part(progress)) => {
                let ack = v1::SpoolAck {
                    run_id: run.to_string(),
                    bytes: progress.bytes,
                };
                self.send(master_message::Body::SpoolAck(ack));
                if !progress.ended {
                    return;
                }
                None
            }
            Ok(Arrived::Whole(bytes)) => Some(bytes),
            Err(error) => return self.not_kept(run, &error),
        };
        let ended = match &whole {
            Some(bytes) => aot_proto::frame::decode_all(bytes)
                .ok()
                .and_then(|(frames, _)| end_record(frames.last()?)),
            None => {
                let spools = self.api.spools.clone();
                tokio::task::spawn_blocking(move || spools.end_of(run))
                    .await
                    .ok()
                    .flatten()
            }
        };
        let ended = ended.unwrap_or_else(|| v1::Ended {
            kind: v1::EndKind::Interrupted as i32,
            detail: "its output has no end record".to_owned(),
            ..v1::Ended::default()
        });
        self.api.engine.run_ended(run, ended, whole).await;
    }

    /// Of a run of this very instance alone.
    fn copied(&self, run: RunId, progress: &v1::CopyProgress) {
        let job = self.api.engine.look(|world| {
            let run = world.runs.get(&run).filter(|run| run.at == self.at)?;
            Some(run.job)
        });
        if let Some(job) = job {
            self.api.transfers.tell(Copied {
                job,
                instance: self.at.instance.clone(),
                bytes: progress.bytes,
                total: progress.total_bytes,
            });
        }
    }

    async fn renew(&self, csr_der: &[u8]) {
        let renewed = match ca::read_request(csr_der) {
            Ok(csr) => self
                .api
                .issue(&csr, &self.id, self.at.clone())
                .await
                .map_err(|status| status.message().to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let reply = match renewed {
            Ok(issued) => v1::RenewReply {
                certificate_pem: issued.pem,
                error: String::new(),
                expires_unix: issued.expires_unix,
            },
            Err(error) => {
                tracing::warn!(instance = %self.at, %error, "refused to renew a certificate");
                v1::RenewReply {
                    error,
                    ..v1::RenewReply::default()
                }
            }
        };
        self.send(master_message::Body::Renew(reply));
    }
}

/// A piece of a run's output that is kept, or could not be.
type Piece = (RunId, std::io::Result<Arrived>);

/// More of the same run is to come, or has.
fn is_part((_, arrived): &Piece) -> bool {
    matches!(arrived, Ok(Arrived::Part(progress)) if !progress.ended)
}

/// A key goes into other machines' files: it must be one line.
fn one_line(key: &str) -> bool {
    !key.is_empty() && key.len() < 16_384 && !key.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_would_smuggle_lines_into_other_machines_is_dropped() {
        assert!(one_line("ssh-ed25519 AAAA root@a"));
        for bad in ["", "ssh-ed25519 AAAA\nssh-rsa BBBB", "a\0b", "a\rb"] {
            assert!(!one_line(bad), "{bad:?}");
        }
    }
}
