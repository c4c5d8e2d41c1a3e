//! A launch of 500 instances, without machines behind them: the calls grow with pools and pages, not with instances.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::wait;
use serde_json::Value;

/// A page holds so many things at least.
const PAGE: usize = 100;
const SOON: Duration = Duration::from_secs(120);

/// No call for so long: nothing more comes, but looks at what there is.
const QUIET: Duration = Duration::from_secs(8);
/// HTTP status of a dry run that would have worked.
const DRY_RUN: u64 = 412;

/// What one launch took.
#[derive(Debug)]
struct Cost {
    /// Calls by action, without the looks at what there is (DescribeInstances): those grow with time.
    calls: BTreeMap<String, usize>,
    /// Until every machine was there.
    made: Duration,
}

impl Cost {
    fn all(&self) -> usize {
        self.calls.values().sum()
    }

    fn of(&self, action: &str) -> usize {
        self.calls.get(action).copied().unwrap_or_default()
    }
}

#[test]
fn calls_grow_with_pools_and_pages_and_not_with_instances() {
    let _turn = crate::turn();
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    // Batches of up to 20 get names one by one: these are just past that.
    let few = launch(&lab, "few", 7460, 3, 75);
    let many = launch(&lab, "many", 7461, 3, 500);
    let two = launch(&lab, "two", 7462, 2, 500);
    let six = launch(&lab, "six", 7463, 6, 500);
    for (what, cost) in [
        ("75 in 3 pools", &few),
        ("500 in 3 pools", &many),
        ("500 in 2 pools", &two),
        ("500 in 6 pools", &six),
    ] {
        let seconds = cost.made.as_secs_f32();
        eprintln!(
            "{what}: {} calls, {seconds:.1} s until all are there; {:?}",
            cost.all(),
            cost.calls
        );
    }
    for (cost, pools) in [(&few, 3), (&many, 3), (&two, 2), (&six, 6)] {
        assert_eq!(
            cost.of("RunInstances"),
            pools,
            "one call a pool: {:?}",
            cost.calls
        );
    }
    assert!(
        many.all() <= few.all() + 500 / PAGE,
        "500 take more calls than 75 and their pages: {:#?}",
        (&few, &many)
    );
    let more = six.all().saturating_sub(two.all());
    assert!(
        more <= 4 * 4,
        "four more pools take {more} more calls: {:#?}",
        (&two, &six)
    );
    lab.end();
}

/// Launches `count` instances in `pools` pools, waits until all are there, and ends the cluster.
fn launch(lab: &Lab, name: &str, port: u16, pools: usize, count: usize) -> Cost {
    let dir = lab.dir().join(format!("{name}-files"));
    std::fs::create_dir_all(&dir).expect("makes the folder");
    let file = cluster(&dir, name, lab.ami(), pools, count);
    let key = format!("AOTSCALE{name}");
    let master = Master::start_with(lab, name, port, &[("AWS_ACCESS_KEY_ID", &key)]);
    let began = Instant::now();
    let launch = master.launch(&file);
    let there = || master.machine_ids().len() == count;
    wait::until(there, SOON, &format!("{count} machines are there"));
    let made = began.elapsed();
    let calls = settled(lab, &key);
    drop(launch);
    let mut ended = master.begin_cleanup(name);
    wait::until(|| ended.has_ended(), SOON, "cleanup ends");
    assert_eq!(lab.account(name).instances, [], "cleanup leaves no machine");
    master.stop();
    Cost { calls, made }
}

/// Calls that were answered, by action, once no more have come for as long as the master waits between two looks. Dry runs
/// are an action of their own.
fn settled(lab: &Lab, key: &str) -> BTreeMap<String, usize> {
    let mut seen = (0, Instant::now());
    let quiet = || {
        let count = of_key(lab, key).len();
        if count != seen.0 {
            seen = (count, Instant::now());
        }
        seen.1.elapsed() >= QUIET
    };
    wait::until(quiet, SOON, "the master has nothing more to ask");
    let mut calls = BTreeMap::new();
    for call in of_key(lab, key) {
        let dry = call["status"] == DRY_RUN;
        let action = call["action"].as_str().unwrap_or_default();
        let action = if dry {
            format!("{action} (dry)")
        } else {
            action.to_owned()
        };
        *calls.entry(action).or_insert(0) += 1;
    }
    calls
}

fn of_key(lab: &Lab, key: &str) -> Vec<Value> {
    let mut log = lab.api_log();
    log.retain(|call| call["key"] == key && call["action"] != "DescribeInstances");
    log
}

fn cluster(dir: &Path, name: &str, ami: &str, pools: usize, count: usize) -> std::path::PathBuf {
    let mut text = format!(
        "cluster: {name}\nprovider: ec2\nlaunch: {{timeout: 240s}}\n\
         defaults: {{ami: {ami}, ec2_size: m5.large, owner: ops, user: admin, security_groups: [{name}-own]}}\n\
         security_groups: [{{name: {name}-own, action: create, allow_all_own_traffic: true}}]\npools:\n"
    );
    for at in 0..pools {
        let size = count / pools + usize::from(at < count % pools);
        text += &format!(
            "  - {{name: {}, size: {size}}}\n",
            ["a", "b", "c", "d", "e", "f"][at]
        );
    }
    let path = dir.join("cluster.yml");
    std::fs::write(&path, text).expect("writes cluster.yml");
    path
}
