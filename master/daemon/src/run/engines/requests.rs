//! What comes in, and how long whoever brings it waits: not at all, until it is decided and on disk, or only while records can be
//! written.

use std::sync::Arc;

use aot_model::key::InstanceKey;
use aot_model::world::{AgentInput, Answer, Input};
use aot_proto::ids::{ClusterName, RunId};
use aot_proto::v1;
use aot_store::Hold;
use prost::bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::Engines;
use crate::run::engine::{Claim, QueuedInput, Unanswered};
use crate::run::outputs::Outputs;
use crate::run::updates::JobUpdate;

impl Engines {
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
        let engine = self.engine_for(&message.input).await?;
        let hold = engine.map_or_else(|| self.0.parts.hold.clone(), |engine| engine.hold);
        if !hold.is_usable() {
            return Err(unusable(&hold)); // nor does it take up room in the queue
        }
        let claim = Claim::default();
        let message = QueuedInput {
            reply: Some(reply),
            claim: Some(claim.clone()),
            ..message
        };
        let answered = async {
            self.send(message).await;
            let gone = |_| match () {
                () if hold.is_lost() => Unanswered::Unsure,
                () if self.is_stopping() => Unanswered::Stopping,
                () => Unanswered::Elsewhere, // it was never decided on
            };
            decided.await.map_err(gone)
        };
        tokio::select! {
            biased;
            answer = answered => answer,
            () = hold.until_unusable() => Err(match claim.is_first() {
                true => unusable(&hold),
                false => Unanswered::Unsure,
            }),
        }
    }

    /// Brings what is to be on record, and waits until it is on disk. While records can't be written nobody is kept waiting:
    /// it gets there later, if there is room for it to wait.
    pub(crate) async fn record(&self, input: Input) {
        let hold = self.hold_for(&input);
        let recorded = async {
            let decided = self.sent(input).await;
            let _ = decided.await; // without an answer, the master stops
        };
        tokio::select! {
            biased;
            () = recorded => {}
            () = hold.until_unusable() => {}
        }
    }

    /// The same without waiting for the disk.
    pub(crate) async fn note(&self, input: Input) {
        // What agents must bring has the room then.
        let is_short = || {
            let engine = self.destination(&input);
            engine.is_some_and(|engine| engine.is_half_full())
        };
        if !self.hold_for(&input).is_usable() && is_short() {
            tracing::warn!(
                "too much waits to be put on record: what was only asked of agents is left out"
            );
            return;
        }
        self.submit(input).await;
    }

    /// Brings what has happened and waits until it, and all that was brought of its cluster before it, is decided and on disk,
    /// however long that takes; `false` when the master stops first.
    pub(crate) async fn decide(&self, input: Input) -> bool {
        self.sent(input).await.await.is_ok()
    }

    /// What is written with where an input is decided on.
    fn hold_for(&self, input: &Input) -> Arc<Hold> {
        let engine = self.destination(input);
        engine.map_or_else(|| self.0.parts.hold.clone(), |engine| engine.hold)
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

    /// Brings the end of a run of this cluster once its output is put; where nothing of the cluster is left, neither is the run.
    pub(crate) fn submit_once_put(
        &self,
        outputs: &Arc<Outputs>,
        cluster: &ClusterName,
        run: RunId,
        ended: Box<v1::Ended>,
    ) {
        if let Some(engine) = self.get(cluster) {
            engine.submit_once_put(outputs, cluster, run, ended);
        }
    }
}

/// Why nothing can be put on record now.
fn unusable(hold: &Hold) -> Unanswered {
    match hold.is_lost() {
        true => Unanswered::Elsewhere,
        false => Unanswered::Away,
    }
}
