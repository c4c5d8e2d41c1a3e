//! Three masters on one PostgreSQL, nine clusters, and as many sessions as `AOT_BENCH_SESSIONS` says (3,000), of simulated
//! agents that decide as real ones do. Prints a ping of all at one door, all clusters at once and cluster by cluster, beside a bare
//! program of tonic and mTLS; what commands, sessions, connections that are passed on and an hour of rest cost; how long agents are away when a
//! master dies or gives a cluster away; and what the database writes for all that.
//!
//! How many sessions there can be is a matter of the files that a process may have open, see [`most_sessions`].

use std::time::{Duration, Instant};

use aot_host::descriptors;
use aot_proto::v1::ExecRequest;
use aot_tests::bench::bare::Bare;
use aot_tests::bench::figures::{at_most, cpu_seconds, median, memory_kib, number, quantile};
use aot_tests::bench::operator::Operator;
use aot_tests::bench::roles::played;
use aot_tests::fleet::Fleet;
use aot_tests::fleet::agents::{AgentsState, SimulatedAgents};
use aot_tests::process;
use aot_tests::wait;

/// Pings whose median is taken.
const ROUNDS: usize = 11;

const MASTERS: usize = 3;
const CLUSTERS: usize = 9;

/// The one that all commands are given to, and that passes connections on first.
const DOOR: usize = 0;

/// Most that are passed on in the first step.
const PASSED_ON: usize = 2_000;

/// How long nothing but heartbeats is measured.
const REST: Duration = Duration::from_secs(10);

/// For all of them to come, or to come back.
const LONG: Duration = Duration::from_secs(600);

fn main() {
    if played() {
        return;
    }
    let files = descriptors::raise().expect("up to the hard limit");
    let most = most_sessions(usize::try_from(files).unwrap_or(usize::MAX));
    let wanted = number("AOT_BENCH_SESSIONS", 3_000);
    let count = wanted.min(most) / CLUSTERS * CLUSTERS;
    println!("--- {MASTERS} masters, {CLUSTERS} clusters, {count} sessions");
    println!(
        "a process may have {files} files open here, which is enough for {most} sessions; {wanted} were asked for"
    );
    let fleet = match Fleet::start(MASTERS, &[count / CLUSTERS; CLUSTERS]) {
        Ok(fleet) => fleet,
        Err(why) => return println!("SKIPPED: {}", why.0),
    };
    Measured { fleet, count }.all();
}

/// How many sessions this many files are enough for. When a master has died, machines dial the two others alike, and each passes
/// half of those that dial it on to the other one: a quarter of all. It passes on an eighth of the files that it may have open.
/// As it serves a half, it has as many files open as there are sessions, of which it may use seven eighths; and the process of
/// the agents has one for each.
fn most_sessions(files: usize) -> usize {
    let (passed_on, served) = (files / 8 * 4, files - files / 8);
    passed_on.min(served)
}

struct Measured {
    fleet: Fleet,
    count: usize,
}

/// Processor time and written log from one moment on.
struct Cost {
    masters: Vec<f64>,
    engine: f64,
    wal: f64,
}

impl Measured {
    fn all(&mut self) {
        self.quiet();
        let empty = self.memory();
        println!(
            "memory of a master with the records of a third of them, without sessions: {:.1} MiB",
            empty.iter().sum::<f64>() / 1024.0 / MASTERS as f64
        );
        self.pass_on(&empty);
        let mut agents = self.attach();
        self.quiet();
        let full = self.memory();
        let each = |full: f64, empty: f64| (full - empty) / self.count as f64;
        at_most(
            "masters' memory a session (PSS), with what is passed on",
            each(full.iter().sum(), empty.iter().sum()),
            64.0,
            "KiB",
        );
        self.ping();
        self.exec();
        self.rest();
        self.moved(&mut agents);
        self.storm(&mut agents);
    }

    /// The agents of some clusters of another master come by one door, and leave again.
    fn pass_on(&self, empty: &[f64]) {
        let owner = 1;
        let clusters = self.fleet.clusters_of(DOOR, owner);
        let each = self.count / CLUSTERS;
        let some = (PASSED_ON / each).clamp(1, clusters.len());
        let clusters = clusters[..some].to_vec();
        let names: Vec<&str> = clusters.iter().map(String::as_str).collect();
        let door = [self.fleet.masters[DOOR].address()];
        let cost = self.cost();
        let mut agents = self.fleet.agents(&names, &door);
        let count = agents.count() as f64;
        agents.until_attached(LONG);
        self.quiet();
        let cost = self.since(&cost);
        let now = self.memory();
        at_most(
            "a connection that is passed on, memory of its door (PSS)",
            (now[DOOR] - empty[DOOR]) / count,
            4.0,
            "KiB",
        );
        println!(
            "  {count} of them: its master has {:.1} KiB a session; to attach, processor time of the door {:.3} ms, of the master {:.3} ms, of the database {:.3} ms, and {:.0} B of its log",
            (now[owner] - empty[owner]) / count,
            cost.masters[DOOR] * 1e3 / count,
            cost.masters[owner] * 1e3 / count,
            cost.engine * 1e3 / count,
            cost.wal / count
        );
        drop(agents);
        let has_none = || self.fleet.sessions().iter().all(|count| *count == 0);
        wait::until(has_none, LONG, "their sessions are over");
    }

    /// All agents, which know all masters.
    fn attach(&self) -> SimulatedAgents {
        let began = Instant::now();
        let (all, masters) = (self.fleet.clusters(), self.fleet.addresses());
        let mut agents = self.fleet.agents(&all, &masters);
        agents.until_attached(LONG);
        println!(
            "{} by any master: attached after {:.2} s",
            agents.count(),
            began.elapsed().as_secs_f64()
        );
        println!("  sessions of each master: {:?}", self.fleet.sessions());
        agents
    }

    fn ping(&self) {
        let mut operator = Operator::connect(&self.fleet.masters[DOOR].socket());
        let clusters = self.fleet.clusters();
        let mut bare = Bare::start(self.count);
        let (mut bares, mut at_once, mut in_turn) = (Vec::new(), Vec::new(), Vec::new());
        let first = operator.ping_all(&clusters);
        bare.round();
        // In turns: what else this machine does counts for all.
        for _ in 0..ROUNDS {
            bares.push(bare.round());
            at_once.push(operator.ping_all(&clusters));
            in_turn.push(ping_in_turn(&mut operator, &clusters));
        }
        let [bare, at_once, in_turn] =
            [bares, at_once, in_turn].map(|mut times| quantile(&mut times, 0.5));
        println!(
            "a ping of all at one door, all clusters at once: {:.1} ms, the first {:.1} ms; cluster by cluster {:.1} ms ({:.2} x); bare tonic and mTLS {:.1} ms",
            at_once * 1e3,
            first * 1e3,
            in_turn * 1e3,
            in_turn / bare,
            bare * 1e3
        );
        at_most(
            "a ping of all, all clusters at once, times bare tonic",
            at_once / bare,
            1.5,
            "x",
        );
    }

    fn exec(&self) {
        let mut operator = Operator::connect(&self.fleet.masters[DOOR].socket());
        let cost = self.cost();
        let mut run = || {
            let began = Instant::now();
            for cluster in self.fleet.clusters() {
                operator.turn_to(cluster);
                let request = ExecRequest {
                    target: "*".to_owned(),
                    argv: vec!["true".to_owned()],
                    ..ExecRequest::default()
                };
                let summary = operator.exec(request, |_| {});
                assert_eq!(summary.exit_code, 0, "{summary:?}");
            }
            began.elapsed().as_secs_f64()
        };
        let rounds = 3;
        let time = median(rounds, &mut run);
        let cost = self.since(&cost);
        let each = (self.count * rounds) as f64;
        println!(
            "a command over all at one door, cluster by cluster: {time:.2} s; a target, processor time of the masters {:.3} ms, of the database {:.3} ms, and {:.0} B of its log",
            cost.masters.iter().sum::<f64>() * 1e3 / each,
            cost.engine * 1e3 / each,
            cost.wal / each
        );
    }

    fn rest(&self) {
        self.quiet();
        let cost = self.cost();
        pass(REST);
        let cost = self.since(&cost);
        let share = |seconds: f64| seconds / REST.as_secs_f64() * 100.0;
        let masters: f64 = cost.masters.iter().sum();
        println!(
            "at rest, with heartbeats: masters {:.1} % of a core in all ({:.4} % a session), database {:.1} %, {:.0} B/s of its log",
            share(masters),
            share(masters) / self.count as f64,
            share(cost.engine),
            cost.wal / REST.as_secs_f64()
        );
    }

    /// A cluster is given to another master in order.
    fn moved(&self, agents: &mut SimulatedAgents) {
        let cluster = self.fleet.clusters_of(DOOR, 2)[0].clone();
        let size = self.fleet.size(&cluster);
        agents.mark();
        let began = Instant::now();
        self.fleet.give(&cluster, 1);
        println!(
            "a cluster of {size} is moved in {:.2} s",
            began.elapsed().as_secs_f64()
        );
        show(&agents.until_back(size, LONG));
    }

    /// The door is killed: its clusters lose their master, and others the way to theirs.
    fn storm(&mut self, agents: &mut SimulatedAgents) {
        self.quiet();
        let before = agents.state();
        agents.mark();
        self.fleet.masters[DOOR].kill();
        let cost = self.cost();
        let state = agents.until_back(1, LONG);
        let took = self.quiet();
        let cost = self.since(&cost);
        let came = (state.attaches - before.attaches) as f64;
        println!(
            "a master is killed: {came} sessions begin anew; a session, processor time of the masters {:.3} ms, of the database {:.3} ms, and {:.0} B of its log; quiet after {took:.1} s more",
            cost.masters.iter().sum::<f64>() * 1e3 / came,
            cost.engine * 1e3 / came,
            cost.wal / came
        );
        show(&state);
        let most = state.since_mark.most_ms.unwrap_or(u64::MAX) as f64 / 1e3;
        at_most("99 % are back after", most, 15.0, "s");
        let memory: Vec<f64> = self.memory().iter().map(|kib| kib / 1024.0).collect();
        println!(
            "  sessions of each master: {:?}, memory {memory:.0?} MiB",
            self.fleet.sessions()
        );
    }

    /// PSS of each master in KiB; 0 of those that are gone.
    fn memory(&self) -> Vec<f64> {
        let of = |pid: u32| memory_kib(pid).0;
        self.pids()
            .into_iter()
            .map(|pid| pid.map_or(0.0, of))
            .collect()
    }

    fn pids(&self) -> Vec<Option<u32>> {
        let masters = self.fleet.masters.iter();
        masters.map(|it| it.runs().then(|| it.pid())).collect()
    }

    fn cost(&self) -> Cost {
        let of = |pid: Option<u32>| pid.map_or(0.0, cpu_seconds);
        let server = self.fleet.server();
        let sql = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn";
        let wal = server.ask(self.fleet.database(), sql);
        Cost {
            masters: self.pids().into_iter().map(of).collect(),
            engine: engine_seconds(server.pid()),
            wal: wal.parse().expect("a number"),
        }
    }

    fn since(&self, before: &Cost) -> Cost {
        let now = self.cost();
        let masters = now.masters.iter().zip(&before.masters);
        Cost {
            masters: masters
                .map(|(now, before)| (now - before).max(0.0))
                .collect(),
            engine: now.engine - before.engine,
            wal: now.wal - before.wal,
        }
    }

    /// Waits until all masters use little more than heartbeats do; seconds.
    fn quiet(&self) -> f64 {
        let began = Instant::now();
        let used = || -> f64 { self.pids().into_iter().flatten().map(cpu_seconds).sum() };
        let little = 0.15 + self.count as f64 * 1e-4;
        let mut last = (Instant::now(), used());
        let look = || {
            let now = (Instant::now(), used());
            let passed = now.0 - last.0;
            if passed < Duration::from_millis(500) {
                return None;
            }
            let is_quiet = now.1 - last.1 < passed.as_secs_f64() * little;
            last = now;
            is_quiet.then_some(())
        };
        wait::some(look, LONG, "the masters are quiet");
        began.elapsed().as_secs_f64()
    }
}

/// Seconds of a ping of every cluster, one after the other.
fn ping_in_turn(operator: &mut Operator, clusters: &[&str]) -> f64 {
    let ping = |cluster: &&str| {
        operator.turn_to(cluster);
        operator.ping("*")
    };
    clusters.iter().map(ping).sum()
}

fn show(state: &AgentsState) {
    let since = &state.since_mark;
    if since.lost == 0 {
        return;
    }
    let seconds = |ms: Option<u64>| ms.map_or(f64::NAN, |ms| ms as f64 / 1e3);
    println!(
        "  {} of {} agents lost their session: half are back after {:.2} s, 99 % after {:.2} s, all after {:.2} s",
        since.lost,
        state.attached,
        seconds(since.half_ms),
        seconds(since.most_ms),
        seconds(since.all_ms)
    );
    let odd = (state.refused, state.lower_epochs, state.double_starts);
    assert_eq!(odd, (0, 0, 0), "{state:#?}");
}

/// Seconds of processor time of the database's processes that live; those that ended are counted by the first one.
fn engine_seconds(pid: u32) -> f64 {
    let all = process::tree(pid).into_iter().map(cpu_seconds);
    all.sum::<f64>()
}

fn pass(time: Duration) {
    let until = Instant::now() + time;
    wait::until(|| Instant::now() >= until, LONG, "time passes");
}
