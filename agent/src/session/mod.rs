//! One Attach stream from Hello to its end. Called by the service, once per connection. `protocol` decides, this moves.

mod agent;
mod perform;
pub(crate) mod protocol;
mod renewal;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_proto::limits::{MAX_MESSAGE_BYTES, SILENCE};
use aot_proto::v1::agent_link_client::AgentLinkClient;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::{AgentMessage, Hello, MasterMessage, SpoolData, master_message};
use aot_proto::version::ProtocolRange;
use futures::{Stream, StreamExt};
use tokio::select;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{self, MissedTickBehavior, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::boot_id::boot_id;
use crate::cluster_facts;
use crate::identity::ClientIdentity;
use crate::link::{Connection, Refusal};
use crate::runner::Runner;
pub(crate) use agent::{Agent, paths};
use protocol::{Closed, Protocol, SessionInput, SessionOutput};
use renewal::renew_at;

/// How often deadlines are checked.
const TICK: Duration = Duration::from_secs(1);
/// How long a goodbye may take.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Messages between this loop and HTTP/2. When full, spools wait first: control is queued before them.
const OUTBOUND: usize = 1;
/// Results of background work. When full, that work waits.
const RESULTS: usize = 16;
/// While this many messages wait to be sent, none is read: a master that does not read is not served.
const OUTBOX: usize = 1024;

impl Agent {
    /// Opens a stream on `connection` and serves it to its end.
    pub(crate) async fn attach(
        &mut self,
        connection: Connection,
        identity: &ClientIdentity,
        stop: &CancellationToken,
    ) -> SessionEnded {
        let Connection {
            channel, refusal, ..
        } = connection;
        self.runner.check();
        let runs = self.runner.states();
        let (outbound, rest) = mpsc::channel(OUTBOUND);
        let state_dir = self.config.state_dir.clone();
        let applied = spawn_blocking(move || cluster_facts::last_generation(&state_dir)).await;
        let hello = Hello {
            agent_version: crate::VERSION.to_owned(),
            boot_id: boot_id(self.config.boot_id_file.as_deref()),
            agent_started_unix_ms: self.started_unix_ms,
            runs: runs.clone(),
            cluster_facts_generation: applied.unwrap_or_default(),
            architecture: std::env::consts::ARCH.to_owned(),
            process_id: self.process_id.clone(),
            unix_ms: aot_host::clock::unix_ms(),
            ..ProtocolRange::OURS.hello()
        };
        let first = AgentMessage {
            body: Some(Up::Hello(hello)),
        };
        let messages =
            futures::stream::once(std::future::ready(first)).chain(ReceiverStream::new(rest));
        let mut client = AgentLinkClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let answer = select! {
            answer = timeout(SILENCE, client.attach(messages)) => answer,
            () = stop.cancelled() => return (Closed::Stopping, None),
        };
        let inbound = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return (broken(&status, &refusal), None),
            Err(_) => return (Closed::Silent, None),
        };
        let now = Instant::now();
        let epoch = self.epoch.of(&identity.name);
        let protocol = Protocol::new(runs, epoch, renew_at(identity, now), now);
        let (report, results) = mpsc::channel(RESULTS);
        let session = Session {
            agent: self,
            protocol,
            inbound,
            outbound,
            results,
            report,
            new_key: None,
            refusal,
        };
        session.run(stop).await
    }
}

/// Why a session is over, and [`Protocol::spread`] at its end.
type SessionEnded = (Closed, Option<Duration>);

/// Why a call, or the stream that it opened, came to an end.
fn broken(status: &Status, refusal: &Refusal) -> Closed {
    let why = status.message().to_owned();
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Closed::Refused(why),
        _ if refusal.is_certificate_over() => Closed::Refused(why),
        _ => Closed::Broken(why),
    }
}

struct Session<'a, S> {
    agent: &'a mut Agent,
    protocol: Protocol,
    inbound: S,
    outbound: mpsc::Sender<AgentMessage>,
    /// What background work has come to, sent by `report`.
    results: mpsc::Receiver<SessionInput>,
    report: mpsc::Sender<SessionInput>,
    /// Of a renewal that is under way.
    new_key: Option<rcgen::KeyPair>,
    /// What the master's TLS says of our certificate.
    refusal: Refusal,
}

impl<S: Stream<Item = Result<MasterMessage, Status>> + Unpin> Session<'_, S> {
    async fn run(mut self, stop: &CancellationToken) -> SessionEnded {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outbox: VecDeque<Up> = VecDeque::new();
        let mut closing: Option<(Closed, Instant)> = None;
        loop {
            let open = closing.is_none();
            if let Some((why, deadline)) = &closing
                && (outbox.is_empty() || Instant::now() >= *deadline)
            {
                let (why, deadline) = (why.clone(), *deadline);
                return self.farewell(why, deadline).await;
            }
            let now = Instant::now();
            let sends = !outbox.is_empty() || (open && self.protocol.next_piece(now).is_some());
            // A piece may wait for more, but not for long.
            let piece_at = match sends {
                true => None,
                false => self.protocol.piece_at(now),
            };
            // An arm only picks an input. Every arm is cancel safe.
            let inputs = select! {
                () = stop.cancelled(), if open => vec![SessionInput::Stop],
                permit = self.outbound.reserve(), if sends => match permit {
                    Ok(permit) => {
                        // Control goes before spools.
                        let body = outbox.pop_front().or_else(|| next_spool(&mut self.protocol, &mut self.agent.runner));
                        if body.is_some() {
                            permit.send(AgentMessage { body });
                        }
                        continue;
                    }
                    Err(_) => return self.broken("the stream was closed"),
                },
                message = self.inbound.next(), if outbox.len() < OUTBOX => match message {
                    Some(Ok(message)) => vec![SessionInput::Master(message)],
                    _ if !open => return (closing.map_or(Closed::Stopping, |(why, _)| why), self.protocol.spread()),
                    Some(Err(status)) => return (broken(&status, &self.refusal), self.protocol.spread()),
                    None => return self.broken("the master ended the stream"),
                },
                () = time::sleep_until(piece_at.unwrap_or(now).into()), if piece_at.is_some() => continue,
                grown = self.agent.runner.changed() => grown.into_iter().map(|grown| SessionInput::Grown(grown.run, grown.bytes)).collect(),
                Some(result) = self.results.recv() => vec![result],
                _ = tick.tick() => {
                    self.agent.restore_identity();
                    let grown = self.agent.runner.check();
                    let fetched = self.agent.runner.fetched().into_iter().map(SessionInput::Fetched);
                    grown.into_iter().map(|grown| SessionInput::Grown(grown.run, grown.bytes)).chain(fetched).chain([SessionInput::Tick]).collect()
                }
            };
            let mut inputs: VecDeque<SessionInput> = inputs.into();
            while let Some(input) = inputs.pop_front() {
                if let SessionInput::Master(message) = &input {
                    self.realign(message);
                }
                for output in self.protocol.step(input, Instant::now()) {
                    match output {
                        SessionOutput::Send(body) => outbox.push_back(body),
                        SessionOutput::Close(why) => {
                            closing.get_or_insert((why, Instant::now() + CLOSE_GRACE));
                        }
                        other => inputs.extend(self.perform(other)),
                    }
                }
            }
        }
    }

    /// Puts the ends of runs behind what the master has of them, where a power cut left less than that here.
    fn realign(&mut self, message: &MasterMessage) {
        let Some(master_message::Body::Welcome(welcome)) = &message.body else {
            return;
        };
        if !self.protocol.believes(welcome) {
            return;
        }
        for ack in &welcome.acks {
            let Ok(run) = ack.run_id.parse() else {
                continue;
            };
            if let Some(bytes) = self.agent.runner.realign(run, ack.bytes) {
                self.protocol.realigned(&ack.run_id, bytes);
            }
        }
    }

    /// Ends our half of the stream and waits for the master to end its own: only then all that we sent has surely arrived.
    async fn farewell(self, why: Closed, deadline: Instant) -> SessionEnded {
        let Self {
            outbound,
            mut inbound,
            protocol,
            ..
        } = self;
        drop(outbound);
        let ended = async { while let Some(Ok(_)) = inbound.next().await {} };
        // A master that does not end it has had time to read.
        let _ = time::timeout_at(deadline.into(), ended).await;
        (why, protocol.spread())
    }

    fn broken(&self, why: &str) -> SessionEnded {
        (Closed::Broken(why.to_owned()), self.protocol.spread())
    }
}

/// Reads the next piece of a spool that may be sent.
fn next_spool(protocol: &mut Protocol, runner: &mut Runner) -> Option<Up> {
    let now = Instant::now();
    let piece = protocol.next_piece(now)?;
    match runner.read(piece.run, piece.offset, piece.most) {
        Ok(chunk) => {
            protocol.sent(piece, chunk.data.len(), now);
            let data = SpoolData {
                run_id: piece.run.to_string(),
                offset: piece.offset,
                data: chunk.data,
                end: chunk.end,
            };
            (!data.data.is_empty()).then_some(Up::Spool(data))
        }
        Err(error) => {
            tracing::error!(run = %piece.run, error = %Chain(&error), "cannot read a spool");
            protocol.skip(piece.run);
            None
        }
    }
}
