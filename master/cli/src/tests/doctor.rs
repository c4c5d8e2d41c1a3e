//! What is wrong, and what a report has.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use aot_proto::v1::{Finding, FindingLevel, jobs_reply};

use super::look::two_clusters;
use super::*;

fn finding(level: FindingLevel, about: &str) -> Finding {
    Finding {
        level: level.into(),
        check: "ec2".into(),
        about: about.into(),
        message: "it was looked at".into(),
        hint: if level == FindingLevel::Ok {
            String::new()
        } else {
            "do something".into()
        },
    }
}

/// Without what is of this host.
fn of_the_master(out: &str) -> String {
    let own = ["state", "disk", "open files", "clock "];
    let is_own = |line: &str| {
        own.iter()
            .any(|name| line[9.min(line.len())..].starts_with(name))
    };
    let mut kept = Vec::new();
    let mut is_left_out = false;
    for line in out.lines() {
        // A hint belongs to the line above it.
        is_left_out = match line.starts_with("  hint: ") {
            true => is_left_out,
            false => is_own(line),
        };
        if !is_left_out {
            kept.push(line);
        }
    }
    kept.join("\n")
}

#[tokio::test]
async fn doctor_shows_what_was_found_and_fails_for_what_fails() {
    let with = |findings| Script {
        findings,
        status: two_clusters(),
        build: "0.1.0 (1)".into(),
        pid: std::process::id(),
        ..Script::default()
    };
    let well = Fake::start(with(vec![
        finding(FindingLevel::Ok, ""),
        finding(FindingLevel::Warn, "web"),
    ]));
    let ran = run(&well, &["doctor"]).await;
    assert_eq!(ran.exit, Exit::Well, "{}{}", ran.out, ran.err);
    let shown = of_the_master(&ran.out);
    let shown = shown.replace(&std::process::id().to_string(), "PID");
    insta::assert_snapshot!("doctor", shown);
    let failing = Fake::start(with(vec![finding(FindingLevel::Fail, "web")]));
    let ran = run(&failing, &["--json", "doctor"]).await;
    assert_eq!(ran.exit, Exit::Failed, "{}", ran.err);
    let wanted = r#"{"check":"ec2","about":"web","level":"fail","message":"it was looked at","hint":"do something"}"#;
    assert!(ran.out.lines().any(|line| line == wanted), "{}", ran.out);
}

#[tokio::test]
async fn doctor_works_without_a_master_and_starts_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let env = CliEnv {
        background: Some(BackgroundDaemon::new(
            "/bin/false".into(),
            dir.path(),
            &dir.path().join("master.sock"),
            None,
        )),
        ..env_in(dir.path())
    };
    let ran = run_in(&env, "", &["doctor", "--json"]).await;
    let levels = |name: &str| -> Vec<String> {
        let all = ran.out.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            (line["check"].clone(), line["level"].clone())
        });
        let of = all.filter(|(check, _)| check == name);
        of.map(|(_, level)| level.as_str().expect("a word").to_owned())
            .collect()
    };
    assert_eq!(levels("master"), ["skipped"], "{}", ran.out);
    assert_eq!(levels("disk").len(), 1, "{}", ran.out);
    assert_eq!(levels("kernel").len(), 1, "{}", ran.out);
    assert!(!ran.err.contains("started a master"), "{}", ran.err);
}

/// All that is in a report, by its names.
fn unpacked(path: &Path) -> std::collections::BTreeMap<String, String> {
    let file = std::fs::File::open(path).expect("is there");
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let entries = tar.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("an entry");
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("text");
        let name = entry.path().expect("a name").display().to_string();
        (name.trim_start_matches("aot-report/").to_owned(), text)
    });
    entries.collect()
}

#[tokio::test]
async fn a_report_has_what_is_needed_and_no_secret() {
    const PLANTED: [&str; 7] = [
        "planted-join-token-0123",
        "planted-in-settings",
        "planted-typed-by-a-person",
        "planted-printed-by-a-stage",
        "planted-in-the-log",
        "planted-by-its-name",
        "c0ffeec0ffeec0ffee",
    ];
    let printed = r#"{"stage":0,"outcome":"failed","tail":["planted-printed-by-a-stage"]}"#;
    let fake = Fake::start(Script {
        status: two_clusters(),
        jobs: vec![jobs_reply::Entry {
            job_id: "job-1".into(),
            what: "mysql -pplanted-typed-by-a-person".into(),
            operator: "alice".into(),
            ..jobs_reply::Entry::default()
        }],
        rest: vec![Event {
            cluster: "hadoop".into(),
            instance: "web1".into(),
            event: "stage-ended".into(),
            fields_json: printed.into(),
            message: "password=planted-by-its-name".into(),
            ..Event::default()
        }],
        ..Script::default()
    });
    let state = fake.dir.path().join("state");
    std::fs::create_dir(&state).expect("a folder");
    let put = |name: &str, text: &str| std::fs::write(state.join(name), text).expect("writes");
    put("join.key", "planted-join-token-0123\n");
    put("fleet.key", "c0ffeec0ffeec0ffee");
    put(
        "ca.key.pem",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    );
    put(
        "master.log",
        "serving token=planted-in-the-log key c0ffeec0ffeec0ffee planted-join-token-0123\nthe last line\n",
    );
    let env = CliEnv {
        settings: Some(
            r#"{"setting":"store","value":"postgres://aot:planted-in-settings@db/aot"}"#.into(),
        ),
        ..env_in(fake.dir.path())
    };
    let file = fake.dir.path().join("report.tar.gz");
    let name = file.to_str().expect("UTF-8");
    let ran = run_in(&env, "", &["bundle-logs", name]).await;
    assert_eq!(
        (ran.exit, ran.out.trim()),
        (Exit::Well, name),
        "{}",
        ran.err
    );
    assert_eq!(file.metadata().expect("is there").mode() & 0o777, 0o600);
    let parts = unpacked(&file);
    for (part, has) in [
        ("config.jsonl", "postgres://aot:"),
        ("version.jsonl", "\"build\""),
        ("doctor.jsonl", "\"check\":\"state\""),
        ("status.jsonl", "\"name\":\"web1\""),
        ("jobs.jsonl", "\"operator\":\"alice\""),
        ("events-hadoop.jsonl", "stage-ended"),
        ("master.log", "the last line"),
        ("README.txt", "Left out"),
    ] {
        let text = parts
            .get(part)
            .unwrap_or_else(|| panic!("no {part}: {:?}", parts.keys()));
        assert!(text.contains(has), "{part}: {text}");
    }
    for (part, text) in &parts {
        for secret in PLANTED {
            assert!(!text.contains(secret), "{part} has {secret}: {text}");
        }
    }
    let again = run_in(&env, "", &["bundle-logs", name]).await;
    assert_eq!(again.exit, Exit::Usage, "{}", again.err);
    assert!(again.err.contains("is there already"), "{}", again.err);
}
