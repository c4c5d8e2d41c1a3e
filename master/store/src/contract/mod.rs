//! What every engine must do, as checks that run against any of them. Called by tests only; each check is given an empty place.
//!
//! `samples` makes the records, `random` plays what a map would hold.

mod random;
pub mod samples;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use aot_model::job::TargetRecord;
use aot_model::key::ClusterUuid;
use aot_model::outcome::{Outcome, Verdict};
use aot_model::retention::Sweep;
use aot_model::task::Task;
use aot_model::world::Changes;
use aot_proto::ids::{JobId, RunId};
use prost::bytes::Bytes;

use crate::{Backend, Error, OpenStore, Pending};
use samples::{instance, job, run, targets};

/// Where a store can be opened again and again: by the same master, as its state lies in one folder.
pub struct Place {
    /// The engine.
    pub backend: Arc<dyn Backend>,
    /// The master's state folder.
    pub dir: PathBuf,
}

impl Place {
    async fn open(&self) -> OpenStore {
        self.backend.open(&self.dir).await.expect("opens")
    }

    /// Closes it, and opens it again.
    async fn again(&self, open: OpenStore) -> OpenStore {
        open.store.close(&open.hold).await;
        drop(open);
        self.open().await
    }
}

impl OpenStore {
    async fn commit(&self, changes: Changes, spools: Vec<(RunId, Bytes)>) {
        let done = self.store.commit(&self.hold, changes, spools);
        done.await.expect("commits");
    }
}

/// One check.
pub type ContractCheck = fn(Place) -> Pending<'static, ()>;

/// All of them, with their names.
pub const CHECKS: [(&str, ContractCheck); 9] = [
    (
        "what was committed is there after a restart, and nothing else",
        |place| Box::pin(restart(place)),
    ),
    (
        "a cluster may take the name of one removed in the same commit",
        |place| Box::pin(same_name(place)),
    ),
    (
        "facts of a machine that was replaced do not come back",
        |place| Box::pin(facts(place)),
    ),
    (
        "what is dropped is gone, and an emptied job says so",
        |place| Box::pin(dropped(place)),
    ),
    (
        "each target has a row, written and dropped with its job",
        |place| Box::pin(target_rows(place)),
    ),
    (
        "a record may hold any text, and a spool any bytes",
        |place| Box::pin(any_text(place)),
    ),
    ("a large commit is written whole", |place| {
        Box::pin(large(place))
    }),
    ("what is given after the end is refused", |place| {
        Box::pin(refused(place))
    }),
    (
        "any sequence of commits is what a map would hold",
        |place| Box::pin(random::check(place)),
    ),
];

fn id(number: u64) -> JobId {
    JobId::from_parts(number, 0)
}

fn run_id(number: u64) -> RunId {
    RunId::from_parts(number, 0)
}

async fn restart(place: Place) {
    let open = place.open().await;
    assert!(open.loaded.clusters.is_empty() && open.loaded.jobs.is_empty());
    let changes = Changes {
        jobs: vec![job(1, false), job(2, true), job(3, true)],
        runs: vec![run(1, 1, true), run(2, 3, false)],
        ..Changes::default()
    };
    let spool = (run_id(1), Bytes::from_static(b"frames"));
    open.commit(changes, vec![spool]).await;
    let open = place.again(open).await;
    let ids: Vec<JobId> = open.loaded.jobs.iter().map(|job| job.id).collect();
    assert_eq!(ids, [id(1), id(3)], "open jobs, and those with an open run");
    assert_eq!(open.loaded.runs, [run(2, 3, false)]);
    let store = &open.store;
    let small = store.small_spool(run_id(1)).await.expect("reads");
    assert_eq!(small.as_deref(), Some(&b"frames"[..]));
    assert_eq!(store.small_spool(run_id(9)).await.expect("reads"), None);
    let of = |cluster: &str| store.jobs(Some(cluster.to_owned()), 2);
    let newest = of("c").await.expect("reads");
    let ids: Vec<JobId> = newest.iter().map(|job| job.id).collect();
    assert_eq!(ids, [id(3), id(2)]);
    assert!(of("other").await.expect("reads").is_empty());
    let at = run(1, 1, true).at;
    let stage_runs = store.stage_runs(at).await.expect("reads");
    assert_eq!(stage_runs, [run(1, 1, true), run(2, 3, false)]);
    assert_eq!(
        store.runs_of(id(3)).await.expect("reads"),
        [run(2, 3, false)]
    );
    store.close(&open.hold).await;
}

async fn same_name(place: Place) {
    let open = place.open().await;
    let with = |uuid: &str, member: &str| {
        let mut cluster = samples::cluster();
        cluster.uuid = ClusterUuid::new(uuid);
        (cluster, vec![instance(member), instance("both")])
    };
    let (old, instances) = with("old", "gone");
    let facts = samples::facts_of(&instances);
    let changes = Changes {
        clusters: vec![old.clone()],
        instances,
        facts,
        ..Changes::default()
    };
    open.commit(changes, Vec::new()).await;
    let (new, instances) = with("new", "there");
    let changes = Changes {
        removed: vec![old],
        clusters: vec![new],
        facts: samples::facts_of(&instances[..1]),
        instances,
        ..Changes::default()
    };
    open.commit(changes, Vec::new()).await;
    let open = place.again(open).await;
    let [cluster] = &open.loaded.clusters[..] else {
        panic!("{:?}", open.loaded.clusters)
    };
    assert_eq!(cluster.uuid, ClusterUuid::new("new"));
    let found = cluster.instances.iter();
    let found: Vec<_> = found
        .map(|(name, it)| (name.as_str(), it.facts.is_some()))
        .collect();
    assert_eq!(found, [("both", false), ("there", true)]);
    let changes = Changes {
        removed: open.loaded.clusters.clone(),
        ..Changes::default()
    };
    open.commit(changes, Vec::new()).await;
    let open = place.again(open).await;
    assert!(open.loaded.clusters.is_empty());
    open.store.close(&open.hold).await;
}

async fn facts(place: Place) {
    let open = place.open().await;
    let instances = vec![instance("a"), instance("b")];
    let changes = Changes {
        clusters: vec![samples::cluster()],
        facts: samples::facts_of(&instances),
        instances: instances.clone(),
        ..Changes::default()
    };
    open.commit(changes, Vec::new()).await;
    let changes = Changes {
        instances: vec![instances[0].clone()],
        without_facts: vec![instances[0].0.clone()],
        ..Changes::default()
    };
    open.commit(changes, Vec::new()).await;
    let open = place.again(open).await;
    let found = &open.loaded.clusters[0].instances;
    assert_eq!(found[&instances[0].0.instance].facts, None);
    assert!(found[&instances[1].0.instance].facts.is_some());
    open.store.close(&open.hold).await;
}

async fn dropped(place: Place) {
    let open = place.open().await;
    let task = Arc::new(Task::CopyOut(vec!["/x".to_owned()]));
    let changes = Changes {
        jobs: vec![job(1, true), job(2, true), job(3, false), job(4, true)],
        tasks: vec![(id(1), task.clone())],
        runs: vec![
            run(1, 1, true),
            run(2, 2, true),
            run(3, 3, false),
            run(4, 4, false),
        ],
        ..Changes::default()
    };
    let spools = [1, 2].map(|it| (run_id(it), Bytes::from_static(b"frames")));
    open.commit(changes, spools.into()).await;
    let store = &open.store;
    let closed = store.closed_jobs().await.expect("reads");
    let shown: Vec<_> = closed.iter().map(|job| (job.id, job.ended_ms)).collect();
    assert_eq!(
        shown,
        [(id(1), 2), (id(2), 2)],
        "not those with something open"
    );
    let outputs = store
        .outputs(Some(vec![id(2), id(9)]))
        .await
        .expect("reads");
    assert_eq!(outputs, [(id(2), vec![(run_id(2), 6)])].into());
    let outputs = store.outputs(None).await.expect("reads");
    assert_eq!(outputs.len(), 4);
    assert_eq!(outputs[&id(3)], [(run_id(3), 0)]);
    let found = store.job(id(1)).await.expect("reads").expect("is there");
    assert_eq!(found.task, Some(task));
    let sweep = Sweep {
        jobs: vec![id(1)],
        emptied: vec![id(2)],
        spools: vec![run_id(1), run_id(2)],
    };
    store.sweep(&open.hold, sweep).await.expect("sweeps");
    assert_eq!(store.job(id(1)).await.expect("reads"), None);
    let emptied = store.job(id(2)).await.expect("reads").expect("stays");
    assert!(emptied.output_dropped);
    assert_eq!(store.small_spool(run_id(2)).await.expect("reads"), None);
    let left: HashSet<JobId> = store
        .outputs(None)
        .await
        .expect("reads")
        .into_keys()
        .collect();
    assert_eq!(left, [id(2), id(3), id(4)].into());
    let open = place.again(open).await;
    let emptied = open.store.jobs(None, 3).await.expect("reads");
    let flags: Vec<bool> = emptied.iter().map(|job| job.output_dropped).collect();
    assert_eq!(flags, [false, false, true]);
    open.store.close(&open.hold).await;
}

async fn target_rows(place: Place) {
    let open = place.open().await;
    let changes = Changes {
        jobs: vec![job(1, false), job(2, true)],
        targets: [targets(1, 3), targets(2, 2)].concat(),
        ..Changes::default()
    };
    open.commit(changes, Vec::new()).await;
    let verdict = Verdict::without_run(Outcome::Failed, "x");
    let mut ended = targets(1, 3).remove(1);
    ended.2 = TargetRecord {
        place: None,
        end: Some(verdict.clone()),
    };
    let changes = Changes {
        targets: vec![ended.clone()],
        ..Changes::default()
    };
    assert!(!changes.is_empty());
    open.commit(changes, Vec::new()).await;
    let found = open.store.job(ended.0).await.expect("reads");
    let found = found.expect("is there");
    assert_eq!(found.targets[&ended.1], Some(verdict));
    assert_eq!(
        (found.targets.len(), found.open(), found.waiting.len()),
        (3, 2, 2)
    );
    let listed = open.store.jobs(None, 9).await.expect("reads");
    let sizes: Vec<usize> = listed.iter().map(|job| job.targets.len()).collect();
    assert_eq!(sizes, [2, 3], "the newest first");
    assert_eq!(listed[1], found);
    let open = place.again(open).await;
    assert_eq!(open.loaded.jobs, [found]);
    let sweep = Sweep {
        jobs: vec![id(2)],
        ..Sweep::default()
    };
    open.store.sweep(&open.hold, sweep).await.expect("sweeps");
    // Another job of that id has none of the first one's targets.
    let changes = Changes {
        jobs: vec![job(2, false)],
        ..Changes::default()
    };
    open.commit(changes, Vec::new()).await;
    let found = open.store.job(id(2)).await.expect("reads");
    assert!(found.expect("is there").targets.is_empty());
    open.store.close(&open.hold).await;
}

async fn any_text(place: Place) {
    let open = place.open().await;
    let odd = "\0 'quoted' \"twice\" \\ $1 ?1 \u{1f980} \r\n\u{7f}";
    let mut asked = job(1, false);
    asked.what = odd.to_owned();
    let bytes: Vec<u8> = (0..=255).collect();
    let changes = Changes {
        jobs: vec![asked.clone()],
        ..Changes::default()
    };
    let spools = vec![
        (run_id(1), Bytes::from(bytes.clone())),
        (run_id(2), Bytes::new()),
    ];
    open.commit(changes, spools).await;
    let open = place.again(open).await;
    assert_eq!(open.loaded.jobs, [asked]);
    let small = |number| open.store.small_spool(run_id(number));
    assert_eq!(small(1).await.expect("reads"), Some(bytes));
    assert_eq!(small(2).await.expect("reads"), Some(Vec::new()));
    open.store.close(&open.hold).await;
}

/// More than an engine may want to take at once, with a record that is larger than that by itself.
async fn large(place: Place) {
    const COUNT: u64 = 200;
    let open = place.open().await;
    let mut jobs: Vec<_> = (1..=COUNT).map(|number| job(number, false)).collect();
    for job in &mut jobs {
        job.what = "x".repeat(50_000);
    }
    jobs[7].what = "y".repeat(6 << 20);
    let changes = Changes {
        jobs: jobs.clone(),
        targets: targets(1, 5_000),
        ..Changes::default()
    };
    let whole = Bytes::from(vec![7; 64 << 10]);
    let spools = (1..=COUNT).map(|number| (run_id(number), whole.clone()));
    open.commit(changes, spools.collect()).await;
    let open = place.again(open).await;
    assert_eq!(open.loaded.jobs.len(), jobs.len());
    assert_eq!(open.loaded.jobs[0].targets.len(), 5_000);
    let found = open.store.job(id(8)).await.expect("reads");
    assert_eq!(found.expect("is there").what, jobs[7].what);
    let last = open.store.small_spool(run_id(COUNT)).await.expect("reads");
    assert_eq!(last.map(|bytes| bytes.len()), Some(whole.len()));
    open.store.close(&open.hold).await;
}

async fn refused(place: Place) {
    let open = place.open().await;
    open.store.close(&open.hold).await;
    open.store.close(&open.hold).await; // again: nothing to do
    let changes = Changes {
        jobs: vec![job(1, false)],
        ..Changes::default()
    };
    let answer = open.store.commit(&open.hold, changes, Vec::new()).await;
    assert!(matches!(answer, Err(Error::Stopped)), "{answer:?}");
    let answer = open.store.sweep(&open.hold, Sweep::default()).await;
    assert!(matches!(answer, Err(Error::Stopped)), "{answer:?}");
    let open = place.open().await;
    assert!(open.loaded.jobs.is_empty());
    open.store.close(&open.hold).await;
}
