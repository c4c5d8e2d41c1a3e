//! One connection through `forward` to a clone, beside one TLS copy of as much, and how much longer a byte takes there and back
//! than on the loopback. Both ends are this program; between them are the command line, the master and the agent.
//!
//! `AOT_BENCH_MB` changes the size, `AOT_BENCH_ROUNDS` the number of round trips.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use aot_tests::bench::copy::shown_tls_copy;
use aot_tests::bench::figures::{at_least, at_most, cpu_seconds, median, number, seconds};
use aot_tests::bench::roles::played;
use aot_tests::process::Running;
use aot_tests::rig::Rig;

const LONGEST: Duration = Duration::from_secs(300);

/// What is written at once.
const PIECE: usize = 64 << 10;

/// What each connection begins with: says what it is for.
const SINK: u8 = b's';
const SOURCE: u8 = b'r';
const ECHO: u8 = b'e';

fn main() {
    if played() {
        return;
    }
    let total = number("AOT_BENCH_MB", 1000) as u64 * 1_000_000;
    let rounds = number("AOT_BENCH_ROUNDS", 2000);
    let tls = shown_tls_copy(total);
    let rig = Rig::local();
    rig.cluster("{cluster: bench, provider: local, instances: [{name: n}]}\n");
    rig.launch().expect(0);
    let here = serve(total);
    let mut running = rig.spawn(["--json", "forward", &format!("n:{here}"), "0"]);
    let line = running.until(|line| line["listen"].is_string(), LONGEST, "it listens");
    let there = line["listen"].as_str().expect("an address").to_owned();
    let here = format!("127.0.0.1:{here}");

    let processes = Processes::of(&rig, &running);
    let before = processes.cpu();
    let down = receive(&there, total);
    let between = processes.cpu();
    let up = send(&there, total);
    let after = processes.cpu();
    let (plain, forwarded) = (round_trip(&here, rounds), round_trip(&there, rounds));
    let opened = open(&there, rounds / 20);
    let rate = |seconds: f64| total as f64 / seconds / 1e6;
    println!(
        "from the machine {:.0} MB/s, to it {:.0} MB/s",
        rate(down),
        rate(up)
    );
    shown("from the machine", total, &before, &between);
    shown("to it", total, &between, &after);
    println!(
        "a byte there and back: {:.0} us, on the loopback {:.0} us; a new connection and its first byte: {:.1} ms",
        forwarded * 1e6,
        plain * 1e6,
        opened * 1e3
    );
    at_least(
        "from the machine beside the TLS copy",
        tls / down * 100.0,
        50.0,
        "%",
    );
    at_least(
        "to the machine beside the TLS copy",
        tls / up * 100.0,
        50.0,
        "%",
    );
    at_most(
        "added to a round trip",
        (forwarded - plain) * 1e3,
        2.0,
        "ms",
    );
}

/// What carries a connection.
struct Processes([(&'static str, u32); 4]);

impl Processes {
    fn of(rig: &Rig, command: &Running) -> Self {
        let master = rig.master_pid().expect("it runs");
        let agent = rig.machine("n").agent_pid().expect("it runs");
        let (command, own) = (command.pid(), std::process::id());
        Self([
            ("the command", command),
            ("the master", master),
            ("the agent", agent),
            ("both ends", own),
        ])
    }

    /// Processor seconds of each so far.
    fn cpu(&self) -> Vec<(&'static str, f64)> {
        let each = self.0.iter();
        each.map(|(what, pid)| (*what, cpu_seconds(*pid))).collect()
    }
}

/// Prints what a copy took of the processors, which other work on this machine changes less than its time.
fn shown(way: &str, total: u64, before: &[(&str, f64)], after: &[(&str, f64)]) {
    let each = before
        .iter()
        .zip(after)
        .map(|((what, before), (_, after))| {
            format!("{what} {:.2}", (after - before) / total as f64 * 1e9)
        });
    println!(
        "  processor seconds a GB {way}: {}",
        each.collect::<Vec<_>>().join(", ")
    );
}

/// Answers on the loopback, which is the clones' too; ends with the process.
fn serve(total: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, total));
        }
    });
    port
}

fn answer(mut stream: TcpStream, total: u64) {
    let _ = stream.set_nodelay(true); // only a matter of speed
    let mut role = [0];
    if stream.read_exact(&mut role).is_err() {
        return;
    }
    match role[0] {
        SOURCE => write_all(&mut stream, total),
        SINK => {
            read_all(&mut stream, total);
            let _ = stream.write_all(&role); // all of it is here
        }
        _ => while stream.read_exact(&mut role).is_ok() && stream.write_all(&role).is_ok() {},
    }
}

fn write_all(stream: &mut TcpStream, total: u64) {
    let piece = vec![b'x'; PIECE];
    let mut left = total;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        if stream.write_all(&piece[..part]).is_err() {
            return;
        }
        left -= part as u64;
    }
}

fn read_all(stream: &mut TcpStream, total: u64) {
    let mut piece = vec![0; PIECE];
    let mut left = total;
    while left > 0 {
        match stream.read(&mut piece) {
            Ok(bytes) if bytes > 0 => left -= bytes as u64,
            _ => panic!("{left} bytes are missing"),
        }
    }
}

fn connected(address: &str, role: u8) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("a TCP connection");
    stream.write_all(&[role]).expect("it takes it");
    stream
}

fn receive(address: &str, total: u64) -> f64 {
    let mut stream = connected(address, SOURCE);
    seconds(|| read_all(&mut stream, total))
}

fn send(address: &str, total: u64) -> f64 {
    let mut stream = connected(address, SINK);
    seconds(|| {
        write_all(&mut stream, total);
        stream.read_exact(&mut [0]).expect("all has come");
    })
}

/// The median.
fn round_trip(address: &str, rounds: usize) -> f64 {
    let mut stream = connected(address, ECHO);
    median(rounds, || echoed(&mut stream))
}

fn echoed(stream: &mut TcpStream) -> f64 {
    seconds(|| {
        stream.write_all(&[1]).expect("it takes it");
        stream.read_exact(&mut [0]).expect("it answers");
    })
}

/// From a new connection to its first byte back; the median.
fn open(address: &str, times: usize) -> f64 {
    median(times, || {
        seconds(|| {
            echoed(&mut connected(address, ECHO));
        })
    })
}
