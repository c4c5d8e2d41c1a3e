//! `aot-agent shim` by itself: what it makes of what it is told, and of what it finds in the folder.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::Duration;

use aot_agent::journal::{SPEC, pid_in};
use aot_agent::runner::command::Command;
use aot_agent::runner::shim::{CANCEL, wake};
use aot_agent::runner::spool::{SPOOL, look, read};
use aot_proto::frame;
use aot_proto::v1::frame::Body;
use aot_proto::v1::{EndKind, Ended};
use rustix::process::Signal;

use super::fake::signal;
use super::until;

fn command(argv: &[&str], env: &[(&str, &str)]) -> Command {
    Command {
        run_id: "r".into(),
        boot_id: "b".into(),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        cwd: "/usr".into(),
        env: env
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect::<BTreeMap<_, _>>(),
        become_user: None,
        timeout: Duration::ZERO,
        silence_timeout: Duration::ZERO,
        output_cap_bytes: 1 << 20,
    }
}

fn binary() -> OsString {
    let named = std::env::var_os("AOT_AGENT_BIN");
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_aot-agent").into())
}

fn start(dir: &Path, told: impl Into<Stdio>) -> Child {
    let mut process = Process::new(binary());
    process.arg("shim").arg(dir).stdin(told);
    process.stderr(Stdio::null()).spawn().unwrap()
}

fn run(dir: &Path, command: &Command) -> ExitStatus {
    start(dir, command.to_file().unwrap()).wait().unwrap()
}

/// As the journal leaves it.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(SPEC), "{}").unwrap();
    dir
}

fn path() -> [(&'static str, &'static str); 1] {
    [("PATH", "/usr/bin:/bin")]
}

/// Standard output and the end, of which there is one.
fn result(dir: &Path) -> (String, Ended) {
    let chunk = read(&dir.join(SPOOL), 0, 1 << 20).unwrap();
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    for frame in frame::decode_all(&chunk.data).unwrap().0 {
        match frame.body {
            Some(Body::Stdout(bytes)) => out.extend_from_slice(&bytes),
            Some(Body::Ended(ended)) => ends.push(ended),
            _ => {}
        }
    }
    assert!(chunk.end && ends.len() == 1, "{ends:?}");
    let (bytes, marked) = look(&dir.join(SPOOL)).unwrap();
    assert!(marked && bytes == chunk.data.len() as u64);
    (String::from_utf8(out).unwrap(), ends.remove(0))
}

#[test]
fn it_makes_no_file_but_its_spool() {
    let dir = folder();
    let told = command(&["sh", "-c", "pwd; readlink /proc/$PPID/fd/0"], &path());
    assert!(run(dir.path(), &told).success());
    let (out, end) = result(dir.path());
    assert_eq!((end.kind(), end.exit_code), (EndKind::Exited, 0));
    assert_eq!(out, "/usr\n/dev/null\n", "what it was told is not kept");
    let names = std::fs::read_dir(dir.path()).unwrap().flatten();
    let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, [SPEC, SPOOL]);
    assert!(pid_in(dir.path()).is_some());
}

#[test]
fn a_child_that_ends_at_once_is_not_waited_for_in_vain() {
    let shims: Vec<_> = (0..50)
        .map(|_| {
            let dir = folder();
            let told = command(&["false"], &path()).to_file().unwrap();
            let shim = start(dir.path(), told);
            (dir, shim)
        })
        .collect();
    for (dir, mut shim) in shims {
        assert!(shim.wait().unwrap().success());
        assert_eq!(result(dir.path()).1.exit_code, 1);
    }
}

#[test]
fn what_outlives_its_parent_is_read_to_its_end() {
    let dir = folder();
    let script = "(setsid sh -c 'sleep 0.3; echo late' &); echo early";
    assert!(run(dir.path(), &command(&["sh", "-c", script], &path())).success());
    let (out, end) = result(dir.path());
    assert_eq!(out, "early\nlate\n");
    assert_eq!((end.exit_code, end.leaked_pipes), (0, false));
}

#[test]
fn an_end_that_nobody_tells_of_is_found() {
    let dir = folder();
    let told = command(&["sh", "-c", "sleep 0.2; echo done"], &path());
    let status = Process::new("env")
        .arg("--ignore-signal=CHLD")
        .args([&*binary(), "shim".as_ref(), dir.path().as_os_str()])
        .stdin(told.to_file().unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    let (out, end) = result(dir.path());
    assert_eq!((&*out, end.kind()), ("done\n", EndKind::Interrupted));
    assert_eq!(end.detail, "it has ended, and nothing tells how");
}

#[test]
fn what_is_no_program_is_told_as_such() {
    let tools = tempfile::tempdir().unwrap();
    let plain = tools.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let table = [
        ("no-such-program", "No such file or directory (os error 2)"),
        ("/no/such/program", "No such file or directory (os error 2)"),
        (plain.to_str().unwrap(), "Permission denied (os error 13)"),
        ("", "No such file or directory (os error 2)"),
    ];
    for (program, why) in table {
        let dir = folder();
        assert!(run(dir.path(), &command(&[program], &path())).success());
        let end = result(dir.path()).1;
        assert_eq!(end.kind(), EndKind::NotStarted);
        assert_eq!(end.detail, format!("cannot run {program} in /usr: {why}"));
    }
    let dir = folder();
    let mut lost = command(&["true"], &path());
    lost.cwd = "/no/such/folder".into();
    assert!(run(dir.path(), &lost).success());
    assert_eq!(
        result(dir.path()).1.detail,
        "cannot run true in /no/such/folder: No such file or directory (os error 2)"
    );
}

#[test]
fn a_script_without_a_first_line_is_one_of_the_shell() {
    let dir = folder();
    let tools = tempfile::tempdir().unwrap();
    let tool = tools.path().join("tool");
    std::fs::write(&tool, "echo $0 $1\n").unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let env = [("PATH", tools.path().to_str().unwrap())];
    assert!(run(dir.path(), &command(&["tool", "word"], &env)).success());
    let (out, _) = result(dir.path());
    assert_eq!(out, format!("{} word\n", tool.display()));
}

#[test]
fn what_was_cancelled_or_begun_before_is_not_started() {
    let ran = tempfile::tempdir().unwrap();
    let trace = ran.path().join("trace");
    let told = command(&["touch", trace.to_str().unwrap()], &path());
    let dir = folder();
    std::fs::write(dir.path().join(CANCEL), "0").unwrap();
    assert!(run(dir.path(), &told).success());
    let end = result(dir.path()).1;
    assert_eq!(end.kind(), EndKind::Cancelled);
    assert_eq!(end.detail, "cancelled before it was started");
    assert!(run(dir.path(), &told).success());
    assert_eq!(result(dir.path()).1, end, "it has its end");

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(SPEC), "{}\n4194303").unwrap();
    assert!(run(dir.path(), &told).success());
    assert_eq!(look(&dir.path().join(SPOOL)).unwrap(), (0, false));

    // The agent tells whole commands; what is none leaves no trace of a start.
    let dir = folder();
    assert!(!start(dir.path(), Stdio::null()).wait().unwrap().success());
    assert!(pid_in(dir.path()).is_none());

    // Nor is anything started for a run that was forgotten meanwhile.
    let dir = tempfile::tempdir().unwrap();
    assert!(!run(dir.path(), &told).success());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(!trace.exists());
}

#[test]
fn a_cancellation_is_seen_when_the_word_comes() {
    let dir = folder();
    wake(dir.path());
    let told = command(&["sh", "-c", "echo up; exec sleep 300"], &path());
    let mut shim = start(dir.path(), told.to_file().unwrap());
    let is_up = || {
        let chunk = read(&dir.path().join(SPOOL), 0, 1 << 20);
        chunk.is_ok_and(|chunk| chunk.data.windows(3).any(|bytes| bytes == b"up\n"))
    };
    until(is_up);
    // A word too many is no cancellation.
    wake(dir.path());
    signal(shim.id().cast_signed(), Signal::CONT);
    assert!(shim.try_wait().unwrap().is_none());
    std::fs::write(dir.path().join(CANCEL), "60000").unwrap();
    wake(dir.path());
    assert!(shim.wait().unwrap().success());
    let end = result(dir.path()).1;
    assert_eq!(end.detail, "stopped: it was cancelled");
    // Of one that is gone only the number is left, which may be anybody's.
    wake(dir.path());
}
