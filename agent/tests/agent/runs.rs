//! Commands: what they get, what comes of them, and what bounds them.

use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::start_run::What;
use aot_proto::v1::{EndKind, ForgetRun, StartRun};
use rustix::process::Signal;

use super::fake::{Rig, exec, run_id, signal};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builtins_facts_and_commands() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    assert_eq!(rig.master.builtin(1, "ping").await.json, "true");
    assert_eq!(
        rig.master.builtin(2, "version").await.json,
        format!("\"{}\"", aot_agent::VERSION)
    );
    let facts = rig.master.builtin(3, "facts").await.json;
    assert!(facts.contains("\"agent_version\""), "{facts}");
    std::fs::write(rig.path("log"), "one\ntwo\nthree\n").unwrap();
    let log = rig.path("log").display().to_string();
    let tail = rig.master.ask(4, "tail", &[&log, "2"]).await;
    assert!(tail.json.contains(r#""lines":["two","three"]"#), "{tail:?}");
    let stat = rig.master.ask(5, "stat", &[&log]).await;
    assert!(stat.json.contains(r#""kind":"file","size":14"#), "{stat:?}");
    let refused = rig.master.ask(6, "stat", &["/no/such/file"]).await;
    assert_eq!(
        refused.error,
        "cannot read /no/such/file: No such file or directory (os error 2)"
    );
    let report = rig.master.until("facts", |state| {
        state.received.iter().find_map(|up| {
            if let Up::Facts(facts) = up {
                Some(facts.clone())
            } else {
                None
            }
        })
    });
    let report = report.await;
    assert!(
        report.root_public_key.starts_with("ssh-ed25519") && report.ssh_host_keys.len() == 1,
        "{report:?}"
    );

    let mut start = exec(
        1,
        "echo out; echo err >&2; cat; echo $EXTRA $AOT_INSTANCE $AOT_CLUSTER; pwd; exit 3",
    );
    if let Some(What::Exec(exec)) = &mut start.what {
        exec.stdin = b"from stdin\n".to_vec();
        exec.cwd = "/usr".into();
    }
    assert!(rig.master.start(start).await.accepted);
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.stdout(), "out\nfrom stdin\nyes web1 c\n/usr\n");
    assert_eq!(result.stderr, b"err\n");
    assert_eq!(
        (result.started, result.ended.kind(), result.ended.exit_code),
        (1, EndKind::Exited, 3)
    );

    let mut missing = exec(2, "");
    if let Some(What::Exec(exec)) = &mut missing.what {
        exec.argv = vec!["/no/such/program".into()];
    }
    rig.master.start(missing).await;
    let result = rig.master.result(&run_id(2)).await;
    assert_eq!(result.ended.kind(), EndKind::NotStarted);
    assert!(
        result.ended.detail.contains("/no/such/program"),
        "{}",
        result.ended.detail
    );

    rig.master.start(exec(3, "kill -9 $$")).await;
    let result = rig.master.result(&run_id(3)).await;
    assert_eq!(
        (result.ended.kind(), result.ended.signal),
        (EndKind::Signalled, 9)
    );

    let refused = rig
        .master
        .start(StartRun {
            run_id: run_id(4),
            ..StartRun::default()
        })
        .await;
    assert!(!refused.accepted && !refused.reason.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_started_once_however_often_it_is_asked_for() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let count = rig.path("count");
    let start = exec(1, &format!("echo x >> {}", count.display()));
    assert!(rig.master.start(start.clone()).await.accepted);
    assert!(rig.master.start(start.clone()).await.accepted);
    rig.master.result(&run_id(1)).await;
    rig.master
        .send(Down::ForgetRun(ForgetRun { run_id: run_id(1) }))
        .await;
    assert!(rig.master.start(start.clone()).await.accepted);
    rig.kill_agent();
    rig.start_agent();
    rig.master
        .until("a session", |state| (state.sessions == 2).then_some(()))
        .await;
    assert!(rig.master.start(start).await.accepted);
    rig.master.start(exec(2, "true")).await;
    rig.master.result(&run_id(2)).await;
    assert_eq!(std::fs::read_to_string(count).unwrap(), "x\n");
    assert!(!rig.path(&format!("state/runs/{}", run_id(1))).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_is_byte_exact_over_a_cut_link() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    rig.master
        .start(exec(
            1,
            "for i in $(seq 200000); do echo line $i; done; sleep 0.3; echo the end >&2",
        ))
        .await;
    rig.master
        .until("some output", |state| {
            state
                .spools
                .get(&run_id(1))
                .is_some_and(|spool| spool.len() > 100_000)
                .then_some(())
        })
        .await;
    // The acknowledgements of the next session are lost too: everything comes again from the start.
    rig.master.lock().acks = false;
    rig.master.cut();
    rig.master
        .until("bytes that come again", |state| {
            (state.overlaps > 50_000).then_some(())
        })
        .await;
    rig.master.lock().acks = true;
    rig.master.cut();
    let result = rig.master.result(&run_id(1)).await;
    let want: String = (1..=200_000).map(|n| format!("line {n}\n")).collect();
    assert!(
        result.stdout == want.as_bytes(),
        "{} of {} bytes",
        result.stdout.len(),
        want.len()
    );
    assert_eq!(result.stderr, b"the end\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_time_silence_and_output_hold() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    rig.master
        .start(StartRun {
            timeout_ms: 300,
            ..exec(1, "while :; do echo x; sleep 0.05; done")
        })
        .await;
    rig.master
        .start(StartRun {
            silence_timeout_ms: 300,
            ..exec(2, "echo x; sleep 100")
        })
        .await;
    rig.master
        .start(StartRun {
            output_cap_bytes: 1000,
            ..exec(3, "yes | head -c 50000; echo gone >&2")
        })
        .await;
    rig.master
        .start(exec(4, "sleep 300 & echo $!; exit 0"))
        .await;
    let polite =
        "grep SigBlk /proc/self/status; trap 'echo bye; exit' TERM; while :; do sleep 0.05; done";
    rig.master
        .start(StartRun {
            // Time enough to come to its trap.
            timeout_ms: 5000,
            ..exec(5, polite)
        })
        .await;
    let result = rig.master.result(&run_id(5)).await;
    assert_eq!(
        result.stdout(),
        "SigBlk:\t0000000000000000\nbye\n",
        "TERM did not reach it"
    );
    assert_eq!(result.ended.kind(), EndKind::TimedOut);
    assert_eq!(
        rig.master.result(&run_id(1)).await.ended.kind(),
        EndKind::TimedOut
    );
    assert_eq!(
        rig.master.result(&run_id(2)).await.ended.kind(),
        EndKind::Silent
    );
    let capped = rig.master.result(&run_id(3)).await;
    assert_eq!(
        (capped.stdout.len(), capped.stderr.len(), capped.truncated),
        (1000, 0, 1)
    );
    assert_eq!(
        (capped.ended.cut_stdout_bytes, capped.ended.cut_stderr_bytes),
        (49_000, 5)
    );
    assert_eq!(
        (capped.ended.kind(), capped.ended.exit_code),
        (EndKind::Exited, 0)
    );
    let leaked = rig.master.result(&run_id(4)).await;
    assert_eq!(
        (leaked.ended.kind(), leaked.ended.leaked_pipes),
        (EndKind::Exited, true)
    );
    let pid: i32 = leaked.stdout().trim().parse().unwrap();
    assert!(
        aot_agent::inside::tree::stat(pid).is_some(),
        "it was left alone"
    );
    signal(pid, Signal::KILL);
}
