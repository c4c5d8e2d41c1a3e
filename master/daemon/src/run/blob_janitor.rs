//! Keeps what lies among the blobs in step with the records: puts what is named and lacks there, removes what nothing names.
//! So a place that was away, or was set only now, has all of it after a while. Decides nothing about jobs: that is `janitor`.
//!
//! It removes what no cluster names, wherever that is: so one of the masters that share the records does it. Each puts what lies on
//! its own disk.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_model::run::Run;
use aot_model::task::Task;
use aot_model::world::World;
use aot_proto::ids::{ClusterName, JobId, RunId};
use aot_store::Store;
use aot_store::blobs::{self, BlobKey, Blobs};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::Engines;
use super::agents::Agents;
use super::contents::Contents;
use super::outputs::Outputs;

/// How often it looks: each time all objects are listed.
const EVERY: Duration = Duration::from_secs(600);

/// What it works on.
pub(crate) struct BlobJanitor {
    /// Knows what is named.
    pub engine: Engines,
    /// Records.
    pub store: Arc<dyn Store>,
    /// What runs printed.
    pub outputs: Arc<Outputs>,
    /// What stages are run from.
    pub bundles: Arc<Contents>,
    /// What machines are given.
    pub agents: Arc<Contents>,
    /// Which of these are handed out now.
    pub handed_out: Arc<Agents>,
    /// Files on their way to instances.
    pub uploads: Arc<Contents>,
}

/// Why it could not do its work.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
    #[error(transparent)]
    Store(#[from] aot_store::Error),
}

impl BlobJanitor {
    /// Works now and then until the master stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            let Some(blobs) = self.outputs.blobs() else {
                return;
            };
            let swept = tokio::select! {
                swept = self.sweep(&**blobs) => swept,
                () = stop.cancelled() => return,
            };
            if let Err(error) = swept {
                tracing::warn!(error = %Chain(&error), "cannot tidy up where long things are put; will try again");
            }
        }
    }

    async fn sweep(&self, blobs: &dyn Blobs) -> Result<(), Error> {
        self.outputs.list_put().await?;
        self.compare_outputs().await?;
        if !self.may_remove() {
            return Ok(());
        }
        let may = || self.may_remove();
        let bundles = || self.named(named_bundles).boxed();
        self.bundles.tidy(bundles, may).await?;
        let agents = || self.agents_named().boxed();
        self.agents.tidy(agents, may).await?;
        let uploads = || self.named(named_uploads).boxed();
        self.uploads.tidy(uploads, may).await?;
        Ok(blobs.drop_unfinished().await?)
    }

    async fn agents_named(&self) -> Result<HashSet<String>, Error> {
        let mut named = self.named(named_agents).await?;
        named.extend(self.handed_out.current().values().cloned());
        Ok(named)
    }

    /// Whether nothing is removed that another master may have put.
    fn may_remove(&self) -> bool {
        let hold = self.engine.janitor_hold();
        hold.is_some_and(|hold| hold.is_good())
    }

    /// What the clusters name. One that begins meanwhile may be missing: what it names was put a moment before, and stays.
    async fn named<T: Eq + Hash>(
        &self,
        by: impl Fn(&World) -> HashSet<T>,
    ) -> Result<HashSet<T>, Error> {
        let named = self.engine.read_everywhere(by).await?;
        Ok(named.into_iter().flatten().collect())
    }

    /// Puts outputs of runs that have ended in another way than by their end record, or before there was a place for them, and
    /// removes those of runs that nobody knows.
    async fn compare_outputs(&self) -> Result<(), Error> {
        // First: what ends after this is put by whoever learns of its end.
        let open = |world: &World| -> HashSet<RunId> { world.runs.keys().copied().collect() };
        let open = self.named(open).await?;
        let (outputs, begun) = (self.outputs.clone(), open.clone());
        let sizes = tokio::task::spawn_blocking(move || {
            outputs.drop_parts(&begun);
            outputs.sizes()
        });
        let mut sizes = sizes.await.map_err(|_| aot_store::Error::Stopped)?;
        sizes.retain(|run, _| !open.contains(run));
        let mut lacking: HashMap<JobId, Vec<RunId>> = HashMap::new();
        for (job, runs) in self.store.outputs(None).await? {
            for (run, stored) in runs {
                let here = sizes.remove(&run).unwrap_or(0);
                if here > 0 && stored == 0 && !self.outputs.is_put(run) {
                    lacking.entry(job).or_default().push(run);
                }
            }
        }
        self.put(lacking).await?;
        let unknown = sizes.into_keys();
        let unknown = unknown.filter(|run| self.outputs.is_put(*run) && self.outputs.may_go(*run));
        let unknown: Vec<RunId> = unknown.collect();
        if self.may_remove() {
            self.outputs.remove(unknown).await;
        }
        Ok(())
    }

    async fn put(&self, lacking: HashMap<JobId, Vec<RunId>>) -> Result<(), Error> {
        for (job, runs) in lacking {
            let Some(cluster) = self.cluster_of(job).await? else {
                continue;
            };
            for run in self.to_put(job, &cluster, &runs).await? {
                // It may have begun after that was asked.
                if self
                    .engine
                    .read(&cluster, |world| world.runs.contains_key(&run))
                {
                    continue;
                }
                let key = BlobKey::output(&cluster, run);
                // Put meanwhile, by the master that had it then.
                if self.outputs.is_there(&key).await? {
                    continue;
                }
                self.outputs.put(&key, run).await?;
            }
        }
        Ok(())
    }

    /// Those of a job's runs whose output is here to its end. Without its length on record only the cluster's own master can
    /// tell: of a cluster that another has, what is here may be only a part.
    async fn to_put(
        &self,
        job: JobId,
        cluster: &ClusterName,
        runs: &[RunId],
    ) -> Result<Vec<RunId>, Error> {
        let is_decided_here = self.engine.is_decided_here(cluster);
        let known = self.store.runs_of(job).await?.into_iter();
        let known = known.filter(|run| runs.contains(&run.id) && run.verdict.is_some());
        let known: Vec<Run> = known
            .filter(|run| is_decided_here || run.output.is_some())
            .collect();
        let outputs = self.outputs.clone();
        let whole = tokio::task::spawn_blocking(move || {
            let whole = known.iter().filter(|run| outputs.is_whole_here(run));
            whole.map(|run| run.id).collect()
        });
        whole.await.map_err(|_| aot_store::Error::Stopped.into())
    }

    /// Whose job it is; `None` when what it printed is nobody's to read, or was dropped.
    async fn cluster_of(&self, job: JobId) -> Result<Option<ClusterName>, Error> {
        let job = self.store.job(job).await?;
        let job = job.filter(|job| !job.output_dropped);
        let job = job.filter(|job| !matches!(job.task.as_deref(), Some(Task::CopyOut(_))));
        Ok(job.map(|job| job.cluster))
    }
}

/// Bundles that stages are run from, or will be where instances wait for their turn.
fn named_bundles(world: &World) -> HashSet<String> {
    let instances = world.clusters.values().flat_map(|c| c.instances.values());
    let stages = instances.flat_map(|instance| &instance.stages);
    let launches = world.clusters.values().filter_map(|c| c.launch.as_ref());
    let rolling = launches.filter_map(|launch| launch.rolling.as_ref());
    let to_be = rolling.flat_map(|rolling| rolling.stages.values().flatten());
    let plans = stages.map(|stage| &stage.plan).chain(to_be);
    plans.map(|plan| plan.bundle_sha256.clone()).collect()
}

/// Agents that machines may still ask for, besides those that are handed out now.
pub(crate) fn named_agents(world: &World) -> HashSet<String> {
    let batches = world.clusters.values().flat_map(|c| c.batches.values());
    let asked = batches.flat_map(|batch| batch.boot.agent_sha256.values());
    asked.cloned().collect()
}

/// Archives that instances are still to fetch.
pub(crate) fn named_uploads(world: &World) -> HashSet<String> {
    // A run of a job that is over may come back from lost contact.
    let coming: HashSet<JobId> = world.runs.values().map(|run| run.job).collect();
    let open = world.jobs.values();
    open.filter(|job| job.ended_ms.is_none() || coming.contains(&job.id))
        .filter_map(|job| match job.task.as_deref() {
            Some(Task::CopyIn(copy)) => Some(copy.sha256.clone()),
            _ => None,
        })
        .collect()
}
