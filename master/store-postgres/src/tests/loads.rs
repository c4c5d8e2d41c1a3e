//! How the records of one cluster are read, and what is left of it.

use aot_host::chain::Chain;
use aot_store::fleet::Whereabouts;

use super::fleet::{join, name};
use super::*;
use crate::connect::EngineLink;

/// As when whoever asked for it has gone: what is read next is of now.
#[tokio::test]
async fn a_load_that_was_given_up_leaves_nothing_behind() {
    let Some(server) = server("a load that was given up") else {
        return;
    };
    let a = join(Master::of(&server.url(&server.database()))).await;
    let web = a.has("web").await;
    for round in 1..20 {
        let cluster = name("web");
        // Dropped at each of its first steps.
        let mut peek = a.fleet.peek(&cluster);
        for _ in 0..round {
            if futures::poll!(&mut peek).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(peek);
        a.write(&web, round).await.expect("commits");
        let found = a.fleet.peek(&cluster).await.expect("reads");
        assert_eq!(found.jobs.len() as u64, round);
    }
    // Something is open: it is not forgotten, whatever its owner thinks.
    a.fleet.give_back(&web.hold, true).await;
    assert_eq!(a.sees("web").await, Whereabouts::Nowhere);
    a.close().await;
}

#[tokio::test]
async fn a_load_that_hangs_is_given_up_and_tried_again_later() {
    let Some(server) = server("a load that hangs") else {
        return;
    };
    let database = server.database();
    let url = server.url(&database);
    let mut impatient = Master::of(&url);
    impatient.postgres.timing.load = Duration::from_millis(500);
    let a = join(impatient).await;
    let in_the_way = EngineLink::new(&a.master.postgres.url).expect("a link");
    let session = in_the_way.session().await.expect("connects");
    let lock = "SET idle_in_transaction_session_timeout = 0; BEGIN; LOCK TABLE instances";
    session.batch(lock).await.expect("locks");
    let cluster = name("web");
    let taken = tokio::time::timeout(LIMIT, a.fleet.take(&cluster)).await;
    let error = taken.expect("it is given up").expect_err("nothing is read");
    let text = Chain(&error).to_string();
    assert!(text.contains("cluster web were not read"), "{text}");
    assert_eq!(
        a.sees("web").await,
        Whereabouts::Nowhere,
        "it was given back"
    );
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
        AND datname = current_database()";
    let nobody_waits = || server.ask(&database, waiting) == "0";
    until(nobody_waits).await;
    session.batch("COMMIT").await.expect("unlocks");
    a.has("web").await;
    a.close().await;
}

#[tokio::test]
async fn a_cluster_with_an_open_run_alone_is_not_forgotten() {
    let Some(server) = server("an open run that is left") else {
        return;
    };
    let database = server.database();
    let a = join(Master::of(&server.url(&database))).await;
    let web = a.has("web").await;
    server.ask(
        &database,
        "INSERT INTO runs VALUES ('r', 'j', 'web/one', 'exec', true, '{}')",
    );
    a.fleet.give_back(&web.hold, true).await;
    assert_eq!(a.sees("web").await, Whereabouts::Nowhere);
    server.ask(&database, "UPDATE runs SET open = false");
    let web = a.has("web").await;
    a.fleet.give_back(&web.hold, true).await;
    assert_eq!(a.sees("web").await, Whereabouts::Unknown);
    a.close().await;
}
