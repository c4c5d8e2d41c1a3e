//! Plays random commits, sweeps and restarts against maps that hold what a store should.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aot_model::cluster::Cluster;
use aot_model::instance::{Instance, NodeFacts};
use aot_model::job::{Job, TargetRecord};
use aot_model::key::InstanceKey;
use aot_model::outcome::{Outcome, Verdict};
use aot_model::retention::Sweep;
use aot_model::run::{Run, RunKind};
use aot_model::world::Changes;
use aot_proto::ids::{InstanceName, JobId, RunId};
use prost::bytes::Bytes;

use super::{Place, samples};
use crate::OpenStore;

/// Commits and sweeps of a play.
const STEPS: u64 = 150;

/// What a store should hold.
#[derive(Default)]
struct Expected {
    clusters: BTreeMap<String, Cluster>,
    instances: BTreeMap<InstanceKey, Instance>,
    facts: BTreeMap<InstanceKey, Arc<NodeFacts>>,
    jobs: BTreeMap<JobId, Job>,
    targets: BTreeMap<(JobId, InstanceName), TargetRecord>,
    runs: BTreeMap<RunId, Run>,
    spools: BTreeMap<RunId, Bytes>,
}

/// Numbers from a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }

    fn flip(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// The seed is printed; `AOT_TEST_SEED` plays one again.
pub(super) async fn check(place: Place) {
    let given = std::env::var("AOT_TEST_SEED").ok();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let fresh = u64::from(now.map_or(1, |passed| passed.subsec_nanos()));
    let seed = given.and_then(|text| text.parse().ok()).unwrap_or(fresh);
    println!("AOT_TEST_SEED={seed}");
    let mut dice = Dice(seed);
    let mut expected = Expected::default();
    let mut open = place.open().await;
    for step in 0..STEPS {
        if dice.below(8) == 0 {
            let sweep = expected.sweep(&mut dice);
            open.store.sweep(&open.hold, sweep).await.expect("sweeps");
        } else {
            let (changes, spools) = expected.change(&mut dice, step);
            open.commit(changes, spools).await;
        }
        if dice.below(10) == 0 {
            open = place.again(open).await;
            expected.compare_loaded(&open);
        }
    }
    let open = place.again(open).await;
    expected.compare_loaded(&open);
    expected.compare_read(&open).await;
    open.store.close(&open.hold).await;
}

impl Expected {
    /// Some of each kind, with what the model never gives twice in one commit given twice at times: the last one counts.
    fn change(&mut self, dice: &mut Dice, step: u64) -> (Changes, Vec<(RunId, Bytes)>) {
        let mut changes = Changes::default();
        let mut spools = Vec::new();
        let name = samples::cluster().spec.name.to_string();
        if dice.below(10) == 0
            && let Some(old) = self.clusters.remove(&name)
        {
            self.instances.clear();
            self.facts.clear();
            changes.removed.push(old);
        }
        if dice.flip() {
            let mut cluster = samples::cluster();
            cluster.generation = step;
            self.clusters.insert(name.clone(), cluster.clone());
            changes.clusters.push(cluster);
        }
        for _ in 0..dice.below(4) {
            self.change_instance(dice, step, &mut changes);
        }
        for _ in 0..dice.below(4) {
            self.change_job(dice, step, &mut changes);
        }
        for _ in 0..dice.below(3) {
            let id = RunId::from_parts(dice.below(12), 0);
            let bytes = Bytes::from(vec![1; usize::try_from(dice.below(40)).expect("few")]);
            self.spools.insert(id, bytes.clone());
            spools.push((id, bytes));
        }
        (changes, spools)
    }

    fn change_instance(&mut self, dice: &mut Dice, step: u64, changes: &mut Changes) {
        let (key, mut instance) = samples::instance(&format!("a{}", dice.below(6)));
        instance.last_seen_ms = step;
        self.instances.insert(key.clone(), instance.clone());
        changes.instances.push((key.clone(), instance));
        let is_given = |changes: &Changes| {
            let facts = changes.facts.iter().map(|(given, _)| given);
            facts
                .chain(&changes.without_facts)
                .any(|given| *given == key)
        };
        if is_given(changes) {
            return; // with facts or without them, never both
        }
        if dice.flip() {
            let mut facts = aot_model::samples::node_facts();
            facts.main_user = step.to_string();
            let facts = Arc::new(facts);
            self.facts.insert(key.clone(), facts.clone());
            changes.facts.push((key, facts));
        } else {
            self.facts.remove(&key);
            changes.without_facts.push(key);
        }
    }

    fn change_job(&mut self, dice: &mut Dice, step: u64, changes: &mut Changes) {
        let number = dice.below(6);
        let mut job = samples::job(number, dice.flip());
        job.started_ms = step;
        self.jobs.insert(job.id, job.clone());
        changes.jobs.push(job);
        for (job, name, mut target) in samples::targets(number, 3) {
            if dice.flip() {
                target.place = None;
                target.end = Some(Verdict::without_run(Outcome::Failed, "x"));
            }
            self.targets.insert((job, name.clone()), target.clone());
            changes.targets.push((job, name, target));
        }
        let id = number * 2 + dice.below(2);
        let run = samples::run(id, number, dice.flip());
        self.runs.insert(run.id, run.clone());
        changes.runs.push(run);
    }

    fn sweep(&mut self, dice: &mut Dice) -> Sweep {
        let pick = |dice: &mut Dice| JobId::from_parts(dice.below(6), 0);
        let (dropped, emptied) = (pick(dice), pick(dice));
        let spool = RunId::from_parts(dice.below(12), 0);
        self.spools.remove(&spool);
        if let Some(job) = self.jobs.get_mut(&emptied) {
            job.output_dropped = true;
        }
        self.jobs.remove(&dropped);
        self.runs.retain(|_, run| run.job != dropped);
        self.targets.retain(|(job, _), _| *job != dropped);
        Sweep {
            jobs: vec![dropped],
            emptied: vec![emptied],
            spools: vec![spool],
        }
    }

    fn job(&self, id: JobId) -> Option<Job> {
        let mut job = self.jobs.get(&id)?.clone();
        for ((of, name), target) in &self.targets {
            if *of == id {
                job.add_target(name.clone(), target.clone());
            }
        }
        Some(job)
    }

    fn compare_loaded(&self, open: &OpenStore) {
        let mut clusters: Vec<Cluster> = self.clusters.values().cloned().collect();
        for cluster in &mut clusters {
            for (key, instance) in &self.instances {
                let mut instance = instance.clone();
                instance.facts = self.facts.get(key).cloned();
                cluster.instances.insert(key.instance.clone(), instance);
            }
        }
        assert_eq!(open.loaded.clusters, clusters);
        let is_open = |run: &&Run| run.verdict.is_none();
        let open_runs: Vec<&Run> = self.runs.values().filter(is_open).collect();
        assert_eq!(open.loaded.runs.iter().collect::<Vec<_>>(), open_runs);
        let with_runs: BTreeSet<JobId> = open_runs.iter().map(|run| run.job).collect();
        let wanted = self.jobs.values();
        let wanted = wanted.filter(|job| job.ended_ms.is_none() || with_runs.contains(&job.id));
        let wanted: Vec<Job> = wanted.filter_map(|job| self.job(job.id)).collect();
        assert_eq!(open.loaded.jobs, wanted);
    }

    async fn compare_read(&self, open: &OpenStore) {
        let store = &open.store;
        for number in 0..6 {
            let id = JobId::from_parts(number, 0);
            assert_eq!(store.job(id).await.expect("reads"), self.job(id));
            let runs = self.runs.values().filter(|run| run.job == id).cloned();
            let found = store.runs_of(id).await.expect("reads");
            assert_eq!(found, runs.collect::<Vec<_>>());
        }
        for number in 0..12 {
            let id = RunId::from_parts(number, 0);
            let found = store.small_spool(id).await.expect("reads");
            assert_eq!(found, self.spools.get(&id).map(|bytes| bytes.to_vec()));
        }
        let is_stage = |run: &&Run| matches!(run.what, RunKind::Stage { .. });
        let stages = self.runs.values().filter(is_stage).cloned();
        let found = store.stage_runs(samples::instance("a").0).await;
        assert_eq!(found.expect("reads"), stages.collect::<Vec<_>>());
        let newest: Vec<JobId> = self.jobs.keys().rev().copied().collect();
        let found = store.jobs(None, 9).await.expect("reads");
        assert_eq!(found.iter().map(|job| job.id).collect::<Vec<_>>(), newest);
        let closed = store.closed_jobs().await.expect("reads");
        let is_closed = |job: &&Job| {
            let runs = self.runs.values().filter(|run| run.job == job.id);
            job.ended_ms.is_some() && runs.filter(is_open).count() == 0
        };
        let expected = self.jobs.values().filter(is_closed).map(|job| job.id);
        let found: Vec<JobId> = closed.iter().map(|job| job.id).collect();
        assert_eq!(found, expected.collect::<Vec<_>>());
        self.compare_outputs(open).await;
    }

    async fn compare_outputs(&self, open: &OpenStore) {
        let mut expected = crate::StoredOutputs::new();
        for run in self.runs.values() {
            let bytes = self.spools.get(&run.id).map_or(0, |bytes| bytes.len());
            let of_job = expected.entry(run.job).or_default();
            of_job.push((run.id, bytes as u64));
        }
        let mut found = open.store.outputs(None).await.expect("reads");
        found.values_mut().for_each(|runs| runs.sort());
        assert_eq!(found, expected);
    }
}

fn is_open(run: &&Run) -> bool {
    run.verdict.is_none()
}
