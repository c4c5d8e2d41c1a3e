//! What is long, put where it outlives the master's own folder: read there and handed out from there by a master that has no
//! copy, and waited for while that place is away.

use std::fs;
use std::path::PathBuf;

use aot_tests::jobs;
use aot_tests::rig::{LIMIT, Rig};
use aot_tests::wait;
use nix::sys::signal::Signal;

/// Prints some 230 KB.
const LONG: &str = "seq 40000";

fn rig() -> (Rig, PathBuf) {
    let mut rig = Rig::local();
    let blobs = rig.dir().join("blobs");
    rig.set_env("AOT_BLOBS", &blobs.display().to_string());
    rig.bundle("long", &format!("{LONG}\n"));
    rig.cluster(
        "
cluster: blobs
provider: local
instances: [{name: head, bootstrap_sequence: [{dir: long}]}]
",
    );
    (rig, blobs)
}

/// What the command prints.
fn printed() -> String {
    (1..=40_000).map(|n| format!("{n}\n")).collect()
}

/// Takes the master's own copies.
fn forget(rig: &Rig, folder: &str) {
    let entries = fs::read_dir(rig.state_dir().join(folder)).expect("is there");
    for entry in entries.flatten() {
        fs::remove_file(entry.path()).expect("a file");
    }
}

/// The newest job of a command.
#[track_caller]
fn newest(rig: &Rig) -> String {
    let listed = rig.cli(["jobs", "--json"]);
    let jobs = listed.expect(0).json();
    let id = jobs[0]["job"].as_str();
    id.unwrap_or_else(|| panic!("{}", listed.shown()))
        .to_owned()
}

#[track_caller]
fn shows_all(rig: &Rig, job: &str) {
    let shown = rig.cli(["jobs", "show", "--json", job]);
    let end = shown.expect(0).one(|line| line["instance"] == "head");
    assert_eq!(end["outcome"], "succeeded", "{}", shown.shown());
    assert!(jobs::bytes(&end, "stdout") == printed().as_bytes());
}

#[test]
fn a_master_without_copies_reads_outputs_where_they_were_put() {
    let (rig, _) = rig();
    rig.launch().expect(0);
    let logs = rig.cli(["logs", "head"]).expect(0).text();
    assert!(logs.contains("39999"), "{} bytes", logs.len());
    rig.cli(["exec", "head", "--", "sh", "-c", LONG]).expect(0);
    let job = newest(&rig);
    rig.cli(["shutdown"]).expect(0);
    forget(&rig, "spools");
    shows_all(&rig, &job);
    assert!(rig.cli(["logs", "head"]).expect(0).text() == logs);
}

#[test]
fn a_master_without_its_bundles_hands_out_those_that_were_put() {
    let (rig, _) = rig();
    let mut launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    launch.until(
        |line| line["event"] == "instance-requested",
        LIMIT,
        "a machine is asked for",
    );
    launch.signal(Signal::SIGKILL); // else it brings the next master
    launch.finish(LIMIT);
    rig.kill_master();
    forget(&rig, "bundles");
    let is_ready = || rig.status()["head"]["phase"] == "ready";
    wait::until(is_ready, LIMIT, "its stage has run");
    assert!(rig.log().contains("fetched what another master has put"));
}

#[test]
fn while_the_place_is_away_long_ends_wait_and_nothing_else_does() {
    let (rig, blobs) = rig();
    rig.launch().expect(0);
    // Nothing can be put below a file.
    let kept = rig.dir().join("kept");
    fs::rename(&blobs, &kept).expect("moves");
    fs::write(&blobs, "in the way").expect("writes");
    let long = rig.spawn(["exec", "head", "--", "sh", "-c", LONG]);
    let waits = || {
        rig.cli(["status"])
            .shown()
            .contains("the end of 1 run waits")
    };
    wait::until(waits, LIMIT, "the end waits, and status says so");
    let job = newest(&rig);
    assert_eq!(rig.sh("head", "echo short"), "short");
    rig.sh("head", "seq 100000 > /opt/numbers");
    rig.cli(["cp", "head:/opt/numbers", "numbers"]).expect(0);
    rig.kill_master();

    wait::until(waits, LIMIT, "the next master does not tell it either");
    fs::remove_file(&blobs).expect("removes");
    fs::rename(&kept, &blobs).expect("moves");
    long.finish(LIMIT).expect(0);
    shows_all(&rig, &job);
}
