//! `aot-agent shim` by itself: what it makes of what it is told, and of what it finds in the folder.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
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
        dir: PathBuf::new(),
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

fn start(told: impl Into<Stdio>) -> Child {
    let mut process = Process::new(binary());
    process.arg("shim").stdin(told);
    process.stderr(Stdio::null()).spawn().unwrap()
}

/// A file that tells it.
fn told(dir: &Path, command: &Command) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let command = Command {
        dir: dir.to_owned(),
        ..command.clone()
    };
    file.write_all(&command.to_bytes().unwrap()).unwrap();
    file.rewind().unwrap();
    file
}

fn run(dir: &Path, command: &Command) -> ExitStatus {
    start(told(dir, command)).wait().unwrap()
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
    let line = command(&["sh", "-c", "pwd; readlink /proc/$PPID/fd/0"], &path());
    assert!(run(dir.path(), &line).success());
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
            let shim = start(told(dir.path(), &command(&["false"], &path())));
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
    let line = command(&["sh", "-c", "sleep 0.2; echo done"], &path());
    let status = Process::new("env")
        .arg("--ignore-signal=CHLD")
        .args([&*binary(), "shim".as_ref()])
        .stdin(told(dir.path(), &line))
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
    let touch = command(&["touch", trace.to_str().unwrap()], &path());
    let dir = folder();
    std::fs::write(dir.path().join(CANCEL), "0").unwrap();
    assert!(run(dir.path(), &touch).success());
    let end = result(dir.path()).1;
    assert_eq!(end.kind(), EndKind::Cancelled);
    assert_eq!(end.detail, "cancelled before it was started");
    assert!(run(dir.path(), &touch).success());
    assert_eq!(result(dir.path()).1, end, "it has its end");

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(SPEC), "{}\n4194303").unwrap();
    assert!(run(dir.path(), &touch).success());
    assert_eq!(look(&dir.path().join(SPOOL)).unwrap(), (0, false));

    // An agent that died while it told has started nothing.
    let dir = folder();
    let torn = told(dir.path(), &touch);
    torn.set_len(torn.metadata().unwrap().len() - 1).unwrap();
    assert!(start(torn).wait().unwrap().success());
    assert!(pid_in(dir.path()).is_none());

    // Nor is anything started for a run that was forgotten meanwhile.
    let dir = tempfile::tempdir().unwrap();
    assert!(!run(dir.path(), &touch).success());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(!trace.exists());
}

#[test]
fn a_cancellation_is_seen_when_the_word_comes() {
    let dir = folder();
    wake(dir.path());
    let line = command(&["sh", "-c", "echo up; exec sleep 300"], &path());
    let mut shim = start(told(dir.path(), &line));
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

/// One that is told by us, as by an agent.
fn on_a_line() -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (start(OwnedFd::from(theirs)), ours)
}

fn tell(mut line: &UnixStream, dir: &Path, command: &Command) {
    let command = Command {
        dir: dir.to_owned(),
        ..command.clone()
    };
    line.write_all(&command.to_bytes().unwrap()).unwrap();
}

/// The folder of a command that it was told, and of which nothing is left.
fn ran(line: &UnixStream, command: &Command) -> tempfile::TempDir {
    let dir = folder();
    tell(line, dir.path(), command);
    assert_eq!(said(line), Some(b'\n'));
    dir
}

/// What it says next; `None` when it has ended.
fn said(mut line: &UnixStream) -> Option<u8> {
    let mut byte = [0];
    (line.read(&mut byte).unwrap() == 1).then(|| byte[0])
}

#[test]
fn it_runs_one_after_the_other_and_each_has_what_the_first_had() {
    let (mut shim, line) = on_a_line();
    let script = "cat; pwd; grep Sig[BI] /proc/self/status; echo $V; echo $PPID >&2; exit $V";
    let mut seen = Vec::new();
    for number in ["3", "4", "5"] {
        let dir = folder();
        std::fs::write(dir.path().join("stdin"), "in\n").unwrap();
        let mut env = path().to_vec();
        env.push(("V", number));
        tell(&line, dir.path(), &command(&["sh", "-c", script], &env));
        assert_eq!(said(&line), Some(b'\n'));
        let (out, end) = result(dir.path());
        assert_eq!(
            (end.kind(), end.exit_code.to_string()),
            (EndKind::Exited, number.to_owned())
        );
        assert_eq!(pid_in(dir.path()), Some(shim.id().cast_signed()));
        seen.push(out.replace(&format!("\n{number}\n"), "\n"));
    }
    assert!(seen[0].starts_with("in\n/usr\n"), "{seen:?}");
    assert!(seen.iter().all(|out| *out == seen[0]), "{seen:?}");
    drop(line);
    assert!(shim.wait().unwrap().success());
}

#[test]
fn one_that_was_cancelled_is_free_again_and_the_next_is_not_cancelled() {
    let (mut shim, line) = on_a_line();
    let dir = folder();
    tell(
        &line,
        dir.path(),
        &command(&["sh", "-c", "echo up; exec sleep 300"], &path()),
    );
    until(|| look(&dir.path().join(SPOOL)).is_ok_and(|(bytes, _)| bytes > 0));
    std::fs::write(dir.path().join(CANCEL), "60000").unwrap();
    wake(dir.path());
    assert_eq!(said(&line), Some(b'\n'));
    assert_eq!(result(dir.path()).1.kind(), EndKind::Cancelled);
    // A word that comes late is about a run that is over.
    signal(shim.id().cast_signed(), Signal::URG);
    let dir = ran(&line, &command(&["echo", "second"], &path()));
    assert_eq!(result(dir.path()).0, "second\n");
    drop(line);
    assert!(shim.wait().unwrap().success());
}

#[test]
fn one_that_has_something_left_behind_takes_no_other() {
    let (mut shim, line) = on_a_line();
    let dir = folder();
    let script = "setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!";
    tell(&line, dir.path(), &command(&["sh", "-c", script], &path()));
    assert_eq!(said(&line), None, "it has ended");
    assert!(shim.wait().unwrap().success());
    let (out, _) = result(dir.path());
    signal(out.trim().parse().unwrap(), Signal::KILL);
}

#[test]
fn it_outlives_an_agent_that_dies_before_it_heard_the_end() {
    let (mut shim, line) = on_a_line();
    let dir = folder();
    tell(&line, dir.path(), &command(&["echo", "whole"], &path()));
    until(|| look(&dir.path().join(SPOOL)).is_ok_and(|(_, ended)| ended));
    // It has said that it is free, or does so now: to nobody.
    drop(line);
    assert!(shim.wait().unwrap().success());
    assert_eq!(result(dir.path()).0, "whole\n");
}

#[test]
fn one_that_waits_goes_when_the_machine_does() {
    let (mut shim, line) = on_a_line();
    for _ in 0..2 {
        let dir = ran(&line, &command(&["true"], &path()));
        assert_eq!(result(dir.path()).1.exit_code, 0);
    }
    signal(shim.id().cast_signed(), Signal::TERM);
    assert_eq!(said(&line), None);
    assert!(shim.wait().unwrap().success(), "it was not killed by it");
}
