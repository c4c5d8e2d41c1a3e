//! The master in the background: what it keeps over a crash, whom it makes way for, and how a command meets one that dies.

use std::time::Duration;

use aot_tests::process;
use aot_tests::rig::{LIMIT, Rig};
use aot_tests::wait;
use nix::sys::signal::Signal;

const TWO: &str = "
cluster: kept
provider: local
pools:
  - {name: n, size: 2}
";

/// Whether both agents answer.
fn both_answer(rig: &Rig) -> bool {
    rig.cli(["exec", "--json", "*", "ping"]).code == Some(0)
}

#[test]
fn a_master_that_comes_back_listens_where_its_machines_look_for_it() {
    let mut rig = Rig::local();
    rig.cluster(TWO);
    let address = format!("127.0.0.2:{}", rig.port());
    rig.unset_env("AOT_LISTEN");
    rig.cli([
        "launch",
        "--yes",
        "--listen",
        &address,
        "--keep-jobs",
        "7d",
        "cluster.yml",
    ])
    .expect(0);
    let line = process::command_line(rig.master_pid().expect("a master"));
    assert!(line.contains("--keep-jobs"), "{line}");

    rig.kill_master();
    let status = rig.cli(["status"]);

    status.expect(0);
    assert!(!status.text().contains("warning"), "{}", status.shown());
    wait::until(
        || both_answer(&rig),
        LIMIT,
        "both agents found their master",
    );

    // Told otherwise, it says whom it loses, and the way back.
    rig.cli(["shutdown"]).expect(0);
    rig.set_env("AOT_LISTEN", "127.0.0.3:0");
    rig.set_env("AOT_ADVERTISE", "127.0.0.3:9");
    let status = rig.cli(["status"]);
    let said =
        format!("kept: 2 of its machines dial {address}, and this master advertises 127.0.0.3:9");
    assert!(status.shown().contains(&said), "{}", status.shown());
    rig.unset_env("AOT_LISTEN");
    rig.unset_env("AOT_ADVERTISE");
    rig.cli(["restart", "--listen", &address, "--advertise", &address])
        .expect(0);
    wait::until(
        || both_answer(&rig),
        LIMIT,
        "both agents found their master again",
    );
}

#[test]
fn a_launch_right_after_a_kill_meets_the_next_master() {
    let rig = Rig::local();
    rig.cluster(TWO);
    rig.launch().expect(0);
    for round in 0..12 {
        // Not waited for: it may still be dying when the command comes.
        process::send(rig.master_pid().expect("a master"), Signal::SIGKILL);
        let again = rig.launch();
        assert_eq!(again.code, Some(0), "round {round}: {}", again.shown());
    }
}

#[test]
fn a_command_right_after_a_stop_meets_the_next_master() {
    let rig = Rig::local();
    rig.cluster(TWO);
    rig.launch().expect(0);
    for round in 0..4 {
        // There is none when the one before answered the last command and ended then.
        if let Some(master) = rig.master_pid() {
            process::send(master, Signal::SIGTERM);
        }
        let status = rig.cli(["status", "--json"]);
        assert_eq!(status.code, Some(0), "round {round}: {}", status.shown());
    }
}

#[test]
fn a_state_that_was_served_by_hand_is_taken_over_and_one_of_a_service_is_not() {
    let mut rig = Rig::local();
    rig.cluster(TWO);
    let serve = rig.serve();
    rig.launch().expect(0);
    serve.signal(Signal::SIGINT);
    serve.finish(LIMIT).expect(0);
    rig.launch().expect(0);
    rig.cli(["shutdown"]).expect(0);

    // As systemd starts it: the variable holds the number of the very process, so the shell becomes it.
    let mut command = rig.command(["serve"]);
    let program = command.get_program().to_owned();
    let mut service = std::process::Command::new("/bin/sh");
    service
        .args(["-c", "SYSTEMD_EXEC_PID=$$ exec \"$0\" serve"])
        .arg(program)
        .env_clear()
        .envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .current_dir(rig.dir());
    command.current_dir(rig.dir());
    let service = aot_tests::rig::Running::start(service);
    wait::until(|| rig.master_pid().is_some(), LIMIT, "it serves");
    service.signal(Signal::SIGTERM);
    service.finish(LIMIT).expect(0);
    let refused = rig.cli(["launch", "--yes", "cluster.yml"]);
    refused.expect(4);
    assert!(
        refused.shown().contains("launch --background"),
        "{}",
        refused.shown()
    );
    rig.cli(["launch", "--background", "--yes", "cluster.yml"])
        .expect(0);
    rig.set_env("AOT_LOG", "infoo");
    rig.cli(["status"]).expect(2);
    rig.unset_env("AOT_LOG");
    wait::until(
        || both_answer(&rig),
        Duration::from_secs(60),
        "both agents are back",
    );
}

#[test]
fn nothing_empty_means_all() {
    let rig = Rig::local();
    rig.cluster(TWO);
    rig.launch().expect(0);
    let before = rig.machine_ids();
    for words in [
        &["exec", "", "true"][..],
        &["exec", "*", "--exclude", "", "true"],
        &["exec", "*", "--user", "", "true"],
        &["exec", "*", "--cwd", "", "true"],
        &["exec", "*", "--cluster", "", "true"],
        &["exec", "*", "--concurrency", "", "true"],
        &["exec", "*", ""],
        &["terminate", "", "--yes"],
        &["terminate", "*", "--yes", "--exclude="],
        &["cleanup", "", "--yes"],
        &["agents", "revoke", "", "--yes"],
        &["stop", "", "--yes"],
        &["reboot", "", "--yes"],
        &["start", ""],
        &["apply", ""],
        &["list", ""],
        &["facts", ""],
        &["logs", ""],
        &["wait", "", "--state", "ready"],
        &["shell", ""],
        &["jobs", "cancel", ""],
        &["jobs", "retry", ""],
        &["cp", "cluster.yml", ":/tmp/"],
        &["cp", ":/etc/hostname", "."],
        &["orphans", "--delete", "", "--yes"],
    ] {
        let output = rig.cli(words);
        assert_eq!(output.code, Some(2), "{words:?}: {}", output.shown());
    }
    let mut unset = rig.command(["cleanup", "--yes"]);
    unset.env("AOT_CLUSTER", "");
    aot_tests::rig::Running::start(unset)
        .finish(LIMIT)
        .expect(2);
    assert_eq!(rig.machine_ids(), before);
}
