//! Stores of before, each brought to what it is now, and stores of later.

use super::*;
use aot_model::batch::PlannedPool;
use aot_model::samples;
use aot_model::spec::{MemberSpec, ProviderKind};
use rusqlite::params;

async fn close(store: SqliteStore) {
    store.close(&hold()).await;
}

#[tokio::test]
async fn a_cluster_of_version_2_keeps_its_prerequisites() {
    let dir = tempfile::tempdir().expect("a folder");
    close(SqliteStore::open(dir.path()).expect("opens").0).await;
    let with = |name: &str, token: Option<&str>| {
        let spec = samples::file(name, ProviderKind::Ec2, Vec::new());
        let mut cluster = samples::empty_cluster(spec);
        cluster.prerequisites.discovery_token = token.map(str::to_owned);
        cluster
    };
    let clusters = [with("a", Some("https://x/1")), with("b", None)];
    let connection = Connection::open(dir.path().join("aot.sqlite")).expect("opens");
    for cluster in &clusters {
        let mut record = serde_json::to_value(cluster).expect("writes");
        let fields = record.as_object_mut().expect("an object");
        let old = fields.remove("prerequisites").expect("is written");
        fields.insert("batches".to_owned(), serde_json::json!({})); // as they were before version 5
        if cluster.prerequisites.discovery_token.is_some() {
            fields.insert("ground".to_owned(), old);
        } // and one from before there was such a field
        let values = [cluster.spec.name.to_string(), record.to_string()];
        connection
            .execute("INSERT INTO clusters VALUES (?1, ?2)", values)
            .expect("inserts");
    }
    connection
        .execute_batch("DROP TABLE targets; PRAGMA user_version = 2")
        .expect("as it was");
    drop(connection);
    let (_store, loaded) = SqliteStore::open(dir.path()).expect("opens");
    assert_eq!(loaded.clusters, clusters);
}

/// Of before targets had rows of their own: all of them, and the order of those that wait, in the job's record.
#[tokio::test]
async fn a_job_of_version_3_keeps_its_targets_and_their_order() {
    let dir = tempfile::tempdir().expect("a folder");
    close(SqliteStore::open(dir.path()).expect("opens").0).await;
    let end = Verdict {
        exit_code: Some(3),
        ..Verdict::without_run(Outcome::Failed, "with \"quotes\"")
    };
    let connection = Connection::open(dir.path().join("aot.sqlite")).expect("opens");
    connection
        .execute_batch("DROP TABLE targets; PRAGMA user_version = 3")
        .expect("as it was");
    let names: [InstanceName; 4] = ["a1", "a2", "a10", "a11"].map(|it| it.parse().expect("a name"));
    let old = |id: u64, waiting: Option<&[&str]>| {
        let mut record = serde_json::to_value(job(id, waiting.is_none())).expect("writes");
        let fields = record.as_object_mut().expect("an object");
        let verdict = serde_json::to_value(&end).expect("writes");
        let targets = serde_json::json!({"a1": verdict, "a2": null, "a10": null, "a11": null});
        fields.insert("targets".to_owned(), targets);
        if let Some(waiting) = waiting {
            fields.insert("waiting".to_owned(), serde_json::json!(waiting));
        } // and one from before there was such a field
        let values = params![
            JobId::from_parts(id, 0).to_string(),
            waiting.is_some(),
            record.to_string()
        ];
        connection
            .execute("INSERT INTO jobs VALUES (?1, 'c', ?2, ?3)", values)
            .expect("inserts");
    };
    old(1, Some(&["a10", "a2"]));
    old(2, None);
    drop(connection);
    let (store, mut loaded) = SqliteStore::open(dir.path()).expect("opens");
    let mut open = loaded.jobs.pop().expect("the open one");
    assert!(loaded.jobs.is_empty());
    let ends = |job: &Job| names.clone().map(|name| job.targets[&name].clone());
    let had = [Some(end.clone()), None, None, None];
    assert_eq!(ends(&open), had);
    assert_eq!(open.waiting.pop_all(), [names[2].clone(), names[1].clone()]);
    assert_eq!(
        Job {
            targets: Default::default(),
            ..open
        },
        job(1, false)
    );
    let over = store.job(JobId::from_parts(2, 0)).await;
    let over = over.expect("reads").expect("is there");
    assert_eq!(ends(&over), had);
    assert!(over.waiting.is_empty());
    let sql = "SELECT count(*) FROM jobs WHERE record LIKE '%targets%' OR record LIKE '%waiting%'";
    let left: i64 = store
        .reader
        .connection()
        .query_row(sql, [], |row| row.get(0))
        .expect("counts");
    assert_eq!(left, 0);
}

/// Of before a batch named its pool: each had all of it, with all of its members.
#[tokio::test]
async fn a_cluster_of_version_4_keeps_its_batches() {
    let dir = tempfile::tempdir().expect("a folder");
    close(SqliteStore::open(dir.path()).expect("opens").0).await;
    let mut pools = vec![samples::pool("a", 3), samples::pool("b", 2)];
    pools[1].members[1].hostname = "other".to_owned();
    let mut cluster = samples::empty_cluster(samples::file("c", ProviderKind::Ec2, pools.clone()));
    for (number, (pool, members)) in [(0, 0..2), (0, 2..3), (1, 0..2)].into_iter().enumerate() {
        let planned = PlannedPool::new(pools[pool].clone());
        let members = planned.members[members].to_vec();
        let batch = samples::batch(&format!("token{number}"), planned, members);
        cluster.batches.insert(batch.token.0.clone(), batch);
    }
    let mut record = serde_json::to_value(&cluster).expect("writes");
    assert_eq!(
        record["batches"]["pools"].as_object().expect("pools").len(),
        2
    );
    let whole =
        |member: &MemberSpec| serde_json::json!({"name": member.name, "hostname": member.hostname});
    let mut old = serde_json::Map::new();
    for (token, batch) in &cluster.batches {
        let mut fields = record["batches"]["calls"][token].take();
        fields["members"] = batch.members.iter().map(whole).collect();
        fields["spec"] = serde_json::to_value(&*batch.spec).expect("writes");
        fields["spec"]["members"] = batch.spec.members.iter().map(whole).collect();
        old.insert(token.clone(), fields);
    }
    record["batches"] = old.into();
    for (number, pool) in pools.iter().enumerate() {
        record["spec"]["pools"][number]["members"] = pool.members.iter().map(whole).collect();
    }
    let connection = Connection::open(dir.path().join("aot.sqlite")).expect("opens");
    connection
        .execute(
            "INSERT INTO clusters VALUES ('c', ?1)",
            [record.to_string()],
        )
        .expect("inserts");
    connection
        .pragma_update(None, "user_version", 4)
        .expect("sets");
    drop(connection);
    let (_store, loaded) = SqliteStore::open(dir.path()).expect("opens");
    assert_eq!(loaded.clusters, [cluster]);
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    close(SqliteStore::open(dir.path()).expect("opens").0).await;
    let connection = Connection::open(dir.path().join("aot.sqlite")).expect("opens");
    connection
        .pragma_update(None, "user_version", 999)
        .expect("sets");
    drop(connection);
    assert!(matches!(
        SqliteStore::open(dir.path()),
        Err(Error::TooNew { found: 999, .. })
    ));
}
