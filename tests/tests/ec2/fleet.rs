//! A fleet of two masters on one database and one bucket. Each has a cluster; from each all is reached. One is cut off from the
//! database, loses its cluster, and gets it back by a command. It is killed amid a
//! command that was given at the other: that one has its cluster, its outputs and soon its machines, and what runs ends on
//! record there, once. It comes back, and gets both when the other stops in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use aot_postgres::server::Server;
use aot_tests::bundle;
use aot_tests::cut::Cuttable;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::wait;

/// Where agents find a master, whichever has their cluster.
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

/// The machines of a cluster, by the instances that are connected.
fn connected(master: &Master, cluster: &str) -> BTreeMap<String, String> {
    let (_, all) = master.json(&["--cluster", cluster, "status"]);
    let connected = all.iter().filter(|it| it["agent"]["connected"] == true);
    let word = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    connected
        .filter_map(|it| Some((word(&it["name"])?, word(&it["machine_id"])?)))
        .collect()
}

fn succeeds(story: &mut Story, master: &Master, cluster: &str, what: &str) {
    let done = master.run(&["--cluster", cluster, "exec", "*", "--", "true"]);
    story.same(done.code, Some(0), &format!("{what}: {}", done.shown()));
}

#[test]
fn masters_of_a_fleet_reach_every_cluster_and_take_what_one_leaves() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return why.skip("a fleet of masters"),
    };
    let Some(lab) = Lab::start() else { return };
    let key = lab.dir().join("fleet.key");
    aot_host::files::write_atomic(&key, &[7; 32], 0o600).expect("writes the key");
    let (url, key) = (server.url(&server.database()), key.display().to_string());
    let way_of_a = lab.dir().join("way");
    std::fs::create_dir(&way_of_a).expect("makes a folder");
    let socket = format!(".s.PGSQL.{}", server.port());
    let way = Cuttable::new(&way_of_a.join(&socket), &server.dir().join(&socket));
    let encoded = |dir: &Path| dir.display().to_string().replace('/', "%2F");
    let url_of_a = url.replace(&encoded(server.dir()), &encoded(&way_of_a));
    lab.python(MAKE_BUCKET, &[]);
    let env = |url, peer| {
        [
            ("AOT_STORE", url),
            ("AOT_FLEET_KEY", key.as_str()),
            ("AOT_BLOBS", "s3://fleet/both"),
            ("AOT_PEER_LISTEN", peer),
        ]
    };
    let mut story = Story::default();
    let mut a = Master::start_as(
        &lab,
        "a",
        7510,
        BOTH,
        &env(url_of_a.as_str(), "198.51.100.1:7520"),
    );
    let b = Master::start_as(
        &lab,
        "b",
        7511,
        BOTH,
        &env(url.as_str(), "198.51.100.1:7521"),
    );

    story.step("a cluster each, side by side");
    let file = |name| {
        let dir = lab.dir().join(name);
        let stage = format!("echo staged >> /var/tmp/ledger # of {name}\n");
        bundle::folder(&dir.join("first"), &stage);
        cluster_file(&dir, name, lab.ami(), REST)
    };
    let launches = [(&a, "one"), (&b, "two")].map(|(master, name)| {
        let launch = master.launch(&file(name));
        let asked = || lab.cloud(name).instances.len() == 2;
        wait::until(asked, LAUNCH, "its machines are asked for");
        launch
    });
    for launch in launches {
        launch.finish(LAUNCH).expect(0);
    }
    let of_one = connected(&a, "one");
    story.same(of_one.len(), 2, "its own");
    story.same(connected(&a, "two").len(), 2, "and the other's");
    story.same(&connected(&b, "one"), &of_one, "from both");
    let (_, masters) = a.json(&["masters"]);
    let clusters: Vec<_> = masters.iter().map(|it| it["clusters"].clone()).collect();
    story.check(
        clusters.contains(&serde_json::json!(["one"]))
            && clusters.contains(&serde_json::json!(["two"])),
        "each has one",
        &masters,
    );
    let (_, all) = a.json(&["status"]);
    story.same(all.len(), 4, "all of them in one list");

    story.step("commands at the other's door");
    succeeds(&mut story, &a, "two", "the first in the second's");
    succeeds(&mut story, &b, "one", "the second in the first's");
    let long = b.run(&["--cluster", "one", "exec", "--json", "web1", LONG]);
    let long = long.one(|line| line["instance"] == "web1");
    let long_job = long["job"].as_str().expect("an id").to_owned();
    let (_, jobs) = a.json(&["--cluster", "one", "jobs"]);
    let long_one = jobs.iter().find(|job| job["job"] == *long_job);
    let operator = long_one.and_then(|job| job["operator"].as_str());
    story.check(
        operator.is_some_and(|it| it.contains(" at ") && !it.starts_with("uid ")),
        "it is on record who asked, and where",
        &jobs,
    );
    let refused = b.run(&["--cluster", "three", "exec", "*", "--", "true"]);
    story.check(
        refused.shown().contains("one, two"),
        "all clusters are named",
        refused.shown(),
    );

    story.step(
        "the first is cut off from the database alone, and its machines follow their cluster",
    );
    let cut = Instant::now();
    way.cut();
    // Until then the second asks the first.
    let taken = b.logs(0, "the cluster is this master's cluster=one");
    story.check(taken, "the second has its cluster", b.log());
    let moved = || connected(&b, "one").len() == 2;
    wait::until(moved, LAUNCH, "its machines have found the second");
    let of_a_silent_one = cut.elapsed();
    println!("machines are with the second after {of_a_silent_one:?}");
    let knows = a.logs(0, "the cluster is another master's");
    story.check(knows, "the first knows it without the database", a.log());
    succeeds(&mut story, &b, "one", "by the second");
    way.mend();
    let heals = a.logs(0, "takes this master's beats again");
    story.check(heals, "the first takes part again", a.log());
    let other = || {
        let (_, masters) = b.json(&["masters"]);
        let other = masters.into_iter().find(|it| it["answers"] == false);
        other.expect("there are two")
    };
    let lives = || other()["alive"] == true;
    wait::until(lives, LAUNCH, "the second hears of it again");
    let id = other()["id"].as_str().expect("an id").to_owned();
    let moved = b.run(&["masters", "move", "one", &id]);
    story.same(moved.code, Some(0), &moved.shown());
    let there = || connected(&a, "one").len() == 2;
    wait::until(there, LAUNCH, "its machines follow it back");
    succeeds(&mut story, &a, "one", "by the first again");

    story.step("the first is killed amid a command that was given at the second");
    let runs = b.spawn(&[
        "--cluster",
        "one",
        "exec",
        "--json",
        "*",
        "--",
        "/bin/sh",
        "-c",
        WAITS,
    ]);
    for id in of_one.values() {
        let begun = || lab.sure(id, "cat /var/tmp/ledger").contains("ran");
        wait::until(begun, LAUNCH, "the command runs");
    }
    let killed = Instant::now();
    a.crash();
    // Those that the first had passed on dial anew.
    let there = || connected(&b, "two").len() == 2;
    wait::until(there, LAUNCH, "the second's own machines are there");
    succeeds(&mut story, &b, "two", "the second's own is not disturbed");
    let back = || connected(&b, "one").len() == 2;
    wait::until(back, LAUNCH, "its machines have found the second");
    let took = killed.elapsed();
    println!("machines are back after {took:?}");
    let is_sooner = took < of_a_silent_one;
    story.check(
        is_sooner,
        "its port refuses: sooner than of one that is silent",
        took,
    );
    story.same(&connected(&b, "one"), &of_one, "the same machines");
    for id in of_one.values() {
        lab.sure(id, "touch /var/tmp/go");
    }
    let ran = runs.finish(LAUNCH);
    ran.expect(0);
    for name in of_one.keys() {
        let end = ran.one(|line| line["instance"] == name.as_str());
        story.same(end["stdout"].as_str(), Some("begun\ndone\n"), "at the door");
    }
    let (_, jobs) = b.json(&["--cluster", "one", "jobs"]);
    let job = jobs.iter().find(|job| job["kind"] == "exec");
    let job = job
        .and_then(|job| job["job"].as_str())
        .expect("is on record");
    let ended = b.run(&["jobs", "follow", "--json", job]);
    for name in of_one.keys() {
        let end = ended.one(|line| line["instance"] == name.as_str());
        story.same(end["outcome"].as_str(), Some("succeeded"), name);
        story.same(end["stdout"].as_str(), Some("begun\ndone\n"), name);
    }
    for id in of_one.values() {
        let ledger = lab.sure(id, "cat /var/tmp/ledger");
        story.same(ledger.as_str(), "staged\nran\n", "each once");
    }
    let shown = b.run(&["jobs", "show", "--json", &long_job]);
    let shown = shown.one(|line| line["instance"] == "web1");
    let text = |line: &serde_json::Value| line["stdout"].as_str().map(str::to_owned);
    story.check(
        text(&long).is_some_and(|it| it.len() > 200_000) && text(&shown) == text(&long),
        "its output is there as it was",
        text(&shown).map(|it| it.len()),
    );

    story
        .step("the first comes back; the second stops in order, and both clusters are the first's");
    a.serve();
    succeeds(&mut story, &a, "one", "by the second");
    b.stop();
    for cluster in ["one", "two"] {
        let back = || connected(&a, cluster).len() == 2;
        wait::until(back, LAUNCH, "its machines have found the first");
        succeeds(&mut story, &a, cluster, "by itself");
    }

    story.step("cleanup");
    for cluster in ["one", "two"] {
        story.same(a.cleanup(cluster).code, Some(0), cluster);
        let cloud = lab.cloud(cluster);
        story.check(cloud.instances.is_empty(), "nothing is left", cloud);
    }
    a.stop();
    lab.end();
    story.end();
}
