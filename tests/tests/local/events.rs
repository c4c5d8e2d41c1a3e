//! What happened in a cluster can be asked for, and followed to the cluster's end.

use aot_tests::rig::{LIMIT, Rig};
use nix::sys::signal::Signal;

fn with_one_stage() -> Rig {
    let rig = Rig::local();
    rig.bundle("setup", "echo set up");
    rig.cluster(
        "
cluster: seen
provider: local
instances: [{name: node1, bootstrap_sequence: [{dir: setup}]}]
",
    );
    rig.launch().expect(0);
    rig
}

#[test]
fn events_are_remembered_and_followed_until_the_cluster_is_gone() {
    let rig = with_one_stage();
    let events = rig.cli(["events", "--json"]);
    for kind in ["instance-requested", "stage-ended", "instance-ready"] {
        assert_eq!(events.expect(0).events(kind).len(), 1, "{kind}");
    }
    let text = rig.cli(["events"]).expect(0).text();
    assert!(text.contains("node1 stage setup ended ok"), "{text}");
    let early = rig.cli(["events", "--since", "2020-01-01T00:00:00Z", "--json"]);
    let notice = early.expect(0).json()[0]["message"].clone();
    assert_eq!(notice, "this master remembers no events from before");
    let late = rig.cli(["events", "--since", "2200-01-01T00:00:00Z"]);
    assert_eq!(late.expect(0).text(), "");

    let mut follow = rig.spawn(["events", "-f", "--since", "1h", "--json"]);
    follow.event("instance-ready", "node1", LIMIT);
    rig.cli(["apply", "--force"]).expect(0);
    rig.cli(["cleanup", "--yes"]).expect(0);
    let ended = follow.finish(LIMIT);
    let last = ended.expect(0).json().pop().expect("an event");
    assert_eq!(last["event"], "cluster-gone", "{last}");
    assert_eq!(ended.events("stage-ended").len(), 2);
}

#[test]
fn following_events_ends_by_ctrl_c_with_130_and_disturbs_nothing() {
    let rig = with_one_stage();
    let mut follow = rig.spawn(["events", "-f", "--since", "1h", "--json"]);
    follow.event("instance-ready", "node1", LIMIT);
    follow.signal(Signal::SIGINT);
    follow.finish(LIMIT).expect(130);
    rig.cli(["exec", "node1", "ping"]).expect(0);
}
