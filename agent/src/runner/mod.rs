//! Every run of this machine: starts shims, follows their spools, ends what was lost. Owned by the service, used by the
//! session; outlives sessions. Never holds a child's pipes itself.

pub mod command;
pub mod fetched;
pub mod follow;
pub mod launch;
mod output;
mod reap;
pub mod recover;
pub mod shim;
pub mod shims;
mod signals;
pub(crate) mod spawn;
pub mod spool;
pub mod tree;
pub mod watch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_proto::ids::RunId;
use aot_proto::limits::MAX_RUNS;
use aot_proto::v1::start_run::What;
use aot_proto::v1::{CopyProgress, EndKind, Ended, RunState, StartRun};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::files::write_atomic;
use crate::journal::{Journal, Spec};
use follow::Follower;
use launch::{Launch, Outcome};
use spool::{Chunk, SPOOL, Writer, ended};

/// How long the first frames of a run wait for its end, so that a short one is told in one message: the master keeps
/// that without a file of its own.
const HOLD: Duration = Duration::from_millis(25);

/// A spool of so many bytes waits no longer.
const HOLD_BYTES: u64 = 32 << 10;

/// Launches that ended and were not looked at yet. When full, their tasks wait.
const OUTCOMES: usize = 64;

/// One run that the agent still has.
struct Run {
    dir: PathBuf,
    /// Journalled since the machine started: the mark on its spool can be believed.
    of_this_boot: bool,
    ended: bool,
    bytes: u64,
    /// While it is being prepared or its shim is our child: cancels the preparation.
    launching: Option<CancellationToken>,
    /// Its spool, once it was read from.
    spool: Option<File>,
}

impl Run {
    fn new(dir: PathBuf, of_this_boot: bool) -> Self {
        Self {
            dir,
            of_this_boot,
            ended: false,
            bytes: 0,
            launching: None,
            spool: None,
        }
    }

    /// Length of its spool, and whether that is marked as ended.
    fn measured(&self) -> (u64, bool) {
        let (bytes, marked) = spool::look(&self.dir.join(SPOOL)).unwrap_or((0, false));
        (bytes, marked && self.of_this_boot)
    }
}

/// News of one run: its spool has grown, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grown {
    /// The run.
    pub run: RunId,
    /// Length of its spool.
    pub bytes: u64,
}

/// All runs of this agent.
pub struct Runner {
    journal: Journal,
    runs: BTreeMap<RunId, Run>,
    follower: Follower,
    launch: Arc<Launch>,
    outcomes: mpsc::Receiver<Outcome>,
    report: mpsc::Sender<Outcome>,
    tracker: TaskTracker,
    /// Ended runs whose end belongs so much later than it lies here; see `spool::shift`.
    shifts: BTreeMap<RunId, u64>,
    /// Runs whose first frames wait, until when.
    held: BTreeMap<RunId, Instant>,
}

impl Runner {
    /// Opens the journal and sorts out what an earlier agent left: runs whose shim lives are followed on, others end.
    ///
    /// # Errors
    /// When the state can't be read.
    pub fn open(launch: Launch) -> io::Result<Self> {
        let (journal, ids) = Journal::open(&launch.state_dir)?;
        let (report, outcomes) = mpsc::channel(OUTCOMES);
        let boot_id = launch.boot_id.clone();
        let mut runner = Self {
            journal,
            runs: BTreeMap::new(),
            follower: Follower::new()?,
            launch: Arc::new(launch),
            outcomes,
            report,
            tracker: TaskTracker::new(),
            shifts: BTreeMap::new(),
            held: BTreeMap::new(),
        };
        for id in ids {
            let dir = runner.journal.dir(id);
            let spec = runner.journal.spec(id);
            let of_this_boot = spec.as_ref().is_ok_and(|spec| spec.boot_id == boot_id);
            runner.runs.insert(id, Run::new(dir, of_this_boot));
            match spec {
                Ok(spec) if launch::can_go_on(&spec, &runner.journal.dir(id), &boot_id) => {
                    runner.launch(spec);
                }
                _ => runner.look(id),
            }
            runner.measure(id);
            let open = runner.runs.get(&id).filter(|run| !run.ended);
            if let Some(run) = open.filter(|run| run.dir.join(shim::CANCEL).exists()) {
                // The agent before this one may have come no further than the file.
                shim::wake(&run.dir);
            }
        }
        Ok(runner)
    }

    /// What Hello says of them; the oldest that ended are left out first.
    pub fn states(&self) -> Vec<RunState> {
        let surplus = self.runs.len().saturating_sub(MAX_RUNS);
        let mut left_out = 0;
        let keep = self.runs.iter().filter(|(_, run)| {
            let out = run.ended && left_out < surplus;
            left_out += usize::from(out);
            !out
        });
        keep.take(MAX_RUNS)
            .map(|(id, run)| RunState {
                run_id: id.to_string(),
                spool_bytes: run.bytes,
                ended: run.ended,
            })
            .collect()
    }

    /// Journals a run and starts it. One that is known is accepted and left as it is.
    ///
    /// # Errors
    /// A line for a person, when it can't be journalled.
    pub fn start(&mut self, start: &StartRun) -> Result<(), String> {
        let spec =
            Spec::from_wire(start, &self.launch.boot_id).map_err(|error| error.to_string())?;
        if self.journal.knows(spec.run_id) {
            return Ok(());
        }
        let stdin = match &start.what {
            Some(What::Exec(exec)) => exec.stdin.as_slice(),
            _ => &[],
        };
        let dir = self
            .journal
            .begin(&spec, stdin)
            .map_err(|error| format!("cannot write the journal: {error}"))?;
        self.runs.insert(spec.run_id, Run::new(dir, true));
        self.launch(spec);
        Ok(())
    }

    /// Prepares and starts a run of the journal in the background.
    fn launch(&mut self, spec: Spec) {
        let Some(run) = self.runs.get_mut(&spec.run_id) else {
            return;
        };
        let (dir, cancel) = (run.dir.clone(), CancellationToken::new());
        run.launching = Some(cancel.clone());
        // The spool is made at once, so that it can be followed from its first byte.
        if let Err(error) = spool::make(&dir) {
            tracing::warn!(run = %spec.run_id, %error, "cannot make the spool");
        }
        self.follower.add(spec.run_id, &dir.join(SPOOL));
        let (launch, report) = (self.launch.clone(), self.report.clone());
        self.tracker.spawn(async move {
            let outcome = launch.run(&spec, &dir, &cancel).await;
            // The receiver is gone only when the agent is.
            let _ = report.send(outcome).await;
        });
    }

    /// How far copies to this machine are, where that has changed.
    pub fn fetched(&self) -> Vec<CopyProgress> {
        self.launch.fetched.news()
    }

    /// Asks for the end of a run: TERM, and KILL after `grace_ms` (0 = the default).
    pub fn cancel(&mut self, id: RunId, grace_ms: u64) {
        let Some(run) = self.runs.get(&id).filter(|run| !run.ended) else {
            return;
        };
        if let Err(error) = write_atomic(
            &run.dir.join(shim::CANCEL),
            grace_ms.to_string().as_bytes(),
            0o600,
        ) {
            tracing::warn!(run = %id, %error, "cannot write down a cancellation");
        }
        if let Some(launching) = &run.launching {
            launching.cancel();
        }
        shim::wake(&run.dir);
    }

    /// Drops a run that the master has whole. One that has not ended stays.
    pub fn forget(&mut self, id: RunId) {
        // The mark comes a moment after the end record, and the master may be that quick.
        let over = |run: &Run| {
            run.ended
                || run.measured().1
                || spool::scan(&run.dir.join(SPOOL)).is_ok_and(|scan| scan.is_ended())
        };
        if self.runs.get(&id).is_some_and(|run| !over(run)) {
            tracing::warn!(run = %id, "told to forget a run that has not ended");
            return;
        }
        self.follower.remove(id);
        self.runs.remove(&id);
        self.shifts.remove(&id);
        self.held.remove(&id);
        if let Err(error) = self.journal.forget(id, Instant::now()) {
            tracing::warn!(run = %id, %error, "cannot drop a run");
        }
    }

    /// Whole frames of a run's spool from `offset` on.
    ///
    /// # Errors
    /// As read(2).
    pub fn read(&mut self, id: RunId, offset: u64, most: usize) -> io::Result<Chunk> {
        let shift = self.shifts.get(&id).copied().unwrap_or(0);
        let offset = offset.saturating_sub(shift);
        let run = self.runs.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let file = match run.spool.take() {
            Some(file) => file,
            None => File::open(run.dir.join(SPOOL))?,
        };
        let chunk = spool::read_from(&file, offset, most)?;
        // What has been read to its end is not read again, mostly.
        run.spool = (!chunk.end).then_some(file);
        Ok(chunk)
    }

    /// The master holds `acked` bytes of this run. Where a power cut left less than that here, the end is put behind
    /// them; says how long the spool then is for the master.
    pub fn realign(&mut self, id: RunId, acked: u64) -> Option<u64> {
        let run = self.runs.get(&id).filter(|run| run.ended)?;
        let scan = spool::scan(&run.dir.join(SPOOL)).ok()?;
        let shift = spool::shift(&scan, acked);
        if shift == 0 {
            self.shifts.remove(&id);
            return None;
        }
        tracing::warn!(run = %id, acked, "output that the master has was lost here: its end is put behind it");
        self.shifts.insert(id, shift);
        Some(scan.whole_bytes + shift)
    }

    /// Waits until some spool grew. Cancel safe.
    pub async fn changed(&mut self) -> Vec<Grown> {
        loop {
            let due = self.held.values().min().copied();
            let touched = tokio::select! {
                outcome = self.outcomes.recv() => match outcome {
                    Some(outcome) => self.settle(outcome),
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

    /// Looks at every run that has not ended: for shims that died, and for what the follower may have missed. What has
    /// waited long goes: shims without a command, and what is left of forgotten runs.
    pub fn check(&mut self) -> Vec<Grown> {
        let now = Instant::now();
        self.launch.shims.dismiss(now);
        if let Err(error) = self.journal.sweep(now) {
            tracing::warn!(%error, "cannot remove what is left of old runs");
        }
        let open: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, run)| !run.ended)
            .map(|(id, _)| *id)
            .collect();
        open.into_iter()
            .filter_map(|id| {
                if self
                    .runs
                    .get(&id)
                    .is_some_and(|run| run.launching.is_none())
                {
                    self.look(id);
                }
                self.measure(id)
            })
            .collect()
    }

    /// How many runs have not ended.
    pub fn running(&self) -> usize {
        self.runs.values().filter(|run| !run.ended).count()
    }

    /// What became of a launch: its shim is gone, or it never came to one.
    fn settle(&mut self, outcome: Outcome) -> Vec<RunId> {
        let (id, end) = match outcome {
            Outcome::ShimGone(id) => (id, None),
            Outcome::NotStarted(id, detail) => (id, Some((EndKind::NotStarted, detail))),
            Outcome::Failed(id, detail) => (id, Some((EndKind::Exited, detail))),
            Outcome::Cancelled(id) => {
                (id, Some((EndKind::Cancelled, shim::NOT_STARTED.to_owned())))
            }
        };
        let Some(run) = self.runs.get_mut(&id) else {
            return Vec::new();
        };
        run.launching = None;
        if let Some((kind, detail)) = end {
            tracing::warn!(run = %id, detail, "a run did not start");
            let end = Ended {
                exit_code: i32::from(kind == EndKind::Exited),
                ..ended(kind, detail)
            };
            let wrote = Writer::open(&run.dir).and_then(|(mut writer, _)| writer.end(end));
            if let Err(error) = wrote {
                tracing::error!(run = %id, %error, "cannot write the end of a run");
            }
        }
        self.look(id);
        vec![id]
    }

    /// Finds out whether a run is over, and ends it when its shim is dead.
    fn look(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        if run.measured().1 {
            run.ended = true;
            return;
        }
        let spec = self.journal.spec(id).ok();
        match recover::settle(&run.dir, spec.as_ref(), &self.launch.boot_id) {
            Ok(is_ended) => run.ended = is_ended,
            Err(error) => tracing::error!(run = %id, %error, "cannot look after a run"),
        }
        if !run.ended {
            self.follower.add(id, &run.dir.join(SPOOL));
        }
    }

    /// Notes a spool's length; `None` when it is what it was.
    fn measure(&mut self, id: RunId) -> Option<Grown> {
        let run = self.runs.get_mut(&id)?;
        let (bytes, marked) = run.measured();
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

/// Whether a spool of so many bytes has so little in it that its end may come with it.
fn is_short(dir: &Path, bytes: u64) -> bool {
    let most = usize::try_from(HOLD_BYTES).unwrap_or(usize::MAX);
    bytes < HOLD_BYTES && spool::read(&dir.join(SPOOL), 0, most).is_ok_and(|chunk| !chunk.end)
}
