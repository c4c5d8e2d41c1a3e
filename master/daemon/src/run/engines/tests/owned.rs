//! Clusters of several masters: taken when they are asked for, given away, lost.

use std::sync::Mutex;

use aot_model::world::AgentInput;
use aot_store::fleet::{
    Announcement, ClusterOwner, Fleet, FleetView, Take, TakenCluster, sample_view,
};
use aot_store::{Error, Pending};

use super::*;
use crate::run::keeper::ClusterKeeper;

/// A fleet of two, `a` which is tested, and `b`. What nobody has is given to `a` when it asks.
pub(super) struct TwoMasters {
    view: watch::Sender<Arc<FleetView>>,
    standing: Arc<Hold>,
    loaded: Mutex<BTreeMap<ClusterName, Loaded>>,
    given_back: watch::Sender<Vec<(String, bool)>>,
    /// Every take waits for it.
    gate: tokio::sync::Semaphore,
    /// What `SLOW` waits for besides.
    records: tokio::sync::Semaphore,
}

/// A cluster whose records are long in coming.
const SLOW: &str = "slow";

impl TwoMasters {
    pub(super) fn new(owners: &[(&str, &str)]) -> Arc<Self> {
        Arc::new(Self {
            view: watch::Sender::new(Arc::new(sample_view("a", owners))),
            standing: Arc::new(Hold::kept("~beat")),
            loaded: Mutex::default(),
            given_back: watch::Sender::default(),
            gate: tokio::sync::Semaphore::new(1000),
            records: tokio::sync::Semaphore::new(0),
        })
    }

    fn set_owner(&self, cluster: &ClusterName, master: &str) {
        self.view.send_modify(|view| {
            let owner = ClusterOwner {
                master: master.to_owned(),
                epoch: 2,
                ..ClusterOwner::default()
            };
            Arc::make_mut(view).owners.insert(cluster.clone(), owner);
        });
    }

    async fn has_back(&self, cluster: &str, is_empty: bool) {
        let wanted = (cluster.to_owned(), is_empty);
        let mut given = self.given_back.subscribe();
        let given = given.wait_for(|all| all.contains(&wanted));
        let given = timeout(LIMIT, given).await;
        drop(given.expect("it is given back").expect("it is here"));
    }
}

impl Fleet for TwoMasters {
    fn view(&self) -> watch::Receiver<Arc<FleetView>> {
        self.view.subscribe()
    }
    fn refresh(&self) -> Pending<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
    fn announce(&self, _: Announcement) -> Pending<'_, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
    fn presume_dead<'a>(&'a self, _: &'a str) -> Pending<'a, ()> {
        Box::pin(async {})
    }
    fn take<'a>(&'a self, cluster: &'a ClusterName) -> Pending<'a, Result<Take, Error>> {
        Box::pin(async move {
            let _passed = self.gate.acquire().await;
            if cluster.as_str() == SLOW {
                let _come = self.records.acquire().await;
            }
            let owner = self.view.borrow().owners.get(cluster).cloned();
            if owner.is_some_and(|owner| owner.master == "b") {
                return Ok(Take::Others);
            }
            self.set_owner(cluster, "a");
            let loaded = self.loaded.lock().expect("unhurt").remove(cluster);
            Ok(Take::Taken(Box::new(TakenCluster {
                hold: Arc::new(kept_until_lost(cluster)),
                loaded: loaded.unwrap_or_default(),
                is_taken_over: false,
                from: String::new(),
            })))
        })
    }
    fn take_janitor(&self) -> Pending<'_, Result<Option<Arc<Hold>>, Error>> {
        Box::pin(async { Ok(None) })
    }
    fn peek<'a>(&'a self, cluster: &'a ClusterName) -> Pending<'a, Result<Loaded, Error>> {
        Box::pin(async move {
            let clusters = vec![rig::cluster(cluster.as_str(), 1)];
            Ok(Loaded {
                clusters,
                ..Loaded::default()
            })
        })
    }
    fn ask_for<'a>(&'a self, _: &'a ClusterName) -> Pending<'a, Result<bool, Error>> {
        Box::pin(async { Ok(false) })
    }

    fn prefer<'a>(&'a self, _: &'a ClusterName, _: &'a str) -> Pending<'a, Result<bool, Error>> {
        Box::pin(async { Ok(false) })
    }
    fn drain<'a>(&'a self, _: &'a str, _: bool) -> Pending<'a, Result<bool, Error>> {
        Box::pin(async { Ok(false) })
    }
    fn standing(&self) -> &Arc<Hold> {
        &self.standing
    }
    fn give_back<'a>(&'a self, hold: &'a Hold, is_empty: bool) -> Pending<'a, ()> {
        let given = (hold.name().to_owned(), is_empty);
        self.given_back.send_modify(|all| all.push(given));
        Box::pin(async {})
    }
}

fn kept_until_lost(cluster: &ClusterName) -> Hold {
    Hold::kept(cluster.as_str())
}

async fn rig_of(fleet: &Arc<TwoMasters>) -> Rig {
    Rig::among(fleet.clone()).await
}

async fn refused(engines: &Engines, input: Input) -> Unanswered {
    let answer = timeout(LIMIT, engines.ask(input)).await;
    answer.expect("in time").expect_err("is refused")
}

#[tokio::test]
async fn a_request_takes_a_cluster_that_nobody_has_and_leaves_one_that_another_has() {
    let fleet = TwoMasters::new(&[("theirs", "b")]);
    let rig = rig_of(&fleet).await;
    let engines = &rig.engines;
    let theirs = refused(engines, exec("theirs")).await;
    assert_eq!(theirs, Unanswered::Elsewhere);
    ask(engines, launch("new")).await;
    assert!(engines.has(&name("new")) && !engines.has(&name("theirs")));
    // All are read, also what is elsewhere; of that only what is on record.
    let sizes = engines.read_everywhere(World::instance_count).await;
    let sizes = sizes.expect("reads");
    assert_eq!(sizes.len(), 2);
    assert_eq!(engines.read_each(World::instance_count).len(), 1);
    rig.end().await;
}

#[tokio::test]
async fn what_machines_bring_takes_no_cluster() {
    let fleet = TwoMasters::new(&[("theirs", "b"), ("nobodys", "")]);
    let rig = rig_of(&fleet).await;
    for cluster in ["theirs", "nobodys", "unknown"] {
        let input = || Input::Agent {
            at: inputs::at(cluster),
            session: 1,
            report: AgentInput::Closed {
                why: "the agent disconnected".to_owned(),
            },
        };
        assert!(!rig.engines.decide(input()).await, "{cluster}");
        rig.engines.submit(input()).await;
        assert!(!rig.engines.has(&name(cluster)));
    }
    rig.end().await;
}

#[tokio::test]
async fn of_many_requests_at_once_one_takes_the_cluster() {
    let fleet = TwoMasters::new(&[]);
    let rig = rig_of(&fleet).await;
    let asks = (0..20).map(|number| {
        let record = Input::Record(Box::new(job("new", number)));
        ask(&rig.engines, record)
    });
    futures::future::join_all(asks).await;
    let worlds = rig.engines.0.seeds.drawn.load(Ordering::Relaxed);
    assert_eq!(worlds, 3, "the vacant one, the feed and one more");
    rig.end().await;
}

#[tokio::test]
async fn a_cluster_whose_records_are_long_in_coming_holds_up_the_keeper_once_and_for_a_while() {
    let fleet = TwoMasters::new(&[(SLOW, "a"), ("web", "a")]);
    for cluster in [SLOW, "web"] {
        let recorded = fleet.peek(&name(cluster)).await.expect("reads");
        let mut loaded = fleet.loaded.lock().expect("unhurt");
        loaded.insert(name(cluster), recorded);
    }
    let rig = rig_of(&fleet).await;
    let mut keeper = ClusterKeeper::new(fleet.clone(), rig.engines.clone());
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    keeper.round().await;
    assert!(rig.engines.has(&name("web")));
    assert!(!rig.engines.has(&name(SLOW)));
    let first = begun.elapsed();
    assert!(first < LIMIT, "{first:?}");
    keeper.round().await;
    assert_eq!(begun.elapsed(), first, "it is left alone for a moment");
    tokio::time::resume();
    fleet.records.add_permits(1);
    let come = async {
        while !rig.engines.has(&name(SLOW)) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, come).await.expect("it comes all the same");
    rig.end().await;
}

#[tokio::test]
async fn a_cluster_that_is_lost_ends_its_loop_and_sessions_and_no_other() {
    let fleet = TwoMasters::new(&[]);
    let rig = rig_of(&fleet).await;
    let engines = &rig.engines;
    for cluster in ["web", "db"] {
        ask(engines, Input::Record(Box::new(job(cluster, 1)))).await;
    }
    let registry = engines.0.parts.registry.clone();
    let sessions = ["web", "db"].map(|cluster| registry.register(&inputs::at(cluster)));
    let hold = engines.get(&name("web")).expect("it is here").hold;
    fleet.set_owner(&name("web"), "b");
    hold.lose("another master has taken over");
    ended(engines, &name("web")).await;
    timeout(LIMIT, sessions[0].end.come())
        .await
        .expect("it ends");
    assert_eq!(refused(engines, exec("web")).await, Unanswered::Elsewhere);
    assert!(sessions[1].end.why().is_none());
    ask(engines, Input::Record(Box::new(job("db", 2)))).await;
    assert!(!rig.stop.is_cancelled(), "the master continues");
    assert!(
        fleet.given_back.borrow().is_empty(),
        "it is not its own to give"
    );
    rig.end().await;
}

#[tokio::test]
async fn one_that_is_given_away_is_given_back_once_nothing_more_is_written() {
    let fleet = TwoMasters::new(&[]);
    let rig = rig_of(&fleet).await;
    let engines = &rig.engines;
    ask(engines, Input::Record(Box::new(job("web", 1)))).await;
    rig.store.shut("web");
    let engines_of = engines.clone();
    let late = rig.tasks.spawn(async move {
        let record = Input::Record(Box::new(job("web", 2)));
        engines_of.ask(record).await
    });
    let mut waiting = rig.store.waiting.subscribe();
    let came = timeout(LIMIT, waiting.wait_for(|count| *count > 0)).await;
    came.expect("it is being written").expect("it is here");
    engines.give_away(&name("web"));
    assert!(fleet.given_back.borrow().is_empty(), "a write is under way");
    rig.store.open();
    fleet.has_back("web", false).await;
    let late = late.await.expect("it is answered");
    assert!(late.is_ok(), "it was on record before: {late:?}");
    rig.end().await;
}

#[tokio::test]
async fn one_of_which_nothing_is_left_is_forgotten() {
    let fleet = TwoMasters::new(&[]);
    let rig = rig_of(&fleet).await;
    for input in of_nobody() {
        let _ = timeout(LIMIT, rig.engines.ask(input)).await;
    }
    fleet.has_back("gone", true).await;
    rig.end().await;
}
