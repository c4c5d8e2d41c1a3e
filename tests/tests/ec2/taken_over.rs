//! Two masters on one database: one is paused amid a call for machines, the other takes over and cleans up. Whatever the first
//! had begun, and whenever it continues, no machine is left. Without machines behind the API.

use std::time::{Duration, Instant};

use aot_postgres::server::Server;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::Story;
use aot_tests::process;
use aot_tests::wait;
use nix::sys::signal::Signal;

/// Longer than a call without an answer is open when its master was not taken over.
const LATE: Duration = Duration::from_secs(45);

const FILE: &str = "cluster: leak
provider: ec2
launch: {timeout: 240s}
defaults: {ami: debian-12, ec2_size: m5.large, user: admin}
pools: [{name: twin, size: 2}]
";

/// A machine as the first master's call would have made it: with all its tags.
const AS_IT_WOULD: &str = "ec2.run_instances(ImageId=args[0], MinCount=1, MaxCount=1, InstanceType='m5.large', \
    TagSpecifications=[{'ResourceType': 'instance', 'Tags': json.loads(args[1])}])['Instances'][0]['InstanceId']";

#[test]
fn a_master_that_was_paused_amid_a_call_and_replaced_leaks_no_machine() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return why.skip("a master that was replaced"),
    };
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    let url = server.url(&server.database());
    let key = lab.dir().join("fleet.key");
    aot_host::files::write_atomic(&key, &[7; 32], 0o600).expect("writes the key");
    let key = key.display().to_string();
    let env = |peer| {
        [
            ("AOT_STORE", url.as_str()),
            ("AOT_FLEET_KEY", key.as_str()),
            ("AOT_PEER_LISTEN", peer),
        ]
    };
    let mut story = Story::default();
    let first = Master::start_with(&lab, "first", 7500, &env("198.51.100.1:7530"));
    let path = lab.dir().join("leak.yml");
    std::fs::write(&path, FILE).expect("writes cluster.yml");

    story.step("the first is paused before it hears of the machines that it asked for");
    lab.verb(&["fault", "RunInstances", "--delay", "60"]);
    let launch = first.launch(&path);
    let made = || lab.cloud("leak").instances.len() == 2;
    wait::until(made, LAUNCH, "the call has made its machines");
    process::send(first.pid(), Signal::SIGSTOP);
    // The second asks once more and is refused: with an answer there would be no doubt.
    let refusal = "InsufficientInstanceCapacity";
    lab.verb(&["fault", "RunInstances", refusal, "--count", "99"]);
    let cloud = lab.cloud("leak");
    let tags: Vec<_> = cloud.instances[0]
        .tags
        .iter()
        .filter(|(key, _)| !key.starts_with("aws:"))
        .map(|(key, value)| serde_json::json!({"Key": key, "Value": value}))
        .collect();
    let tags = serde_json::to_string(&tags).expect("writes");

    story.step("the second takes over, and its cleanup ends the machines");
    let second = Master::start_with(&lab, "second", 7501, &env("198.51.100.1:7531"));
    let has_taken = second.logs(0, "the cluster is this master's");
    story.check(has_taken, "it has the cluster", second.log());
    let taken = Instant::now();
    let mut cleanup = second.begin_cleanup("leak");
    let none = || lab.cloud("leak").instances.is_empty();
    wait::until(none, LAUNCH, "they are terminated");

    story.step("what was signed before the pause is sent long after it");
    wait::until(|| taken.elapsed() > LATE, LAUNCH, "it is late");
    story.check(!cleanup.has_ended(), "the cleanup still waits for it", ());
    lab.verb(&["clear-faults"]);
    let stray = lab.ec2(AS_IT_WOULD, &[lab.ami(), &tags]);
    let ended = || {
        let stray = stray.as_str().expect("an id");
        lab.cloud("leak").terminated.iter().any(|id| id == stray)
    };
    wait::until(ended, LAUNCH, "the late machine is terminated");

    story.step("the first continues, and calls nobody");
    let calls = lab.calls("");
    process::send(first.pid(), Signal::SIGCONT);
    let is_lost = first.logs(0, "the cluster is another master's");
    story.check(is_lost, "and says why", first.log());
    // It continues with the next owner, which has ended what it asked for.
    launch.finish(LAUNCH).expect(1);
    let since = lab.api_log().split_off(calls);
    let made = since.iter().filter(|call| call["action"] == "RunInstances");
    // The one that was under way may have been answered, and so logged, only now.
    story.check(made.count() <= 1, "no other call for machines", since);
    story.check(
        lab.cloud("leak").instances.is_empty(),
        "no machine is left",
        lab.cloud("leak"),
    );
    let (code, _) = first.json(&["masters"]);
    story.same(code, Some(0), "it serves on");
    drop(cleanup);
    first.stop();
    second.stop();
    lab.end();
    story.end();
}
