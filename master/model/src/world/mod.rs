//! All that is known of a cluster, and every decision over it: `World::step` feeds it one input, `World::reconcile` does what
//! follows from it for its cluster and its job; both say what to do.
//!
//! Pure: no clock, no I/O. The loop in `run` writes what `drain_changes` gives to the store, then does the effects, in
//! that order; so whatever is done was on disk first, and a restart rebuilds this from the store and continues.

mod addresses;
mod adopt;
mod answer;
mod apply;
mod asks;
mod attest;
mod batches;
mod boot_timeout;
mod calls;
mod cancel;
mod changes;
mod cleanup;
mod effect;
mod ending;
mod enrolment;
mod facts;
mod from_agent;
mod gate;
mod gone;
mod identity;
mod input;
mod jobs;
mod launch;
mod level;
mod lifecycle;
mod moved;
mod observe;
mod orphans;
mod overdue;
mod plan_batch;
mod prerequisites;
mod provider_call;
mod refusal;
mod revoke;
mod rolling;
mod runs;
mod sessions;
mod stages;
mod starts;
mod step;
mod strays;
mod templates;
#[cfg(test)]
mod tests;
mod turns;
mod update;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aot_proto::ids::{ClusterName, InstanceName, JobId, MachineId, RunId};

pub use answer::{Answer, Granted, TargetState, WantedProof};
pub use apply::file_refusal;
pub use asks::{
    AppliedFile, ApplyAsk, AskedBy, DeleteOrphansAsk, EnrolAsk, ExecAsk, LaunchAsk, LifecycleAsk,
    RegionCertificate,
};
pub use changes::Changes;
pub use effect::Effect;
pub use identity::{USED_TWICE, remedy};
pub use input::{AgentInput, Input, RoutingKey, SessionHolder};
pub use launch::launch_in_words;
pub use lifecycle::{is_rebooted, is_up};
pub use provider_call::{Call, CallAnswer, CallFailure, ReceiptLine, Terminations};
pub use refusal::{OpError, Refused};

use super::cluster::Cluster;
use super::event::Event;
use super::facts::Generation;
use super::hash::JoinKey;
use super::instance::Instance;
use super::job::{Job, Tally};
use super::key::InstanceKey;
use super::random::Ids;
use super::run::Run;
use super::turn_queue::TurnQueue;
use super::unix_ms::UnixMs;
use super::view;

/// After this long without its session a target that was given work has lost contact, and the barrier stops waiting
/// for it.
pub(crate) const LOST_AFTER_MS: u64 = 30_000;

/// After this long without its session a machine that a stage has rebooted is not waited for any more by a launch whose
/// time is up. Bare metal takes its time.
pub(crate) const LONGEST_REBOOT_MS: u64 = 600_000;

/// How many times in a row a stage may be interrupted before it counts as failed.
pub(crate) const MAX_INTERRUPTIONS: u32 = 5;

/// All that is known of some clusters. The master has one for each cluster: nothing here leads from one cluster to another, so
/// what is decided comes to the same with one of them and with all.
pub struct World {
    /// By name.
    pub clusters: BTreeMap<ClusterName, Cluster>,
    /// Jobs with an open target, and those that ended since the start.
    pub jobs: BTreeMap<JobId, Job>,
    /// Runs that have not ended.
    pub runs: BTreeMap<RunId, Run>,
    /// Runs that have not ended, by where they are.
    runs_at: BTreeMap<InstanceKey, BTreeSet<RunId>>,
    /// How many targets of a job ended how; made when first asked for.
    tallies: BTreeMap<JobId, Tally>,
    /// Which instance has a machine, as last seen: a hint, checked by whoever uses it.
    machines: BTreeMap<MachineId, InstanceKey>,
    join_key: JoinKey,
    ids: Ids,
    due: step::Due,
    /// Changes at a pace, from a pass over all instances until something may have made that untrue.
    queues: BTreeMap<ClusterName, TurnQueue>,
    started_ms: UnixMs,
    now: UnixMs,
    effects: Vec<Effect>,
    dirty: changes::Dirty,
    /// Calls about a cluster that are repeated.
    calls: BTreeMap<ClusterName, calls::ClusterCalls>,
    /// Clusters whose cluster facts may have changed, and what in them.
    stale: BTreeMap<ClusterName, facts::Stale>,
    /// Cluster facts as they were handed out last.
    published: BTreeMap<ClusterName, Generation>,
    /// Deletions of orphans whose call is under way.
    deleting: BTreeSet<JobId>,
    /// Sessions that have ended, and when: those that do not come back soon go on record.
    left: VecDeque<(UnixMs, InstanceKey)>,
    /// No session's certificate is over before.
    expiry_ms: UnixMs,
    /// Runs that have a limit, and how much of them was here.
    checks: BTreeMap<RunId, overdue::Check>,
}

impl World {
    /// From what the store had. `seed` comes from the system's random numbers; `now` is when the master came up.
    pub fn new(
        clusters: Vec<Cluster>,
        jobs: Vec<Job>,
        runs: Vec<Run>,
        join_key: JoinKey,
        seed: [u8; 32],
        now: UnixMs,
    ) -> Self {
        let stale = clusters
            .iter()
            .map(|cluster| (cluster.spec.name.clone(), facts::Stale::all()))
            .collect();
        let mut runs_at: BTreeMap<InstanceKey, BTreeSet<RunId>> = BTreeMap::new();
        for run in &runs {
            runs_at.entry(run.at.clone()).or_default().insert(run.id);
        }
        let mut jobs: BTreeMap<JobId, Job> = jobs.into_iter().map(|job| (job.id, job)).collect();
        jobs::remove_given(&mut jobs, &runs);
        let mut world = Self {
            runs_at,
            tallies: BTreeMap::new(),
            machines: clusters.iter().flat_map(machines_of).collect(),
            due: step::Due::default(),
            queues: BTreeMap::new(),
            clusters: clusters
                .into_iter()
                .map(|c| (c.spec.name.clone(), c))
                .collect(),
            jobs,
            runs: runs.into_iter().map(|run| (run.id, run)).collect(),
            join_key,
            ids: Ids::new(&seed),
            started_ms: now,
            now,
            effects: Vec::new(),
            dirty: changes::Dirty::default(),
            calls: BTreeMap::new(),
            // What was stale when the last master ended is not known: all of it may be.
            stale,
            published: BTreeMap::new(),
            deleting: BTreeSet::new(),
            left: VecDeque::new(),
            expiry_ms: UnixMs::MAX,
            checks: BTreeMap::new(),
        };
        world.end_old_shells();
        world.end_unanswered_reboots();
        world
    }

    /// Whether nothing is left in it: no cluster, no job and no run.
    pub fn is_vacant(&self) -> bool {
        self.clusters.is_empty() && self.jobs.is_empty() && self.runs.is_empty()
    }

    /// Whether all of it is about this cluster.
    pub fn is_only(&self, cluster: &ClusterName) -> bool {
        self.clusters.keys().all(|name| name == cluster)
            && self.jobs.values().all(|job| &job.cluster == cluster)
            && self.runs_at.keys().all(|at| &at.cluster == cluster)
    }

    /// The instance.
    pub fn instance(&self, at: &InstanceKey) -> Option<&Instance> {
        self.clusters.get(&at.cluster)?.instances.get(&at.instance)
    }

    /// The instance that this machine is.
    fn by_machine(&self, cluster: &ClusterName, machine: &MachineId) -> Option<&Instance> {
        let has = |instance: &&Instance| instance.machine_id() == Some(machine);
        let at = self
            .machines
            .get(machine)
            .filter(|at| &at.cluster == cluster);
        // The index may be behind: what it says is checked.
        let seen = at.and_then(|at| self.instance(at)).filter(has);
        seen.or_else(|| self.clusters.get(cluster)?.by_machine(machine))
    }

    fn instance_mut(&mut self, at: &InstanceKey) -> Option<&mut Instance> {
        self.dirty.instances.insert(at.clone());
        self.unrecorded_mut(at)
    }

    /// For what is not on record, or is as it was: nothing is written.
    fn unrecorded_mut(&mut self, at: &InstanceKey) -> Option<&mut Instance> {
        self.clusters
            .get_mut(&at.cluster)?
            .instances
            .get_mut(&at.instance)
    }

    fn cluster_mut(&mut self, name: &ClusterName) -> Option<&mut Cluster> {
        self.dirty.clusters.insert(name.clone());
        self.clusters.get_mut(name)
    }

    fn keys(&self, cluster: &ClusterName) -> Vec<InstanceKey> {
        let Some(found) = self.clusters.get(cluster) else {
            return Vec::new();
        };
        let key = |instance: &InstanceName| InstanceKey {
            cluster: cluster.clone(),
            instance: instance.clone(),
        };
        found.instances.keys().map(key).collect()
    }

    fn do_later(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Tells of a change of an instance.
    fn emit(&mut self, at: &InstanceKey, kind: &'static str, message: impl Into<String>) {
        let event = self.about(at, kind, message);
        self.do_later(Effect::Event(Box::new(event)));
    }

    /// An event about an instance, with its view as it is now.
    fn about(&self, at: &InstanceKey, kind: &'static str, message: impl Into<String>) -> Event {
        let mut event = Event::cluster(&at.cluster, kind, message);
        event.instance = Some(at.instance.clone());
        event.view = self.event_view(at);
        event
    }

    fn emit_cluster(
        &mut self,
        cluster: &ClusterName,
        kind: &'static str,
        message: impl Into<String>,
    ) {
        let event = Event::cluster(cluster, kind, message);
        self.do_later(Effect::Event(Box::new(event)));
    }

    /// The instance as operators see it.
    pub fn view(&self, at: &InstanceKey) -> Option<aot_proto::v1::InstanceView> {
        let cluster = self.clusters.get(&at.cluster)?;
        let instance = cluster.instances.get(&at.instance)?;
        Some(view::instance(cluster, instance, self.now))
    }

    /// The same as events bring it.
    pub fn event_view(&self, at: &InstanceKey) -> Option<aot_proto::v1::InstanceView> {
        let cluster = self.clusters.get(&at.cluster)?;
        let instance = cluster.instances.get(&at.instance)?;
        Some(view::of_event(cluster, instance, self.now))
    }

    /// The id of a job that begins: the one that was asked for, or a new one.
    fn job_id(&mut self, request: Option<JobId>) -> JobId {
        request.unwrap_or_else(|| self.new_job())
    }

    fn new_job(&mut self) -> JobId {
        JobId::from_parts(self.now, self.ids.draw())
    }

    fn new_run(&mut self) -> RunId {
        RunId::from_parts(self.now, self.ids.draw())
    }

    /// Whether agents have had the time to come back since the master came up.
    fn agents_had_time(&self) -> bool {
        self.now >= self.started_ms + LOST_AFTER_MS
    }

    /// Whether an instance without a session may be about to come back: the master itself has just started.
    pub fn is_coming_back(&self, instance: &Instance) -> bool {
        instance.session.is_none()
            && instance.lost_ms.is_none()
            && instance.identity.is_some()
            && !self.agents_had_time()
    }

    /// Whether a session that is not there is known to be gone: not merely unseen since a restart of the master.
    fn is_lost(&self, instance: &Instance) -> bool {
        instance.session.is_none()
            && match instance.lost_ms {
                _ if instance.is_revoked() => true,
                Some(since) => self.now >= since + LOST_AFTER_MS,
                None => self.agents_had_time(),
            }
    }
}

fn machines_of(cluster: &Cluster) -> impl Iterator<Item = (MachineId, InstanceKey)> {
    cluster.instances.values().filter_map(|instance| {
        let at = InstanceKey {
            cluster: cluster.spec.name.clone(),
            instance: instance.name.clone(),
        };
        Some((instance.machine_id()?.clone(), at))
    })
}
