//! What a master needs of whatever keeps its records, and what it is given when that is opened. `sqlite` meets it, and so does
//! any other engine; `contract` has what that means.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use aot_model::cluster::Cluster;
use aot_model::job::Job;
use aot_model::key::InstanceKey;
use aot_model::retention::Sweep;
use aot_model::run::Run;
use aot_model::world::Changes;
use aot_proto::ids::{JobId, RunId};
use prost::bytes::Bytes;

use crate::fleet::Fleet;
use crate::store_clock::StoreClock;
use crate::{Error, Hold};

/// What a call of a store comes to, once it is done.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// All that a store had when it was opened.
#[derive(Debug, Default)]
pub struct Loaded {
    /// With their instances and facts.
    pub clusters: Vec<Cluster>,
    /// Jobs with an open target.
    pub jobs: Vec<Job>,
    /// Runs that have not ended.
    pub runs: Vec<Run>,
}

/// A store that is this master's, until it loses the hold on it.
pub struct OpenStore {
    /// Reads and writes.
    pub store: Arc<dyn Store>,
    /// What each write is made with.
    pub hold: Arc<Hold>,
    /// What the last master knew.
    pub loaded: Loaded,
    /// It was another master's that fell silent and may live: calls to providers that it had begun may still be made.
    pub is_taken_over: bool,
    /// Where several masters share the store: clusters are taken one by one. `hold` is then good while this master's word
    /// counts, nothing is written with it, and nothing was loaded.
    pub fleet: Option<Arc<dyn Fleet>>,
}

/// What keeps a master's records, before it is opened.
pub trait Backend: Send + Sync {
    /// Opens or makes the store of the master whose state lies in `state_dir`, brings it up to date, takes the hold on it, and
    /// reads all that is needed to continue.
    ///
    /// # Errors
    /// When it can't be used, a newer version wrote it, or another master that lives has the hold.
    fn open<'a>(&'a self, state_dir: &'a Path) -> Pending<'a, Result<OpenStore, Error>>;

    /// Where the masters of a fleet keep what they share; `None` where one master has the store for itself.
    fn shared_secrets(&self) -> Option<&dyn SharedSecrets> {
        None
    }
}

/// What all masters of a store share besides its records. The store sees only what is sealed.
pub trait SharedSecrets: Send + Sync {
    /// What is there.
    ///
    /// # Errors
    /// When the store can't be read.
    fn read(&self) -> Pending<'_, Result<Option<Vec<u8>>, Error>>;

    /// Keeps this unless something is there; what is there then.
    ///
    /// # Errors
    /// When the store can't be written.
    fn keep(&self, sealed: Vec<u8>) -> Pending<'_, Result<Vec<u8>, Error>>;

    /// Puts this in the place of what was there; false when something else is there.
    ///
    /// # Errors
    /// When the store can't be written.
    fn replace(&self, was: Vec<u8>, sealed: Vec<u8>) -> Pending<'_, Result<bool, Error>>;
}

/// Bytes of outputs that lie in the store, by their jobs and runs; 0 for a run whose output does not.
pub type StoredOutputs = HashMap<JobId, Vec<(RunId, u64)>>;

/// A job of which nothing is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClosedJob {
    /// Its id.
    pub id: JobId,
    /// When it ended, milliseconds since 1970.
    pub ended_ms: u64,
}

/// Records. What was acknowledged survives the end of the master and of whatever keeps them.
pub trait Store: Send + Sync {
    /// Writes all of it or nothing; done once it would survive. Waits for as long as it can't be known whether it was written.
    ///
    /// # Errors
    /// When it is refused, or the hold is lost. The master can't continue with either.
    fn commit<'a>(
        &'a self,
        hold: &'a Hold,
        changes: Changes,
        spools: Vec<(RunId, Bytes)>,
    ) -> Pending<'a, Result<(), Error>>;

    /// Drops jobs and outputs, as `commit` writes.
    ///
    /// # Errors
    /// As `commit`.
    fn sweep<'a>(&'a self, hold: &'a Hold, sweep: Sweep) -> Pending<'a, Result<(), Error>>;

    /// The newest jobs first, at most `limit`, with their targets and without their tasks; all clusters' when `cluster` is `None`.
    ///
    /// # Errors
    /// When the store can't be read.
    fn jobs(&self, cluster: Option<String>, limit: u32) -> Pending<'_, Result<Vec<Job>, Error>>;

    /// A job with its targets and task, as of one moment.
    ///
    /// # Errors
    /// When the store can't be read.
    fn job(&self, id: JobId) -> Pending<'_, Result<Option<Job>, Error>>;

    /// The runs of a job, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    fn runs_of(&self, job: JobId) -> Pending<'_, Result<Vec<Run>, Error>>;

    /// Every stage run of an instance, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    fn stage_runs(&self, at: InstanceKey) -> Pending<'_, Result<Vec<Run>, Error>>;

    /// The whole spool of a run that was kept inside the store; `None` when it is a file, or not there.
    ///
    /// # Errors
    /// When the store can't be read.
    fn small_spool(&self, run: RunId) -> Pending<'_, Result<Option<Vec<u8>>, Error>>;

    /// The runs of these jobs with what they take in the store; of all jobs when `jobs` is `None`. A job without runs is left out.
    ///
    /// # Errors
    /// When the store can't be read.
    fn outputs(&self, jobs: Option<Vec<JobId>>) -> Pending<'_, Result<StoredOutputs, Error>>;

    /// Jobs without an open target or run, oldest first.
    ///
    /// # Errors
    /// When the store can't be read.
    fn closed_jobs(&self) -> Pending<'_, Result<Vec<ClosedJob>, Error>>;

    /// How this host's clock was found to go beside that of the store; `None` where that has none of its own, or was not asked yet.
    fn clock(&self) -> Option<StoreClock> {
        None
    }

    /// Ends once all that was given to it is written, and gives the hold back. What is given later is refused.
    fn close<'a>(&'a self, hold: &'a Hold) -> Pending<'a, ()>;
}
