//! Terminate, cleanup and shutdown.

use super::look::two_clusters;
use super::*;

#[tokio::test]
async fn what_destroys_wants_a_yes() {
    let one = StatusReply {
        clusters: two_clusters().clusters[..1].to_vec(),
        ..two_clusters()
    };
    let receipt = |fields: &str| Event {
        event: "receipt".into(),
        fields_json: fields.into(),
        ..Event::default()
    };
    let events = vec![
        receipt(r#"{"kind":"instance","id":"i-0abc7","state":"terminated","left":false}"#),
        receipt(r#"{"kind":"volume","id":"vol-1","state":"in use","left":true}"#),
        last("cleanup-ended", 1, "1 resource is left", ""),
    ];
    let fake = Fake::start(Script {
        status: one,
        events,
        ..Script::default()
    });
    let ran = run(&fake, &["cleanup"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(
        ran.err.contains("terminate 2 instances of cluster hadoop")
            && ran.err.contains("hint: pass --yes"),
        "{}",
        ran.err
    );
    let ran = run(&fake, &["terminate", "*"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(
        ran.err
            .contains("terminate 3 instances of cluster hadoop: manager, web1, web2"),
        "{}",
        ran.err
    );
    assert!(
        !fake
            .asked()
            .iter()
            .any(|asked| asked.starts_with("CleanupRequest")
                || asked.starts_with("TerminateRequest"))
    );

    let ran = run(&fake, &["cleanup", "--yes"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(
        ran.out,
        "instance        i-0abc7                  terminated\nvolume          vol-1                    in use\n"
    );
    assert!(ran.err.contains("1 resource is left"), "{}", ran.err);
}

#[tokio::test]
async fn in_a_terminal_the_answer_decides() {
    let fake = Fake::start(Script {
        status: two_clusters(),
        events: vec![last("terminate-ended", 0, "", "")],
        ..Script::default()
    });
    let env = CliEnv {
        interactive: true,
        ..env_in(fake.dir.path())
    };
    let no = run_in(&env, "n\n", &["terminate", "web1"]).await;
    assert_eq!((no.exit, fake.asked().len()), (Exit::Failed, 1));
    assert!(no.err.ends_with("[y/N] nothing was done\n"), "{}", no.err);
    let yes = run_in(&env, "y\n", &["terminate", "web1"]).await;
    assert_eq!((yes.exit, fake.asked().len()), (Exit::Well, 3));
}

#[tokio::test]
async fn cleanup_does_not_guess_between_clusters() {
    let fake = Fake::start(Script {
        status: two_clusters(),
        ..Script::default()
    });
    let ran = run(&fake, &["cleanup", "--yes"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(
        ran.err.contains("which cluster? There are hadoop, empty"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn shutdown_waits_until_the_process_is_gone() {
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "read line"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("a process");
    let fake = Fake::start(Script {
        pid: child.id(),
        ..Script::default()
    });
    drop(child.stdin.take());
    let ran = run(&fake, &["shutdown"]).await;
    assert_eq!(ran.exit, Exit::Well);
    assert!(
        ran.err
            .contains(&format!("the master (pid {}) has stopped", child.id())),
        "{}",
        ran.err
    );
    child.wait().expect("reaped");
}

#[tokio::test]
async fn start_asks_nobody_and_stop_and_reboot_do() {
    let fake = Fake::start(Script {
        status: two_clusters(),
        events: vec![last("wait-progress", 0, "[3/3] instances 'stopped'", "")],
        ..Script::default()
    });
    for action in ["stop", "reboot"] {
        let ran = run(&fake, &[action, "*"]).await;
        assert_eq!(ran.exit, Exit::Usage, "{action}");
        let question = format!("{action} 3 instances of cluster hadoop: manager, web1, web2");
        assert!(ran.err.contains(&question), "{}", ran.err);
    }
    assert!(!fake.asked().iter().any(|it| it.starts_with("Lifecycle")));
    for words in [
        &["start", "web1", "--timeout", "90s"][..],
        &["stop", "web1", "--yes"],
        &["reboot", "web1", "-y"],
    ] {
        let ran = run(&fake, words).await;
        assert_eq!(ran.exit, Exit::Well, "{words:?}: {}", ran.err);
        assert_eq!(ran.err, "00:03:04Z hadoop [3/3] instances 'stopped'\n");
    }
    let asked: Vec<String> = fake
        .asked()
        .into_iter()
        .filter(|it| it.starts_with("Lifecycle"))
        .collect();
    assert_eq!(
        asked,
        [("Start", 90_000), ("Stop", 0), ("Reboot", 0)].map(|(action, ms)| format!(
            "LifecycleRequest {{ cluster: None, target: \"web1\", timeout_ms: {ms}, exclude: None, limit: 0, action: {action} }}"
        ))
    );
}

#[tokio::test]
async fn a_stop_that_is_not_through_in_time_fails() {
    let fake = Fake::start(Script {
        status: two_clusters(),
        events: vec![last(
            "wait-ended",
            1,
            "not all of 3 instances became 'stopped' in time",
            "",
        )],
        ..Script::default()
    });
    let ran = run(&fake, &["stop", "*", "--yes", "--json"]).await;
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Failed, ""));
    assert!(ran.out.contains("in time"), "{}", ran.out);
    let nobody = Fake::start(Script::default());
    let ran = run(&nobody, &["stop", "nope"]).await;
    assert_eq!(ran.exit, Exit::NoMatch);
}
