//! How much is said, in which colours, and what may have been meant.

use aot_proto::v1::InstanceView;

use super::look::two_clusters;
use super::*;

fn launched() -> Fake {
    Fake::start(Script {
        plan: vec![plan("create", "web2")],
        events: samples::launch(),
        exec: super::exec::exec_script(),
        ..Script::default()
    })
}

/// What is said of the instance that fails.
const FAILED: &str = "00:03:30Z web2 failed in prereq (exit 17, 4.0 s)\n  ! no disk\n  | one\n  | two\n  see: aot-master \
                      logs web2 --stage prereq\n";

#[tokio::test]
async fn steps_are_not_told_one_by_one() {
    let fake = launched();
    let ran = run(&fake, &["launch", &file(&fake)]).await;
    assert_eq!(
        ran.err,
        format!(
            "plan: 1 create\n00:03:04Z hadoop launching 3 instances\n{FAILED}00:03:31Z hadoop 2 of 3 are ready\n"
        )
    );
}

#[tokio::test]
async fn a_quiet_launch_tells_failures_and_results() {
    let fake = launched();
    let ran = run(&fake, &["launch", &file(&fake), "--quiet"]).await;
    assert_eq!(ran.err, format!("{FAILED}error: 2 of 3 are ready\n"));
    assert!(
        ran.out.ends_with("log: /var/lib/aot/logs/job-01\n"),
        "{}",
        ran.out
    );
}

#[tokio::test]
async fn what_went_well_is_not_counted_when_it_is_to_be_quiet() {
    let fake = Fake::start(Script {
        exec: vec![
            Body::Started(JobStarted {
                job_id: "job-1".into(),
                instances: vec!["web1".into()],
                ..JobStarted::default()
            }),
            Body::Output(JobOutput {
                instance: "web1".into(),
                data: b"hello\n".to_vec().into(),
                ..JobOutput::default()
            }),
            Body::Summary(JobSummary {
                job_id: "job-1".into(),
                outcomes: samples::counts(&[("succeeded", 1)]),
                exit_code: 0,
                ..JobSummary::default()
            }),
        ],
        ..Script::default()
    });
    let quiet = run(&fake, &["--quiet", "exec", "web1", "hostname"]).await;
    assert_eq!((&*quiet.out, &*quiet.err), ("web1 | hello\n", ""));
    let loud = run(&fake, &["exec", "web1", "hostname"]).await;
    assert_eq!(loud.err, "1 succeeded\n");
    let words = ["aot-master", "--quiet", "-v", "status"];
    assert!(parse(words.map(Into::into)).is_err(), "both at once");
}

#[tokio::test]
async fn a_person_is_told_what_comes_next() {
    let fake = launched();
    let env = CliEnv {
        stderr_terminal: true,
        ..env_in(fake.dir.path())
    };
    let ran = run_in(&env, "", &["launch", &file(&fake)]).await;
    assert!(
        ran.err
            .ends_with("next: aot-master logs web2\n      aot-master apply --failed\n"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn colours_go_into_a_pipe_when_they_are_always_wanted() {
    let fake = Fake::start(Script {
        status: two_clusters(),
        ..Script::default()
    });
    let env = CliEnv {
        colour: true,
        ..env_in(fake.dir.path())
    };
    let plain = run_in(&env, "", &["status"]).await;
    assert!(!plain.out.contains('\x1b'), "{}", plain.out);
    let env = CliEnv {
        colour_always: true,
        ..env
    };
    let coloured = run_in(&env, "", &["status"]).await;
    assert!(
        coloured.out.contains("\x1b[32mready\x1b[0m"),
        "{}",
        coloured.out
    );
    let json = run_in(&env, "", &["status", "--json"]).await;
    assert!(!json.out.contains('\x1b'), "{}", json.out);
}

#[tokio::test]
async fn a_target_of_nobody_comes_with_what_was_meant() {
    let refused = |hint: &str| {
        Fake::start(Script {
            refuse: Some(aot_proto::fault::nobody(
                "no instance of cluster c matches \"x\"".to_owned(),
                "x",
                hint.to_owned(),
            )),
            ..Script::default()
        })
    };
    let fake = refused("did you mean web1?");
    let ran = run(&fake, &["exec", "x", "uptime"]).await;
    assert_eq!(
        (ran.exit, &*ran.err),
        (
            Exit::NoMatch,
            "error: no instance of cluster c matches \"x\"\n  hint: did you mean web1?\n"
        )
    );
    // The shell made words of a star: these are files here, where tests run.
    let ran = run(&fake, &["exec", "Cargo.toml", "src", "ping"]).await;
    assert_eq!(ran.exit, Exit::NoMatch);
    assert!(
        ran.err.contains("are files here: if you wrote *"),
        "{}",
        ran.err
    );
    let ran = run(&fake, &["exec", "Cargo.toml", "src", "--", "ls"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("quote it: '*'"), "{}", ran.err);
    let fake = refused("");
    let ran = run(&fake, &["list", "x"]).await;
    assert!(
        ran.err.ends_with("hint: aot-master list shows the names\n"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_stage_may_be_named() {
    let mut status = two_clusters();
    for view in &mut status.instances {
        let stage = |index, name: &str| aot_proto::v1::StageView {
            index,
            name: name.into(),
            ..Default::default()
        };
        *view = InstanceView {
            stage_views: vec![stage(0, "base"), stage(1, "flaky")],
            ..view.clone()
        };
    }
    let fake = Fake::start(Script {
        status,
        events: samples::launch(),
        ..Script::default()
    });
    for (words, said) in [
        (&["logs", "*", "--stage", "flaky"][..], "stage: Some(1)"),
        (&["logs", "*", "--stage", "0"], "stage: Some(0)"),
        (&["apply", "--from", "flaky"], "from: Some(1)"),
    ] {
        run(&fake, words).await;
        let asked = fake.asked().pop().expect("something");
        assert!(asked.contains(said), "{words:?}: {asked}");
    }
    let ran = run(&fake, &["apply", "--from", "falky"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(
        ran.err.contains("the stages are base (0), flaky (1)"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn version_asks_the_master_that_runs_and_starts_none() {
    let fake = Fake::start(Script {
        pid: 7,
        build: "0.1.0 (abc)".into(),
        ..Script::default()
    });
    let env = CliEnv {
        build: "0.1.0 (def)".into(),
        ..env_in(fake.dir.path())
    };
    let ran = run_in(&env, "", &["version"]).await;
    assert_eq!(
        (&*ran.out, &*ran.err),
        (
            "aot-master 0.1.0 (def)\nmaster     0.1.0 (abc), pid 7, listens on 127.0.0.1:7440\n",
            ""
        )
    );
    let nobody = tempfile::tempdir().expect("a folder");
    let ran = run_in(&env_in(nobody.path()), "", &["version", "--json"]).await;
    let line: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(
        (ran.exit, &line["master"]),
        (Exit::Well, &serde_json::Value::Null)
    );
}
