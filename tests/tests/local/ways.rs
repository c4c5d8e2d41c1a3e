//! `forward` and `connect`: connections to a clone through its agent, with the real binaries; and ssh by them, where there is an
//! sshd.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use aot_tests::process::{self, Running};
use aot_tests::rig::{LIMIT, Output, Rig};
use aot_tests::sshd::{PORT, Sshd};
use aot_tests::wait;
use nix::sys::signal::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(120);

/// Bytes of one long answer: more than any window.
const LONG: usize = 8 << 20;

fn launched() -> Rig {
    let rig = Rig::local();
    rig.cluster("{cluster: ways, provider: local, instances: [{name: head}]}\n");
    rig.launch().expect(0);
    rig
}

/// Answers each connection with what was said to it, and then a long text, once it has heard its end.
fn answer(mut stream: impl Read + Write) {
    let mut asked = Vec::new();
    if stream.read_to_end(&mut asked).is_ok() {
        let _ = stream.write_all(&asked); // the other side may be gone by then
        let _ = stream.write_all(&vec![b'.'; LONG]);
    }
}

/// A server on this machine's loopback, which is its clones' too. It ends with the test's process.
pub(super) fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(|| answer(stream));
        }
    });
    port
}

/// A server on a socket that is in the clone alone.
fn server_inside(rig: &Rig, path: &str) {
    let init = rig.machine("head").init_pid().expect("it is up");
    let path = format!("/proc/{init}/root{path}");
    let listener = UnixListener::bind(path).expect("a socket in the clone");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(|| answer(stream));
        }
    });
}

/// A forward, once it listens, and where.
fn forward(rig: &Rig, words: &[&str]) -> (Running, Value) {
    let mut running = rig.spawn(["--json", "forward"].iter().chain(words));
    let line = running.until(|line| line["listen"].is_string(), SOON, "it listens");
    (running, line)
}

#[track_caller]
fn asks(address: &str, text: &str) {
    answers(TcpStream::connect(address).expect("it listens"), text);
}

/// What [`server`] answers comes over this connection.
#[track_caller]
pub(super) fn answers(mut stream: TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("it takes it");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).expect("it answers");
    assert_eq!(heard.len(), text.len() + LONG);
    assert!(heard.starts_with(text.as_bytes()), "the same comes back");
}

/// How a forward ended, once that is on record.
fn end_of(rig: &Rig, id: &str) -> Value {
    let ended = || {
        let shown = rig.cli(["--json", "jobs", "show", id]);
        let mut lines = shown.json().into_iter();
        lines.find(|line| line["outcome"].is_string())
    };
    wait::some(ended, SOON, "its end on record")
}

fn address(line: &Value) -> String {
    line["listen"].as_str().expect("an address").to_owned()
}

#[test]
fn many_connections_at_once_are_led_to_the_machine_and_counted_on_record() {
    let mut rig = launched();
    let (running, line) = forward(&rig, &[&format!("head:{}", server()), "0"]);
    let to = address(&line);
    thread::scope(|scope| {
        for n in 0..8 {
            let to = &to;
            scope.spawn(move || asks(to, &format!("question {n}")));
        }
    });
    // A program that leaves is no reason to end.
    drop(TcpStream::connect(&to).expect("it listens"));
    asks(&to, "once more");
    process::send(running.pid(), Signal::SIGINT);
    running.finish(LIMIT).expect(0);
    let ended = end_of(&rig, line["job"].as_str().expect("an id"));
    assert_eq!(ended["outcome"], "succeeded");
    let detail = ended["detail"].as_str().unwrap_or_default();
    assert!(detail.starts_with("10 connections, "), "{ended}");
    assert_eq!(rig.clean(), Vec::<String>::new());
}

#[test]
fn a_socket_of_the_machine_is_reached_and_a_cancelled_forward_ends_with_its_connections() {
    let mut rig = launched();
    server_inside(&rig, "/run/ways.sock");
    let (running, line) = forward(&rig, &["head:/run/ways.sock", "0"]);
    let to = address(&line);
    asks(&to, "inside");
    let mut open = TcpStream::connect(&to).expect("it listens");
    open.write_all(b"unfinished").expect("it takes it");
    let id = line["job"].as_str().expect("an id");
    rig.cli(["jobs", "cancel", id]);
    let mut rest = Vec::new();
    let _ = open.read_to_end(&mut rest); // reset, as it was not over
    assert!(rest.len() < LONG, "{} bytes", rest.len());
    let ended = running.finish(LIMIT);
    ended.expect(1);
    assert!(ended.stderr.contains("cancelled by"), "{}", ended.shown());
    assert_eq!(end_of(&rig, id)["outcome"], "cancelled");
    assert_eq!(rig.clean(), Vec::<String>::new());
}

fn connect(rig: &Rig, port: u16, input: &str) -> Output {
    let input = File::open(rig.file("input", input)).expect("the file");
    let command = rig.command(["connect", "head", &port.to_string()]);
    Running::start_with(command, Stdio::from(input)).finish(LIMIT)
}

#[test]
fn standard_input_and_output_are_a_connection_which_ends_with_the_machines_identity() {
    let mut rig = launched();
    let said = connect(&rig, server(), "hello");
    said.expect(0);
    assert_eq!(said.stdout.len(), "hello".len() + LONG);
    assert!(said.text().starts_with("hello...."));

    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("its address").port();
    drop(free);
    let refused = connect(&rig, port, "");
    refused.expect(1);
    let why = format!("port {port}: Connection refused");
    assert!(refused.stderr.contains(&why), "{}", refused.shown());
    rig.cli(["connect", "nobody"]).expect(3);
    let elsewhere = rig.cli(["forward", "head"]);
    elsewhere.expect(2);

    let (running, line) = forward(&rig, &[&format!("head:{}", server()), "0"]);
    let mut open = TcpStream::connect(address(&line)).expect("it listens");
    open.write_all(b"unfinished").expect("it takes it");
    rig.cli(["agents", "revoke", "head", "--yes"]).expect(0);
    let mut rest = Vec::new();
    let _ = open.read_to_end(&mut rest);
    assert!(rest.len() < LONG, "{} bytes", rest.len());
    running.finish(LIMIT).expect(4);
    assert_eq!(rig.clean(), Vec::<String>::new());
}

#[track_caller]
pub(super) fn run(program: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(words);
    Running::start(command).finish(LIMIT)
}

pub(super) fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|output| output.status.success())
}

/// A configuration for ssh with nothing but what `ssh-config` prints and a key, and where copies may go.
pub(super) fn prepared(rig: &Rig, sshd: &Sshd) -> (String, String) {
    sshd.start(rig, "ways");
    let here = rig.dir().join("ssh");
    fs::create_dir(&here).expect("a folder");
    let at = |name: &str| here.join(name).display().to_string();
    let config = at("config");
    let printed = rig.cli(["ssh-config", "--known-hosts", &at("known_hosts")]);
    printed.expect(0);
    let text = printed.text();
    let own = format!(
        "  Port {PORT}\n  IdentityFile {}\n  BatchMode yes\n  User root\n",
        sshd.key.display()
    );
    fs::write(&config, format!("{}\n{own}", text.trim_end())).expect("writes");
    (config, at("copied"))
}

#[test]
fn ssh_and_what_is_built_on_it_work_by_what_ssh_config_prints() {
    let mut rig = launched();
    let sshd = match Sshd::found(&rig, Path::new(env!("CARGO_TARGET_TMPDIR"))) {
        Ok(sshd) => sshd,
        Err(why) => {
            eprintln!("SKIPPED: ssh through agents, {why}");
            assert_eq!(rig.clean(), Vec::<String>::new());
            return;
        }
    };
    let (config, copied) = prepared(&rig, &sshd);
    let said = run("ssh", &["-F", &config, "head", "cat; hostname"]);
    said.expect(0);
    assert_eq!(said.text().trim(), "head");
    let status = run("ssh", &["-F", &config, "head", "exit 7"]);
    status.expect(7);

    let long = rig.file("long", &"0123456789abcdef".repeat(LONG / 16));
    let long = long.display().to_string();
    run("scp", &["-q", "-F", &config, &long, "head:/root/long"]).expect(0);
    run("scp", &["-q", "-F", &config, "head:/root/long", &copied]).expect(0);
    assert!(fs::read(&copied).expect("it is here") == fs::read(&long).expect("reads"));
    let batch = rig.file("batch", "ls /root/long\n").display().to_string();
    let listed = run("sftp", &["-q", "-F", &config, "-b", &batch, "head"]);
    listed.expect(0);
    assert!(listed.text().contains("/root/long"), "{}", listed.shown());
    if has("rsync") {
        let shell = format!("ssh -F {config}");
        run("rsync", &["-e", &shell, &long, "head:/root/again"]).expect(0);
        let size = rig.sh("head", "stat -c %s /root/again");
        assert_eq!(size, LONG.to_string());
    } else {
        eprintln!("SKIPPED: there is no rsync here");
    }
    assert_eq!(rig.clean(), Vec::<String>::new());
}
