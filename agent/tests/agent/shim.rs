//! `aot-agent shim` by itself: what it makes of the commands that it gets, and of what it finds in the folder.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::Duration;

use aot_agent::inside::CommandSpec;
use aot_agent::inside::cancellation::{CANCEL, wake};
use aot_agent::inside::journal::{SPEC, lock_if_free, pid_in};
use aot_agent::inside::spool::{SPOOL, SpoolStat, read, stat};
use aot_proto::frame;
use aot_proto::v1::frame::Body;
use aot_proto::v1::{EndKind, Ended};
use rustix::process::Signal;

use super::fake::{install, signal, until};

fn command(argv: &[&str], env: &[(&str, &str)]) -> CommandSpec {
    CommandSpec {
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
        note: String::new(),
        rendered: String::new(),
        secrets: None,
        timeout: Duration::ZERO,
        silence_timeout: Duration::ZERO,
        output_cap_bytes: 1 << 20,
    }
}

fn binary() -> OsString {
    let named = std::env::var_os("AOT_AGENT_BIN");
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_aot-agent").into())
}

fn start(commands: impl Into<Stdio>) -> Child {
    let mut process = Process::new(binary());
    process.arg("shim").stdin(commands);
    process.stderr(Stdio::null()).spawn().unwrap()
}

/// A file that holds a command.
fn file_of(dir: &Path, command: &CommandSpec) -> File {
    let mut file = tempfile::tempfile().unwrap();
    let command = CommandSpec {
        dir: dir.to_owned(),
        ..command.clone()
    };
    file.write_all(&command.to_bytes().unwrap()).unwrap();
    file.rewind().unwrap();
    file
}

fn run(dir: &Path, command: &CommandSpec) -> ExitStatus {
    start(file_of(dir, command)).wait().unwrap()
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
    let SpoolStat { bytes, marked, .. } = stat(&dir.join(SPOOL)).unwrap();
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
    assert_eq!(out, "/usr\n/dev/null\n", "the command is in no file");
    let names = std::fs::read_dir(dir.path()).unwrap().flatten();
    let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, [SPEC, SPOOL]);
    assert!(pid_in(dir.path()).is_some());
}

#[test]
fn what_is_left_behind_and_prints_lives_on() {
    let dir = folder();
    let server = "while sleep 0.05; do echo serving >&2; echo serving; done & echo $!";
    let mut shim = start(file_of(
        dir.path(),
        &command(&["sh", "-c", server], &path()),
    ));
    until(|| stat(&dir.path().join(SPOOL)).is_ok_and(|stat| stat.marked));
    let (out, end) = result(dir.path());
    assert_eq!((end.kind(), end.exit_code), (EndKind::Exited, 0));
    assert!(end.leaked_pipes && end.left_processes >= 1, "{end:?}");
    let pid: i32 = out.lines().next().unwrap().parse().unwrap();
    let ticks = || aot_agent::inside::tree::stat(pid).map(|stat| stat.cpu_ms);
    // It starts children: its time grows for as long as it lives.
    let before = ticks();
    until(|| ticks() > before);
    assert!(
        lock_if_free(dir.path()).unwrap().is_some(),
        "the run is over"
    );
    assert!(shim.try_wait().unwrap().is_none());
    signal(pid, Signal::KILL);
    assert!(
        shim.wait().unwrap().success(),
        "with the last of them it ends"
    );
}

#[test]
fn a_child_that_ends_at_once_is_not_waited_for_in_vain() {
    let shims: Vec<_> = (0..50)
        .map(|_| {
            let dir = folder();
            let shim = start(file_of(dir.path(), &command(&["false"], &path())));
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
fn an_end_that_no_signal_reports_is_found() {
    let dir = folder();
    let line = command(&["sh", "-c", "sleep 0.2; echo done"], &path());
    let status = Process::new("env")
        .arg("--ignore-signal=CHLD")
        .args([&*binary(), "shim".as_ref()])
        .stdin(file_of(dir.path(), &line))
        .status()
        .unwrap();
    assert!(status.success());
    let (out, end) = result(dir.path());
    assert_eq!((&*out, end.kind()), ("done\n", EndKind::Interrupted));
    assert_eq!(end.detail, "it has ended, and it is not known how");
}

#[test]
fn what_is_not_a_program_is_reported_as_such() {
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
    install("echo $0 $1\n", &tool);
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
    let empty = SpoolStat {
        has_name: true,
        ..SpoolStat::default()
    };
    assert_eq!(stat(&dir.path().join(SPOOL)).unwrap(), empty);

    // An agent that died while it sent a command has started nothing.
    let dir = folder();
    let torn = file_of(dir.path(), &touch);
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
fn a_cancellation_is_seen_when_the_signal_comes() {
    let dir = folder();
    wake(dir.path());
    let line = command(&["sh", "-c", "echo up; exec sleep 300"], &path());
    let mut shim = start(file_of(dir.path(), &line));
    let is_up = || {
        let chunk = read(&dir.path().join(SPOOL), 0, 1 << 20);
        chunk.is_ok_and(|chunk| chunk.data.windows(3).any(|bytes| bytes == b"up\n"))
    };
    until(is_up);
    // A signal without the file is not a cancellation.
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

/// One that is given commands by us, as by an agent.
fn on_a_line() -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (start(OwnedFd::from(theirs)), ours)
}

fn send(mut line: &UnixStream, dir: &Path, command: &CommandSpec) {
    let command = CommandSpec {
        dir: dir.to_owned(),
        ..command.clone()
    };
    line.write_all(&command.to_bytes().unwrap()).unwrap();
}

/// The folder of a command that it was given, and of which nothing is left.
fn ran(line: &UnixStream, command: &CommandSpec) -> tempfile::TempDir {
    let dir = folder();
    send(line, dir.path(), command);
    assert_eq!(answer(line), Some(b'\n'));
    dir
}

/// The next byte that it sends; `None` when it has ended.
fn answer(mut line: &UnixStream) -> Option<u8> {
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
        send(&line, dir.path(), &command(&["sh", "-c", script], &env));
        assert_eq!(answer(&line), Some(b'\n'));
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
    send(
        &line,
        dir.path(),
        &command(&["sh", "-c", "echo up; exec sleep 300"], &path()),
    );
    until(|| stat(&dir.path().join(SPOOL)).is_ok_and(|stat| stat.bytes > 0));
    std::fs::write(dir.path().join(CANCEL), "60000").unwrap();
    wake(dir.path());
    assert_eq!(answer(&line), Some(b'\n'));
    assert_eq!(result(dir.path()).1.kind(), EndKind::Cancelled);
    // A signal that comes late is about a run that is over.
    signal(shim.id().cast_signed(), Signal::URG);
    let dir = ran(&line, &command(&["echo", "second"], &path()));
    assert_eq!(result(dir.path()).0, "second\n");
    drop(line);
    assert!(shim.wait().unwrap().success());
}

#[test]
fn one_that_has_something_left_behind_accepts_no_other() {
    let (mut shim, line) = on_a_line();
    let dir = folder();
    let script = "setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $!";
    send(&line, dir.path(), &command(&["sh", "-c", script], &path()));
    assert_eq!(answer(&line), None, "it has ended");
    assert!(shim.wait().unwrap().success());
    let (out, _) = result(dir.path());
    signal(out.trim().parse().unwrap(), Signal::KILL);
}

#[test]
fn it_outlives_an_agent_that_dies_before_it_heard_the_end() {
    let (mut shim, line) = on_a_line();
    let dir = folder();
    send(&line, dir.path(), &command(&["echo", "whole"], &path()));
    until(|| stat(&dir.path().join(SPOOL)).is_ok_and(|stat| stat.marked));
    // It has reported that it is free, or does so now: to nobody.
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
    assert_eq!(answer(&line), None);
    assert!(shim.wait().unwrap().success(), "it was not killed by it");
}
