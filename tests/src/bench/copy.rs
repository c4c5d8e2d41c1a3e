//! What aot's output is compared with: bytes over one rustls connection on loopback, as `openssl s_client` against
//! `s_server` would move them, and what the disk takes. A role of a bench.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::figures::{median, seconds};
use super::program::Program;
use super::tls;

/// Bytes of one write.
const PIECE: usize = 256 << 10;

/// Seconds that one TLS 1.3 connection needs for this many bytes, from this process to another.
///
/// # Panics
/// When they can't be moved.
pub fn tls_copy(bytes: u64) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    tls::write(folder.path(), 1);
    let mut sink = Program::start(&["copy-sink", &folder.path().display().to_string()]);
    let stream = TcpStream::connect(sink.line()).expect("the sink listens");
    stream.set_nodelay(true).expect("a TCP stream");
    let config = tls::connector(folder.path(), "0").config().clone();
    let host = ServerName::try_from("127.0.0.1").expect("an address");
    let client = ClientConnection::new(config, host).expect("good settings");
    let mut tls = StreamOwned::new(client, stream);
    tls.flush().expect("a handshake");
    let piece = vec![7; PIECE];
    seconds(|| {
        let mut left = bytes;
        while left > 0 {
            let len = left.min(PIECE as u64) as usize;
            tls.write_all(&piece[..len]).expect("the sink reads");
            left -= len as u64;
        }
        tls.conn.send_close_notify();
        tls.flush().expect("the sink reads");
        assert_eq!(sink.line(), bytes.to_string(), "bytes that arrived");
    })
}

pub(super) fn play(folder: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("bound"));
    let (stream, _) = listener.accept().expect("a connection");
    let config = Arc::clone(tls::acceptor(folder).config());
    let server = ServerConnection::new(config).expect("good settings");
    let mut tls = StreamOwned::new(server, stream);
    let (mut piece, mut total) = (vec![0; PIECE], 0);
    loop {
        match tls.read(&mut piece).expect("bytes, then a goodbye") {
            0 => break,
            len => total += len as u64,
        }
    }
    println!("{total}");
}

/// Seconds of [`tls_copy`], the median of three; printed.
pub fn shown_tls_copy(bytes: u64) -> f64 {
    let before = own_cpu();
    let seconds = median(3, || tls_copy(bytes));
    println!(
        "one TLS copy of {} MB over loopback: {seconds:.2} s, {:.0} MB/s; processor seconds a GB, both ends: {:.2}",
        bytes / 1_000_000,
        bytes as f64 / seconds / 1e6,
        (own_cpu() - before) / 3.0 / bytes as f64 * 1e9
    );
    seconds
}

/// Processor seconds of this process and of those that it has started and that have ended.
fn own_cpu() -> f64 {
    let used = |who| {
        let usage = getrusage(who).expect("it is known");
        (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
    };
    used(UsageWho::RUSAGE_SELF) + used(UsageWho::RUSAGE_CHILDREN)
}

/// Bytes a second that the disk under `folder` takes when they are to stay: one file, synced every MiB.
///
/// # Panics
/// When it can't be written.
pub fn disk_rate(folder: &Path, bytes: u64) -> f64 {
    let path = folder.join("disk-rate");
    let mut file = std::fs::File::create(&path).expect("a file");
    let piece = vec![7; 1 << 20];
    let time = seconds(|| {
        for _ in 0..bytes >> 20 {
            file.write_all(&piece).expect("space");
            file.sync_data().expect("a disk that syncs");
        }
    });
    std::fs::remove_file(path).expect("it was made above");
    bytes as f64 / time
}

/// Processor seconds, user and system, of a shell's line and of all that it starts.
///
/// # Panics
/// When it fails.
pub fn cpu_of(folder: &Path, line: &str) -> f64 {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("it is known");
        let time = usage.user_time() + usage.system_time();
        time.num_microseconds() as f64 / 1e6
    };
    let before = used();
    let mut shell = Command::new("sh");
    let status = shell.args(["-ec", line]).current_dir(folder).status();
    assert!(status.expect("a shell").success(), "{line}");
    used() - before
}

/// Prints how near to a TLS copy one can come on this machine: both its ends keep a core busy for `tls` seconds, and
/// `beside` processor seconds have to go into what is done with the bytes.
pub fn show_bound(tls: f64, beside: f64, what: &str) {
    let cores = thread::available_parallelism().map_or(1, NonZero::get) as f64;
    let needed = (2.0 * tls + beside) / cores;
    println!(
        "  bound on {cores} cores that do it all: TLS at both ends {:.2} s, {what} {beside:.2} s: {:.0} %",
        2.0 * tls,
        tls / needed * 100.0
    );
}
