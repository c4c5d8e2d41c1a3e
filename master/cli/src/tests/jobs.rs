//! `jobs`: the list, and what is done with one of them.

use aot_proto::v1::{JobNotice, jobs_reply};

use super::exec::exec_script;
use super::*;

const WHOLE: &str = "job-01ARZ3NDEKTSV4RRFFQ69G5FAV";

fn entry(id: &str) -> jobs_reply::Entry {
    jobs_reply::Entry {
        job_id: id.into(),
        kind: samples::kind("exec"),
        cluster: "hadoop".into(),
        what: "exec 'web*' -- hostname".into(),
        started_unix_ms: 1_767_225_784_000,
        targets: 2,
        outcomes: samples::counts(&[("failed", 1)]),
        output_bytes: 18,
        operator: "root".into(),
        ..jobs_reply::Entry::default()
    }
}

fn fake(ended_unix_ms: u64, targets: &[&str]) -> Fake {
    let mut exec = exec_script();
    exec[0] = Body::Started(JobStarted {
        job_id: "job-1".into(),
        instances: targets.iter().map(|name| (*name).to_owned()).collect(),
        kind: samples::kind("exec"),
        what: "exec 'web*' -- hostname".into(),
        operator: "root".into(),
        cluster: "hadoop".into(),
        started_unix_ms: 1_767_225_784_000,
        ended_unix_ms,
        output_dropped: false,
    });
    if ended_unix_ms == 0 {
        exec.truncate(5);
        exec.insert(
            4,
            Body::Notice(JobNotice {
                instance: "web1".into(),
                text: "queued until 12:00:00".into(),
            }),
        );
    }
    Fake::start(Script {
        exec,
        jobs: ["job-01ABC", "job-01ABD", "job-02X"].map(entry).into(),
        ..Script::default()
    })
}

#[tokio::test]
async fn the_list_says_what_is_open_and_what_is_kept() {
    let fake = fake(1, &[]);
    insta::assert_snapshot!(run(&fake, &["jobs", "-n", "3"]).await.out);
}

#[tokio::test]
async fn a_job_is_shown_with_its_output_and_its_ends() {
    let fake = fake(1_767_225_785_500, &["web1", "web2"]);
    let ran = run(&fake, &["jobs", "show", WHOLE]).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Well, ""));
    let short = run(&fake, &["jobs", "show", "02", "--no-output"]).await;
    assert_eq!((short.exit, short.err.as_str()), (Exit::Well, ""));
    let lines = run(&fake, &["jobs", "show", "02", "--no-fold"]).await;
    insta::assert_snapshot!([ran.out, short.out, lines.out].join("\n=====\n"));
    let asked = fake.asked();
    let whole = format!("FollowRequest {{ job_id: \"{WHOLE}\", live: false, output: true }}");
    assert_eq!(asked[0], whole, "a whole id is not looked up");
    assert_eq!(
        asked[2],
        r#"FollowRequest { job_id: "job-02X", live: false, output: false }"#
    );
}

#[tokio::test]
async fn without_an_id_the_last_job_is_meant() {
    let fake = fake(1_767_225_785_500, &["web1", "web2"]);
    for words in [
        &["show"][..],
        &["show", "last"],
        &["follow"],
        &["cancel", "last"],
        &["retry"],
    ] {
        let before = fake.asked().len();
        let ran = run(&fake, &[&["jobs"], words].concat()).await;
        let asked = fake.asked()[before..].to_vec();
        assert_eq!(asked[0], "JobsRequest { cluster: None, limit: 1 }");
        assert!(asked[1].contains("job_id: \"job-01ABC\""), "{asked:?}");
        let is_said = ran.err.contains("the last job is job-01ABC\n");
        assert_eq!(is_said, words[0] != "show", "{}", ran.err);
    }
    let none = Fake::start(Script::default());
    let ran = run(&none, &["jobs", "show"]).await;
    assert_eq!(
        (ran.exit, ran.err.as_str()),
        (
            Exit::NoMatch,
            "error: no job \"last\"\n  hint: aot-master jobs lists them\n"
        )
    );
}

#[tokio::test]
async fn logs_of_a_job_are_what_it_printed() {
    let fake = fake(1_767_225_785_500, &["web1", "web2"]);
    for words in [&["logs"][..], &["logs", "last"], &["logs", WHOLE]] {
        let ran = run(&fake, words).await;
        assert_eq!(
            (ran.exit, ran.out.as_str()),
            (Exit::Well, "web1 | hello\n"),
            "{words:?}: {}",
            ran.err
        );
    }
    let ran = run(&fake, &["logs", "last", "--stage", "0"]).await;
    assert_eq!(ran.exit, Exit::Usage, "{}", ran.err);
    run(&fake, &["logs", "name:last"]).await;
    let asked = fake.asked().pop().expect("something");
    assert!(
        asked.starts_with("LogsRequest") && asked.contains("target: \"name:last\""),
        "{asked}"
    );
}

#[tokio::test]
async fn logs_of_a_launch_are_those_of_its_stages() {
    let mut exec = exec_script();
    exec[0] = Body::Started(JobStarted {
        job_id: "job-1".into(),
        instances: vec!["web1".into(), "web2".into()],
        kind: samples::kind("launch"),
        cluster: "hadoop".into(),
        ended_unix_ms: 1,
        ..JobStarted::default()
    });
    let fake = Fake::start(Script {
        exec,
        ..Script::default()
    });
    let ran = run(&fake, &["logs", WHOLE, "--stage", "1"]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    let asked = fake.asked().pop().expect("something");
    for said in ["Some(\"hadoop\")", "\"web1,web2\"", "stage: Some(1)"] {
        assert!(asked.contains(said), "{said}: {asked}");
    }
}

#[tokio::test]
async fn a_job_that_runs_is_shown_so_far() {
    let fake = fake(0, &["web1", "web2", "web3"]);
    let ran = run(&fake, &["jobs", "show", WHOLE]).await;
    assert_eq!(ran.exit, Exit::Well);
    assert_eq!(
        ran.err,
        "web1 -- queued until 12:00:00\nstill running, 1 of 3 have ended; aot-master jobs follow job-1\n"
    );
    let (heading, rest) = ran.out.split_once("\n\n").expect("a heading");
    assert!(heading.contains("started 2026-01-01 00:03:04Z, running for "));
    insta::assert_snapshot!(rest);
}

#[tokio::test]
async fn a_job_is_shown_to_programs_as_exec_shows_it() {
    let fake = fake(1_767_225_785_500, &["web1", "web2"]);
    let ran = run(&fake, &["--json", "jobs", "show", WHOLE]).await;
    let exec = run(&fake, &["--json", "exec", "web*", "hostname"]).await;
    assert_eq!((ran.exit, ran.out), (Exit::Well, exec.out));
}

#[tokio::test]
async fn a_job_is_followed_to_its_own_exit_code() {
    let fake = fake(1_767_225_785_500, &["web1", "web2"]);
    let ran = run(&fake, &["jobs", "follow", "02"]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Failed, "web1 | hello\n")
    );
    assert_eq!(
        fake.asked()[1],
        r#"FollowRequest { job_id: "job-02X", live: true, output: true }"#
    );
}

#[tokio::test]
async fn a_cancelled_job_is_what_was_asked_for() {
    let fake = fake(1_767_225_785_500, &["web1", "web2"]);
    let ran = run(&fake, &["jobs", "cancel", "02", "--grace", "3s"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Well, ""));
    assert_eq!(ran.err, "1 failed, 1 succeeded: web2 (exit code 17)\n");
    assert_eq!(
        fake.asked()[1],
        r#"CancelJobRequest { job_id: "job-02X", grace_ms: 3000 }"#
    );

    let mut script = exec_script();
    script[6] = Body::Summary(JobSummary {
        job_id: "job-1".into(),
        outcomes: samples::counts(&[("lost_contact", 1)]),
        exit_code: 1,
        ..JobSummary::default()
    });
    let fake = Fake::start(Script {
        exec: script,
        ..Script::default()
    });
    assert_eq!(
        run(&fake, &["jobs", "cancel", WHOLE]).await.exit,
        Exit::Failed
    );
}

#[tokio::test]
async fn a_job_is_run_again() {
    let fake = fake(1_767_225_785_500, &["web1", "web2"]);
    let ran = run(&fake, &["jobs", "retry", WHOLE, "--failed"]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Failed, "web1 | hello\n")
    );
    let ran = run(&fake, &["jobs", "retry", WHOLE, "--detach"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Well, "job-1\n"));
    let asked = fake.asked();
    assert!(
        asked[0].contains("failed: true, detach: false"),
        "{asked:?}"
    );
    assert!(
        asked[1].contains("failed: false, detach: true"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_id_that_fits_none_or_several_is_refused() {
    let fake = fake(1, &[]);
    for words in [
        &["show", "03"][..],
        &["follow", "03"],
        &["cancel", "03"],
        &["retry", "03"],
    ] {
        let ran = run(&fake, &[&["jobs"], words].concat()).await;
        assert_eq!(ran.exit, Exit::NoMatch);
        assert_eq!(
            ran.err,
            "error: no job \"03\"\n  hint: aot-master jobs lists them\n"
        );
    }
    let ran = run(&fake, &["jobs", "show", "01"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("job-01ABC, job-01ABD"), "{}", ran.err);
    assert!(
        fake.asked()
            .iter()
            .all(|asked| asked.starts_with("JobsRequest"))
    );
}

#[tokio::test]
async fn an_output_that_is_not_whole_is_a_failure_whoever_reads_it() {
    let text = "the output of web1 is not whole: only a part";
    let mut exec = exec_script();
    exec.retain(|body| !matches!(body, Body::Ended(ended) if ended.instance == "web2"));
    for body in &mut exec {
        if let Body::Summary(summary) = body {
            summary.outcomes = samples::counts(&[("succeeded", 1)]);
            summary.incomplete = text.to_owned();
        }
    }
    let fake = Fake::start(Script {
        exec,
        jobs: vec![entry("job-02X")],
        ..Script::default()
    });
    for args in [
        &["jobs", "show", "02"][..],
        &["jobs", "follow", "02"],
        &["logs", "last"],
        &["exec", "web1", "x"],
    ] {
        let ran = run(&fake, args).await;
        assert_eq!(ran.exit, Exit::Failed, "{args:?}");
        assert!(
            ran.err.ends_with(&format!("error: {text}\n")),
            "{}",
            ran.err
        );
    }
    let ran = run(&fake, &["--json", "jobs", "show", "02"]).await;
    let last = ran.out.lines().last().unwrap_or_default();
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(
        (ran.exit, &last["incomplete"]),
        (Exit::Failed, &text.into())
    );
    assert_eq!(last["summary"]["succeeded"], 1);
}
