//! One life of one Attach stream: an owner task that moves, and `protocol` that decides. Started by `server`.

pub mod protocol;
pub mod registry;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use aot_proto::v1::{AgentMessage, MasterMessage, master_message};
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
    /// Its identity was taken away.
    #[error("its identity was revoked")]
    Revoked,
    /// The master stops.
    #[error("the master is stopping")]
    Stopping,
}

/// One session.
pub struct Session<S> {
    /// From the agent.
    pub inbound: S,
    /// To the agent. Boxed: a queue has room for 32 of them from its start, in every session.
    pub outbound: mpsc::Sender<Box<MasterMessage>>,
    /// From the rest of the master.
    pub commands: mpsc::Receiver<Command>,
    /// To the rest of the master, in order. Boxed, as above.
    pub reports: mpsc::Sender<Box<Report>>,
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
        let mut outbox: VecDeque<Box<master_message::Body>> = VecDeque::new();
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
                    Ok(permit) => {
                        let body = outbox.pop_front().expect("guarded above");
                        permit.send(Box::new(MasterMessage { body: Some(*body) }));
                        continue
                    }
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
                    Output::Send(body) => outbox.push_back(body),
                    Output::Report(report) => {
                        if self.reports.send(Box::new(report)).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use aot_proto::limits::{PROTOCOL, SILENCE};
    use aot_proto::v1::{Hello, agent_message};
    use tokio::sync::oneshot;
    use tokio_stream::wrappers::ReceiverStream;

    struct Ends {
        agent: mpsc::Sender<Result<AgentMessage, Status>>,
        sent: mpsc::Receiver<Box<MasterMessage>>,
        commands: mpsc::Sender<Command>,
        reports: mpsc::Receiver<Box<Report>>,
        stop: CancellationToken,
        over: oneshot::Receiver<Closed>,
    }

    /// A session over channels, whose agent has said hello. `outbound` is how many messages fit into its stream.
    async fn session(outbound: usize, tasks: &tokio_util::task::TaskTracker) -> Ends {
        let (agent, inbound) = mpsc::channel(16);
        let (out, sent) = mpsc::channel(outbound);
        let (commands, inbox) = mpsc::channel(16);
        let (reporter, reports) = mpsc::channel(16);
        let (done, over) = oneshot::channel();
        let stop = CancellationToken::new();
        let owner = Session {
            inbound: ReceiverStream::new(inbound),
            outbound: out,
            commands: inbox,
            reports: reporter,
            protocol: Protocol::new(Instant::now()),
        };
        let token = stop.clone();
        tasks.spawn(async move {
            let _ = done.send(owner.run(token).await);
        });
        let hello = agent_message::Body::Hello(Hello {
            protocol: PROTOCOL,
            ..Hello::default()
        });
        agent
            .send(Ok(AgentMessage { body: Some(hello) }))
            .await
            .expect("it reads");
        let mut ends = Ends {
            agent,
            sent,
            commands,
            reports,
            stop,
            over,
        };
        let first = ends.reports.recv().await.expect("a report");
        assert!(matches!(*first, Report::Hello(_)));
        ends
    }

    #[tokio::test]
    async fn goodbye_reaches_the_agent_before_the_stream_ends() {
        let tasks = tokio_util::task::TaskTracker::new();
        let mut ends = session(4, &tasks).await;
        ends.stop.cancel();
        let last = ends.sent.recv().await.expect("a message").body;
        assert!(matches!(last, Some(master_message::Body::GoingAway(_))));
        assert_eq!(ends.over.await, Ok(Closed::Stopping));
        assert!(ends.sent.recv().await.is_none());
    }

    #[tokio::test]
    async fn an_agent_that_does_not_read_cannot_hold_up_the_stop_nor_its_own_reports() {
        let tasks = tokio_util::task::TaskTracker::new();
        let mut ends = session(1, &tasks).await;
        for _ in 0..4 {
            let body = master_message::Body::Reboot(aot_proto::v1::Reboot::default());
            ends.commands
                .send(Command::Send(Box::new(body)))
                .await
                .expect("it takes commands");
        }
        let facts = agent_message::Body::Facts(aot_proto::v1::FactsReport::default());
        ends.agent
            .send(Ok(AgentMessage { body: Some(facts) }))
            .await
            .expect("it reads");
        let next = ends.reports.recv().await.expect("a report");
        assert!(matches!(*next, Report::Facts(_)));
        ends.stop.cancel();
        let limit = CLOSE_GRACE + SILENCE;
        assert_eq!(
            tokio::time::timeout(limit, ends.over)
                .await
                .expect("it ends"),
            Ok(Closed::Stopping)
        );
    }

    #[tokio::test]
    async fn a_stream_that_ends_or_breaks_ends_the_session() {
        let tasks = tokio_util::task::TaskTracker::new();
        let ends = session(4, &tasks).await;
        drop(ends.agent);
        assert_eq!(ends.over.await, Ok(Closed::ByAgent(String::new())));
        let ends = session(4, &tasks).await;
        ends.agent
            .send(Err(Status::internal("cut")))
            .await
            .expect("it reads");
        assert_eq!(ends.over.await, Ok(Closed::Broken("cut".to_owned())));
    }
}
