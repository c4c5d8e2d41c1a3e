//! Finding or starting a master, and its refusals.

use super::*;

#[tokio::test]
async fn every_refusal_has_its_exit_code_and_prints_once() {
    let table = [
        (tonic::Code::InvalidArgument, Exit::Usage),
        (tonic::Code::NotFound, Exit::NoMatch),
        (tonic::Code::Unavailable, Exit::Unreachable),
        (tonic::Code::PermissionDenied, Exit::Unreachable),
        (tonic::Code::FailedPrecondition, Exit::Failed),
        (tonic::Code::Internal, Exit::Failed),
    ];
    for (code, exit) in table {
        let fake = Fake::start(Script {
            refuse: Some((code, "no such thing".into())),
            ..Script::default()
        });
        for words in [
            &["list", "x"][..],
            &["exec", "x", "ping"],
            &["logs", "x"],
            &["wait", "x", "--state", "ready"],
        ] {
            let ran = run(&fake, words).await;
            assert_eq!(
                (ran.exit, ran.err.as_str(), ran.out.as_str()),
                (exit, "error: no such thing\n", ""),
                "{code:?} {words:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_report_of_several_lines_is_printed_as_it_is() {
    let report = "cluster.yml:3:5: unknown key\n  3 | sise: 2\n";
    let fake = Fake::start(Script {
        refuse: Some((tonic::Code::InvalidArgument, report.into())),
        ..Script::default()
    });
    let ran = run(&fake, &["plan", &file(&fake)]).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Usage, report));
}

#[tokio::test]
async fn nobody_there_is_exit_4_and_starts_nothing_without_a_state() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = BackgroundDaemon {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), "echo ran".into()],
        log: dir.path().join("log"),
    };
    let env = CliEnv {
        background: Some(daemon),
        ..env_in(dir.path())
    };
    for words in [&["status"][..], &["shutdown"], &["exec", "*", "ping"]] {
        let ran = run_in(&env, "", words).await;
        assert_eq!(ran.exit, Exit::Unreachable);
        assert!(
            ran.err.contains("no master answers on") && ran.err.contains("hint: "),
            "{}",
            ran.err
        );
    }
    assert!(!dir.path().join("log").exists());
}

#[tokio::test]
async fn a_state_that_serve_owns_is_left_to_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let daemon = BackgroundDaemon {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), "echo ran".into()],
        log: dir.path().join("log"),
    };
    let env = CliEnv {
        background: Some(daemon),
        ..env_in(dir.path())
    };
    std::fs::create_dir_all(&env.state_dir).expect("a state");
    std::fs::write(env.state_dir.join("foreground"), "").expect("a mark");
    let ran = run_in(&env, "", &["status"]).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(!dir.path().join("log").exists(), "one was started");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_exit_2() {
    let dir = tempfile::tempdir().expect("a folder");
    let ran = run_in(&env_in(dir.path()), "", &["launch", "/no/such/cluster.yml"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(
        ran.err
            .starts_with("error: cannot read /no/such/cluster.yml: No such file"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_master_is_started_in_the_background_and_asked() {
    let fake = Fake::start_at(
        Script {
            plan: vec![plan("create", "web1")],
            ..Script::default()
        },
        "not-yet.sock",
    );
    let dir = fake.dir.path();
    let program = format!(
        "echo begins; mv {0}/not-yet.sock {0}/master.sock",
        dir.display()
    );
    let log = dir.join("state/master.log");
    let daemon = BackgroundDaemon {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), program.into()],
        log: log.clone(),
    };
    let env = CliEnv {
        background: Some(daemon),
        ..env_in(dir)
    };
    let ran = run_in(&env, "", &["plan", &file(&fake)]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Well, "+ web1  create     because\n")
    );
    assert!(
        ran.err
            .starts_with("started a master in the background (pid "),
        "{}",
        ran.err
    );
    assert!(
        ran.err.contains("stop it with aot-master shutdown"),
        "{}",
        ran.err
    );
    assert_eq!(std::fs::read_to_string(log).expect("a log"), "begins\n");
}

#[tokio::test]
async fn a_master_that_ends_at_once_shows_the_end_of_its_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("state/master.log");
    std::fs::create_dir(dir.path().join("state")).expect("made");
    std::fs::write(&log, "of an older start\n").expect("written");
    let args = vec!["-c".into(), "echo 'the port is taken' >&2; exit 3".into()];
    let daemon = BackgroundDaemon {
        program: "/bin/sh".into(),
        args,
        log,
    };
    let env = CliEnv {
        background: Some(daemon),
        ..env_in(dir.path())
    };
    let ran = run_in(&env, "", &["status"]).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(
        ran.err
            .contains("it ended at once (exit status: 3)\n  | the port is taken\n  see: "),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("older"), "{}", ran.err);
}
