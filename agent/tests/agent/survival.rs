//! Runs while the agent, their shim, their folder or the machine goes away.

use std::os::unix::fs::PermissionsExt;

use aot_proto::v1::EndKind;
use rustix::process::Signal;

use super::fake::{Rig, exec, run_id, shims, signal, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_survives_kill_9_of_the_agent() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let go = rig.path("go");
    rig.master
        .start(exec(
            1,
            &format!(
                "echo before; until [ -e {} ]; do sleep 0.02; done; echo after",
                go.display()
            ),
        ))
        .await;
    rig.master
        .until("its first line", |state| {
            state
                .spools
                .get(&run_id(1))
                .is_some_and(|spool| spool.windows(6).any(|w| w == b"before"))
                .then_some(())
        })
        .await;
    rig.kill_agent();
    assert_eq!(
        shims(rig.dir.path()).len(),
        1,
        "the shim died with the agent"
    );
    rig.start_agent();
    rig.master
        .until("another session", |state| {
            (state.sessions == 2).then_some(())
        })
        .await;
    std::fs::write(go, "").unwrap();
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.stdout(), "before\nafter\n");
    assert_eq!((result.started, result.ended.kind()), (1, EndKind::Exited));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_ends_while_no_agent_is_there_is_reported_later() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let (up, go) = (rig.path("up"), rig.path("go"));
    rig.master
        .start(exec(
            1,
            &format!(
                "touch {}; until [ -e {} ]; do sleep 0.02; done; echo done",
                up.display(),
                go.display()
            ),
        ))
        .await;
    until(|| up.exists());
    rig.kill_agent();
    std::fs::write(go, "").unwrap();
    until(|| shims(rig.dir.path()).is_empty());
    rig.start_agent();
    assert_eq!(rig.master.result(&run_id(1)).await.stdout(), "done\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_of_the_machine_is_an_interruption() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let up = rig.path("up");
    rig.master
        .start(exec(1, &format!("touch {}; sleep 300", up.display())))
        .await;
    until(|| up.exists());
    // What systemd does to a scope: TERM to all of it.
    let shim = shims(rig.dir.path())[0];
    signal(shim, Signal::TERM);
    aot_agent::inside::tree::signal_below(shim, Signal::TERM);
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.ended.kind(), EndKind::Interrupted);
    assert!(
        result.ended.detail.contains("shut down"),
        "{}",
        result.ended.detail
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_removes_the_state_folder_still_reports_its_end() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let state = rig.path("state").display().to_string();
    rig.master
        .start(exec(
            1,
            &format!("echo before; rm -rf {state}; echo after; exit 3"),
        ))
        .await;
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        (result.stdout(), result.ended.exit_code),
        ("before\nafter\n".to_owned(), 3)
    );
    // The agent can still run things, and can come back as itself.
    rig.master.start(exec(2, "echo again")).await;
    assert_eq!(rig.master.result(&run_id(2)).await.stdout(), "again\n");
    until(|| rig.path("state/identity.pem").exists());
    rig.kill_agent();
    rig.start_agent();
    rig.master.start(exec(3, "echo back")).await;
    assert_eq!(rig.master.result(&run_id(3)).await.stdout(), "back\n");
    assert_eq!(rig.master.lock().enrolments.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_folder_and_shim_are_gone_is_an_interruption() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let (runs, done) = (rig.path("state/runs"), rig.path("done"));
    let line = format!(
        "rm -rf {}; touch {}; sleep 300",
        runs.display(),
        done.display()
    );
    rig.master.start(exec(1, &line)).await;
    until(|| done.exists());
    signal(shims(rig.dir.path())[0], Signal::KILL);
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.ended.kind(), EndKind::Interrupted);
    assert!(
        result.ended.detail.contains("folder"),
        "{}",
        result.ended.detail
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_is_an_interruption_and_leaves_nothing_running() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let pid_file = rig.path("pid");
    rig.master
        .start(exec(
            1,
            &format!("sleep 300 & echo $! > {}; wait", pid_file.display()),
        ))
        .await;
    until(|| std::fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n')));
    let pid: i32 = std::fs::read_to_string(&pid_file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // The child may be faster than its shim's first frame.
    let spool = rig.path(&format!("state/runs/{}/spool", run_id(1)));
    until(|| std::fs::metadata(&spool).is_ok_and(|meta| meta.len() > 0));
    signal(shims(rig.dir.path())[0], Signal::KILL);
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        (result.started, result.ended.kind()),
        (1, EndKind::Interrupted)
    );
    until(|| aot_agent::inside::tree::stat(pid).is_none_or(|stat| stat.state == b'Z'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_boot_is_an_interruption() {
    let mut rig = Rig::new().await;
    std::fs::write(rig.path("boot_id"), "boot-1").unwrap();
    rig.start_agent();
    let up = rig.path("up");
    rig.master
        .start(exec(1, &format!("touch {}; sleep 300", up.display())))
        .await;
    until(|| up.exists());
    // The child may be faster than its shim's first frame.
    let spool = rig.path(&format!("state/runs/{}/spool", run_id(1)));
    until(|| std::fs::metadata(&spool).is_ok_and(|meta| meta.len() > 0));
    rig.kill_agent();
    let shim = shims(rig.dir.path())[0];
    aot_agent::inside::tree::signal_below(shim, Signal::KILL);
    signal(shim, Signal::KILL);
    until(|| shims(rig.dir.path()).is_empty());
    // The shim may have seen its child die first: what it wrote then is not what a power cut leaves.
    let bytes = std::fs::read(&spool).unwrap();
    let (_, first) = aot_proto::frame::decode(&bytes).unwrap().unwrap();
    let whole = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&spool, whole).unwrap();
    std::fs::write(&spool, &bytes[..first]).unwrap();
    std::fs::write(rig.path("boot_id"), "boot-2").unwrap();
    rig.start_agent();
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.ended.kind(), EndKind::Interrupted);
    assert!(
        result.ended.detail.contains("restarted"),
        "{}",
        result.ended.detail
    );
}
