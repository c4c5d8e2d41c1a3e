//! Every run of this machine: starts shims, follows their spools, ends what was lost. Owned by the service, used by the
//! session; outlives sessions. Never holds a child's pipes itself.

pub(crate) mod cancellation;
pub(crate) mod command;
pub(crate) mod copy_progress;
pub(crate) mod environment;
mod given;
pub(crate) mod journal;
mod leftover;
mod mask;
mod output;
pub(crate) mod prepare;
mod progress;
mod reap;
mod recover;
mod run;
pub(crate) mod shim;
pub(crate) mod shim_pool;
mod signals;
pub(crate) mod spawn;
pub(crate) mod spool;
mod spool_watch;
mod stop_policy;
pub(crate) mod tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use aot_host::chain::Chain;
use aot_proto::ids::RunId;
use aot_proto::limits::MAX_RUNS;
use aot_proto::v1::start_run::What;
use aot_proto::v1::{CopyProgress, RunState, StartRun};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use journal::{Journal, Spec};
use prepare::{StartOutcome, Starter};
use run::Run;
use spool::{Chunk, SPOOL};
use spool_watch::SpoolFollower;

use crate::secrets::RunSecrets;

/// Outcomes of starts that are not handled yet. When full, their tasks wait.
const OUTCOMES: usize = 64;

/// All runs of this agent.
pub(crate) struct Runner {
    journal: Journal,
    runs: BTreeMap<RunId, Run>,
    follower: SpoolFollower,
    starter: Arc<Starter>,
    outcomes: mpsc::Receiver<StartOutcome>,
    report: mpsc::Sender<StartOutcome>,
    tracker: TaskTracker,
    /// Ended runs whose end comes this many bytes later in the master's copy than it does here; see `spool::shift`.
    shifts: BTreeMap<RunId, u64>,
    /// Runs whose first frames wait, until when.
    held: BTreeMap<RunId, Instant>,
}

impl Runner {
    /// Opens the journal and sorts out what an earlier agent left: runs whose shim lives are followed on, others end.
    ///
    /// # Errors
    /// When the state can't be read.
    pub(crate) fn open(starter: Starter) -> io::Result<Self> {
        let (journal, ids) = Journal::open(&starter.state_dir)?;
        let (report, outcomes) = mpsc::channel(OUTCOMES);
        let boot_id = starter.boot_id.clone();
        let mut runner = Self {
            journal,
            runs: BTreeMap::new(),
            follower: SpoolFollower::new()?,
            starter: Arc::new(starter),
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
                Ok(spec) if prepare::can_resume(&spec, &runner.journal.dir(id), &boot_id) => {
                    runner.start_in_background(spec, RunSecrets::default());
                }
                _ => runner.check_run(id),
            }
            runner.measure(id);
            let open = runner.runs.get(&id).filter(|run| !run.ended);
            if let Some(run) = open.filter(|run| cancellation::is_requested(&run.dir)) {
                // The agent before this one may have come no further than the file.
                cancellation::wake(&run.dir);
            }
        }
        runner.sweep_secrets();
        Ok(runner)
    }

    /// What Hello says of them; the oldest that ended are left out first.
    pub(crate) fn states(&self) -> Vec<RunState> {
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
    pub(crate) fn start(&mut self, start: &StartRun) -> Result<(), String> {
        let spec =
            Spec::from_wire(start, &self.starter.boot_id).map_err(|error| error.to_string())?;
        if self.journal.knows(spec.run_id) {
            return Ok(());
        }
        let secrets = RunSecrets::of(start)?;
        let stdin = match &start.what {
            Some(What::Exec(exec)) => exec.stdin.as_slice(),
            _ => &[],
        };
        // On disk before anything is started: a second request finds it, also after a crash of this agent.
        let dir = self
            .journal
            .begin(&spec, stdin)
            .map_err(|error| format!("cannot write the journal: {error}"))?;
        self.runs.insert(spec.run_id, Run::new(dir, true));
        self.start_in_background(spec, secrets);
        Ok(())
    }

    /// Removes the secrets of runs that have ended: their shim did, unless it was killed.
    fn sweep_secrets(&self) {
        let is_open = |id| self.runs.get(&id).is_some_and(|run| !run.ended);
        self.starter.secrets.sweep(is_open);
    }

    /// Prepares and starts a run of the journal in the background. Its secrets are not in the journal: whoever wants it run again
    /// after a crash sends them again.
    fn start_in_background(&mut self, spec: Spec, secrets: RunSecrets) {
        let Some(run) = self.runs.get_mut(&spec.run_id) else {
            return;
        };
        let (dir, cancel) = (run.dir.clone(), CancellationToken::new());
        run.starting = Some(cancel.clone());
        // The spool is made at once, so that it can be followed from its first byte.
        match spool::make(&dir) {
            Ok(spool) => run.spool = Some(spool),
            Err(error) => {
                tracing::warn!(run = %spec.run_id, error = %Chain(&error), "cannot make the spool")
            }
        }
        self.follower.add(spec.run_id, &dir.join(SPOOL));
        let (starter, report) = (self.starter.clone(), self.report.clone());
        self.tracker.spawn(async move {
            let outcome = starter.run(&spec, secrets, &dir, &cancel).await;
            // The receiver is gone only when the agent is.
            let _ = report.send(outcome).await;
        });
    }

    /// How far copies to this machine are, where that has changed.
    pub(crate) fn fetched(&self) -> Vec<CopyProgress> {
        self.starter.fetched.changes()
    }

    /// Asks for the end of a run: TERM, and KILL after `grace_ms` (0 = the default).
    pub(crate) fn cancel(&mut self, id: RunId, grace_ms: u64) {
        let Some(run) = self.runs.get(&id).filter(|run| !run.ended) else {
            return;
        };
        if let Err(error) = cancellation::request(&run.dir, grace_ms) {
            tracing::warn!(run = %id, error = %Chain(&error), "cannot record a cancellation");
        }
        if let Some(starting) = &run.starting {
            starting.cancel();
        }
        cancellation::wake(&run.dir);
    }

    /// Drops a run that the master has whole. One that has not ended stays.
    pub(crate) fn forget(&mut self, id: RunId) {
        // The mark comes a moment after the end record, and the master may be that quick.
        let over = |run: &Run| {
            run.ended || run.stat().marked || run.scan().is_ok_and(|scan| scan.is_ended())
        };
        if self.runs.get(&id).is_some_and(|run| !over(run)) {
            tracing::warn!(run = %id, "asked to forget a run that has not ended");
            return;
        }
        self.follower.remove(id);
        self.runs.remove(&id);
        self.shifts.remove(&id);
        self.held.remove(&id);
        if let Err(error) = self.journal.forget(id, Instant::now()) {
            tracing::warn!(run = %id, error = %Chain(&error), "cannot drop a run");
        }
    }

    /// Whole frames of a run's spool from `offset` on.
    ///
    /// # Errors
    /// As read(2).
    pub(crate) fn read(&mut self, id: RunId, offset: u64, most: usize) -> io::Result<Chunk> {
        let shift = self.shifts.get(&id).copied().unwrap_or(0);
        let offset = offset.saturating_sub(shift);
        let run = self.runs.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let file = match run.spool.take() {
            Some(file) => file,
            None => File::open(run.dir.join(SPOOL))?,
        };
        let chunk = spool::read_open(&file, offset, most)?;
        // What has been read to its end is not read again, mostly; without a name it can't be opened again.
        let is_nameless = || spool::stat_open(&file).is_ok_and(|stat| !stat.has_name);
        run.spool = (!chunk.end || is_nameless()).then_some(file);
        Ok(chunk)
    }

    /// The master holds `acked` bytes of this run. Where a power cut left less than that here, the end is put behind
    /// them; the result is how long the spool then is for the master.
    pub(crate) fn realign(&mut self, id: RunId, acked: u64) -> Option<u64> {
        let run = self.runs.get(&id).filter(|run| run.ended)?;
        let scan = run.scan().ok()?;
        let shift = spool::shift(&scan, acked);
        if shift == 0 {
            self.shifts.remove(&id);
            return None;
        }
        tracing::warn!(run = %id, acked, "output that the master has was lost here: its end is recorded after it");
        self.shifts.insert(id, shift);
        Some(scan.whole_bytes + shift)
    }

    /// How many runs have not ended.
    pub(crate) fn running(&self) -> usize {
        self.runs.values().filter(|run| !run.ended).count()
    }
}
