//! A fleet of two masters on one database and one bucket: one serves, one stands by. The first is killed amid a command; the
//! second has its records, its keys, its outputs and soon its agents, and what runs ends on record there, once.

use aot_postgres::server::Server;
use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::wait;

/// Where agents find a master, whichever it is.
const BOTH: &str = "198.51.100.1:7510,198.51.100.1:7511";

const REST: &str = "launch: {timeout: 240s}
pools: [{name: web, size: 2, bootstrap_sequence: [{dir: first}]}]
";

const MAKE_BUCKET: &str =
    "import boto3\nboto3.client('s3').create_bucket(Bucket='fleet')\nprint('{}')";

/// More than goes into the records.
const LONG: &str = "seq 1 40000";

const WAITS: &str = "echo ran >> /var/tmp/ledger; echo begun; \
    until test -e /var/tmp/go; do sleep 0.1; done; echo done";

#[test]
fn a_master_that_stands_by_takes_the_place_of_one_that_is_killed() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return why.skip("a master that stands by"),
    };
    let Some(lab) = Lab::start() else { return };
    let key = lab.dir().join("fleet.key");
    aot_host::files::write_atomic(&key, &[7; 32], 0o600).expect("writes the key");
    let (url, key) = (server.url(&server.database()), key.display().to_string());
    lab.python(MAKE_BUCKET, &[]);
    let env = [
        ("AOT_STORE", url.as_str()),
        ("AOT_FLEET_KEY", key.as_str()),
        ("AOT_PEER_LISTEN", "127.0.0.1:0"),
        ("AOT_BLOBS", "s3://fleet/standby"),
    ];
    let mut story = Story::default();
    let mut first = Master::start_as(&lab, "first", 7510, BOTH, &env);
    let mut second = Master::new(&lab, "second", 7511, BOTH, &env);
    second.begin();
    let stands_by = second.logs(0, "standing by");
    story.check(stands_by, "the second waits", second.log());

    story.step("a launch and a command by the first");
    let dir = lab.dir().join("files");
    bundle::folder(&dir.join("first"), "echo staged >> /var/tmp/ledger\n");
    let file = cluster_file(&dir, "standby", lab.ami(), REST);
    first.launched(&file, 0);
    let machines = first.machine_ids();
    let long = first.run(&["exec", "--json", "web1", LONG]);
    let long = long.one(|line| line["instance"] == "web1");
    let long_job = long["job"].as_str().expect("an id").to_owned();
    let runs = first.spawn(&["exec", "--json", "*", "--", "/bin/sh", "-c", WAITS]);
    for id in machines.values() {
        let begun = || lab.sure(id, "cat /var/tmp/ledger").contains("ran");
        wait::until(begun, LAUNCH, "the command runs");
    }

    story.step("the first is killed, and the second has all of it");
    first.crash();
    runs.finish(LAUNCH).expect(4);
    second.answers();
    let back = || {
        let (_, all) = second.json(&["status"]);
        let connected = all.iter().filter(|it| it["agent"]["connected"] == true);
        connected.count() == 2
    };
    wait::until(back, LAUNCH, "both agents have found the second");
    story.same(&second.machine_ids(), &machines, "the same machines");
    for id in machines.values() {
        lab.sure(id, "touch /var/tmp/go");
    }
    let (_, jobs) = second.json(&["jobs"]);
    let job = jobs.iter().find(|job| job["kind"] == "exec");
    let job = job
        .and_then(|job| job["job"].as_str())
        .expect("is on record");
    let ended = second.run(&["jobs", "follow", "--json", job]);
    for name in machines.keys() {
        let end = ended.one(|line| line["instance"] == name.as_str());
        story.same(end["outcome"].as_str(), Some("succeeded"), name);
        story.same(end["stdout"].as_str(), Some("begun\ndone\n"), name);
    }
    for id in machines.values() {
        let ledger = lab.sure(id, "cat /var/tmp/ledger");
        story.same(ledger.as_str(), "staged\nran\n", "each once");
    }
    let shown = second.run(&["jobs", "show", "--json", &long_job]);
    let shown = shown.one(|line| line["instance"] == "web1");
    let text = |line: &serde_json::Value| line["stdout"].as_str().map(str::to_owned);
    story.check(
        text(&long).is_some_and(|it| it.len() > 200_000),
        "it is long",
        text(&long).map(|it| it.len()),
    );
    story.check(
        text(&shown) == text(&long),
        "its output is there as it was",
        text(&shown).map(|it| it.len()),
    );
    let done = second.run(&["exec", "*", "--", "true"]);
    story.same(done.code, Some(0), "and new ones begin");

    story.step("the first comes back and stands by");
    let logged = first.log().len();
    first.begin();
    let stands_by = first.logs(logged, "standing by");
    story.check(stands_by, "it waits for the second", first.log());
    first.crash();

    story.step("cleanup");
    story.same(second.cleanup("standby").code, Some(0), "cleanup");
    let cloud = lab.cloud("standby");
    story.check(cloud.instances.is_empty(), "nothing is left", cloud);
    drop(first);
    second.stop();
    lab.end();
    story.end();
}
