//! Who may open a store, and what is said to who may not.

use aot_host::chain::Chain;

use super::*;

/// What another folder is told.
async fn refusal(postgres: &Postgres) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = postgres.open_here(dir.path()).await;
    Chain(&refused.err().expect("is refused")).to_string()
}

#[tokio::test]
async fn a_start_beside_a_master_that_lives_is_refused_by_its_name() {
    let Some(server) = server("a start beside a master") else {
        return;
    };
    let database = server.database();
    let mut first = Master::alone(&server.url(&database));
    first.postgres.timing.dead = LIMIT; // however slow this host is
    let open = first.open().await;
    let of_a_fleet = first.postgres.clone().sharing_keys(true);
    let text = refusal(&of_a_fleet).await;
    let own = std::fs::read_to_string(first.dir.path().join("master-id")).expect("its id");
    let own = own.split(' ').next().expect("it is first");
    assert!(
        text.contains(own) && text.contains("stop that one first"),
        "{text}"
    );
    open.write(1).await.expect("it is not disturbed");
    open.close().await;
    let masters = server.ask(&database, "SELECT count(*) FROM masters");
    assert_eq!(masters, "0", "all have left");
    // What was given back need not be waited for, however long a master may be silent.
    let mut second = Master::of(&server.url(&database));
    second.postgres.timing.dead = LIMIT * 10;
    let opened = tokio::time::timeout(LIMIT, second.open()).await;
    let opened = opened.expect("at once");
    assert_eq!(opened.loaded.jobs.len(), 1);
    opened.close().await;
}

#[tokio::test]
async fn a_master_that_is_dead_is_taken_over_and_finds_itself_fenced() {
    let Some(server) = server("a dead master") else {
        return;
    };
    let url = server.url(&server.database());
    let mut silent = Master::of(&url);
    silent.postgres.timing.beat = LIMIT; // beats once, and then never in this test
    let old = silent.open().await;
    old.write(1).await.expect("commits");
    let next = Master::of(&url);
    let begun = std::time::Instant::now();
    let new = next.open().await;
    assert!(begun.elapsed() >= QUICK.dead, "it was waited for");
    assert!(new.is_taken_over, "the other may live");
    assert_eq!(new.loaded.jobs.len(), 1);
    new.write(2).await.expect("commits");
    let refused = old.write(3).await.expect_err("is fenced");
    let text = Chain(&refused).to_string();
    assert!(text.contains("has taken over postgres://aot@"), "{text}");
    let lost = tokio::time::timeout(LIMIT, old.hold.until_lost()).await;
    assert_eq!(Chain(&lost.expect("at once")).to_string(), text);
    assert_eq!(new.jobs().await, [id(1), id(2)]);
    old.close().await; // it has nothing to give back
    new.write(4).await.expect("still has the hold");
    new.close().await;
    let again = next.open().await;
    assert!(!again.is_taken_over, "what was in doubt is on record");
    again.close().await;
}

/// What was in doubt is in the first write: a start that ends before it leaves the doubt to the next.
#[tokio::test]
async fn a_take_over_stays_one_until_something_was_written_since() {
    let Some(server) = server("a take-over that ends at once") else {
        return;
    };
    let url = server.url(&server.database());
    let mut silent = Master::of(&url);
    silent.postgres.timing.beat = LIMIT;
    let old = silent.open().await;
    let next = Master::of(&url);
    for _ in 0..2 {
        let taken = next.open().await;
        assert!(taken.is_taken_over, "the first may live");
        taken.close().await;
    }
    let last = next.open().await;
    last.write(1).await.expect("commits");
    last.close().await;
    assert!(!next.open().await.is_taken_over);
    drop(old);
}

#[tokio::test]
async fn records_stay_with_their_keys_unless_masters_share_them() {
    let Some(server) = server("keys that are not shared") else {
        return;
    };
    let alone = Master::alone(&server.url(&server.database()));
    alone.open().await.close().await;
    let text = refusal(&alone.postgres).await;
    assert!(
        text.contains("whose keys machines trust") && text.contains("AOT_FLEET_KEY"),
        "{text}"
    );
    alone.open().await.close().await;
}

/// Nothing is written meanwhile: its beats tell it.
#[tokio::test]
async fn an_idle_master_learns_that_it_was_taken_over() {
    let Some(server) = server("an idle master") else {
        return;
    };
    let database = server.database();
    let master = Master::of(&server.url(&database));
    let open = master.open().await;
    server.ask(
        &database,
        "UPDATE owners SET epoch = epoch + 1, owner = 'other/1'",
    );
    let lost = tokio::time::timeout(LIMIT, open.hold.until_lost()).await;
    let text = Chain(&lost.expect("soon")).to_string();
    assert!(text.contains("other/1"), "{text}");
    open.close().await;
}

#[tokio::test]
async fn a_master_that_starts_again_takes_its_own_back_at_once() {
    let Some(server) = server("a second start") else {
        return;
    };
    let mut master = Master::of(&server.url(&server.database()));
    master.postgres.timing.dead = LIMIT * 10;
    let killed = master.open().await;
    killed.write(1).await.expect("commits");
    let again = tokio::time::timeout(LIMIT, master.open()).await;
    let again = again.expect("at once");
    assert!(
        !again.is_taken_over,
        "the folder's lock says that it is dead"
    );
    assert_eq!(again.loaded.jobs.len(), 1);
    killed.write(2).await.expect_err("is fenced");
    again.write(3).await.expect("commits");
    assert_eq!(again.jobs().await, [id(1), id(3)]);
    again.close().await;
}

#[tokio::test]
async fn a_folder_serves_the_database_that_it_served_before_and_no_other() {
    let Some(server) = server("a folder's database") else {
        return;
    };
    let mut master = Master::of(&server.url(&server.database()));
    master.open().await.close().await;
    let first = master.postgres.url.clone();
    let other = server.database();
    master.postgres.url = quick(&server.url(&other)).url;
    let shared = master.postgres.shared_secrets().expect("it keeps some");
    assert_eq!(shared.read().await.expect("asks"), None);
    let text = Chain(&master.try_open().await.err().expect("is refused")).to_string();
    let tables = server.ask(
        &other,
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'",
    );
    assert_eq!(
        tables, "0",
        "nothing is made in a database that does not fit"
    );
    assert!(
        text.contains("master-id belongs to another database than postgres://aot@"),
        "{text}"
    );
    master.postgres.url = first;
    master.open().await.close().await;
}

#[tokio::test]
async fn a_start_that_failed_leaves_the_folder_as_it_was() {
    let Some(server) = server("a start that fails") else {
        return;
    };
    let database = server.database();
    let first = Master::alone(&server.url(&database));
    let open = first.open().await;
    let dir = tempfile::tempdir().expect("a folder");
    let refused = first.postgres.open_here(dir.path()).await;
    assert!(refused.is_err());
    assert!(
        !dir.path().join("master-id").exists(),
        "it may still have records of its own"
    );
    open.close().await;
}

/// Clones of another host can't be seen from here: they would be taken for gone.
#[tokio::test]
async fn clusters_of_clones_stay_with_the_host_that_has_them() {
    let Some(server) = server("clones of another host") else {
        return;
    };
    let database = server.database();
    let first = Master::alone(&server.url(&database));
    let open = first.open().await;
    let mut clones = cluster();
    clones.spec.provider = aot_model::spec::ProviderKind::Local;
    let changes = Changes {
        clusters: vec![clones],
        ..Changes::default()
    };
    let written = open.store.commit(&open.hold, changes, Vec::new()).await;
    written.expect("commits");
    open.close().await;
    let text = refusal(&first.postgres).await;
    assert!(
        text.contains("(c)") && text.contains("start the master there"),
        "{text}"
    );
    let again = first.open().await;
    assert_eq!(again.loaded.clusters.len(), 1);
    again.close().await;
}

#[tokio::test]
async fn a_hold_is_good_while_its_beats_are_taken() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return why.skip("beats that are not taken"),
    };
    let master = Master::of(&server.url(&server.database()));
    let open = master.open().await;
    open.hold.until_good().await.expect("it is taken");
    server.stop();
    let ended = tokio::time::timeout(LIMIT, open.hold.until_not_good()).await;
    ended.expect("without beats it ends");
    server.run();
    let good = tokio::time::timeout(LIMIT, open.hold.until_good()).await;
    good.expect("with beats it is good again")
        .expect("is not lost");
    open.close().await;
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused_and_left_alone() {
    let Some(server) = server("newer tables") else {
        return;
    };
    let database = server.database();
    let master = Master::of(&server.url(&database));
    master.open().await.close().await;
    server.ask(&database, "UPDATE fleet SET schema = 999");
    let text = refusal(&master.postgres).await;
    assert!(
        text.contains("tables of version 999") && text.contains("newer aot-master"),
        "{text}"
    );
    assert_eq!(server.ask(&database, "SELECT schema FROM fleet"), "999");
    assert_eq!(server.ask(&database, "SELECT count(*) FROM masters"), "0");
}

#[tokio::test]
async fn what_is_in_the_way_is_said_with_the_way_out() {
    let Some(server) = server("what is in the way") else {
        return;
    };
    let nobody = quick("postgres://aot:s3cret@127.0.0.1:1/records");
    let text = refusal(&nobody).await;
    assert!(
        text.contains("cannot connect to postgres://aot@127.0.0.1:1/records"),
        "{text}"
    );
    assert!(
        text.contains("does PostgreSQL run there") && !text.contains("s3cret"),
        "{text}"
    );
    let text = refusal(&quick(&server.url("no_such_database"))).await;
    assert!(
        text.contains("compare user, password and database"),
        "{text}"
    );
    let read_only = server.database();
    let forbid = format!("ALTER DATABASE {read_only} SET default_transaction_read_only = on");
    server.ask("postgres", &forbid);
    let text = refusal(&quick(&server.url(&read_only))).await;
    assert!(text.contains("does not allow writes"), "{text}");
    let local = tempfile::tempdir().expect("a folder");
    std::fs::write(local.path().join("aot.sqlite"), "").expect("writes");
    let refused = quick(&server.url("any")).open_here(local.path()).await;
    let text = Chain(&refused.err().expect("is refused")).to_string();
    assert!(
        text.contains("aot.sqlite has records of this state"),
        "{text}"
    );
    assert!(!local.path().join("master-id").exists());
}
