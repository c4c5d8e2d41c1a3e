//! Answers that are lost, late or never asked for: what became of a write is asked, and it is made once.

use super::proxy::{HELD, NO_ANSWER, NO_COMMIT_ANSWER, NO_REQUEST, Proxy};
use super::*;

/// A master behind a wire. It beats once, before the wire is cut, and then too late to be met instead of a write.
async fn behind_a_wire(server: &Server) -> (Proxy, Opened, String) {
    let database = server.database();
    let proxy = Proxy::to(server.port()).await;
    let mut master = Master::alone(&server.url_by_port(proxy.port, &database));
    master.postgres.timing.beat = LIMIT;
    let open = master.open().await;
    until(|| server.ask(&database, "SELECT max(beat) FROM masters") == "1").await;
    (proxy, open, database)
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_made_once() {
    let Some(server) = server("lost answers") else {
        return;
    };
    let (proxy, open, database) = behind_a_wire(&server).await;
    let mut written = 0;
    for (mode, asked) in [(NO_ANSWER, 1), (NO_REQUEST, 2), (HELD, 3), (NO_ANSWER, 4)] {
        written += 1;
        open.write(written).await.expect("commits"); // its statement is prepared
        written += 1;
        proxy.set(mode);
        let write = tokio::time::timeout(LIMIT, open.write(written));
        write.await.expect("in time").expect("commits");
        assert_eq!(proxy.broken(), asked, "mode {mode} was met");
        assert_eq!(open.store.writers.counts().0, asked);
        assert_eq!(
            counted(&server, &database),
            open.raised(written),
            "mode {mode}"
        );
    }
    assert_eq!(open.jobs().await, (1..=written).map(id).collect::<Vec<_>>());
    open.close().await;
}

/// Too large for one statement: nothing of it is there before all of it is.
#[tokio::test]
async fn a_large_write_whose_answer_is_lost_is_made_once() {
    let Some(server) = server("lost answers of large writes") else {
        return;
    };
    let (proxy, open, database) = behind_a_wire(&server).await;
    let large = |number: u64| {
        let mut changes = one(number);
        changes.jobs[0].what = "x".repeat(5 << 20);
        changes
    };
    for (number, mode) in [(1, NO_REQUEST), (2, NO_ANSWER), (3, NO_COMMIT_ANSWER)] {
        proxy.set(mode);
        let write = open.store.commit(&open.hold, large(number), Vec::new());
        let write = tokio::time::timeout(LIMIT, write).await;
        write.expect("in time").expect("commits");
        assert_eq!(counted(&server, &database), open.raised(number));
    }
    assert_eq!(proxy.broken(), 3);
    assert_eq!(open.jobs().await, [id(1), id(2), id(3)]);
    open.close().await;
}

/// Whoever waited for it is gone; the next write finds out what became of it.
#[tokio::test]
async fn a_write_that_was_given_up_on_is_counted_by_the_next() {
    let Some(server) = server("writes given up on") else {
        return;
    };
    let (proxy, open, database) = behind_a_wire(&server).await;
    open.write(1).await.expect("commits");
    proxy.set(HELD);
    tokio::select! {
        biased;
        written = open.write(2) => panic!("its answer is held back: {written:?}"),
        () = until(|| counted(&server, &database) == 2) => {} // it was taken
    }
    open.write(3).await.expect("commits");
    assert_eq!(open.jobs().await, [id(1), id(2), id(3)]);
    assert_eq!(counted(&server, &database), 3);
    open.close().await;
}

#[tokio::test]
async fn what_the_engine_will_never_take_is_refused_and_nothing_of_it_is_there() {
    let Some(server) = server("refused writes") else {
        return;
    };
    let database = server.database();
    let master = Master::alone(&server.url(&database));
    let open = master.open().await;
    server.ask(
        &database,
        "ALTER TABLE targets ADD CONSTRAINT never CHECK (instance <> 'a1') NOT VALID",
    );
    let refused = open.write(1).await.expect_err("is refused");
    let text = aot_host::chain::Chain(&refused).to_string();
    assert!(text.contains("cannot write to postgres://aot@"), "{text}");
    assert!(text.contains("never"), "{text}");
    assert!(open.jobs().await.is_empty());
    server.ask(&database, "ALTER TABLE targets DROP CONSTRAINT never");
    open.write(2).await.expect("commits");
    assert_eq!(open.jobs().await, [id(2)]);
    open.close().await;
}
