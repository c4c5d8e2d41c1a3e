//! The way to the loop of one cluster, for `engines`, which leads inputs here, and for the loop's own tasks. Cheap to clone.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use aot_model::world::{Answer, Input, World};
use aot_proto::ids::{ClusterName, RunId};
use aot_proto::v1;
use aot_store::Hold;
use prost::bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::event_feed::EventFeed;
use super::outputs::Outputs;
use super::updates::JobUpdate;

/// Inputs that may wait for a decision. When full, whoever brings one waits.
pub(super) const INPUTS: usize = 1024;

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
    pub(super) fn is_first(&self) -> bool {
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
    /// Another master has the cluster. Nothing was done here.
    Elsewhere,
}

/// The way to the loop of one cluster.
#[derive(Clone)]
pub(crate) struct Engine {
    inputs: mpsc::Sender<QueuedInput>,
    pub(super) world: Arc<RwLock<World>>,
    pub(super) events: EventFeed,
    /// Counts the answers of providers that were asked for their machines.
    pub(super) shown: watch::Sender<u64>,
    /// What is written with: the cluster's own where it may be another master's, else that of all records.
    pub(super) hold: Arc<Hold>,
    /// Ends its loop, and what is done for it.
    pub(super) stop: CancellationToken,
    /// How many instances its world had when that was read last.
    instances: Arc<AtomicUsize>,
}

impl Engine {
    /// One whose loop does not run yet, and what its loop is to read. Its events go where those of all clusters do.
    pub(super) fn new(
        world: World,
        hold: Arc<Hold>,
        events: EventFeed,
        stop: CancellationToken,
    ) -> (Self, mpsc::Receiver<QueuedInput>) {
        let (inputs, queue) = mpsc::channel(INPUTS);
        let engine = Self {
            inputs,
            instances: Arc::new(world.instance_count().into()),
            world: Arc::new(RwLock::new(world)),
            events,
            shown: watch::Sender::new(0),
            hold,
            stop,
        };
        (engine, queue)
    }

    /// Whether these are two ways to the same loop.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.world, &other.world)
    }

    /// Brings an input that comes of what its own loop has done. Once that loop has ended nobody needs it any more.
    pub(super) async fn submit(&self, input: Input) {
        let _ = self.send(QueuedInput::of(input)).await;
    }

    /// Brings an input; gives it back when the loop has ended.
    pub(super) async fn send(&self, message: QueuedInput) -> Option<QueuedInput> {
        self.inputs.send(message).await.err().map(|error| error.0)
    }

    /// Brings the end of a run once its output is put. It does not depend on the session that told it: all of the output is
    /// here. The loop is there until then: the run is open.
    pub(super) fn submit_once_put(
        &self,
        outputs: &Arc<Outputs>,
        cluster: &ClusterName,
        run: RunId,
        ended: Box<v1::Ended>,
    ) {
        let (engine, end) = (self.clone(), Input::Recovered { run, ended });
        outputs.put_then(cluster, run, async move { engine.submit(end).await });
    }

    /// Whether half of what may wait for a decision does.
    pub(super) fn is_half_full(&self) -> bool {
        self.inputs.capacity() < INPUTS / 2
    }

    /// Reads the world. The loop waits meanwhile: `read` must be short, and must not block.
    pub(super) fn read<T>(&self, read: impl FnOnce(&World) -> T) -> T {
        read(&self.world.read().expect("decisions do not panic"))
    }

    /// Reads the world unless that would wait for a decision.
    pub(super) fn try_read<T>(&self, read: impl FnOnce(&World) -> T) -> Option<T> {
        self.world.try_read().ok().map(|world| read(&world))
    }

    /// How many instances there are, or were a moment ago: waits for no decision.
    pub(super) fn instance_count(&self) -> usize {
        if let Some(count) = self.try_read(World::instance_count) {
            self.instances.store(count, Ordering::Relaxed);
        }
        self.instances.load(Ordering::Relaxed)
    }
}
