use std::sync::Arc;

use aot_model::task::{Exec, Task};
use aot_model::world::Changes;
use aot_proto::ids::{JobId, RunId};
use prost::bytes::Bytes;

use super::*;
use crate::blobs::{BlobFolder, Blobs};
use crate::contract::samples::{self, instance, job, run, targets};
use crate::sqlite::{FILE, MOVED, SqliteStore, mark_moved, moved_to};
use crate::{Hold, Store};

/// A folder with a cluster that has one of everything, and with a job of one that is gone.
async fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, _) = SqliteStore::open(dir.path()).expect("opens");
    let instances = vec![instance("a"), instance("b")];
    let mut gone = job(9, true);
    gone.cluster = "gone".parse().expect("a name");
    let changes = Changes {
        clusters: vec![samples::cluster()],
        facts: samples::facts_of(&instances),
        instances,
        jobs: vec![job(1, false), job(2, true), gone],
        targets: [targets(1, 3), targets(2, 2), targets(9, 1)].concat(),
        tasks: vec![
            (
                JobId::from_parts(1, 0),
                Arc::new(Task::Command(Exec::default())),
            ),
            (
                JobId::from_parts(2, 0),
                Arc::new(Task::CopyOut(vec!["/x".to_owned()])),
            ),
        ],
        runs: vec![run(1, 1, false), run(2, 2, true), run(3, 1, true)],
        ..Changes::default()
    };
    let spools = vec![(RunId::from_parts(3, 0), Bytes::from_static(b"short"))];
    let hold = Hold::kept("");
    store.commit(&hold, changes, spools).await.expect("commits");
    store.close(&hold).await;
    dir
}

fn all(export: &SqliteExport, cluster: &str, table: RecordTable) -> Vec<StoredRow> {
    let mut rows = Vec::new();
    let name = cluster.parse().expect("a name");
    let read = export.rows(&name, table, |page| {
        rows.extend(page);
        true
    });
    read.expect("reads");
    rows
}

#[tokio::test]
async fn each_row_is_given_once_to_the_cluster_that_it_is_of() {
    let dir = filled().await;
    let export = SqliteExport::open(dir.path()).expect("opens");
    let clusters = export.clusters().expect("reads");
    let found: Vec<_> = clusters
        .iter()
        .map(|it| (it.name.as_str(), it.is_open, it.is_local))
        .collect();
    assert_eq!(found, [("c", true, false), ("gone", false, false)]);
    let counts = |cluster| RecordTable::ALL.map(|table| all(&export, cluster, table).len());
    assert_eq!(counts("c"), [1, 2, 2, 2, 5, 2, 3, 1]);
    assert_eq!(counts("gone"), [0, 0, 0, 1, 1, 0, 0, 0]);
    assert_eq!(export.rows_of_nobody().expect("counts"), 0);
    let jobs = all(&export, "c", RecordTable::Jobs);
    let ends: Vec<_> = jobs.iter().map(|row| row.0[2].clone()).collect();
    assert_eq!(ends, [None, Some(2)].map(StoredCell::Number));
    let runs = all(&export, "c", RecordTable::Runs);
    let open: Vec<_> = runs.iter().map(|row| row.0[4].clone()).collect();
    assert_eq!(open, [true, false, false].map(StoredCell::Flag));
    let spools = all(&export, "c", RecordTable::Spools);
    assert_eq!(spools[0].0[1], StoredCell::Bytes(b"short".to_vec()));
}

#[tokio::test]
async fn many_rows_come_in_pages_and_no_more_are_read_than_are_wanted() {
    let dir = filled().await;
    let (store, _) = SqliteStore::open(dir.path()).expect("opens");
    let hold = Hold::kept("");
    let changes = Changes {
        targets: targets(1, 2 * u32::try_from(PAGE_ROWS).expect("fits")),
        ..Changes::default()
    };
    store
        .commit(&hold, changes, Vec::new())
        .await
        .expect("commits");
    store.close(&hold).await;
    let export = SqliteExport::open(dir.path()).expect("opens");
    let name = "c".parse().expect("a name");
    let mut sizes = Vec::new();
    for wanted in [usize::MAX, 1] {
        let mut pages = Vec::new();
        let read = export.rows(&name, RecordTable::Targets, |page| {
            pages.push(page.len());
            pages.len() < wanted
        });
        read.expect("reads");
        sizes.push(pages);
    }
    assert_eq!(sizes, [vec![PAGE_ROWS, PAGE_ROWS, 2], vec![PAGE_ROWS]]);
}

#[tokio::test]
async fn whatever_differs_is_seen_in_the_digest() {
    let dir = filled().await;
    let export = SqliteExport::open(dir.path()).expect("opens");
    let name = "c".parse().expect("a name");
    let before = export.digest(&name).expect("reads");
    assert_eq!(export.digest(&name).expect("reads"), before);
    for change in [
        "UPDATE runs SET open = 1 WHERE id = (SELECT max(id) FROM runs)",
        "UPDATE spools SET bytes = x'00'",
        "DELETE FROM targets WHERE instance = 'a2'",
    ] {
        let spoil = |sql: &str| export.connection().execute_batch(sql).expect("spoils");
        spoil(&format!("BEGIN; {change}"));
        assert_ne!(export.digest(&name).expect("reads"), before, "{change}");
        spoil("ROLLBACK");
    }
    let text = |cells: &[&str]| {
        let mut digest = RowsDigest::default();
        let cell = |text: &&str| StoredCell::Text((*text).to_owned());
        digest.add(&StoredRow(cells.iter().map(cell).collect()));
        digest
    };
    assert_ne!(text(&["ab", "c"]), text(&["a", "bc"]));
}

#[tokio::test]
async fn only_files_that_somebody_may_ask_for_are_put_and_each_once() {
    let dir = filled().await;
    let [sha, other] = ["a", "b"].map(|digit| digit.repeat(64));
    for (folder, name) in [
        ("spools", RunId::from_parts(1, 0).to_string()), // open
        ("spools", RunId::from_parts(2, 0).to_string()), // copied from instances
        ("spools", RunId::from_parts(3, 0).to_string()),
        ("spools", RunId::from_parts(7, 0).to_string()), // nobody's
        ("spools", "boot".to_owned()),
        ("bundles", sha.clone()),
        ("agents", other.clone()),
        ("transfers", format!("{sha}.part")),
    ] {
        let folder = dir.path().join(folder);
        std::fs::create_dir_all(&folder).expect("makes");
        std::fs::write(folder.join(name), "bytes").expect("writes");
    }
    let export = SqliteExport::open(dir.path()).expect("opens");
    let files = export.files().expect("reads");
    let keys: Vec<String> = files.iter().map(|it| it.key.to_string()).collect();
    let output = format!("outputs/c/{}", RunId::from_parts(3, 0));
    assert_eq!(
        keys,
        [output, format!("bundles/{sha}"), format!("agents/{other}")]
    );
    let place = tempfile::tempdir().expect("a folder");
    let blobs: Arc<dyn Blobs> = Arc::new(BlobFolder::new(place.path()));
    let put = |files: usize| PutFiles {
        files,
        bytes: 5 * files as u64,
    };
    assert_eq!(put_files(&files, &blobs).await.expect("puts"), put(3));
    assert_eq!(put_files(&files, &blobs).await.expect("puts"), put(0));
    blobs.delete(&files[1].key).await.expect("deletes");
    assert_eq!(put_files(&files, &blobs).await.expect("puts"), put(1));
    std::fs::remove_file(&files[0].path).expect("removes");
    blobs.delete(&files[0].key).await.expect("deletes");
    put_files(&files, &blobs)
        .await
        .expect_err("one is not there");
}

#[tokio::test]
async fn a_folder_that_was_moved_is_served_by_nobody_and_says_where_its_records_are() {
    let dir = filled().await;
    assert_eq!(moved_to(dir.path()).expect("reads"), None);
    mark_moved(dir.path(), "postgres://db/aot").expect("marks");
    let refused = [
        SqliteStore::open(dir.path()).err(),
        SqliteExport::open(dir.path()).err(),
    ];
    for error in refused {
        let text = error.expect("is refused").to_string();
        assert!(text.contains("postgres://db/aot"), "{text}");
    }
    std::fs::remove_file(dir.path().join(MOVED)).expect("removes");
    assert!(SqliteStore::open(dir.path()).is_ok());
    std::fs::remove_file(dir.path().join(FILE)).expect("removes");
    let none = SqliteExport::open(dir.path()).err().expect("is refused");
    assert!(matches!(none, Error::NoRecords { .. }), "{none}");
}
