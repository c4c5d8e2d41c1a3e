//! One session of a simulated agent. The real agent's protocol decides; this moves, as the real session does.

use std::collections::VecDeque;
use std::time::Duration;

use aot_agent::inside::session::{Closed, Protocol, SessionInput, SessionOutput};
use aot_proto::limits::SILENCE;
use aot_proto::v1::agent_link_client::AgentLinkClient;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{AgentMessage, BuiltinReply, Hello, MasterMessage, SpoolData, VolumesMounted};
use aot_proto::version::ProtocolRange;
use futures::StreamExt;
use tokio::sync::{SemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::agent::Agent;
use super::dial::Connection;
use super::runs::Start;

/// How often deadlines are checked, as the real agent does.
const TICK: Duration = Duration::from_millis(1000);
/// How long a goodbye may take.
const CLOSE_GRACE: Duration = Duration::from_millis(2000);
/// A certificate of these tests does not end.
const RENEW_AFTER: Duration = Duration::from_secs(86_400);

impl Agent {
    /// From Hello to the end: why it ended, and what its master asked for the time after it. `first` is given back with the
    /// welcome.
    pub(super) async fn attend(
        &mut self,
        connection: Connection,
        first: Option<SemaphorePermit<'_>>,
    ) -> (Closed, Option<Duration>) {
        let now = Instant::now();
        self.runs.advance(now);
        let runs = self.runs.states();
        let hello = Hello {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: "b".to_owned(),
            agent_started_unix_ms: 1,
            runs: runs.clone(),
            cluster_facts_generation: self.generation(),
            architecture: "x86_64".to_owned(),
            process_id: self.process_id.clone(),
            ..ProtocolRange::OURS.hello()
        };
        let (outbound, rest) = mpsc::channel(1);
        let messages = futures::stream::once(std::future::ready(up(Up::Hello(hello))))
            .chain(ReceiverStream::new(rest));
        let mut client = AgentLinkClient::new(connection.channel);
        let inbound = match timeout(SILENCE, client.attach(messages)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return (broken(&status), None),
            Err(_) => return (Closed::Silent, None),
        };
        let std_now = std::time::Instant::now();
        let protocol = Protocol::new(runs, self.epoch, std_now + RENEW_AFTER, std_now);
        let session = Session {
            agent: self,
            protocol,
            inbound,
            outbound,
            outbox: VecDeque::new(),
            address: connection.address,
        };
        session.run(first).await
    }
}

struct Session<'a> {
    agent: &'a mut Agent,
    protocol: Protocol,
    inbound: Streaming<MasterMessage>,
    outbound: mpsc::Sender<AgentMessage>,
    outbox: VecDeque<Up>,
    address: String,
}

impl Session<'_> {
    async fn run(mut self, first: Option<SemaphorePermit<'_>>) -> (Closed, Option<Duration>) {
        let why = self.serve(first).await;
        self.agent.shared.board.left(self.agent.at);
        let spread = self.protocol.spread();
        (why, spread)
    }

    async fn serve(&mut self, mut first: Option<SemaphorePermit<'_>>) -> Closed {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closing: Option<(Closed, Instant)> = None;
        loop {
            if let Some((why, deadline)) = &closing
                && (self.outbox.is_empty() || Instant::now() >= *deadline)
            {
                return why.clone();
            }
            let now = std::time::Instant::now();
            let sends = !self.outbox.is_empty() || self.protocol.next_piece(now).is_some();
            let piece_at = match sends {
                true => None,
                false => self.protocol.piece_at(now),
            };
            let run_at = self.agent.runs.next_at();
            let inputs = tokio::select! {
                permit = self.outbound.reserve(), if sends => match permit {
                    Ok(permit) => {
                        let body = self.outbox.pop_front().or_else(|| next_spool(&mut self.protocol, self.agent));
                        if body.is_some() {
                            permit.send(AgentMessage { body });
                        }
                        continue;
                    }
                    Err(_) => return Closed::Broken("the stream was closed".to_owned()),
                },
                message = self.inbound.message() => match message {
                    Ok(Some(message)) => vec![SessionInput::Master(message)],
                    Ok(None) => return Closed::Broken("the master ended the stream".to_owned()),
                    Err(status) => return broken(&status),
                },
                () = sleep_until(piece_at.unwrap_or(now).into()), if piece_at.is_some() => continue,
                () = sleep_until(run_at.unwrap_or_else(Instant::now)), if run_at.is_some() => {
                    let grown = self.agent.runs.advance(Instant::now());
                    grown.into_iter().map(|(run, bytes)| SessionInput::Grown(run, bytes)).collect()
                }
                Ok(()) = self.agent.orders.changed() => Vec::new(),
                _ = tick.tick() => vec![SessionInput::Tick],
            };
            let inputs = inputs.into_iter().chain(self.heard());
            if let Some(why) = self.step(inputs.collect()) {
                closing.get_or_insert((why, Instant::now() + CLOSE_GRACE));
            }
            if self.protocol.spread().is_some() {
                drop(first.take()); // the next one may come
            }
        }
    }

    /// What new orders come to. News wait until somebody is there who wants them.
    fn heard(&mut self) -> Option<SessionInput> {
        let orders = *self.agent.orders.borrow_and_update();
        self.agent.runs.end_by(orders.ends);
        let before = self.agent.news;
        self.agent.news = orders.news_of(self.agent.number, before);
        let is_new = self.agent.news != before && self.protocol.spread().is_some();
        is_new.then(|| SessionInput::FactsCollected(self.agent.report()))
    }

    /// Decides on inputs, and on what comes of them; why the session has to end.
    fn step(&mut self, mut inputs: VecDeque<SessionInput>) -> Option<Closed> {
        let mut closed = None;
        while let Some(input) = inputs.pop_front() {
            if let SessionInput::Master(message) = &input {
                self.note(message);
            }
            for output in self.protocol.step(input, std::time::Instant::now()) {
                match output {
                    SessionOutput::Send(body) => self.outbox.push_back(body),
                    SessionOutput::Close(why) => closed = closed.or(Some(why)),
                    other => inputs.extend(self.perform(other)),
                }
            }
        }
        closed
    }

    /// A welcome is noted on the board.
    fn note(&self, message: &MasterMessage) {
        let Some(Down::Welcome(welcome)) = &message.body else {
            return;
        };
        let board = &self.agent.shared.board;
        match self.protocol.believes(welcome) {
            true => board.attached(self.agent.at, &self.address, welcome.epoch),
            false => board.left_for_its_epoch(self.agent.at),
        }
    }

    fn perform(&mut self, output: SessionOutput) -> Vec<SessionInput> {
        let agent = &mut *self.agent;
        match output {
            SessionOutput::LearnMasters(named) => {
                agent.order.learn(&named);
            }
            SessionOutput::LearnEpoch(epoch) => agent.epoch = agent.epoch.max(epoch),
            SessionOutput::CollectFacts(_) => {
                return vec![SessionInput::FactsCollected(agent.report())];
            }
            SessionOutput::Apply(_, facts) => {
                let applied = agent.apply(*facts).map(SessionInput::Applied);
                return applied.into_iter().collect();
            }
            SessionOutput::Start(start) => {
                let begun = agent.runs.start(&start, Instant::now());
                if let Ok(begun) = begun {
                    agent.shared.board.started(begun);
                }
                let grown = start.run_id.parse().ok();
                let grown = grown.map(|run| SessionInput::Grown(run, agent.runs.bytes(run)));
                let is_new = begun != Ok(Start::Repeated);
                let started = SessionInput::Started(start.run_id, begun.map(drop));
                return [started]
                    .into_iter()
                    .chain(grown.filter(|_| is_new))
                    .collect();
            }
            SessionOutput::Cancel(run, _) => {
                let grown = agent.runs.cancel(run);
                return grown
                    .map(|bytes| SessionInput::Grown(run, bytes))
                    .into_iter()
                    .collect();
            }
            SessionOutput::Forget(run) => agent.runs.forget(run),
            SessionOutput::Mount(volumes) => {
                return vec![SessionInput::Mounted(VolumesMounted {
                    id: volumes.id,
                    error: String::new(),
                })];
            }
            SessionOutput::ReadFile(id, _) => {
                return vec![SessionInput::FileRead(BuiltinReply {
                    id,
                    json: String::new(),
                    error: "there is no machine".to_owned(),
                })];
            }
            // The rest needs a machine.
            _ => {}
        }
        Vec::new()
    }
}

/// The next piece of a spool that may be sent.
fn next_spool(protocol: &mut Protocol, agent: &Agent) -> Option<Up> {
    let now = std::time::Instant::now();
    let piece = protocol.next_piece(now)?;
    let (data, end) = agent.runs.read(piece.run, piece.offset, piece.most);
    protocol.sent(piece, data.len(), now);
    let is_empty = data.is_empty();
    let data = SpoolData {
        run_id: piece.run.to_string(),
        offset: piece.offset,
        data: data.into(),
        end,
    };
    (!is_empty).then_some(Up::Spool(data))
}

fn broken(status: &Status) -> Closed {
    let why = status.message().to_owned();
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Closed::Refused(why),
        _ => Closed::Broken(why),
    }
}

fn up(body: Up) -> AgentMessage {
    AgentMessage { body: Some(body) }
}
