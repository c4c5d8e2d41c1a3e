//! Every command against a master that tells what lying machines say: nothing of it plays with the terminal.

use aot_proto::v1::{
    InstanceView, JobNotice, MastersReply, StageOutcome, StageState, StageView, agents_reply,
    jobs_reply, masters_reply, orphans_reply,
};

use super::*;

/// What a machine may say to a terminal: a title (OSC), a colour by one C1 character, a turn of direction, a line that
/// overwrites another, characters that are not seen.
const MARKS: &str =
    "PWNED\x1b]0;x\x07\u{9b}31m\x1b[2J\u{202e}gnp\r\u{200b}\u{feff}\u{2028}\x7f\u{61c}\u{e0041}";

fn marked(word: &str) -> String {
    format!("{word}{MARKS}")
}

/// What each command is called with here. A new one needs a line: how does it show what machines say?
fn rows() -> Vec<(&'static str, Vec<Vec<&'static str>>)> {
    vec![
        ("plan", vec![vec!["FILE"]]),
        (
            "launch",
            vec![vec!["FILE", "--yes"], vec!["FILE", "--detach", "-y"]],
        ),
        ("status", vec![vec![]]),
        ("list", vec![vec!["-osp"], vec!["x"]]),
        ("dns", vec![vec![]]),
        ("ip", vec![vec![]]),
        ("facts", vec![vec!["*"]]),
        ("wait", vec![vec!["*", "--state", "ready"]]),
        ("update", vec![vec![]]),
        (
            "exec",
            vec![
                vec!["*", "--", "x"],
                vec!["*", "--fold", "--", "x"],
                vec!["*", "--detach", "--", "x"],
                vec!["*", "--out", "DIR", "--", "x"],
                vec!["*", "ping"],
                vec!["*", "version"],
                vec!["*", "facts"],
                vec!["*", "stat", "/x"],
                vec!["*", "tail", "/x"],
            ],
        ),
        ("apply", vec![vec![]]),
        ("logs", vec![vec!["*"]]),
        (
            "jobs",
            vec![
                vec![],
                vec!["show", "job-1"],
                vec!["show", "job-1", "--no-output"],
                vec!["follow", "job-1"],
                vec!["cancel", "job-1"],
                vec!["retry", "job-1"],
            ],
        ),
        ("cp", vec![vec!["*:/x", "DIR"], vec!["FILE", "*:/x"]]),
        ("shell", vec![vec!["web1"]]),
        ("forward", vec![vec!["web1:80", "0"]]),
        ("connect", vec![vec!["web1"]]),
        ("inventory", vec![vec![]]),
        ("ssh-config", vec![vec!["--known-hosts", "KNOWN"]]),
        ("agents", vec![vec![], vec!["revoke", "*", "--yes"]]),
        ("start", vec![vec!["*"]]),
        ("stop", vec![vec!["*", "--yes"]]),
        ("reboot", vec![vec!["*", "--yes"]]),
        ("orphans", vec![vec![], vec!["--delete", "u", "--yes"]]),
        ("terminate", vec![vec!["*", "--yes"]]),
        ("cleanup", vec![vec!["hadoop", "--yes"]]),
        (
            "masters",
            vec![
                vec![],
                vec!["move", "CLUSTER", "a"],
                vec!["drain", "--undo", "a"],
            ],
        ),
        ("shutdown", vec![vec![]]),
        ("restart", vec![vec![]]),
        ("version", vec![vec![]]),
        ("doctor", vec![vec![]]),
        ("events", vec![vec![]]),
    ]
}

/// Commands that `main` answers without a master: they show a file of the operator's, or nothing. They are run on a real
/// terminal by the end-to-end tests.
const OF_MAIN: [&str; 12] = [
    "bundle-logs", // into a file, as JSON
    "attestation",
    "fleet",
    "serve",
    "check",
    "schema",
    "machine-run",
    "machine-init",
    "init",
    "config",
    "completion",
    "man",
];

fn liar(web: &str) -> InstanceView {
    let mut view = samples::view(web, "failed", &["failed"]);
    view.note = marked("note");
    view.explanation = marked("explanation\n");
    view.agent_version = marked("1");
    view.public_dns = marked("dns");
    view.public_ip = marked("ip");
    view.properties_json = serde_json::json!({ "p": MARKS }).to_string();
    view.stage_views = vec![StageView {
        name: marked("stage"),
        state: StageState::Failed.into(),
        outcome: StageOutcome::TimedOut.into(),
        detail: marked("detail"),
        tail: vec![marked("tail")],
        tail_stderr: 1,
        ..StageView::default()
    }];
    view
}

fn event(word: &str, fields: serde_json::Value) -> Event {
    Event {
        unix_ms: 1_767_225_784_000,
        cluster: "hadoop".into(),
        instance: "web1".into(),
        event: word.into(),
        message: marked(word),
        fields_json: fields.to_string(),
        view: Some(liar("web1")),
        ..Event::default()
    }
}

fn lies() -> Script {
    let ended = |name: &str, outcome: &str, json: serde_json::Value| {
        Body::Ended(JobEnded {
            instance: name.into(),
            outcome: samples::outcome(outcome),
            detail: marked("detail"),
            json: json.to_string(),
            ..JobEnded::default()
        })
    };
    let output = |stderr| {
        Body::Output(JobOutput {
            instance: "web1".into(),
            stderr,
            data: format!("{MARKS}\n{MARKS}\n").into_bytes().into(),
        })
    };
    let said = serde_json::json!({"version": MARKS, "lines": [MARKS], "path": MARKS, "kind": "file", MARKS: 1});
    let stage = serde_json::json!({"stage": 0, "name": MARKS, "outcome": "failed", "detail": MARKS, "tail": [MARKS]});
    let mut status = super::look::two_clusters();
    status.instances = vec![liar("web1"), liar("web2")];
    status.clusters.truncate(1);
    status.clusters[0].launch_error = marked("error");
    Script {
        plan: vec![PlanLine {
            detail: marked("detail"),
            ..plan("create", "web1")
        }],
        orphans: aot_proto::v1::OrphansReply {
            entries: vec![orphans_reply::Entry {
                kind: "volume".into(),
                id: marked("id"),
                cluster: marked("cluster"),
                uuid: "u".into(),
                ..orphans_reply::Entry::default()
            }],
            ..Default::default()
        },
        events: vec![
            event("snapshot", serde_json::json!({})),
            event("notice", serde_json::json!({})),
            event("stage-started", stage.clone()),
            event("stage-ended", stage),
            event(
                "receipt",
                serde_json::json!({"kind": "volume", "id": MARKS, "state": MARKS}),
            ),
            event("wait-progress", serde_json::json!({})),
            last(
                "launch-ended",
                1,
                &marked("last"),
                &serde_json::json!({"log": MARKS}).to_string(),
            ),
        ],
        exec: vec![
            Body::Started(JobStarted {
                job_id: "job-1".into(),
                instances: ["web1", "web2", "web3"].map(str::to_owned).into(),
                kind: samples::kind("exec"),
                what: marked("what"),
                operator: marked("operator"),
                ..JobStarted::default()
            }),
            Body::Notice(JobNotice {
                instance: "web1".into(),
                text: marked("note"),
            }),
            output(false),
            output(true),
            ended("web1", "failed", serde_json::Value::Null),
            ended("web2", "rejected", serde_json::Value::Null),
            ended("web3", "succeeded", said),
            Body::Summary(JobSummary {
                job_id: "job-1".into(),
                outcomes: samples::counts(&[("failed", 2), ("succeeded", 1)]),
                exit_code: 1,
                ..JobSummary::default()
            }),
        ],
        logs: vec![
            LogLine {
                instance: "web1".into(),
                name: marked("stage"),
                note: marked("attempt 1"),
                ..LogLine::default()
            },
            LogLine {
                instance: "web1".into(),
                stderr: true,
                data: MARKS.as_bytes().to_vec(),
                ..LogLine::default()
            },
        ],
        status,
        facts: vec![facts_reply::Entry {
            instance: "web1".into(),
            facts_json: serde_json::json!({ "main_user": MARKS, MARKS: [MARKS] }).to_string(),
        }],
        jobs: vec![jobs_reply::Entry {
            job_id: "job-1".into(),
            what: marked("what"),
            operator: marked("operator"),
            targets: 1,
            ..jobs_reply::Entry::default()
        }],
        agents: vec![agents_reply::Entry {
            instance: "web1".into(),
            cluster: "hadoop".into(),
            machine_id: marked("i-1"),
            serial: marked("0"),
            ..agents_reply::Entry::default()
        }],
        masters: MastersReply {
            masters: vec![masters_reply::Entry {
                id: marked("a/1"),
                clusters: vec![marked("web")],
                ..masters_reply::Entry::default()
            }],
            alone: true,
            nobodys: vec![marked("old")],
        },
        ..Script::default()
    }
}

/// What must not reach a terminal. Colours of ours may, and are taken away before.
fn raw_in(shown: &str, coloured: bool) -> Vec<char> {
    let mut text = shown.to_owned();
    if coloured {
        for code in [
            "0", "1", "2", "31", "32", "33", "34", "35", "36", "92", "93", "94", "95", "96",
        ] {
            text = text.replace(&format!("\x1b[{code}m"), "");
        }
    }
    let bad = |c: &char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || "\u{202e}\u{200b}\u{feff}\u{2028}\u{61c}\u{e0041}".contains(*c)
    };
    text.chars().filter(bad).collect()
}

fn words_of(command: &'static str, row: &[&'static str], fake: &Fake) -> Vec<String> {
    let below = |name: &str| fake.dir.path().join(name).display().to_string();
    let word = |word: &&str| match *word {
        "FILE" => file(fake),
        "DIR" => format!("{}/", below("dir")),
        "KNOWN" => below("known"),
        "CLUSTER" => marked("web"),
        word => word.to_owned(),
    };
    std::iter::once(command.to_owned())
        .chain(row.iter().map(word))
        .collect()
}

#[test]
fn every_command_has_a_row() {
    let command = crate::command();
    let rows = rows();
    for sub in command.get_subcommands() {
        let name = sub.get_name();
        let known = rows.iter().any(|(known, _)| *known == name) || OF_MAIN.contains(&name);
        assert!(
            known,
            "how does {name} show what machines say? Give it a row"
        );
        for inner in sub.get_subcommands().filter(|_| !OF_MAIN.contains(&name)) {
            let called = |(of, all): &(&str, Vec<Vec<&str>>)| {
                *of == name && all.iter().any(|row| row.first() == Some(&inner.get_name()))
            };
            assert!(
                rows.iter().any(called),
                "give `{name} {}` a row",
                inner.get_name()
            );
        }
    }
}

#[tokio::test]
async fn nothing_that_machines_say_plays_with_a_terminal() {
    let refused = Script {
        refuse: Some(tonic::Status::failed_precondition(marked("no"))),
        ..lies()
    };
    let (mut shown, mut refusals) = (0, 0);
    for (command, all) in rows() {
        for row in all {
            for (out, err, colour) in [
                (true, true, false),
                (true, true, true),
                (false, true, true),
                (true, false, true),
            ] {
                for script in [lies(), refused.clone()] {
                    let refuses = script.refuse.is_some();
                    let fake = Fake::start(script);
                    let env = CliEnv {
                        stdout_terminal: out,
                        stderr_terminal: err,
                        colour,
                        ..env_in(fake.dir.path())
                    };
                    let words = words_of(command, &row, &fake);
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let ran = run_in(&env, "", &words).await;
                    for (terminal, text) in [(out, &ran.out), (err, &ran.err)] {
                        let raw = raw_in(text, terminal && colour);
                        assert!(
                            !terminal || raw.is_empty(),
                            "{words:?}: {raw:?} in {text:?}"
                        );
                    }
                    let told = format!("{}{}", ran.out, ran.err).contains("PWNED");
                    shown += usize::from(told && !refuses);
                    refusals += usize::from(told && refuses);
                }
            }
        }
    }
    // Nearly all commands show something that a machine said, and all show why they were refused.
    assert!(shown > 100 && refusals > 140, "{shown} {refusals}");
}

#[tokio::test]
async fn json_says_all_of_it_and_is_harmless_wherever_it_goes() {
    let mut documents = 0;
    for (command, all) in rows() {
        for row in all {
            if row.contains(&"--fold") || matches!(command, "shell" | "connect") {
                continue; // refused with --json
            }
            let fake = Fake::start(lies());
            let mut words = words_of(command, &row, &fake);
            words.insert(0, "--json".to_owned());
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ran = run(&fake, &words).await;
            let raw = raw_in(&ran.out, false);
            assert!(raw.is_empty(), "{words:?}: {raw:?} in {:?}", ran.out);
            for line in ran.out.lines() {
                let value: Result<serde_json::Value, _> = serde_json::from_str(line);
                let value = value.unwrap_or_else(|error| panic!("{words:?}: {error}: {line}"));
                documents += usize::from(value.to_string().contains("PWNED"));
            }
        }
    }
    assert!(documents > 20, "{documents}");
}

#[tokio::test]
async fn a_pipe_beside_a_terminal_stays_exact() {
    let fake = Fake::start(lies());
    let env = CliEnv {
        stderr_terminal: true,
        colour: true,
        ..env_in(fake.dir.path())
    };
    let ran = run_in(&env, "", &["exec", "*", "--", "x"]).await;
    assert_eq!(ran.out, format!("web1 | {MARKS}\nweb1 | {MARKS}\n"));
    assert!(
        ran.err.contains('!') && raw_in(&ran.err, true).is_empty(),
        "{:?}",
        ran.err
    );
}
