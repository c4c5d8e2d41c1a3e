//! What the loop does while its records can't be written: nothing that another master might not know of.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use aot_host::clock::since_boot;
use aot_model::cluster::Cluster;
use aot_model::hash::JoinKey;
use aot_model::job::{Job, JobKind};
use aot_model::key::InstanceKey;
use aot_model::pace::Pace;
use aot_model::retention::Sweep;
use aot_model::run::Run;
use aot_model::samples;
use aot_model::secret::SecretUse;
use aot_model::task::{Exec, Task};
use aot_model::world::ExecAsk;
use aot_proto::ids::JobId;
use aot_provider::Provider;
use aot_store::room::Room;
use aot_store::spool::Spools;
use aot_store::{ClosedJob, Error, Hold, Loaded, Pending, Store, StoredOutputs};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::run::agents::Agents;
use crate::run::orphans::tests::Scripted;
use crate::run::outputs::Outputs;
use crate::run::providers::Providers;
use crate::run::{Engines, Inherited, Unanswered};
use crate::session::registry::Registry;

/// Longer than anything here may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A store that takes writes while it is there, and counts them; it keeps nothing.
struct Gate {
    is_there: watch::Sender<bool>,
    tried: watch::Sender<usize>,
    written: AtomicUsize,
}

impl Gate {
    async fn take(&self) -> Result<(), Error> {
        self.tried.send_modify(|tried| *tried += 1);
        let there = self.is_there.subscribe().wait_for(|is| *is).await.is_ok();
        assert!(there, "the gate outlives its writes");
        self.written.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn none<T>() -> Pending<'static, Result<T, Error>> {
    Box::pin(async { Err(Error::Stopped) })
}

impl Store for Gate {
    fn commit<'a>(
        &'a self,
        _: &'a Hold,
        _: Changes,
        _: Vec<(RunId, Bytes)>,
    ) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.take())
    }

    fn sweep<'a>(&'a self, _: &'a Hold, _: Sweep) -> Pending<'a, Result<(), Error>> {
        Box::pin(self.take())
    }

    fn jobs(&self, _: Option<String>, _: u32) -> Pending<'_, Result<Vec<Job>, Error>> {
        none()
    }

    fn job(&self, _: JobId) -> Pending<'_, Result<Option<Job>, Error>> {
        none()
    }

    fn runs_of(&self, _: JobId) -> Pending<'_, Result<Vec<Run>, Error>> {
        none()
    }

    fn stage_runs(&self, _: InstanceKey) -> Pending<'_, Result<Vec<Run>, Error>> {
        none()
    }

    fn small_spool(&self, _: RunId) -> Pending<'_, Result<Option<Vec<u8>>, Error>> {
        none()
    }

    fn outputs(&self, _: Option<Vec<JobId>>) -> Pending<'_, Result<StoredOutputs, Error>> {
        none()
    }

    fn closed_jobs(&self) -> Pending<'_, Result<Vec<ClosedJob>, Error>> {
        none()
    }

    fn close<'a>(&'a self, _: &'a Hold) -> Pending<'a, ()> {
        Box::pin(async {})
    }
}

struct Master {
    engine: Engines,
    gate: Arc<Gate>,
    hold: Arc<Hold>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _dir: tempfile::TempDir,
}

impl Master {
    /// With a cluster of one instance, whose agent is away, and a hold that is good.
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let gate = Arc::new(Gate {
            is_there: watch::Sender::new(true),
            tried: watch::Sender::new(0),
            written: AtomicUsize::new(0),
        });
        let hold = Arc::new(Hold::renewable("~master"));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let inherited = Inherited {
            loaded: Loaded {
                clusters: vec![samples::cluster()],
                ..Loaded::default()
            },
            is_taken_over: false,
        };
        let mut parts = parts(dir.path(), gate.clone(), hold.clone(), tasks.clone());
        parts.stop = stop.clone();
        let parts = Arc::new(parts);
        let master = Self {
            engine: Engines::start(inherited, parts, [7; 32]),
            gate,
            hold,
            stop,
            tasks,
            _dir: dir,
        };
        master.make_good();
        master
    }

    fn make_good(&self) {
        self.hold.renew(since_boot() + LIMIT * 10);
    }

    fn make_doubtful(&self) {
        self.hold.renew(since_boot());
    }

    fn jobs(&self) -> usize {
        let cluster = samples::cluster().spec.name;
        self.engine.read(&cluster, |world| world.jobs.len())
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(LIMIT, self.tasks.wait()).await;
        ended.expect("its tasks end");
    }
}

fn parts(dir: &Path, store: Arc<Gate>, hold: Arc<Hold>, tasks: TaskTracker) -> Parts {
    std::fs::write(dir.join("aot-agent"), "an agent").expect("writes");
    let local: Arc<dyn Provider> = Arc::new(Scripted::with(&[], 0));
    let spools = Spools::open(&dir.join("spools")).expect("opens");
    let outputs = Outputs::new(
        spools.clone(),
        None,
        tasks.clone(),
        CancellationToken::new(),
    );
    Parts {
        outputs: Arc::new(outputs),
        store,
        hold,
        fleet: None,
        spools,
        room: Arc::new(Room::new(dir, 0)),
        registry: Arc::new(Registry::new(now_ms())),
        providers: Arc::new(Providers::new(
            local,
            Box::new(|_, _| panic!("no region is asked for")),
        )),
        agents: Arc::new(Agents::open(dir, &dir.join("agents")).expect("opens")),
        ca_pem: String::new(),
        join_key: JoinKey::new(&[7; 32]),
        tasks,
        stop: CancellationToken::new(),
    }
}

/// A command on the instance, which is absent.
fn exec() -> Input {
    let cluster: Cluster = samples::cluster();
    Input::Exec(ExecAsk {
        instances: cluster.instances.keys().take(1).cloned().collect(),
        cluster: cluster.spec.name,
        kind: JobKind::Exec,
        task: Task::Command(Exec::default()),
        pace: Pace::default(),
        queue_ms: 0,
        what: "true".to_owned(),
        operator: "tester".to_owned(),
        request: None,
    })
}

/// The same with a secret, which came with level 2.
fn exec_with_secret() -> Input {
    let Input::Exec(mut ask) = exec() else {
        unreachable!("it asks for a command")
    };
    let name = "token".to_owned();
    ask.task = Task::Command(Exec {
        secrets: vec![SecretUse { name, env: None }],
        ..Exec::default()
    });
    Input::Exec(ask)
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("in time")
}

#[tokio::test]
async fn a_request_is_refused_while_nothing_can_be_put_on_record_and_never_done_later() {
    let master = Master::start();
    master.make_doubtful();
    let refused = in_time(master.engine.ask(exec())).await;
    assert_eq!(refused.expect_err("is refused"), Unanswered::Away);
    master.make_good();
    let answer = in_time(master.engine.ask(exec())).await;
    assert!(matches!(answer, Ok(Answer::Exec { .. })), "{answer:?}");
    assert_eq!(master.jobs(), 1, "the one that was refused is not made");
    master.end().await;
}

#[tokio::test]
async fn what_records_may_not_have_yet_is_not_begun() {
    let master = Master::start();
    master.hold.set_level(1);
    let refused = in_time(master.engine.ask(exec_with_secret())).await;
    let Ok(Answer::Error(why)) = refused else {
        panic!("{refused:?}")
    };
    assert!(why.to_string().contains("a secret needs 2"), "{why}");
    let answer = in_time(master.engine.ask(exec())).await;
    assert!(matches!(answer, Ok(Answer::Exec { .. })), "{answer:?}");
    master.hold.set_level(2);
    let answer = in_time(master.engine.ask(exec_with_secret())).await;
    assert!(matches!(answer, Ok(Answer::Exec { .. })), "{answer:?}");
    assert_eq!(master.jobs(), 2);
    master.end().await;
}

#[tokio::test]
async fn whoever_asked_learns_that_it_is_not_known_when_the_store_goes_amid_its_write() {
    let master = Master::start();
    master.gate.is_there.send_replace(false);
    let before = *master.gate.tried.borrow();
    let (answer, ()) = in_time(async {
        tokio::join!(master.engine.ask(exec()), async {
            let mut tried = master.gate.tried.subscribe();
            tried
                .wait_for(|tried| *tried > before)
                .await
                .expect("it is tried");
            master.make_doubtful();
        })
    })
    .await;
    assert_eq!(answer.expect_err("has no answer"), Unanswered::Unsure);
    master.gate.is_there.send_replace(true);
    master.make_good();
    // Whatever comes next is decided on after it.
    let cluster = samples::cluster().spec.name;
    assert!(in_time(master.engine.decide(Input::Reconcile { cluster })).await);
    assert_eq!(master.jobs(), 1, "it was begun");
    master.end().await;
}

#[tokio::test]
async fn what_is_written_is_done_once_nobody_else_can_have_taken_over() {
    let master = Master::start();
    master.gate.is_there.send_replace(false);
    let before = *master.gate.tried.borrow();
    let mut decided = Box::pin(master.engine.decide(exec()));
    in_time(async {
        let mut tried = master.gate.tried.subscribe();
        tokio::select! {
            _ = &mut decided => panic!("it is not written yet"),
            tried = tried.wait_for(|tried| *tried > before) => {
                tried.expect("it is tried");
            }
        }
        master.make_doubtful();
        master.gate.is_there.send_replace(true);
        while master.gate.written.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // It is written by now, and waits: for as long as it is asked, nothing comes.
        for _ in 0..100 {
            assert!(futures::poll!(&mut decided).is_pending());
            tokio::task::yield_now().await;
        }
        master.make_good();
        assert!(decided.await);
    })
    .await;
    master.end().await;
}

/// Says to this test, run in a process of its own, that it is to lose its hold: why a master stops is one thing in a process.
const CHILD: &str = "AOT_TEST_LOSES";

#[tokio::test]
async fn a_master_whose_hold_is_lost_decides_nothing_more() {
    if std::env::var_os(CHILD).is_none() {
        let test = "run::decide::tests::a_master_whose_hold_is_lost_decides_nothing_more";
        let program = std::env::current_exe().expect("its own path");
        let mut child = tokio::process::Command::new(program);
        let ended = child.args(["--exact", test]).env(CHILD, "1").output();
        let ended = in_time(ended).await.expect("it runs");
        let said = String::from_utf8_lossy(&ended.stdout);
        assert!(
            ended.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let master = Master::start();
    master.make_doubtful();
    let mut waits = Box::pin(master.engine.decide(exec()));
    assert!(futures::poll!(&mut waits).is_pending());
    let written = master.gate.written.load(Ordering::SeqCst);
    master.hold.lose("another master has taken over");
    in_time(async {
        assert!(!waits.await, "it has no answer");
        master.stop.cancelled().await;
    })
    .await;
    assert_eq!(master.jobs(), 0);
    assert_eq!(master.gate.written.load(Ordering::SeqCst), written);
    assert_eq!(stop::why(), Some("another master has taken over"));
    master.end().await;
}
