//! The way to the loop for all that has something to decide on, or reads what was decided. Cheap to clone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use aot_model::key::InstanceKey;
use aot_model::world::{AgentInput, Answer, Input, World};
use aot_proto::ids::{ClusterName, RunId};
use aot_proto::v1;
use aot_store::Hold;
use prost::bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::outputs::Outputs;
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
    /// Of a request that whoever made it may withdraw until it is decided on.
    pub(super) claim: Option<Claim>,
}

impl QueuedInput {
    /// One that nobody waits for.
    pub(super) fn of(input: Input) -> Self {
        Self {
            input,
            spool: None,
            updates: None,
            reply: None,
            claim: None,
        }
    }

    /// Whether it is to be decided on: it can't be withdrawn from now on.
    pub(super) fn is_taken(&self) -> bool {
        self.claim.as_ref().is_none_or(Claim::is_first)
    }
}

/// Shared by two of which one gets what it is on: whoever comes first.
#[derive(Debug, Clone, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    fn is_first(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The master stops.
    Stopping,
    /// Records can't be written now. Nothing was done, and nothing will be.
    Away,
    /// Records could not be written any more while it was: it may be on record, and then it is done.
    Unsure,
}

/// The way to whoever decides.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(super) inputs: mpsc::Sender<QueuedInput>,
    pub(super) world: Arc<RwLock<World>>,
    pub(super) events: broadcast::Sender<Published>,
    /// Counts the answers of providers that were asked for their machines.
    pub(super) shown: watch::Sender<u64>,
    /// What records are written with.
    pub(super) hold: Arc<Hold>,
}

impl Engine {
    /// One whose loop does not run yet, and what its loop is to read.
    pub(super) fn new(world: World, hold: Arc<Hold>) -> (Self, mpsc::Receiver<QueuedInput>) {
        let (inputs, queue) = mpsc::channel(INPUTS);
        let (events, _) = broadcast::channel(EVENTS);
        let engine = Self {
            inputs,
            world: Arc::new(RwLock::new(world)),
            events,
            shown: watch::Sender::new(0),
            hold,
        };
        (engine, queue)
    }

    /// Brings a request and waits until it is decided and on disk. While records can't be written it is withdrawn.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn ask(&self, input: Input) -> Result<Answer, Unanswered> {
        self.request(QueuedInput::of(input)).await
    }

    /// Brings a request about a job; what happens to it from then on comes through `updates`, see
    /// [`updates_queue`](super::updates_queue). A follower that is too far behind is dropped.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn follow(
        &self,
        input: Input,
        updates: mpsc::Sender<JobUpdate>,
    ) -> Result<Answer, Unanswered> {
        self.request(QueuedInput {
            updates: Some(updates),
            ..QueuedInput::of(input)
        })
        .await
    }

    async fn request(&self, message: QueuedInput) -> Result<Answer, Unanswered> {
        let (reply, decided) = oneshot::channel();
        if !self.hold.is_usable() {
            return Err(Unanswered::Away); // nor does it take up room in the queue
        }
        let claim = Claim::default();
        let message = QueuedInput {
            reply: Some(reply),
            claim: Some(claim.clone()),
            ..message
        };
        let answered = async {
            self.send(message).await;
            decided.await.map_err(|_| Unanswered::Stopping)
        };
        tokio::select! {
            biased;
            answer = answered => answer,
            () = self.hold.until_unusable() => Err(match claim.is_first() {
                true => Unanswered::Away,
                false => Unanswered::Unsure,
            }),
        }
    }

    /// Brings what is to be on record, and waits until it is on disk. While records can't be written nobody is kept waiting:
    /// it gets there later, if there is room for it to wait.
    pub(crate) async fn record(&self, input: Input) {
        let recorded = async {
            let decided = self.sent(input).await;
            let _ = decided.await; // without an answer, the master stops
        };
        tokio::select! {
            biased;
            () = recorded => {}
            () = self.hold.until_unusable() => {}
        }
    }

    /// The same without waiting for the disk.
    pub(crate) async fn note(&self, input: Input) {
        // What agents must bring has the room then.
        if !self.hold.is_usable() && self.inputs.capacity() < INPUTS / 2 {
            tracing::warn!(
                "too much waits to be put on record: what was only asked of agents is left out"
            );
            return;
        }
        self.submit(input).await;
    }

    /// Brings what has happened and waits until it, and all that was brought before it, is decided and on disk, however long
    /// that takes; `false` when the master stops first.
    pub(crate) async fn decide(&self, input: Input) -> bool {
        self.sent(input).await.await.is_ok()
    }

    async fn sent(&self, input: Input) -> oneshot::Receiver<Answer> {
        let (reply, decided) = oneshot::channel();
        self.send(QueuedInput {
            reply: Some(reply),
            ..QueuedInput::of(input)
        })
        .await;
        decided
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

    /// Brings the end of a run once its output is put. It does not depend on the session that told it: all of the output is
    /// here.
    pub(crate) fn submit_once_put(
        &self,
        outputs: &Arc<Outputs>,
        cluster: &ClusterName,
        run: RunId,
        ended: Box<v1::Ended>,
    ) {
        let (engine, end) = (self.clone(), Input::Recovered { run, ended });
        outputs.put_then(cluster, run, async move { engine.submit(end).await });
    }

    async fn send(&self, message: QueuedInput) {
        let _ = self.inputs.send(message).await; // the loop is gone only when the master stops
    }

    /// For how long nothing could be put on record.
    pub(crate) fn away_for(&self) -> Option<Duration> {
        self.hold.unusable_for()
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
