//! All that the master knows, and every decision over it: `World::take` takes one input, `World::settle` does what follows
//! from it for its cluster and its job; both say what to do.
//!
//! Pure: no clock, no I/O. The loop in `run` writes what `take_changes` gives to the store, then does the effects, in
//! that order; so whatever is done was on disk first, and a restart rebuilds this from the store and goes on.

mod addresses;
mod agents;
mod apply;
mod cleanup;
mod ending;
mod exec;
mod facts;
mod ground;
mod input;
mod jobs;
mod launch;
mod look;
mod machines;
mod revoke;
mod settle;
mod silence;
mod stages;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use aot_proto::ids::{ClusterName, InstanceName, JobId, MachineId, RunId};

pub use input::{
    Answer, ApplyAsk, Changes, Effect, EnrolAsk, ExecAsk, Failure, Granted, Input, LaunchAsk,
    OpError, Refused, TargetState,
};

use super::cluster::{Cluster, Instance, Key, UnixMs};
use super::event::Event;
use super::hash::JoinKey;
use super::job::{Job, Run, Tally};
use super::view;

/// After this long without its session a target that was given work has lost contact, and the barrier stops waiting
/// for it.
pub const LOST_AFTER_MS: u64 = 30_000;

/// How many times in a row a stage may be interrupted before it counts as failed.
pub const MAX_INTERRUPTIONS: u32 = 5;

/// Everything the master knows.
pub struct World {
    /// By name.
    pub clusters: BTreeMap<ClusterName, Cluster>,
    /// Jobs with an open target, and those that ended since the start.
    pub jobs: BTreeMap<JobId, Job>,
    /// Runs that have not ended.
    pub runs: BTreeMap<RunId, Run>,
    /// Runs that have not ended, by where they are.
    runs_at: BTreeMap<Key, BTreeSet<RunId>>,
    /// How many targets of a job ended how; made when first asked for.
    tallies: BTreeMap<JobId, Tally>,
    /// Which instance has a machine, as last seen: looked at again by whoever asks.
    machines: BTreeMap<MachineId, Key>,
    join_key: JoinKey,
    ids: Ids,
    due: settle::Due,
    started_ms: UnixMs,
    now: UnixMs,
    effects: Vec<Effect>,
    dirty: Dirty,
    polls: BTreeMap<ClusterName, Poll>,
    stale: BTreeSet<ClusterName>,
    /// Calls that prepare a launch.
    preparing: BTreeMap<ClusterName, Attempts>,
    /// Calls for lasting addresses.
    addressing: BTreeMap<ClusterName, Attempts>,
    /// Calls that start machines.
    starting: BTreeMap<ClusterName, Attempts>,
    /// Silent machines that the provider was asked about, since when.
    explaining: BTreeMap<Key, UnixMs>,
    /// Clusters whose leftovers are being deleted: one call at a time, which may wait for minutes.
    sweeping: BTreeSet<ClusterName>,
    /// Machines that a name was asked for.
    named: BTreeSet<MachineId>,
}

/// One kind of call for one cluster: at most one at a time, and not before its time after a failure. Not kept.
#[derive(Debug, Clone, Copy, Default)]
struct Attempts {
    in_flight: bool,
    failures: u32,
    next_ms: UnixMs,
}

impl Attempts {
    fn is_due(self, now: UnixMs) -> bool {
        !self.in_flight && now >= self.next_ms
    }

    fn begin(&mut self) {
        self.in_flight = true;
    }

    fn worked(&mut self) {
        *self = Self::default();
    }

    /// Not again before a while, longer with every failure.
    fn failed(&mut self, now: UnixMs) {
        self.in_flight = false;
        self.next_ms = now + backoff_ms(self.failures);
        self.failures += 1;
    }
}

/// Longest wait before a call is made again.
const MAX_BACKOFF_MS: u64 = 30_000;

fn backoff_ms(failures: u32) -> u64 {
    (500_u64 << failures.min(6)).min(MAX_BACKOFF_MS)
}

/// When a cluster's machines are asked for. Not kept.
#[derive(Debug, Clone, Copy, Default)]
struct Poll {
    next_ms: UnixMs,
    in_flight: bool,
    failures: u32,
}

#[derive(Debug, Default)]
struct Dirty {
    clusters: BTreeSet<ClusterName>,
    instances: BTreeSet<Key>,
    facts: BTreeSet<Key>,
    jobs: BTreeSet<JobId>,
    tasks: BTreeSet<JobId>,
    runs: BTreeSet<RunId>,
    ended_runs: Vec<Run>,
    removed: Vec<Cluster>,
}

/// Makes ids: time and a random stream (SplitMix64) seeded once.
#[derive(Debug, Clone)]
struct Ids(u64);

impl Ids {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn random(&mut self) -> u128 {
        (u128::from(self.next()) << 64 | u128::from(self.next())) >> 48
    }
}

impl World {
    /// From what the store had. `seed` is random; `now` is when the master came up.
    pub fn new(
        clusters: Vec<Cluster>,
        jobs: Vec<Job>,
        runs: Vec<Run>,
        join_key: JoinKey,
        seed: u64,
        now: UnixMs,
    ) -> Self {
        let stale = clusters
            .iter()
            .map(|cluster| cluster.spec.name.clone())
            .collect();
        let mut runs_at: BTreeMap<Key, BTreeSet<RunId>> = BTreeMap::new();
        for run in &runs {
            runs_at.entry(run.at.clone()).or_default().insert(run.id);
        }
        let mut world = Self {
            runs_at,
            tallies: BTreeMap::new(),
            machines: clusters.iter().flat_map(machines_of).collect(),
            due: settle::Due::default(),
            clusters: clusters
                .into_iter()
                .map(|c| (c.spec.name.clone(), c))
                .collect(),
            jobs: jobs.into_iter().map(|job| (job.id, job)).collect(),
            runs: runs.into_iter().map(|run| (run.id, run)).collect(),
            join_key,
            ids: Ids(seed),
            started_ms: now,
            now,
            effects: Vec::new(),
            dirty: Dirty::default(),
            polls: BTreeMap::new(),
            // What was stale when the last master ended is not known: all of it may be.
            stale,
            preparing: BTreeMap::new(),
            addressing: BTreeMap::new(),
            starting: BTreeMap::new(),
            explaining: BTreeMap::new(),
            sweeping: BTreeSet::new(),
            named: BTreeSet::new(),
        };
        world.end_old_shells();
        world
    }

    /// What changed since the last call, as the store keeps it.
    pub fn take_changes(&mut self) -> Changes {
        let dirty = std::mem::take(&mut self.dirty);
        let mut clusters = Vec::new();
        for name in &dirty.clusters {
            clusters.extend(self.clusters.get_mut(name).map(without_instances));
        }
        let instance = |key: &Key| self.instance(key).map(|found| (key.clone(), found.clone()));
        Changes {
            clusters,
            instances: dirty.instances.iter().filter_map(instance).collect(),
            facts: dirty
                .facts
                .iter()
                .filter_map(|key| Some((key.clone(), self.instance(key)?.facts.clone()?)))
                .collect(),
            jobs: dirty
                .jobs
                .iter()
                .filter_map(|id| self.jobs.get(id).cloned())
                .collect(),
            tasks: dirty
                .tasks
                .iter()
                .filter_map(|id| Some((*id, self.jobs.get(id)?.task.clone()?)))
                .collect(),
            runs: dirty
                .runs
                .iter()
                .filter_map(|id| self.runs.get(id).cloned())
                .chain(dirty.ended_runs)
                .collect(),
            removed: dirty.removed,
        }
    }

    /// The instance.
    pub fn instance(&self, at: &Key) -> Option<&Instance> {
        self.clusters.get(&at.cluster)?.instances.get(&at.instance)
    }

    /// The instance that this machine is.
    fn by_machine(&self, cluster: &ClusterName, machine: &MachineId) -> Option<&Instance> {
        let has = |instance: &&Instance| instance.machine_id() == Some(machine);
        let at = self
            .machines
            .get(machine)
            .filter(|at| &at.cluster == cluster);
        let seen = at.and_then(|at| self.instance(at)).filter(has);
        seen.or_else(|| self.clusters.get(cluster)?.by_machine(machine))
    }

    fn instance_mut(&mut self, at: &Key) -> Option<&mut Instance> {
        self.dirty.instances.insert(at.clone());
        self.clusters
            .get_mut(&at.cluster)?
            .instances
            .get_mut(&at.instance)
    }

    fn cluster_mut(&mut self, name: &ClusterName) -> Option<&mut Cluster> {
        self.dirty.clusters.insert(name.clone());
        self.clusters.get_mut(name)
    }

    fn keys(&self, cluster: &ClusterName) -> Vec<Key> {
        let Some(found) = self.clusters.get(cluster) else {
            return Vec::new();
        };
        let key = |instance: &InstanceName| Key {
            cluster: cluster.clone(),
            instance: instance.clone(),
        };
        found.instances.keys().map(key).collect()
    }

    fn do_later(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Tells of a change of an instance.
    fn tell(&mut self, at: &Key, kind: &'static str, message: impl Into<String>) {
        let event = self.about(at, kind, message);
        self.do_later(Effect::Event(Box::new(event)));
    }

    /// An event about an instance, with its view as it is now.
    fn about(&self, at: &Key, kind: &'static str, message: impl Into<String>) -> Event {
        let mut event = Event::cluster(&at.cluster, kind, message);
        event.instance = Some(at.instance.clone());
        event.view = self.view(at);
        event
    }

    fn tell_cluster(
        &mut self,
        cluster: &ClusterName,
        kind: &'static str,
        message: impl Into<String>,
    ) {
        let event = Event::cluster(cluster, kind, message);
        self.do_later(Effect::Event(Box::new(event)));
    }

    /// The instance as operators see it.
    pub fn view(&self, at: &Key) -> Option<aot_proto::v1::InstanceView> {
        let cluster = self.clusters.get(&at.cluster)?;
        let instance = cluster.instances.get(&at.instance)?;
        Some(view::instance(cluster, instance, self.now))
    }

    fn new_job(&mut self) -> JobId {
        JobId::from_parts(self.now, self.ids.random())
    }

    fn new_run(&mut self) -> RunId {
        RunId::from_parts(self.now, self.ids.random())
    }

    /// Whether agents have had the time to come back since the master came up.
    fn settled_in(&self) -> bool {
        self.now >= self.started_ms + LOST_AFTER_MS
    }

    /// Whether an instance without a session may be about to come back: the master itself has just started.
    pub fn is_coming_back(&self, instance: &Instance) -> bool {
        instance.session.is_none()
            && instance.lost_ms.is_none()
            && instance.identity.is_some()
            && !self.settled_in()
    }

    /// Whether a session that is not there is known to be gone: not merely unseen since a restart of the master.
    fn is_lost(&self, instance: &Instance) -> bool {
        instance.session.is_none()
            && match instance.lost_ms {
                _ if instance.is_revoked() => true,
                Some(since) => self.now >= since + LOST_AFTER_MS,
                None => self.settled_in(),
            }
    }
}

fn machines_of(cluster: &Cluster) -> impl Iterator<Item = (MachineId, Key)> {
    cluster.instances.values().filter_map(|instance| {
        let at = Key {
            cluster: cluster.spec.name.clone(),
            instance: instance.name.clone(),
        };
        Some((instance.machine_id()?.clone(), at))
    })
}

/// A copy of its record: its instances have records of their own, and may be thousands.
fn without_instances(cluster: &mut Cluster) -> Cluster {
    let instances = std::mem::take(&mut cluster.instances);
    let copy = cluster.clone();
    cluster.instances = instances;
    copy
}
