//! Jobs over many instances: their pace, what they are kept for, how they are followed, ended, and run again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aot_tests::jobs::{self, Shown};
use aot_tests::process;
use aot_tests::rig::{LIMIT, Output, Rig};
use aot_tests::wait;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A command that is at its end soon, in a debug build on a busy host too.
const SOON: Duration = Duration::from_secs(120);

fn with_nodes(count: u32) -> Rig {
    let rig = Rig::local();
    launch(&rig, count);
    rig
}

fn launch(rig: &Rig, count: u32) {
    rig.cluster(&format!(
        "
cluster: jobs
provider: local
pools: [{{name: node, size: {count}}}]
"
    ));
    rig.launch().expect(0);
}

fn names(count: u32) -> Vec<String> {
    (1..=count).map(|n| format!("node{n}")).collect()
}

/// When a command began and ended on each clone, in nanoseconds, by the lines that it left there.
#[track_caller]
fn times(rig: &Rig, file: &str) -> BTreeMap<String, (u64, u64)> {
    let mut found = BTreeMap::new();
    for machine in rig.machines() {
        let Some(text) = machine.read(file) else {
            continue;
        };
        let stamps: Vec<u64> = text
            .lines()
            .map(|line| line.parse().expect("a stamp"))
            .collect();
        let [began, ended] = stamps[..] else {
            panic!("{}: {stamps:?}", machine.name);
        };
        found.insert(machine.name, (began, ended));
    }
    found
}

/// A shell line that leaves its times in a file.
fn timed(file: &str, seconds: &str) -> String {
    format!("date +%s%N >> {file}; sleep {seconds}; date +%s%N >> {file}")
}

/// Most that ran at once.
fn most_at_once(times: &BTreeMap<String, (u64, u64)>) -> usize {
    let running = |at: u64| {
        let within = |(began, ended): &&(u64, u64)| *began <= at && at < *ended;
        times.values().filter(within).count()
    };
    let counts = times.values().map(|(began, _)| running(*began));
    counts.max().unwrap_or_default()
}

/// On which clones a file is.
fn where_is(rig: &Rig, file: &str) -> Vec<String> {
    let machines = rig.machines().into_iter();
    let there = machines.filter(|machine| machine.read(file).is_some());
    there.map(|machine| machine.name).collect()
}

/// Lets the commands that wait for /opt/go end, past their agents.
fn go(rig: &Rig) {
    for machine in rig.machines() {
        let init = machine.init_pid().expect("up");
        std::fs::write(format!("/proc/{init}/root/opt/go"), "").expect("a file in the clone");
    }
}

/// Command lines that begin so, of all that runs on the clones.
fn running(rig: &Rig, begin: &str) -> Vec<String> {
    let inits = rig.machines().into_iter().filter_map(|one| one.init_pid());
    let all = inits.flat_map(process::tree).map(process::command_line);
    all.filter(|line| line.starts_with(begin)).collect()
}

fn exec(rig: &Rig, flags: &[&str], target: &str, line: &str) -> Output {
    let mut words = vec!["exec", "--json"];
    words.extend(flags);
    words.extend([target, "--", "sh", "-c", line]);
    rig.cli(words)
}

/// Begins a command and gives its job's id.
#[track_caller]
fn detached(rig: &Rig, flags: &[&str], target: &str, line: &str) -> String {
    let output = exec(rig, &[&["--detach"], flags].concat(), target, line);
    output.expect(0);
    jobs::id(&output)
}

fn detail(end: &Value) -> &str {
    end["detail"].as_str().unwrap_or_default()
}

#[track_caller]
fn summary(shown: &Shown) -> Vec<(&str, u64)> {
    let counts = shown.summary.iter();
    counts
        .map(|(word, count)| (word.as_str(), *count))
        .collect()
}

#[test]
fn a_pace_is_kept() {
    let rig = with_nodes(6);

    let output = exec(
        &rig,
        &["--concurrency", "2"],
        "*",
        &timed("/opt/two", "0.3"),
    );
    output.expect(0);
    let ran = times(&rig, "/opt/two");
    assert_eq!(ran.keys().cloned().collect::<Vec<_>>(), names(6));
    assert!(most_at_once(&ran) <= 2, "{ran:?}");

    // The pace is reached: nobody ends before as many have begun as may. Where the file is, it has the time of the begin.
    let line = "date +%s%N > /opt/begins; mv /opt/begins /opt/half; until test -e /opt/go; do sleep 0.05; done; date +%s%N >> /opt/half";
    let id = detached(&rig, &["--concurrency", "50%"], "*", line);
    wait::until(
        || where_is(&rig, "/opt/half").len() == 3,
        SOON,
        "half of them run",
    );
    go(&rig);
    let shown = jobs::over(&rig, &id, LIMIT);
    assert_eq!(summary(&shown), [("succeeded", 6)]);
    let ran = times(&rig, "/opt/half");
    assert_eq!(ran.len(), 6, "{ran:?}");
    assert_eq!(most_at_once(&ran), 3, "{ran:?}");

    let flags = ["--concurrency", "3", "--batch-wait", "1s"];
    let output = exec(&rig, &flags, "*", &timed("/opt/batches", "0.1"));
    output.expect(0);
    let ran = times(&rig, "/opt/batches");
    let mut stamps: Vec<(u64, u64)> = ran.values().copied().collect();
    stamps.sort_unstable();
    assert_eq!(stamps.len(), 6, "{ran:?}");
    let first_over = stamps[..3].iter().map(|(_, ended)| *ended).max();
    let pause = stamps[3].0 - first_over.expect("three of them");
    assert!(pause >= 1_000_000_000, "a pause of {pause} ns: {ran:?}");
}

#[test]
fn a_canary_that_fails_stops_everything() {
    let rig = with_nodes(5);
    let output = exec(&rig, &["--canary", "2"], "*", "touch /opt/bad; exit 3");
    output.expect(1);
    let shown = jobs::shown(output);
    let ran = where_is(&rig, "/opt/bad");
    assert!((1..=2).contains(&ran.len()), "{ran:?}");
    for name in names(5) {
        let end = shown.of(&name);
        if ran.contains(&name) {
            assert_eq!(
                (&end["outcome"], &end["exit_code"]),
                (&json!("failed"), &json!(3))
            );
        } else {
            assert_eq!(end["outcome"], "cancelled", "{end}");
            assert!(detail(end).contains("canary"), "{end}");
        }
    }
    assert_eq!(shown.ends.len(), 5, "{}", shown.output.shown());

    let output = exec(&rig, &["--canary", "1"], "*", &timed("/opt/good", "0.3"));
    output.expect(0);
    let ran = times(&rig, "/opt/good");
    let mut stamps: Vec<(u64, u64)> = ran.values().copied().collect();
    stamps.sort_unstable();
    assert_eq!(stamps.len(), 5);
    assert!(stamps[0].1 <= stamps[1].0, "the canary runs alone: {ran:?}");
}

#[test]
fn too_many_errors_stop_a_job() {
    let rig = with_nodes(6);
    let flags = ["--concurrency", "1", "--max-errors", "1"];
    let output = exec(&rig, &flags, "*", "touch /opt/bad; exit 1");
    output.expect(1);
    let shown = jobs::shown(output);
    assert_eq!(
        where_is(&rig, "/opt/bad").len(),
        2,
        "{}",
        shown.output.shown()
    );
    assert_eq!(summary(&shown), [("cancelled", 4), ("failed", 2)]);
    let left = shown
        .ends
        .iter()
        .filter(|end| end["outcome"] == "cancelled");
    for end in left {
        assert!(detail(end).contains("--max-errors"), "{end}");
    }

    let flags = ["--concurrency", "1", "--max-errors", "1"];
    let line = "touch /opt/once; test $(hostname) != node2";
    let shown = jobs::shown(exec(&rig, &flags, "*", line));
    assert_eq!(
        summary(&shown),
        [("failed", 1), ("succeeded", 5)],
        "one is not too many"
    );

    for bad in [
        ["--concurrency", "0"],
        ["--concurrency", "x"],
        ["--max-errors", "101%"],
    ] {
        exec(&rig, &bad, "*", "touch /opt/never").expect(2);
    }
    assert!(where_is(&rig, "/opt/never").is_empty());
}

#[test]
fn an_absent_instance_is_absent_at_once_unless_the_command_is_kept_for_it() {
    let rig = with_nodes(2);
    let machine = rig.machine("node2");
    machine.lose_power();
    let gone = || rig.status()["node2"]["agent"]["connected"] == false;
    wait::until(gone, LIMIT, "the master to miss it");

    let line = "until test -e /opt/told; do sleep 0.05; done";
    let mut running = rig.spawn(["exec", "--json", "*", "--", "sh", "-c", line]);
    let absent = |line: &Value| line["instance"] == "node2" && line["outcome"] == "absent";
    running.until(absent, SOON, "who is absent is told while the other runs");
    rig.sh("node1", "touch /opt/told");
    let output = running.finish(LIMIT);
    output.expect(1);
    let outcomes = jobs::shown(output).outcomes();
    assert_eq!(outcomes["node1"], "succeeded");
    assert_eq!(outcomes["node2"], "absent");

    let begun = Instant::now();
    let output = exec(&rig, &["--queue", "2s"], "*", "echo here");
    output.expect(1);
    assert!(
        begun.elapsed() >= Duration::from_secs(2),
        "it is kept that long"
    );
    let shown = jobs::shown(output);
    assert_eq!(shown.outcomes()["node2"], "absent");

    let id = detached(
        &rig,
        &["--queue", "5m"],
        "*",
        "echo $(hostname) >> /opt/queued; echo done",
    );
    wait::until(
        || rig.machine("node1").read("/opt/queued").is_some(),
        SOON,
        "who is there does not wait",
    );
    assert_eq!(jobs::entry(&rig, &id)["ended"], Value::Null, "it is open");
    rig.kill_master(); // what is kept is kept on disk
    rig.cli(["start", "node2"]).expect(0);
    let shown = jobs::over(&rig, &id, LIMIT);
    assert_eq!(
        summary(&shown),
        [("succeeded", 2)],
        "{}",
        shown.output.shown()
    );
    assert_eq!(shown.of("node2")["stdout"], "done\n");
    assert_eq!(
        rig.machine("node2").read("/opt/queued").as_deref(),
        Some("node2\n")
    );
}

#[test]
fn an_interrupted_exec_can_be_followed_with_all_of_its_output() {
    let rig = with_nodes(1);
    let line = "seq 1 1000; touch /opt/begun; until test -e /opt/go; do sleep 0.05; done; seq 1001 2000; exit 4";
    let exec = rig.spawn(["exec", "--json", "node1", "--", "sh", "-c", line]);
    let machine = rig.machine("node1");
    wait::until(
        || machine.read("/opt/begun").is_some(),
        LIMIT,
        "the command to begin",
    );
    exec.signal(Signal::SIGINT);
    let left = exec.finish(SOON);
    left.expect(130);
    let id = jobs::list(&rig)
        .iter()
        .find(|job| job["kind"] == "exec")
        .and_then(|job| job["job"].as_str().map(str::to_owned))
        .expect("it is on record");
    assert!(
        left.stderr.contains(&id),
        "it says which job goes on: {}",
        left.shown()
    );

    let follow = rig.spawn(["jobs", "follow", "--json", &id]);
    let init = machine.init_pid().expect("up");
    std::fs::write(format!("/proc/{init}/root/opt/go"), "").expect("a file in the clone");
    let followed = follow.finish(LIMIT);
    followed.expect(1);
    let all: String = (1..=2000).map(|n| format!("{n}\n")).collect();
    let seen = jobs::shown(followed);
    let end = seen.of("node1");
    assert_eq!(
        (&end["outcome"], &end["exit_code"]),
        (&json!("failed"), &json!(4))
    );
    assert!(
        end["stdout"] == all.as_str(),
        "whole, from its first line: {}",
        seen.output.shown()
    );

    // One that is over is followed to its end at once.
    let again = rig.cli(["jobs", "follow", "--json", &id]);
    assert!(jobs::shown(again).of("node1")["stdout"] == all.as_str());
    assert!(jobs::show(&rig, &id).of("node1")["stdout"] == all.as_str());
}

#[test]
fn a_cancel_ends_the_whole_tree_and_tells_of_each() {
    let rig = with_nodes(2);
    // A child in a session of its own, one that ignores TERM, and one that was left behind by its parent.
    let line = "setsid sleep 86501 & (trap '' TERM; sleep 86502 & wait) & (sleep 86503 &) ; \
                touch /opt/begun; trap 'echo told; exit 9' TERM; wait; sleep 86504";
    let id = detached(&rig, &[], "*", line);
    let begun = || where_is(&rig, "/opt/begun").len() == 2;
    wait::until(begun, LIMIT, "the commands to begin");
    let theirs = || running(&rig, "sleep 8650");
    wait::until(|| theirs().len() >= 6, LIMIT, "all of both trees to run");

    // Long enough for all of them to hear TERM.
    let cancel = rig.cli(["jobs", "cancel", "--json", "--grace", "5s", &id]);

    assert!(matches!(cancel.code, Some(0 | 1)), "{}", cancel.shown());
    let report = jobs::shown(cancel);
    assert_eq!(
        summary(&report),
        [("cancelled", 2)],
        "{}",
        report.output.shown()
    );
    for name in names(2) {
        assert_eq!(report.of(&name)["outcome"], "cancelled");
    }
    wait::until(|| theirs().is_empty(), SOON, "nothing of the trees is left");
    let shown = jobs::show(&rig, &id);
    assert_eq!(summary(&shown), [("cancelled", 2)]);
    assert_eq!(shown.of("node1")["stdout"], "told\n", "TERM comes first");

    let again = rig.cli(["jobs", "cancel", &id]);
    assert_ne!(again.code, Some(0), "{}", again.shown());
    assert!(again.stderr.contains("has ended"), "{}", again.shown());
    let unknown = rig.cli(["jobs", "cancel", "job-00000000000000000000000000"]);
    assert!(matches!(unknown.code, Some(1..=3)), "{}", unknown.shown());
}

#[test]
fn a_cancel_reaches_an_agent_that_is_away() {
    let rig = with_nodes(1);
    let id = detached(&rig, &[], "node1", "touch /opt/begun; sleep 86511");
    let machine = rig.machine("node1");
    wait::until(
        || machine.read("/opt/begun").is_some(),
        LIMIT,
        "the command to begin",
    );
    let agent = machine.agent_pid().expect("an agent");
    process::send(agent, Signal::SIGSTOP);
    let mut cancel = rig.spawn(["jobs", "cancel", "--json", &id]);
    let lost = |line: &Value| line["outcome"] == "lost_contact";
    let unaware = cancel.until(lost, LIMIT, "it is not cancelled before the agent says so");
    assert_eq!(unaware["instance"], "node1");
    cancel.finish(SOON);
    process::send(agent, Signal::SIGCONT);

    let real = || jobs::show(&rig, &id).outcomes()["node1"] == "cancelled";
    wait::until(real, LIMIT, "the real outcome");
}

#[test]
fn a_retry_of_the_failed_runs_on_those_alone() {
    let rig = with_nodes(3);
    let line =
        "echo ran >> /opt/runs; echo $(hostname); test -e /opt/mended || test $(hostname) = node1";
    let first = exec(&rig, &[], "*", line);
    first.expect(1);
    let id = jobs::id(&first);
    rig.sh("node3", "touch /opt/mended");

    let second = rig.cli(["jobs", "retry", "--failed", "--json", &id]);
    second.expect(1);
    let shown = jobs::shown(second);
    let outcomes: Vec<(String, String)> = shown.outcomes().into_iter().collect();
    let wanted = [("node2", "failed"), ("node3", "succeeded")];
    assert_eq!(outcomes, wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(shown.of("node3")["stdout"], "node3\n");
    let new = jobs::id(&shown.output);
    assert_ne!(new, id);
    for (name, runs) in [("node1", 1), ("node2", 2), ("node3", 2)] {
        let text = rig.machine(name).read("/opt/runs").unwrap_or_default();
        assert_eq!(text.lines().count(), runs, "{name}");
    }
    assert_eq!(
        summary(&jobs::show(&rig, &id)),
        [("failed", 2), ("succeeded", 1)],
        "the old one stays"
    );

    rig.sh("node2", "touch /opt/mended");
    let third = rig.cli(["jobs", "retry", "--json", &id]);
    third.expect(0);
    assert_eq!(
        summary(&jobs::shown(third)),
        [("succeeded", 3)],
        "without --failed all of them"
    );
    let nothing = rig.cli([
        "jobs",
        "retry",
        "--failed",
        &jobs::id(&exec(&rig, &[], "*", "true")),
    ]);
    assert_eq!(
        nothing.code,
        Some(3),
        "nothing has failed: {}",
        nothing.shown()
    );
}

#[test]
fn output_past_the_cap_is_cut_and_marked() {
    let rig = with_nodes(1);
    let output = exec(
        &rig,
        &["--output-cap", "1000"],
        "node1",
        "seq 1 5000; echo whole >&2",
    );
    output.expect(0);
    let all: String = (1..=5000).map(|n| format!("{n}\n")).collect();
    let id = jobs::id(&output);
    for shown in [jobs::shown(output), jobs::show(&rig, &id)] {
        let end = shown.of("node1");
        let (out, err) = (jobs::bytes(end, "stdout"), jobs::bytes(end, "stderr"));
        assert!(
            all.as_bytes().starts_with(&out),
            "what is kept is the beginning"
        );
        assert!(
            (900..=1000).contains(&out.len()),
            "{} bytes are kept",
            out.len()
        );
        assert_eq!(end["truncated"], true, "{end}");
        let cut = all.len() + "whole\n".len() - out.len() - err.len();
        assert_eq!(end["cut_bytes"], cut, "{end}");
    }
    let plain = rig.cli(["exec", "--output-cap", "1000", "node1", "--", "seq", "5000"]);
    plain.expect(0);
    let said = format!("{}{}", plain.text(), plain.stderr);
    assert!(said.contains("cut"), "a person is told: {}", plain.shown());

    let raw = rig.cli(["exec", "--json", "node1", "--", "printf", r"\377\000a"]);
    let shown = jobs::show(&rig, &jobs::id(&raw));
    assert_eq!(shown.of("node1")["stdout_base64"], "/wBh");
    assert_eq!(shown.of("node1").get("stdout"), None);
}

#[test]
fn a_job_survives_its_master() {
    let rig = with_nodes(3);
    let line = "echo ran >> /opt/runs; seq 1 500; touch /opt/begun; \
                until test -e /opt/go; do sleep 0.05; done; seq 501 1000";
    let id = detached(&rig, &["--concurrency", "2"], "*", line);
    let begun = || where_is(&rig, "/opt/begun").len() == 2;
    wait::until(begun, LIMIT, "two of them to begin");

    rig.kill_master();
    go(&rig);

    let shown = jobs::over(&rig, &id, LIMIT);
    assert_eq!(
        summary(&shown),
        [("succeeded", 3)],
        "{}",
        shown.output.shown()
    );
    let all: String = (1..=1000).map(|n| format!("{n}\n")).collect();
    for name in names(3) {
        assert!(shown.of(&name)["stdout"] == all.as_str(), "{name}: whole");
        assert_eq!(
            rig.machine(&name).read("/opt/runs").as_deref(),
            Some("ran\n"),
            "{name}: once"
        );
    }
}

#[test]
fn a_time_is_up_for_the_whole_tree() {
    let rig = with_nodes(1);
    let output = exec(
        &rig,
        &["--timeout", "5s"],
        "node1",
        "echo one; setsid sleep 86521 & sleep 86522; echo two",
    );
    output.expect(1);
    let shown = jobs::shown(output);
    let end = shown.of("node1");
    assert_eq!(
        (&end["outcome"], &end["exit_code"]),
        (&json!("timed_out"), &Value::Null)
    );
    assert_eq!(end["stdout"], "one\n", "what it printed before is kept");
    let left = || running(&rig, "sleep 8652");
    wait::until(|| left().is_empty(), SOON, "nothing of it is left");
}

#[test]
fn output_is_dropped_when_there_is_too_much_or_it_is_too_old() {
    let mut rig = Rig::local();
    rig.set_env("AOT_KEEP_OUTPUT", "1MiB");
    launch(&rig, 1);
    let old = jobs::id(&exec(&rig, &[], "node1", "seq 1 120000"));
    let new = jobs::id(&exec(&rig, &[], "node1", "seq 120001 240000"));
    let dropped = |id: &str| {
        let listed = jobs::entry(&rig, id);
        listed["output_dropped"] == true
    };
    wait::until(
        || dropped(&old),
        LIMIT,
        "the oldest output goes when there is too much",
    );
    let shown = jobs::show(&rig, &old);
    assert_eq!(summary(&shown), [("succeeded", 1)], "its outcomes stay");
    assert_eq!(jobs::bytes(shown.of("node1"), "stdout"), b"");
    let plain = rig.cli(["jobs", "show", &old]);
    let said = format!("{}{}", plain.text(), plain.stderr);
    assert!(
        said.contains("no longer kept"),
        "it says so: {}",
        plain.shown()
    );
    assert!(!dropped(&new), "the newest stays");
    assert!(!jobs::bytes(jobs::show(&rig, &new).of("node1"), "stdout").is_empty());

    rig.cli(["shutdown"]).expect(0);
    rig.set_env("AOT_KEEP_JOBS", "1s");
    let listed = || {
        jobs::list(&rig)
            .iter()
            .any(|job| job["job"] == old.as_str())
    };
    wait::until(|| !listed(), LIMIT, "a job that is too old is forgotten");
    rig.cli(["jobs", "show", &old]).expect(3);
}

#[test]
fn a_target_that_is_no_target_is_shown_with_its_place() {
    let rig = with_nodes(4);
    for bad in ["node1 and", "(node1", "tag:", "re:[", "bogus:x"] {
        let output = rig.cli(["exec", bad, "ping"]);
        output.expect(2);
        assert!(output.stderr.contains('^'), "{bad}: {}", output.shown());
    }
    rig.cli(["exec", "nobody*", "ping"]).expect(3);
    rig.cli(["exec", "node1", "--exclude", "node*", "ping"])
        .expect(3);

    for (words, wanted) in [
        (
            &["--exclude", "node2", "*"][..],
            &["node1", "node3", "node4"][..],
        ),
        (&["--limit", "2", "*"], &["node1", "node2"]),
        (
            &["--limit", "2", "--exclude", "node1", "*"],
            &["node2", "node3"],
        ),
        (
            &["--exclude", "node1,node4", "pool:node"],
            &["node2", "node3"],
        ),
    ] {
        let output = rig.cli([&["exec", "--json"], words, &["--", "true"]].concat());
        output.expect(0);
        let seen: Vec<String> = jobs::shown(output).outcomes().into_keys().collect();
        assert_eq!(seen, wanted, "{words:?}");
        let listed = rig.cli([&["list", "--json"], words].concat());
        listed.expect(0);
        let seen: Vec<Value> = listed
            .json()
            .iter()
            .map(|line| line["name"].clone())
            .collect();
        assert_eq!(seen, wanted, "list {words:?}");
    }
}
