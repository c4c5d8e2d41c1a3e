//! A launch of 500 instances, without machines behind them: the calls grow with pools and pages, not with instances.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::wait;

/// Pages of DescribeInstances hold so many reservations, or instances where a page is asked for by size.
const PAGE: usize = 100;
const SOON: Duration = Duration::from_secs(120);

/// What one launch took.
#[derive(Debug)]
struct Cost {
    /// Calls by action.
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
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    let few = launch(&lab, "few", 7460, 3, 50);
    let many = launch(&lab, "many", 7461, 3, 500);
    let two = launch(&lab, "two", 7462, 2, 500);
    let six = launch(&lab, "six", 7463, 6, 500);
    for (what, cost) in [
        ("50 in 3 pools", &few),
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
    // Looking takes pages: each look at 500 may take as many more calls as it has more pages.
    let once = |cost: &Cost| cost.all() - cost.of("DescribeInstances");
    assert!(
        once(&many) <= once(&few),
        "500 take more calls than 50, beside looks: {:#?}",
        (&few, &many)
    );
    assert!(
        many.of("DescribeInstances") <= (few.of("DescribeInstances") + 3) * (1 + 500 / PAGE),
        "looks at 500 take more calls than their pages: {:#?}",
        (&few, &many)
    );
    let more = once(&six).saturating_sub(once(&two));
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
    let mut calls = BTreeMap::new();
    for call in lab
        .api_log()
        .iter()
        .filter(|call| call["key"] == key.as_str())
    {
        let action = call["action"].as_str().unwrap_or_default().to_owned();
        *calls.entry(action).or_insert(0) += 1;
    }
    drop(launch);
    let mut ended = master.begin_cleanup(name);
    wait::until(|| ended.has_ended(), SOON, "cleanup ends");
    assert_eq!(lab.account(name).instances, [], "cleanup leaves no machine");
    master.stop();
    Cost { calls, made }
}

fn cluster(dir: &Path, name: &str, ami: &str, pools: usize, count: usize) -> std::path::PathBuf {
    let mut text = format!(
        "cluster: {name}\nprovider: ec2\nlaunch: {{timeout: 100s}}\n\
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
