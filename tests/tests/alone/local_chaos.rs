//! 200 jobs on ten local clones while agents, masters, links and clones fail: every target ends exactly once, what was
//! printed is there byte by byte, nothing runs twice, nothing is left: with records in a file, and in a database that fails as
//! well. `AOT_TEST_SEED` plays a case again (what is asked and
//! what is broken; how they meet is the scheduler's).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aot_postgres::server::Server;
use aot_tests::jobs;
use aot_tests::lab::dice::Dice;
use aot_tests::process;
use aot_tests::proxy::Proxy;
use aot_tests::rig::{LIMIT, Rig};
use aot_tests::wait;
use nix::sys::signal::Signal;
use serde_json::Value;

const JOBS: usize = 200;
const CLONES: usize = 10;
/// Operators who ask at the same time.
const OPERATORS: usize = 6;
/// Longest time until all is well again after the last fault.
const CALM: Duration = Duration::from_secs(120);
/// What commands that never end by themselves sleep; nothing else on the host sleeps so long.
const FOREVER: u32 = 864_213;

/// How an operator asks for a job, and stays with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Live,
    Detached,
    Followed,
    Interrupted,
    Cancelled,
}

/// What one job does.
#[derive(Debug, Clone)]
struct Plan {
    tag: String,
    builtin: Option<&'static str>,
    how: How,
    target: String,
    flags: Vec<String>,
    line: String,
    stdout: (u64, u64),
    stderr: (u64, u64),
    endless: bool,
}

impl Plan {
    fn roll(number: usize, dice: &mut Dice) -> Self {
        let tag = format!("chaos-{number:03}");
        let builtin = dice
            .percent(10)
            .then(|| *dice.one(&["ping", "version", "facts"]));
        let names: Vec<String> = (1..=CLONES).map(|n| format!("node{n}")).collect();
        let target = match dice.below(4) {
            0 => "*".to_owned(),
            1 => dice.one(&names).clone(),
            _ => dice.some(&names).join(","),
        };
        let endless = dice.percent(12);
        let how = match (endless, dice.below(10)) {
            (true, 0..=5) => How::Cancelled,
            (true, _) | (false, 0..=4) => How::Live,
            (false, 5..=6) => How::Detached,
            (false, 7..=8) => How::Followed,
            (false, _) => How::Interrupted,
        };
        let lines = match dice.below(10) {
            0 => 0,
            1..=7 => 1 + dice.below(40),
            8 => 2_000,
            _ => 60_000,
        };
        let first = dice.below(1_000_000);
        let errors = dice.below(30);
        let mut flags = Vec::new();
        if dice.percent(15) {
            flags.extend(["--concurrency".to_owned(), (1 + dice.below(4)).to_string()]);
        }
        if endless && how != How::Cancelled {
            flags.extend([
                "--timeout".to_owned(),
                format!("{}ms", 500 + dice.below(2500)),
            ]);
        }
        let mut plan = Self {
            line: String::new(),
            tag,
            builtin,
            how: if builtin.is_some() { How::Live } else { how },
            target,
            flags,
            stdout: (first, first + lines),
            stderr: (first, first + errors),
            endless,
        };
        plan.line = plan.shell(dice);
        plan
    }

    /// Notes that it runs, prints in two parts with a pause between, perhaps never ends.
    fn shell(&self, dice: &mut Dice) -> String {
        let half = u64::midpoint(self.stdout.0, self.stdout.1);
        let seq = |from: u64, to: u64| match from < to {
            true => format!("seq {from} {}", to - 1),
            false => "true".to_owned(),
        };
        let pause = match dice.below(4) {
            0 => format!("sleep 0.{}; ", dice.below(10)),
            1 => format!("sleep {}; ", 1 + dice.below(3)),
            _ => String::new(),
        };
        let tail = match (self.endless, dice.percent(20)) {
            (true, _) => format!("setsid sleep {FOREVER} & (sleep {FOREVER} &); sleep {FOREVER}"),
            (false, true) => format!("exit {}", 1 + dice.below(9)),
            (false, false) => "exit 0".to_owned(),
        };
        format!(
            "echo {} >> /opt/starts; {}; {pause}{} >&2; {}; {tail}",
            self.tag,
            seq(self.stdout.0, half),
            seq(self.stderr.0, self.stderr.1),
            seq(half, self.stdout.1),
        )
    }

    fn words(&self) -> Vec<String> {
        let mut words = vec!["exec".to_owned(), "--json".to_owned()];
        let detach = matches!(self.how, How::Detached | How::Followed | How::Cancelled);
        words.extend(detach.then(|| "--detach".to_owned()));
        if let Some(builtin) = self.builtin {
            words.extend([self.target.clone(), builtin.to_owned()]);
            return words;
        }
        words.extend(self.flags.iter().cloned());
        words.push(self.target.clone());
        words.extend(["--", "sh", "-c", &self.line].map(str::to_owned));
        words
    }

    fn prints(&self, stream: &str) -> Vec<u8> {
        let (from, to) = match stream {
            "stdout" => self.stdout,
            _ => self.stderr,
        };
        let mut text = String::new();
        for number in from..to {
            writeln!(text, "{number}").expect("a string takes all");
        }
        text.into_bytes()
    }
}

/// Lets time pass: that faults come at any time is what is tested.
fn pause(time: Duration) {
    let _ = wait::maybe(|| None::<()>, time);
}

/// What an operator saw of a job that was asked for.
#[derive(Debug, Default)]
struct Seen {
    job: Option<String>,
    wrong: Vec<String>,
}

/// One operator's part with a job, from asking to leaving.
fn ask(rig: &Rig, plan: &Plan, dice: &mut Dice) -> Seen {
    let mut seen = Seen::default();
    let running = rig.spawn(plan.words());
    if plan.how == How::Interrupted {
        let limit = Duration::from_millis(100 + dice.below(1500));
        pause(limit);
        running.signal(Signal::SIGINT);
    }
    let output = running.finish(LIMIT);
    seen.job = output
        .json()
        .iter()
        .find_map(|line| line["job"].as_str().map(str::to_owned));
    // A signal that comes while it still connects ends it as any program: no code.
    let interrupted = plan.how == How::Interrupted && matches!(output.code, None | Some(130));
    if !interrupted && !matches!(output.code, Some(0 | 1 | 4)) {
        seen.wrong.push(output.shown());
    }
    seen.wrong.extend(told_twice(&output.json()));
    let Some(job) = seen.job.clone() else {
        return seen;
    };
    match plan.how {
        How::Followed => {
            let output = rig.cli(["jobs", "follow", "--json", &job]);
            seen.wrong.extend(told_twice(&output.json()));
            if !matches!(output.code, Some(0 | 1 | 4)) {
                seen.wrong.push(output.shown());
            }
        }
        How::Cancelled => {
            pause(Duration::from_millis(dice.below(1500)));
            cancel(rig, &job);
        }
        _ => {}
    }
    seen
}

/// Until a master has taken it.
fn cancel(rig: &Rig, job: &str) {
    let cancelled = || {
        let output = rig.cli(["jobs", "cancel", "--json", "--grace", "1s", job]);
        (output.code != Some(4)).then_some(())
    };
    wait::some(cancelled, LIMIT, "a master that takes a cancellation");
}

/// One end a target, and another only after `lost_contact`.
fn told_twice(lines: &[Value]) -> Vec<String> {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in lines.iter().filter(|line| line["outcome"].is_string()) {
        let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let before = last.insert(word("instance"), word("outcome"));
        if before.is_some_and(|before| before != "lost_contact") {
            wrong.push(format!("a second end: {line}"));
        }
    }
    wrong
}

/// Breaks something every few hundred milliseconds until `over`.
fn break_things(
    rig: &Rig,
    proxy: &Proxy,
    database: Option<&Server>,
    over: &AtomicBool,
    dice: &mut Dice,
) -> (BTreeMap<&'static str, u32>, BTreeSet<String>) {
    let (mut count, mut rebooted) = (BTreeMap::new(), BTreeSet::new());
    while !over.load(Ordering::SeqCst) {
        let quiet = Duration::from_millis(200 + dice.below(900));
        let _ = wait::maybe(|| over.load(Ordering::SeqCst).then_some(()), quiet);
        let name = format!("node{}", 1 + dice.below(CLONES as u64));
        let machine = rig.machine(&name);
        let links = proxy.links();
        if let Some(server) = database.filter(|_| dice.percent(10)) {
            server.kill();
            server.run();
            *count.entry("database killed").or_default() += 1;
        }
        let what = match dice.below(100) {
            0..=34 => match machine.agent_pid() {
                Some(pid) => {
                    process::kill_hard(pid);
                    "agent killed"
                }
                None => "no agent to kill",
            },
            35..=49 => match rig.master_pid() {
                Some(pid) => {
                    process::kill_hard(pid);
                    let _ = rig.cli(["status"]); // brings another
                    "master killed"
                }
                None => "no master to kill",
            },
            50..=74 if !links.is_empty() => {
                proxy.cut(*dice.one(&links));
                "link cut"
            }
            75..=89 if !links.is_empty() => {
                let link = *dice.one(&links);
                proxy.hold(link, true);
                pause(Duration::from_millis(dice.below(1500)));
                if dice.percent(50) {
                    proxy.cut(link);
                }
                proxy.hold(link, false);
                "link held"
            }
            90..=93 => match machine.supervisor_pid() {
                Some(pid) => {
                    process::send(pid, Signal::SIGHUP);
                    rebooted.insert(name);
                    "clone rebooted"
                }
                None => "no clone to reboot",
            },
            94..=99 => match machine.agent_pid() {
                Some(pid) => {
                    process::send(pid, Signal::SIGSTOP);
                    pause(Duration::from_millis(dice.below(2000)));
                    process::send(pid, Signal::SIGCONT);
                    "agent frozen"
                }
                None => "no agent to freeze",
            },
            _ => "no link to cut",
        };
        *count.entry(what).or_default() += 1;
    }
    (count, rebooted)
}

/// How often each tag has begun on each clone.
fn starts(rig: &Rig) -> BTreeMap<(String, String), usize> {
    let mut starts = BTreeMap::new();
    for machine in rig.machines() {
        let text = machine.read("/opt/starts").unwrap_or_default();
        for tag in text.lines() {
            *starts
                .entry((machine.name.clone(), tag.to_owned()))
                .or_default() += 1;
        }
    }
    starts
}

/// What is known from outside.
struct Facts {
    /// How often each tag has begun on each clone.
    starts: BTreeMap<(String, String), usize>,
    /// Clones that went down meanwhile.
    rebooted: BTreeSet<String>,
}

/// Jobs by tag; those of built-ins and of the launch have none.
fn by_tag(all: &[Value]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for job in all {
        let what = job["what"].as_str().unwrap_or_default();
        if let Some((_, rest)) = what.split_once("echo chaos-") {
            let tag = format!("chaos-{}", rest.chars().take(3).collect::<String>());
            let id = job["job"].as_str().unwrap_or_default().to_owned();
            found.entry(tag).or_default().push(id);
        }
    }
    found
}

/// Everybody is back, and every job over, with no word missing.
fn calm_down(rig: &Rig, plans: &[Plan]) -> Vec<Value> {
    let back = || {
        let status = rig.cli(["status", "--json"]);
        let all = match status.code {
            Some(0) => status.json(),
            _ => Vec::new(),
        };
        all.iter()
            .filter(|one| one["agent"]["connected"] == true)
            .count()
            == CLONES
    };
    wait::until(back, CALM, "every agent is back");
    let listed = jobs::list(rig);
    let tags = by_tag(&listed);
    let open = |id: &String| {
        listed
            .iter()
            .any(|job| job["job"] == id.as_str() && job["ended"].is_null())
    };
    for plan in plans.iter().filter(|plan| plan.how == How::Cancelled) {
        let ids = tags.get(&plan.tag).into_iter().flatten();
        ids.filter(|id| open(id)).for_each(|id| cancel(rig, id));
    }
    let commands: BTreeSet<String> = tags.into_values().flatten().collect();
    let mut last = Vec::new();
    let settled = wait::maybe(
        || {
            last = jobs::list(rig);
            let waits = |job: &&Value| {
                let lost = job["summary"]["lost_contact"].is_u64()
                    && job["job"].as_str().is_some_and(|id| commands.contains(id));
                job["ended"].is_null() || lost
            };
            let waiting: Vec<&Value> = last.iter().filter(waits).collect();
            waiting.is_empty().then_some(())
        },
        CALM,
    );
    if settled.is_none() {
        let open = last
            .iter()
            .filter(|job| job["ended"].is_null() || job["summary"]["lost_contact"].is_u64());
        eprintln!(
            "not settled in time:\n{}",
            open.map(Value::to_string).collect::<Vec<_>>().join("\n")
        );
    }
    last
}

/// What is wrong with a job, now that all is over.
fn judge(rig: &Rig, plan: &Plan, id: &str, facts: &Facts) -> Vec<String> {
    let output = rig.cli(["jobs", "show", "--json", id]);
    if !matches!(output.code, Some(0 | 1)) {
        return vec![output.shown()];
    }
    let shown = jobs::shown(output);
    let mut wrong = Vec::new();
    let mut names = BTreeSet::new();
    for end in &shown.ends {
        let name = end["instance"].as_str().unwrap_or_default().to_owned();
        let mut brief = end.clone();
        for stream in ["stdout", "stderr"] {
            if let Some(text) = end[stream].as_str() {
                brief[stream] = format!("{} bytes", text.len()).into();
            }
        }
        let mut bad = |what: &str| wrong.push(format!("{what}: {brief}"));
        if !names.insert(name.clone()) {
            bad("a second end");
        }
        let ran = facts.starts.get(&(name.clone(), plan.tag.clone()));
        let ran = ran.copied().unwrap_or(0);
        let code = end["exit_code"].as_i64();
        let fits = match end["outcome"].as_str().unwrap_or_default() {
            "succeeded" => ran == 1 && code == Some(0) && !plan.endless,
            "failed" if code.is_some() => ran == 1 && !plan.endless,
            // A machine that went down; or an agent that was killed before it could start anything.
            "failed" => ran == 0 || ran == 1 && facts.rebooted.contains(&name),
            // So slow that it did not come to its note, at most.
            "timed_out" => ran <= 1 && plan.endless && plan.how != How::Cancelled,
            "cancelled" => ran <= 1 && plan.how == How::Cancelled,
            "absent" => ran == 0,
            // An agent that was killed between its journal and the start: it never ran, and that is what is said.
            "rejected" => ran == 0,
            _ => false,
        };
        if !fits {
            bad(&format!("it began {ran} times, and"));
        }
        for stream in ["stdout", "stderr"] {
            if code.is_some() && jobs::bytes(end, stream) != plan.prints(stream) {
                bad(&format!("{stream} is not what it printed"));
            }
        }
    }
    let sum: u64 = shown.summary.values().sum();
    let wanted = match plan.target.as_str() {
        "*" => CLONES,
        names => names.split(',').count(),
    };
    if sum != wanted as u64 || names.len() != wanted {
        wrong.push(format!(
            "{sum} outcomes, {} ends of {wanted} targets",
            names.len()
        ));
    }
    wrong
        .into_iter()
        .map(|what| format!("{} {id}: {what}", plan.tag))
        .collect()
}

/// Runs `each` on all of `what`, a few at a time; gives what they give in their order.
fn in_parallel<T: Sync, R: Send>(
    what: &[T],
    hands: usize,
    each: impl Fn(usize, &T) -> R + Sync,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..hands {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(item) = what.get(at) else { return };
                    let result = each(at, item);
                    done.lock()
                        .expect("nobody panics with it")
                        .insert(at, result);
                }
            });
        }
    });
    let done = done.into_inner().expect("nobody panics with it");
    done.into_values().collect()
}

fn seed() -> u64 {
    let given = std::env::var("AOT_TEST_SEED").ok();
    given.map_or_else(
        || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            u64::from(now.expect("after 1970").subsec_nanos())
        },
        |text| text.parse().expect("AOT_TEST_SEED is a number"),
    )
}

#[test]
fn two_hundred_jobs_through_faults_lie_about_nothing() {
    chaos(None);
}

#[test]
fn nor_do_they_with_records_in_a_database_that_fails_too() {
    match Server::start() {
        Ok(server) => chaos(Some(&server)),
        Err(why) => why.skip("chaos with a database"),
    }
}

fn chaos(database: Option<&Server>) {
    let _turn = crate::turn();
    let seed = seed();
    eprintln!("AOT_TEST_SEED={seed}");
    let mut dice = Dice::new(seed);
    let plans: Vec<Plan> = (0..JOBS)
        .map(|number| Plan::roll(number, &mut dice))
        .collect();
    let proxy = Proxy::start();
    let mut rig = Rig::with(&[("AOT_ADVERTISE", &proxy.address().to_string())]);
    if let Some(server) = database {
        rig.set_env("AOT_STORE", &server.url(&server.database()));
    }
    proxy.lead_to(rig.port());
    rig.cluster(&format!(
        "{{cluster: chaos, provider: local, pools: [{{name: node, size: {CLONES}}}]}}\n"
    ));
    rig.launch().expect(0);

    let begun = Instant::now();
    let over = AtomicBool::new(false);
    let (seen, (faults, rebooted)) = std::thread::scope(|scope| {
        let mut theirs = Dice::new(seed ^ 0xfa_17);
        let (rig, proxy, over) = (&rig, &proxy, &over);
        let faults = scope.spawn(move || break_things(rig, proxy, database, over, &mut theirs));
        let seen = in_parallel(&plans, OPERATORS, |at, plan| {
            ask(rig, plan, &mut Dice::new(seed.wrapping_add(at as u64)))
        });
        over.store(true, Ordering::SeqCst);
        (seen, faults.join().expect("the faults go well"))
    });
    eprintln!("{} s of chaos: {faults:?}", begun.elapsed().as_secs());
    let listed = calm_down(&rig, &plans);
    eprintln!("calm after {} s", begun.elapsed().as_secs());

    let facts = Facts {
        starts: starts(&rig),
        rebooted,
    };
    let mut wrong = verdict(&rig, &plans, &seen, &listed, &facts);
    eprintln!("judged after {} s", begun.elapsed().as_secs());
    wrong.extend(rig.clean());
    assert!(
        wrong.is_empty(),
        "AOT_TEST_SEED={seed}: {} things are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// All that is wrong at the end.
fn verdict(
    rig: &Rig,
    plans: &[Plan],
    seen: &[Seen],
    listed: &[Value],
    facts: &Facts,
) -> Vec<String> {
    let tags = by_tag(listed);
    let judged = in_parallel(plans, 2, |at, plan| {
        let ids = tags.get(&plan.tag).map_or(&[][..], Vec::as_slice);
        let mut wrong: Vec<String> = ids
            .iter()
            .flat_map(|id| judge(rig, plan, id, facts))
            .collect();
        // What agents answer by themselves is asked again of the next master.
        if ids.len() > 1 && plan.builtin.is_none() {
            wrong.push(format!("{}: {} jobs: {ids:?}", plan.tag, ids.len()));
        }
        // What agents answer by themselves is put on record when it is over: a master that is killed takes it along.
        let known = |id: &String| {
            plan.builtin.is_some() || listed.iter().any(|job| job["job"] == id.as_str())
        };
        if let Some(id) = seen[at].job.as_ref().filter(|id| !known(id)) {
            wrong.push(format!("{}: {id} was begun and is not on record", plan.tag));
        }
        wrong.extend(seen[at].wrong.iter().cloned());
        wrong
    });
    let mut wrong: Vec<String> = judged.into_iter().flatten().collect();
    let mut outcomes: BTreeMap<&str, u64> = BTreeMap::new();
    for (word, count) in listed
        .iter()
        .filter_map(|job| job["summary"].as_object())
        .flatten()
    {
        *outcomes.entry(word).or_default() += count.as_u64().unwrap_or_default();
    }
    eprintln!("outcomes: {outcomes:?}");
    let open = listed.iter().filter(|job| job["ended"].is_null());
    wrong.extend(open.map(|job| format!("it is open: {job}")));
    let known = |tag: &str| tags.contains_key(tag);
    let unknown = facts.starts.keys().filter(|(_, tag)| !known(tag));
    wrong.extend(unknown.map(|(name, tag)| format!("{tag} ran on {name}, and no job says so")));
    wrong.extend(left_running(rig));
    let many = seen.iter().filter(|seen| seen.job.is_some()).count();
    if many < JOBS / 2 {
        wrong.push(format!("only {many} jobs were begun: that tests nothing"));
    }
    wrong
}

/// Processes of commands, and shims that have a run in hand, that are still there.
fn left_running(rig: &Rig) -> Vec<String> {
    let sleep = format!("sleep {FOREVER}");
    let theirs = || -> Vec<String> {
        let supervisors = rig
            .machines()
            .into_iter()
            .filter_map(|one| one.supervisor_pid());
        let inside = supervisors
            .flat_map(process::tree)
            .map(|pid| (pid, process::command_line(pid)));
        // One that waits for a command has no run's files open.
        let busy = |pid| {
            process::open_files(pid)
                .iter()
                .any(|path| path.ends_with("spool"))
        };
        let left =
            inside.filter(|(pid, line)| *line == sleep || (line.ends_with(" shim") && busy(*pid)));
        left.map(|(_, line)| line).collect()
    };
    let none = || theirs().is_empty().then_some(());
    match wait::maybe(none, CALM) {
        Some(()) => Vec::new(),
        None => theirs()
            .iter()
            .map(|line| format!("it is left: {line}"))
            .collect(),
    }
}
