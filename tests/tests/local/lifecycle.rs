//! What changes or ends machines is a job: who asked, for which machines, and what came of it, whoever is killed meanwhile.

use aot_tests::jobs;
use aot_tests::rig::{LIMIT, Rig};
use aot_tests::wait;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Something that does not go at once: a stop takes as long as a stop may.
const STUBBORN: &str =
    "setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' >/dev/null 2>&1 </dev/null &";

fn with_nodes(count: u32) -> Rig {
    let rig = Rig::local();
    rig.cluster(&format!(
        "
cluster: moves
provider: local
pools: [{{name: node, size: {count}}}]
"
    ));
    rig.launch().expect(0);
    rig
}

/// The newest job of a kind.
#[track_caller]
fn newest(rig: &Rig, kind: &str) -> Value {
    let all = jobs::list(rig);
    let found = all.iter().find(|job| job["kind"] == kind);
    found
        .unwrap_or_else(|| panic!("no {kind} in {all:#?}"))
        .clone()
}

/// Waits until the newest job of a kind is over.
#[track_caller]
fn over(rig: &Rig, kind: &str) -> Value {
    let ended = || !newest(rig, kind)["ended"].is_null();
    wait::until(ended, LIMIT, &format!("the end of the {kind}"));
    newest(rig, kind)
}

/// Who runs this, as jobs name them.
pub(super) fn me() -> String {
    operator(std::env::var("SUDO_USER").ok().as_deref())
}

/// The same where sudo names somebody: who logged in, whom sudo names, or the user.
fn operator(sudo_user: Option<&str>) -> String {
    let own = std::fs::metadata("/proc/self").expect("is there");
    let own = std::os::unix::fs::MetadataExt::uid(&own);
    let login = std::fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
    let login = login.trim().parse().ok().filter(|uid| *uid != u32::MAX);
    match (login, sudo_user) {
        (None, Some(name)) if own == 0 => name.to_owned(),
        _ => {
            let uid = login.unwrap_or(own);
            let name = aot_host::users::name_of(uid, std::path::Path::new("/etc/passwd"));
            name.unwrap_or_else(|| format!("uid {uid}"))
        }
    }
}

#[track_caller]
fn is(job: &Value, what: &str, targets: u32, outcomes: &Value) {
    assert_eq!(job["what"], what, "{job}");
    assert_eq!(job["operator"], json!(me()), "{job}");
    assert_eq!(job["targets"], json!(targets), "{job}");
    assert_eq!(&job["summary"], outcomes, "{job}");
    assert!(!job["ended"].is_null(), "{job}");
}

#[test]
fn each_command_that_changes_or_ends_machines_is_on_record_as_it_ends() {
    let rig = with_nodes(2);
    let both = json!({"succeeded": 2});
    let one = json!({"succeeded": 1});
    rig.cli(["update"]).expect(0);
    is(&newest(&rig, "update"), "update", 2, &both);
    rig.cli(["stop", "node*", "--yes"]).expect(0);
    is(&newest(&rig, "stop"), "stop node*", 2, &both);
    rig.cli(["start", "node*"]).expect(0);
    is(&newest(&rig, "start"), "start node*", 2, &both);
    rig.cli(["reboot", "node1", "--yes"]).expect(0);
    is(&newest(&rig, "reboot"), "reboot node1", 1, &one);
    rig.cli(["terminate", "node2", "--yes"]).expect(0);
    is(&newest(&rig, "terminate"), "terminate node2", 1, &one);
    let shown = jobs::show(&rig, newest(&rig, "stop")["job"].as_str().expect("an id"));
    assert_eq!(shown.of("node1")["outcome"], "succeeded");
    rig.cli(["cleanup", "moves", "--yes"]).expect(0);
    let cleanup = newest(&rig, "cleanup");
    is(&cleanup, "cleanup moves", 2, &both);
    let id = cleanup["job"].as_str().expect("an id");
    assert!(!id.starts_with("job-0000000000"), "{id}");
}

#[test]
fn a_change_that_cannot_be_is_refused_as_before_and_is_no_job() {
    let rig = with_nodes(1);
    rig.cli(["stop", "node1", "--yes"]).expect(0);
    let refused = rig.cli(["reboot", "node1", "--yes"]);
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.shown().contains("start it instead"),
        "{}",
        refused.shown()
    );
    assert!(jobs::list(&rig).iter().all(|job| job["kind"] != "reboot"));
}

#[test]
fn what_is_deleted_of_an_unknown_cluster_is_on_record() {
    let rig = with_nodes(2);
    rig.kill_master();
    for name in ["aot.sqlite", "aot.sqlite-wal", "aot.sqlite-shm"] {
        let _ = std::fs::remove_file(rig.state_dir().join(name)); // those that there are
    }
    let left = rig.cli(["orphans", "--json"]);
    let uuid = left.json()[0]["uuid"].clone();
    let uuid = uuid.as_str().expect("its uuid");
    let deleted = rig.cli(["orphans", "--delete", uuid, "--yes", "--json"]);
    deleted.expect(0);
    let what = format!("orphans --delete {uuid}");
    is(&newest(&rig, "orphans"), &what, 1, &json!({"succeeded": 1}));
    assert!(rig.machines().is_empty());
}

#[test]
fn a_stop_whose_command_is_killed_goes_on_and_its_end_is_recorded() {
    let rig = with_nodes(1);
    rig.sh("node1", STUBBORN);
    let stop = rig.spawn(["stop", "node1", "--yes", "--json"]);
    let begun = || jobs::list(&rig).iter().any(|job| job["kind"] == "stop");
    wait::until(begun, LIMIT, "the stop is on record");
    stop.signal(Signal::SIGKILL);
    stop.finish(LIMIT);
    is(
        &over(&rig, "stop"),
        "stop node1",
        1,
        &json!({"succeeded": 1}),
    );
    assert_eq!(rig.status()["node1"]["state"], "stopped");
}

#[test]
fn a_stop_in_the_middle_of_which_the_master_is_killed_ends_truthfully() {
    let rig = with_nodes(1);
    rig.sh("node1", STUBBORN);
    let stop = rig.spawn(["stop", "node1", "--yes", "--json"]);
    let begun = || jobs::list(&rig).iter().any(|job| job["kind"] == "stop");
    wait::until(begun, LIMIT, "the stop is on record");
    rig.kill_master();
    stop.finish(LIMIT).expect(0);
    is(
        &over(&rig, "stop"),
        "stop node1",
        1,
        &json!({"succeeded": 1}),
    );
    assert_eq!(rig.status()["node1"]["state"], "stopped");
    let stops = jobs::list(&rig);
    let stops = stops.iter().filter(|job| job["kind"] == "stop");
    assert_eq!(stops.count(), 1, "it is the same job");
}

#[test]
fn a_termination_in_the_middle_of_which_the_master_is_killed_ends_truthfully() {
    let rig = with_nodes(2);
    let terminate = rig.spawn(["terminate", "node1", "--yes", "--json"]);
    let begun = || {
        jobs::list(&rig)
            .iter()
            .any(|job| job["kind"] == "terminate")
    };
    wait::until(begun, LIMIT, "the termination is on record");
    rig.kill_master();
    terminate.finish(LIMIT).expect(0);
    is(
        &over(&rig, "terminate"),
        "terminate node1",
        1,
        &json!({"succeeded": 1}),
    );
    let status = rig.status();
    assert_eq!(status["node1"]["state"], "terminated");
    assert_eq!(status["node2"]["state"], "running");
}

#[test]
fn a_cleanup_whose_command_is_killed_goes_on_to_its_end() {
    let rig = with_nodes(2);
    rig.sh("node1", STUBBORN);
    let cleanup = rig.spawn(["cleanup", "moves", "--yes", "--json"]);
    let begun = || jobs::list(&rig).iter().any(|job| job["kind"] == "cleanup");
    wait::until(begun, LIMIT, "the cleanup is on record");
    cleanup.signal(Signal::SIGKILL);
    cleanup.finish(LIMIT);
    is(
        &over(&rig, "cleanup"),
        "cleanup moves",
        2,
        &json!({"succeeded": 2}),
    );
    wait::until(|| rig.machines().is_empty(), LIMIT, "no machine is left");
}

#[test]
fn whoever_asked_behind_sudo_is_on_record_by_name_and_found_by_it() {
    let mut rig = with_nodes(1);
    rig.cli(["exec", "node1", "--", "true"]).expect(0);
    rig.set_env("SUDO_USER", "some\u{1b}one");
    rig.cli(["exec", "node1", "--", "echo", "hi"]).expect(0);
    let (first, second) = (me(), operator(Some("some_one")));
    let by = |name: &str| -> Vec<Value> {
        let jobs = rig.cli(["jobs", "--json", "--kind", "exec", "--by", name]);
        let jobs = jobs.expect(0).json();
        jobs.iter().map(|job| job["what"].clone()).collect()
    };
    let (earlier, later) = ("exec \"node1\" -- true", "exec \"node1\" -- echo hi");
    if first == second {
        // Somebody has logged in for all of this: that counts.
        assert_eq!(by(&first), [later, earlier]);
    } else {
        assert_eq!(by(&first), [earlier]);
        assert_eq!(by(&second), [later]);
    }
    assert!(by("nobody-else").is_empty());
}
