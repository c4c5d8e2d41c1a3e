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
            refuse: Some(tonic::Status::new(code, "no such thing")),
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
async fn the_report_on_a_file_is_printed_as_it_is() {
    let report = "cluster.yml:3:5: unknown key\n  3 | sise: 2\n";
    let fake = Fake::start(Script {
        refuse: Some(aot_proto::fault::file(report)),
        ..Script::default()
    });
    let ran = run(&fake, &["plan", &file(&fake)]).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Usage, report));
}

#[tokio::test]
async fn a_master_of_another_build_is_warned_about_once() {
    for (own, master, runs) in [
        ("0.1.0 (a)", "0.1.0 (b)", "0.1.0 (b)"),
        ("0.1.0 (a)", "0.1.0 (a)", ""),
        ("", "0.1.0 (b)", ""),
        ("", "", ""),
        ("0.1.0 (a)", "", "an older build (version 0.1.0)"),
    ] {
        let warning = format!(
            "warning: the master runs {runs}, this command is {own}; restart the master: aot-master restart"
        );
        let fake = Fake::start(Script {
            build: master.into(),
            status: super::look::two_clusters(),
            exec: super::exec::exec_script(),
            pid: u32::MAX, // no process: `shutdown` waits for none
            ..Script::default()
        });
        let env = env_in(fake.dir.path()).built_as(own.into());
        for words in [
            &["status"][..],
            &["list", "--json"],
            &["ip"],
            &["plan", &file(&fake)],
            &["launch", &file(&fake)],
            &["exec", "web*", "hostname"],
            &["terminate", "web1", "--yes"],
        ] {
            let ran = run_in(&env, "", words).await;
            let count = ran.err.lines().filter(|line| *line == warning).count();
            assert_eq!(
                count,
                usize::from(!runs.is_empty()),
                "{words:?} {own} {master}: {}",
                ran.err
            );
            let warned = ran.err.matches("this command is").count();
            assert_eq!(warned, count, "{words:?}: {}", ran.err);
            assert!(!ran.out.contains("this command is"), "{}", ran.out);
        }
        let ran = run_in(&env, "", &["shutdown"]).await;
        assert!(
            !ran.err.contains("this command is"),
            "it is about to stop: {}",
            ran.err
        );
    }
}

#[tokio::test]
async fn the_build_is_compared_by_the_answer_that_there_is() {
    for (master, more) in [("0.1.0 (b)", 0), ("", 1)] {
        let fake = Fake::start(Script {
            build: master.into(),
            status: super::look::two_clusters(),
            ..Script::default()
        });
        let env = env_in(fake.dir.path()).built_as("0.1.0 (a)".into());
        let file = file(&fake);
        for (words, infos) in [
            (&["list"][..], more),
            // What the master says of itself is a part of it.
            (&["status"], more + 1),
            (&["plan", &file], more),
            (&["launch", &file], 1),
            (&["launch", "--listen", "127.0.0.1:7440", &file][..], 2),
        ] {
            let ran = run_in(&env, "", words).await;
            assert!(ran.err.contains("this command is"), "{}", ran.err);
            assert_eq!(fake.infos(), infos, "{words:?} {master}");
        }
    }
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
async fn a_state_that_a_service_serves_is_left_to_it_or_taken_over_by_name() {
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
    std::fs::write(env.state_dir.join("service"), "").expect("a mark");
    let ran = run_in(&env, "", &["status"]).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(
        ran.err.contains("belongs to a service that is not running")
            && ran.err.contains("systemctl start aot-master")
            && ran.err.contains("launch --background"),
        "{}",
        ran.err
    );
    assert!(!dir.path().join("log").exists(), "one was started");
    let file = env.state_dir.join("cluster.yml");
    std::fs::write(&file, "").expect("a file");
    let file = file.display().to_string();
    let taken = run_in(&env, "", &["launch", "--background", &file]).await;
    assert!(taken.err.contains("it ended at once"), "{}", taken.err);
    assert!(dir.path().join("log").exists(), "none was started");
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

#[tokio::test]
async fn a_master_that_is_dying_is_waited_for_and_the_next_one_asked() {
    let fake = Fake::start_at(
        Script {
            plan: vec![plan("create", "web1")],
            ..Script::default()
        },
        "next.sock",
    );
    // Takes a connection and dies before it answers.
    let dying = std::os::unix::net::UnixListener::bind(fake.dir.path().join("master.sock"));
    let dying = dying.expect("a socket");
    let (from, to) = (
        fake.dir.path().join("next.sock"),
        fake.dir.path().join("master.sock"),
    );
    let death = std::thread::spawn(move || {
        drop(dying.accept().expect("a connection"));
        std::fs::rename(from, to).expect("the next one comes up");
    });
    let ran = run(&fake, &["plan", &file(&fake)]).await;
    death.join().expect("it died");
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Well, "+ web1  create     because\n"),
        "{}",
        ran.err
    );
}
