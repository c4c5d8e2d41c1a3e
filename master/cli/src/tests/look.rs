//! Status, list, addresses, facts and logs.

use super::*;

pub(crate) fn two_clusters() -> StatusReply {
    let cluster = |name: &str, launching| ClusterView {
        name: name.into(),
        provider: "ec2".into(),
        region: "us-west-2".into(),
        generation: 3,
        launching,
        ..ClusterView::default()
    };
    StatusReply {
        instances: vec![
            samples::view("manager", "ready", &["succeeded", "succeeded"]),
            samples::view("web1", "failed", &["failed"]),
            samples::view("web2", "planned", &[]),
        ],
        clusters: vec![cluster("hadoop", false), cluster("empty", true)],
        ..StatusReply::default()
    }
}

#[tokio::test]
async fn status_and_list_for_people_and_programs() {
    let fake = Fake::start(Script {
        status: two_clusters(),
        ..Script::default()
    });
    let mut all = String::new();
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["list", "-q"],
        &["list", "-osp", "--json"],
        &["update"],
        &["ip"],
        &["dns", "--json"],
    ] {
        let ran = run(&fake, words).await;
        assert_eq!(ran.exit, Exit::Well, "{words:?}: {}", ran.err);
        all.push_str(&format!("$ {}\n{}{}\n", words.join(" "), ran.out, ran.err));
    }
    assert!(fake.asked()[2].contains("live: true"));
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn a_status_says_why_stages_failed_and_of_a_target_with_all_lines() {
    let mut status = two_clusters();
    let stage = &mut status.instances[1].stage_views[0];
    stage.tail = vec!["no disk".into(), "looking".into()];
    stage.tail_stderr = 1;
    let mut alike = samples::view("web3", "failed", &["failed"]);
    alike.stage_views[0].tail_of = "web1".into();
    status.instances.push(alike);
    let fake = Fake::start(Script {
        status,
        sessions: Some(5),
        ..Script::default()
    });
    let all = run(&fake, &["status"]).await.out;
    assert!(
        all.lines()
            .next()
            .is_some_and(|line| line.ends_with(", 5 sessions")),
        "{all}"
    );
    let short = "\nweb[1,3] failed in bundle-0 (exit 17): ! no disk\n";
    assert_eq!(all.matches(short).count(), 1, "{all}");
    assert!(!all.contains("looking"), "{all}");
    let some = run(&fake, &["status", "web"]).await.out;
    let long = "\nweb[1,3] failed in bundle-0 (exit 17)\n  ! no disk\n  | looking\n  see: aot-master logs web1 --stage bundle-0\n";
    assert_eq!(some.matches(long).count(), 1, "{some}");
    assert!(fake.asked()[0].contains("equal_once: true"));
    let json = run(&fake, &["status", "--json"]).await.out;
    assert_eq!(
        json.matches(r#""tail":["no disk","looking"]"#).count(),
        2,
        "{json}"
    );
    assert_eq!(
        fake.asked().len(),
        3,
        "nothing runs, and nobody is asked what it prints"
    );
}

#[tokio::test]
async fn a_status_shows_what_the_stages_print_that_run() {
    let mut status = two_clusters();
    status.instances[2] = samples::view("web2", "bootstrapping", &["running"]);
    let line = |instance: &str, text: &str| aot_proto::v1::last_lines_reply::Line {
        instance: instance.into(),
        stage: 0,
        text: text.into(),
    };
    let fake = Fake::start(Script {
        status,
        last_lines: vec![
            line("web1", "of nobody"),
            line("web2", "fetching\nmore \x1b[2J"),
        ],
        ..Script::default()
    });
    let text = run(&fake, &["status"]).await.out;
    assert!(
        text.contains("  bundle-0 (1 of 1) running for 3.0 s: fetching more \x1b[2J\n"),
        "a pipe has it as it is: {text:?}"
    );
    assert!(!text.contains("of nobody"), "{text}");
    assert!(
        fake.asked()[1].contains(r#"instances: ["web2"]"#),
        "{:?}",
        fake.asked()
    );
    assert_eq!(fake.addressed()[1], "cluster hadoop");
    let env = CliEnv {
        stdout_terminal: true,
        ..env_in(fake.dir.path())
    };
    let seen = run_in(&env, "", &["status"]).await.out;
    assert!(!seen.contains('\x1b'), "{seen:?}");
}

#[tokio::test]
async fn no_address_at_all_fails() {
    let status = StatusReply {
        instances: vec![samples::view("web2", "planned", &[])],
        ..StatusReply::default()
    };
    let fake = Fake::start(Script {
        status,
        ..Script::default()
    });
    let ran = run(&fake, &["ip", "web2"]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str(), ran.err.as_str()),
        (Exit::Failed, "", "web2 has no ip yet\n")
    );
}

#[tokio::test]
async fn every_state_has_its_line_and_says_why_it_has_no_address() {
    let one = |name: &str, state: &str, phase: &str, ip: &str| {
        let mut view = samples::view(name, phase, &["succeeded"]);
        view.set_state(MachineState::from_name(state).expect("a state"));
        view.private_ip = ip.into();
        view.private_dns = String::new();
        view.connected = state == "running";
        view
    };
    let status = StatusReply {
        instances: vec![
            one("web1", "pending", "booting", ""),
            one("web2", "running", "ready", "10.0.0.2"),
            one("web3", "stopped", "ready", "10.0.0.3"),
            one("web4", "terminated", "gone", ""),
        ],
        clusters: two_clusters().clusters[..1].to_vec(),
        ..StatusReply::default()
    };
    let fake = Fake::start(Script {
        status,
        ..Script::default()
    });
    let mut all = String::new();
    for words in [
        &["list"][..],
        &["list", "-p"],
        &["status"],
        &["ip"],
        &["dns"],
    ] {
        let ran = run(&fake, words).await;
        all.push_str(&format!(
            "$ {} ({:?})\n{}{}\n",
            words.join(" "),
            ran.exit,
            ran.out,
            ran.err
        ));
    }
    insta::assert_snapshot!(all);
}

#[tokio::test]
async fn facts_are_one_object_or_one_a_line() {
    let entry = |name: &str| facts_reply::Entry {
        instance: name.into(),
        facts_json: r#"{"ip_address":"10.0.0.1"}"#.into(),
    };
    let fake = Fake::start(Script {
        facts: vec![entry("web1"), entry("web2")],
        ..Script::default()
    });
    let people = run(&fake, &["facts", "*"]).await.out;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&people).expect("one document")["web2"]["ip_address"],
        "10.0.0.1"
    );
    let lines = run(&fake, &["facts", "*", "--json"]).await.out;
    assert_eq!(
        lines.lines().next(),
        Some(r#"{"instance":"web1","facts":{"ip_address":"10.0.0.1"}}"#)
    );
}

#[tokio::test]
async fn logs_have_prefixes_and_marks() {
    let line = |stderr, data: &[u8], note: &str| LogLine {
        instance: "web1".into(),
        stage: 0,
        attempt: 1,
        stderr,
        data: data.to_vec(),
        unix_ms: 1_767_225_784_000,
        note: note.into(),
        name: "base".into(),
        ..LogLine::default()
    };
    let logs = vec![
        line(false, b"", "attempt 1 began"),
        line(false, b"one\ntwo", ""),
        line(true, b"oops\n", ""),
        line(false, b"", "ended ok"),
    ];
    let fake = Fake::start(Script {
        logs,
        ..Script::default()
    });
    let ran = run(&fake, &["logs", "web1", "--stage", "0"]).await;
    assert_eq!(ran.out, "web1/base | one\nweb1/base | two\n");
    assert_eq!(
        ran.err,
        "web1/base -- attempt 1 began\nweb1/base | oops\nweb1/base -- ended ok\n"
    );
    let json = run(&fake, &["logs", "web1", "--json"]).await.out;
    assert_eq!(
        json.lines().nth(1),
        Some(
            r#"{"time":"2026-01-01T00:03:04.000Z","instance":"web1","stage":0,"name":"base","attempt":1,"stream":"stdout","data":"one\ntwo"}"#
        )
    );
}

#[tokio::test]
async fn a_reader_that_has_had_enough_is_no_failure() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let fake = Fake::start(Script {
        status: two_clusters(),
        ..Script::default()
    });
    let err = Shared::default();
    let mut io = Streams {
        stdin: Box::new(io::empty()),
        stdout: Out::new(Closed),
        stderr: Out::new(err.clone()),
    };
    let cli = parse(["aot-master", "list"].iter().map(Into::into)).expect("a good command line");
    assert_eq!(
        run_on(cli, &env_in(fake.dir.path()), &mut io).await,
        Exit::Well
    );
    assert_eq!(err.text(), "");
}

#[tokio::test]
async fn a_target_that_matches_nothing_is_exit_3() {
    let fake = Fake::start(Script::default());
    for words in [
        &["list", "nope"][..],
        &["ip", "nope"],
        &["terminate", "nope"],
    ] {
        let ran = run(&fake, words).await;
        assert_eq!(ran.exit, Exit::NoMatch, "{words:?}");
        assert!(
            ran.err.contains("no instance matches \"nope\"\n  hint: "),
            "{}",
            ran.err
        );
    }
    assert_eq!(run(&fake, &["list"]).await.exit, Exit::Well);
}

#[tokio::test]
async fn logs_that_are_not_whole_end_in_a_failure() {
    let text = "the output of web1/0 is not whole: the rest is lost";
    let fake = Fake::start(Script {
        logs: vec![LogLine {
            incomplete: text.to_owned(),
            ..LogLine::default()
        }],
        ..Script::default()
    });
    let ran = run(&fake, &["logs", "web1"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(ran.err, format!("error: {text}\n"));
    let json = run(&fake, &["logs", "web1", "--json"]).await;
    let want = serde_json::json!({ "incomplete": text });
    assert_eq!((json.exit, json.out), (Exit::Failed, format!("{want}\n")));
}
