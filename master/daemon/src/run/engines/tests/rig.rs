//! Engines over a store whose commits of one cluster can be held up.

use std::sync::Arc;

use aot_model::batch::PlannedPool;
use aot_model::cluster::Cluster;
use aot_model::hash::JoinKey;
use aot_model::instance::Instance;
use aot_model::job::{Job, JobKind};
use aot_model::key::{ClusterUuid, InstanceKey};
use aot_model::retention::Sweep;
use aot_model::run::{Run, RunKind, RunState};
use aot_model::samples;
use aot_model::spec::ProviderKind;
use aot_model::world::Changes;
use aot_proto::ids::{ClusterName, InstanceName, JobId, RunId};
use aot_provider::Provider;
use aot_store::blobs::{BlobFolder, Blobs};
use aot_store::fleet::Fleet;
use aot_store::room::Room;
use aot_store::spool::Spools;
use aot_store::sqlite::Sqlite;
use aot_store::{
    Backend, ClosedJob, Error, Hold, Loaded, OpenStore, Pending, Store, StoredOutputs,
};
use prost::bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::{Engines, Inherited};
use super::inputs::at;
use crate::run::agents::Agents;
use crate::run::orphans::tests::Scripted;
use crate::run::outputs::Outputs;
use crate::run::providers::Providers;
use crate::run::{Parts, now_ms};
use crate::session::registry::Registry;

/// A store in which commits of jobs of one cluster wait.
pub(super) struct Gated {
    store: Arc<dyn Store>,
    shut: watch::Sender<Option<ClusterName>>,
    /// Commits that have come to the gate while it was shut.
    pub(super) waiting: watch::Sender<usize>,
}

impl Gated {
    pub(super) fn shut(&self, cluster: &str) {
        self.shut.send_replace(Some(name(cluster)));
    }

    pub(super) fn open(&self) {
        self.shut.send_replace(None);
    }

    async fn pass(&self, changes: &Changes) {
        let is_shut = |shut: &Option<ClusterName>| {
            let shut = shut.as_ref();
            shut.is_some_and(|shut| changes.jobs.iter().any(|job| job.cluster == *shut))
        };
        let mut gate = self.shut.subscribe();
        if is_shut(&gate.borrow_and_update()) {
            self.waiting.send_modify(|count| *count += 1);
        }
        let _ = gate.wait_for(|shut| !is_shut(shut)).await; // its sender is this store's
    }
}

impl Store for Gated {
    fn commit<'a>(
        &'a self,
        hold: &'a Hold,
        changes: Changes,
        spools: Vec<(RunId, Bytes)>,
    ) -> Pending<'a, Result<(), Error>> {
        Box::pin(async move {
            self.pass(&changes).await;
            self.store.commit(hold, changes, spools).await
        })
    }
    fn sweep<'a>(&'a self, hold: &'a Hold, sweep: Sweep) -> Pending<'a, Result<(), Error>> {
        self.store.sweep(hold, sweep)
    }
    fn jobs(&self, cluster: Option<String>, limit: u32) -> Pending<'_, Result<Vec<Job>, Error>> {
        self.store.jobs(cluster, limit)
    }
    fn job(&self, id: JobId) -> Pending<'_, Result<Option<Job>, Error>> {
        self.store.job(id)
    }
    fn runs_of(&self, job: JobId) -> Pending<'_, Result<Vec<Run>, Error>> {
        self.store.runs_of(job)
    }
    fn stage_runs(&self, at: InstanceKey) -> Pending<'_, Result<Vec<Run>, Error>> {
        self.store.stage_runs(at)
    }
    fn small_spool(&self, run: RunId) -> Pending<'_, Result<Option<Vec<u8>>, Error>> {
        self.store.small_spool(run)
    }
    fn outputs(&self, jobs: Option<Vec<JobId>>) -> Pending<'_, Result<StoredOutputs, Error>> {
        self.store.outputs(jobs)
    }
    fn closed_jobs(&self) -> Pending<'_, Result<Vec<ClosedJob>, Error>> {
        self.store.closed_jobs()
    }
    fn close<'a>(&'a self, hold: &'a Hold) -> Pending<'a, ()> {
        self.store.close(hold)
    }
}

/// Engines, and what is behind them.
pub(super) struct Rig {
    pub(super) engines: Engines,
    pub(super) store: Arc<Gated>,
    pub(super) spools: Arc<Spools>,
    /// Those that are put lie below `blobs`.
    pub(super) outputs: Arc<Outputs>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) dir: tempfile::TempDir,
}

impl Rig {
    /// As a master would start that finds this on record, left by itself.
    pub(super) async fn start(loaded: Loaded) -> Self {
        Self::inherit(Inherited {
            loaded,
            is_taken_over: false,
        })
        .await
    }

    /// As a master would start that has nothing yet, among others.
    pub(super) async fn among(fleet: Arc<dyn Fleet>) -> Self {
        Self::made(Inherited::default(), Some(fleet)).await
    }

    /// As a master would start that is left this.
    pub(super) async fn inherit(inherited: Inherited) -> Self {
        Self::made(inherited, None).await
    }

    async fn made(inherited: Inherited, fleet: Option<Arc<dyn Fleet>>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let opened = Sqlite.open(dir.path()).await.expect("a store");
        let OpenStore { store, hold, .. } = opened;
        let store = Arc::new(Gated {
            store,
            shut: watch::Sender::new(None),
            waiting: watch::Sender::new(0),
        });
        std::fs::write(dir.path().join("aot-agent"), "agent").expect("writes");
        let local: Arc<dyn Provider> = Arc::new(Scripted::with(&[], 0));
        let make_ec2 = Box::new(|_, _| -> Arc<dyn Provider> { Arc::new(Scripted::with(&[], 0)) });
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let spools = Spools::open(&dir.path().join("spools")).expect("outputs");
        let blobs: Arc<dyn Blobs> = Arc::new(BlobFolder::new(&dir.path().join("blobs")));
        let outputs = Outputs::new(spools.clone(), Some(blobs), tasks.clone(), stop.clone());
        let outputs = Arc::new(outputs);
        let parts = Parts {
            store: store.clone(),
            hold,
            fleet,
            spools: spools.clone(),
            outputs: outputs.clone(),
            room: Arc::new(Room::new(dir.path(), 0)),
            registry: Arc::new(Registry::new(1)),
            providers: Arc::new(Providers::new(local, make_ec2)),
            agents: Arc::new(
                Agents::open(dir.path(), &dir.path().join("agents")).expect("an agent"),
            ),
            ca_pem: String::new(),
            join_key: JoinKey::new(b"key"),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let parts = Arc::new(parts);
        Self {
            engines: Engines::start(inherited, parts, [7; 32]),
            store,
            spools,
            outputs,
            tasks,
            stop,
            dir,
        }
    }

    /// With clusters of these names, each with the instances `web1` to `web3`.
    pub(super) async fn of(clusters: &[&str]) -> Self {
        Self::start(Loaded {
            clusters: clusters.iter().map(|name| cluster(name, 3)).collect(),
            ..Loaded::default()
        })
        .await
    }

    /// Ends all loops.
    pub(super) async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

pub(super) fn name(text: &str) -> ClusterName {
    text.parse().expect("a name")
}

pub(super) fn web1() -> InstanceName {
    "web1".parse().expect("a name")
}

/// A cluster whose instances have no machines yet, and a batch with the join token `token of NAME`.
pub(super) fn cluster(text: &str, size: usize) -> Cluster {
    let pool = samples::pool("web", size);
    let planned = |member| Instance::planned(&pool, member);
    let instances = pool.members.iter().map(planned);
    let instances = instances.map(|it| (it.name.clone(), it)).collect();
    let mut batch = samples::batch("batch", PlannedPool::new(pool.clone()), Vec::new());
    batch.join_sha256 = format!("token of {text}");
    Cluster {
        uuid: ClusterUuid::new(format!("uuid of {text}")),
        instances,
        batches: [("batch".to_owned(), batch)].into(),
        ..samples::empty_cluster(samples::file(text, ProviderKind::Local, vec![pool]))
    }
}

/// A job over `web1` that is not over.
pub(super) fn job(cluster: &str, number: u128) -> Job {
    let (id, kind) = (JobId::from_parts(1, number), JobKind::Exec);
    let (what, operator) = ("exec".to_owned(), "uid 0".to_owned());
    Job {
        targets: [(web1(), None)].into(),
        ..Job::new(id, kind, name(cluster), what, operator, now_ms())
    }
}

/// What the job has begun on `web1`.
pub(super) fn run(job: &Job, number: u128) -> Run {
    Run {
        id: RunId::from_parts(1, number),
        job: job.id,
        at: at(job.cluster.as_str()),
        what: RunKind::Task,
        state: RunState::Accepted,
        asked_ms: 1,
        verdict: None,
        cancel: None,
        cancelled_ms: 0,
        output: None,
    }
}
