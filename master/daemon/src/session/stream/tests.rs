use super::*;
use aot_proto::facts::Pieces;
use aot_proto::limits::{PROTOCOL, SILENCE};
use aot_proto::v1::{ClusterFactsPiece, Heartbeat, Hello, agent_message};
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;

struct Ends {
    agent: mpsc::Sender<Result<AgentMessage, Broken>>,
    sent: mpsc::Receiver<Box<MasterMessage>>,
    commands: mpsc::Sender<SessionCommand>,
    reports: mpsc::Receiver<Box<SessionReport>>,
    end: SessionEnd,
    stop: CancellationToken,
    turns: Arc<Semaphore>,
    over: oneshot::Receiver<Closed>,
}

/// A session over channels, whose agent has said hello. `outbound` is how many messages fit into its stream.
async fn session(outbound: usize, tasks: &tokio_util::task::TaskTracker) -> Ends {
    let (agent, inbound) = mpsc::channel(16);
    let (out, sent) = mpsc::channel(outbound);
    let (commands, inbox) = mpsc::channel(16);
    let (reporter, reports) = mpsc::channel(16);
    let (done, over) = oneshot::channel();
    let (stop, end) = (CancellationToken::new(), SessionEnd::default());
    let turns = Arc::new(Semaphore::new(1));
    let owner = Box::new(Session {
        inbound: ReceiverStream::new(inbound),
        outbound: out,
        commands: inbox,
        end: end.clone(),
        reports: reporter,
        turns: Arc::clone(&turns),
        protocol: Protocol::new(Instant::now()),
    });
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
        end,
        stop,
        turns,
        over,
    };
    let first = ends.reports.recv().await.expect("a report");
    assert!(matches!(*first, SessionReport::Hello { .. }));
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
            .send(SessionCommand::Send(Box::new(body)))
            .await
            .expect("it takes commands");
    }
    let facts = agent_message::Body::Facts(aot_proto::v1::FactsReport::default());
    ends.agent
        .send(Ok(AgentMessage { body: Some(facts) }))
        .await
        .expect("it reads");
    let next = ends.reports.recv().await.expect("a report");
    assert!(matches!(*next, SessionReport::Facts(_)));
    ends.stop.cancel();
    let limit = CLOSE_GRACE + SILENCE;
    assert_eq!(
        tokio::time::timeout(limit, ends.over)
            .await
            .expect("it ends"),
        Ok(Closed::Stopping)
    );
}

/// Its stream is full, its reports are taken by nobody, and more of both waits.
async fn stuck(tasks: &tokio_util::task::TaskTracker) -> Ends {
    let ends = session(1, tasks).await;
    for _ in 0..4 {
        let body = master_message::Body::Reboot(aot_proto::v1::Reboot::default());
        ends.commands
            .send(SessionCommand::Send(Box::new(body)))
            .await
            .expect("it takes commands");
    }
    let facts = || AgentMessage {
        body: Some(agent_message::Body::Facts(
            aot_proto::v1::FactsReport::default(),
        )),
    };
    // 16 reports wait, one is in its hands, and the others are not read any more.
    for _ in 0..20 {
        ends.agent.send(Ok(facts())).await.expect("it reads");
    }
    ends
}

#[tokio::test]
async fn the_end_comes_at_once_to_one_that_neither_reads_nor_is_read() {
    let tasks = tokio_util::task::TaskTracker::new();
    for why in [Closed::Revoked, Closed::Expired, Closed::Unread] {
        let ends = stuck(&tasks).await;
        ends.end.fire(why.clone());
        let over = tokio::time::timeout(CLOSE_GRACE / 2, ends.over).await;
        assert_eq!(over.expect("at once"), Ok(why));
    }
    let ends = stuck(&tasks).await;
    ends.end.fire(Closed::Replaced);
    let over = tokio::time::timeout(2 * REPLACED_GRACE, ends.over).await;
    assert_eq!(over.expect("not for ever"), Ok(Closed::Replaced));
}

fn beat(echo: u64) -> Result<AgentMessage, Broken> {
    let beat = Heartbeat { seq: 9, echo };
    Ok(AgentMessage {
        body: Some(agent_message::Body::Heartbeat(beat)),
    })
}

/// A session that was replaced, and the number of the beat that it was sent after that.
async fn replaced(tasks: &tokio_util::task::TaskTracker) -> (Ends, u64) {
    let mut ends = session(4, tasks).await;
    ends.end.fire(Closed::Replaced);
    let first = ends.sent.recv().await.expect("a message").body;
    let Some(master_message::Body::Heartbeat(probe)) = first else {
        panic!("{first:?}")
    };
    let last = ends.sent.recv().await.expect("a message").body;
    assert!(matches!(last, Some(master_message::Body::GoingAway(_))));
    (ends, probe.seq)
}

#[tokio::test]
async fn one_that_was_replaced_is_told_so_and_heard_no_more() {
    let tasks = tokio_util::task::TaskTracker::new();
    let (mut ends, probe) = replaced(&tasks).await;
    let facts = agent_message::Body::Facts(aot_proto::v1::FactsReport::default());
    let facts = AgentMessage { body: Some(facts) };
    for late in [Ok(facts), beat(probe - 1), beat(0)] {
        ends.agent.send(late).await.expect("it reads");
    }
    drop(ends.agent);
    assert_eq!(ends.over.await, Ok(Closed::Replaced));
    assert!(ends.reports.recv().await.is_none(), "nothing is reported");
}

#[tokio::test]
async fn one_that_answers_after_it_was_replaced_is_still_there() {
    let tasks = tokio_util::task::TaskTracker::new();
    let (ends, probe) = replaced(&tasks).await;
    ends.agent.send(beat(probe)).await.expect("it reads");
    assert_eq!(ends.over.await, Ok(Closed::StillThere), "it read on");
}

#[tokio::test]
async fn a_stream_that_ends_or_breaks_ends_the_session() {
    let tasks = tokio_util::task::TaskTracker::new();
    let ends = session(4, &tasks).await;
    drop(ends.agent);
    assert_eq!(ends.over.await, Ok(Closed::ByAgent(String::new())));
    let ends = session(4, &tasks).await;
    ends.agent.send(Err(Broken("cut"))).await.expect("it reads");
    assert_eq!(ends.over.await, Ok(Closed::Broken("cut")));
}

fn pieces(count: u64) -> Pieces {
    let piece = |offset| ClusterFactsPiece {
        offset,
        total_bytes: count,
        ..ClusterFactsPiece::default()
    };
    (0..count).map(piece).collect()
}

/// What was sent next: the offset of a piece, or something else.
async fn next_sent(ends: &mut Ends) -> Result<u64, master_message::Body> {
    let message = ends.sent.recv().await.expect("the stream is open");
    match message.body.expect("a body") {
        master_message::Body::ClusterFacts(piece) => Ok(piece.offset),
        other => Err(other),
    }
}

#[tokio::test]
async fn control_messages_pass_by_cluster_facts() {
    let tasks = tokio_util::task::TaskTracker::new();
    let mut ends = session(4, &tasks).await;
    let hand_out = SessionCommand::HandOut(pieces(4));
    ends.commands.send(hand_out).await.expect("it reads");
    assert_eq!(next_sent(&mut ends).await, Ok(0));
    while ends.sent.is_empty() {
        tokio::task::yield_now().await;
    }
    // One piece is in the stream; what comes now goes before the others, all of it.
    for _ in 0..3 {
        let body = master_message::Body::Reboot(aot_proto::v1::Reboot::default());
        let send = SessionCommand::Send(Box::new(body));
        ends.commands.send(send).await.expect("it reads");
    }
    while ends.sent.len() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(next_sent(&mut ends).await, Ok(1));
    for _ in 0..3 {
        assert!(next_sent(&mut ends).await.is_err());
    }
    assert_eq!(next_sent(&mut ends).await, Ok(2));
    assert_eq!(next_sent(&mut ends).await, Ok(3));
}

#[tokio::test]
async fn a_session_that_ends_amid_cluster_facts_says_so_and_gives_its_turn_back() {
    let tasks = tokio_util::task::TaskTracker::new();
    for replaced in [false, true] {
        let mut ends = session(4, &tasks).await;
        let hand_out = SessionCommand::HandOut(pieces(4));
        ends.commands.send(hand_out).await.expect("it reads");
        while ends.sent.is_empty() {
            tokio::task::yield_now().await;
        }
        if replaced {
            ends.end.fire(Closed::Replaced);
        } else {
            ends.stop.cancel();
        }
        while ends.turns.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(next_sent(&mut ends).await, Ok(0));
        let next = next_sent(&mut ends).await.expect_err("no piece");
        let beat = matches!(next, master_message::Body::Heartbeat(_));
        assert_eq!(beat, replaced, "{next:?}");
    }
}

/// The store is away: nobody takes its reports. It reads no more, and serves its agent all the same.
#[tokio::test]
async fn a_session_whose_reports_nobody_takes_still_sends_and_ends_once_they_are_taken() {
    let tasks = tokio_util::task::TaskTracker::new();
    let mut ends = session(4, &tasks).await;
    let reports = 2 * ends.reports.max_capacity();
    let feeder = {
        let agent = ends.agent.clone();
        tasks.spawn(async move {
            for _ in 0..reports {
                let body = agent_message::Body::Facts(aot_proto::v1::FactsReport::default());
                let message = AgentMessage { body: Some(body) };
                agent.send(Ok(message)).await.expect("it reads at last");
            }
        })
    };
    while ends.reports.len() < ends.reports.max_capacity() {
        tokio::task::yield_now().await;
    }
    let body = master_message::Body::Reboot(aot_proto::v1::Reboot::default());
    let command = SessionCommand::Send(Box::new(body));
    ends.commands.send(command).await.expect("it takes it");
    let sent = tokio::time::timeout(SILENCE, ends.sent.recv()).await;
    let sent = sent.expect("at once").expect("a message").body;
    assert!(
        matches!(sent, Some(master_message::Body::Reboot(_))),
        "{sent:?}"
    );

    for _ in 0..reports {
        let report = tokio::time::timeout(SILENCE, ends.reports.recv()).await;
        assert!(matches!(
            *report.expect("in time").expect("a report"),
            SessionReport::Facts(_)
        ));
    }
    feeder.await.expect("it has said all");
    ends.stop.cancel();
    assert_eq!(ends.over.await, Ok(Closed::Stopping));
}
