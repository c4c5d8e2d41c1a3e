//! Several masters: what names a cluster to them, and what is shown of them.

use aot_proto::v1::MastersReply;
use aot_proto::v1::masters_reply::Entry;

use super::*;

/// A job's id.
const JOB: &str = "job-01J9ZZZZZZZZZZZZZZZZZZZZZZ";

#[tokio::test]
async fn every_request_names_its_cluster_or_its_job_in_its_headers() {
    let fake = Fake::start(Script {
        status: super::look::two_clusters(),
        exec: vec![Body::Summary(JobSummary::default())],
        events: vec![Event {
            last: true,
            ..Event::default()
        }],
        ..Script::default()
    });
    let file = fake.dir.path().join("archive");
    std::fs::write(&file, "text").expect("a file");
    let file = file.display().to_string();
    for (words, want) in [
        (
            &["exec", "*", "--cluster", "web", "--", "true"][..],
            "cluster web",
        ),
        (&["exec", "*", "--", "true"], ""),
        (&["status", "--cluster", "web"], "cluster web"),
        (
            &["wait", "*", "--state", "running", "--cluster", "web"],
            "cluster web",
        ),
        (&["cp", &file, "*:/tmp", "--cluster", "web"], "cluster web"),
        (
            &["cleanup", "db", "--yes", "--cluster", "web"],
            "cluster db",
        ),
        (&["jobs", "show", JOB, "--cluster", "web"], "job JOB"),
        (&["jobs", "follow", JOB], "job JOB"),
        (&["jobs", "cancel", JOB], "job JOB"),
        (&["jobs", "retry", JOB], "job JOB"),
    ] {
        fake.addressed();
        super::run_in(&env_in(fake.dir.path()), "", words).await;
        let named = fake.addressed();
        let want = want.replace("JOB", JOB);
        assert!(!named.is_empty(), "{words:?} asked nothing");
        assert!(named.iter().all(|it| *it == want), "{words:?}: {named:?}");
    }
}

fn entry(id: &str) -> Entry {
    Entry {
        id: id.to_owned(),
        build: "0.1.0 (1a2b3c4d5e6f)".to_owned(),
        agents: vec!["10.0.0.5:7440".to_owned()],
        peer: "10.0.0.5:7441".to_owned(),
        alive: true,
        answers: true,
        clusters: vec!["db".to_owned(), "web".to_owned()],
        sessions: Some(12),
        ..Entry::default()
    }
}

#[tokio::test]
async fn masters_for_people_and_programs() {
    let fake = Fake::start(Script {
        masters: MastersReply {
            masters: vec![
                entry("a/1"),
                Entry {
                    alive: false,
                    answers: false,
                    silent_ms: 17_500,
                    sessions: None,
                    clusters: Vec::new(),
                    ..entry("b/2")
                },
            ],
            alone: false,
            nobodys: vec!["old".to_owned()],
        },
        ..Script::default()
    });
    let mut all = String::new();
    for words in [&["masters"][..], &["masters", "--json"]] {
        let ran = super::run_in(&env_in(fake.dir.path()), "", words).await;
        assert_eq!(ran.exit, Exit::Well);
        all.push_str(&format!("$ {}\n{}{}\n", words.join(" "), ran.out, ran.err));
    }
    insta::assert_snapshot!(all);
    let alone = Fake::start(Script {
        masters: MastersReply {
            masters: vec![entry("/var/lib/aot")],
            alone: true,
            nobodys: Vec::new(),
        },
        ..Script::default()
    });
    let ran = super::run_in(&env_in(alone.dir.path()), "", &["masters"]).await;
    assert!(ran.err.contains("this master is alone"), "{}", ran.err);
}

#[tokio::test]
async fn a_master_that_did_not_answer_is_named_on_standard_error() {
    let mut status = super::look::two_clusters();
    status.absent = vec!["the master b/2 did not answer".to_owned()];
    let fake = Fake::start(Script {
        status,
        ..Script::default()
    });
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["list"],
        &["update"],
        &["agents"],
    ] {
        let ran = super::run_in(&env_in(fake.dir.path()), "", words).await;
        let line = "warning: the master b/2 did not answer";
        assert_eq!(ran.err.matches(line).count(), 1, "{words:?}: {}", ran.err);
        assert!(!ran.out.contains(line));
    }
}

#[tokio::test]
async fn a_cluster_is_moved_and_a_master_drained_and_both_are_waited_for() {
    let mut empty = entry("b/01ABC");
    empty.clusters.clear();
    let fake = Fake::start(Script {
        masters: MastersReply {
            masters: vec![entry("a/01ABB"), empty],
            ..MastersReply::default()
        },
        ..Script::default()
    });
    let env = env_in(fake.dir.path());
    for (words, said) in [
        (&["masters", "move", "web", "a/"][..], "web is with a/01ABB"),
        (
            &["masters", "drain", "b/"],
            "b/01ABC has no cluster any more",
        ),
        (
            &["masters", "drain", "--undo", "b/"],
            "b/01ABC takes its share again",
        ),
    ] {
        let ran = super::run_in(&env, "", words).await;
        assert!(ran.err.contains(said), "{words:?}: {}", ran.err);
    }
}
