//! A launch in a fleet of two masters. Its owner is killed amid chosen commits, which the database itself holds up: what is
//! written is there and not yet on record. Some of them come on record with nobody left to hear of it, others never do. The
//! other master takes the cluster each time, and at the end each machine is there once and each stage ran once.

use std::collections::{BTreeMap, BTreeSet};

use aot_postgres::server::Server;
use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::process::Running;
use aot_tests::wait;

const CLUSTER: &str = "nine";
const MACHINES: usize = 20;
const BOTH: &str = "198.51.100.1:7540,198.51.100.1:7541";

const FIRST: &str = "echo \"0 $AOT_ATTEMPT\" >> /var/tmp/ran\n";
const SECOND: &str = "echo \"1 $AOT_ATTEMPT\" >> /var/tmp/ran\n";
const REST: &str = "launch: {timeout: 600s}
instances:
  - name: manager
    bootstrap_sequence: [{dir: first}, {dir: second}]
pools:
  - name: web
    size: 12
    bootstrap_sequence: [{dir: first}, {dir: second, needs: [manager/1]}]
  - name: db
    size: 7
    bootstrap_sequence: [{dir: first}, {dir: second, needs: [manager/1]}]
";

/// Commits of the cluster at which its owner is killed: all of its beginning, where calls are made, then ever fewer.
const POINTS: [i64; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 17, 22, 29, 38, 50, 65];

/// Each commit of the cluster whose number is in the table waits, with all it has written, until the number is taken out.
const GATE: &str = "CREATE TABLE gate (at bigint PRIMARY KEY);
CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    WHILE EXISTS (SELECT FROM gate WHERE at = NEW.seq) LOOP PERFORM pg_sleep(0.01); END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER gate AFTER UPDATE OF seq ON owners FOR EACH ROW
    WHEN (NEW.cluster = 'nine' AND NEW.seq > OLD.seq) EXECUTE FUNCTION gate()";

struct Gate<'server> {
    server: &'server Server,
    database: &'server str,
}

impl Gate<'_> {
    fn ask(&self, sql: &str) -> String {
        self.server.ask(self.database, sql)
    }

    /// The engine's processes that stand at it.
    fn waiting(&self) -> String {
        self.ask(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
        )
    }

    fn committed(&self) -> i64 {
        let seq = self.ask("SELECT seq FROM owners WHERE cluster = 'nine'");
        seq.parse().unwrap_or_default() // nobody has it
    }

    /// Takes this number out: the commit comes on record, or ends with its connection.
    fn open(&self, at: i64, is_recorded: bool) {
        if !is_recorded {
            // None where it has given the commit up by itself.
            for pid in self.waiting().lines() {
                self.ask(&format!("SELECT pg_terminate_backend({pid})"));
            }
        }
        self.ask(&format!("DELETE FROM gate WHERE at = {at}"));
        let is_through = || self.waiting().is_empty();
        wait::until(is_through, LAUNCH, "the commit is over");
    }
}

/// Waits for the commit of this number; false when the launch is over before it.
fn comes_to(gate: &Gate<'_>, launch: &mut Running) -> bool {
    wait::some(
        || match gate.waiting().is_empty() {
            false => Some(true),
            true => launch.has_ended().then_some(false),
        },
        LAUNCH,
        "the next commit or the end of the launch",
    )
}

#[test]
fn a_launch_survives_owners_that_are_killed_amid_its_commits() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return why.skip("owners that are killed"),
    };
    let Some(lab) = Lab::start() else { return };
    let (database, key) = (server.database(), lab.dir().join("fleet.key"));
    aot_host::files::write_atomic(&key, &[7; 32], 0o600).expect("writes the key");
    let (url, key) = (server.url(&database), key.display().to_string());
    lab.python(
        "import boto3\nboto3.client('s3').create_bucket(Bucket='fleet')\nprint('{}')",
        &[],
    );
    let start = |name, port, peer| {
        let env = [
            ("AOT_STORE", url.as_str()),
            ("AOT_FLEET_KEY", key.as_str()),
            ("AOT_BLOBS", "s3://fleet/nine"),
            ("AOT_PEER_LISTEN", peer),
        ];
        Master::start_as(&lab, name, port, BOTH, &env)
    };
    let mut owner = start("a", 7540, "198.51.100.1:7550");
    let mut other = start("b", 7541, "198.51.100.1:7551");
    let dir = lab.dir().join("files");
    bundle::folder(&dir.join("first"), FIRST);
    bundle::folder(&dir.join("second"), SECOND);
    let file = cluster_file(&dir, CLUSTER, lab.ami(), REST);
    let gate = Gate {
        server: &server,
        database: &database,
    };
    gate.ask(GATE);
    for at in POINTS {
        gate.ask(&format!("INSERT INTO gate VALUES ({at})"));
    }
    let mut story = Story::default();

    story.step("the owner is killed at one commit after the other");
    let mut launch = owner.launch(&file);
    let (mut killed, mut recorded) = (0, 0);
    for (nth, at) in POINTS.into_iter().enumerate() {
        if !comes_to(&gate, &mut launch) {
            break;
        }
        // The first is the launch itself: what is not on record then was never asked for.
        let may_be_recorded = nth % 2 == 0;
        let from = other.log().len();
        owner.crash();
        gate.open(at, may_be_recorded);
        // The engine looks each second whether its client is there: on a slow machine it has given the commit up by then.
        let seq = gate.committed();
        let is_recorded = seq == at;
        eprintln!("killed at commit {at}, which is on record: {is_recorded}");
        recorded += usize::from(is_recorded);
        story.check(
            is_recorded && may_be_recorded || seq == at - 1,
            "a commit is on record whole or not at all",
            seq,
        );
        drop(launch); // it would wait for the next master at its own door
        let has_taken = other.logs(from, "the cluster is this master's");
        assert!(has_taken, "the other takes it: {}", other.log());
        owner.serve();
        std::mem::swap(&mut owner, &mut other);
        launch = owner.launch(&file);
        killed += 1;
    }
    println!(
        "killed {killed} times, {recorded} times with the commit on record, commits: {}",
        gate.committed()
    );
    story.check(
        killed >= 12,
        "there were many commits to kill it at",
        killed,
    );
    gate.ask("DELETE FROM gate");

    story.step("the launch ends");
    launch.finish(LAUNCH).expect(0);
    let cloud = lab.cloud(CLUSTER);
    story.same(cloud.instances.len(), MACHINES, "as many as wanted");
    story.check(
        cloud.terminated.is_empty(),
        "none was thrown away",
        &cloud.terminated,
    );
    let ids = owner.machine_ids();
    story.same(
        ids.values().cloned().collect::<BTreeSet<_>>(),
        cloud.instances.iter().map(|it| it.id.clone()).collect(),
        "each instance has one of them",
    );
    let mut tokens: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for machine in &cloud.instances {
        let pool = machine.tags.get("aot:pool").map_or("", String::as_str);
        tokens.entry(pool).or_default().insert(&machine.token);
    }
    story.check(
        tokens.len() == 3 && tokens.values().all(|of_pool| of_pool.len() == 1),
        "one client token a batch",
        &tokens,
    );
    let calls = lab.api_log().into_iter();
    let calls = calls.filter(|call| call["action"] == "RunInstances" && call["status"] != 412);
    let sent: BTreeSet<_> = calls.map(|call| call["token"].to_string()).collect();
    story.same(sent.len(), 3, &format!("no call had another: {sent:?}"));

    story.step("each stage ran once");
    let ran = owner.run(&["exec", "--json", "*", "--", "cat", "/var/tmp/ran"]);
    ran.expect(0);
    for name in ids.keys() {
        let end = ran.one(|line| line["instance"] == name.as_str());
        story.same(end["stdout"].as_str(), Some("0 1\n1 1\n"), name);
    }

    story.step("cleanup");
    story.same(owner.cleanup(CLUSTER).code, Some(0), "cleanup");
    let left = lab.cloud(CLUSTER);
    story.check(left.instances.is_empty(), "nothing is left", left);
    owner.stop();
    other.stop();
    lab.end();
    story.end();
}
