//! A lying machine talks too much: endless texts, lists without an end, a storm of facts, control characters, messages out
//! of their order. The master stays as small as it was, other clusters do not notice, and nothing of it is printed raw.

use std::time::{Duration, Instant};

use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::{
    ClusterFactsApplied, FactsReport, GoingAway, Hello, RunState, SpoolData, VolumesMounted,
};
use aot_tests::liar::{self, Identity, Liar};
use aot_tests::machine::LocalMachine;
use aot_tests::rig::Rig;

/// An escape sequence, a bell, a C1 control, a right-to-left override and a line of its own.
const MARKS: &str = "\u{1b}]0;forged\u{7}\u{9b}31m\u{202e}\nforged line";

/// Most that the master may grow by, MiB: what an honest session of such a machine could take for a moment.
const GROWTH: u64 = 96;

fn two_clusters() -> (Rig, LocalMachine) {
    let rig = Rig::local();
    for (cluster, name) in [("evil", "x"), ("good", "b")] {
        let text = format!("cluster: {cluster}\nprovider: local\ninstances: [{{name: {name}}}]\n");
        let file = rig.file(&format!("{cluster}.yml"), &text);
        rig.cli(["launch", "--json", "--yes", &file.display().to_string()])
            .expect(0);
    }
    let machine = rig.machine("x");
    machine.stop_agent();
    (rig, machine)
}

/// Resident memory of the master, MiB (proc_pid_status(5), VmRSS).
fn memory(rig: &Rig) -> u64 {
    let pid = rig.master_pid().expect("a master");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a number") / 1024
}

/// The other cluster is asked and answers at once.
#[track_caller]
fn good_is_well(rig: &Rig) {
    let begun = Instant::now();
    rig.cli(["exec", "--cluster", "good", "b", "ping"])
        .expect(0);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}

/// What operators and the log are told has none of the marks.
#[track_caller]
fn nothing_is_raw(rig: &Rig) {
    for words in [
        &["status"][..],
        &["status", "--json"],
        &["list", "-s", "--cluster", "evil"],
        &["facts", "--cluster", "evil", "x"],
        &["agents"],
        &["jobs"],
    ] {
        let text = rig.cli(words).text();
        let raw = text.contains('\u{1b}') || text.contains('\u{9b}') || text.contains('\u{202e}');
        assert!(
            !raw && !text.contains("\nforged line"),
            "{words:?}: {text:?}"
        );
    }
    let log = rig.log();
    let raw = log.contains('\u{1b}') || log.contains('\u{9b}') || log.contains('\u{202e}');
    assert!(!raw && !log.contains("\nforged line"), "the log");
}

#[test]
fn long_texts_and_storms_cost_next_to_nothing_and_are_printed_harmlessly() {
    let _turn = crate::turn();
    let (rig, machine) = two_clusters();
    let before = memory(&rig);
    let long = MARKS.repeat(15_000);
    let named = Hello {
        agent_version: long.clone(),
        boot_id: long.clone(),
        architecture: long.clone(),
        ..liar::hello()
    };
    let mut liar = Liar::attach_with(&rig, &Identity::of(&rig, &machine), named);
    for round in 0..40u64 {
        liar.send(Up::ClusterFactsApplied(ClusterFactsApplied {
            generation: round,
            sha256: long.clone(),
            error: long.clone(),
        }));
        liar.send(Up::VolumesMounted(VolumesMounted {
            id: round,
            error: long.clone(),
        }));
        liar.send(Up::Facts(FactsReport {
            node_json: format!("{{\"round\":{round},\"text\":{:?}}}", "x".repeat(100_000)),
            ssh_host_keys: vec![long.clone(); 3],
            root_public_key: long.clone(),
            user_public_key: long.clone(),
            main_user: MARKS.to_owned(),
        }));
        liar.send(liar::answer("run-01ARZ3NDEKTSV4RRFFQ69G5FAV", false, &long));
    }
    good_is_well(&rig);
    liar.heard();
    let grown = memory(&rig).saturating_sub(before);
    assert!(grown < GROWTH, "the master grew by {grown} MiB");
    nothing_is_raw(&rig);
    liar.send(Up::GoingAway(GoingAway { reason: long }));
    liar.ended();
    good_is_well(&rig);
    nothing_is_raw(&rig);
}

#[test]
fn what_breaks_the_protocol_ends_the_session_and_nothing_else() {
    let _turn = crate::turn();
    let (rig, machine) = two_clusters();
    let identity = Identity::of(&rig, &machine);
    let before = memory(&rig);
    let runs = (0..100_000).map(|number| RunState {
        run_id: format!("run-{number:026}"),
        ..RunState::default()
    });
    let crowded = Hello {
        runs: runs.collect(),
        ..liar::hello()
    };
    for _ in 0..3 {
        Liar::attach_with(&rig, &identity, crowded.clone()).ended();
    }
    // A second hello, and a piece that is larger than any may be.
    let twice = |body: Up| {
        let mut liar = Liar::attach(&rig, &identity);
        liar.send(body);
        liar.ended();
    };
    twice(Up::Hello(liar::hello()));
    twice(Up::Spool(SpoolData {
        run_id: "run-01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned(),
        data: vec![0; 3 << 20].into(),
        ..SpoolData::default()
    }));
    good_is_well(&rig);
    let grown = memory(&rig).saturating_sub(before);
    assert!(grown < GROWTH, "the master grew by {grown} MiB");
}
