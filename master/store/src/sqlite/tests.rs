mod migrations;

use super::*;

use aot_model::outcome::{Outcome, Verdict};
use aot_proto::ids::InstanceName;

use crate::contract::samples::{job, targets};
use crate::contract::{CHECKS, Place};

#[tokio::test]
async fn it_meets_the_contract() {
    for (name, check) in CHECKS {
        println!("{name}");
        let dir = tempfile::tempdir().expect("a folder");
        let place = Place {
            backend: Arc::new(Sqlite),
            dir: dir.path().to_owned(),
        };
        check(place).await;
    }
}

fn hold() -> Hold {
    Hold::kept("")
}

/// Every write of a batch is answered with what the database said, not with an error made up for it.
#[tokio::test]
async fn a_failed_write_is_answered_with_its_cause() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, _) = SqliteStore::open(dir.path()).expect("opens");
    Connection::open(store.path())
        .and_then(|other| {
            other.execute_batch(
                "CREATE TRIGGER full BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
            )
        })
        .expect("a trigger that refuses");
    let hold = hold();
    let changes = || Changes {
        jobs: vec![job(1, false)],
        ..Changes::default()
    };
    let (first, second) = tokio::join!(
        store.commit(&hold, changes(), Vec::new()),
        store.commit(&hold, changes(), Vec::new())
    );
    for answer in [first, second] {
        let error = answer.expect_err("refused");
        let text = aot_host::chain::Chain(&error).to_string();
        assert!(matches!(error, Error::Write { .. }), "{text}");
        assert!(text.contains("could not be written"), "{text}");
        assert_eq!(text.matches("the disk is full").count(), 1, "{text}");
    }
    store.close(&hold).await;
}

/// What the contract can't see: that nothing is left in the file.
#[tokio::test]
async fn the_targets_of_a_dropped_job_are_gone_from_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, _) = SqliteStore::open(dir.path()).expect("opens");
    let changes = Changes {
        jobs: vec![job(1, false), job(2, true)],
        targets: [targets(1, 3), targets(2, 2)].concat(),
        ..Changes::default()
    };
    let hold = hold();
    store
        .commit(&hold, changes, Vec::new())
        .await
        .expect("commits");
    let sweep = Sweep {
        jobs: vec![JobId::from_parts(2, 0)],
        ..Sweep::default()
    };
    store.sweep(&hold, sweep).await.expect("sweeps");
    store.close(&hold).await;
    let connection = Connection::open(store.path()).expect("opens");
    let left: i64 = connection
        .query_row("SELECT count(*) FROM targets", [], |row| row.get(0))
        .expect("counts");
    assert_eq!(left, 3);
}

#[tokio::test]
async fn a_state_whose_records_are_in_a_database_is_given_no_file() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join(ELSEWHERE), "x").expect("writes");
    let refused = Sqlite.open(dir.path()).await.err().expect("is refused");
    assert!(matches!(refused, Error::Elsewhere { .. }), "{refused}");
    assert!(!dir.path().join(FILE).exists());
}

#[tokio::test]
async fn a_target_whose_name_is_none_is_refused_as_a_record_that_cannot_be_read() {
    let is_refused =
        |error: &Error| matches!(error, Error::Record { table, .. } if *table == "targets");
    for (column, value) in [("instance", "no name"), ("record", "no record")] {
        let dir = tempfile::tempdir().expect("a folder");
        let (store, _) = SqliteStore::open(dir.path()).expect("opens");
        let changes = Changes {
            jobs: vec![job(1, false)],
            targets: targets(1, 2),
            ..Changes::default()
        };
        let hold = hold();
        store
            .commit(&hold, changes, Vec::new())
            .await
            .expect("commits");
        let spoil = format!("UPDATE targets SET {column} = ?1 WHERE instance = 'a1'");
        Connection::open(store.path())
            .and_then(|connection| connection.execute(&spoil, [value]))
            .expect("spoils");
        let one = store.job(JobId::from_parts(1, 0)).await.map(drop);
        let all = store.jobs(None, 9).await.map(drop);
        store.close(&hold).await;
        let loaded = SqliteStore::open(dir.path()).map(drop);
        for read in [one, all, loaded] {
            let error = read.expect_err(column);
            assert!(is_refused(&error), "{column}: {error:?}");
        }
    }
}
