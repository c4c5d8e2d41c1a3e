//! The way to the loop for all that has something to decide on, or reads what was decided. Cheap to clone.

use std::sync::{Arc, RwLock};

use aot_model::key::InstanceKey;
use aot_model::world::{AgentInput, Answer, Input, World};
use aot_proto::ids::RunId;
use prost::bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::updates::{JobUpdate, Published};

/// Inputs that may wait for a decision. When full, whoever brings one waits.
pub(super) const INPUTS: usize = 1024;

/// Events that a slow subscriber may be behind. Past it, it is given a new snapshot.
const EVENTS: usize = 8192;

/// An input on its way to the loop.
pub(super) struct QueuedInput {
    pub(super) input: Input,
    /// The whole of an output that goes into the store with its end.
    pub(super) spool: Option<(RunId, Bytes)>,
    /// Of whoever follows the job that this makes.
    pub(super) updates: Option<mpsc::Sender<JobUpdate>>,
    pub(super) reply: Option<oneshot::Sender<Answer>>,
}

impl QueuedInput {
    /// One that nobody waits for.
    pub(super) fn of(input: Input) -> Self {
        Self {
            input,
            spool: None,
            updates: None,
            reply: None,
        }
    }
}

/// The way to whoever decides.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(super) inputs: mpsc::Sender<QueuedInput>,
    pub(super) world: Arc<RwLock<World>>,
    pub(super) events: broadcast::Sender<Published>,
    /// Counts the answers of providers that were asked for their machines.
    pub(super) shown: watch::Sender<u64>,
}

impl Engine {
    /// One whose loop does not run yet, and what its loop is to read.
    pub(super) fn new(world: World) -> (Self, mpsc::Receiver<QueuedInput>) {
        let (inputs, queue) = mpsc::channel(INPUTS);
        let (events, _) = broadcast::channel(EVENTS);
        let engine = Self {
            inputs,
            world: Arc::new(RwLock::new(world)),
            events,
            shown: watch::Sender::new(0),
        };
        (engine, queue)
    }

    /// Brings an input and waits until it is decided and on disk. `None` when the master is stopping.
    pub(crate) async fn ask(&self, input: Input) -> Option<Answer> {
        let (reply, decided) = oneshot::channel();
        self.send(QueuedInput {
            reply: Some(reply),
            ..QueuedInput::of(input)
        })
        .await;
        decided.await.ok()
    }

    /// Brings an input about a job; what happens to it from then on comes through `updates`, see
    /// [`updates_queue`](super::updates_queue). A follower that is too far behind is dropped.
    pub(crate) async fn follow(
        &self,
        input: Input,
        updates: mpsc::Sender<JobUpdate>,
    ) -> Option<Answer> {
        let (reply, decided) = oneshot::channel();
        self.send(QueuedInput {
            updates: Some(updates),
            reply: Some(reply),
            ..QueuedInput::of(input)
        })
        .await;
        decided.await.ok()
    }

    /// Brings an input that nobody waits for.
    pub(crate) async fn submit(&self, input: Input) {
        self.send(QueuedInput::of(input)).await;
    }

    /// Brings an agent's input, with the whole of a run's spool when it is the end of one and that goes to the store: it
    /// does if the end is accepted.
    pub(crate) async fn submit_with_spool(
        &self,
        at: InstanceKey,
        session: u64,
        report: AgentInput,
        spool: Option<(RunId, Bytes)>,
    ) {
        let input = Input::Agent {
            at,
            session,
            report,
        };
        self.send(QueuedInput {
            spool,
            ..QueuedInput::of(input)
        })
        .await;
    }

    async fn send(&self, message: QueuedInput) {
        let _ = self.inputs.send(message).await; // the loop is gone only when the master stops
    }

    /// Reads the world. The loop waits meanwhile: `read` must be short, and must not block.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&World) -> T) -> T {
        read(&self.world.read().expect("decisions do not panic"))
    }

    /// Changes whenever a provider has shown a cluster's machines, or could not.
    pub(crate) fn machines_shown(&self) -> watch::Receiver<u64> {
        self.shown.subscribe()
    }

    /// All events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Published> {
        self.events.subscribe()
    }
}
