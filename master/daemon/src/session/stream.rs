//! Moves one session's messages: an owner task that picks an input, asks `protocol` what it means, and does what that says. Started
//! by `life`; decides nothing, and knows nothing of the transport.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_proto::limits::HEARTBEAT;
use aot_proto::v1::{AgentMessage, MasterMessage, master_message};
use futures::{Stream, StreamExt};
use tokio::select;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Closed;
use super::end::SessionEnd;
use super::hand_out::HandOut;
use super::protocol::{self, Protocol, SessionInput, SessionOutput, SessionReport};
use super::registry::SessionCommand;

/// How often time is an input of a session.
const TICK: Duration = Duration::from_secs(1);

/// Messages that may wait to be sent. When full, no more commands are taken from whoever gives them.
const OUTBOX: usize = 1024;

/// How long a session that was replaced may show that its agent is still there.
const REPLACED_GRACE: Duration = HEARTBEAT;

/// How long a goodbye may take to leave.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// The agent's stream broke off, and why, in words.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) &'static str);

/// What a session's owner holds.
pub(crate) struct Session<S> {
    /// From the agent.
    pub(super) inbound: S,
    /// To the agent. Boxed: a queue has room for 32 of them from its start, in every session.
    pub(super) outbound: mpsc::Sender<Box<MasterMessage>>,
    /// From the rest of the master.
    pub(super) commands: mpsc::Receiver<SessionCommand>,
    /// Brought about by the rest of the master, past the commands.
    pub(super) end: SessionEnd,
    /// To the rest of the master, in order. Boxed, as above.
    pub(super) reports: mpsc::Sender<Box<SessionReport>>,
    /// Turns of sessions that are sent cluster facts.
    pub(super) turns: Arc<Semaphore>,
    pub(super) protocol: Protocol,
}

impl<S> Session<S>
where
    S: Stream<Item = Result<AgentMessage, Broken>> + Unpin,
{
    /// Runs until the agent leaves, falls silent, its end comes, or `stop` fires; says why.
    pub(crate) async fn run(mut self: Box<Self>, stop: CancellationToken) -> Closed {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outbox: VecDeque<Box<master_message::Body>> = VecDeque::new();
        // While one waits, nothing more is read from the agent.
        let mut reported: VecDeque<Box<SessionReport>> = VecDeque::new();
        let mut closing: Option<(Closed, Instant)> = None;
        let end = self.end.clone();
        let mut ended = pin!(end.come());
        let mut probe: Option<u64> = None; // of a session that was replaced
        // Boxed, as it is rarely there.
        let mut facts: Option<Box<HandOut>> = None;

        loop {
            let open = closing.is_none();
            if let Some((why, deadline)) = &closing
                && (outbox.is_empty() && reported.is_empty() && probe.is_none()
                    || Instant::now() >= *deadline)
            {
                return why.clone();
            }
            // An arm only picks an input. Every arm is cancel safe: `send` is not, `reserve` is.
            let input = select! {
                () = &mut ended, if open => match end.why() {
                    Some(why) if why.is_at_once() => return why.clone(),
                    _ => SessionInput::Replaced,
                },
                () = stop.cancelled(), if open => SessionInput::Stop,
                permit = self.outbound.reserve(), if !outbox.is_empty() => match permit {
                    Ok(permit) => {
                        let body = outbox.pop_front().expect("guarded above");
                        permit.send(message(*body));
                        continue
                    }
                    Err(_) => return Closed::ByAgent(String::new()),
                },
                room = self.reports.reserve(), if !reported.is_empty() => match room {
                    Ok(room) => {
                        room.send(reported.pop_front().expect("guarded above"));
                        continue
                    }
                    Err(_) => return end.why().cloned().unwrap_or(Closed::Stopping),
                },
                message = self.inbound.next(), if reported.is_empty() => match message {
                    Some(Ok(message)) => SessionInput::Agent(Box::new(message)),
                    Some(Err(Broken(why))) => return end.why().cloned().unwrap_or(Closed::Broken(why)),
                    None => return end.why().cloned().unwrap_or(Closed::ByAgent(String::new())),
                },
                () = async { facts.as_mut().expect("guarded").await_turn().await },
                    if open && facts.as_ref().is_some_and(|it| !it.has_turn()) => continue,
                // Room for all: the stream has taken what it was given.
                room = self.outbound.reserve_many(self.outbound.max_capacity()),
                    if open && outbox.is_empty() && facts.as_ref().is_some_and(|it| it.has_turn()) => match room {
                    Ok(mut room) => {
                        match facts.as_mut().and_then(|facts| facts.next()).zip(room.next()) {
                            Some((piece, permit)) => permit.send(message(master_message::Body::ClusterFacts(piece))),
                            None => facts = None,
                        }
                        continue
                    }
                    Err(_) => return Closed::ByAgent(String::new()),
                },
                Some(command) = self.commands.recv(), if open && outbox.len() < OUTBOX => SessionInput::Command(command),
                _ = tick.tick() => match reported.is_empty() {
                    true => SessionInput::Tick,
                    false => SessionInput::DeafTick,
                },
            };
            let now = Instant::now();
            if let SessionInput::Agent(message) = &input {
                // Another session speaks for the instance now, or none. Only an answer to what was sent after that shows that
                // somebody is there: a link that was cut may give back much later what it held.
                match probe {
                    Some(probe) if protocol::echoes(message, probe) => return Closed::StillThere,
                    _ if end.why().is_some() => continue,
                    _ => end.hear(now),
                }
            }
            if let Some(facts) = &mut facts {
                facts.pass_on();
            }
            let is_replaced = matches!(input, SessionInput::Replaced);
            for output in self.protocol.step(input, now) {
                match output {
                    SessionOutput::Send(body) => outbox.push_back(body),
                    SessionOutput::HandOut(pieces) => {
                        facts = Some(HandOut::new(&self.turns, pieces).into());
                    }
                    // Whoever takes reports may wait for the store: nothing else is kept waiting with it.
                    SessionOutput::Report(report) => reported.push_back(Box::new(report)),
                    SessionOutput::Close(why) => {
                        let grace = if is_replaced {
                            REPLACED_GRACE
                        } else {
                            CLOSE_GRACE
                        };
                        closing.get_or_insert((why, now + grace));
                        facts = None; // the next session is given them anew
                    }
                }
            }
            if is_replaced {
                probe = Some(self.protocol.last_beat());
            }
        }
    }
}

fn message(body: master_message::Body) -> Box<MasterMessage> {
    Box::new(MasterMessage { body: Some(body) })
}

#[cfg(test)]
mod tests;
