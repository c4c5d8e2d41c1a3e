//! The progress of runs: what their spools have grown by, which of them have ended, and the ends that no shim wrote. The second
//! half of the runner; the session waits here.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_proto::ids::RunId;
use aot_proto::v1::{EndKind, Ended};

use super::cancellation::NOT_STARTED;
use super::prepare::StartOutcome;
use super::spool::{self, SPOOL, SpoolStat, ended};
use super::{Runner, recover};

/// How long the first frames of a run wait for its end. A run that ends within that time arrives at the master in one
/// message, and costs it a row and no file. The price: the first line of a longer run comes that much later.
const HOLD: Duration = Duration::from_millis(25);

/// A spool of this many bytes waits no longer.
const HOLD_BYTES: u64 = 32 << 10;

/// Detail of the end of a run whose folder somebody removed, and whose shim is gone too.
const FOLDER_REMOVED: &str =
    "its folder was removed from this machine, and it is not known how it ended";

/// A run whose spool has grown, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grown {
    pub run: RunId,
    /// Length of its spool.
    pub bytes: u64,
}

impl Runner {
    /// Waits until some spool grew. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Vec<Grown> {
        loop {
            let due = self.held.values().min().copied();
            let touched = tokio::select! {
                outcome = self.outcomes.recv() => match outcome {
                    Some(outcome) => self.finish_start(outcome),
                    None => continue,
                },
                touched = self.follower.touched() => touched.into_iter().collect(),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => self.held.keys().copied().collect(),
            };
            let grown: Vec<Grown> = touched
                .into_iter()
                .filter_map(|id| self.measure(id))
                .collect();
            if !grown.is_empty() {
                return grown;
            }
        }
    }

    /// Checks every run that has not ended: for shims that died, and for what the follower may have missed. What has waited
    /// long goes: shims without a command, and what is left of forgotten runs.
    pub(crate) fn check(&mut self) -> Vec<Grown> {
        let now = Instant::now();
        self.starter.shims.dismiss(now);
        self.journal.sweep(now);
        let open: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, run)| !run.ended)
            .map(|(id, _)| *id)
            .collect();
        let grown = open
            .into_iter()
            .filter_map(|id| {
                if self.runs.get(&id).is_some_and(|run| run.starting.is_none()) {
                    self.check_run(id);
                }
                self.measure(id)
            })
            .collect();
        self.sweep_secrets();
        grown
    }

    /// What became of the start of a run: its shim is gone, or it never came to one.
    fn finish_start(&mut self, outcome: StartOutcome) -> Vec<RunId> {
        let failed = |detail| Ended {
            exit_code: 1,
            ..ended(EndKind::Exited, detail)
        };
        let (id, end) = match outcome {
            StartOutcome::ShimGone(id) => (id, None),
            StartOutcome::NotStarted(id, detail) => (id, Some(ended(EndKind::NotStarted, detail))),
            StartOutcome::Failed(id, detail) => (id, Some(failed(detail))),
            StartOutcome::Cancelled(id) => (id, Some(ended(EndKind::Cancelled, NOT_STARTED))),
            StartOutcome::Unchanged(id, digest) => (id, Some(unchanged(digest))),
        };
        let Some(run) = self.runs.get_mut(&id) else {
            return Vec::new();
        };
        run.starting = None;
        if let Some(end) = end {
            match end.unchanged {
                true => tracing::info!(run = %id, "what a stage is made of has not changed"),
                false => tracing::warn!(run = %id, detail = end.detail, "a run did not start"),
            }
            if let Err(error) = run.end(end) {
                tracing::error!(run = %id, error = %Chain(&error), "cannot write the end of a run");
            }
        }
        self.check_run(id);
        if self.runs.get(&id).is_some_and(|run| run.ended) {
            // Its shim did, unless it was killed or there was none.
            self.starter.secrets.remove(id);
        }
        vec![id]
    }

    /// Finds out whether a run is over, and ends it when its shim is dead.
    pub(super) fn check_run(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.stat().marked {
            run.ended = true;
            return;
        }
        let spec = self.journal.spec(id).ok();
        match recover::end_if_abandoned(&run.dir, spec.as_ref(), &self.starter.boot_id) {
            Ok(is_ended) => run.ended = is_ended,
            Err(error) if error.kind() == io::ErrorKind::NotFound && run.is_nameless() => {
                // Its lock went with the folder, so nothing says whether a shim has it. Had one, it would be our child, and its
                // run would not be checked (`starting`).
                tracing::warn!(run = %id, "the folder of a run was removed");
                match run.end(ended(EndKind::Interrupted, FOLDER_REMOVED)) {
                    Ok(()) => run.ended = true,
                    Err(error) => {
                        tracing::error!(run = %id, error = %Chain(&error), "cannot write the end of a run")
                    }
                }
            }
            Err(error) => {
                tracing::error!(run = %id, error = %Chain(&error), "cannot supervise a run")
            }
        }
        if !run.ended && run.spool.is_none() {
            // From here on it is followed whatever becomes of its name.
            run.spool = spool::make(&run.dir).ok();
            self.follower.add(id, &run.dir.join(SPOOL));
        }
    }

    /// Updates a spool's length; `None` when it has not changed, or is held back for now.
    pub(super) fn measure(&mut self, id: RunId) -> Option<Grown> {
        let run = self.runs.get_mut(&id)?;
        // Both from one stat(2): a mark that is newer than the length would hide the last bytes.
        let SpoolStat { bytes, marked, .. } = run.stat();
        run.ended |= marked;
        let grown = bytes != run.bytes;
        if grown && run.bytes == 0 && !run.ended && is_short(&run.dir, bytes) {
            let now = Instant::now();
            if now < *self.held.entry(id).or_insert(now + HOLD) {
                return None;
            }
        }
        self.held.remove(&id);
        run.bytes = bytes;
        if run.ended {
            self.follower.remove(id);
        }
        grown.then_some(Grown { run: id, bytes })
    }
}

/// The end of a stage that had not to be run.
fn unchanged(rendered_sha256: String) -> Ended {
    Ended {
        rendered_sha256,
        unchanged: true,
        ..ended(EndKind::Exited, "")
    }
}

/// Whether a spool of this many bytes has so little in it that its end may come with it.
fn is_short(dir: &Path, bytes: u64) -> bool {
    let most = usize::try_from(HOLD_BYTES).unwrap_or(usize::MAX);
    bytes < HOLD_BYTES && spool::read(&dir.join(SPOOL), 0, most).is_ok_and(|chunk| !chunk.end)
}
