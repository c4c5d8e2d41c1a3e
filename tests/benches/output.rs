//! 10 targets that print 100 MB each, which lie there as files: whole and in order, how fast beside one TLS copy of as
//! much, what memory the master needs for it, and how long a ping takes meanwhile.
//!
//! `AOT_BENCH_TARGETS` and `AOT_BENCH_MB` change the size; `TMPDIR` says on which disk the master and the agents keep it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aot_proto::v1::ExecRequest;
use aot_proto::v1::job_event::Body;
use aot_tests::bench::copy::{cpu_of, disk_rate, show_bound, shown_tls_copy};
use aot_tests::bench::figures::{
    at_least, at_most, cpu_seconds, median, number, quantile, resident_kib,
};
use aot_tests::bench::operator::Operator;
use aot_tests::bench::program::Program;
use aot_tests::bench::roles::played;
use aot_tests::rig::Rig;

fn main() {
    if played() {
        return;
    }
    let (targets, megabytes) = (number("AOT_BENCH_TARGETS", 10), number("AOT_BENCH_MB", 100));
    let total = (targets * megabytes) as u64 * 1_000_000;
    let tls = shown_tls_copy(total);
    let rate = |seconds: f64| total as f64 / seconds / 1e6;

    let rig = Rig::local();
    let disk = disk_rate(rig.dir(), 256 << 20) / 1e6;
    println!("the disk takes {disk:.0} MB/s of what is synced");
    rig.cluster(&format!(
        "cluster: bench\nprovider: local\npools: [{{name: n, size: {targets}}}]\n"
    ));
    rig.cli_within(Duration::from_secs(300), ["launch", "cluster.yml"])
        .expect(0);
    let mut operator = Operator::connect(&rig.socket());
    let quiet = median(21, || operator.ping("*"));
    println!(
        "a ping of all, nothing else going on: {:.2} ms",
        quiet * 1e3
    );

    let wanted = expected(megabytes);
    prepare(&mut operator, megabytes);
    let master = rig.master_pid().expect("it runs");
    let before = (resident_kib(master), cpu_seconds(master));
    let watcher = Watcher::start(&rig, master);
    let started = Instant::now();
    let came = print(&mut operator, &wanted);
    let time = started.elapsed().as_secs_f64();
    let (most_kib, mut pings) = watcher.stop();
    assert_eq!(came.len(), targets, "targets that printed something");
    assert!(
        came.values().all(|bytes| *bytes == wanted.len()),
        "{came:?}"
    );
    println!(
        "{targets} x {megabytes} MB: {time:.2} s, {:.0} MB/s, whole and in order",
        rate(time)
    );
    println!(
        "  the master computes {:.2} s of it",
        cpu_seconds(master) - before.1
    );
    std::fs::write(rig.dir().join("out"), &wanted).expect("space");
    let line = "cat out | cat >spool; cat spool >copy; cat out | cat >/dev/null; rm spool copy";
    let line = format!("for i in $(seq {targets}); do {line}; done");
    let files = cpu_of(rig.dir(), &line);
    let what = "cat(1) from pipe to spool to copy to operator";
    show_bound(tls, files, what);
    at_least("output beside the TLS copy", tls / time * 100.0, 30.0, "%");
    at_most(
        "master's memory above its rest (RSS)",
        (most_kib - before.0) / 1024.0,
        64.0,
        "MiB",
    );
    let count = pings.len();
    let (middle, late) = (quantile(&mut pings, 0.5), quantile(&mut pings, 0.99));
    println!(
        "  {count} pings of all meanwhile: median {:.2} ms, most {:.2} ms",
        middle * 1e3,
        quantile(&mut pings, 1.0) * 1e3
    );
    at_most("a ping of all meanwhile, p99", late * 1e3, 50.0, "ms");
}

/// First number of what a target prints: all lines are equally long, and order shows.
const FIRST: usize = 10_000_000;

/// Lines of a target's output, 9 bytes each.
fn lines(megabytes: usize) -> usize {
    megabytes * 1_000_000 / 9
}

/// What a target prints.
fn expected(megabytes: usize) -> Vec<u8> {
    let mut text = String::with_capacity(megabytes * 1_000_000);
    for n in FIRST..FIRST + lines(megabytes) {
        writeln!(text, "{n:08}").expect("a String grows");
    }
    text.into_bytes()
}

fn request(argv: &[&str]) -> ExecRequest {
    ExecRequest {
        target: "*".to_owned(),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        ..ExecRequest::default()
    }
}

/// Puts what they are to print on the targets.
fn prepare(operator: &mut Operator, megabytes: usize) {
    let last = FIRST + lines(megabytes) - 1;
    let line = format!("seq {FIRST} {last} > /root/out");
    let summary = operator.exec(request(&["sh", "-c", &line]), |_| {});
    assert_eq!(summary.exit_code, 0, "{summary:?}");
}

/// Runs the job and compares what each target prints; the bytes of each.
fn print(operator: &mut Operator, wanted: &[u8]) -> BTreeMap<String, usize> {
    let mut came: BTreeMap<String, usize> = BTreeMap::new();
    let summary = operator.exec(request(&["cat", "/root/out"]), |event| {
        if let Body::Output(output) = event {
            let at = came.entry(output.instance.clone()).or_default();
            let next = *at + output.data.len();
            assert!(
                wanted.get(*at..next) == Some(&output.data),
                "{} at {at}",
                output.instance
            );
            *at = next;
        }
    });
    assert_eq!(summary.exit_code, 0, "{summary:?}");
    came
}

/// Another operator who pings all the time; and looks at the master's memory.
struct Watcher {
    stop: Arc<AtomicBool>,
    seen: thread::JoinHandle<(f64, Vec<f64>)>,
}

impl Watcher {
    fn start(rig: &Rig, master: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        // As from another terminal: with a session, and so a share of the processors, of its own.
        let mut pinger = Program::start(&["pinger", &rig.socket().display().to_string()]);
        let seen = thread::spawn(move || {
            let mut seen = (0.0_f64, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let time = pinger.line();
                seen.1.push(time.parse().expect("it prints seconds"));
                seen.0 = seen.0.max(resident_kib(master));
            }
            seen
        });
        Self { stop, seen }
    }

    /// Most resident memory in KiB, and the seconds of all pings.
    fn stop(self) -> (f64, Vec<f64>) {
        self.stop.store(true, Ordering::Relaxed);
        self.seen.join().expect("every ping is answered")
    }
}
