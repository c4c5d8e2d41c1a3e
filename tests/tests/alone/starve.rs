//! What would starve a master: a disk without room, connections that say nothing, too few descriptors, readers that stop.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_host::descriptors;
use aot_tests::process::Running;
use aot_tests::rig::{LIMIT, Output, Rig};
use aot_tests::{process, wait};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

const ONE: &str = "
cluster: one
provider: local
instances: [{name: a}]
";

/// A small disk for a master's state, gone at the end.
struct Disk(TempDir);

impl Disk {
    fn new(mib: u32) -> Self {
        let dir = tempfile::Builder::new().prefix("aot-disk-").tempdir();
        let disk = Self(dir.expect("a folder"));
        let options = format!("size={mib}m,mode=0700");
        let (tmpfs, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(tmpfs, disk.0.path(), tmpfs, flags, Some(&*options)).expect("mounts a tmpfs");
        disk
    }

    /// A rig whose state lies on it.
    fn rig(&self, env: &[(&str, &str)]) -> Rig {
        let rig = Rig::with(env);
        fs::create_dir(self.0.path().join("state")).expect("a folder");
        symlink(self.0.path().join("state"), rig.state_dir()).expect("a link");
        rig
    }

    /// Leaves so many KiB of it.
    fn fill(&self, leave_kib: u64) {
        let disk = rustix::fs::statvfs(self.0.path()).expect("asks");
        let mut left = (disk.f_bavail * disk.f_frsize).saturating_sub(leave_kib << 10);
        let mut file = fs::File::create(self.0.path().join("ballast")).expect("a file");
        // Others may take the last bytes first.
        for size in [1 << 16, 1 << 12, 1] {
            let piece = vec![0; size];
            while left >= size as u64 && file.write_all(&piece).is_ok() {
                left -= size as u64;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.0.path().join("ballast")).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Detached: what still looks at it lets go of it by itself.
        if let Err(error) = umount2(self.0.path(), MntFlags::MNT_DETACH) {
            eprintln!("{} stays mounted: {error}", self.0.path().display());
        }
    }
}

#[test]
fn without_room_new_work_is_refused_by_name_and_what_runs_waits_and_loses_nothing() {
    let _turn = crate::turn();
    let disk = Disk::new(200);
    let rig = disk.rig(&[]);
    rig.cluster(ONE);
    rig.launch().expect(0);
    let script = "while ! [ -e /go ]; do sleep 0.1; done; seq 1 300000; echo the end";
    let running = rig.spawn(["exec", "a", "--", "sh", "-c", script]);
    wait::until(
        || rig.cli(["jobs"]).text().contains("running"),
        LIMIT,
        "the command runs",
    );

    disk.fill(4 << 10);
    wait::until(
        || rig.cli(["status"]).stderr.contains("no space left in"),
        LIMIT,
        "status says that there is no room",
    );
    let file = rig.file("f", "x");
    let paths = [file.to_str().expect("text"), "a:/tmp/"];
    for refused in [
        rig.cli(["exec", "a", "true"]),
        rig.cli(["launch", "--yes", "cluster.yml"]),
        rig.cli(["cp", paths[0], paths[1]]),
    ] {
        let said = &refused.stderr;
        assert_eq!(refused.code, Some(1), "{}", refused.shown());
        assert!(
            said.contains("no space left in") && said.contains("kept in reserve"),
            "{said}"
        );
    }
    rig.cli(["exec", "a", "ping"]).expect(0);
    go(&rig);
    wait::until(
        || {
            rig.log()
                .contains("new output, uploads and launches are held back")
        },
        LIMIT,
        "the log says so",
    );
    disk.make_room();
    let ended = running.finish(LIMIT);
    ended.expect(0);
    let lines = ended.text();
    assert_eq!(lines.lines().count(), 300_001);
    assert!(lines.ends_with("the end\n"));
    assert!(!rig.log().contains("session ends"), "no session was cut");
}

#[test]
fn a_disk_that_is_full_to_its_last_byte_is_said_and_ends_the_master_as_a_failure() {
    let _turn = crate::turn();
    let disk = Disk::new(120);
    // Nothing is kept free: so the store itself meets the full disk.
    let rig = disk.rig(&[("AOT_KEEP_FREE", "0")]);
    rig.cluster(ONE);
    rig.launch().expect(0);
    rig.cli(["shutdown"]).expect(0);
    let serve = rig.serve();
    disk.fill(0);
    let refused = rig.cli(["exec", "a", "true"]);
    assert!(refused.stderr.contains("full"), "{}", refused.shown());
    let ended = serve.finish(LIMIT);
    ended.expect(1);
    assert!(ended.stderr.contains("disk is full"), "{}", ended.shown());
    disk.make_room();
    let serve = rig.serve();
    wait::until(
        || rig.cli(["exec", "a", "true"]).code == Some(0),
        LIMIT,
        "all goes on with room",
    );
    rig.cli(["cleanup", "--yes", "one"]).expect(0);
    serve.signal(Signal::SIGTERM);
    serve.finish(LIMIT).expect(0);
}

/// Lets the command on the clone continue, past its agent, which is not to be asked for anything.
fn go(rig: &Rig) {
    let init = rig.machine("a").init_pid().expect("it runs");
    fs::write(format!("/proc/{init}/root/go"), "").expect("writes");
}

#[test]
fn what_is_run_has_the_limits_on_open_files_and_core_dumps_that_there_were() {
    let _turn = crate::turn();
    let before = 700;
    let rig = Rig::local();
    rig.bundle("b", "ulimit -Sn > /opt/limit; ulimit -Sc >> /opt/limit\n");
    rig.cluster(
        "
cluster: files
provider: local
instances:
  - name: a
    bootstrap_sequence: [{dir: b}]
",
    );
    let launch = rig.command(["launch", "--json", "--yes", "cluster.yml"]);
    let limited = Running::start(with_open_files(before, &launch));
    limited.finish(LIMIT).expect(0);
    let pid = rig.master_pid().expect("it runs");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("reads");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft: Vec<&str> = files.expect("a line").split_whitespace().collect();
    assert_eq!(soft[3], soft[4], "the master raised its own: {soft:?}");
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let soft: Vec<&str> = core.expect("a line").split_whitespace().collect();
    assert_eq!(soft[4], "1", "the master lowered its own: {soft:?}");
    assert_eq!(
        rig.sh("a", "ulimit -Sn; ulimit -Sc; cat /opt/limit"),
        format!("{before}\nunlimited\n{before}\nunlimited")
    );
}

/// The same command with that soft limit, and with none on core dumps; this process's own is every other test's too.
fn with_open_files(soft: u64, command: &Command) -> Command {
    let mut limited = Command::new("/bin/sh");
    limited.args([
        "-c",
        "ulimit -Sn \"$0\" && ulimit -Sc unlimited && exec \"$@\"",
    ]);
    limited.arg(soft.to_string()).arg(command.get_program());
    limited.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.current_dir(command.get_current_dir().expect("a rig's"));
    limited
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn dial(rig: &Rig) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", rig.port())).expect("connects");
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).expect("is set");
    stream
}

fn tls(rig: &Rig, protocol: &[u8]) -> std::io::Result<Tls> {
    let ca = CertificateDer::from_pem_file(rig.state_dir().join("ca.pem")).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(ca).expect("it is good");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = config
        .expect("they are known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(connection, dial(rig));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Whether the other side has ended it.
fn is_over(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("is set");
    let mut bytes = [0; 4096];
    loop {
        match (&mut &*stream).read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn connections_that_say_nothing_shut_nobody_out_and_end() {
    let _turn = crate::turn();
    descriptors::raise().expect("more open files");
    let rig = Rig::local();
    rig.cluster(ONE);
    rig.cli(["plan", "cluster.yml"]).expect(0); // starts a master where there is no state yet
    let silent: Vec<TcpStream> = (0..1500).map(|_| dial(&rig)).collect();
    let began = Instant::now();
    let unused = tls(&rig, b"h2").expect("a handshake");
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    rig.cli(["status"]).expect(0);

    let mut half = tls(&rig, b"http/1.1").expect("a handshake");
    let head = b"POST /v1/boot HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    half.write_all(head).expect("sends");
    let mut preface = tls(&rig, b"h2").expect("a handshake");
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    preface.write_all(settings).expect("sends");

    // By themselves these would last for a quarter of an hour. Each with the seconds that a master gives it: twice that, and
    // the time that a slow machine needs beside it.
    let opened = Instant::now();
    for (what, stream, own) in [
        ("a silent one", &silent[1499], 3),
        ("one without a request", &unused.sock, 10),
        ("one without a call", &preface.sock, 10),
        ("one whose body does not come", &half.sock, 30),
    ] {
        let limit = Duration::from_secs(2 * own + 20);
        let left = limit.saturating_sub(opened.elapsed());
        wait::until(|| is_over(stream), left, what);
    }
    assert!(silent.iter().all(is_over));
}

/// Some 3,000 short lines a second, for ten seconds.
const LINES: &str = "i=0; while [ $i -lt 30000 ]; do echo $i; i=$((i+1)); [ $((i % 30)) -ne 0 ] || sleep 0.008; done";

/// Whether these are all lines, in order, behind the instance's name.
fn all_lines(output: &Output) -> bool {
    let text = output.text();
    let last = |line: &str| line.split_whitespace().next_back().map(str::to_owned);
    let shown = text.lines().map(last);
    shown.eq((0..30_000).map(|line| Some(line.to_string())))
}

#[test]
fn a_master_that_stands_still_for_a_while_loses_no_line_and_no_session() {
    let _turn = crate::turn();
    let rig = Rig::local();
    rig.cluster(ONE);
    rig.launch().expect(0);
    let running = rig.spawn(["exec", "a", "--", "sh", "-c", LINES]);
    wait::until(|| running.printed() > 10_000, LIMIT, "it prints");
    let master = rig.master_pid().expect("it runs");
    stand_still(master, Duration::from_secs(4));
    let ended = running.finish(LIMIT);
    ended.expect(0);
    assert!(all_lines(&ended), "not all lines, or not in order");
    assert!(!rig.log().contains("session ends"), "{}", rig.log());
}

#[test]
fn an_operator_who_stops_a_command_and_goes_on_loses_no_line() {
    let _turn = crate::turn();
    let rig = Rig::local();
    rig.cluster(ONE);
    rig.launch().expect(0);
    let running = rig.spawn(["exec", "a", "--", "sh", "-c", LINES]);
    wait::until(|| running.printed() > 10_000, LIMIT, "it prints");
    stand_still(running.pid(), Duration::from_secs(5));
    let ended = running.finish(LIMIT);
    ended.expect(0);
    assert!(all_lines(&ended), "not all lines, or not in order");
}

/// Stops a process, and has it continue.
fn stand_still(pid: u32, time: Duration) {
    process::send(pid, Signal::SIGSTOP);
    let until = Instant::now() + time;
    wait::until(|| Instant::now() >= until, time * 2, "time passes");
    process::send(pid, Signal::SIGCONT);
}

#[test]
fn the_log_of_a_master_in_the_background_is_turned_over_while_it_runs() {
    let _turn = crate::turn();
    let rig = Rig::local();
    fs::create_dir(rig.state_dir()).expect("a folder");
    let log = rig.state_dir().join("master.log");
    let full = fs::File::create(&log).expect("a file");
    full.set_len((16 << 20) - 10).expect("a long one");
    rig.cli(["status"]).expect(0);
    let old = rig.state_dir().join("master.log.1");
    assert!(old.exists(), "the old one is kept");
    let fresh = rig.log();
    assert!(
        fresh.len() < 1 << 20 && fresh.contains("serving"),
        "{fresh}"
    );
    rig.cli(["shutdown"]).expect(0);
    wait::until(
        || rig.log().contains("stopped"),
        LIMIT,
        "the new one is written to its end",
    );
}
