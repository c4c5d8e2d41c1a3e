//! A thousand sessions (`AOT_BENCH_SESSIONS`): simulated agents in one process, real TLS, the real protocol, against a
//! real `aot-master serve` over a state that this bench writes as a launch and enrolments would have left it. Prints a
//! ping of all beside a bare program of tonic and mTLS, what a command over all costs, and the master's memory a session.
//! With `AOT_BENCH_FACTS=1` one of them has new facts, so that all get new cluster facts.
//! With several counts (`AOT_BENCH_STEPS=1000,2000,5000`) it says at the end whether cost grows as the count does.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_daemon::enrol::ca::{self, Ca};
use aot_host::descriptors;
use aot_model::cluster::Cluster;
use aot_model::identity::Identity;
use aot_model::instance::{Instance, NodeFacts};
use aot_model::key::{ClusterUuid, InstanceKey};
use aot_model::machine::{Machine, MachineState};
use aot_model::phase::Phase;
use aot_model::spec::{MemberSpec, PoolSpec, ProviderKind};
use aot_model::world::Changes;
use aot_model::{facts, hash, samples};
use aot_proto::ids::SpiffeId;
use aot_proto::v1::{ExecRequest, Pace};
use aot_store::sqlite::Sqlite;
use aot_store::{Backend, OpenStore};
use aot_tests::bench::agents::{Agents, report};
use aot_tests::bench::bare::Bare;
use aot_tests::bench::figures::{
    at_most, cpu_seconds, median, memory_kib, number, peak_kib, quantile, seconds,
};
use aot_tests::bench::operator::Operator;
use aot_tests::bench::roles::played;
use aot_tests::bench::tls;
use aot_tests::rig::master_program;
use aot_tests::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Pings whose median is taken.
const ROUNDS: usize = 21;

/// Generation of the cluster facts that all have.
const GENERATION: u64 = 1;

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
    /// The same for a command over all at once, and 50 at a time: until it is over, and of the master's processor time.
    exec: (f64, f64),
    paced: (f64, f64),
    /// Share of a core while nothing but heartbeats comes.
    idle: f64,
    /// KiB a session (PSS).
    memory: f64,
}

/// Cost a session at each step, and how it has grown from the first step to the last.
fn compare(steps: &[Figures]) {
    println!("--- a session, by count of sessions");
    println!(
        "{:>8} {:>9} {:>10} {:>9} {:>8} {:>10} {:>10} {:>8} {:>8}",
        "sessions",
        "attached",
        "attach cpu",
        "ping all",
        "x bare",
        "exec cpu",
        "50 at once",
        "idle",
        "memory"
    );
    for step in steps {
        let each = |seconds: f64| seconds * 1e3 / step.count as f64;
        println!(
            "{:>8} {:>7.2} s {:>7.3} ms {:>6.0} ms {:>8.2} {:>7.3} ms {:>7.3} ms {:>6.1} % {:>4.1} KiB",
            step.count,
            step.attaching,
            each(step.attach_cpu),
            step.ping * 1e3,
            step.ping / step.bare,
            each(step.exec.1),
            each(step.paced.1),
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
    grown("memory", |step| step.memory * step.count as f64);
}

/// Runs a command over all, this many at a time (0 = all): seconds until it ends, and of the master's processor time.
fn exec_all(operator: &mut Operator, master: &Master, at_a_time: usize) -> (f64, f64) {
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
    let before = cpu_seconds(master.child.id());
    let time = seconds(|| {
        let summary = operator.exec(request, |_| {});
        assert_eq!(summary.exit_code, 0, "{summary:?}");
    });
    (time, cpu_seconds(master.child.id()) - before)
}

/// The master's processor time, once it uses little more than heartbeats of this many sessions do.
fn when_quiet(master: &Master, sessions: usize) -> f64 {
    let little = 0.1 + sessions as f64 * 5e-5;
    let mut last = (Instant::now(), cpu_seconds(master.child.id()));
    let look = || {
        let now = (Instant::now(), cpu_seconds(master.child.id()));
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
fn show_news(operator: &mut Operator, master: &Master, count: usize, since: Instant) {
    wait::until(
        || operator.applied(GENERATION + 1) == count,
        Duration::from_secs(300),
        "all have the new cluster facts",
    );
    println!(
        "  new cluster facts: all have them {:.1} s after they began to attach, the master had {:.0} MiB at most",
        since.elapsed().as_secs_f64(),
        peak_kib(master.child.id()) / 1024.0
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
    let mut master = Master::start(folder.path(), &state);
    let mut operator = Operator::connect(&master.socket);
    let started_cpu = when_quiet(&master, count);
    let empty = memory_kib(master.child.id()); // not before: it still reads its records when its socket is there
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
    let cpu = cpu_seconds(master.child.id());
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
    let full = memory_kib(master.child.id());
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
    let paced = exec_all(&mut operator, &master, 50);
    println!(
        "a command over all: {:.2} s, of which the master computes {:.2} s; 50 at a time: {:.2} s, {:.2} s",
        exec.0, exec.1, paced.0, paced.1
    );
    when_quiet(&master, count);
    let before = cpu_seconds(master.child.id());
    let idle = 5.0;
    let until = Instant::now() + Duration::from_secs_f64(idle);
    wait::until(
        || Instant::now() >= until,
        Duration::from_secs(10),
        "five seconds pass",
    );
    let used = (cpu_seconds(master.child.id()) - before) / idle * 100.0;
    println!("  idle, with heartbeats: {used:.1} % of a core");
    drop(operator);
    drop(agents);
    master.stop();
    Figures {
        count,
        attaching,
        attach_cpu,
        ping: time,
        bare: bare_time,
        exec,
        paced,
        idle: used,
        memory: each(full.0, empty.0),
    }
}

/// A master over a state folder, without a rig: its machines are not here.
struct Master {
    child: Child,
    state: PathBuf,
    socket: PathBuf,
    address: String,
}

impl Master {
    fn start(folder: &Path, state: &Path) -> Self {
        let socket = folder.join("master.sock");
        let child = Command::new(master_program())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("AOT_STATE_DIR", state)
            .env("AOT_SOCKET", &socket)
            .env("AOT_LOG", "warn")
            .env(
                "AOT_AGENT_DIR",
                master_program().parent().expect("a folder"),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let port = wait::some(
            || {
                let up = std::os::unix::net::UnixStream::connect(&socket).is_ok();
                up.then(|| std::fs::read_to_string(state.join("port")).ok())?
            },
            Duration::from_secs(60),
            "the master serves",
        );
        Self {
            child,
            state: state.to_owned(),
            socket,
            address: format!("127.0.0.1:{}", port.trim()),
        }
    }

    fn command(&self, args: &[&str]) {
        let status = Command::new(master_program())
            .args(args)
            .env("AOT_STATE_DIR", &self.state)
            .env("AOT_SOCKET", &self.socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("it starts");
        assert!(status.success(), "{args:?}: {status}");
    }

    fn stop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it runs");
        self.child.wait().expect("it ends");
    }
}

/// Writes the master's state with this many instances that are ready, and their certificates; the cluster's name.
fn write_state(state: &Path, folder: &Path, count: usize) -> String {
    aot_host::files::private_dir(state).expect("a folder");
    let ca = Ca::open(state).expect("an authority");
    std::fs::write(folder.join("ca.pem"), ca.pem()).expect("a file");
    let members: Vec<MemberSpec> = (0..count).map(member).collect();
    let mut cluster = cluster(members.clone());
    let name = cluster.spec.name.clone();
    for (number, member) in members.iter().enumerate() {
        let machine = format!("local-{number:017x}").parse().expect("an id");
        let id = SpiffeId {
            master: ca.id().to_owned(),
            cluster: name.clone(),
            instance: member.name.clone(),
            machine,
        };
        let identity = issue(&ca, &id, folder, number);
        let instance = instance(&cluster, member, id, identity, number);
        cluster.instances.insert(member.name.clone(), instance);
    }
    cluster.facts_sha256 = facts::digest(&cluster);
    let key = |instance: &Instance| InstanceKey {
        cluster: name.clone(),
        instance: instance.name.clone(),
    };
    let all = cluster.instances.values();
    let changes = Changes {
        instances: all.clone().map(|i| (key(i), i.clone())).collect(),
        facts: all
            .filter_map(|i| Some((key(i), i.facts.clone()?)))
            .collect(),
        clusters: vec![cluster.clone()],
        ..Changes::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let OpenStore { store, hold, .. } = Sqlite.open(state).await.expect("a store");
        let written = store.commit(&hold, changes, Vec::new()).await;
        written.expect("it is written");
        store.close(&hold).await;
    });
    format!("{count} instances")
}

fn member(number: usize) -> MemberSpec {
    let name = format!("n{}", number + 1);
    MemberSpec {
        hostname: name.clone(),
        name: name.parse().expect("a name"),
    }
}

fn cluster(members: Vec<MemberSpec>) -> Cluster {
    let pool = PoolSpec {
        members,
        ..samples::pool("n", 0)
    };
    let mut spec = samples::file("bench", ProviderKind::Local, vec![pool]);
    spec.launch.timeout = Duration::from_secs(600);
    Cluster {
        uuid: ClusterUuid::new("bench"),
        generation: GENERATION,
        ..samples::empty_cluster(spec)
    }
}

fn issue(ca: &Ca, id: &SpiffeId, folder: &Path, number: usize) -> Identity {
    let key = rcgen::KeyPair::generate().expect("a key");
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .expect("a request");
    let request = ca::read_request(csr.der()).expect("it is signed");
    let issued = ca.issue(&request, id).expect("it signs");
    tls::write_member(
        folder,
        &number.to_string(),
        &issued.pem,
        &key.serialize_pem(),
    );
    Identity {
        key_sha256: request.key_sha256.clone(),
        previous_serial: String::new(),
        issued_ms: 0,
        used_twice: None,
        previous_key_sha256: String::new(),
        enrolled_ms: 1,
        serial: issued.serial,
        expires_unix: issued.expires_unix,
        proof: Default::default(),
    }
}

fn instance(
    cluster: &Cluster,
    member: &MemberSpec,
    id: SpiffeId,
    identity: Identity,
    number: usize,
) -> Instance {
    let report = report(number);
    let facts = NodeFacts {
        node: serde_json::from_str(&report.node_json).expect("JSON"),
        ssh_host_keys: report.ssh_host_keys,
        root_public_key: report.root_public_key,
        user_public_key: report.user_public_key,
        main_user: report.main_user,
    };
    let mut instance = Instance::planned(&cluster.spec.pools[0], member);
    instance.set_machine(machine(id, number));
    instance.phase = Phase::Ready;
    instance.attempt = 1;
    instance.identity = Some(identity);
    instance.boot_id = "b".to_owned();
    instance.applied_generation = GENERATION;
    instance.facts = Some(Arc::new(facts));
    instance
}

fn machine(id: SpiffeId, number: usize) -> Machine {
    Machine {
        launch_index: u32::try_from(number).expect("a small number"),
        name: Some(id.instance),
        private_ip: Some(format!("10.0.{}.{}", number / 250, number % 250 + 1)),
        image: Some(hash::sha256_hex(b"image")),
        ..samples::bare_machine(id.machine.as_str(), MachineState::Running)
    }
}
