//! Machines that are gone without a word, and machines that can't be ended: under the packaged policy, which takes the tags
//! of a machine for its right, and with few calls. Without machines behind the API.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aot_tests::lab::Lab;
use aot_tests::lab::master::Master;
use aot_tests::lab::story::Story;
use aot_tests::process::Output;
use aot_tests::wait;

const SOON: Duration = Duration::from_secs(120);

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is set").as_secs_f64()
}

/// So many calls, or one for each second that has passed where all takes longer.
fn one_a_second(least: usize, since: f64) -> usize {
    least.max((now() - since) as usize)
}

fn cluster(lab: &Lab, name: &str, size: usize) -> PathBuf {
    let dir = lab.dir().join(format!("{name}-files"));
    std::fs::create_dir_all(&dir).expect("makes the folder");
    let path = dir.join("cluster.yml");
    let text = format!(
        "cluster: {name}\nprovider: ec2\nlaunch: {{timeout: 12s, on_failure: keep, replace: 0}}\n\
         defaults: {{ami: debian-12, ec2_size: m5.large, user: admin}}\npools: [{{name: w, size: {size}}}]\n"
    );
    std::fs::write(&path, text).expect("writes cluster.yml");
    path
}

/// Launches machines that run and never call home.
fn launched(lab: &Lab, master: &Master, name: &str, size: usize) {
    master.launched(&cluster(lab, name, size), 1);
    let run = || {
        let account = lab.account(name);
        let running = account.instances.iter().filter(|it| it.state == "running");
        running.count() == size
    };
    wait::until(run, SOON, "the machines run");
    let shown = || {
        let (_, all) = master.json(&["status"]);
        let of = all.iter().filter(|it| it["cluster"] == name);
        of.filter(|it| it["state"] == "running").count() == size
    };
    wait::until(shown, SOON, "the master has seen that");
}

fn cleaned(story: &mut Story, lab: &Lab, master: &Master, name: &str) {
    let (since, done) = (now(), master.cleanup(name));
    story.same(done.code, Some(0), &done.shown());
    story.check(lab.account(name).is_empty(), "nothing is left", name);
    let calls = lab.calls_since("TerminateInstances", since);
    story.check(calls <= 12, "few calls that terminate", calls);
    let calls = lab.calls_since("DescribeInstances", since);
    story.check(
        calls <= one_a_second(50, since),
        "few calls that list",
        calls,
    );
}

#[test]
fn what_is_gone_holds_up_nothing_under_the_packaged_policy() {
    let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/iam/aot-master.json");
    let policy = policy.to_str().expect("paths here are UTF-8");
    let Some(lab) = Lab::start_with(&["--no-machines", "--policy", policy]) else {
        return;
    };
    let mut story = Story::default();
    let mut master = Master::start(&lab, "gone", 7480);

    story.step("one of three is gone before the cleanup");
    launched(&lab, &master, "gone", 3);
    let ids = master.machine_ids();
    master.crash();
    lab.verb(&["reap", &ids["w2"]]);
    master.serve();
    cleaned(&mut story, &lab, &master, "gone");

    story.step("one that vanished is told, once it is not new");
    launched(&lab, &master, "old", 2);
    let ids = master.machine_ids();
    lab.verb(&["age", &ids["w1"], "600"]);
    master.run(&["list", "-q"]).expect(0);
    master.crash();
    lab.verb(&["reap", &ids["w1"]]);
    lab.verb(&["reap", &ids["w2"]]);
    master.serve();
    let gone = |name: &str| master.status(name)["phase"] == "gone";
    wait::until(|| gone("w1"), SOON, "the old one is known to be gone");
    story.check(!gone("w2"), "the other may be new", ());
    cleaned(&mut story, &lab, &master, "old");
    master.stop();
    lab.end();
    story.end();
}

#[test]
fn what_can_not_be_ended_is_told_with_few_calls() {
    let Some(lab) = Lab::start_with(&["--no-machines"]) else {
        return;
    };
    let mut story = Story::default();
    let master = Master::start(&lab, "kept", 7481);
    launched(&lab, &master, "kept", 2);
    let id = master.machine("w1");
    let protect = |code: &str| {
        lab.verb(&["fault", "TerminateInstances", code, "--count", "999"]);
    };
    for code in ["OperationNotPermitted", "UnauthorizedOperation"] {
        story.step(code);
        protect(code);
        let since = now();
        let done = master.run(&["terminate", "w1", "--yes"]);
        refused(&mut story, &done, &[&id, code]);
        let done = master.cleanup("kept");
        refused(&mut story, &done, &[&id, code]);
        let passed = || now() > since + 20.0;
        wait::until(passed, SOON, "twenty seconds have passed");
        let calls = lab.calls_since("TerminateInstances", since);
        // Two tries of each command, and the halves that say which machine it is.
        story.check(calls <= 12, "few calls that terminate", calls);
        let calls = lab.calls_since("DescribeInstances", since);
        story.check(
            calls <= one_a_second(40, since),
            "few calls that list",
            calls,
        );
        lab.verb(&["clear-faults"]);
        let state = master.status("w1")["state"].clone();
        story.same(state, "running", "nothing came of it later");
    }

    story.step("throttled for a while");
    let since = now();
    protect("RequestLimitExceeded");
    let cleanup = master.begin_cleanup("kept");
    let passed = || now() > since + 15.0;
    wait::until(passed, SOON, "fifteen seconds have passed");
    lab.verb(&["clear-faults"]);
    let done = cleanup.finish(SOON);
    story.same(done.code, Some(0), &done.shown());
    story.check(lab.account("kept").is_empty(), "nothing is left", ());
    master.stop();
    lab.end();
    story.end();
}

fn refused(story: &mut Story, done: &Output, words: &[&str]) {
    story.same(done.code, Some(1), &done.shown());
    let said = done.shown();
    for word in words {
        story.check(said.contains(word), word, &said);
    }
}
