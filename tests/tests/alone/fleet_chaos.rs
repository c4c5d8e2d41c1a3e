//! Three masters, nine clusters, simulated agents of all of them, and operators at every door, while masters are killed, paused,
//! cut off from their database and from each other, that database is killed or fails over, and the bucket is away: every target of
//! every command that was begun ends once, with its whole output; no run is started twice; each epoch of a cluster has one owner;
//! agents are back soon. `AOT_TEST_SEED` plays a case again (what is asked and what is broken; how they meet is the scheduler's).
//! `AOT_TEST_AGENTS` and `AOT_TEST_ROUNDS` make it larger.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aot_host::descriptors;
use aot_proto::frame;
use aot_proto::v1::frame::Body as Said;
use aot_tests::bench::figures::number;
use aot_tests::fleet::agents::{AgentsState, PRINT, printed};
use aot_tests::fleet::master::Door;
use aot_tests::fleet::{Fleet, FleetExtras, MASTERS};
use aot_tests::lab::dice::Dice;
use aot_tests::process::{Output, Running};
use aot_tests::wait;
use faults::{KINDS, faults, round};
use serde_json::Value;

const CLUSTERS: usize = 9;

/// Operators at work at the same time.
const OPERATORS: usize = 3;

/// Longest time for one thing on a slow machine.
const LIMIT: Duration = Duration::from_secs(240);

/// What a command prints at most, but for some: theirs is too long for the records, and so goes into the bucket.
const LINES: u64 = 30;
const LONG_LINES: u64 = 3_000;

/// As many jobs of a cluster as there may be; `jobs` lists the newest alone unless it is asked for more.
const ALL: &str = "100000";

/// Bytes of an output that the records take.
const SHORT_BYTES: usize = 64 << 10;

/// What was begun, as operators were told.
#[derive(Default)]
struct Told {
    /// Jobs by id, with their clusters.
    jobs: Mutex<BTreeMap<String, String>>,
    /// Commands that ended as they should, and those that did not learn what became of what they asked for.
    whole: AtomicUsize,
    unsure: AtomicUsize,
}

/// A command as one operator gives it.
struct Asked {
    cluster: String,
    target: String,
    lines: u64,
    detached: bool,
    ms: u64,
}

impl Asked {
    fn roll(dice: &mut Dice, clusters: &[String], each: usize) -> Self {
        let names = || (1..=each).map(|n| format!("n{n}"));
        let few: Vec<String> = names().take(12).collect();
        let is_long = dice.percent(15);
        Self {
            cluster: dice.one(clusters).clone(),
            target: match !is_long && dice.percent(20) {
                true => "*".to_owned(),
                false => dice.some(&few).join(","),
            },
            lines: dice.below(LINES) + if is_long { LONG_LINES } else { 0 },
            detached: dice.percent(40),
            ms: dice.below(3_000),
        }
    }

    fn give(&self, door: &Door) -> Running {
        let (lines, ms) = (self.lines.to_string(), self.ms.to_string());
        // Kept for those that have no session at the moment, so that each target has to run it.
        let mut words = vec![
            "--cluster",
            &self.cluster,
            "exec",
            "--json",
            "--queue",
            "5m",
        ];
        if self.detached {
            words.push("--detach");
        }
        words.extend([self.target.as_str(), "--", PRINT, &lines, &ms]);
        door.spawn(&words)
    }
}

/// Notes what a command said; it may be cut off in the middle of all but a line.
fn note(told: &Told, asked: &Asked, said: &Output) {
    let ids: BTreeSet<String> = said
        .json()
        .iter()
        .filter_map(|line| line["job"].as_str().map(str::to_owned))
        .collect();
    assert!(ids.len() <= 1, "one command, one job: {}", said.shown());
    let mut jobs = told.jobs.lock().expect("nobody panics with it");
    jobs.extend(ids.into_iter().map(|id| (id, asked.cluster.clone())));
    let count = match said.code {
        Some(0) => &told.whole,
        Some(4) => &told.unsure,
        _ => panic!("neither done nor unsure: {}", said.shown()),
    };
    count.fetch_add(1, Ordering::SeqCst);
}

/// Asks for one thing after the other until it is told to end.
fn operate(
    mut dice: Dice,
    doors: &[Door],
    clusters: &[String],
    each: usize,
    told: &Told,
    over: &AtomicBool,
) {
    while !over.load(Ordering::SeqCst) {
        let asked = Asked::roll(&mut dice, clusters, each);
        let said = asked.give(dice.one(doors)).finish(LIMIT);
        note(told, &asked, &said);
    }
}

/// Everything that was begun has ended, once, with what it printed.
fn is_whole(fleet: &Fleet, told: &Told) {
    let mut jobs = told.jobs.lock().expect("nobody panics with it").clone();
    let acknowledged = jobs.len();
    let mut printed = Vec::new();
    for cluster in fleet.clusters() {
        let list = || fleet.masters[0].json(&["--cluster", cluster, "jobs", "--limit", ALL]);
        let ended = || list().iter().all(|job| job["ended"].is_string());
        wait::until(ended, LIMIT, &format!("all jobs of {cluster} have ended"));
        for job in list() {
            let id = job["job"].as_str().expect("an id");
            jobs.remove(id);
            let texts = job_is_whole(fleet, id, &job);
            printed.extend(texts.iter().map(|text| PrintedText::of(cluster, text)));
        }
    }
    assert!(jobs.is_empty(), "acknowledged, and not on record: {jobs:?}");
    println!(
        "{acknowledged} jobs were acknowledged, {} targets ended, {} of them by way of the bucket; commands: {} whole, {} unsure",
        printed.len(),
        bucket_is_whole(fleet, printed.clone()),
        told.whole.load(Ordering::SeqCst),
        told.unsure.load(Ordering::SeqCst)
    );
}

/// The bucket has each output that is too long for the records, whole, and nothing else that is as long. How many these are. A
/// master that starts also puts what is short, where it finds it as a file and not on record yet; the records have that later.
fn bucket_is_whole(fleet: &Fleet, mut printed: Vec<PrintedText>) -> usize {
    let mut put = put_outputs(fleet);
    put.retain(|text| text.bytes > SHORT_BYTES);
    let count = put.len();
    for text in put {
        let found = printed.iter().position(|it| *it == text);
        printed.swap_remove(found.unwrap_or_else(|| panic!("nobody's: {text:?}")));
    }
    printed.retain(|text| text.bytes > SHORT_BYTES);
    assert!(printed.is_empty(), "not in the bucket: {printed:?}");
    count
}

/// What a target has printed: enough of it to tell it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PrintedText {
    cluster: String,
    first_line: String,
    bytes: usize,
}

impl PrintedText {
    fn of(cluster: &str, text: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            first_line: text.lines().next().unwrap_or_default().to_owned(),
            bytes: text.len(),
        }
    }
}

/// The outputs that lie in the bucket.
fn put_outputs(fleet: &Fleet) -> Vec<PrintedText> {
    let objects = fleet.bucket().objects();
    let of = |(name, bytes): (&String, &Vec<u8>)| {
        let (_, rest) = name.split_once("/outputs/")?;
        let (cluster, _) = rest.split_once('/')?;
        let (frames, _) = frame::decode_all(bytes).expect("frames");
        let mut text = Vec::new();
        for frame in frames {
            if let Some(Said::Stdout(piece)) = frame.body {
                text.extend_from_slice(&piece);
            }
        }
        Some(PrintedText::of(cluster, &String::from_utf8_lossy(&text)))
    };
    objects.iter().filter_map(of).collect()
}

/// What its targets have printed: what they were asked to.
fn job_is_whole(fleet: &Fleet, id: &str, job: &Value) -> Vec<String> {
    let words = job["what"].as_str().expect("a command").split_whitespace();
    let asked = words.skip_while(|word| *word != PRINT).nth(1);
    let asked: usize = asked.expect("how many").parse().expect("a number");
    let shown = fleet.masters[0].run(&["jobs", "show", "--json", id]);
    shown.expect(0);
    let lines = shown.json();
    let ends: Vec<&Value> = lines
        .iter()
        .filter(|it| it["instance"].is_string())
        .collect();
    let (mut names, mut printed_by_all) = (BTreeSet::new(), Vec::new());
    for end in &ends {
        let name = end["instance"].as_str().expect("a name");
        assert!(names.insert(name.to_owned()), "{name} ended twice in {id}");
        assert_eq!(end["outcome"], "succeeded", "{id}: {end}");
        let said = end["stdout"].as_str().expect("a text");
        let is_all = said == printed(name, asked);
        let bytes = said.len();
        assert!(
            is_all,
            "{id} of {name}: {bytes} bytes that are not its {asked} lines"
        );
        printed_by_all.push(said.to_owned());
    }
    assert_eq!(job["targets"], ends.len(), "{id}: {job}");
    printed_by_all
}

/// No epoch of a cluster had two owners.
fn one_owner_an_epoch(fleet: &Fleet) {
    let mut owners: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (at, master) in fleet.masters.iter().enumerate() {
        for line in master.log().lines() {
            let word = |key: &str| {
                let found = line.split_whitespace().find_map(|it| it.strip_prefix(key));
                found.map(str::to_owned)
            };
            if !line.contains("the cluster is this master's") {
                continue;
            }
            let hold = word("cluster=").zip(word("epoch=")).expect("it names both");
            let before = owners.insert(hold.clone(), at);
            assert!(
                before.is_none(),
                "{hold:?} was taken twice: by {before:?} and {at}"
            );
        }
    }
    assert!(owners.len() > CLUSTERS, "clusters have moved: {owners:?}");
    println!(
        "{} takes of clusters, each with an epoch of its own",
        owners.len()
    );
}

#[test]
fn no_fault_of_a_fleet_loses_or_repeats_anything() {
    let _turn = crate::turn();
    let open = descriptors::raise().expect("up to the hard limit");
    let most = usize::try_from(open).unwrap_or(usize::MAX) / 16;
    let each = number("AOT_TEST_AGENTS", 900).min(most) / CLUSTERS;
    let mut fleet = match Fleet::start_with(MASTERS, &[each; CLUSTERS], FleetExtras::ForFaults) {
        Ok(fleet) => fleet,
        Err(why) => return why.skip("chaos of a fleet"),
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let seed = number("AOT_TEST_SEED", now.subsec_nanos() as usize) as u64;
    println!("AOT_TEST_SEED={seed}, {CLUSTERS} clusters of {each} agents");
    let mut dice = Dice::new(seed);
    let names: Vec<String> = fleet.clusters().into_iter().map(str::to_owned).collect();
    let mut agents = fleet.agents(&fleet.clusters(), &fleet.addresses());
    agents.until_attached(LIMIT);
    let doors: Vec<Door> = fleet.masters.iter().map(|it| it.door()).collect();
    let (told, over) = (Told::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..OPERATORS {
            let dice = Dice::new(dice.next());
            let (doors, names, told, over) = (&doors, &names, &told, &over);
            scope.spawn(move || operate(dice, doors, names, each, told, over));
        }
        let ends = EndOf(&over); // also where a round fails
        for fault in faults(&mut dice, number("AOT_TEST_ROUNDS", KINDS.len())) {
            round(&mut fleet, &mut agents, &mut dice, fault);
        }
        drop(ends);
    });
    let one_epoch = |epochs: &BTreeMap<i64, usize>| epochs.len() == 1;
    let count = agents.count();
    let state = agents.until(
        |state| state.attached == count && state.epochs.values().all(one_epoch),
        LIMIT,
        "all are with one owner of their cluster",
    );
    let is_clean = |state: &AgentsState| {
        assert_eq!((state.double_starts, state.refused), (0, 0), "{state:#?}");
    };
    is_clean(&state);
    is_whole(&fleet, &told);
    one_owner_an_epoch(&fleet);
    is_clean(&agents.state());
}

/// Tells the operators to end.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
