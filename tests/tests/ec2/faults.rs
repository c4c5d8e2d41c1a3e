//! Fifty launches against an API that throttles, has no capacity, loses answers, cuts them, holds them and forgets what it
//! has made, under a master that is killed now and then. No machines are behind it, so none of them succeeds. Each ends with
//! a true table, and after `cleanup` the account is empty. A failure names its seed: `AOT_TEST_SEED=N` plays that one alone.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aot_tests::lab::Lab;
use aot_tests::lab::account::{Account, Live};
use aot_tests::lab::dice::Dice;
use aot_tests::lab::master::Master;
use aot_tests::process::{Output, Running};
use aot_tests::wait;

const LAUNCHES: u64 = 50;
/// So many clusters at once, each with a master of its own.
const AT_ONCE: usize = 12;
/// The SDK's own limits for a call that never works, a few times over.
const LAUNCH: Duration = Duration::from_secs(300);
/// From the end of the faults until the table has to be true.
const TRUTH: Duration = Duration::from_secs(120);
/// All of `cleanup`, repeated while it says that something is left.
const CLEANUP: Duration = Duration::from_secs(180);
/// How often a launch that preflight refuses is tried again; in so many of the launches at most it may end with that.
const TRIES: usize = 3;
const MOST_REFUSED: u64 = LAUNCHES / 4;
static REFUSED: AtomicU64 = AtomicU64::new(0);
/// How long a `cleanup` is left alone with its faults.
const PATIENCE: Duration = Duration::from_secs(20);
const TYPES: [&str; 3] = ["m5.large", "c5.large", "m5.xlarge"];
const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

/// One launch, decided before it begins.
#[derive(Debug)]
struct Plan {
    seed: u64,
    name: String,
    file: String,
    /// Words of `lab.py` for each fault.
    faults: Vec<Vec<String>>,
    /// When the master is killed after the launch began.
    kill: Option<Duration>,
    /// Whether the faults continue during `cleanup`.
    dirty: bool,
    /// Members by pool label.
    sizes: BTreeMap<String, usize>,
}

/// The access key that a seed's master signs with, so that its faults are its own.
fn key(seed: u64) -> String {
    format!("AOTSEED{seed}")
}

fn plan(seed: u64, lab: &Lab) -> Plan {
    let mut dice = Dice::new(seed);
    let name = format!("seed{seed}");
    let mut sizes = BTreeMap::new();
    let mut pools = String::new();
    for at in 0..1 + dice.below(3) {
        let size = 1 + dice.below(4);
        sizes.insert(format!("p{at}"), usize::try_from(size).expect("is small"));
        pools += &format!("  - name: p{at}\n    size: {size}\n");
        pools += &machine(&mut dice, lab, &name);
    }
    let on_failure = dice.one(&["keep", "rollback"]);
    let replace = dice.below(2);
    let timeout = 3 + dice.below(4);
    let amis = [lab.ami(), "debian-12"];
    let ami = dice.one(&amis);
    let file = format!(
        "cluster: {name}\nprovider: ec2\n\
         launch: {{timeout: {timeout}s, on_failure: {on_failure}, replace: {replace}}}\n\
         defaults: {{ami: {ami}, owner: ops, user: admin}}\n\
         security_groups: [{{name: {name}-own, action: create, allow_all_own_traffic: true, allow_ssh_from: 10.0.0.0/8}}]\n\
         pools:\n{pools}"
    );
    Plan {
        seed,
        file,
        faults: faults(&mut dice, seed),
        kill: dice
            .percent(40)
            .then(|| Duration::from_millis(200 + dice.below(9_000))),
        dirty: dice.percent(50),
        name,
        sizes,
    }
}

/// Keys of one pool.
fn machine(dice: &mut Dice, lab: &Lab, cluster: &str) -> String {
    let mut keys = format!("    ec2_size: [{}]\n", dice.some(&TYPES).join(", "));
    if dice.percent(70) {
        let zones = dice.some(&ZONES);
        let subnets: Vec<&str> = zones.iter().map(|zone| lab.subnet(zone)).collect();
        keys += &format!("    subnet: [{}]\n", subnets.join(", "));
    }
    if dice.percent(60) {
        keys += &format!("    security_groups: [default, {cluster}-own]\n");
    }
    if dice.percent(30) {
        keys += "    spot: {fallback: true}\n";
    }
    if dice.percent(35) {
        keys += "    allocate_ip_address: true\n";
    }
    if dice.percent(25) {
        keys += &format!("    placement_group: {cluster}-near\n");
    }
    if dice.percent(40) {
        keys += "    ebs: [{device: /dev/sdf, size: 2}]\n";
    }
    keys
}

/// Two to four kinds of faults at once.
fn faults(dice: &mut Dice, seed: u64) -> Vec<Vec<String>> {
    let (zone, kind) = (*dice.one(&ZONES), *dice.one(&TYPES));
    let (status, lost, gone) = (
        *dice.one(&["400", "500"]),
        1 + dice.below(6),
        4 + dice.below(6),
    );
    let cut = *dice.one(&["RunInstances", "DescribeInstances", "*"]);
    let all = [
        "fault * RequestLimitExceeded --probability 0.3".to_owned(),
        format!("fault RunInstances InsufficientInstanceCapacity --count 999 --status {status} --when dry=no --when zone={zone}"),
        format!("fault RunInstances InsufficientInstanceCapacity --count 999 --status {status} --when dry=no --when type={kind}"),
        "fault RunInstances SpotMaxPriceTooLow --count 999 --when dry=no --when InstanceMarketOptions.MarketType=spot".to_owned(),
        "fault * InternalError --status 500 --probability 0.15".to_owned(),
        "fault * --delay 2 --drop-answer --probability 0.05".to_owned(),
        format!("fault RunInstances --drop-answer --when dry=no --count {lost}"),
        format!("fault {cut} --truncate --probability 0.2"),
        format!("forget-some --probability 0.6 --seconds {gone}"),
    ];
    let mut chosen = dice.some(&all);
    chosen.truncate(4);
    let more = [format!("--key {}", key(seed)), format!("--seed {seed}")];
    let words = |line: &String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    chosen
        .iter()
        .map(|line| [words(line), more.iter().flat_map(words).collect()].concat())
        .collect()
}

#[test]
fn launches_under_faults_leave_nothing_and_tell_the_truth() {
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    let only = std::env::var("AOT_TEST_SEED").ok();
    let only: Option<u64> = only.map(|seed| seed.parse().expect("AOT_TEST_SEED is a number"));
    let (first, end) = only.map_or((0, LAUNCHES), |seed| (seed, seed + 1));
    let next = AtomicU64::new(first);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let complaints = played(&lab, seed);
                    failed.lock().expect("no panic in it").extend(complaints);
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic in it");
    let left = lab.account("");
    assert!(
        failed.is_empty(),
        "{} complaints:\n{}",
        failed.len(),
        failed.join("\n")
    );
    assert!(left.is_empty(), "the account is not empty: {left:#?}");
    let refused = REFUSED.load(Ordering::Relaxed);
    eprintln!("{refused} launches never began");
    assert!(refused <= MOST_REFUSED, "{refused} launches never began");
    lab.end();
}

/// Plays a seed; what was wrong, each line with the seed.
fn played(lab: &Lab, seed: u64) -> Vec<String> {
    let plan = plan(seed, lab);
    let began = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| play(lab, &plan)));
    let wrong = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        vec![text.unwrap_or_else(|| "panicked, see above".to_owned())]
    });
    let how = if wrong.is_empty() { "ok" } else { "FAILED" };
    let faults: Vec<String> = plan.faults.iter().map(|words| words.join(" ")).collect();
    eprintln!(
        "seed {seed:2} {how} in {:.1} s: {:?}, kill {:?}, dirty {}, {faults:?}",
        began.elapsed().as_secs_f32(),
        plan.sizes,
        plan.kill,
        plan.dirty,
    );
    let say = |text: String| format!("seed {seed}: {text}");
    let wrong: Vec<String> = wrong.into_iter().map(say).collect();
    wrong.iter().for_each(|line| eprintln!("{line}"));
    wrong
}

fn play(lab: &Lab, plan: &Plan) -> Vec<String> {
    let dir = lab.dir().join(format!("{}-files", plan.name));
    std::fs::create_dir_all(&dir).expect("makes the folder");
    let file = dir.join("cluster.yml");
    std::fs::write(&file, &plan.file).expect("writes cluster.yml");
    let port = 7500 + u16::try_from(plan.seed).expect("seeds are small");
    let key = key(plan.seed);
    let mut master = Master::start_with(lab, &plan.name, port, &[("AWS_ACCESS_KEY_ID", &key)]);
    let spoil =
        |fault: &Vec<String>| lab.verb(&fault.iter().map(String::as_str).collect::<Vec<_>>());
    for fault in &plan.faults {
        spoil(fault);
    }
    let launch = master.launch(&file);
    let mut launched = match plan.kill {
        None => launch.finish(LAUNCH),
        Some(after) => {
            let whole = Instant::now() + after;
            wait::maybe(|| (Instant::now() >= whole).then_some(()), after * 2);
            master.crash();
            master.serve();
            drop(launch);
            master.launch(&file).finish(LAUNCH)
        }
    };
    let mut wrong = Vec::new();
    // Preflight refuses when what it asks is not answered; whoever launches then tries again.
    for at in 0..TRIES {
        if launched.code == Some(4) || refused(&launched) {
            // A storm over all calls passes in the end; what hits launches alone stays.
            if at > 0 {
                lab.verb(&["clear-faults", "--key", &key]);
                let stays = |fault: &&Vec<String>| fault[1] != "*";
                plan.faults.iter().filter(stays).for_each(|fault| {
                    spoil(fault);
                });
            }
            launched = master.launch(&file).finish(LAUNCH);
        }
    }
    if refused(&launched) {
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }
    if !matches!(launched.code, Some(1 | 4)) {
        wrong.push(format!(
            "launch ends with {:?}: {}",
            launched.code,
            launched.shown()
        ));
    }
    if !plan.dirty {
        lab.verb(&["clear-faults", "--key", &key]);
    }
    wrong.extend(told_truly(lab, plan, &master));
    wrong.extend(cleaned_up(lab, plan, &master));
    lab.verb(&["clear-faults", "--key", &key]);
    wrong.extend(nothing_is_left(lab, plan));
    if !wrong.is_empty() {
        wrong.push(format!("what the launch said:\n{}", tail(&launched)));
        wrong.push(format!(
            "the master's log:\n{}",
            last_lines(&master.log(), 40)
        ));
    }
    master.stop();
    wrong
}

/// Nothing was asked for, because something stood in the way.
fn refused(launched: &Output) -> bool {
    launched.code == Some(1) && launched.stderr.contains("not launched: ")
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn tail(output: &Output) -> String {
    format!(
        "{}\n{}",
        last_lines(&output.text(), 12),
        last_lines(&output.stderr, 12)
    )
}

/// The table is true soon: each machine that lives is in it with its state, and no member has two.
fn told_truly(lab: &Lab, plan: &Plan, master: &Master) -> Option<String> {
    let mut last = String::new();
    let truth = wait::maybe(
        || {
            let (live, table) = (lab.account(&plan.name).instances, table(master));
            last = lies(plan, &live, &table);
            last.is_empty().then_some(())
        },
        TRUTH,
    );
    truth
        .is_none()
        .then(|| format!("the table is not true: {last}"))
}

/// Machine and state of each member that has one.
fn table(master: &Master) -> Vec<(String, String)> {
    let (_, entries) = master.json(&["status"]);
    let word = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let machine =
        |entry: &serde_json::Value| Some((word(&entry["machine_id"])?, word(&entry["state"])?));
    entries.iter().filter_map(machine).collect()
}

/// What the table has wrong; empty when nothing.
fn lies(plan: &Plan, live: &[Live], table: &[(String, String)]) -> String {
    let mut lies = Vec::new();
    for machine in live {
        let shown = table.iter().find(|(id, _)| *id == machine.id);
        if shown.is_none_or(|(_, state)| *state != machine.state) {
            lies.push(format!("{machine:?} is shown as {shown:?}"));
        }
    }
    for (id, state) in table {
        let gone = matches!(state.as_str(), "terminated" | "shutting-down");
        if !gone && !live.iter().any(|machine| machine.id == *id) {
            lies.push(format!("{id} is shown as {state} and does not live"));
        }
    }
    for (pool, size) in &plan.sizes {
        let have = live.iter().filter(|machine| machine.pool == *pool).count();
        if have > *size {
            lies.push(format!("{pool} has {have} machines for {size} members"));
        }
    }
    lies.join("; ")
}

/// `cleanup` until it says that all is gone. Under faults it may take longer than a command of these tests; then they end.
fn cleaned_up(lab: &Lab, plan: &Plan, master: &Master) -> Option<String> {
    let end = Instant::now() + CLEANUP;
    loop {
        let key = key(plan.seed);
        let done = wait_for(master.begin_cleanup(&plan.name), || {
            lab.verb(&["clear-faults", "--key", &key]);
        });
        let unknown = done.code == Some(3) && done.stderr.contains("no cluster");
        if done.code == Some(0) || unknown {
            return None;
        }
        if Instant::now() >= end {
            let left = lab.account(&plan.name);
            return Some(format!(
                "cleanup never ends well: {}\n{left:#?}",
                done.shown()
            ));
        }
    }
}

/// The command's end; when that takes long, help comes.
fn wait_for(mut command: Running, help: impl FnOnce()) -> Output {
    if wait::maybe(|| command.has_ended().then_some(()), PATIENCE).is_none() {
        help();
    }
    command.finish(CLEANUP)
}

fn nothing_is_left(lab: &Lab, plan: &Plan) -> Option<String> {
    let mut left = Account::default();
    let empty = wait::maybe(
        || {
            left = lab.account(&plan.name);
            left.is_empty().then_some(())
        },
        Duration::from_secs(10),
    );
    empty
        .is_none()
        .then(|| format!("cleanup said that all is gone, and left {left:#?}"))
}
