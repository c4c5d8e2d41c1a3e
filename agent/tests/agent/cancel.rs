//! Cancellations of real process trees: the whole tree ends, at any time that it may be asked for.

use std::path::Path;

use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::{CancelRun, EndKind};
use rustix::process::Signal;

use super::fake::{Rig, bundle, exec, run_id, signal, stage, until};

/// Leaves every trace of a process that does not want to end: some in sessions of their own, adopted, or deaf to TERM.
const STUBBORN: &str = r#"
mark() { echo $$ >> PIDS; while :; do sleep 0.2; done; }
sh -c 'trap "echo heeded >> PIDS.log; exit" TERM; echo $$ >> PIDS; while :; do sleep 0.1; done' &
trap '' TERM
setsid sh -c 'trap "" TERM; echo $$ >> PIDS; while :; do sleep 0.2; done' &
(setsid sh -c 'echo $$ >> PIDS; exec sleep 1000 >/dev/null 2>&1 </dev/null' &)
sh -c 'kill -STOP $$; true' &
mark
"#;

fn pids(path: &Path) -> Vec<i32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn live(path: &Path) -> Vec<i32> {
    let is_live =
        |pid: &i32| aot_agent::inside::tree::stat(*pid).is_some_and(|stat| stat.state != b'Z');
    pids(path).into_iter().filter(is_live).collect()
}

fn cancel(n: u128, grace_ms: u64) -> Down {
    Down::CancelRun(CancelRun {
        run_id: run_id(n),
        grace_ms,
    })
}

fn stubborn(rig: &Rig) -> (String, std::path::PathBuf) {
    let path = rig.path("pids");
    (STUBBORN.replace("PIDS", &path.display().to_string()), path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_ends_the_whole_tree() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let pids = rig.path("pids");
    let script = format!(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do sleep 1; done' & echo $$ >> {0}; while :; do sleep 1; done",
        pids.display()
    );
    rig.master.start(exec(1, &script)).await;
    until(|| std::fs::read_to_string(&pids).is_ok_and(|text| text.lines().count() == 2));
    rig.master.send(cancel(1, 100)).await;
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        (result.ended.kind(), result.ended.leaked_pipes),
        (EndKind::Cancelled, false)
    );
    for pid in std::fs::read_to_string(&pids).unwrap().lines() {
        assert_eq!(
            aot_agent::inside::tree::stat(pid.parse().unwrap()),
            None,
            "{pid} lives"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_tree_survives_and_the_end_names_what_had_to_be_killed() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let (script, path) = stubborn(&rig);
    rig.master.start(exec(1, &script)).await;
    until(|| pids(&path).len() == 4);
    rig.master.send(cancel(1, 5000)).await;
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.ended.kind(), EndKind::Cancelled);
    assert_eq!(live(&path), Vec::<i32>::new());
    let detail = result.ended.detail;
    assert!(
        detail.starts_with("stopped: it was cancelled; "),
        "{detail}"
    );
    assert!(
        detail.ends_with(" ignored TERM and were killed"),
        "{detail}"
    );
    let log = std::fs::read_to_string(format!("{}.log", path.display())).unwrap();
    assert_eq!(log, "heeded\n", "TERM came before KILL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_heeds_term_is_not_killed() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let path = rig.path("pids");
    let script = format!("echo $$ >> {}; kill -STOP $$; sleep 1000", path.display());
    rig.master.start(exec(1, &script)).await;
    until(|| {
        let stat = pids(&path)
            .first()
            .and_then(|pid| aot_agent::inside::tree::stat(*pid));
        stat.is_some_and(|stat| stat.state == b'T')
    });
    rig.master.send(cancel(1, 60_000)).await;
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        (result.ended.kind(), &*result.ended.detail),
        (EndKind::Cancelled, "stopped: it was cancelled")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_cancellation_hastens_the_end_and_one_after_it_changes_nothing() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let (script, path) = stubborn(&rig);
    rig.master.start(exec(1, &script)).await;
    until(|| pids(&path).len() == 4);
    rig.master.send(cancel(1, 3_600_000)).await;
    until(|| Path::new(&format!("{}.log", path.display())).exists());
    assert!(!live(&path).is_empty(), "an hour is not over");
    rig.master.send(cancel(1, 1)).await;
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        (result.ended.kind(), live(&path)),
        (EndKind::Cancelled, vec![])
    );

    rig.master.start(exec(2, "exit 5")).await;
    let result = rig.master.result(&run_id(2)).await;
    rig.master.send(cancel(2, 1)).await;
    rig.master.send(cancel(9, 1)).await;
    rig.master.builtin(1, "ping").await;
    assert_eq!(
        (result.ended.kind(), result.ended.exit_code),
        (EndKind::Exited, 5)
    );
    assert_eq!(rig.master.result(&run_id(2)).await.ended, result.ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_survives_the_agent() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let (script, path) = stubborn(&rig);
    rig.master.start(exec(1, &script)).await;
    until(|| pids(&path).len() == 4);
    // It got no further than writing it down.
    rig.kill_agent();
    let dir = rig.path("state").join("runs").join(run_id(1));
    std::fs::write(dir.join("cancel"), "200").unwrap();
    rig.start_agent();
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        (result.ended.kind(), live(&path)),
        (EndKind::Cancelled, vec![])
    );

    // A shim that dies meanwhile does not make an interruption of it, which would be tried again.
    let other = rig.path("other");
    rig.master
        .start(exec(
            2,
            &format!(
                "trap '' TERM; echo $PPID >> {}; while :; do sleep 0.2; done",
                other.display()
            ),
        ))
        .await;
    until(|| pids(&other).len() == 1);
    rig.master.send(cancel(2, 3_600_000)).await;
    let dir = rig.path("state").join("runs").join(run_id(2));
    until(|| dir.join("cancel").exists());
    signal(pids(&other)[0], Signal::KILL);
    let result = rig.master.result(&run_id(2)).await;
    assert_eq!(result.ended.kind(), EndKind::Cancelled);
    assert!(
        result.ended.detail.contains("its shim was killed"),
        "{}",
        result.ended.detail
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_during_the_fetch_starts_nothing() {
    let mut rig = Rig::new().await;
    let ran = rig.path("ran");
    let (sha, packed) = bundle(&format!("touch {}", ran.display()));
    let bytes = packed.len() as u64;
    {
        let mut state = rig.master.lock();
        state.bundles.insert(sha.clone(), packed);
        // Each brings half of what is left, so it never comes to its end.
        state.cut_fetches = usize::MAX;
    }
    rig.start_agent();
    rig.master.start(stage(1, &sha, bytes)).await;
    rig.master
        .until("a fetch", |state| {
            (!state.fetch_offsets.is_empty()).then_some(())
        })
        .await;
    rig.master.send(cancel(1, 0)).await;
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        (result.started, result.ended.kind(), &*result.ended.detail),
        (0, EndKind::Cancelled, "cancelled before it was started")
    );
    // The next one has the folder for itself, and the whole bundle.
    rig.master.lock().cut_fetches = 0;
    rig.master.start(stage(2, &sha, bytes)).await;
    let result = rig.master.result(&run_id(2)).await;
    assert_eq!(
        (result.ended.kind(), result.ended.exit_code),
        (EndKind::Exited, 0)
    );
    assert!(ran.exists());
}
