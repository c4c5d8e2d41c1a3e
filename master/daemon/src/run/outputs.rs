//! What runs printed, once they have ended: files of this master, and, where masters have a place for what is long, objects
//! there. An output that does not go into the records is put there before its run's end is decided on; while that does not
//! work, the end waits, its agent keeps all of it, and nothing else waits.
//!
//! Called by sessions' reports through `server`, by the loop at its start, by the janitor and by whoever reads outputs.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_model::run::{LongOutput, Run};
use aot_proto::ids::{ClusterName, RunId};
use aot_store::blobs::{self, BlobKey, BlobKind, Blobs};
use aot_store::spool::{SpoolReader, Spools};
use prost::bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Outputs that are put at once. Others wait for their turn; what they hold is their file.
const AT_ONCE: usize = 8;

/// How long an output waits that could not be put; each failure in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// From then on operators are told of an end that waits, though nothing has failed yet.
const LATE: Duration = Duration::from_secs(10);

/// Outputs of all runs.
pub(crate) struct Outputs {
    spools: Arc<Spools>,
    blobs: Option<Arc<dyn Blobs>>,
    /// Other masters read the records.
    is_shared: bool,
    /// The id of this one of them; empty for a master alone.
    me: String,
    /// Runs whose ends wait until their outputs are put, and since when.
    waiting: Mutex<HashMap<RunId, Instant>>,
    /// What lies among the blobs, as far as is known.
    known: Mutex<HashMap<RunId, PutOutput>>,
    /// Why nothing can be put for now.
    trouble: Mutex<Option<String>>,
    turns: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// An output among the blobs.
#[derive(Debug, Clone)]
struct PutOutput {
    key: BlobKey,
    bytes: u64,
    /// When that became known.
    since: Instant,
    /// From then on it is removed if nothing names it.
    stays_until: Instant,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outputs {
    /// In `spools`, and in `blobs` where there is such a place.
    pub(crate) fn new(
        spools: Arc<Spools>,
        blobs: Option<Arc<dyn Blobs>>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            spools,
            is_shared: blobs.is_some(),
            me: String::new(),
            blobs,
            waiting: Mutex::default(),
            known: Mutex::default(),
            trouble: Mutex::default(),
            turns: Semaphore::new(AT_ONCE),
            tasks,
            stop,
        }
    }

    /// The same, of one of several masters by its id, or of one alone: what lies on its disk alone is not there for the others.
    pub(crate) fn of_master(mut self, id: Option<String>) -> Self {
        self.is_shared |= id.is_some();
        self.me = id.unwrap_or_default();
        self
    }

    /// Whether an output that is short goes into the records however it came.
    pub(crate) fn are_shared(&self) -> bool {
        self.is_shared
    }

    /// Whether an output must be put before the end of its run may be on record.
    pub(crate) fn are_put(&self) -> bool {
        self.blobs.is_some()
    }

    /// Where outputs are put.
    pub(crate) fn blobs(&self) -> Option<&Arc<dyn Blobs>> {
        self.blobs.as_ref()
    }

    /// What goes on record of an output that does not go into the records; `None` where nothing of it is here.
    pub(crate) fn on_record(&self, run: RunId) -> Option<LongOutput> {
        let extent = self.spools.extent(run)?;
        Some(LongOutput {
            bytes: extent.bytes,
            ended: extent.ended,
            at: match &self.blobs {
                Some(_) => String::new(),
                None => self.me.clone(),
            },
        })
    }

    /// Whether what is on this disk of a run that has ended is all of its output. Asks the disk.
    pub(crate) fn is_whole_here(&self, run: &Run) -> bool {
        match &run.output {
            Some(long) => self.spools.size(run.id) == long.bytes,
            None => self.spools.end_of(run.id).is_some(),
        }
    }

    /// An output that is whole and goes into the records instead. Waits for the disk alone.
    pub(crate) async fn short(&self, run: RunId) -> Option<Bytes> {
        let spools = self.spools.clone();
        let read = tokio::task::spawn_blocking(move || spools.short(run));
        read.await.ok().flatten()
    }

    /// Has the output of a run put, however long that takes, and then does what is to be done. Only once for each run: its end
    /// is told again in each session until it is on record.
    pub(crate) fn put_then(
        self: &Arc<Self>,
        cluster: &ClusterName,
        run: RunId,
        then: impl Future<Output = ()> + Send + 'static,
    ) {
        match locked(&self.waiting).entry(run) {
            Entry::Occupied(_) => return,
            Entry::Vacant(free) => free.insert(Instant::now()),
        };
        let (this, key) = (self.clone(), BlobKey::output(cluster, run));
        let work = async move {
            if this.put_at_last(&key, run).await {
                then.await;
            }
            locked(&this.waiting).remove(&run);
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            // What has not been put is found at the next start, or told again by its agent.
            let _ = stop.run_until_cancelled_owned(work).await;
        });
    }

    /// Tries until it has worked. `false` when the output is not here any more.
    async fn put_at_last(&self, key: &BlobKey, run: RunId) -> bool {
        let mut pause = FIRST_PAUSE;
        while self.spools.path(run).exists() {
            match self.put(key, run).await {
                Ok(()) => return true,
                Err(error) => self.failed(&error),
            }
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
        false
    }

    /// Puts the output of a run that has ended; tried once.
    ///
    /// # Errors
    /// When the place does not take it.
    pub(crate) async fn put(&self, key: &BlobKey, run: RunId) -> Result<(), blobs::Error> {
        let Some(blobs) = &self.blobs else {
            return Ok(());
        };
        let _turn = self.turns.acquire().await; // never closed
        blobs.put(key, &self.spools.path(run)).await?;
        self.worked();
        let since = Instant::now();
        let known = PutOutput {
            key: key.clone(),
            bytes: self.spools.size(run),
            since,
            stays_until: since + blobs::UNNAMED,
        };
        locked(&self.known).insert(run, known);
        Ok(())
    }

    /// Whether an output lies among the blobs; asks there.
    ///
    /// # Errors
    /// When the place can't be asked.
    pub(crate) async fn is_there(&self, key: &BlobKey) -> Result<bool, blobs::Error> {
        match &self.blobs {
            Some(blobs) => Ok(blobs.find(key).await?.is_some()),
            None => Ok(false),
        }
    }

    fn failed(&self, error: &blobs::Error) {
        let text = Chain(error).to_string();
        let before = locked(&self.trouble).replace(text);
        if before.is_none() {
            tracing::warn!(error = %Chain(error), "outputs cannot be put; the ends of their runs wait");
        }
    }

    fn worked(&self) {
        if locked(&self.trouble).take().is_some() {
            tracing::info!("outputs can be put again");
        }
    }

    /// For operators: that ends wait, and why.
    pub(crate) fn note(&self) -> Option<String> {
        let (count, oldest) = {
            let waiting = locked(&self.waiting);
            (waiting.len(), waiting.values().min().copied()?)
        };
        let why = match locked(&self.trouble).clone() {
            None if oldest.elapsed() < LATE => return None,
            None => format!("that is under way, {AT_ONCE} at a time"),
            Some(why) => why,
        };
        let runs = if count == 1 { "run waits" } else { "runs wait" };
        Some(format!(
            "the end of {count} {runs} until the output is put: {why}"
        ))
    }

    /// Reads the output of a run that has ended; `stored` is the whole of it when the records have it. What is on this disk may be
    /// a part, of when the cluster was this master's before: then what lies among the blobs goes first.
    pub(crate) fn read(&self, run: &Run, stored: Option<Vec<u8>>) -> SpoolReader {
        match (&self.blobs, stored) {
            (Some(blobs), None) => {
                let key = BlobKey::output(&run.at.cluster, run.id);
                let is_other = |long: &LongOutput| long.bytes != self.spools.size(run.id);
                let is_part = run.output.as_ref().is_some_and(is_other);
                self.spools.read_or(run.id, blobs.clone(), key, is_part)
            }
            (_, stored) => self.spools.read(run.id, stored, false),
        }
    }

    /// Bytes of an output that is not in the records; 0 when nothing is known of it. Asks the disk.
    pub(crate) fn size(&self, run: RunId) -> u64 {
        match self.spools.size(run) {
            0 => locked(&self.known).get(&run).map_or(0, |known| known.bytes),
            bytes => bytes,
        }
    }

    /// Bytes of every output that is not in the records, by run. Asks the disk.
    pub(crate) fn sizes(&self) -> HashMap<RunId, u64> {
        let known = locked(&self.known).clone().into_iter();
        let mut sizes: HashMap<RunId, u64> = known.map(|(run, it)| (run, it.bytes)).collect();
        sizes.extend(self.spools.sizes());
        sizes
    }

    /// Removes what is here of outputs that are there whole: parts of what another master has put. `open` runs are left alone.
    pub(crate) fn drop_parts(&self, open: &HashSet<RunId>) {
        let known = locked(&self.known).clone();
        for (run, bytes) in self.spools.sizes() {
            let is_part = known.get(&run).is_some_and(|whole| whole.bytes > bytes);
            if is_part && !open.contains(&run) {
                self.spools.remove(run);
            }
        }
    }

    /// Removes outputs. What can't be removed among the blobs stays known, and so is asked for again.
    pub(crate) async fn remove(self: &Arc<Self>, runs: Vec<RunId>) {
        let known = |run: &RunId| locked(&self.known).get(run).map(|known| known.key.clone());
        let keys: Vec<BlobKey> = runs.iter().filter_map(known).collect();
        let spools = self.spools.clone();
        let removal = tokio::task::spawn_blocking(move || {
            runs.into_iter().for_each(|run| spools.remove(run));
        });
        let _ = removal.await; // it says itself what it can't remove
        for key in keys {
            if let Err(error) = self.remove_blob(&key).await {
                tracing::warn!(error = %Chain(&error), "cannot remove outputs; will try again");
                return; // the next ones would wait as long for the same
            }
        }
    }

    async fn remove_blob(&self, key: &BlobKey) -> Result<(), blobs::Error> {
        if let Some(blobs) = &self.blobs {
            blobs.delete(key).await?;
        }
        if let Some(run) = key.run() {
            locked(&self.known).remove(&run);
        }
        Ok(())
    }

    /// Finds out what lies among the blobs.
    ///
    /// # Errors
    /// When the place can't be asked.
    pub(crate) async fn list_put(&self) -> Result<(), blobs::Error> {
        let Some(blobs) = &self.blobs else {
            return Ok(());
        };
        let since = Instant::now();
        let listed = blobs.list(BlobKind::Outputs).await?;
        let found = listed.into_iter().filter_map(|blob| {
            let known = PutOutput {
                bytes: blob.bytes,
                since,
                stays_until: since + blobs::UNNAMED.saturating_sub(blob.age),
                key: blob.key,
            };
            Some((known.key.run()?, known))
        });
        let mut known = locked(&self.known);
        // What was put meanwhile may not be in the list.
        known.retain(|_, known| known.since >= since);
        for (run, one) in found {
            known.entry(run).or_insert(one);
        }
        Ok(())
    }

    /// Whether an output that nothing names may be removed by now.
    pub(crate) fn may_go(&self, run: RunId) -> bool {
        let known = locked(&self.known);
        let known = known.get(&run);
        known.is_none_or(|known| known.stays_until <= Instant::now())
    }

    /// Whether an output lies among the blobs, as far as is known.
    pub(crate) fn is_put(&self, run: RunId) -> bool {
        locked(&self.known).contains_key(&run)
    }
}

#[cfg(test)]
mod tests;
