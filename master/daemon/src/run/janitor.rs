//! Drops what is kept no longer: old jobs, too much output, spools that belong to nothing. Decides nothing itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_model::retention::{self, RetentionLimits};
use aot_model::world::World;
use aot_proto::ids::RunId;
use aot_store::{Error, Store, kept};
use tokio_util::sync::CancellationToken;

use super::outputs::Outputs;
use super::{Engines, now_ms};

/// Longest time between two sweeps.
const EVERY: Duration = Duration::from_secs(60);

/// How long an output stays that no record names: whoever has restored the wrong backup of the records has time to notice.
const UNNAMED: Duration = Duration::from_secs(3600);

/// What a janitor works on.
pub(crate) struct Janitor {
    /// Knows what is needed.
    pub engine: Engines,
    /// Records.
    pub store: Arc<dyn Store>,
    /// What runs printed.
    pub outputs: Arc<Outputs>,
    /// What is kept.
    pub limits: RetentionLimits,
    /// Outputs that no record names, and since when that is known.
    pub unnamed: UnnamedOutputs,
}

/// Runs by when they were first found to be unnamed.
#[derive(Debug, Default)]
pub(crate) struct UnnamedOutputs(Mutex<HashMap<RunId, Instant>>);

impl UnnamedOutputs {
    /// These are unnamed now; those that have been for long enough.
    fn found(&self, runs: HashSet<RunId>, now: Instant) -> Vec<RunId> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|run, _| runs.contains(run));
        for run in runs {
            since.entry(run).or_insert(now);
        }
        let old = since
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= UNNAMED);
        old.map(|(run, _)| *run).collect()
    }
}

impl Janitor {
    /// Sweeps now and then until the master stops.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let every = EVERY.min(self.limits.age).max(Duration::from_secs(1));
        let mut tick = tokio::time::interval(every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let janitor = Arc::new(self);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => return,
            }
            let swept = tokio::select! {
                swept = janitor.clone().sweep() => swept,
                () = stop.cancelled() => return, // what was dropped in part is dropped by the next
            };
            if let Err(error) = swept {
                tracing::warn!(error = %Chain(&error), "cannot prune old jobs and outputs; will try again");
            }
        }
    }

    /// Jobs and what is on record are seen to by one master; each sees to what lies on its own disk.
    async fn sweep(self: Arc<Self>) -> Result<(), Error> {
        let hold = self.engine.janitor_hold();
        let needed = match &hold {
            Some(_) => self.engine.read_everywhere(needed).await?,
            None => self.engine.read_each(needed),
        };
        let needed: HashSet<RunId> = needed.into_iter().flatten().collect();
        let janitor = self.clone();
        let sizes = tokio::task::spawn_blocking(move || janitor.outputs.sizes());
        let sizes = sizes.await.map_err(|_| Error::Stopped)?;
        let closed = self.store.closed_jobs().await?;
        let stored = self.store.outputs(None).await?;
        let known: HashSet<RunId> = stored.values().flatten().map(|(run, _)| *run).collect();
        let orphans: HashSet<RunId> = sizes
            .keys()
            .filter(|run| !known.contains(run) && !needed.contains(run))
            .filter(|run| !self.outputs.is_put(**run)) // the janitor of blobs sees to those
            .copied()
            .collect();
        let orphans = self.unnamed.found(orphans, Instant::now());
        let Some(hold) = hold else {
            self.outputs.remove(orphans).await;
            return Ok(());
        };
        let kept = kept(&closed, stored, &needed, &sizes);
        let sweep = retention::sweep(&kept, &self.limits, now_ms());
        if !sweep.is_empty() {
            let (jobs, emptied) = (sweep.jobs.len(), sweep.emptied.len());
            tracing::info!(jobs, emptied, "dropped old jobs and outputs");
        }
        let spools: Vec<RunId> = sweep.spools.iter().copied().chain(orphans).collect();
        if !sweep.is_empty() {
            self.store.sweep(&hold, sweep).await?;
        }
        self.outputs.remove(spools).await;
        Ok(())
    }
}

/// Runs that continue, and those that instances' stages name: `logs` shows them.
fn needed(world: &World) -> Vec<RunId> {
    let instances = world.clusters.values().flat_map(|c| c.instances.values());
    let stages = instances.flat_map(|instance| &instance.stages);
    let named = stages.filter_map(|stage| stage.run);
    world.runs.keys().copied().chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_record_names_stays_for_a_while_and_anew_once_it_was_named() {
        let outputs = UnnamedOutputs::default();
        let [one, other] = [1, 2].map(|number| RunId::from_parts(number, 0));
        let (begun, both) = (Instant::now(), HashSet::from([one, other]));
        let half = UNNAMED / 2;
        assert!(outputs.found(both.clone(), begun).is_empty());
        assert!(outputs.found(HashSet::from([one]), begun + half).is_empty());
        assert_eq!(outputs.found(both.clone(), begun + UNNAMED), [one]);
        let mut all = outputs.found(both, begun + UNNAMED * 2);
        all.sort();
        assert_eq!(all, [one, other]);
    }
}
