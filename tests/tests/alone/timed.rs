//! What has to be over within a few seconds.

use std::time::{Duration, Instant};

use aot_tests::rig::Rig;
use serde_json::{Value, json};

/// What a master gives those who are still at work when it stops.
const GRACE: Duration = Duration::from_secs(5);

/// From TERM to KILL.
const KILL: Duration = Duration::from_secs(10);

#[test]
fn an_idle_master_stops_at_once() {
    let _turn = crate::turn();
    let rig = Rig::local();
    rig.cluster("{cluster: idle, provider: local, instances: [{name: head}]}\n");
    for _ in 0..25 {
        rig.cli(["plan", "cluster.yml"]).expect(0);
        let begun = Instant::now();
        rig.cli(["shutdown"]).expect(0);
        let took = begun.elapsed();
        assert!(took < GRACE, "{took:?}");
    }
}

#[test]
fn a_command_whose_time_is_up_is_ended_by_term_at_once() {
    let _turn = crate::turn();
    let rig = Rig::local();
    rig.cluster("{cluster: exec, provider: local, instances: [{name: head}]}\n");
    rig.launch().expect(0);

    let begun = Instant::now();
    let late = rig.cli([
        "exec",
        "--json",
        "--timeout",
        "1s",
        "head",
        "--",
        "sleep",
        "4245",
    ]);
    late.expect(1);
    let end = late.one(|line| line["instance"] == "head");
    assert_eq!(
        (&end["outcome"], &end["exit_code"]),
        (&json!("timed_out"), &Value::Null)
    );
    assert!(
        begun.elapsed() < Duration::from_secs(1) + KILL,
        "TERM ends it, not the KILL after it: {end}"
    );
}
