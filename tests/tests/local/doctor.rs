//! What is wrong is found, with a master and without one, and a report about it has no secret.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use aot_tests::rig::Rig;
use serde_json::Value;

/// The levels of what was looked at, the worst of each.
fn levels(lines: &[Value]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let rank = |level: &str| {
        ["ok", "skipped", "warn", "fail"]
            .iter()
            .position(|it| *it == level)
    };
    for line in lines {
        let check = line["check"].as_str().expect("a word").to_owned();
        let level = line["level"].as_str().expect("a word").to_owned();
        let worst = found.entry(check).or_insert_with(|| level.clone());
        if rank(&level) > rank(worst) {
            *worst = level;
        }
    }
    found
}

#[test]
fn doctor_looks_at_master_agents_and_host_and_works_without_a_master() {
    let rig = Rig::local();
    rig.cluster("cluster: sick\nprovider: local\ninstances: [{name: node1}]\n");
    rig.launch().expect(0);
    let well = rig.cli(["doctor", "--json"]);
    let seen = levels(&well.expect(0).json());
    for check in [
        "master", "versions", "agents", "records", "ports", "clocks", "local", "state",
    ] {
        let level = seen.get(check).map(String::as_str);
        assert_eq!(level, Some("ok"), "{check}: {}", well.shown());
    }
    let text = rig.cli(["doctor"]).expect(0).text();
    assert!(text.contains("1 agent connected"), "{text}");

    rig.cli(["shutdown"]).expect(0);
    let alone = rig.cli(["doctor", "--json"]);
    let seen = levels(&alone.expect(0).json());
    assert_eq!(seen["master"], "skipped", "{}", alone.shown());
    assert!(seen.contains_key("kernel"), "{}", alone.shown());
    assert!(rig.master_pid().is_none(), "one was started");

    let taken = TcpListener::bind(("127.0.0.1", rig.port())).expect("its port is free");
    let failing = rig.cli(["doctor", "--json"]);
    assert_eq!(levels(&failing.expect(1).json())["ports"], "fail");
    drop(taken);
    rig.cli(["cleanup", "--yes"]).expect(0);
}

#[test]
fn a_report_is_one_file_without_the_keys_of_the_state() {
    let mut rig = Rig::local();
    rig.set_env("AWS_SECRET_ACCESS_KEY", "planted-in-the-environment");
    rig.bundle("setup", "echo planted-printed; exit 3");
    rig.cluster(
        "cluster: report\nprovider: local\ninstances: [{name: node1, bootstrap_sequence: [{dir: setup}]}]\n",
    );
    rig.launch().expect(1);
    rig.cli(["exec", "node1", "--", "echo", "planted-typed"])
        .expect(0);
    let file = rig.dir().join("report.tar.gz");
    rig.cli(["bundle-logs", &file.display().to_string()])
        .expect(0);
    assert_eq!(file.metadata().expect("is there").mode() & 0o777, 0o600);
    let into = rig.dir().join("unpacked");
    std::fs::create_dir(&into).expect("a folder");
    let tar = Command::new("tar")
        .arg("-xzf")
        .arg(&file)
        .arg("-C")
        .arg(&into)
        .status();
    assert!(tar.expect("it runs").success());
    let mut secrets = vec!["planted-".to_owned(), "PRIVATE KEY".to_owned()];
    for entry in std::fs::read_dir(rig.state_dir())
        .expect("the state")
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains("key") && entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).expect("reads");
            secrets.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        }
    }
    assert!(secrets.len() > 2, "the state has no keys");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(into.join("aot-report"))
        .expect("parts")
        .flatten()
    {
        let text = std::fs::read_to_string(entry.path()).expect("text");
        for secret in &secrets {
            assert!(!text.contains(secret), "{:?} has {secret}", entry.path());
        }
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    for name in [
        "config.jsonl",
        "master.log",
        "events-report.jsonl",
        "jobs.jsonl",
        "doctor.jsonl",
    ] {
        assert!(names.iter().any(|it| it == name), "{name}: {names:?}");
    }
    rig.cli(["cleanup", "--yes"]).expect(0);
}
