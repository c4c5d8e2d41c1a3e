use std::sync::Arc;
use std::time::Duration;

use aot_proto::limits::PROTOCOL;
use aot_proto::v1::{self, agent_message, master_message};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

use super::*;
use crate::session::fake::{Brought, FakeMaster, id, key};
use crate::session::registry::SessionCommand;

/// Longest wait for a session to end.
const LIMIT: Duration = Duration::from_secs(120);

/// Most that the task of a session may hold for as long as it lives: there are tens of thousands of them.
const SESSION_BYTES: usize = 3 << 10;

struct Rig {
    master: Arc<FakeMaster>,
    agent: mpsc::Sender<Result<AgentMessage, Broken>>,
    sent: mpsc::Receiver<Box<MasterMessage>>,
    hang_up: CancellationToken,
    tasks: TaskTracker,
}

impl Rig {
    /// A session whose agent has said hello and was welcomed.
    async fn new() -> Self {
        let master = FakeMaster::new();
        let (agent, inbound) = mpsc::channel(16);
        let (outbound, sent) = mpsc::channel(16);
        let hang_up = CancellationToken::new();
        let attached = Box::new(Attached {
            master: master.clone(),
            at: key(),
            id: id(),
            serial: "serial 0".to_owned(),
            address: [10, 0, 0, 1].into(),
            registered: master.registry().register(&key()),
            hang_up: hang_up.clone(),
        });
        let tasks = TaskTracker::new();
        let inbound = ReceiverStream::new(inbound);
        let session = attached.run(inbound, outbound, CancellationToken::new());
        let bytes = size_of_val(&session);
        assert!(
            bytes <= SESSION_BYTES,
            "a session's task holds {bytes} bytes: box what is rarely there"
        );
        tasks.spawn(session);
        let hello = agent_message::Body::Hello(v1::Hello {
            protocol: PROTOCOL,
            ..v1::Hello::default()
        });
        let hello = AgentMessage { body: Some(hello) };
        agent.send(Ok(hello)).await.expect("it reads");
        let mut rig = Self {
            master,
            agent,
            sent,
            hang_up,
            tasks,
        };
        let first = rig.sent.recv().await.expect("a message").body;
        assert!(matches!(first, Some(master_message::Body::Welcome(_))));
        rig
    }

    /// Why it closed, as the loop was told last.
    async fn closed(&self) -> String {
        self.tasks.close();
        tokio::time::timeout(LIMIT, self.tasks.wait())
            .await
            .expect("ends");
        match self.master.brought().pop() {
            Some(Brought::Submitted(Input::Agent {
                report: AgentInput::Closed { why },
                ..
            })) => why,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_loop_learns_why_a_session_ended_and_the_registry_forgets_it() {
    let rig = Rig::new().await;
    assert!(rig.master.registry().has(&key()));
    rig.agent.send(Err(Broken("cut"))).await.expect("it reads");
    assert_eq!(rig.closed().await, "the connection broke: cut");
    assert!(!rig.master.registry().has(&key()));
    assert!(!rig.hang_up.is_cancelled(), "others may share it");
}

#[tokio::test]
async fn the_connection_of_one_that_was_shut_out_is_hung_up() {
    let rig = Rig::new().await;
    rig.master.registry().shut_out(&key());
    assert_eq!(rig.closed().await, "its identity was revoked");
    assert!(rig.hang_up.is_cancelled());
}

#[tokio::test]
async fn one_that_answers_after_it_was_replaced_is_reported_as_still_there() {
    let mut rig = Rig::new().await;
    let newer = rig.master.registry().register(&key());
    let Some(master_message::Body::Heartbeat(probe)) = rig.sent.recv().await.expect("one").body
    else {
        panic!("not asked whether it is still there")
    };
    let beat = agent_message::Body::Heartbeat(v1::Heartbeat {
        seq: 1,
        echo: probe.seq,
    });
    let beat = AgentMessage { body: Some(beat) };
    rig.agent.send(Ok(beat)).await.expect("it reads");
    rig.tasks.close();
    tokio::time::timeout(LIMIT, rig.tasks.wait())
        .await
        .expect("ends");
    let brought = rig.master.brought();
    let [.., Brought::Submitted(still), Brought::Submitted(closed)] = &brought[..] else {
        panic!("{brought:?}")
    };
    assert!(matches!(still, Input::StillThere { .. }));
    assert!(matches!(
        closed,
        Input::Agent {
            report: AgentInput::Closed { .. },
            ..
        }
    ));
    let command = SessionCommand::Send(Box::new(master_message::Body::Reboot(
        v1::Reboot::default(),
    )));
    let registry = rig.master.registry();
    assert!(
        registry.send(&key(), newer.session, command),
        "the newer one stays"
    );
}
