//! A run whose output is here to its end: the end record, its spool's last frame, goes to the loop, and of a failed stage what
//! it printed last before that.

use std::sync::Arc;

use aot_model::stage::{LastLines, StageEnd, stage_end};
use aot_model::world::AgentInput;
use aot_proto::frame::decode_all;
use aot_proto::ids::RunId;
use aot_proto::v1;
use aot_store::spool::{end_record, last_lines};
use prost::bytes::Bytes;

use super::{Master, OwnRun, Reports};

impl<M: Master> Reports<M> {
    /// The spool is in a file, or `whole` when it came in one piece and goes into the store with the end. Where other masters read
    /// the store, one that is short goes there however it came; where outputs are put elsewhere, the end of a longer one waits
    /// until it is put: this does not.
    pub(super) async fn run_ended(&self, run: RunId, whole: Option<Bytes>) {
        let is_read_elsewhere = whole.is_none() && self.is_read_elsewhere(run);
        let whole = match is_read_elsewhere {
            true => self.short(run).await,
            false => whole,
        };
        let ended = self.end_record(run, whole.as_ref()).await;
        let ended = ended.unwrap_or_else(|| v1::Ended {
            kind: v1::EndKind::Interrupted as i32,
            detail: "its output has no end record".to_owned(),
            ..v1::Ended::default()
        });
        // Before the end: with it the stage's event goes out, and that has these lines.
        if self.is_failed_stage(run, &ended) {
            let lines = Box::new(self.printed(run, whole.clone()).await);
            self.submit(AgentInput::Printed { run, lines }).await;
        }
        let ended = Box::new(ended);
        if is_read_elsewhere && whole.is_none() && self.master.outputs_are_put() {
            return self.master.submit_once_put(&self.at, run, ended);
        }
        let (at, report) = (self.at.clone(), AgentInput::RunEnded { run, ended });
        let spool = whole.map(|bytes| (run, bytes));
        self.master
            .submit_end(at, self.session, report, spool)
            .await;
    }

    fn is_read_elsewhere(&self, run: RunId) -> bool {
        let is_read_again = |own: OwnRun| !own.is_archive;
        self.master.outputs_are_shared() && self.own_run(run).is_some_and(is_read_again)
    }

    async fn short(&self, run: RunId) -> Option<Bytes> {
        let spools = Arc::clone(self.master.spools());
        let read = tokio::task::spawn_blocking(move || spools.short(run));
        read.await.ok().flatten()
    }

    async fn end_record(&self, run: RunId, whole: Option<&Bytes>) -> Option<v1::Ended> {
        if let Some(bytes) = whole {
            let (frames, _) = decode_all(bytes).ok()?;
            return end_record(frames.last()?);
        }
        let spools = Arc::clone(self.master.spools());
        let read = tokio::task::spawn_blocking(move || spools.end_of(run));
        read.await.ok().flatten()
    }

    fn is_failed_stage(&self, run: RunId, ended: &v1::Ended) -> bool {
        matches!(stage_end(ended), StageEnd::Failed | StageEnd::Interrupted)
            && self.own_run(run).is_some_and(|own| own.is_stage)
    }

    /// The last lines of an output that is here to its end.
    async fn printed(&self, run: RunId, whole: Option<Bytes>) -> LastLines {
        let spools = Arc::clone(self.master.spools());
        let read = tokio::task::spawn_blocking(move || match whole {
            Some(bytes) => last_lines(&decode_all(&bytes).unwrap_or_default().0),
            None => last_lines(&spools.last_frames(run)),
        });
        read.await.unwrap_or_default()
    }
}
