//! What commands do when their master, or that of their cluster, is gone.

use aot_proto::ids::JobId;
use aot_proto::status;
use tonic::Status;

use super::*;
use crate::again::LOST;

pub(super) fn gone() -> Status {
    status::owner_gone("the master b is not reached".to_owned())
}

fn said(text: &str) -> Body {
    Body::Output(JobOutput {
        instance: "web1".into(),
        stderr: false,
        data: text.as_bytes().to_vec().into(),
    })
}

/// A command that says one line and ends well.
fn job() -> Vec<Body> {
    let started = JobStarted {
        job_id: "job-1".into(),
        instances: vec!["web1".into()],
        ..JobStarted::default()
    };
    let ended = JobEnded {
        instance: "web1".into(),
        outcome: aot_proto::v1::Outcome::Succeeded.into(),
        exit_code: Some(0),
        ..JobEnded::default()
    };
    let summary = JobSummary {
        job_id: "job-1".into(),
        ..JobSummary::default()
    };
    vec![
        Body::Started(started),
        said("one\n"),
        Body::Ended(ended),
        Body::Summary(summary),
    ]
}

/// The kinds of the requests, without greetings.
pub(super) fn kinds(fake: &Fake) -> Vec<String> {
    let kind = |asked: &String| asked.split([' ', '{']).next().map(str::to_owned);
    fake.asked().iter().filter_map(kind).collect()
}

const EXEC: [&str; 4] = ["exec", "web*", "--", "hostname"];

#[tokio::test]
async fn a_command_of_which_nothing_was_told_is_asked_for_again_with_the_same_id() {
    let fake = Fake::start(Script {
        exec: job(),
        breaks: vec![(0, gone()), (0, status::moved())],
        keeps_requests: true,
        ..Script::default()
    });
    let ran = run(&fake, &EXEC).await;
    assert_eq!(
        (ran.exit, &*ran.out),
        (Exit::Well, "web1 | one\n"),
        "{}",
        ran.err
    );
    assert_eq!(kinds(&fake), ["ExecRequest"; 3]);
    let ids = fake.requests();
    assert!(ids[0].parse::<JobId>().is_ok(), "{ids:?}");
    assert_eq!((&ids[1], &ids[2]), (&ids[0], &ids[0]));
    let other = run(&fake, &EXEC).await;
    assert_eq!(other.exit, Exit::Well);
    assert_ne!(fake.requests()[3], ids[0], "another command has its own");
}

#[tokio::test]
async fn a_command_is_not_asked_for_again_where_a_master_would_begin_it_twice() {
    let fake = Fake::start(Script {
        exec: job(),
        breaks: vec![(0, gone())],
        ..Script::default()
    });
    let ran = run(&fake, &EXEC).await;
    assert_eq!((ran.exit, kinds(&fake).len()), (Exit::Unreachable, 1));
    assert!(
        ran.err.contains("the master b is not reached"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn what_was_told_of_a_job_is_not_shown_again() {
    let fake = Fake::start(Script {
        exec: job(),
        breaks: vec![(2, gone())],
        ..Script::default()
    });
    let ran = run(&fake, &EXEC).await;
    assert_eq!(
        (ran.exit, &*ran.out),
        (Exit::Well, "web1 | one\n"),
        "{}",
        ran.err
    );
    assert_eq!(kinds(&fake), ["ExecRequest", "FollowRequest"]);
    assert_eq!(ran.err.matches(LOST).count(), 1, "{}", ran.err);
}

#[tokio::test]
async fn a_question_to_agents_is_put_again_as_it_is_recorded_only_at_its_end() {
    let fake = Fake::start(Script {
        exec: job(),
        breaks: vec![(1, gone())],
        ..Script::default()
    });
    let ran = run(&fake, &["exec", "web*", "ping"]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    assert_eq!(kinds(&fake), ["ExecRequest"; 2]);
    assert_eq!(fake.requests(), ["", ""]);
}

#[tokio::test]
async fn a_command_whose_own_master_is_killed_continues_with_the_next_one() {
    for told in [0, 2] {
        let mut fake = Fake::start(Script {
            exec: job()[..told].to_vec(),
            then: Then::Die,
            keeps_requests: true,
            ..Script::default()
        });
        let env = CliEnv {
            asks_again: Duration::from_secs(60),
            ..env_in(fake.dir.path())
        };
        let next = async {
            fake.die_in_time().await;
            let first = fake.requests();
            let script = Script {
                exec: job(),
                keeps_requests: true,
                ..Script::default()
            };
            (Fake::start_again(fake, script), first)
        };
        let (ran, (next, first)) = tokio::join!(run_in(&env, "", &EXEC), next);
        assert_eq!(
            (ran.exit, &*ran.out),
            (Exit::Well, "web1 | one\n"),
            "{}",
            ran.err
        );
        match told {
            0 => assert_eq!(next.requests(), first, "the same request"),
            _ => assert_eq!(kinds(&next), ["FollowRequest"]),
        }
    }
}

#[tokio::test]
async fn a_master_that_does_not_come_back_is_asked_for_no_longer_than_that() {
    let mut fake = Fake::start(Script {
        then: Then::Die,
        keeps_requests: true,
        ..Script::default()
    });
    let env = env_in(fake.dir.path());
    let (ran, ()) = tokio::join!(run_in(&env, "", &EXEC), fake.die_in_time());
    assert_eq!(ran.exit, Exit::Unreachable);
    let id = &fake.requests()[0];
    let text = format!("it may have been started, then as {id}; see aot-master jobs");
    assert!(ran.err.contains(&text), "{}", ran.err);
}

#[tokio::test]
async fn a_cancellation_that_was_taken_is_followed_and_a_retry_is_not_begun_twice() {
    let id = JobId::from_parts(1, 1).to_string();
    for (words, want) in [
        (vec!["jobs", "cancel", &id], "CancelJobRequest"),
        (vec!["jobs", "retry", &id], "RetryJobRequest"),
        (vec!["jobs", "follow", &id], "FollowRequest"),
        (vec!["jobs", "show", &id], "FollowRequest"),
    ] {
        let fake = Fake::start(Script {
            exec: job(),
            breaks: vec![(0, gone()), (1, gone())],
            keeps_requests: true,
            ..Script::default()
        });
        let ran = run(&fake, &words).await;
        assert_eq!(ran.exit, Exit::Well, "{words:?}: {}", ran.err);
        assert_eq!(kinds(&fake), [want, want, "FollowRequest"], "{words:?}");
        let ids = fake.requests();
        assert_eq!(ids[0], ids[1]);
        assert_eq!(ids[0].is_empty(), want != "RetryJobRequest");
    }
}

#[tokio::test]
async fn logs_continue_where_they_broke_off() {
    let line = |text: &str, note: &str| LogLine {
        instance: "web1".into(),
        name: "setup".into(),
        attempt: 1,
        data: text.as_bytes().to_vec(),
        note: note.into(),
        ..LogLine::default()
    };
    let fake = Fake::start(Script {
        logs: vec![
            line("", "attempt 1 started"),
            line("one\n", ""),
            line("two\n", ""),
            line("", "attempt 1 ended"),
        ],
        breaks: vec![(2, gone())],
        ..Script::default()
    });
    let ran = run(&fake, &["logs", "web1", "-f"]).await;
    assert_eq!(
        (ran.exit, &*ran.out),
        (Exit::Well, "web1/setup | one\nweb1/setup | two\n")
    );
    assert_eq!(
        ran.err.matches("attempt 1 started").count(),
        1,
        "{}",
        ran.err
    );
    assert_eq!(ran.err.matches(LOST).count(), 1, "{}", ran.err);
}

#[tokio::test]
async fn a_copy_ends_and_says_what_to_do() {
    let fake = Fake::start(Script {
        exec: job()[..1].to_vec(),
        breaks: vec![(1, gone())],
        keeps_requests: true,
        ..Script::default()
    });
    let path = file(&fake);
    let ran = run(&fake, &["cp", &path, "web1:/tmp/x"]).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    let text = "job-1 is still running; see aot-master jobs follow job-1";
    assert!(ran.err.contains(text), "{}", ran.err);
    let to = fake.dir.path().join("here");
    let fake = Fake::start(Script {
        exec: job()[..1].to_vec(),
        breaks: vec![(1, gone())],
        ..Script::default()
    });
    let to = to.to_str().expect("UTF-8");
    let ran = run(&fake, &["cp", "web1:/etc/hosts", to]).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains("copy it again"), "{}", ran.err);
}
