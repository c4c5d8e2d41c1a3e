//! Three masters are restarted in order, one by one, while commands are given at the doors of the other two: all of them work.
//! With `AOT_TEST_OTHER_MASTER` (a folder of programs) the fleet begins with those and ends with the ones under test.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aot_postgres::server::Server;
use aot_tests::bundle;
use aot_tests::lab::Lab;
use aot_tests::lab::master::{LAUNCH, Master};
use aot_tests::lab::story::{Story, cluster_file};
use aot_tests::process::Output;
use aot_tests::wait;
use serde_json::Value;

const ALL: &str = "198.51.100.1:7560,198.51.100.1:7561,198.51.100.1:7562";
/// A cluster for each master.
const CLUSTERS: [&str; 3] = ["one", "two", "three"];
const REST: &str =
    "launch: {timeout: 240s}\npools: [{name: web, size: 2, bootstrap_sequence: [{dir: first}]}]\n";

/// A command begins so often, whatever became of the ones before.
const EVERY: Duration = Duration::from_millis(200);
/// What a master's silence takes to be noticed: no command waits for that, as each gives its clusters away.
const LONGEST: Duration = Duration::from_secs(15);

/// Each door is asked for each cluster in turn.
struct Load<'l, 'lab> {
    doors: &'l [Master<'lab>],
    is_over: &'l AtomicBool,
    done: &'l Mutex<Vec<Done>>,
}

/// A command that has ended.
#[derive(Debug)]
struct Done {
    took: Duration,
    tries: u32,
    output: Output,
}

impl Load<'_, '_> {
    fn command(&self, nth: usize) {
        let door = &self.doors[nth % self.doors.len()];
        let cluster = CLUSTERS[nth / self.doors.len() % CLUSTERS.len()];
        let begun = Instant::now();
        let mut tries = 0;
        let output = loop {
            let output = door.run(&["--cluster", cluster, "exec", "*", "--", "true"]);
            tries += 1;
            // Nothing was begun: the master that had the cluster has just gone. The operator does as the message says.
            let is_to_be_repeated = output.code == Some(4) && output.stderr.contains("try again");
            if !is_to_be_repeated || begun.elapsed() > LONGEST {
                break output;
            }
            let _ = wait::maybe(|| None::<()>, EVERY);
        };
        let mut done = self.done.lock().expect("not poisoned");
        done.push(Done {
            took: begun.elapsed(),
            tries,
            output,
        });
    }

    /// Begins commands until it is over, and waits for those that are under way.
    fn run(&self) {
        std::thread::scope(|scope| {
            for nth in 0.. {
                scope.spawn(move || self.command(nth));
                let over = || self.is_over.load(Ordering::SeqCst).then_some(());
                if wait::maybe(over, EVERY).is_some() {
                    return;
                }
            }
        });
    }
}

/// Ends the load with the test, however that ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// All masters beat, and all machines are with one of them, as seen from this one.
fn is_whole(door: &Master<'_>) -> bool {
    let (_, masters) = door.json(&["masters"]);
    let (_, machines) = door.json(&["status"]);
    let is = |value: &Value| value == true;
    masters.iter().filter(|it| is(&it["alive"])).count() == CLUSTERS.len()
        && machines.len() == 2 * CLUSTERS.len()
        && machines.iter().all(|it| is(&it["agent"]["connected"]))
}

#[test]
fn masters_that_are_restarted_one_by_one_fail_no_command() {
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return why.skip("masters that are restarted"),
    };
    let Some(lab) = Lab::start() else { return };
    let key = lab.dir().join("fleet.key");
    aot_host::files::write_atomic(&key, &[7; 32], 0o600).expect("writes the key");
    let (url, key) = (server.url(&server.database()), key.display().to_string());
    lab.python(
        "import boto3\nboto3.client('s3').create_bucket(Bucket='fleet')\nprint('{}')",
        &[],
    );
    let other = std::env::var_os("AOT_TEST_OTHER_MASTER").map(PathBuf::from);
    let start = |name, port, peer| {
        let env = [
            ("AOT_STORE", url.as_str()),
            ("AOT_FLEET_KEY", key.as_str()),
            ("AOT_BLOBS", "s3://fleet/rolling"),
            ("AOT_PEER_LISTEN", peer),
        ];
        let mut master = Master::new(&lab, name, port, ALL, &env);
        master.use_build(other.as_deref());
        master.serve();
        master
    };
    let mut masters = vec![
        start("a", 7560, "198.51.100.1:7570"),
        start("b", 7561, "198.51.100.1:7571"),
        start("c", 7562, "198.51.100.1:7572"),
    ];
    let mut story = Story::default();

    story.step("a cluster each");
    let launches: Vec<_> = std::iter::zip(&masters, CLUSTERS)
        .map(|(master, name)| {
            let dir = lab.dir().join(name);
            bundle::folder(&dir.join("first"), &format!("echo {name}\n"));
            let launch = master.launch(&cluster_file(&dir, name, lab.ami(), REST));
            let asked = || lab.cloud(name).instances.len() == 2;
            wait::until(asked, LAUNCH, "its machines are asked for");
            launch
        })
        .collect();
    for launch in launches {
        launch.finish(LAUNCH).expect(0);
    }

    story.step("each is restarted in its turn, under load at the others");
    let done = Mutex::default();
    for _ in 0..masters.len() {
        wait::until(|| is_whole(&masters[1]), LAUNCH, "the fleet is whole");
        let mut restarted = masters.remove(0);
        let is_over = AtomicBool::new(false);
        let load = Load {
            doors: &masters,
            is_over: &is_over,
            done: &done,
        };
        std::thread::scope(|scope| {
            scope.spawn(|| load.run());
            let _over = Over(&is_over);
            let before = done.lock().expect("not poisoned").len();
            let runs = || done.lock().expect("not poisoned").len() >= before + 4;
            wait::until(runs, LAUNCH, "commands run");
            let (_, owned) = restarted.json(&["masters"]);
            println!("ends: {owned:?}");
            restarted.end();
            restarted.use_build(None);
            restarted.serve();
            let is_back = wait::maybe(|| is_whole(&masters[0]).then_some(()), LAUNCH).is_some();
            story.check(is_back, "the fleet is whole again", ());
        });
        masters.push(restarted);
    }
    let done = done.into_inner().expect("not poisoned");
    let failed: Vec<_> = done.iter().filter(|it| it.output.code != Some(0)).collect();
    story.check(failed.is_empty(), "all commands worked", failed);
    let mut times: Vec<Duration> = done.iter().map(|it| it.took).collect();
    times.sort();
    let longest = times.last().copied().unwrap_or_default();
    let repeated = done.iter().filter(|it| it.tries > 1).count();
    println!(
        "{} commands, {repeated} given more than once, half within {:?}, the longest {longest:?}",
        times.len(),
        times[times.len() / 2],
    );
    story.check(longest < LONGEST, "none waited for a silence", longest);

    story.step("cleanup");
    for cluster in CLUSTERS {
        story.same(masters[0].cleanup(cluster).code, Some(0), cluster);
        let cloud = lab.cloud(cluster);
        story.check(cloud.instances.is_empty(), "nothing is left", cloud);
    }
    for master in masters {
        master.stop();
    }
    lab.end();
    story.end();
}
