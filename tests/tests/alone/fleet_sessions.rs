//! Three masters on one database, and thousands of simulated agents: all of them find their clusters' masters by one address,
//! and others when that master dies; commands that run when their master dies end once, with all of their output.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use aot_host::descriptors;
use aot_tests::bench::figures::memory_kib;
use aot_tests::fleet::Fleet;
use aot_tests::fleet::agents::{AgentsState, PRINT, SimulatedAgents, printed};
use aot_tests::process::{Output, Running};
use aot_tests::wait;
use serde_json::Value;

/// For thousands of handshakes on a slow machine.
const ATTACHED: Duration = Duration::from_secs(180);

/// Agents of each cluster where there are descriptors for that many: a master passes on an eighth of what it may have open.
const EACH: usize = 1_000;

/// Until nearly all agents of a killed master have another, on a machine that does nothing else. It is replaced after 4 s; were that
/// not noticed by its port, it would be after 15 s, and agents would wait for their silence of 20 s where their connections were not
/// reset.
const BACK: Duration = Duration::from_secs(10);

/// Of that, what takes as long on a machine that is busy: others notice, and read the records.
const NOTICED: Duration = Duration::from_secs(5);

/// Until nearly all are back, whatever else the machine does.
const BACK_AT_LAST: Duration = Duration::from_secs(30);

/// How long the same agents took to come at first says how fast this machine is now: they begin the same sessions, and some of
/// them by a first try at a master that does not have their cluster yet.
fn back_within(came: Duration) -> Duration {
    (NOTICED + came * 3 / 2).clamp(BACK, BACK_AT_LAST)
}

/// Until commands for a cluster are served again: less than a master that is only silent is waited for.
const SERVED: Duration = Duration::from_secs(15);

/// Most of a door's memory for a connection that it passes on, in KiB: 4 by design, and what its allocator keeps of the rush.
const COPY_KIB: f64 = 8.0;

const EXECS: usize = 10;
const TARGETS: usize = 100;
const LINES: usize = 40;

/// A TLS record that says it is long, and a handshake of which nothing follows.
const SLOW_HELLO: [u8; 6] = [22, 3, 1, 0x40, 0, 1];

fn each() -> usize {
    let limit = descriptors::raise().expect("up to the hard limit");
    EACH.min(usize::try_from(limit).unwrap_or(usize::MAX) / 16)
}

/// A client that has begun a hello.
fn slow_client(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the door listens");
    stream.write_all(&SLOW_HELLO).expect("it is open");
    stream
}

#[track_caller]
fn is_hung_up_on(mut stream: TcpStream) {
    stream
        .set_read_timeout(Some(wait::LIMIT))
        .expect("a socket");
    let read = stream.read(&mut [0; 16]);
    let is_gone = match &read {
        Ok(count) => *count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(is_gone, "{read:?}");
}

fn seconds(ms: Option<u64>) -> String {
    ms.map_or_else(
        || "never".to_owned(),
        |ms| format!("{:.1} s", ms as f64 / 1e3),
    )
}

fn report(what: &str, state: &AgentsState) {
    let since = &state.since_mark;
    println!(
        "{what}: {} lost their session; back were half after {}, 99 % after {}, all after {}",
        since.lost,
        seconds(since.half_ms),
        seconds(since.most_ms),
        seconds(since.all_ms)
    );
}

fn is_clean(state: &AgentsState) {
    let wrong = (
        state.refused,
        state.repeated_starts,
        state.double_starts,
        state.epochs.values().any(|epochs| epochs.len() > 1),
    );
    assert_eq!(wrong, (0, 0, 0, false), "{state:#?}");
}

#[test]
fn agents_find_their_masters_by_one_address_and_by_others_when_that_one_dies() {
    let _turn = crate::turn();
    let each = each();
    let mut fleet = match Fleet::start(3, &[each; 3]) {
        Ok(fleet) => fleet,
        Err(why) => return why.skip("agents of a fleet"),
    };
    let door = vec![fleet.masters[0].address()];
    assert_eq!(fleet.owner(0, "c1"), Some(0), "the door's own cluster");

    // Those who say no hello, or never end it, take nobody's place.
    let slow: Vec<TcpStream> = (0..200).map(|_| slow_client(&door[0])).collect();
    let before = memory_kib(fleet.masters[0].pid());
    let began = Instant::now();
    let mut passed = fleet.agents(&["c2", "c3"], &door);
    passed.until_attached(ATTACHED);
    let took = began.elapsed();
    slow.into_iter().for_each(is_hung_up_on);
    let after = memory_kib(fleet.masters[0].pid());
    let per_copy = (after.0 - before.0) / passed.count() as f64;
    println!(
        "{} agents were passed on within {took:.1?}; a connection that is passed on: {per_copy:.1} KiB of its door (RSS {:.1})",
        passed.count(),
        (after.1 - before.1) / passed.count() as f64
    );
    let began = Instant::now();
    let mut own = fleet.agents(&["c1"], &door);
    own.until_attached(ATTACHED);
    let came = took + began.elapsed();
    let wanted = vec![each as u64; 3];
    wait::until(
        || fleet.sessions() == wanted,
        ATTACHED,
        "each master has the sessions of its cluster",
    );
    let doors = |agents: &mut SimulatedAgents| agents.state().doors;
    assert_eq!(
        doors(&mut passed),
        BTreeMap::from([(door[0].clone(), 2 * each)])
    );
    assert!(per_copy < COPY_KIB, "{per_copy:.1} KiB");

    // They know the other addresses by their welcomes.
    for agents in [&mut passed, &mut own] {
        agents.mark();
    }
    fleet.masters[0].kill();
    for (what, agents) in [("passed on", &mut passed), ("the door's own", &mut own)] {
        let state = agents.until_back(agents.count(), ATTACHED);
        report(what, &state);
        assert!(!state.doors.contains_key(&door[0]), "{:?}", state.doors);
        let most = Duration::from_millis(state.since_mark.most_ms.expect("all are back"));
        let limit = back_within(came);
        println!("{what}: 99 % are back after {most:.1?}, wanted within {limit:.1?}");
        assert!(most < limit, "{what}: {most:?}, wanted within {limit:?}");
        is_clean(&state);
    }
    let held = fleet.sessions();
    assert_eq!(held.iter().sum::<u64>(), 3 * each as u64, "{held:?}");
}

/// As many commands at once, at this master, on all of the cluster: what is asked of the masters is one line each.
fn execs(fleet: &Fleet, door: usize) -> Vec<Running> {
    let (lines, ms) = (LINES.to_string(), "6000");
    let words = [
        "--cluster",
        "c1",
        "exec",
        "--json",
        "*",
        "--",
        PRINT,
        &lines,
        ms,
    ];
    (0..EXECS)
        .map(|_| fleet.masters[door].spawn(&words))
        .collect()
}

/// All targets of a command have succeeded, once each, with the output that is known beforehand.
#[track_caller]
fn has_all(output: &Output) {
    output.expect(0);
    let lines = output.json();
    let ends: Vec<&Value> = lines
        .iter()
        .filter(|it| it["instance"].is_string())
        .collect();
    let mut by_name = BTreeMap::new();
    for end in &ends {
        let name = end["instance"].as_str().expect("a name");
        assert_eq!(end["outcome"], "succeeded", "{end}");
        assert_eq!(end["exit_code"], 0, "{end}");
        assert_eq!(
            end["stdout"].as_str(),
            Some(&*printed(name, LINES)),
            "{name}"
        );
        by_name.insert(name.to_owned(), ());
    }
    assert_eq!((ends.len(), by_name.len()), (TARGETS, TARGETS));
}

/// Kills the owner of `c1` amid commands of another master's operators, and starts it again at once or not at all; how long
/// until a command for the cluster was served.
fn owner_dies(
    fleet: &mut Fleet,
    agents: &mut SimulatedAgents,
    door: usize,
    comes_back: bool,
) -> Duration {
    let started = agents.state().starts;
    let runs = execs(fleet, door);
    let all = started + (EXECS * TARGETS) as u64;
    agents.until(|it| it.starts == all, ATTACHED, "all commands run");
    let owner = fleet.owner(door, "c1").expect("somebody has it");
    assert_ne!(owner, door);
    agents.mark();
    let died = Instant::now();
    fleet.masters[owner].kill();
    if comes_back {
        fleet.masters[owner].begin();
    }
    let serves = || {
        let words = ["--cluster", "c1", "exec", "n1", "--", "true"];
        fleet.masters[door].run(&words).code == Some(0)
    };
    wait::until(serves, ATTACHED, "commands for the cluster are served");
    let served = died.elapsed();
    let state = agents.until_back(TARGETS, ATTACHED);
    let what = match comes_back {
        true => "started again at once",
        false => "gone for good",
    };
    report(what, &state);
    println!(
        "{what}: a command was served after {:.1} s",
        served.as_secs_f64()
    );
    for run in runs {
        has_all(&run.finish(ATTACHED));
    }
    is_clean(&agents.state());
    served
}

#[test]
fn commands_that_run_when_their_master_dies_end_once_and_whole() {
    let _turn = crate::turn();
    let mut fleet = match Fleet::start(3, &[TARGETS, 20, 20]) {
        Ok(fleet) => fleet,
        Err(why) => return why.skip("commands of a fleet"),
    };
    let mut agents = fleet.agents(&fleet.clusters(), &fleet.addresses());
    agents.until_attached(ATTACHED);
    assert_eq!(fleet.owner(1, "c1"), Some(0));
    let served = owner_dies(&mut fleet, &mut agents, 1, false);
    assert!(served < SERVED, "{served:?}");

    // Given at a master that does not have it now.
    let owner = fleet.owner(1, "c1").expect("somebody has it");
    let door = if owner == 1 { 2 } else { 1 };
    let served = owner_dies(&mut fleet, &mut agents, door, true);
    assert!(served < SERVED, "{served:?}");
    let taken = fleet.owner(door, "c1");
    assert_eq!(taken, Some(owner), "it took its own back");
}

/// Masters of the largest fleet that the documents name, and how many of them die at once.
const SEVEN: usize = 7;
const DYING: usize = 5;

#[test]
fn seven_masters_serve_each_others_clusters_and_two_are_enough_for_all() {
    let _turn = crate::turn();
    let mut fleet = match Fleet::start(SEVEN, &[20; SEVEN]) {
        Ok(fleet) => fleet,
        Err(why) => return why.skip("a fleet of seven"),
    };
    let clusters: Vec<String> = fleet.clusters().into_iter().map(str::to_owned).collect();
    let mut agents = fleet.agents(&fleet.clusters(), &fleet.addresses());
    agents.until_attached(ATTACHED);
    let serves = |fleet: &Fleet, door: usize, cluster: &str| {
        let words = ["--cluster", cluster, "exec", "*", "ping"];
        fleet.masters[door].run(&words).code == Some(0)
    };
    for (at, cluster) in clusters.iter().enumerate() {
        assert_eq!(fleet.owner(0, cluster), Some(at), "each has one");
        let door = (at + SEVEN / 2) % SEVEN;
        assert!(serves(&fleet, door, cluster), "{cluster} at door {door}");
    }
    agents.mark();
    for master in &mut fleet.masters[..DYING] {
        master.kill();
    }
    for (at, cluster) in clusters.iter().enumerate() {
        let door = DYING + at % (SEVEN - DYING);
        let what = format!("{cluster} is served at door {door}");
        wait::until(|| serves(&fleet, door, cluster), ATTACHED, &what);
        let owner = fleet.owner(door, cluster).expect("somebody has it");
        assert!(owner >= DYING, "{cluster} is with {owner}");
    }
    let state = agents.until_back(DYING * 20, ATTACHED);
    report("five of seven masters died", &state);
    is_clean(&state);
}
