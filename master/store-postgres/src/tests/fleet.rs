//! Several masters of one database: each has some of the clusters, and what one loses another gets, once.

use aot_host::chain::Chain;
use aot_store::fleet::{Announcement, Whereabouts};

use super::*;

pub(super) fn name(text: &str) -> ClusterName {
    text.parse().expect("a name")
}

/// A master of a fleet that has taken nothing.
pub(super) struct Member {
    pub(super) master: Master,
    pub(super) store: Arc<PostgresStore>,
    pub(super) fleet: Arc<PostgresFleet>,
}

pub(super) async fn join(master: Master) -> Member {
    let opened = master.postgres.open_here(master.dir.path()).await;
    let opened = opened.expect("joins");
    Member {
        fleet: opened.fleet.expect("it is one of several"),
        store: Arc::new(opened.store),
        master,
    }
}

impl Member {
    pub(super) async fn take(&self, cluster: &str) -> Option<TakenCluster> {
        self.fleet.refresh().await.expect("looks");
        match self.fleet.take(&name(cluster)).await.expect("asks") {
            Take::Taken(taken) => Some(*taken),
            Take::Others => None,
        }
    }

    pub(super) async fn has(&self, cluster: &str) -> TakenCluster {
        self.take(cluster).await.expect("it is free")
    }

    pub(super) async fn sees(&self, cluster: &str) -> Whereabouts {
        self.fleet.refresh().await.expect("looks");
        let view = self.fleet.view().borrow().clone();
        view.whereabouts(&name(cluster))
    }

    pub(super) async fn write(
        &self,
        taken: &TakenCluster,
        number: u64,
    ) -> Result<(), aot_store::Error> {
        let mut changes = one(number);
        changes.jobs[0].cluster = name(taken.hold.name());
        self.store.commit(&taken.hold, changes, Vec::new()).await
    }

    pub(super) async fn close(&self) {
        self.store.close(self.fleet.standing()).await;
    }
}

pub(super) fn jobs_of(taken: &TakenCluster) -> Vec<JobId> {
    taken.loaded.jobs.iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn each_cluster_has_one_owner_and_is_loaded_alone() {
    let Some(server) = server("owners of clusters") else {
        return;
    };
    let url = server.url(&server.database());
    let (a, b) = (join(Master::of(&url)).await, join(Master::of(&url)).await);
    let (web, db) = (a.has("web").await, b.has("db").await);
    assert!(a.take("db").await.is_none() && b.take("web").await.is_none());
    a.write(&web, 1).await.expect("commits");
    b.write(&db, 2).await.expect("commits");
    assert_eq!(a.sees("web").await, Whereabouts::Here);
    let says = Announcement {
        agents: vec!["10.0.0.2:7440".to_owned()],
        peer: "10.0.0.2:7441".to_owned(),
        link: "10.0.0.2:7440".to_owned(),
        build: "0.1 (abc)".to_owned(),
    };
    b.fleet.announce(says.clone()).await.expect("announces");
    match a.sees("db").await {
        Whereabouts::Elsewhere(master) => assert!(master.is_alive && master.says == says),
        other => panic!("{other:?}"),
    }
    assert_eq!(a.sees("none").await, Whereabouts::Unknown);
    // Given back, the next has it at once, with what was written and nothing of other clusters.
    a.fleet.give_back(&web.hold, false).await;
    assert_eq!(b.sees("web").await, Whereabouts::Nowhere);
    let web = b.has("web").await;
    assert_eq!(jobs_of(&web), [id(1)]);
    assert!(!web.is_taken_over);
    let peeked = a.fleet.peek(&name("db")).await.expect("reads");
    assert_eq!(peeked.jobs.len(), 1);
    let none = b.has("none").await;
    b.fleet.give_back(&none.hold, true).await;
    assert_eq!(a.sees("none").await, Whereabouts::Unknown);
    b.close().await;
    let web = a.has("web").await;
    assert!(!web.is_taken_over, "it was given back");
    assert!(a.fleet.view().borrow().others().next().is_none());
    a.close().await;
}

#[tokio::test]
async fn of_many_that_want_a_free_cluster_one_gets_it() {
    let Some(server) = server("a race for a cluster") else {
        return;
    };
    let url = server.url(&server.database());
    let mut members = Vec::new();
    for _ in 0..4 {
        members.push(join(Master::of(&url)).await);
    }
    for round in 0..10 {
        let cluster = format!("c{round}");
        let taken = futures::future::join_all(members.iter().map(|it| it.take(&cluster))).await;
        assert_eq!(taken.iter().flatten().count(), 1, "{cluster}");
        for (member, taken) in members.iter().zip(&taken) {
            let Some(taken) = taken else { continue };
            member.write(taken, round + 1).await.expect("commits");
        }
    }
    for member in members {
        member.close().await;
    }
}

/// Its other clusters and its word stay; only what was taken is lost.
#[tokio::test]
async fn one_cluster_may_be_lost_alone_and_only_the_newest_owner_writes() {
    let Some(server) = server("a lost cluster") else {
        return;
    };
    let database = server.database();
    let a = join(Master::of(&server.url(&database))).await;
    let (web, db) = (a.has("web").await, a.has("db").await);
    server.ask(
        &database,
        "UPDATE owners SET epoch = epoch + 1, owner = 'other/1' WHERE cluster = 'web'",
    );
    let lost = tokio::time::timeout(LIMIT, web.hold.until_lost()).await;
    let text = Chain(&lost.expect("its beats tell it")).to_string();
    assert!(text.contains("other/1"), "{text}");
    a.write(&web, 1).await.expect_err("is fenced");
    a.write(&db, 2).await.expect("commits");
    assert!(db.hold.is_good() && a.fleet.standing().is_good());
    a.close().await;
    let owner = server.ask(&database, "SELECT owner FROM owners WHERE cluster = 'web'");
    assert_eq!(owner, "other/1", "what is not its own is not given back");
}

#[tokio::test]
async fn what_a_dead_master_had_is_taken_and_a_restarted_one_takes_its_own_at_once() {
    let Some(server) = server("a dead master of a fleet") else {
        return;
    };
    let url = server.url(&server.database());
    let mut silent = Master::of(&url);
    silent.postgres.timing.beat = LIMIT; // beats once, and then never in this test
    let dead = join(silent).await;
    let b = join(Master::of(&url)).await;
    let (web, db) = (dead.has("web").await, dead.has("db").await);
    dead.write(&web, 1).await.expect("commits");
    let begun = std::time::Instant::now();
    let taken = until_taken(&b.fleet, &name("web")).await.expect("takes");
    assert!(
        begun.elapsed() >= QUICK.dead - QUICK.beat * 2,
        "it was waited for"
    );
    assert!(taken.is_taken_over && jobs_of(&taken) == [id(1)]);
    dead.write(&web, 2).await.expect_err("is fenced");
    dead.write(&db, 3).await.expect("nobody has taken it");
    // The same folder again: it is known that its former start is gone.
    let again = join(Master {
        postgres: b.master.postgres.clone(),
        dir: dead.master.dir,
    })
    .await;
    again.fleet.refresh().await.expect("looks");
    let view = again.fleet.view().borrow().clone();
    assert_eq!(view.owners[&name("db")].master, view.me, "from before");
    let own = again.has("db").await;
    assert!(!own.is_taken_over && jobs_of(&own) == [id(3)]);
    assert!(again.take("web").await.is_none(), "that is another's now");
    dead.store
        .commit(&db.hold, one(4), Vec::new())
        .await
        .expect_err("is fenced");
    b.write(&taken, 5).await.expect("commits");
    b.close().await;
    again.close().await;
}

/// Another master would take them for gone, and ask for them anew.
#[tokio::test]
async fn a_cluster_of_clones_goes_back_to_the_master_that_has_them() {
    let Some(server) = server("clones in a fleet") else {
        return;
    };
    let url = server.url(&server.database());
    let (a, b) = (join(Master::of(&url)).await, join(Master::of(&url)).await);
    let taken = a.has("c").await;
    let mut clones = cluster();
    clones.spec.provider = aot_model::spec::ProviderKind::Local;
    let changes = Changes {
        clusters: vec![clones],
        ..Changes::default()
    };
    let written = a.store.commit(&taken.hold, changes, Vec::new()).await;
    written.expect("commits");
    a.fleet.give_back(&taken.hold, false).await;
    assert!(b.take("c").await.is_none(), "it is found to be pinned");
    assert!(b.take("c").await.is_none(), "and stays so");
    let again = a.has("c").await;
    assert_eq!(again.loaded.clusters.len(), 1);
    a.close().await;
    b.close().await;
}

#[tokio::test]
async fn records_of_one_master_are_divided_by_the_first_of_a_fleet() {
    let Some(server) = server("records that are divided") else {
        return;
    };
    let url = server.url(&server.database());
    let alone = Master::alone(&url);
    let open = alone.open().await;
    let mut changes = one(1);
    changes.jobs[0].cluster = name("web");
    let written = open.store.commit(&open.hold, changes, Vec::new()).await;
    written.expect("commits");
    open.write(2).await.expect("commits");
    open.close().await;
    let a = join(Master::of(&url)).await;
    a.fleet.refresh().await.expect("looks");
    let view = a.fleet.view().borrow().clone();
    let clusters: Vec<_> = view.owners.keys().map(ToString::to_string).collect();
    assert_eq!(clusters, ["c", "web"]);
    assert_eq!(jobs_of(&a.has("web").await), [id(1)]);
    open.write(3).await.expect_err("the one hold is gone");
    a.close().await;
}

#[tokio::test]
async fn one_whose_port_refuses_is_dead_sooner_unless_it_beats() {
    let Some(server) = server("a port that refuses") else {
        return;
    };
    let url = server.url(&server.database());
    let mut silent = Master::of(&url);
    silent.postgres.timing.beat = LIMIT;
    let silent = join(silent).await;
    let mut patient = Master::of(&url);
    patient.postgres.timing.dead = LIMIT * 10;
    let other = join(patient).await;
    let beats = join(Master::of(&url)).await;
    let _kept = beats.has("db").await;
    let web = silent.has("web").await;
    silent.write(&web, 1).await.expect("commits");
    for member in [&silent, &beats] {
        let id = member.fleet.view().borrow().me.clone();
        other.fleet.refresh().await.expect("looks");
        other.fleet.presume_dead(&id).await;
    }
    let cluster = name("web");
    let taken = until_taken(&other.fleet, &cluster);
    let taken = tokio::time::timeout(LIMIT, taken).await;
    let taken = taken.expect("long before it would be dead").expect("takes");
    assert!(taken.is_taken_over && jobs_of(&taken) == [id(1)]);
    assert!(other.take("db").await.is_none(), "that one beats");
    for member in [other, beats, silent] {
        member.close().await;
    }
}

/// As after a boot of the owner's host: a start of the same folder, which does not know that the former one is gone.
#[tokio::test]
async fn what_a_start_of_an_earlier_boot_had_is_taken_once_that_was_silent_for_long() {
    let Some(server) = server("a host that was booted") else {
        return;
    };
    let database = server.database();
    let url = server.url(&database);
    let first = join(Master::of(&url)).await;
    let web = first.has("web").await;
    first.write(&web, 1).await.expect("commits");
    server.ask(&database, "UPDATE owners SET boot = 'of before'");
    let dir = first.master.dir;
    drop((first.store, first.fleet));
    let again = join(Master {
        postgres: quick(&url),
        dir,
    })
    .await;
    assert!(again.take("web").await.is_none(), "it may live elsewhere");
    let begun = std::time::Instant::now();
    let taken = until_taken(&again.fleet, &name("web"))
        .await
        .expect("takes");
    assert!(begun.elapsed() >= QUICK.dead - QUICK.beat * 2);
    assert!(taken.is_taken_over && jobs_of(&taken) == [id(1)]);
    again.close().await;
}

/// A beat between the look and the take: it is not dead, and has what it had.
#[tokio::test]
async fn one_that_beats_again_at_the_last_moment_keeps_its_cluster() {
    let Some(server) = server("a late beat") else {
        return;
    };
    let database = server.database();
    let url = server.url(&database);
    let mut silent = Master::of(&url);
    silent.postgres.timing.beat = LIMIT;
    let silent = join(silent).await;
    let web = silent.has("web").await;
    let other = join(Master::of(&url)).await;
    let me = silent.fleet.view().borrow().me.clone();
    let is_dead = async {
        loop {
            other.fleet.refresh().await.expect("looks");
            if !other.fleet.view().borrow().lives(&me) {
                return;
            }
            tokio::time::sleep(QUICK.beat / 2).await;
        }
    };
    tokio::time::timeout(LIMIT, is_dead).await.expect("in time");
    server.ask(
        &database,
        &format!("UPDATE masters SET beat = beat + 1 WHERE id = '{me}'"),
    );
    let taken = other.fleet.take(&name("web")).await.expect("asks");
    assert!(matches!(taken, Take::Others));
    silent.write(&web, 1).await.expect("it is still its own");
    other.close().await;
    silent.close().await;
}

#[tokio::test]
async fn the_janitor_is_one_of_them() {
    let Some(server) = server("the janitor of a fleet") else {
        return;
    };
    let url = server.url(&server.database());
    let (a, b) = (join(Master::of(&url)).await, join(Master::of(&url)).await);
    let hold = a.fleet.take_janitor().await.expect("asks");
    let hold = hold.expect("it is free");
    assert!(b.fleet.take_janitor().await.expect("asks").is_none());
    let sweep = aot_model::retention::Sweep {
        jobs: vec![id(1)],
        ..Default::default()
    };
    a.store.sweep(&hold, sweep).await.expect("sweeps");
    a.close().await;
    assert!(b.fleet.take_janitor().await.expect("asks").is_some());
    b.close().await;
}
