//! A launch of a thousand (`AOT_BENCH_LAUNCH`) on the EC2 fake, with simulated agents that join as real ones do: real tokens,
//! certificates, facts of 4 KiB that hardly compress, cluster facts, a stage. Then one instance more, and new facts of one
//! machine: what that costs all others. `AOT_BENCH_POOLS` pools. Needs root, as the EC2 lab does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use aot_tests::bench::figures::{at_most, cpu_seconds, number, peak_kib};
use aot_tests::bench::joining::{Joining, Report};
use aot_tests::bench::roles::played;
use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::process::Running;
use aot_tests::wait;
use serde_json::Value;

/// Longest time for one step.
const LIMIT: Duration = Duration::from_secs(1800);

/// Prints `{ID: RESERVATION}` of all machines, and `{RESERVATION: TOKEN}` of those that are not named.
const MACHINES: &str = r#"
import base64, boto3, gzip, json, re, sys
ec2, known = boto3.client("ec2"), set(sys.argv[1:])
machines, tokens = {}, {}
for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 1000}):
    for r in page["Reservations"]:
        for i in r["Instances"]:
            if i["State"]["Name"] != "running":
                continue
            machines[i["InstanceId"]] = r["ReservationId"]
            if r["ReservationId"] not in known and r["ReservationId"] not in tokens:
                data = ec2.describe_instance_attribute(InstanceId=i["InstanceId"], Attribute="userData")
                data = base64.b64decode(data["UserData"]["Value"])
                data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
                tokens[r["ReservationId"]] = re.search(rb'token = "([^"]+)"', data).group(1).decode()
print(json.dumps({"machines": machines, "tokens": tokens}))
"#;

/// Subnets of the pools, in turns: each has some 4,000 addresses.
const ZONES: [&str; 4] = ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d"];

fn main() {
    if played() {
        return;
    }
    let (count, pools) = (
        number("AOT_BENCH_LAUNCH", 1_000),
        number("AOT_BENCH_POOLS", 4),
    );
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    measure(&lab, count, pools);
    lab.end();
}

/// What a step took of the master, and what it sent.
struct Step<'a> {
    master: &'a Master<'a>,
    began: Instant,
    cpu: f64,
    received: u64,
}

impl<'a> Step<'a> {
    fn begin(master: &'a Master<'a>, joining: &mut Joining) -> Self {
        Self {
            master,
            began: Instant::now(),
            cpu: cpu_seconds(master.pid()),
            received: joining.report().received,
        }
    }

    /// Prints it; seconds and megabytes.
    fn end(self, what: &str, report: &Report) -> (f64, f64) {
        let seconds = self.began.elapsed().as_secs_f64();
        let sent = (report.received - self.received) as f64 / 1e6;
        println!(
            "{what}: {seconds:.1} s, of which the master computes {:.1} s; {sent:.1} MB sent to agents; at most {:.0} MiB of memory",
            cpu_seconds(self.master.pid()) - self.cpu,
            peak_kib(self.master.pid()) / 1024.0
        );
        (seconds, sent)
    }
}

fn measure(lab: &Lab, count: usize, pools: usize) {
    println!("--- a launch of {count} in {pools} pools");
    let dir = lab.dir().join("files");
    bundle::folder(&dir.join("first"), "true\n");
    let key = [("AWS_ACCESS_KEY_ID", "AOTBENCH")];
    let master = Master::start_with(lab, "bench", 7470, &key);
    let empty = peak_kib(master.pid());
    let own = std::env::current_exe().expect("a program has a path");
    let ca = master.state_dir().join("ca.pem");
    let mut joining = Joining::start(lab.inside(&own), &ca, &master.address());
    let mut machines = Machines::default();

    let step = Step::begin(&master, &mut joining);
    let mut launch = master.launch(&cluster(lab, pools, count));
    machines.follow(lab, &mut joining, &mut launch, count);
    launch.finish(LIMIT).expect(0);
    let report = all_have(&mut joining, count, 0);
    step.end("the launch", &report);
    let each = (peak_kib(master.pid()) - empty) / count as f64;
    at_most(
        "the master's memory at most, an instance",
        each,
        100.0,
        "KiB",
    );

    let generation = newest(&report);
    let step = Step::begin(&master, &mut joining);
    let mut launch = master.launch(&cluster(lab, pools, count + 1));
    machines.follow(lab, &mut joining, &mut launch, count + 1);
    let joined = Step::begin(&master, &mut joining);
    launch.finish(LIMIT).expect(0);
    let report = all_have(&mut joining, count + 1, generation);
    let (seconds, _) = joined.end("one more, since its machine began to join", &report);
    let (_, sent) = step.end("one more, EC2 included", &report);
    at_most("time of one more", seconds, 2.0, "s");
    at_most("sent for one more", sent, 100.0, "MB");

    let generation = newest(&report);
    let step = Step::begin(&master, &mut joining);
    joining.news();
    let report = all_have(&mut joining, count + 1, generation);
    let (seconds, _) = step.end("new facts of one", &report);
    at_most("time of new facts", seconds, 2.0, "s");
    let each = (peak_kib(master.pid()) - empty) / count as f64;
    at_most(
        "the master's memory at most, an instance",
        each,
        100.0,
        "KiB",
    );
    println!("  sessions that broke meanwhile: {}", report.lost);

    drop(joining);
    master.begin_cleanup("bench").finish(LIMIT).expect(0);
    master.stop();
}

fn newest(report: &Report) -> u64 {
    report.applied.keys().last().copied().unwrap_or_default()
}

/// Waits until so many have applied one generation after this.
fn all_have(joining: &mut Joining, count: usize, after: u64) -> Report {
    let look = || {
        let report = joining.report();
        let newest = report.applied.last_key_value();
        let all = newest.is_some_and(|(generation, have)| *generation > after && *have >= count);
        all.then_some(report)
    };
    wait::some(look, LIMIT, "all have the new cluster facts")
}

/// Those that have been told to join.
#[derive(Default)]
struct Machines {
    tokens: BTreeMap<String, String>,
    joined: BTreeSet<String>,
}

impl Machines {
    /// Lets machines join as they come, until there are so many.
    fn follow(&mut self, lab: &Lab, joining: &mut Joining, launch: &mut Running, count: usize) {
        let all = || {
            assert!(!launch.has_ended(), "the launch has ended early");
            let known: Vec<&str> = self.tokens.keys().map(String::as_str).collect();
            let found = lab.python(MACHINES, &known);
            for (reservation, token) in texts(&found["tokens"]) {
                self.tokens.insert(reservation, token);
            }
            for (machine, reservation) in texts(&found["machines"]) {
                if self.joined.insert(machine.clone()) {
                    joining.join(&machine, &self.tokens[&reservation]);
                }
            }
            self.joined.len() >= count
        };
        wait::until(all, LIMIT, "all machines are there");
    }
}

fn texts(object: &Value) -> Vec<(String, String)> {
    let pairs = object.as_object().expect("an object").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    pairs
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

fn cluster(lab: &Lab, pools: usize, count: usize) -> PathBuf {
    let (dir, ami) = (lab.dir().join("files"), lab.ami());
    let mut text = format!(
        "cluster: bench\nprovider: ec2\nattestation: token\nlaunch: {{timeout: 30m}}\n\
         defaults: {{ami: {ami}, ec2_size: m5.large, owner: ops, user: admin, security_groups: [bench-own]}}\n\
         security_groups: [{{name: bench-own, action: create, allow_all_own_traffic: true}}]\npools:\n"
    );
    for at in 0..pools {
        let size = count / pools + usize::from(at < count % pools);
        let subnet = lab.subnet(ZONES[at % ZONES.len()]);
        text += &format!(
            "  - {{name: p{at}-, size: {size}, subnet: {subnet}, bootstrap_sequence: [{{dir: first}}]}}\n"
        );
    }
    let path = dir.join("cluster.yml");
    std::fs::write(&path, text).expect("writes cluster.yml");
    path
}
