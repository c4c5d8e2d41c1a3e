//! Secrets of runs: given as files in memory and as variables, hidden in output, on no disk, and gone with their run.

use std::fs;
use std::path::{Path, PathBuf};

use aot_proto::v1::start_run::What;
use aot_proto::v1::{EndKind, SecretValue, StartRun};
use rustix::process::Signal;

use super::fake::{Rig, bundle, exec, run_id, shims, signal, stage, until};

const VALUE: &str = "correct horse battery";

pub(crate) fn with_secrets(mut start: StartRun, secrets: &[(&str, &[u8], &str)]) -> StartRun {
    let secret = |(name, value, env): &(&str, &[u8], &str)| SecretValue {
        name: (*name).to_owned(),
        value: value.to_vec(),
        env: (*env).to_owned(),
    };
    start.secrets = secrets.iter().map(secret).collect();
    start
}

/// All files below a folder that have this in them.
pub(crate) fn files_with(dir: &Path, text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_with(&path, text));
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(text.len()).any(|window| window == text)
        {
            found.push(path);
        }
    }
    found
}

pub(crate) fn secret_folders(rig: &Rig) -> usize {
    let folders = fs::read_dir(rig.memory.path().join("secrets"));
    folders.map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_has_them_as_files_and_variables_and_its_output_hides_them() {
    let mut rig = Rig::new().await;
    rig.logs_to_file = true;
    rig.start_agent();
    let script = "stat -c %a $AOT_SECRETS $AOT_SECRETS/*; cat $AOT_SECRETS/db; echo; echo \"$DB\" >&2; wc -c < $AOT_SECRETS/raw; \
        printf 'correct horse'; sleep 0.2; printf ' battery|'; printf 'correct horse'";
    let secrets: [(&str, &[u8], &str); 2] = [
        ("db", VALUE.as_bytes(), "DB"),
        ("raw", b"\xff\x00\xfe\x01", ""),
    ];
    let start = with_secrets(exec(1, script), &secrets);
    assert!(rig.master.start(start).await.accepted);
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(
        result.stdout(),
        "700\n600\n600\n[secret db]\n4\n[secret db]|correct horse"
    );
    assert_eq!(result.stderr, b"[secret db]\n");
    assert_eq!(result.ended.exit_code, 0);
    // Before its end was told they were gone; and the next command of the same shim has none.
    assert_eq!(secret_folders(&rig), 0);
    rig.master
        .start(exec(
            2,
            "echo \"[$AOT_SECRETS$DB]\"; printf 'correct horse battery'",
        ))
        .await;
    let result = rig.master.result(&run_id(2)).await;
    assert_eq!(result.stdout(), "[]\ncorrect horse battery");
    rig.master
        .start(with_secrets(exec(3, "true"), &secrets))
        .await;
    rig.master.result(&run_id(3)).await;
    // What the second command printed by itself is in its spool; all else is clean.
    let found = files_with(rig.dir.path(), VALUE.as_bytes());
    let is_of_second = |path: &PathBuf| path.display().to_string().contains(&run_id(2));
    assert!(found.iter().all(is_of_second), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_has_them_too_and_what_is_printed_without_end_is_hidden() {
    let mut rig = Rig::new().await;
    // Without a process for each line.
    let script = "db=$(cat $AOT_SECRETS/db); for i in $(seq 20000); do echo \"line $i $db\"; done";
    let (sha, bytes) = bundle(script);
    let len = bytes.len() as u64;
    rig.master.lock().bundles.insert(sha.clone(), bytes);
    rig.start_agent();
    let start = with_secrets(stage(1, &sha, len), &[("db", VALUE.as_bytes(), "")]);
    assert!(rig.master.start(start).await.accepted);
    let result = rig.master.result(&run_id(1)).await;
    let want: String = (1..=20_000)
        .map(|i| format!("line {i} [secret db]\n"))
        .collect();
    assert_eq!(result.stdout(), want);
    assert_eq!(
        files_with(rig.dir.path(), VALUE.as_bytes()),
        Vec::<PathBuf>::new()
    );
}

/// The soft limit on core dumps in what /proc says of a process's limits.
fn core_limit(limits: &str) -> Option<&str> {
    let mut lines = limits.lines();
    let limit = lines.find_map(|line| line.strip_prefix("Max core file size"))?;
    limit.split_whitespace().next()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_them_leaves_no_core_dump_and_what_is_run_may() {
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let own = core_limit(&own).unwrap();
    let mut rig = Rig::new().await;
    rig.start_agent();
    // A shim's first command and a later one.
    for id in [1, 2] {
        let script = "cat /proc/self/limits; cat /proc/$PPID/limits >&2; echo $AOT_CORE";
        let start = with_secrets(exec(id, script), &[("db", VALUE.as_bytes(), "")]);
        assert!(rig.master.start(start).await.accepted);
        let result = rig.master.result(&run_id(id)).await;
        assert_eq!(core_limit(&result.stdout()), Some(own));
        assert!(result.stdout().ends_with("\n\n"), "it has no variable");
        let of_shim = String::from_utf8_lossy(&result.stderr).into_owned();
        assert_eq!(core_limit(&of_shim), Some("1"));
    }
    let of_agent = fs::read_to_string(format!("/proc/{}/limits", rig.agent_pid())).unwrap();
    assert_eq!(core_limit(&of_agent), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_reads_its_own() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root becomes another user");
        return;
    }
    let mut rig = Rig::new().await;
    rustix::fs::chmod(rig.memory.path(), rustix::fs::Mode::from_raw_mode(0o711)).unwrap();
    fs::write(
        rig.path("etc/passwd"),
        "other:x:4242:4243::/home/other:/bin/sh\n",
    )
    .unwrap();
    fs::write(rig.path("etc/group"), "").unwrap();
    rig.start_agent();
    let mut start = with_secrets(
        exec(1, "id -u; cat $AOT_SECRETS/db; stat -c %u:%g $AOT_SECRETS"),
        &[("db", VALUE.as_bytes(), "")],
    );
    if let Some(What::Exec(exec)) = &mut start.what {
        exec.user = "other".into();
    }
    rig.master.start(start).await;
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.stdout(), "4242\n[secret db]4242:4243\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_given_is_refused_and_nothing_is_started() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let mark = rig.path("ran");
    let script = format!("touch {}", mark.display());
    let start = with_secrets(exec(1, &script), &[("../db", VALUE.as_bytes(), "")]);
    let refused = rig.master.start(start).await;
    assert!(!refused.accepted && refused.reason.contains("not of its form"));
    // There is no folder that it could be in.
    fs::write(rig.memory.path().join("secrets"), "a file").unwrap();
    let start = with_secrets(exec(2, &script), &[("db", VALUE.as_bytes(), "")]);
    assert!(rig.master.start(start).await.accepted);
    let ended = rig.master.result(&run_id(2)).await.ended;
    assert_eq!(ended.kind(), EndKind::NotStarted);
    assert!(ended.detail.contains("cannot use"), "{}", ended.detail);
    assert!(!ended.detail.contains(VALUE) && !mark.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_outlive_kill_9_of_the_agent_and_go_with_the_run() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let (up, go) = (rig.path("up"), rig.path("go"));
    let script = format!(
        "touch {}; until [ -e {} ]; do sleep 0.02; done; cat $AOT_SECRETS/db",
        up.display(),
        go.display()
    );
    let start = with_secrets(exec(1, &script), &[("db", VALUE.as_bytes(), "")]);
    assert!(rig.master.start(start).await.accepted);
    until(|| up.exists());
    rig.kill_agent();
    rig.start_agent();
    rig.master
        .until("another session", |state| {
            (state.sessions == 2).then_some(())
        })
        .await;
    assert_eq!(secret_folders(&rig), 1);
    fs::write(go, "").unwrap();
    let result = rig.master.result(&run_id(1)).await;
    assert_eq!(result.stdout(), "[secret db]", "the shim hides it still");
    assert_eq!(secret_folders(&rig), 0);
    assert_eq!(
        files_with(rig.dir.path(), VALUE.as_bytes()),
        Vec::<PathBuf>::new()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_shim_leaves_is_removed() {
    let mut rig = Rig::new().await;
    rig.start_agent();
    let up = rig.path("up");
    let script = format!("touch {}; sleep 600", up.display());
    let start = with_secrets(exec(1, &script), &[("db", VALUE.as_bytes(), "")]);
    rig.master.start(start).await;
    until(|| up.exists());
    assert_eq!(secret_folders(&rig), 1);
    for pid in shims(rig.dir.path()) {
        signal(pid, Signal::KILL);
    }
    let ended = rig.master.result(&run_id(1)).await.ended;
    assert_eq!(ended.kind(), EndKind::Interrupted);
    until(|| secret_folders(&rig) == 0);
}
