//! What decisions changed, for the store: marked while deciding, handed out as whole records.

use std::collections::BTreeSet;
use std::sync::Arc;

use aot_proto::ids::{ClusterName, InstanceName, JobId, RunId};

use super::World;
use crate::cluster::Cluster;
use crate::instance::{Instance, NodeFacts};
use crate::job::{Job, TargetRecord};
use crate::key::InstanceKey;
use crate::run::Run;
use crate::task::Task;

/// What a step changed, for the store.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "a field whose type says it all needs no doc")]
pub struct Changes {
    /// Without their instances.
    pub clusters: Vec<Cluster>,
    /// Without facts.
    pub instances: Vec<(InstanceKey, Instance)>,
    pub facts: Vec<(InstanceKey, Arc<NodeFacts>)>,
    /// Written instances that have no facts: those of a machine that was replaced or shut out must not come back.
    pub without_facts: Vec<InstanceKey>,
    /// Without their targets and tasks.
    pub jobs: Vec<Job>,
    /// All of a new job, and those that have ended.
    pub targets: Vec<(JobId, InstanceName, TargetRecord)>,
    /// What new jobs do.
    pub tasks: Vec<(JobId, Arc<Task>)>,
    pub runs: Vec<Run>,
    /// Clusters that are cleaned up, to be removed before all else is written: another one of that name may be in the rest.
    pub removed: Vec<Cluster>,
}

impl Changes {
    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
            && self.instances.is_empty()
            && self.facts.is_empty()
            && self.jobs.is_empty()
            && self.targets.is_empty()
            && self.runs.is_empty()
            && self.removed.is_empty()
    }
}

/// Records that changed since the store was last given them.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub clusters: BTreeSet<ClusterName>,
    pub instances: BTreeSet<InstanceKey>,
    pub facts: BTreeSet<InstanceKey>,
    pub jobs: BTreeSet<JobId>,
    /// All targets of these are to be written.
    pub new_jobs: BTreeSet<JobId>,
    pub targets: BTreeSet<(JobId, InstanceName)>,
    pub tasks: BTreeSet<JobId>,
    pub runs: BTreeSet<RunId>,
    pub ended_runs: Vec<Run>,
    pub removed: Vec<Cluster>,
}

impl World {
    /// What changed since the last call, as whole records.
    pub fn drain_changes(&mut self) -> Changes {
        let dirty = std::mem::take(&mut self.dirty);
        let mut clusters = Vec::new();
        for name in &dirty.clusters {
            clusters.extend(self.clusters.get_mut(name).map(without_instances));
        }
        let mut jobs = Vec::new();
        for id in &dirty.jobs {
            jobs.extend(self.jobs.get_mut(id).map(without_targets));
        }
        let instance =
            |key: &InstanceKey| self.instance(key).map(|found| (key.clone(), found.clone()));
        let bare = |key: &&InstanceKey| {
            self.instance(key)
                .is_some_and(|found| found.facts.is_none())
        };
        Changes {
            without_facts: dirty.instances.iter().filter(bare).cloned().collect(),
            clusters,
            instances: dirty.instances.iter().filter_map(instance).collect(),
            facts: dirty
                .facts
                .iter()
                .filter_map(|key| Some((key.clone(), self.instance(key)?.facts.clone()?)))
                .collect(),
            jobs,
            targets: self.changed_targets(&dirty),
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

    fn changed_targets<'a>(&'a self, dirty: &Dirty) -> Vec<(JobId, InstanceName, TargetRecord)> {
        let new = dirty.new_jobs.iter().filter_map(|id| self.jobs.get(id));
        let all = |job: &'a Job| {
            let records = job.target_records();
            records.map(|(name, record)| (job.id, name.clone(), record))
        };
        let ended = dirty.targets.iter();
        let ended = ended.filter(|(id, _)| !dirty.new_jobs.contains(id));
        let one = |(id, name): &(JobId, InstanceName)| {
            let end = self.jobs.get(id)?.targets.get(name)?.clone();
            Some((*id, name.clone(), TargetRecord { place: None, end }))
        };
        new.flat_map(all).chain(ended.filter_map(one)).collect()
    }

    /// A job that has just begun: all of it is written.
    pub(super) fn insert_job(&mut self, job: Job) {
        self.dirty.jobs.insert(job.id);
        self.dirty.new_jobs.insert(job.id);
        if job.task.is_some() {
            self.dirty.tasks.insert(job.id);
        }
        self.jobs.insert(job.id, job);
    }
}

/// A copy of its record: its targets have records of their own, and may be thousands.
fn without_targets(job: &mut Job) -> Job {
    let (targets, waiting) = (
        std::mem::take(&mut job.targets),
        std::mem::take(&mut job.waiting),
    );
    let copy = job.clone();
    (job.targets, job.waiting) = (targets, waiting);
    copy
}

/// A copy of its record: its instances have records of their own, and may be thousands.
fn without_instances(cluster: &mut Cluster) -> Cluster {
    let instances = std::mem::take(&mut cluster.instances);
    let copy = cluster.clone();
    cluster.instances = instances;
    copy
}
