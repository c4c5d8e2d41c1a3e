//! Levels of records: a master takes nothing that it would drop, and the fleet continues once all that live know more.

use aot_host::chain::Chain;
use aot_model::level::LEVEL;

use super::fleet::{Member, join};
use super::*;

/// That of a master which knows more than this program.
const NEXT: i32 = LEVEL + 1;

/// A master of another build.
fn of_level(url: &str, level: i32) -> Master {
    let mut master = Master::of(url);
    master.postgres.level = level;
    master
}

async fn member(url: &str, level: i32) -> Member {
    join(of_level(url, level)).await
}

#[tokio::test]
async fn a_cluster_of_a_later_level_is_left_to_masters_that_know_it() {
    let Some(server) = server("levels of clusters") else {
        return;
    };
    let database = server.database();
    let url = server.url(&database);
    let (older, newer) = (member(&url, LEVEL).await, member(&url, NEXT).await);
    let (web, db) = (older.has("web").await, older.has("db").await);
    for hold in [&web.hold, &db.hold] {
        older.fleet.give_back(hold, false).await;
    }
    let sql = format!("UPDATE owners SET level = {NEXT} WHERE cluster = 'web'");
    server.ask(&database, &sql);
    assert!(
        older.take("web").await.is_none(),
        "it would drop what it cannot read"
    );
    older.has("db").await;
    let web = newer.has("web").await;
    let level = |cluster: &str| {
        let sql = format!("SELECT level FROM owners WHERE cluster = '{cluster}'");
        server.ask(&database, &sql)
    };
    // The fleet's level is still the one before: what the records have is not forgotten.
    assert_eq!(
        (level("web"), level("db")),
        (NEXT.to_string(), LEVEL.to_string())
    );
    assert_eq!(web.hold.level(), NEXT);
    newer.fleet.give_back(&web.hold, false).await;
    assert!(older.take("web").await.is_none(), "still");
    older.close().await;
    newer.close().await;
}

#[tokio::test]
async fn a_fleet_of_a_later_level_is_written_by_masters_that_know_it_alone() {
    let Some(server) = server("levels of a fleet") else {
        return;
    };
    let database = server.database();
    let url = server.url(&database);
    let (older, newer) = (member(&url, LEVEL).await, member(&url, NEXT).await);
    server.ask(&database, &format!("UPDATE fleet SET level = {NEXT}"));
    assert!(older.take("web").await.is_none(), "nor one that is new");
    assert!(older.fleet.take_janitor().await.expect("asks").is_none());
    newer.has("web").await;
    let level = server.ask(&database, "SELECT level FROM owners WHERE cluster = 'web'");
    assert_eq!(level, NEXT.to_string(), "what is written from now on");
    older.close().await;
    newer.close().await;
    // One that has all records for itself says it, and the way out.
    let error = Master::alone(&url).try_open().await.err();
    let text = Chain(&error.expect("is refused")).to_string();
    assert!(
        text.contains(&format!("level {NEXT}")) && text.contains("update this master"),
        "{text}"
    );
}

#[tokio::test]
async fn what_a_master_has_rises_with_the_fleet_while_it_has_it() {
    let Some(server) = server("a level that rises under a hold") else {
        return;
    };
    let database = server.database();
    let url = server.url(&database);
    let newer = member(&url, NEXT).await;
    let (web, db) = (newer.has("web").await, newer.has("db").await);
    assert_eq!(
        (web.hold.level(), db.hold.level()),
        (LEVEL, LEVEL),
        "tables that are new are of the level of the program that made them"
    );
    quick(&url).raise_level().await.expect("asks");
    until(|| web.hold.level() == NEXT && db.hold.level() == NEXT).await;
    let least = "SELECT min(level) FROM owners WHERE cluster IN ('web', 'db')";
    assert_eq!(
        server.ask(&database, least),
        NEXT.to_string(),
        "no older one may take them"
    );
    newer.write(&web, 1).await.expect("commits");
    newer.close().await;
}

#[tokio::test]
async fn one_that_has_all_records_writes_what_it_knows_and_leaves_them_to_nobody_who_does_not() {
    let Some(server) = server("levels of one master") else {
        return;
    };
    let url = server.url(&server.database());
    let mut master = Master::alone(&url);
    let opened = master.open().await;
    assert_eq!(opened.hold.level(), LEVEL);
    opened.write(1).await.expect("commits");
    opened.close().await;
    // It is another program from then on.
    master.postgres.level = NEXT;
    let opened = master.open().await;
    assert_eq!(opened.hold.level(), NEXT);
    opened.close().await;
    master.postgres.level = LEVEL;
    let error = master.try_open().await.err().expect("is refused");
    assert!(Chain(&error).to_string().contains("update this master"));
    // Divided among several, each cluster is of the level that all had.
    let newer = member(&url, NEXT).await;
    let older = member(&url, LEVEL).await;
    let cluster = cluster().spec.name;
    assert!(older.take(cluster.as_str()).await.is_none());
    assert_eq!(newer.has(cluster.as_str()).await.hold.level(), NEXT);
    older.close().await;
    newer.close().await;
}

#[tokio::test]
async fn the_level_rises_to_what_all_know_that_live() {
    let Some(server) = server("a level that rises") else {
        return;
    };
    let database = server.database();
    let url = server.url(&database);
    let by_hand = quick(&url);
    let error = by_hand.raise_level().await.expect_err("nobody is there");
    assert!(matches!(error, crate::Error::NoFleet { .. }), "{error}");
    let older = member(&url, LEVEL).await;
    let newer = member(&url, NEXT).await;
    let known = |raise: &crate::LevelRaise| -> Vec<(i32, bool)> {
        let mut all: Vec<_> = raise
            .masters
            .iter()
            .map(|it| (it.level, it.is_alive))
            .collect();
        all.sort();
        all
    };
    let raise = by_hand.raise_level().await.expect("asks");
    assert_eq!(
        (raise.was, raise.is),
        (LEVEL, LEVEL),
        "one does not know it"
    );
    assert_eq!(known(&raise), [(LEVEL, true), (NEXT, true)]);
    older.close().await;
    // An entry of one that died, which nobody waits for longer than a beat takes.
    let sql = format!(
        "INSERT INTO masters (id, incarnation, beat, version, level) VALUES ('dead/1', 1, 1, '0', {LEVEL})"
    );
    server.ask(&database, &sql);
    let raise = by_hand.raise_level().await.expect("asks");
    assert_eq!((raise.was, raise.is), (LEVEL, NEXT));
    assert_eq!(known(&raise), [(LEVEL, false), (NEXT, true)]);
    let raise = by_hand.raise_level().await.expect("asks");
    assert_eq!((raise.was, raise.is), (NEXT, NEXT), "it is so");
    newer.close().await;
    // It never falls, whoever lives; and of nobody nothing is learnt.
    let raise = by_hand.raise_level().await.expect("asks");
    assert_eq!((raise.was, raise.is), (NEXT, NEXT));
    let older = member(&url, LEVEL).await;
    let raise = by_hand.raise_level().await.expect("asks");
    assert_eq!(raise.is, NEXT);
    older.close().await;
}
