//! A thousand sessions (`AOT_BENCH_SESSIONS`): simulated agents in one process, real TLS, the real protocol, against a
//! real `aot-master serve` over a state that this bench writes as a launch and enrolments would have left it. Prints a
//! ping of all beside a bare program of tonic and mTLS, what a command over all costs, how much more a change of all does at
//! the same pace, and the master's memory a session.
//! With `AOT_BENCH_FACTS=1` one of them has new facts, so that all get new cluster facts.
//! With several counts (`AOT_BENCH_STEPS=1000,2000,5000`) it says at the end whether cost grows as the count does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aot_host::descriptors;
use aot_proto::v1::{ApplyRequest, ExecRequest, Pace, UpdatePace};
use aot_tests::bench::agents::Agents;
use aot_tests::bench::bare::Bare;
use aot_tests::bench::figures::{
    at_most, cpu_seconds, median, memory_kib, number, peak_kib, quantile, seconds,
};
use aot_tests::bench::master::BenchMaster;
use aot_tests::bench::operator::Operator;
use aot_tests::bench::roles::played;
use aot_tests::fleet::records::{self, ClusterShape, GENERATION, ProviderKind};
use aot_tests::wait;

/// Pings whose median is taken.
const ROUNDS: usize = 21;

/// Commands and changes at a pace whose median is taken, and how many instances have theirs at a time.
const PACED_ROUNDS: usize = 5;
const PACE: usize = 50;

/// Longest that one of them may take: then it is said what it lacks.
const WITHIN: Duration = Duration::from_secs(120);

fn main() {
    if played() {
        return;
    }
    descriptors::raise().expect("up to the hard limit");
    let default = number("AOT_BENCH_SESSIONS", 1_000);
    let counts: Vec<usize> = match std::env::var("AOT_BENCH_STEPS") {
        Ok(list) => list
            .split(',')
            .map(|n| n.parse().expect("a number"))
            .collect(),
        Err(_) => vec![default],
    };
    let steps: Vec<Figures> = counts.into_iter().map(measure).collect();
    if steps.len() > 1 {
        compare(&steps);
    }
}

/// What one count of sessions cost.
struct Figures {
    count: usize,
    /// Seconds until all were attached.
    attaching: f64,
    /// Seconds of the master's processor time for it.
    attach_cpu: f64,
    /// Seconds of a ping of all, and of the bare program's.
    ping: f64,
    bare: f64,
    /// The same for a command over all at once, and at a pace: until it is over, and of the master's processor time.
    exec: (f64, f64),
    paced: (f64, f64),
    /// The same for a change of all at that pace.
    rolled: (f64, f64),
    /// Share of a core while nothing but heartbeats comes.
    idle: f64,
    /// KiB a session (PSS).
    memory: f64,
}

/// Cost a session at each step, and how it has grown from the first step to the last.
fn compare(steps: &[Figures]) {
    println!("--- a session, by count of sessions");
    println!(
        "{:>8} {:>9} {:>10} {:>9} {:>8} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "sessions",
        "attached",
        "attach cpu",
        "ping all",
        "x bare",
        "exec cpu",
        "50 at once",
        "changed so",
        "idle",
        "memory"
    );
    for step in steps {
        let each = |seconds: f64| seconds * 1e3 / step.count as f64;
        println!(
            "{:>8} {:>7.2} s {:>7.3} ms {:>6.0} ms {:>8.2} {:>7.3} ms {:>7.3} ms {:>7.3} ms {:>6.1} % {:>4.1} KiB",
            step.count,
            step.attaching,
            each(step.attach_cpu),
            step.ping * 1e3,
            step.ping / step.bare,
            each(step.exec.1),
            each(step.paced.1),
            each(step.rolled.1),
            step.idle,
            step.memory
        );
    }
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
        return;
    };
    let grown = |what: &str, cost: fn(&Figures) -> f64| {
        let each = |step: &Figures| cost(step) / step.count as f64;
        let what = format!(
            "{what}, a session of {} beside one of {}",
            last.count, first.count
        );
        at_most(&what, each(last) / each(first), 1.5, "x");
    };
    grown("processor time to attach", |step| step.attach_cpu);
    grown("time of a ping", |step| step.ping);
    grown("processor time of a command over all", |step| step.exec.1);
    grown("processor time of one 50 at a time", |step| step.paced.1);
    grown("processor time of a change", |step| step.rolled.1);
    grown("memory", |step| step.memory * step.count as f64);
}

/// Runs a command over all, this many at a time (0 = all): seconds until it ends, and of the master's processor time.
fn exec_all(operator: &mut Operator, master: &BenchMaster, at_a_time: usize) -> (f64, f64) {
    let concurrency = (at_a_time > 0).then(|| at_a_time.to_string());
    let request = ExecRequest {
        target: "*".to_owned(),
        argv: vec!["true".to_owned()],
        pace: Some(Pace {
            concurrency,
            ..Pace::default()
        }),
        ..ExecRequest::default()
    };
    let before = cpu_seconds(master.pid());
    let time = seconds(|| {
        let summary = operator.exec(request, |_| {});
        assert_eq!(summary.exit_code, 0, "{summary:?}");
    });
    (time, cpu_seconds(master.pid()) - before)
}

/// Changes the bundle of all and applies it, this many at a time: seconds until it ends, and of the master's processor time.
fn apply_all(
    operator: &mut Operator,
    master: &BenchMaster,
    bundle: &Path,
    at_a_time: usize,
) -> (f64, f64) {
    let script = format!("true # {:?}\n", Instant::now());
    aot_tests::bundle::folder(bundle, &script);
    let request = ApplyRequest {
        update: Some(UpdatePace {
            concurrency: Some(at_a_time.to_string()),
            ..UpdatePace::default()
        }),
        ..ApplyRequest::default()
    };
    let before = cpu_seconds(master.pid());
    let time = seconds(|| {
        let last = operator.apply(request, WITHIN);
        let ended = last.as_ref().is_some_and(|last| last.exit_code == 0);
        assert!(
            ended,
            "a change of all, {at_a_time} at a time, did not end well within {} s: {last:?}; {}",
            WITHIN.as_secs(),
            operator.lacking()
        );
    });
    (time, cpu_seconds(master.pid()) - before)
}

/// A command and a change of all at the same pace, in turns: what else this machine does counts for both.
fn at_a_pace(
    operator: &mut Operator,
    master: &BenchMaster,
    bundle: &Path,
) -> ((f64, f64), (f64, f64)) {
    let (mut commands, mut changes) = (Vec::new(), Vec::new());
    for _ in 0..PACED_ROUNDS {
        commands.push(exec_all(operator, master, PACE));
        changes.push(apply_all(operator, master, bundle, PACE));
    }
    let middle = |all: &[(f64, f64)]| {
        let of = |part: fn(&(f64, f64)) -> f64| {
            quantile(&mut all.iter().map(part).collect::<Vec<_>>(), 0.5)
        };
        (of(|it| it.0), of(|it| it.1))
    };
    let (command, change) = (middle(&commands), middle(&changes));
    println!(
        "{PACE} at a time: a command over all {:.2} s, of which the master computes {:.2} s; a change of all {:.2} s, {:.2} s",
        command.0, command.1, change.0, change.1
    );
    at_most(
        "a change of all, times a command at the same pace",
        change.0 / command.0,
        1.0,
        "x",
    );
    at_most(
        "the master's processor time of it, times the command's",
        change.1 / command.1,
        1.0,
        "x",
    );
    (command, change)
}

/// The master's processor time, once it uses little more than heartbeats of this many sessions do.
fn when_quiet(master: &BenchMaster, sessions: usize) -> f64 {
    let little = 0.1 + sessions as f64 * 5e-5;
    let mut last = (Instant::now(), cpu_seconds(master.pid()));
    let look = || {
        let now = (Instant::now(), cpu_seconds(master.pid()));
        let passed = now.0 - last.0;
        if passed < Duration::from_millis(500) {
            return None;
        }
        let quiet = now.1 - last.1 < passed.as_secs_f64() * little;
        last = now;
        quiet.then_some(now.1)
    };
    wait::some(look, Duration::from_secs(120), "the master is quiet")
}

/// The last of them has told something new: how long until all have it, and what that took.
fn show_news(operator: &mut Operator, master: &BenchMaster, count: usize, since: Instant) {
    wait::until(
        || operator.applied(GENERATION + 1) == count,
        Duration::from_secs(300),
        "all have the new cluster facts",
    );
    println!(
        "  new cluster facts: all have them {:.1} s after they began to attach, the master had {:.0} MiB at most",
        since.elapsed().as_secs_f64(),
        peak_kib(master.pid()) / 1024.0
    );
}

fn measure(count: usize) -> Figures {
    println!("--- {count} sessions");
    let mut bare = Bare::start(count);
    let bare_time = median(ROUNDS, || bare.round());
    let (pss, rss) = bare.session_kib();
    println!(
        "bare tonic and mTLS: {:.1} ms, {pss:.1} KiB a session (RSS {rss:.1})",
        bare_time * 1e3
    );

    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let cluster = write_state(&state, folder.path(), count);
    let master = BenchMaster::start(folder.path(), &state);
    let mut operator = Operator::connect(&master.socket);
    let started_cpu = when_quiet(&master, count);
    let empty = memory_kib(master.pid()); // not before: it still reads its records when its socket is there
    let mut agents = None;
    let since = Instant::now();
    let attaching = seconds(|| {
        agents = Some(Agents::start(
            folder.path(),
            &master.address,
            count,
            GENERATION,
        ));
    });
    let cpu = cpu_seconds(master.pid());
    let attach_cpu = when_quiet(&master, count) - started_cpu;
    println!(
        "all attached after {attaching:.2} s, of which the master computes {cpu:.2} s with its start; until it is quiet \
         {attach_cpu:.2} s without"
    );
    if std::env::var_os("AOT_BENCH_FACTS").is_some() {
        show_news(&mut operator, &master, count, since);
    }
    let first = operator.ping("*");
    // In turns: what else this machine does counts for both.
    let (mut bares, mut times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bares.push(bare.round());
        times.push(operator.ping("*"));
    }
    let (bare_time, time) = (quantile(&mut bares, 0.5), quantile(&mut times, 0.5));
    drop(bare);
    let whole = median(5, || seconds(|| master.command(&["exec", "*", "ping"])));
    println!(
        "a ping of all: {:.1} ms, the first {:.1} ms, the whole command {:.1} ms",
        time * 1e3,
        first * 1e3,
        whole * 1e3
    );
    at_most(
        "a ping of all, times bare tonic",
        time / bare_time,
        1.5,
        "x",
    );
    let full = memory_kib(master.pid());
    let each = |full: f64, empty: f64| (full - empty) / count as f64;
    at_most(
        "master's memory a session (PSS)",
        each(full.0, empty.0),
        64.0,
        "KiB",
    );
    println!(
        "  RSS {:.1} KiB a session; without sessions, with the records of {cluster}: {:.1} MiB",
        each(full.1, empty.1),
        empty.0 / 1024.0
    );
    let exec = exec_all(&mut operator, &master, 0);
    println!(
        "a command over all: {:.2} s, of which the master computes {:.2} s",
        exec.0, exec.1
    );
    let (paced, rolled) = at_a_pace(&mut operator, &master, &bundle(folder.path()));
    when_quiet(&master, count);
    let before = cpu_seconds(master.pid());
    let idle = 5.0;
    let until = Instant::now() + Duration::from_secs_f64(idle);
    wait::until(
        || Instant::now() >= until,
        Duration::from_secs(10),
        "five seconds pass",
    );
    let used = (cpu_seconds(master.pid()) - before) / idle * 100.0;
    println!("  idle, with heartbeats: {used:.1} % of a core");
    drop(operator);
    drop(agents);
    drop(master);
    Figures {
        count,
        attaching,
        attach_cpu,
        ping: time,
        bare: bare_time,
        exec,
        paced,
        rolled,
        idle: used,
        memory: each(full.0, empty.0),
    }
}

fn bundle(folder: &Path) -> PathBuf {
    folder.join("bundle")
}

/// Writes the master's state with this many instances that are ready, and their certificates; what they are, in words.
fn write_state(state: &Path, folder: &Path, count: usize) -> String {
    let shape = ClusterShape {
        name: "bench".to_owned(),
        provider: ProviderKind::Local,
        agents: 0..count,
        bundle: Some(bundle(folder)),
    };
    aot_tests::bundle::folder(&bundle(folder), "true\n");
    records::write(state, folder, &[shape]);
    format!("{count} instances")
}
