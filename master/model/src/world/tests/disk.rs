//! What the store has, for the tests: changes applied as it does, and a world loaded from them.

use super::*;

/// What is on disk: the changes, applied as the store does.
#[derive(Default, Clone)]
pub(super) struct Disk {
    pub clusters: BTreeMap<ClusterName, Cluster>,
    pub instances: BTreeMap<InstanceKey, Instance>,
    pub facts: BTreeMap<InstanceKey, std::sync::Arc<NodeFacts>>,
    pub jobs: BTreeMap<JobId, Job>,
    pub targets: BTreeMap<(JobId, InstanceName), String>,
    pub tasks: BTreeMap<JobId, String>,
    pub runs: BTreeMap<RunId, Run>,
}

impl Disk {
    pub(super) fn write(&mut self, changes: Changes) {
        for cluster in changes.removed {
            self.clusters.remove(&cluster.spec.name);
            self.instances
                .retain(|key, _| key.cluster != cluster.spec.name);
            self.facts.retain(|key, _| key.cluster != cluster.spec.name);
        }
        self.clusters.extend(
            changes
                .clusters
                .into_iter()
                .map(|c| (c.spec.name.clone(), c)),
        );
        self.instances.extend(changes.instances);
        self.facts.extend(changes.facts);
        for key in changes.without_facts {
            self.facts.remove(&key);
        }
        self.jobs
            .extend(changes.jobs.into_iter().map(|job| (job.id, job)));
        for job in self.jobs.values() {
            assert!(job.targets.is_empty() && job.waiting.is_empty());
        }
        let targets = changes.targets.into_iter();
        self.targets.extend(targets.map(|(job, name, target)| {
            let text = serde_json::to_string(&target).expect("writes");
            ((job, name), text)
        }));
        self.tasks
            .extend(changes.tasks.into_iter().map(|(id, task)| {
                let text = serde_json::to_string(task.as_ref()).expect("writes");
                (id, text)
            }));
        self.runs
            .extend(changes.runs.into_iter().map(|run| (run.id, run)));
    }

    /// As the store keeps it: the task and the targets beside the record.
    pub(super) fn job(&self, id: JobId) -> Job {
        let text = serde_json::to_string(&self.jobs[&id]).expect("writes");
        let task = self.tasks.get(&id);
        let mut job = Job {
            task: task.map(|text| std::sync::Arc::new(serde_json::from_str(text).expect("reads"))),
            ..serde_json::from_str(&text).expect("reads")
        };
        for ((_, name), text) in self.targets.iter().filter(|((of, _), _)| *of == id) {
            job.add_target(name.clone(), serde_json::from_str(text).expect("reads"));
        }
        job
    }

    /// Whether a master that starts from here knows what this one does: whatever changed was marked as changed.
    pub(super) fn check(&self, world: &World, now: UnixMs) {
        let loaded = self.load(1, now);
        let text = |value: serde_json::Result<String>| value.expect("writes");
        assert_eq!(
            loaded.clusters.keys().collect::<Vec<_>>(),
            world.clusters.keys().collect::<Vec<_>>()
        );
        for (name, cluster) in &world.clusters {
            let there = &loaded.clusters[name];
            let mut batches = cluster.batches.clone();
            for batch in batches.values_mut() {
                batch.in_flight = false; // a call ends with its master
            }
            assert_eq!(there.batches, batches, "batches of {name}");
            assert_eq!(
                text(serde_json::to_string(there)),
                text(serde_json::to_string(cluster))
            );
            for (name, instance) in &cluster.instances {
                // Written with other changes, and when it matters.
                let there = Instance {
                    last_seen_ms: instance.last_seen_ms,
                    ..there.instances[name].clone()
                };
                assert_eq!(
                    text(serde_json::to_string(&there)),
                    text(serde_json::to_string(instance))
                );
                assert_eq!(there.facts, instance.facts, "facts of {name}");
            }
        }
        assert_eq!(loaded.runs, world.runs);
        // These end, or are given up, when a master starts.
        let served = [JobKind::Shell, JobKind::Forward, JobKind::Reboot];
        let ends = |job: &&Job| !served.contains(&job.kind);
        for job in world.jobs.values().filter(ends) {
            let (mut there, mut here) = (loaded.jobs[&job.id].clone(), job.clone());
            assert_eq!(there.waiting.pop_all(), here.waiting.pop_all());
            assert_eq!(there, here);
        }
    }

    /// Through JSON, as the store does it: what is not kept is lost.
    pub(super) fn load(&self, seed: u64, now: UnixMs) -> World {
        let copy = |cluster: &Cluster| -> Cluster {
            let text = serde_json::to_string(cluster).expect("writes");
            let mut cluster: Cluster = serde_json::from_str(&text).expect("reads");
            for (key, instance) in self
                .instances
                .iter()
                .filter(|(key, _)| key.cluster == cluster.spec.name)
            {
                let text = serde_json::to_string(instance).expect("writes");
                let mut instance: Instance = serde_json::from_str(&text).expect("reads");
                if instance.identity.is_some() {
                    instance.facts = self.facts.get(key).cloned();
                }
                cluster.instances.insert(key.instance.clone(), instance);
            }
            cluster
        };
        let runs: Vec<Run> = self
            .runs
            .values()
            .filter(|run| run.verdict.is_none())
            .cloned()
            .collect();
        World::new(
            self.clusters.values().map(copy).collect(),
            self.jobs.keys().map(|id| self.job(*id)).collect(),
            runs,
            JoinKey::new(b"key"),
            [u8::try_from(seed % 251).expect("less than 251"); 32],
            now,
        )
    }
}
