//! The commands against a scripted master: what they print, and what they exit with.

use std::io::{self, Cursor, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use aot_proto::v1::exec_event::Body;
use aot_proto::v1::{
    ClusterView, Event, ExecEnded, ExecOutput, ExecStarted, ExecSummary, LogLine, PlanLine,
    StatusReply, facts_reply,
};
use time::UtcOffset;

use super::fake::{Fake, Script, Then};
use super::{BackgroundDaemon, CliEnv, Exit, parse, run_on};
use crate::view::{Streams, samples};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("not poisoned")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
    }
}

/// What a command left.
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

fn env_in(dir: &Path) -> CliEnv {
    CliEnv {
        socket: dir.join("master.sock"),
        state_dir: dir.join("state"),
        background: None,
        interactive: false,
        colour: false,
        offset: UtcOffset::UTC,
    }
}

async fn run_in(env: &CliEnv, stdin: &str, words: &[&str]) -> Ran {
    let (out, err) = (Shared::default(), Shared::default());
    let mut io = Streams {
        stdin: Box::new(Cursor::new(stdin.as_bytes().to_vec())),
        stdout: Box::new(out.clone()),
        stderr: Box::new(err.clone()),
    };
    let cli =
        parse(["aot-master"].iter().chain(words).map(Into::into)).expect("a good command line");
    let exit = run_on(cli, env, &mut io).await;
    Ran {
        exit,
        out: out.text(),
        err: err.text(),
    }
}

async fn run(fake: &Fake, words: &[&str]) -> Ran {
    run_in(&env_in(fake.dir.path()), "", words).await
}

/// A cluster's file in the fake's folder.
fn file(fake: &Fake) -> String {
    let path = fake.dir.path().join("cluster.yml");
    std::fs::write(&path, "cluster: hadoop\n").expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

fn plan(action: &str, instance: &str) -> PlanLine {
    PlanLine {
        action: action.into(),
        instance: instance.into(),
        pool: "web".into(),
        detail: "because".into(),
    }
}

fn last(word: &str, exit_code: u32, message: &str, fields: &str) -> Event {
    Event {
        unix_ms: 1_767_225_784_000,
        cluster: "hadoop".into(),
        event: word.into(),
        message: message.into(),
        fields_json: fields.into(),
        last: true,
        exit_code,
        ..Event::default()
    }
}

#[tokio::test]
async fn a_launch_shows_its_events_and_ends_with_the_table_and_the_log() {
    let fake = Fake::start(Script {
        plan: vec![plan("create", "web2")],
        events: samples::launch(),
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake), "--timeout", "90s"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    insta::assert_snapshot!(format!("{}-----\n{}", ran.err, ran.out));
    let asked = fake.asked();
    assert!(
        asked[1].contains("timeout_ms: 90000") && asked[1].contains("cluster: hadoop"),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_launch_in_json_ends_with_its_summary() {
    let fake = Fake::start(Script {
        events: samples::launch(),
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake), "--json"]).await;
    let lines: Vec<serde_json::Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).expect("json"))
        .collect();
    assert_eq!(lines.len(), samples::launch().len() + 1);
    assert_eq!(
        lines[lines.len() - 1].to_string(),
        r#"{"cluster":"hadoop","summary":{"ready":2,"failed":1}}"#
    );
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Failed, ""));
}

#[tokio::test]
async fn a_launch_that_changes_nothing_says_so() {
    let end = last(
        "launch-ended",
        0,
        "",
        r#"{"summary":{"ready":4,"failed":0},"changed":false}"#,
    );
    let fake = Fake::start(Script {
        events: vec![end],
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake)]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Well, "nothing to do: 4 instances are ready\n")
    );
}

#[tokio::test]
async fn a_detached_launch_returns_after_the_first_event() {
    let fake = Fake::start(Script {
        events: samples::launch()[..1].to_vec(),
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake), "--detach"]).await;
    assert_eq!(ran.exit, Exit::Well);
    assert!(ran.err.contains("the launch goes on"), "{}", ran.err);
}

#[tokio::test]
async fn a_launch_that_destroys_asks_first() {
    let script = Script {
        plan: vec![plan("terminate", "web3"), plan("keep", "web1")],
        events: samples::launch(),
        ..Script::default()
    };
    let fake = Fake::start(script);
    let path = file(&fake);
    let refused = run(&fake, &["launch", &path, "--prune"]).await;
    assert_eq!((refused.exit, fake.asked().len()), (Exit::Usage, 1));
    assert!(
        refused.err.contains("1 instance: web3") && refused.err.contains("--yes"),
        "{}",
        refused.err
    );
    let taken = run(&fake, &["launch", &path, "--prune", "--yes"]).await;
    assert_eq!((taken.exit, fake.asked().len()), (Exit::Failed, 3));
}

#[tokio::test]
async fn a_master_that_dies_mid_launch_is_said_to_be_lost() {
    let mut fake = Fake::start(Script {
        events: samples::launch()[..3].to_vec(),
        then: Then::Die,
        ..Script::default()
    });
    let (env, path) = (env_in(fake.dir.path()), file(&fake));
    let words = ["launch", &path];
    let (ran, ()) = tokio::join!(run_in(&env, "", &words), fake.die_in_time());
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(
        ran.err
            .contains("error: lost the master; the launch goes on"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn a_stream_that_ends_too_soon_is_no_success() {
    let fake = Fake::start(Script {
        events: samples::launch()[..3].to_vec(),
        ..Script::default()
    });
    let ran = run(&fake, &["launch", &file(&fake)]).await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains("lost the master"), "{}", ran.err);
}

fn exec_script() -> Vec<Body> {
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

fn two_clusters() -> StatusReply {
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
    assert_eq!(ran.out, "web1/0 | one\nweb1/0 | two\n");
    assert_eq!(
        ran.err,
        "web1/0 -- attempt 1 began\nweb1/0 | oops\nweb1/0 -- ended ok\n"
    );
    let json = run(&fake, &["logs", "web1", "--json"]).await.out;
    assert_eq!(
        json.lines().nth(1),
        Some(
            r#"{"time":"2026-01-01T00:03:04.000Z","instance":"web1","stage":0,"attempt":1,"stream":"stdout","data":"one\ntwo"}"#
        )
    );
}

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
        last("cleanup-ended", 1, "1 thing is left", ""),
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
            && ran.err.contains("hint: say --yes"),
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
    assert!(ran.err.contains("1 thing is left"), "{}", ran.err);
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
async fn wait_says_how_it_ended() {
    let fake = Fake::start(Script {
        events: vec![last(
            "wait-ended",
            1,
            "web2 is still booting after 30 s",
            "",
        )],
        ..Script::default()
    });
    let ran = run(
        &fake,
        &["wait", "*", "--state", "ready", "--timeout", "30s"],
    )
    .await;
    assert_eq!(ran.exit, Exit::Failed);
    assert_eq!(
        ran.err,
        "00:03:04Z hadoop web2 is still booting after 30 s\n"
    );
    assert!(fake.asked()[0].contains("timeout_ms: 30000"));
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
        stdout: Box::new(Closed),
        stderr: Box::new(err.clone()),
    };
    let cli = parse(["aot-master", "list"].iter().map(Into::into)).expect("a good command line");
    assert_eq!(
        run_on(cli, &env_in(fake.dir.path()), &mut io).await,
        Exit::Well
    );
    assert_eq!(err.text(), "");
}
