//! Pieces of a run's output on their way to disk: only of the instance's own runs, only where there is room, and in order.
//! What can't be stored stays with its agent and is requested again; a run that sends more than it may is ended from here.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_model::world::AgentInput;
use aot_proto::ids::RunId;
use aot_proto::v1::{self, master_message};
use aot_store::spool::Arrived;
use tokio::time::Instant;

use super::{Master, Reports};

/// How long output that could not be stored is left with its agent before it is requested again.
const AGAIN: Duration = Duration::from_secs(1);

/// A whole spool of up to this many bytes is stored without room: it needs little more than the record that its run has
/// ended, which the reserve is there for.
const SMALL: usize = 4 << 10;

/// A piece of a run's output that is stored, or could not be, and how many bytes it had.
pub(super) type StoredPiece = (RunId, usize, std::io::Result<Arrived>);

/// Runs whose output can't be stored for now; their agent has it.
#[derive(Debug, Default)]
pub(super) struct UnstoredRuns {
    runs: BTreeSet<RunId>,
    /// When it is requested again; set while there are any.
    again_at: Option<Instant>,
}

impl UnstoredRuns {
    /// Says whether that is new.
    fn add(&mut self, run: RunId) -> bool {
        if self.runs.is_empty() {
            self.again_at = Some(Instant::now() + AGAIN);
        }
        self.runs.insert(run)
    }

    /// Done when it is time to request what is held. Cancel safe; never done when nothing is.
    pub(super) async fn due(&self) {
        match self.again_at.filter(|_| !self.runs.is_empty()) {
            // Boxed: most sessions never hold anything, and need no memory for a timer.
            Some(at) => Box::pin(tokio::time::sleep_until(at)).await,
            None => std::future::pending().await,
        }
    }
}

impl<M: Master> Reports<M> {
    /// A piece of output on its way to disk. Only a run of this very instance may be written to.
    pub(super) async fn piece(
        &mut self,
        run: RunId,
        data: v1::SpoolData,
    ) -> Option<impl Future<Output = StoredPiece> + Send + use<M>> {
        let Some(own) = self.own_run(run) else {
            self.forget(run);
            return None;
        };
        if !self.admit(run, &data) {
            return None;
        }
        let (spools, bytes) = (self.master.spools(), data.data.len());
        let accepted = spools.append(run, data.offset, data.data, data.end, own.output_cap);
        match accepted.await {
            Ok(arriving) => Some(async move { (run, bytes, arriving.await) }),
            Err(error) => {
                Box::pin(self.not_stored(run, &error)).await;
                None
            }
        }
    }

    /// Whether a piece can be stored, as far as room goes, and follows what is here. What can't is requested again later.
    fn admit(&mut self, run: RunId, data: &v1::SpoolData) -> bool {
        let (bytes, is_whole) = (data.data.len(), data.offset == 0 && data.end);
        // Its agent has sent ahead of a piece that was held: that would leave a gap.
        let follows =
            !self.held.runs.contains(&run) || data.offset <= self.master.spools().have(run);
        let fits = bytes == 0 || (is_whole && bytes <= SMALL) || self.master.room().check().is_ok();
        match follows && fits {
            true => self.held.runs.remove(&run),
            false => self.held.add(run),
        };
        follows && fits
    }

    /// Requests what was not stored, from what is here on, once there is room.
    pub(super) fn request_again(&mut self) {
        self.held.again_at = Some(Instant::now() + AGAIN);
        if self.master.room().check().is_err() {
            return;
        }
        let (master, at, session) = (&self.master, &self.at, self.session);
        let is_open = |run: &RunId| master.own_run(at, session, *run).is_some();
        self.held.runs.retain(is_open);
        for run in &self.held.runs {
            self.send(master_message::Body::SpoolAck(v1::SpoolAck {
                run_id: run.to_string(),
                bytes: self.master.spools().have(*run),
                resend: true,
            }));
        }
    }

    /// A piece that could not be stored: of a run that sent more than it may, the end; else it comes again.
    pub(super) async fn not_stored(&mut self, run: RunId, error: &std::io::Error) {
        if matches!(
            error.kind(),
            ErrorKind::FileTooLarge | ErrorKind::InvalidData
        ) {
            return self.cut_off(run, error).await;
        }
        if self.held.add(run)
            && let Some(left_out) = self.log_limit.admit(std::time::Instant::now())
        {
            tracing::warn!(instance = %self.at, %run, error = %Chain(error), left_out, "cannot store a piece of output; it will be requested again");
        }
    }

    /// Ends a run whose agent does not respect its cap: it may drop the run, and nothing more of it is stored.
    async fn cut_off(&self, run: RunId, error: &std::io::Error) {
        if self.own_run(run).is_none() {
            return; // its end is on record: pieces of it were still on their way
        }
        tracing::warn!(instance = %self.at, %run, error = %Chain(error), "a run was ended from here");
        let ended = Box::new(v1::Ended {
            kind: v1::EndKind::Interrupted as i32,
            detail: Chain(error).to_string(),
            ..v1::Ended::default()
        });
        self.master
            .decide(self.input(AgentInput::RunEnded { run, ended }))
            .await;
        self.master.spools().close(run).await;
    }
}
