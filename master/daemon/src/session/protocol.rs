//! What a session decides: what each message means, when the other side is gone, what to answer. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aot_proto::facts::Pieces;
use aot_proto::ids::RunId;
use aot_proto::limits::{HEARTBEAT, SILENCE};
use aot_proto::v1::{self, agent_message, master_message};
use aot_proto::version::ProtocolRange;

use super::registry::{BuiltinAnswer, Question, SessionCommand};
use super::{Closed, wall};

/// When an agent whose version is not known here may try again, in ms: it, or this master, was upgraded by then, or not.
const REFUSED_MS: u64 = 30_000;

/// Something that a session takes in.
#[derive(Debug)]
pub enum SessionInput {
    /// A message of the agent.
    Agent(Box<v1::AgentMessage>),
    /// What the master wants of the agent.
    Command(SessionCommand),
    /// Time passed.
    Tick,
    /// Time passed, and nothing of what the agent may have said was read: the master has not yet taken what came before.
    DeafTick,
    /// A newer session of the same instance took over.
    Replaced,
    /// The master stops.
    Stop,
}

/// Something that is to be done for a session.
#[derive(Debug)]
pub enum SessionOutput {
    /// To the agent.
    Send(Box<master_message::Body>),
    /// To the agent, one after the other, in the session's turns.
    HandOut(Pieces),
    /// To the rest of the master.
    Report(SessionReport),
    /// Send what waits, then end.
    Close(Closed),
}

/// What a session reports to the rest of the master.
#[derive(Debug)]
pub enum SessionReport {
    /// The agent said hello.
    Hello {
        /// What it said.
        hello: Box<v1::Hello>,
        /// Version of the protocol that the session speaks.
        protocol: u32,
    },
    /// Facts.
    Facts(Box<v1::FactsReport>),
    /// Cluster facts are written, or could not be.
    Applied(v1::ClusterFactsApplied),
    /// Volumes are mounted, or one could not be.
    Volumes(v1::VolumesMounted),
    /// A run is in the journal, or refused.
    RunAnswer(v1::RunAnswer),
    /// A piece of a spool.
    Spool {
        /// Of which run.
        run: RunId,
        /// The piece.
        data: v1::SpoolData,
    },
    /// This much of a copy's files is there.
    Copied {
        /// The run that copies.
        run: RunId,
        /// How much.
        progress: v1::CopyProgress,
    },
    /// Facts came that are too large; none of them is here.
    FactsTooLarge,
    /// A certificate is to be renewed.
    Renew(Vec<u8>),
}

/// The state of one session.
#[derive(Debug)]
pub struct Protocol {
    /// Version of the protocol that both sides speak: what is sent may depend on it. `None` before the hello.
    agreed: Option<u32>,
    over: bool,
    heard: Instant,
    sent: Instant,
    seq: u64,
    echo: u64,
    calls: HashMap<u64, (Instant, tokio::sync::oneshot::Sender<BuiltinAnswer>)>,
    next_call: u64,
    silence: Duration,
}

impl Protocol {
    /// A session that begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            agreed: None,
            over: false,
            heard: now,
            sent: now,
            seq: 0,
            echo: 0,
            calls: HashMap::new(),
            next_call: 1,
            silence: SILENCE,
        }
    }

    /// Feeds one input in; gives what to do. Once that is to close, nothing that the agent says counts any more.
    pub fn step(&mut self, input: SessionInput, now: Instant) -> Vec<SessionOutput> {
        let outputs = self.decide(input, now);
        let closes = |output: &SessionOutput| matches!(output, SessionOutput::Close(_));
        self.over |= outputs.iter().any(closes);
        outputs
    }

    fn decide(&mut self, input: SessionInput, now: Instant) -> Vec<SessionOutput> {
        match input {
            SessionInput::Agent(_) if self.over => Vec::new(),
            SessionInput::Agent(message) => {
                self.heard = now;
                self.message(message.body)
            }
            SessionInput::Command(command) => self.command(command, now),
            SessionInput::Tick => self.tick(now),
            SessionInput::DeafTick => {
                self.heard = now; // it may be heard: nobody listens
                self.tick(now)
            }
            SessionInput::Replaced => self.replaced(now),
            SessionInput::Stop => vec![
                SessionOutput::Send(Box::new(master_message::Body::GoingAway(
                    v1::MasterGoingAway {
                        reason: "the master is stopping".to_owned(),
                        reconnect_after_ms: 2_000,
                    },
                ))),
                SessionOutput::Close(Closed::Stopping),
            ],
        }
    }

    fn message(&mut self, body: Option<agent_message::Body>) -> Vec<SessionOutput> {
        let Some(body) = body else {
            tracing::debug!("ignored a message of an unknown kind");
            return Vec::new();
        };
        match wall::admit(body) {
            Ok(Some(body)) => self.admitted(body),
            Ok(None) => vec![SessionOutput::Report(SessionReport::FactsTooLarge)],
            Err(breach) => vec![SessionOutput::Close(Closed::Protocol(breach))],
        }
    }

    /// What got past the wall.
    fn admitted(&mut self, body: agent_message::Body) -> Vec<SessionOutput> {
        use agent_message::Body;
        match (self.agreed.is_some(), body) {
            (false, Body::Hello(hello)) => self.hello(hello),
            (false, _) => vec![SessionOutput::Close(Closed::Protocol(
                "its first message was not a hello",
            ))],
            (true, Body::Hello(_)) => vec![SessionOutput::Close(Closed::Protocol(
                "it said hello twice",
            ))],
            (true, Body::Heartbeat(beat)) => {
                self.echo = beat.seq;
                Vec::new()
            }
            (true, Body::Facts(facts)) => {
                vec![SessionOutput::Report(SessionReport::Facts(Box::new(facts)))]
            }
            (true, Body::ClusterFactsApplied(applied)) => {
                vec![SessionOutput::Report(SessionReport::Applied(applied))]
            }
            (true, Body::VolumesMounted(mounted)) => {
                vec![SessionOutput::Report(SessionReport::Volumes(mounted))]
            }
            (true, Body::RunAnswer(answer)) => {
                vec![SessionOutput::Report(SessionReport::RunAnswer(answer))]
            }
            (true, Body::CopyProgress(progress)) => match progress.run_id.parse() {
                Ok(run) => vec![SessionOutput::Report(SessionReport::Copied {
                    run,
                    progress,
                })],
                Err(_) => vec![SessionOutput::Close(Closed::Protocol(
                    "it copies for an unknown run",
                ))],
            },
            (true, Body::Spool(data)) => match data.run_id.parse() {
                Ok(run) => vec![SessionOutput::Report(SessionReport::Spool { run, data })],
                Err(_) => vec![SessionOutput::Close(Closed::Protocol(
                    "it sent output of an unknown run",
                ))],
            },
            (true, Body::BuiltinReply(reply)) => self.builtin_reply(reply),
            (true, Body::Renew(renew)) => {
                vec![SessionOutput::Report(SessionReport::Renew(renew.csr_der))]
            }
            (true, Body::GoingAway(away)) => {
                vec![SessionOutput::Close(Closed::ByAgent(format!(
                    ": {}",
                    away.reason
                )))]
            }
        }
    }

    fn hello(&mut self, hello: v1::Hello) -> Vec<SessionOutput> {
        match ProtocolRange::OURS.pick(ProtocolRange::offered(&hello)) {
            Ok(protocol) => {
                self.agreed = Some(protocol);
                let hello = Box::new(hello);
                vec![SessionOutput::Report(SessionReport::Hello {
                    hello,
                    protocol,
                })]
            }
            Err(refused) => {
                let goodbye = v1::MasterGoingAway {
                    reason: refused.to_string(),
                    reconnect_after_ms: REFUSED_MS,
                };
                vec![
                    SessionOutput::Send(Box::new(master_message::Body::GoingAway(goodbye))),
                    SessionOutput::Close(Closed::Version(refused)),
                ]
            }
        }
    }

    fn builtin_reply(&mut self, reply: v1::BuiltinReply) -> Vec<SessionOutput> {
        if let Some((_, answer)) = self.calls.remove(&reply.id) {
            let result = if reply.error.is_empty() {
                Ok(reply.json)
            } else {
                Err(reply.error)
            };
            let _ = answer.send(BuiltinAnswer { result }); // whoever asked may have gone
        }
        Vec::new()
    }

    fn command(&mut self, command: SessionCommand, now: Instant) -> Vec<SessionOutput> {
        match command {
            SessionCommand::Send(body) => vec![SessionOutput::Send(body)],
            SessionCommand::HandOut(facts) => vec![SessionOutput::HandOut(facts)],
            SessionCommand::Builtin(question) => {
                let Question {
                    name,
                    args,
                    answer,
                    deadline,
                } = *question;
                let id = self.next_call;
                self.next_call += 1;
                self.calls
                    .retain(|_, (deadline, answer)| *deadline > now && !answer.is_closed());
                self.calls.insert(id, (deadline, answer));
                vec![SessionOutput::Send(Box::new(
                    master_message::Body::Builtin(v1::BuiltinCall { id, name, args }),
                ))]
            }
        }
    }

    /// What was asked is not answered here any more: whoever waits learns it by that.
    fn replaced(&mut self, now: Instant) -> Vec<SessionOutput> {
        self.calls.clear();
        let goodbye = v1::MasterGoingAway {
            reason: "a newer session took over".to_owned(),
            reconnect_after_ms: 30_000,
        };
        vec![
            self.beat(now), // an agent that echoes it is still there
            SessionOutput::Send(Box::new(master_message::Body::GoingAway(goodbye))),
            SessionOutput::Close(Closed::Replaced),
        ]
    }

    fn tick(&mut self, now: Instant) -> Vec<SessionOutput> {
        if now.duration_since(self.heard) >= self.silence {
            return vec![SessionOutput::Close(Closed::Silent)];
        }
        if self.agreed.is_none() || now.duration_since(self.sent) < HEARTBEAT {
            return Vec::new();
        }
        vec![self.beat(now)]
    }

    fn beat(&mut self, now: Instant) -> SessionOutput {
        self.sent = now;
        self.seq += 1;
        let beat = v1::Heartbeat {
            seq: self.seq,
            echo: self.echo,
        };
        SessionOutput::Send(Box::new(master_message::Body::Heartbeat(beat)))
    }

    /// Number of the last beat that was sent; 0 = none.
    pub fn last_beat(&self) -> u64 {
        self.seq
    }
}

/// Whether this answers the beat of that number: its sender has read it.
pub(crate) fn echoes(message: &v1::AgentMessage, beat: u64) -> bool {
    matches!(&message.body, Some(agent_message::Body::Heartbeat(it)) if beat > 0 && it.echo >= beat)
}

#[cfg(test)]
mod tests;
