//! One life of one Attach stream: an owner task that moves, and `protocol` that decides. Started by `server`.

pub mod protocol;
pub mod registry;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aot_proto::v1::{AgentMessage, MasterMessage};
use futures::{Stream, StreamExt};
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use protocol::{Input, Output, Protocol, Report};
use registry::Command;

/// How often a session looks at the clock.
const TICK: Duration = Duration::from_secs(1);

/// Messages that may wait to be sent. When full, no more commands are taken from whoever gives them.
const OUTBOX: usize = 1024;

/// How long a goodbye may take to leave.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Why a session is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// It said goodbye, or ended the stream.
    #[error("the agent went away{0}")]
    ByAgent(String),
    /// The stream broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It said nothing for too long.
    #[error("the agent fell silent")]
    Silent,
    /// It broke the protocol.
    #[error("the agent broke the protocol: {0}")]
    Protocol(&'static str),
    /// A newer session of the same instance.
    #[error("a newer session took over")]
    Replaced,
    /// The master stops.
    #[error("the master is stopping")]
    Stopping,
}

/// One session.
pub struct Session<S> {
    /// From the agent.
    pub inbound: S,
    /// To the agent.
    pub outbound: mpsc::Sender<Result<MasterMessage, Status>>,
    /// From the rest of the master.
    pub commands: mpsc::Receiver<Command>,
    /// To the rest of the master, in order.
    pub reports: mpsc::Sender<Report>,
    /// What decides.
    pub protocol: Protocol,
}

impl<S> Session<S>
where
    S: Stream<Item = Result<AgentMessage, Status>> + Unpin,
{
    /// Runs until the agent leaves, falls silent, or `stop` fires; says why.
    pub async fn run(mut self, stop: CancellationToken) -> Closed {
        let mut tick = time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outbox = VecDeque::new();
        let mut closing: Option<(Closed, Instant)> = None;
        loop {
            let open = closing.is_none();
            if let Some((why, deadline)) = &closing
                && (outbox.is_empty() || Instant::now() >= *deadline)
            {
                return why.clone();
            }
            // An arm only picks an input. Every arm is cancel safe: `send` is not, `reserve` is.
            let input = select! {
                () = stop.cancelled(), if open => Input::Stop,
                permit = self.outbound.reserve(), if !outbox.is_empty() => match permit {
                    Ok(permit) => { permit.send(Ok(outbox.pop_front().expect("guarded above"))); continue }
                    Err(_) => return Closed::ByAgent(String::new()),
                },
                message = self.inbound.next() => match message {
                    Some(Ok(message)) => Input::Agent(Box::new(message)),
                    Some(Err(status)) => return Closed::Broken(status.message().to_owned()),
                    None => return Closed::ByAgent(String::new()),
                },
                Some(command) = self.commands.recv(), if open && outbox.len() < OUTBOX => Input::Command(command),
                _ = tick.tick() => Input::Tick,
            };
            for output in self.protocol.step(input, Instant::now()) {
                match output {
                    Output::Send(body) => outbox.push_back(MasterMessage { body: Some(*body) }),
                    Output::Report(report) => {
                        if self.reports.send(report).await.is_err() {
                            return Closed::Stopping;
                        }
                    }
                    Output::Close(why) => {
                        closing.get_or_insert((why, Instant::now() + CLOSE_GRACE));
                    }
                }
            }
        }
    }
}
