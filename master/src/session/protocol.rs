//! What a session decides: what each message means, when the other side is gone, what to answer. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use aot_proto::ids::RunId;
use aot_proto::limits::{HEARTBEAT, PROTOCOL, SILENCE, SPOOL_CHUNK_BYTES};
use aot_proto::v1::{self, agent_message, master_message};

use super::Closed;
use super::registry::{BuiltinAnswer, Command, Question};

/// Something that a session takes in.
#[derive(Debug)]
pub enum Input {
    /// A message of the agent.
    Agent(Box<v1::AgentMessage>),
    /// A wish of the master.
    Command(Command),
    /// Time passed.
    Tick,
    /// The master stops.
    Stop,
}

/// Something that a session wants done.
#[derive(Debug)]
pub enum Output {
    /// To the agent.
    Send(Box<master_message::Body>),
    /// To the rest of the master.
    Report(Report),
    /// Send what waits, then end.
    Close(Closed),
}

/// What a session tells the rest of the master.
#[derive(Debug)]
pub enum Report {
    /// The agent said hello.
    Hello(Box<v1::Hello>),
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
    /// So much of a copy's files is there.
    Copied {
        /// The run that copies.
        run: RunId,
        /// How much.
        progress: v1::CopyProgress,
    },
    /// A certificate is to be renewed.
    Renew(Vec<u8>),
}

/// The state of one session.
#[derive(Debug)]
pub struct Protocol {
    greeted: bool,
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
            greeted: false,
            heard: now,
            sent: now,
            seq: 0,
            echo: 0,
            calls: HashMap::new(),
            next_call: 1,
            silence: SILENCE,
        }
    }

    /// Takes one input; says what to do.
    pub fn step(&mut self, input: Input, now: Instant) -> Vec<Output> {
        match input {
            Input::Agent(message) => {
                self.heard = now;
                self.message(message.body)
            }
            Input::Command(command) => self.command(command, now),
            Input::Tick => self.tick(now),
            Input::Stop => vec![
                Output::Send(Box::new(master_message::Body::GoingAway(
                    v1::MasterGoingAway {
                        reason: "the master is stopping".to_owned(),
                        reconnect_after_ms: 2_000,
                    },
                ))),
                Output::Close(Closed::Stopping),
            ],
        }
    }

    fn message(&mut self, body: Option<agent_message::Body>) -> Vec<Output> {
        use agent_message::Body;
        let Some(body) = body else {
            tracing::debug!("a message of an unknown kind was left aside");
            return Vec::new();
        };
        match (self.greeted, body) {
            (false, Body::Hello(hello)) => self.hello(hello),
            (false, _) => vec![Output::Close(Closed::Protocol(
                "its first message was not a hello",
            ))],
            (true, Body::Hello(_)) => vec![Output::Close(Closed::Protocol("it said hello twice"))],
            (true, Body::Heartbeat(beat)) => {
                self.echo = beat.seq;
                Vec::new()
            }
            (true, Body::Facts(facts)) => vec![Output::Report(Report::Facts(Box::new(facts)))],
            (true, Body::ClusterFactsApplied(applied)) => {
                vec![Output::Report(Report::Applied(applied))]
            }
            (true, Body::VolumesMounted(mounted)) => {
                vec![Output::Report(Report::Volumes(mounted))]
            }
            (true, Body::RunAnswer(answer)) => vec![Output::Report(Report::RunAnswer(answer))],
            (true, Body::CopyProgress(progress)) => match progress.run_id.parse() {
                Ok(run) => vec![Output::Report(Report::Copied { run, progress })],
                Err(_) => vec![Output::Close(Closed::Protocol("it copies for no run"))],
            },
            (true, Body::Spool(data)) if data.data.len() > SPOOL_CHUNK_BYTES => {
                vec![Output::Close(Closed::Protocol(
                    "it sent a piece of output that is too large",
                ))]
            }
            (true, Body::Spool(data)) => match data.run_id.parse() {
                Ok(run) => vec![Output::Report(Report::Spool { run, data })],
                Err(_) => vec![Output::Close(Closed::Protocol("it sent output of no run"))],
            },
            (true, Body::BuiltinReply(reply)) => self.builtin_reply(reply),
            (true, Body::Renew(renew)) => vec![Output::Report(Report::Renew(renew.csr_der))],
            (true, Body::GoingAway(away)) => {
                vec![Output::Close(Closed::ByAgent(format!(": {}", away.reason)))]
            }
        }
    }

    fn hello(&mut self, hello: v1::Hello) -> Vec<Output> {
        if hello.protocol != PROTOCOL {
            return vec![Output::Close(Closed::Protocol(
                "it speaks another version of the protocol",
            ))];
        }
        self.greeted = true;
        vec![Output::Report(Report::Hello(Box::new(hello)))]
    }

    fn builtin_reply(&mut self, reply: v1::BuiltinReply) -> Vec<Output> {
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

    fn command(&mut self, command: Command, now: Instant) -> Vec<Output> {
        match command {
            Command::Send(body) => vec![Output::Send(body)],
            Command::Builtin(question) => {
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
                vec![Output::Send(Box::new(master_message::Body::Builtin(
                    v1::BuiltinCall { id, name, args },
                )))]
            }
            Command::Replaced => vec![
                Output::Send(Box::new(master_message::Body::GoingAway(
                    v1::MasterGoingAway {
                        reason: "a newer session took over".to_owned(),
                        reconnect_after_ms: 30_000,
                    },
                ))),
                Output::Close(Closed::Replaced),
            ],
            Command::Close(why) => vec![Output::Close(why)],
        }
    }

    fn tick(&mut self, now: Instant) -> Vec<Output> {
        if now.duration_since(self.heard) >= self.silence {
            return vec![Output::Close(Closed::Silent)];
        }
        if !self.greeted || now.duration_since(self.sent) < HEARTBEAT {
            return Vec::new();
        }
        self.sent = now;
        self.seq += 1;
        let beat = v1::Heartbeat {
            seq: self.seq,
            echo: self.echo,
        };
        vec![Output::Send(Box::new(master_message::Body::Heartbeat(
            beat,
        )))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn agent(body: agent_message::Body) -> Input {
        Input::Agent(Box::new(v1::AgentMessage { body: Some(body) }))
    }

    fn hello(protocol: u32) -> Input {
        agent(agent_message::Body::Hello(v1::Hello {
            protocol,
            ..v1::Hello::default()
        }))
    }

    fn greeted(now: Instant) -> Protocol {
        let mut protocol = Protocol::new(now);
        let out = protocol.step(hello(PROTOCOL), now);
        assert!(matches!(out[..], [Output::Report(Report::Hello(_))]));
        protocol
    }

    fn closes(out: &[Output]) -> Option<&Closed> {
        out.iter().find_map(|output| match output {
            Output::Close(why) => Some(why),
            _ => None,
        })
    }

    #[test]
    fn the_first_message_is_a_hello_of_our_protocol_and_the_only_one() {
        let now = Instant::now();
        let beat = || agent(agent_message::Body::Heartbeat(v1::Heartbeat::default()));
        assert!(closes(&Protocol::new(now).step(beat(), now)).is_some());
        assert!(closes(&Protocol::new(now).step(hello(PROTOCOL + 1), now)).is_some());
        assert!(closes(&greeted(now).step(hello(PROTOCOL), now)).is_some());
        assert!(closes(&greeted(now).step(beat(), now)).is_none());
    }

    #[test]
    fn a_piece_of_output_has_a_bound() {
        let now = Instant::now();
        let run = RunId::from_parts(1, 1);
        for (bytes, fits) in [(SPOOL_CHUNK_BYTES, true), (SPOOL_CHUNK_BYTES + 1, false)] {
            let piece = v1::SpoolData {
                run_id: run.to_string(),
                data: vec![0; bytes].into(),
                ..v1::SpoolData::default()
            };
            let out = greeted(now).step(agent(agent_message::Body::Spool(piece)), now);
            assert_eq!(closes(&out).is_none(), fits, "{bytes} bytes");
        }
    }

    #[test]
    fn a_silent_agent_is_let_go_and_one_that_beats_is_not() {
        let start = Instant::now();
        let (mut silent, mut alive) = (greeted(start), greeted(start));
        for second in 1..=60 {
            let now = start + Duration::from_secs(second);
            alive.step(
                agent(agent_message::Body::Heartbeat(v1::Heartbeat::default())),
                now,
            );
            assert!(closes(&alive.step(Input::Tick, now)).is_none());
            let out = silent.step(Input::Tick, now);
            assert_eq!(
                closes(&out),
                (now - start >= SILENCE).then_some(&Closed::Silent)
            );
        }
    }

    #[test]
    fn a_call_is_answered_once_and_only_by_its_own_number() {
        let now = Instant::now();
        let mut protocol = greeted(now);
        let (answer, mut reply) = tokio::sync::oneshot::channel();
        let deadline = now + Duration::from_secs(1);
        let call = Command::Builtin(Box::new(Question {
            name: "ping".to_owned(),
            args: Vec::new(),
            answer,
            deadline,
        }));
        let out = protocol.step(Input::Command(call), now);
        let [Output::Send(body)] = &out[..] else {
            panic!("{out:?}")
        };
        let master_message::Body::Builtin(call) = &**body else {
            panic!("{body:?}")
        };
        let answer = |id, json: &str| {
            let reply = v1::BuiltinReply {
                id,
                json: json.to_owned(),
                error: String::new(),
            };
            agent(agent_message::Body::BuiltinReply(reply))
        };
        protocol.step(answer(call.id + 1, "false"), now);
        assert!(reply.try_recv().is_err());
        protocol.step(answer(call.id, "true"), now);
        protocol.step(answer(call.id, "again"), now);
        assert_eq!(
            reply.try_recv().expect("answered").result,
            Ok("true".to_owned())
        );
    }

    #[test]
    fn goodbye_is_said_before_the_close() {
        let now = Instant::now();
        for input in [Input::Stop, Input::Command(Command::Replaced)] {
            let out = greeted(now).step(input, now);
            assert!(
                matches!(out[..], [Output::Send(_), Output::Close(_)]),
                "{out:?}"
            );
        }
    }

    proptest! {
        /// Whatever an agent sends, in whatever order: no panic, and nothing is reported before its hello.
        #[test]
        fn nothing_is_taken_from_a_stranger(kinds in prop::collection::vec(0u8..10, 1..30)) {
            let now = Instant::now();
            let mut protocol = Protocol::new(now);
            let mut greeted = false;
            for kind in kinds {
                use agent_message::Body;
                let body = match kind {
                    0 => Body::Hello(v1::Hello { protocol: PROTOCOL, ..v1::Hello::default() }),
                    1 => Body::Heartbeat(v1::Heartbeat::default()),
                    2 => Body::Facts(v1::FactsReport::default()),
                    3 => Body::ClusterFactsApplied(v1::ClusterFactsApplied::default()),
                    4 => Body::RunAnswer(v1::RunAnswer::default()),
                    5 => Body::Spool(v1::SpoolData::default()),
                    6 => Body::BuiltinReply(v1::BuiltinReply::default()),
                    7 => Body::Renew(v1::RenewRequest::default()),
                    8 => Body::VolumesMounted(v1::VolumesMounted::default()),
                    _ => Body::GoingAway(v1::GoingAway::default()),
                };
                let is_hello = kind == 0;
                let out = protocol.step(agent(body), now);
                if !greeted && !is_hello {
                    prop_assert!(closes(&out).is_some());
                    prop_assert!(!out.iter().any(|output| matches!(output, Output::Report(_))));
                }
                greeted |= is_hello;
            }
        }
    }
}
