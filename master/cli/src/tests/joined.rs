//! What is followed in the events of a cluster, when the master that told them is gone.

use super::again::{gone, kinds};
use super::look::two_clusters;
use super::*;
use crate::again::LOST;

fn snapshot(name: &str, phase: aot_proto::v1::Phase) -> Event {
    let view = aot_proto::v1::InstanceView {
        name: name.into(),
        phase: phase.into(),
        last_seen_unix_ms: 5,
        ..Default::default()
    };
    Event {
        cluster: "hadoop".into(),
        instance: name.into(),
        event: "snapshot".into(),
        view: Some(view),
        ..Event::default()
    }
}

#[tokio::test]
async fn a_launch_is_joined_by_its_job_and_shows_only_what_is_new() {
    use aot_proto::v1::Phase::{Booting, Ready};
    let seen_later = |mut event: Event| {
        event.view.as_mut().expect("it has one").last_seen_unix_ms = 9;
        event
    };
    let fake = Fake::start(Script {
        plan: vec![plan("create", "web1")],
        events: vec![snapshot("web1", Booting), snapshot("web2", Booting)],
        rest: vec![
            seen_later(snapshot("web1", Booting)),
            snapshot("web2", Ready),
            last("launch-ended", 0, "2 instances are ready", ""),
        ],
        breaks: vec![(2, gone())],
        job: "job-7".into(),
        keeps_requests: true,
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake), "--json"]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    let shown: Vec<String> = ran
        .out
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let of = line["instance"].as_str().unwrap_or_default();
            format!("{} {of}", line["event"].as_str().expect("a word"))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "snapshot web1",
            "snapshot web2",
            "snapshot web2",
            "launch-ended "
        ]
    );
    assert_eq!(
        kinds(&fake),
        ["PlanRequest", "LaunchRequest", "WatchRequest"]
    );
    assert!(fake.asked()[2].contains("job_id: \"job-7\""));
    assert_eq!(fake.addressed()[2], "job job-7");
    assert_eq!(ran.err.matches(LOST).count(), 1, "{}", ran.err);
}

#[tokio::test]
async fn what_changes_machines_is_followed_by_its_job_or_asked_for_with_the_same_id() {
    let words: [(&[&str], &str); 6] = [
        (&["apply", "web1"], "ApplyRequest"),
        (&["terminate", "web1", "--yes"], "TerminateRequest"),
        (&["stop", "web1", "--yes"], "LifecycleRequest"),
        (&["start", "web1"], "LifecycleRequest"),
        (&["cleanup", "hadoop", "--yes"], "CleanupRequest"),
        (
            &["orphans", "--delete", "5f0c", "--yes"],
            "DeleteOrphansRequest",
        ),
    ];
    for (words, want) in words {
        for (job, keeps_requests) in [("job-7", true), ("", true), ("", false), ("job-7", false)] {
            let end = last("wait-progress", 0, "done", "");
            let fake = Fake::start(Script {
                status: two_clusters(),
                events: vec![end.clone()],
                rest: vec![end],
                breaks: vec![(0, gone())],
                job: job.into(),
                keeps_requests,
                ..Script::default()
            });
            let ran = run(&fake, words).await;
            let mut asked = kinds(&fake);
            asked.retain(|kind| kind != "StatusRequest");
            let mut ids = fake.requests();
            ids.retain(|id| !id.is_empty());
            let case = format!("{words:?} {job} {keeps_requests}: {}", ran.err);
            match (job, keeps_requests) {
                (_, false) => {
                    assert_eq!(ran.exit, Exit::Unreachable, "{case}");
                    assert_eq!(asked, [want], "{case}");
                }
                ("", true) => {
                    assert_eq!(
                        (ran.exit, &asked[..]),
                        (Exit::Well, &[want.to_owned(), want.to_owned()][..]),
                        "{case}"
                    );
                    assert_eq!(ids[0], ids[1], "{case}");
                }
                (_, true) => {
                    assert_eq!(
                        (ran.exit, &*asked[1]),
                        (Exit::Well, "WatchRequest"),
                        "{case}"
                    );
                    assert_eq!(ids.len(), 1, "{case}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_wait_is_asked_for_again_with_the_time_that_is_left() {
    let progress = Event {
        event: "wait-progress".into(),
        message: "[1/2] instances 'ready', waiting...".into(),
        ..Event::default()
    };
    let fake = Fake::start(Script {
        events: vec![
            progress,
            last("wait-progress", 0, "[2/2] instances 'ready'", ""),
        ],
        breaks: vec![(1, gone())],
        ..Script::default()
    });
    let words = [
        "wait",
        "web*",
        "--state",
        "ready",
        "--timeout",
        "90s",
        "--json",
    ];
    let ran = run(&fake, &words).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
    let left = |asked: &String| {
        let ms = asked.split("timeout_ms: ").nth(1)?.split(',').next()?;
        ms.parse::<u64>().ok()
    };
    let left: Vec<_> = fake.asked().iter().filter_map(left).collect();
    assert!(
        left[0] <= 90_000 && left[1] <= left[0] && left[1] > 60_000,
        "{left:?}"
    );
}
