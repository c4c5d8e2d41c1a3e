//! The real agent process against a small master over real TLS.

#[expect(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]
mod fake;

#[path = "agent/cancel.rs"]
mod cancel;
#[path = "agent/shim.rs"]
mod shim;

use std::os::unix::fs::PermissionsExt;

use aot_proto::limits::EXIT_REBOOT;
use aot_proto::v1::agent_message::Body as Up;
use aot_proto::v1::master_message::Body as Down;
use aot_proto::v1::start_run::What;
use aot_proto::v1::{
    CancelRun, ClusterFacts, EndKind, ForgetRun, Peer, Reboot, StageSpec, StartRun, Volume, Volumes,
};
use fake::{Rig, exec, run_id, shims, signal};
use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use rustix::process::Signal;
use rustls_pki_types::CertificateSigningRequestDer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_enrolment_reply_is_asked_for_again_with_the_same_key() {
    let mut rig = Rig::new().await;
    rig.master.lock().lose_enrol_replies = 1;
    rig.start_agent();
    rig.master
        .until("a session", |state| (state.sessions == 1).then_some(()))
        .await;
    let keys: Vec<_> = rig
        .master
        .lock()
        .enrolments
        .iter()
        .map(|csr| key_of(csr))
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    rig.kill_agent();
    rig.start_agent();
    rig.master
        .until("another session", |state| {
            (state.sessions == 2).then_some(())
        })
        .await;
    assert_eq!(rig.master.lock().enrolments.len(), 2, "it enrolled again");
}

fn key_of(csr: &[u8]) -> Vec<u8> {
    let der = CertificateSigningRequestDer::from(csr.to_vec());
    CertificateSigningRequestParams::from_der(&der)
        .unwrap()
        .public_key
        .der_bytes()
        .to_vec()
}

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
        "cannot look at /no/such/file: No such file or directory (os error 2)"
    );
    let report = rig.master.until("facts", |state| {
        state.said.iter().find_map(|up| {
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
        .tell(Down::ForgetRun(ForgetRun { run_id: run_id(1) }))
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
    aot_agent::runner::tree::signal_below(shim, Signal::TERM);
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.ended.kind(), EndKind::Interrupted);
    assert!(
        result.ended.detail.contains("shut down"),
        "{}",
        result.ended.detail
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_as_another_user_with_its_groups() {
    let own = rustix::process::geteuid().as_raw();
    let uid = if own == 0 { 4242 } else { own };
    let mut rig = Rig::new().await;
    std::fs::write(
        rig.path("etc/passwd"),
        format!("other:x:{uid}:4243::/home/other:/bin/sh\n"),
    )
    .unwrap();
    std::fs::write(rig.path("etc/group"), "extra:x:4244:other\n").unwrap();
    rig.start_agent();
    for (n, user) in [(1, "other"), (2, "nobody-at-all")] {
        let mut start = exec(
            n,
            "echo $(id -u) $HOME $USER; [ $(id -u) != 4242 ] || id -G",
        );
        if let Some(What::Exec(exec)) = &mut start.what {
            exec.user = user.into();
        }
        rig.master.start(start).await;
    }
    let groups = if own == 0 { "4243 4244\n" } else { "" };
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        result.stdout(),
        format!("{uid} /home/other other\n{groups}"),
        "{}",
        String::from_utf8_lossy(&result.stderr)
    );
    let result = rig.master.result(&run_id(2)).await;
    assert_eq!(result.ended.kind(), EndKind::NotStarted);
    assert!(
        result.ended.detail.contains("nobody-at-all"),
        "{}",
        result.ended.detail
    );
}

/// Waits for what has no event: a process of someone else, a file.
fn until(mut true_: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !true_() {
        assert!(start.elapsed().as_secs() < 20, "waited 20 s");
        std::thread::yield_now();
    }
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
    until(|| aot_agent::runner::tree::stat(pid).is_none_or(|stat| stat.state == b'Z'));
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
    rig.kill_agent();
    let shim = shims(rig.dir.path())[0];
    aot_agent::runner::tree::signal_below(shim, Signal::KILL);
    signal(shim, Signal::KILL);
    until(|| shims(rig.dir.path()).is_empty());
    // The shim may have seen its child die first: what it wrote then is not what a power cut leaves.
    let spool = rig.path(&format!("state/runs/{}/spool", run_id(1)));
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
    rig.master
        .tell(Down::CancelRun(CancelRun {
            run_id: run_id(1),
            grace_ms: 100,
        }))
        .await;
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        (result.ended.kind(), result.ended.leaked_pipes),
        (EndKind::Cancelled, false)
    );
    for pid in std::fs::read_to_string(&pids).unwrap().lines() {
        assert_eq!(
            aot_agent::runner::tree::stat(pid.parse().unwrap()),
            None,
            "{pid} lives"
        );
    }
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
        .start(exec(4, "sleep 30 & echo $!; exit 0"))
        .await;
    let polite =
        "grep SigBlk /proc/self/status; trap 'echo bye; exit' TERM; while :; do sleep 0.05; done";
    rig.master
        .start(StartRun {
            timeout_ms: 300,
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
        aot_agent::runner::tree::stat(pid).is_some(),
        "it was left alone"
    );
    signal(pid, Signal::KILL);
}

fn bundle(script: &str) -> (String, Vec<u8>) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("bootstrap.sh", script.as_bytes());
    add("data", &[7; 20_000]);
    let bytes = tar.into_inner().unwrap();
    (aot_agent::files::sha256_hex(&bytes), bytes)
}

fn stage(n: u128, sha: &str, bytes: u64) -> StartRun {
    let stage = StageSpec {
        index: 1,
        bundle_sha256: sha.into(),
        bundle_bytes: bytes,
        args: vec!["--level".into(), "a b".into()],
        attempt: 2,
        reboots: 1,
        ..StageSpec::default()
    };
    StartRun {
        run_id: run_id(n),
        what: Some(What::Stage(stage)),
        ..StartRun::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_is_fetched_over_cuts_and_runs_in_its_folder() {
    let mut rig = Rig::new().await;
    let (sha, bytes) = bundle(
        "echo \"$1|$2\"; echo $AOT_STAGE $AOT_ATTEMPT $AOT_REBOOTS; echo $AOT_CLUSTER_FACTS; pwd; wc -c < data; exit 194",
    );
    let len = bytes.len() as u64;
    {
        let mut state = rig.master.lock();
        state.bundles.insert(sha.clone(), bytes);
        state.cut_fetches = 1;
    }
    rig.start_agent();
    assert!(rig.master.start(stage(1, &sha, len)).await.accepted);
    let result = rig.master.result(&run_id(1)).await;
    let (facts, folder) = (
        rig.path("etc/cluster_facts.json"),
        rig.path("state/stages/stage-1"),
    );
    assert_eq!(
        result.stdout(),
        format!(
            "--level|a b\n1 2 1\n{}\n{}\n20000\n",
            facts.display(),
            folder.display()
        )
    );
    assert_eq!(
        (result.ended.kind(), result.ended.exit_code),
        (EndKind::Exited, EXIT_REBOOT)
    );
    let offsets = rig.master.lock().fetch_offsets.clone();
    assert!(
        offsets.len() == 2 && offsets[0] == 0 && offsets[1] > 0,
        "{offsets:?}"
    );
    rig.master.start(stage(2, &sha, len)).await;
    rig.master.result(&run_id(2)).await;
    assert_eq!(
        rig.master.lock().fetch_offsets.len(),
        2,
        "a bundle that is there was fetched again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_not_what_was_promised_is_not_run() {
    let mut rig = Rig::new().await;
    let (_, bytes) = bundle("echo ran");
    let (bad, none) = ("a".repeat(64), "b".repeat(64));
    let len = bytes.len() as u64;
    rig.master.lock().bundles.insert(bad.clone(), bytes);
    let junk = b"no tar at all, but long enough to be looked at as one".repeat(20);
    let junk_sha = aot_agent::files::sha256_hex(&junk);
    rig.master
        .lock()
        .bundles
        .insert(junk_sha.clone(), junk.clone());
    rig.start_agent();
    for (n, sha, bytes, word) in [
        (1, bad, len, "SHA-256"),
        (2, none, len, "no such bundle"),
        (3, junk_sha, junk.len() as u64, "unpack"),
    ] {
        rig.master.start(stage(n, &sha, bytes)).await;
        let result = rig.master.result(&run_id(n)).await;
        assert_eq!(
            (result.ended.kind(), result.started),
            (EndKind::NotStarted, 0),
            "{word}"
        );
        assert!(
            result.ended.detail.contains(word),
            "{}",
            result.ended.detail
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_facts_are_applied_and_come_back_after_a_restart() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let peer = Peer {
        name: "web2".into(),
        hostname: "web2".into(),
        addresses: vec!["10.9.8.7".into()],
        ..Peer::default()
    };
    let facts_json = b"{}".to_vec();
    let sha256 = aot_agent::files::sha256_hex(&facts_json);
    let facts = ClusterFacts {
        generation: 4,
        facts_json,
        sha256,
        complete: true,
        peers: vec![peer],
        ..ClusterFacts::default()
    };
    for piece in aot_proto::facts::pieces(&facts) {
        rig.master.tell(Down::ClusterFacts(piece)).await;
    }
    let applied = rig.master.until("an answer", |state| {
        state.said.iter().find_map(|up| {
            if let Up::ClusterFactsApplied(applied) = up {
                Some(applied.clone())
            } else {
                None
            }
        })
    });
    let applied = applied.await;
    assert_eq!((applied.generation, applied.error.as_str()), (4, ""));
    let hosts = rig.path("etc/hosts");
    assert!(
        std::fs::read_to_string(&hosts)
            .unwrap()
            .contains("10.9.8.7 web2")
    );
    rig.kill_agent();
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    rig.start_agent();
    let generation = rig.master.until("another hello", |state| {
        let mut hellos = state.said.iter().filter_map(|up| {
            if let Up::Hello(hello) = up {
                Some(hello.cluster_facts_generation)
            } else {
                None
            }
        });
        hellos.nth(1)
    });
    assert_eq!(generation.await, 4);
    let text = std::fs::read_to_string(&hosts).unwrap();
    assert!(
        text.starts_with("127.0.0.1 localhost\n") && text.contains("10.9.8.7 web2"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_within_the_session() {
    let mut rig = Rig::new().await;
    rig.master.lock().short_certificates = 1;
    rig.start_agent();
    rig.master
        .until("a session", |state| (state.sessions == 1).then_some(()))
        .await;
    let path = rig.path("state/identity.pem");
    let before = std::fs::read_to_string(&path).unwrap();
    rig.master
        .until("a renewal", |state| (state.renewals == 1).then_some(()))
        .await;
    assert_eq!(rig.master.builtin(1, "ping").await.json, "true");
    until(|| std::fs::read_to_string(&path).unwrap() != before);
    assert_eq!(rig.master.lock().sessions, 1, "the session was cut for it");
    rig.master.cut();
    rig.master
        .until("a session with the new one", |state| {
            (state.sessions == 2).then_some(())
        })
        .await;
    assert_eq!(rig.master.lock().enrolments.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_says_goodbye_and_leaves_runs_alone() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let go = rig.path("go");
    rig.master
        .start(exec(
            1,
            &format!(
                "until [ -e {} ]; do sleep 0.02; done; echo ok",
                go.display()
            ),
        ))
        .await;
    let status = rig.stop_agent().await;
    assert!(status.success(), "{status}");
    rig.master
        .until("a goodbye", |state| {
            state
                .said
                .iter()
                .any(|up| matches!(up, Up::GoingAway(_)))
                .then_some(())
        })
        .await;
    std::fs::write(go, "").unwrap();
    rig.start_agent();
    assert_eq!(rig.master.result(&run_id(1)).await.stdout(), "ok\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_is_announced_then_done() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    rig.master
        .tell(Down::Reboot(Reboot {
            reason: "stage 1".into(),
        }))
        .await;
    rig.master
        .until("a goodbye", |state| {
            state
                .said
                .iter()
                .any(|up| matches!(up, Up::GoingAway(away) if away.reason.contains("stage 1")))
                .then_some(())
        })
        .await;
    let done = rig.path("rebooted");
    tokio::task::spawn_blocking(move || until(|| done.exists()))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_is_small() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    rig.master.builtin(1, "facts").await;
    let rollup =
        std::fs::read_to_string(format!("/proc/{}/smaps_rollup", rig.agent_pid())).unwrap();
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .expect("a number of KiB")
    };
    println!(
        "Pss {} KiB, anonymous {} KiB",
        field("Pss:"),
        field("Anonymous:")
    );
    // A debug build's own memory; its code is another matter.
    assert!(field("Anonymous:") < 8 << 10, "{rollup}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_are_answered_in_every_session() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let volume = Volume {
        volume_id: "vol-0a1b".into(),
        device: "/dev/sdf".into(),
        mount: "relative".into(),
        fs: String::new(),
    };
    for (id, volumes, words) in [
        (1, vec![], ""),
        (2, vec![volume], "vol-0a1b (/dev/sdf) at relative"),
        (3, vec![], ""),
    ] {
        rig.master
            .tell(Down::Volumes(Volumes { id, volumes }))
            .await;
        let answer = rig.master.until("an answer to Volumes", |state| {
            state.said.iter().find_map(|up| match up {
                Up::VolumesMounted(mounted) if mounted.id == id => Some(mounted.clone()),
                _ => None,
            })
        });
        let error = answer.await.error;
        assert!(error.starts_with(words), "{error}");
        assert_eq!(error.is_empty(), words.is_empty(), "{error}");
        if id == 2 {
            rig.kill_agent();
            rig.start_agent();
            rig.master
                .until("another session", |state| {
                    (state.sessions == 2).then_some(())
                })
                .await;
        }
    }
}
