//! Exec, and Ctrl-C.

use super::*;
use crate::cli::following::{Shape, follow};
use crate::cli::interrupt::Interrupt;

pub fn exec_script() -> Vec<Body> {
    let output = |instance: &str, stderr, data: &[u8]| {
        Body::Output(ExecOutput {
            instance: instance.into(),
            stderr,
            data: data.to_vec().into(),
        })
    };
    let ended = |instance: &str, outcome: &str, exit_code| {
        Body::Ended(ExecEnded {
            instance: instance.into(),
            outcome: outcome.into(),
            exit_code,
            has_exit_code: true,
            seconds: 1.5,
            ..ExecEnded::default()
        })
    };
    vec![
        Body::Started(ExecStarted {
            job_id: "job-1".into(),
            instances: vec!["web1".into(), "web2".into()],
            ..ExecStarted::default()
        }),
        output("web1", false, b"hel"),
        output("web2", true, b"no such file\n"),
        output("web1", false, b"lo"),
        ended("web2", "failed", 17),
        ended("web1", "succeeded", 0),
        Body::Summary(ExecSummary {
            job_id: "job-1".into(),
            outcomes: [("succeeded".into(), 1), ("failed".into(), 1)].into(),
            exit_code: 1,
        }),
    ]
}

#[tokio::test]
async fn an_exec_prefixes_lines_and_sums_up() {
    let fake = Fake::start(Script {
        exec: exec_script(),
        ..Script::default()
    });
    let ran = run(
        &fake,
        &[
            "exec", "web*", "-e", "A=b=c", "--cwd", "/tmp", "--", "cat", "-n", "--json",
        ],
    )
    .await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(ran.out, "web1 | hello\n");
    assert_eq!(
        ran.err,
        "web2 | no such file\n1 failed, 1 succeeded: web2 (exit code 17)\n"
    );
    let asked = fake.asked().remove(0);
    for part in [
        r#"argv: ["cat", "-n", "--json"]"#,
        r#"{"A": "b=c"}"#,
        r#"cwd: "/tmp""#,
        r#"builtin: """#,
    ] {
        assert!(asked.contains(part), "{part} is not in {asked}");
    }
}

#[tokio::test]
async fn an_exec_in_json_ends_with_the_counts() {
    let fake = Fake::start(Script {
        exec: exec_script(),
        ..Script::default()
    });
    let ran = run(&fake, &["--json", "exec", "web*", "hostname"]).await;
    assert_eq!(ran.err, "");
    insta::assert_snapshot!(ran.out);
}

#[tokio::test]
async fn a_detached_exec_prints_the_job() {
    let fake = Fake::start(Script {
        exec: exec_script(),
        ..Script::default()
    });
    let ran = run(&fake, &["exec", "web*", "--detach", "hostname"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Well, "job-1\n"));
}

#[tokio::test]
async fn a_ping_is_a_builtin_and_is_sorted() {
    let ended = |name: &str, seconds| {
        Body::Ended(ExecEnded {
            instance: name.into(),
            outcome: "succeeded".into(),
            seconds,
            ..ExecEnded::default()
        })
    };
    let summary = ExecSummary {
        job_id: "job-2".into(),
        outcomes: [("succeeded".into(), 2)].into(),
        exit_code: 0,
    };
    let fake = Fake::start(Script {
        exec: vec![
            ended("web10", 0.0012),
            ended("web2", 0.0008),
            Body::Summary(summary),
        ],
        ..Script::default()
    });
    let ran = run(&fake, &["exec", "*", "ping"]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Well, "web2   pong  0.8 ms\nweb10  pong  1.2 ms\n")
    );
    assert_eq!(ran.err, "2 succeeded\n");
    assert!(fake.asked()[0].contains(r#"builtin: "ping""#));
}

#[tokio::test]
async fn a_master_that_dies_mid_exec_leaves_the_output_and_names_the_job() {
    let mut fake = Fake::start(Script {
        exec: exec_script()[..2].to_vec(),
        then: Then::Die,
        ..Script::default()
    });
    let env = env_in(fake.dir.path());
    let words = ["exec", "web*", "--", "hostname"];
    let (ran, ()) = tokio::join!(run_in(&env, "", &words), fake.die_in_time());
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Unreachable, "web1 | hel\n")
    );
    assert!(
        ran.err
            .contains("lost the master; job-1 goes on; see aot-master jobs"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn input_of_a_command_is_sent_and_bounded() {
    let fake = Fake::start(Script {
        exec: exec_script(),
        ..Script::default()
    });
    let env = env_in(fake.dir.path());
    let words = ["exec", "web1", "--stdin", "-", "--", "cat"];
    run_in(&env, "abc", &words).await;
    assert!(
        fake.asked()[0].contains("stdin: [97, 98, 99]"),
        "{:?}",
        fake.asked()
    );
    let ran = run_in(&env, &"x".repeat((1 << 20) + 1), &words).await;
    assert_eq!((ran.exit, fake.asked().len()), (Exit::Usage, 1));
    assert!(ran.err.contains("at most 1 MiB"), "{}", ran.err);
}

/// A stream that says some events and then nothing more.
fn silent<T: Clone>(
    items: &[T],
) -> impl futures::Stream<Item = Result<T, tonic::Status>> + use<'_, T> {
    use futures::StreamExt as _;
    futures::stream::iter(items.iter().cloned().map(Ok)).chain(futures::stream::pending())
}

#[tokio::test(start_paused = true)]
async fn ctrl_c_leaves_the_job_running_and_says_how_to_look_at_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let (env, out) = (env_in(dir.path()), Shared::default());
    let mut io = Streams {
        stdin: Box::new(io::empty()),
        stdout: Box::new(out.clone()),
        stderr: Box::new(io::sink()),
    };
    let mut ctx = crate::cli::Ctx {
        env: &env,
        io: &mut io,
        json: false,
        cluster: String::new(),
        verbose: None,
    };
    let later = || tokio::time::sleep(std::time::Duration::from_secs(5));

    let bodies: Vec<_> = exec_script()
        .into_iter()
        .map(|body| aot_proto::v1::ExecEvent { body: Some(body) })
        .collect();
    let interrupt = Interrupt::scripted(&[5000], None);
    let shape = Shape::default();
    let error = follow(&mut ctx, None, silent(&bodies[..2]), interrupt, shape)
        .await
        .expect_err("interrupted");
    assert_eq!(
        (error.exit(), out.text().as_str()),
        (Exit::Interrupted, "web1 | hel\n")
    );
    assert_eq!(
        error.report().as_deref(),
        Some("interrupted; job-1 goes on; see aot-master jobs follow job-1")
    );

    let all = samples::launch();
    let events = silent(&all[..2]);
    let followed =
        crate::cli::follow::follow(&mut ctx, events, later(), "the launch goes on", false).await;
    let Err(error) = followed else {
        panic!("not interrupted")
    };
    assert_eq!(
        (error.exit(), error.report().as_deref()),
        (Exit::Interrupted, Some("interrupted; the launch goes on"))
    );
}
