//! Exec, and Ctrl-C.

use tokio::sync::Notify;

use super::*;
use crate::cluster_source::{ClusterAsk, ClusterSource};
use crate::connect::Start;
use crate::follow_job::follow;
use crate::interrupt::Interrupt;
use crate::job_source::{JobAsk, JobSource};
use crate::output_mode::OutputMode;

pub(crate) fn exec_script() -> Vec<Body> {
    let output = |instance: &str, stderr, data: &[u8]| {
        Body::Output(JobOutput {
            instance: instance.into(),
            stderr,
            data: data.to_vec().into(),
        })
    };
    let ended = |instance: &str, outcome: &str, exit_code| {
        Body::Ended(JobEnded {
            instance: instance.into(),
            outcome: samples::outcome(outcome),
            exit_code: Some(exit_code),
            seconds: 1.5,
            ..JobEnded::default()
        })
    };
    vec![
        Body::Started(JobStarted {
            job_id: "job-1".into(),
            instances: vec!["web1".into(), "web2".into()],
            ..JobStarted::default()
        }),
        output("web1", false, b"hel"),
        output("web2", true, b"no such file\n"),
        output("web1", false, b"lo"),
        ended("web2", "failed", 17),
        ended("web1", "succeeded", 0),
        Body::Summary(JobSummary {
            job_id: "job-1".into(),
            outcomes: samples::counts(&[("succeeded", 1), ("failed", 1)]),
            exit_code: 1,
            ..JobSummary::default()
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
        r#"cwd: Some("/tmp")"#,
        "builtin: Unspecified",
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
        Body::Ended(JobEnded {
            instance: name.into(),
            outcome: samples::outcome("succeeded"),
            seconds,
            ..JobEnded::default()
        })
    };
    let summary = JobSummary {
        job_id: "job-2".into(),
        outcomes: samples::counts(&[("succeeded", 2)]),
        exit_code: 0,
        ..JobSummary::default()
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
    assert!(fake.asked()[0].contains("builtin: Ping"));
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
            .contains("lost the master; job-1 is still running; see aot-master jobs"),
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
    assert!(ran.err.contains("limited to 1 MiB"), "{}", ran.err);
}

#[tokio::test]
async fn every_flag_reaches_the_master() {
    let fake = Fake::start(Script {
        exec: exec_script(),
        ..Script::default()
    });
    let line = "exec web* --concurrency 25% --max-errors 2 --canary 1 --batch-wait 90s --queue 1h --output-cap 10MiB \
                --user me --timeout 5m --shell echo $HOME";
    run(
        &fake,
        &line
            .split(' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>(),
    )
    .await;
    run(&fake, &["exec", "web*", "tail", "/x", "50"]).await;
    insta::assert_snapshot!(fake.asked().join("\n"));
}

#[tokio::test]
async fn a_fold_is_printed_at_the_end() {
    let fake = Fake::start(Script {
        exec: exec_script(),
        ..Script::default()
    });
    let ran = run(&fake, &["exec", "web*", "--fold", "--", "hostname"]).await;
    assert_eq!(
        ran.out,
        "web2: failed (exit code 17)\n! no such file\n\nweb1: succeeded\n  hello\n"
    );
    assert_eq!(ran.err, "1 failed, 1 succeeded: web2 (exit code 17)\n");
    let ran = run(
        &fake,
        &["--json", "exec", "web*", "--fold", "--", "hostname"],
    )
    .await;
    assert_eq!((ran.exit, fake.asked().len()), (Exit::Usage, 1));
}

#[tokio::test]
async fn more_than_four_are_folded_on_a_terminal_by_themselves() {
    let script = |count: usize| {
        let mut script = exec_script();
        let Body::Started(started) = &mut script[0] else {
            panic!("not the start")
        };
        started.instances = (1..=count).map(|n| format!("web{n}")).collect();
        Fake::start(Script {
            exec: script,
            ..Script::default()
        })
    };
    for (count, flag, folded) in [
        (4, "--timeout=9s", false),
        (5, "--timeout=9s", true),
        (5, "--no-fold", false),
        (2, "--fold", true),
    ] {
        let fake = script(count);
        let env = CliEnv {
            stdout_terminal: true,
            ..env_in(fake.dir.path())
        };
        let ran = run_in(&env, "", &["exec", "web*", flag, "--", "hostname"]).await;
        assert_eq!(ran.out.contains("web1: succeeded"), folded, "{}", ran.out);
        assert_eq!(ran.out.contains("web1 | hello"), !folded, "{}", ran.out);
    }
}

#[tokio::test]
async fn output_goes_to_files() {
    let fake = Fake::start(Script {
        exec: exec_script(),
        ..Script::default()
    });
    let dir = fake.dir.path().join("out");
    let name = dir.to_str().expect("UTF-8");
    let ran = run(&fake, &["exec", "web*", "--out", name, "--", "hostname"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Failed, ""));
    let said =
        format!("1 failed, 1 succeeded: web2 (exit code 17); what they printed is in {name}\n");
    assert_eq!(ran.err, said);
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("a file");
    assert_eq!(
        (read("web1.out"), read("web2.err")),
        ("hello".into(), "no such file\n".into())
    );
    assert_eq!(read("outcomes.jsonl").lines().count(), 2);

    std::fs::write(dir.join("file"), "").expect("written");
    let below = dir.join("file/below");
    let below = below.to_str().expect("UTF-8");
    let ran = run(&fake, &["exec", "web*", "--out", below, "--", "hostname"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(
        ran.err.contains(&format!("cannot write {below}: ")),
        "{}",
        ran.err
    );
}

fn end(instance: &str, outcome: &str) -> Body {
    Body::Ended(JobEnded {
        instance: instance.into(),
        outcome: samples::outcome(outcome),
        ..JobEnded::default()
    })
}

#[tokio::test]
async fn a_target_that_was_lost_has_one_end_all_the_same() {
    let mut exec = exec_script();
    exec.insert(1, end("web1", "lost_contact"));
    exec.insert(1, end("web3", "lost_contact"));
    let fake = Fake::start(Script {
        exec,
        ..Script::default()
    });
    let json = run(&fake, &["--json", "exec", "web*", "--", "hostname"]).await;
    let ends: Vec<(String, String)> = json
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|line| line["instance"].is_string())
        .map(|line| (line["instance"].to_string(), line["outcome"].to_string()))
        .collect();
    let want = [
        ("web2", "failed"),
        ("web1", "succeeded"),
        ("web3", "lost_contact"),
    ];
    let want = want.map(|(name, outcome)| (format!("{name:?}"), format!("{outcome:?}")));
    assert_eq!(ends, want);
    let ran = run(&fake, &["exec", "web*", "--", "hostname"]).await;
    assert_eq!(
        ran.err,
        "web3 -- contact lost; its real outcome may still arrive\n\
         web1 -- contact lost; its real outcome may still arrive\n\
         web2 | no such file\n\
         web1 -- is back\n\
         1 failed, 1 succeeded: web2 (exit code 17), web3 (lost contact)\n"
    );
}

/// Of a job that there is.
fn source(ctx: &crate::Ctx<'_>, client: crate::dial::Client) -> JobSource {
    let ask = JobAsk::Follow(aot_proto::v1::FollowRequest::default());
    JobSource::new(ctx, client, ask, Start::Never).expect("there are random numbers")
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
        stdout: Out::new(out.clone()),
        stderr: Out::new(io::sink()),
    };
    let mut ctx = crate::Ctx {
        env: &env,
        io: &mut io,
        json: false,
        quiet: false,
        cluster: None,
        greets: true,
        compared: false,
        keeps_requests: false,
        background: false,
        has_shown: false,
        verbose: None,
    };
    let bodies: Vec<_> = exec_script()
        .into_iter()
        .map(|body| aot_proto::v1::JobEvent { body: Some(body) })
        .collect();
    let interrupt = Interrupt::scripted(&[5000], None);
    let mode = OutputMode::default();
    let source = source(&ctx, crate::dial::nobody());
    let error = follow(&mut ctx, source, silent(&bodies[..2]), interrupt, mode)
        .await
        .expect_err("interrupted");
    assert_eq!(
        (error.exit(), out.text().as_str()),
        (Exit::Interrupted, "web1 | hel\n")
    );
    assert_eq!(
        error.report(crate::view::Style::default()).as_deref(),
        Some("interrupted; job-1 is still running; see aot-master jobs follow job-1")
    );

    let all = samples::launch();
    let events = silent(&all[..2]);
    let ask = ClusterAsk::Cleanup("hadoop".to_owned());
    let nobody = crate::dial::nobody();
    let mut source = ClusterSource::new(&ctx, nobody, ask, Start::Never, "the launch goes on")
        .expect("there are random numbers");
    let each = &mut |_: &Event| ();
    // Somebody could be asked, but it is nothing that is cancelled.
    let interrupt = Interrupt::scripted(&[5000], Some(vec!["c"]));
    let followed =
        crate::follow_cluster::follow(&mut ctx, &mut source, events, interrupt, each).await;
    let Err(error) = followed else {
        panic!("not interrupted")
    };
    assert_eq!(
        (
            error.exit(),
            error.report(crate::view::Style::default()).as_deref()
        ),
        (Exit::Interrupted, Some("interrupted; the launch goes on"))
    );
}

/// Waits until the master has been asked for something.
pub(super) async fn was_asked(fake: &Fake) {
    while fake.asked().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// Follows a script with Ctrl-C at these times after its first part was shown. Its rest comes once the master has been
/// asked to cancel the job; never when there is another Ctrl-C.
async fn interrupted(fake: &Fake, presses_ms: &[u64], answers: Option<Vec<&'static str>>) -> Ran {
    use futures::StreamExt as _;
    let (env, out, err) = (
        env_in(fake.dir.path()),
        Shared::default(),
        Shared::default(),
    );
    let mut io = Streams {
        stdin: Box::new(io::empty()),
        stdout: Out::new(out.clone()),
        stderr: Out::new(err.clone()),
    };
    let mut ctx = crate::Ctx {
        env: &env,
        io: &mut io,
        json: false,
        quiet: false,
        cluster: None,
        greets: true,
        compared: false,
        keeps_requests: false,
        background: false,
        has_shown: false,
        verbose: None,
    };
    let client = crate::dial::dial(&env, None).await.expect("a master");
    let (begin, mut rest) = (exec_script()[..2].to_vec(), exec_script()[2..].to_vec());
    rest.insert(0, end("web3", "cancelled"));
    let event = |body| Ok(aot_proto::v1::JobEvent { body: Some(body) });
    let (shown, goes_on) = (Arc::new(Notify::new()), presses_ms.len() == 1);
    let begun = Arc::clone(&shown);
    let later = futures::stream::once(async move {
        shown.notify_one();
        match goes_on {
            true => was_asked(fake).await,
            false => std::future::pending().await,
        }
    });
    let rest = later.flat_map(move |()| futures::stream::iter(rest.clone()));
    let events = futures::stream::iter(begin).chain(rest).map(event);
    let begun = async move { begun.notified().await };
    let interrupt = Interrupt::scripted_from(begun, presses_ms, answers);
    let source = source(&ctx, client);
    let ran = follow(&mut ctx, source, events, interrupt, OutputMode::default()).await;
    let exit = match ran {
        Ok(seen) => crate::follow_job::close(
            &mut ctx,
            &seen,
            &OutputMode::default(),
            BuiltinName::Unspecified,
        ),
        Err(error) => Ok(error.exit()),
    };
    Ran {
        exit: exit.expect("written"),
        out: out.text(),
        err: err.text(),
    }
}

#[tokio::test]
async fn ctrl_c_in_a_terminal_asks_and_a_cancelled_job_is_followed_to_its_end() {
    let fake = Fake::start(Script {
        exec: exec_script(),
        ..Script::default()
    });
    let ran = interrupted(&fake, &[20], Some(vec!["c"])).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(ran.out, "web1 | hello\n");
    assert_eq!(
        ran.err,
        "\ndetach (the job continues) or cancel it? [d/c] -- cancelling; Ctrl-C once more detaches\n\
         web2 | no such file\n1 failed, 1 succeeded: web2 (exit code 17), web3 (cancelled)\n"
    );
    assert_eq!(
        fake.asked(),
        [r#"CancelJobRequest { job_id: "job-1", grace_ms: 0 }"#]
    );
}

#[tokio::test]
async fn ctrl_c_leaves_the_job_alone_when_told_so_twice_or_after_a_cancel() {
    for (presses, answers, cancelled) in [
        (&[20][..], vec!["d"], 0),
        (&[20, 40], vec![], 0),
        (&[20, 60], vec!["c"], 1),
    ] {
        let fake = Fake::start(Script {
            exec: exec_script(),
            ..Script::default()
        });
        let ran = interrupted(&fake, presses, Some(answers)).await;
        assert_eq!(
            (ran.exit, ran.out.as_str()),
            (Exit::Interrupted, "web1 | hel\n")
        );
        assert_eq!(fake.asked().len(), cancelled);
    }
}

#[tokio::test]
async fn a_job_that_can_not_be_cancelled_is_followed_on() {
    let fake = Fake::start(Script {
        refuse: Some(tonic::Status::failed_precondition("job-1 is over")),
        ..Script::default()
    });
    let ran = interrupted(&fake, &[20], Some(vec!["c"])).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(
        ran.err
            .contains("-- it could not be cancelled: job-1 is over\n"),
        "{}",
        ran.err
    );
}
