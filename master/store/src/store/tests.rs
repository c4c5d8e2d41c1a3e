mod migrations;

use std::collections::{HashMap, HashSet};

use super::*;
use std::sync::Arc;

use aot_model::job::{Job, JobKind, TargetRecord};
use aot_model::key::{ClusterUuid, InstanceKey};
use aot_model::outcome::{Outcome, Verdict};
use aot_model::run::{Run, RunKind, RunState};
use aot_model::task::Task;
use aot_proto::ids::{InstanceName, JobId};

fn job(id: u64, ended: bool) -> Job {
    Job {
        ended_ms: ended.then_some(2),
        ..Job::new(
            JobId::from_parts(id, 0),
            JobKind::Exec,
            "c".parse().expect("a name"),
            "x".to_owned(),
            "root".to_owned(),
            1,
        )
    }
}

fn run(id: u64, job: u64, ended: bool) -> Run {
    Run {
        id: RunId::from_parts(id, 0),
        job: JobId::from_parts(job, 0),
        cancel: None,
        cancelled_ms: 0,
        at: InstanceKey {
            cluster: "c".parse().expect("a name"),
            instance: "a".parse().expect("a name"),
        },
        what: RunKind::Stage {
            index: 0,
            attempt: 1,
        },
        state: RunState::Asked,
        asked_ms: 1,
        verdict: ended.then(|| Verdict::without_run(Outcome::Failed, "x")),
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, loaded) = Store::open(dir.path()).expect("opens");
    assert!(loaded.clusters.is_empty() && loaded.jobs.is_empty());
    let changes = Changes {
        jobs: vec![job(1, false), job(2, true), job(3, true)],
        runs: vec![run(1, 1, true), run(2, 3, false)],
        ..Changes::default()
    };
    let spool = (RunId::from_parts(1, 0), Bytes::from_static(b"frames"));
    store.commit(changes, vec![spool]).await.expect("commits");
    store.close();
    let (store, loaded) = Store::open(dir.path()).expect("opens again");
    let ids: Vec<JobId> = loaded.jobs.iter().map(|job| job.id).collect();
    assert_eq!(
        ids,
        [1, 3].map(|id| JobId::from_parts(id, 0)),
        "open jobs, and those with an open run"
    );
    assert_eq!(loaded.runs, [run(2, 3, false)]);
    assert_eq!(
        store.small_spool(RunId::from_parts(1, 0)).expect("reads"),
        Some(b"frames".to_vec())
    );
    assert_eq!(
        store.small_spool(RunId::from_parts(9, 0)).expect("reads"),
        None
    );
    assert_eq!(store.jobs(Some("c"), 2).expect("reads").len(), 2);
    assert_eq!(store.jobs(Some("other"), 2).expect("reads").len(), 0);
    assert_eq!(
        store.stage_runs(&run(1, 1, true).at).expect("reads").len(),
        2
    );
    store.close();
}

#[tokio::test]
async fn a_cluster_that_takes_the_name_of_one_removed_in_the_same_commit_is_there() {
    use aot_model::samples;
    let dir = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(dir.path()).expect("opens");
    let with = |uuid: &str, member: &str| {
        let mut cluster = samples::cluster();
        cluster.uuid = ClusterUuid::new(uuid);
        let (_, mut instance) = cluster.instances.pop_first().expect("has some");
        instance.name = member.parse().expect("a name");
        cluster.instances.clear();
        let key = InstanceKey {
            cluster: cluster.spec.name.clone(),
            instance: instance.name.clone(),
        };
        (cluster, vec![(key, instance)])
    };
    let (old, instances) = with("old", "gone");
    let changes = Changes {
        clusters: vec![old.clone()],
        instances,
        ..Changes::default()
    };
    store.commit(changes, Vec::new()).await.expect("commits");
    let (new, instances) = with("new", "there");
    let changes = Changes {
        removed: vec![old],
        clusters: vec![new],
        facts: vec![(instances[0].0.clone(), samples::node_facts().into())],
        instances,
        ..Changes::default()
    };
    store.commit(changes, Vec::new()).await.expect("commits");
    store.close();
    let (_store, loaded) = Store::open(dir.path()).expect("opens again");
    let [cluster] = &loaded.clusters[..] else {
        panic!("{:?}", loaded.clusters)
    };
    assert_eq!(cluster.uuid, ClusterUuid::new("new"));
    let names: Vec<&str> = cluster.instances.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["there"]);
}

#[tokio::test]
async fn facts_of_a_machine_that_was_replaced_do_not_come_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(dir.path()).expect("opens");
    let mut cluster = aot_model::samples::cluster();
    let (_, mut instance) = cluster.instances.pop_first().expect("has some");
    // Facts of who has not joined are not loaded.
    let joined = r#"{"key_sha256": "k", "enrolled_ms": 1, "serial": "1", "expires_unix": 1}"#;
    instance.identity = Some(serde_json::from_str(joined).expect("reads"));
    cluster.instances.clear();
    let key = InstanceKey {
        cluster: cluster.spec.name.clone(),
        instance: instance.name.clone(),
    };
    let changes = Changes {
        clusters: vec![cluster],
        instances: vec![(key.clone(), instance.clone())],
        facts: vec![(key.clone(), aot_model::samples::node_facts().into())],
        ..Changes::default()
    };
    store.commit(changes, Vec::new()).await.expect("commits");
    let changes = Changes {
        instances: vec![(key.clone(), instance)],
        without_facts: vec![key.clone()],
        ..Changes::default()
    };
    store.commit(changes, Vec::new()).await.expect("commits");
    store.close();
    let (_store, loaded) = Store::open(dir.path()).expect("opens again");
    let found = &loaded.clusters[0].instances[&key.instance];
    assert!(found.identity.is_some() && found.facts.is_none());
}

#[tokio::test]
async fn what_is_dropped_is_gone_and_an_emptied_job_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(dir.path()).expect("opens");
    let task = Arc::new(Task::CopyOut(vec!["/x".to_owned()]));
    let changes = Changes {
        jobs: vec![job(1, true), job(2, true), job(3, false)],
        tasks: vec![(JobId::from_parts(1, 0), task.clone())],
        runs: vec![run(1, 1, true), run(2, 2, true), run(3, 3, false)],
        ..Changes::default()
    };
    let spools = [1, 2].map(|id| (RunId::from_parts(id, 0), Bytes::from_static(b"frames")));
    store.commit(changes, spools.into()).await.expect("commits");
    let (none, file) = (
        HashSet::new(),
        HashMap::from([(RunId::from_parts(2, 0), 100)]),
    );
    let kept = store.kept(&none, &file).expect("reads");
    let shown: Vec<_> = kept
        .iter()
        .map(|job| (job.ended_ms, job.outputs[0].1))
        .collect();
    assert_eq!(shown, [(2, 6), (2, 106)], "the open one is not looked at");
    assert_eq!(store.output_of(kept[1].id, |_| 100).expect("reads"), 106);
    let needed = HashSet::from([kept[0].outputs[0].0]);
    assert!(store.kept(&needed, &file).expect("reads")[0].needed);
    let sweep = Sweep {
        jobs: vec![kept[0].id],
        emptied: vec![kept[1].id],
        spools: kept.iter().map(|job| job.outputs[0].0).collect(),
    };
    assert_eq!(
        store
            .job(kept[0].id)
            .expect("reads")
            .expect("is there")
            .task,
        Some(task)
    );
    store.sweep(sweep).await.expect("sweeps");
    assert_eq!(store.job(kept[0].id).expect("reads"), None);
    let emptied = store.job(kept[1].id).expect("reads").expect("stays");
    assert!(emptied.output_dropped);
    assert_eq!(
        store.small_spool(kept[1].outputs[0].0).expect("reads"),
        None
    );
    assert_eq!(store.run_ids().expect("reads").len(), 2);
}

/// Every write of a batch is answered with what the database said, not with an error made up for it.
#[tokio::test]
async fn a_failed_write_is_answered_with_its_cause() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(dir.path()).expect("opens");
    Connection::open(&store.path)
        .and_then(|other| {
            other.execute_batch(
                "CREATE TRIGGER full BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
            )
        })
        .expect("a trigger that refuses");
    let changes = || Changes {
        jobs: vec![job(1, false)],
        ..Changes::default()
    };
    let (first, second) = tokio::join!(
        store.commit(changes(), Vec::new()),
        store.commit(changes(), Vec::new())
    );
    for answer in [first, second] {
        let error = answer.expect_err("refused");
        let text = aot_host::chain::Chain(&error).to_string();
        assert!(matches!(error, Error::Write { .. }), "{text}");
        assert!(text.contains("could not be written"), "{text}");
        assert_eq!(text.matches("the disk is full").count(), 1, "{text}");
    }
    store.close();
}

fn targets(job: u64, size: usize) -> Vec<(JobId, InstanceName, TargetRecord)> {
    let target = |place: u32| {
        let name = format!("a{place}").parse().expect("a name");
        let record = TargetRecord {
            place: Some(place),
            end: None,
        };
        (JobId::from_parts(job, 0), name, record)
    };
    (0..u32::try_from(size).expect("few")).map(target).collect()
}

#[tokio::test]
async fn each_target_has_a_row_that_is_written_and_dropped_with_its_job() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, _) = Store::open(dir.path()).expect("opens");
    let changes = Changes {
        jobs: vec![job(1, false), job(2, true)],
        targets: [targets(1, 3), targets(2, 2)].concat(),
        ..Changes::default()
    };
    store.commit(changes, Vec::new()).await.expect("commits");
    let verdict = Verdict::without_run(Outcome::Failed, "x");
    let mut ended = targets(1, 3).remove(1);
    ended.2 = TargetRecord {
        place: None,
        end: Some(verdict.clone()),
    };
    let changes = Changes {
        targets: vec![ended.clone()],
        ..Changes::default()
    };
    assert!(!changes.is_empty());
    store.commit(changes, Vec::new()).await.expect("commits");
    let found = store.job(ended.0).expect("reads").expect("is there");
    assert_eq!(found.targets[&ended.1], Some(verdict));
    assert_eq!(
        (found.targets.len(), found.open(), found.waiting.len()),
        (3, 2, 2)
    );
    let listed = store.jobs(None, 9).expect("reads");
    let sizes: Vec<usize> = listed.iter().map(|job| job.targets.len()).collect();
    assert_eq!(sizes, [2, 3], "the newest first");
    assert_eq!(listed[1], found);
    store.close();
    let (store, loaded) = Store::open(dir.path()).expect("opens again");
    assert_eq!(loaded.jobs, [found]);
    let sweep = Sweep {
        jobs: vec![JobId::from_parts(2, 0)],
        ..Sweep::default()
    };
    store.sweep(sweep).await.expect("sweeps");
    store.close();
    let connection = Connection::open(dir.path().join("aot.sqlite")).expect("opens");
    let left: i64 = connection
        .query_row("SELECT count(*) FROM targets", [], |row| row.get(0))
        .expect("counts");
    assert_eq!(left, 3);
}
