//! Levels of records: a master takes nothing that it would drop, and the fleet goes on once all that live know more.

use aot_host::chain::Chain;

use super::fleet::{Member, join};
use super::*;
use crate::schema::LEVEL;

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
    let (older, newer) = (member(&url, LEVEL).await, member(&url, LEVEL + 1).await);
    let (web, db) = (older.has("web").await, older.has("db").await);
    for hold in [&web.hold, &db.hold] {
        older.fleet.give_back(hold, false).await;
    }
    server.ask(
        &database,
        "UPDATE owners SET level = 2 WHERE cluster = 'web'",
    );
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
    // The fleet's level is still the first: what the records have is not forgotten.
    assert_eq!(
        (level("web"), level("db")),
        ("2".to_owned(), "1".to_owned())
    );
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
    let (older, newer) = (member(&url, LEVEL).await, member(&url, LEVEL + 1).await);
    server.ask(&database, "UPDATE fleet SET level = 2");
    assert!(older.take("web").await.is_none(), "nor one that is new");
    assert!(older.fleet.take_janitor().await.expect("asks").is_none());
    newer.has("web").await;
    let level = server.ask(&database, "SELECT level FROM owners WHERE cluster = 'web'");
    assert_eq!(level, "2", "what is written from now on");
    older.close().await;
    newer.close().await;
    // One that has all records for itself says it, and the way out.
    let error = Master::alone(&url).try_open().await.err();
    let text = Chain(&error.expect("is refused")).to_string();
    assert!(
        text.contains("level 2") && text.contains("update this master"),
        "{text}"
    );
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
    let newer = member(&url, LEVEL + 1).await;
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
    assert_eq!(known(&raise), [(LEVEL, true), (LEVEL + 1, true)]);
    older.close().await;
    // An entry of one that died, which nobody waits for longer than a beat takes.
    server.ask(
        &database,
        "INSERT INTO masters (id, incarnation, beat, version, level) VALUES ('dead/1', 1, 1, '0', 1)",
    );
    let raise = by_hand.raise_level().await.expect("asks");
    assert_eq!((raise.was, raise.is), (LEVEL, LEVEL + 1));
    assert_eq!(known(&raise), [(LEVEL, false), (LEVEL + 1, true)]);
    let raise = by_hand.raise_level().await.expect("asks");
    assert_eq!((raise.was, raise.is), (LEVEL + 1, LEVEL + 1), "it is so");
    newer.close().await;
    // It never falls, whoever lives; and of nobody nothing is learnt.
    let raise = by_hand.raise_level().await.expect("asks");
    assert_eq!((raise.was, raise.is), (LEVEL + 1, LEVEL + 1));
    let older = member(&url, LEVEL).await;
    let raise = by_hand.raise_level().await.expect("asks");
    assert_eq!(raise.is, LEVEL + 1);
    older.close().await;
}
