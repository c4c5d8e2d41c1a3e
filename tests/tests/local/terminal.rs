//! What machines say, as a terminal gets it; and how stages end, as every view tells it.

use std::process::Command;
use std::time::Duration;

use aot_tests::rig::{LIMIT, Output, Rig};
use aot_tests::screen::Screen;
use aot_tests::{jobs, wait};
use serde_json::{Value, json};

/// A title (OSC), a colour by one C1 character, a turn of direction, a character that is not seen, a bell.
const MARKS: &str = "PWNED\x1b]0;PWNED\x07\u{9b}31m\u{202e}gnp\u{200b}";
/// The same for printf(1).
const PRINTF: &str = r"PWNED\033]0;PWNED\007\302\23331m\342\200\256gnp\342\200\213";

#[track_caller]
fn is_harmless(what: &str, shown: &str) {
    for mark in ["\x1b]", "\x07", "\u{9b}", "\u{202e}", "\u{200b}"] {
        assert!(
            !shown.contains(mark),
            "{what} shows {mark:?} raw:\n{shown:?}"
        );
    }
}

/// What a command shows in a terminal of its own, and its exit code.
fn in_terminal(command: Command) -> (String, Option<i32>) {
    let mut screen = Screen::start(command);
    let code = screen.ends();
    // What it wrote last is there once its terminal has been read to the end.
    let mut before = String::new();
    wait::until(
        || {
            let now = screen.shown();
            std::mem::replace(&mut before, now.clone()) == now
        },
        LIMIT,
        "the last of what it shows",
    );
    (screen.shown(), code)
}

/// A line of sh with the rig's environment; `$AOT` is the program.
fn sh(rig: &Rig, line: &str) -> Command {
    let like = rig.command(["status"]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", line]).current_dir(rig.dir());
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("AOT", like.get_program());
    command
}

#[test]
fn nothing_that_a_machine_says_plays_with_the_terminal() {
    let mut rig = Rig::local();
    rig.bundle(
        "lies",
        &format!("printf '{PRINTF}\\n'; printf '{PRINTF}\\n' >&2; exit 9\n"),
    );
    rig.cluster("{cluster: marks, provider: local, instances: [{name: head, stages: [{dir: lies}]}, {name: other}]}\n");
    let (shown, code) = in_terminal(rig.command(["launch", "cluster.yml"]));
    assert_eq!(code, Some(1), "{shown}");
    is_harmless("launch", &shown);
    assert!(
        shown.contains("| PWNED^[]0;PWNED^G"),
        "the last lines of the stage are shown:\n{shown}"
    );

    // Any user of a machine makes such names.
    let name = format!("/tmp/deep/$(printf '{PRINTF}')");
    let make = format!("mkdir -p /tmp/deep && mkfifo \"{name}\" && echo x > \"{name}.txt\"");
    rig.cli(["exec", "head", "--user", "nobody", "--", "sh", "-c", &make])
        .expect(0);
    let print = format!(
        "printf '{PRINTF}\\n'; printf '{PRINTF}\\n' >&2; printf '{PRINTF}' > /tmp/said; exit 3"
    );
    let bad_file = rig.file(
        "bad.yml",
        &format!("cluster: x\nprovider: local\n{MARKS}: 1\n"),
    );
    let bad_file = bad_file.display().to_string();
    let stat = format!("/tmp/{MARKS}");
    let rows: Vec<Vec<&str>> = vec![
        vec!["exec", "*", "--", "sh", "-c", &print],
        vec!["exec", "*", "--fold", "--", "sh", "-c", &print],
        vec!["exec", "*", "--", MARKS],
        vec!["exec", "head", "tail", "/tmp/said"],
        vec!["exec", "head", "stat", &stat],
        vec!["exec", "*", "facts"],
        vec!["exec", MARKS, "ping"],
        vec!["cp", "head:/tmp/deep", "got/"],
        vec!["cp", &stat, "head:/tmp/"],
        vec!["logs", "head"],
        vec!["status"],
        vec!["list", "-osp"],
        vec!["facts", "*"],
        vec!["inventory"],
        vec!["ssh-config", "--known-hosts", "known"],
        vec!["agents"],
        vec!["jobs"],
        vec!["plan", "cluster.yml"],
        vec!["plan", &bad_file],
        vec!["check", &bad_file],
        vec!["check", "--json", &bad_file],
        vec!["check", MARKS],
        vec!["schema"],
        vec!["apply", "--failed"],
        vec!["wait", "head", "--state", "failed"],
        vec!["wait", "head", "--state", MARKS],
        vec!["list", MARKS],
        vec![MARKS],
        vec!["serve", "--listen", MARKS],
        vec!["--config", MARKS, "status"],
        vec!["jobs", "show", MARKS],
        vec!["shell", MARKS],
    ];
    for colour in [false, true] {
        if colour {
            rig.set_env("NO_COLOR", "");
        }
        for row in &rows {
            let (shown, _) = in_terminal(rig.command(row));
            is_harmless(&format!("{row:?}"), &shown);
        }
    }
    for job in jobs::list(&rig) {
        let id = job["job"].as_str().expect("an id");
        let (shown, _) = in_terminal(rig.command(["jobs", "show", id]));
        is_harmless(id, &shown);
    }

    // Standard error is a terminal, standard output is none: each is judged by itself.
    let line = format!(
        "\"$AOT\" exec head -- sh -c \"{}\" > out",
        print.replace('\\', r"\\")
    );
    let (shown, code) = in_terminal(sh(&rig, &line));
    assert_eq!(code, Some(1), "{shown}");
    is_harmless("exec > out", &shown);
    assert!(
        shown.contains('!') && shown.contains("PWNED^[]0;PWNED^G"),
        "{shown:?}"
    );
    let out = std::fs::read_to_string(rig.dir().join("out")).expect("its output");
    assert_eq!(
        out,
        format!("head | {MARKS}\n"),
        "bytes stay as they are in a file"
    );
}

#[test]
fn a_ping_of_many_on_a_terminal_is_only_its_pongs() {
    let rig = Rig::local();
    rig.cluster("{cluster: ping, provider: local, pools: [{name: n, size: 5}]}\n");
    rig.launch().expect(0);
    let (shown, code) = in_terminal(rig.command(["exec", "*", "ping"]));
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(shown.matches("pong").count(), 5, "{shown}");
    assert!(!shown.contains("no output"), "{shown}");

    // Ready is what can be worked with.
    rig.cli(["stop", "n1", "--yes"]).expect(0);
    let waited = rig.cli(["wait", "n*", "--state", "ready", "--timeout", "2s"]);
    waited.expect(1);
    rig.cli(["start", "n1"]).expect(0);
    rig.cli(["wait", "n*", "--state", "ready", "--timeout", "100s"])
        .expect(0);
}

fn stage(rig: &Rig, instance: &str, index: usize) -> Value {
    rig.stages(instance)[index].clone()
}

#[track_caller]
fn summary(output: &Output) -> Value {
    output.json().last().expect("a last line")["summary"].clone()
}

const EVERY_END: &str = "
cluster: ends
provider: local
instances:
  - name: bad
    stages: [{dir: good, name: base}, {dir: bad, name: flaky}]
  - name: late
    stages: [{dir: hang, timeout: 5s}]
  - name: quiet
    stages: [{dir: hang, silence_timeout: 5s}]
  - name: again
    stages: [{dir: reboot}]
  - name: behind
    stages: [{dir: good, needs: [bad/1]}]
  - name: last
    stages: [{dir: good, needs: [behind/0]}]
";

#[test]
fn every_end_of_a_stage_is_told_as_what_it_is() {
    let rig = Rig::local();
    rig.bundle("good", "true\n");
    rig.bundle(
        "bad",
        "echo looking; echo 'disk /dev/xvdz is not there' >&2; exit 17\n",
    );
    rig.bundle("hang", "echo begun; sleep 4243\n");
    rig.bundle("reboot", "test \"$AOT_REBOOTS\" = 1 || exit 194\n");
    rig.cluster(EVERY_END);

    let launched = rig.cli_within(Duration::from_secs(120), ["launch", "--yes", "cluster.yml"]);
    launched.expect(1);
    let told = launched.stderr.clone();
    let once = |text: &str| assert_eq!(told.matches(text).count(), 1, "{text:?} in\n{told}");
    once("bad failed in flaky (exit 17, ");
    once("  ! disk /dev/xvdz is not there\n  | looking\n");
    once("late timed out in hang (");
    once("quiet timed out in hang (");
    once(" s): it printed nothing for too long");
    once("again stage reboot asked for a reboot (194)");
    assert!(!told.contains("failed: "), "nothing is told twice:\n{told}");
    assert!(launched.text().contains("2 blocked"), "{}", launched.text());

    let phases = || -> Vec<(String, String)> {
        let phase =
            |(name, view): (String, Value)| (name, view["phase"].as_str().unwrap_or("").to_owned());
        rig.status().into_iter().map(phase).collect()
    };
    let wanted = [
        ("again", "ready"),
        ("bad", "failed"),
        ("behind", "blocked"),
        ("last", "blocked"),
        ("late", "failed"),
        ("quiet", "failed"),
    ];
    assert_eq!(phases(), wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
    rig.cli([
        "wait",
        "behind,last",
        "--state",
        "blocked",
        "--timeout",
        "100s",
    ])
    .expect(0);

    let flaky = stage(&rig, "bad", 1);
    assert_eq!(
        (
            &flaky["name"],
            &flaky["state"],
            &flaky["outcome"],
            &flaky["exit_code"],
            &flaky["attempt"]
        ),
        (
            &json!("flaky"),
            &json!("failed"),
            &json!("failed"),
            &json!(17),
            &json!(1)
        )
    );
    assert_eq!(
        flaky["tail"],
        json!(["disk /dev/xvdz is not there", "looking"])
    );
    for name in ["late", "quiet"] {
        let hung = stage(&rig, name, 0);
        assert_eq!(
            (&hung["outcome"], &hung["exit_code"]),
            (&json!("timed_out"), &Value::Null),
            "{hung}"
        );
        assert_eq!(hung["tail"], json!(["begun"]), "{hung}");
        assert!(hung["seconds"].as_f64().expect("a number") >= 5.0, "{hung}");
    }
    assert_eq!(stage(&rig, "again", 0)["outcome"], "succeeded");
    let waits = stage(&rig, "behind", 0);
    assert_eq!(
        (&waits["state"], &waits["outcome"], &waits["tail"]),
        (&json!("waiting"), &Value::Null, &json!([]))
    );

    let table = rig.cli(["list", "-s"]).text();
    assert!(
        table.contains("flaky (2 of 2) failed (exit 17, "),
        "{table}"
    );
    assert!(table.contains("hang (1 of 1) timed out after "), "{table}");
    assert!(
        !table.contains("exit code 0") && !table.contains("exit 0"),
        "{table}"
    );
    let logs = rig.cli(["logs", "again"]).stderr;
    assert!(
        logs.contains("again/reboot -- attempt 1 asked for a reboot (194)"),
        "{logs}"
    );
    let logs = rig.cli(["logs", "late"]).stderr;
    assert!(logs.contains("attempt 1 timed out after "), "{logs}");

    let id = jobs::list(&rig)[0]["job"]
        .as_str()
        .expect("an id")
        .to_owned();
    let ends = jobs::show(&rig, &id).outcomes();
    let end = |name: &str| ends[name].as_str();
    assert_eq!(
        (end("bad"), end("late"), end("behind"), end("again")),
        ("failed", "timed_out", "failed", "succeeded")
    );

    rig.bundle("bad", "true\n");
    rig.bundle("hang", "true\n");
    let fixed = rig.launch();
    fixed.expect(0);
    assert_eq!(summary(&fixed), json!({"ready": 6}));
    assert_eq!(
        stage(&rig, "bad", 1)["tail"],
        json!([]),
        "what succeeded has no last words"
    );
}

#[test]
fn a_cancelled_launch_has_cancelled_targets() {
    let rig = Rig::local();
    rig.bundle("hang", "echo begun; sleep 4242\n");
    rig.cluster(
        "{cluster: hung, provider: local, pools: [{name: n, size: 2, stages: [{dir: hang}]}]}\n",
    );
    rig.cli(["launch", "--yes", "--detach", "cluster.yml"])
        .expect(0);
    let running = || {
        ["n1", "n2"].iter().all(|name| {
            let stages = rig.cli(["list", "-s", "--json", name]).json();
            stages
                .first()
                .is_some_and(|view| view["stages"][0]["state"] == "running")
        })
    };
    wait::until(running, LIMIT, "both stages run");
    let id = jobs::list(&rig)[0]["job"]
        .as_str()
        .expect("an id")
        .to_owned();
    let cancelled = rig.cli(["jobs", "cancel", &id]);
    cancelled.expect(0);
    assert!(
        cancelled
            .stderr
            .contains("2 cancelled: n[1-2] (cancelled: cancelled by ")
            || cancelled.stderr.contains("2 cancelled: n[1-2]"),
        "{}",
        cancelled.stderr
    );
    let shown = jobs::show(&rig, &id);
    for name in ["n1", "n2"] {
        let end = shown.of(name);
        assert_eq!(end["outcome"], "cancelled", "{end}");
        assert!(
            end["detail"]
                .as_str()
                .is_some_and(|why| why.contains("cancelled by")),
            "{end}"
        );
        let over = || stage(&rig, name, 0)["outcome"] == "cancelled";
        wait::until(over, LIMIT, "the stage's own end");
        assert_eq!(stage(&rig, name, 0)["exit_code"], Value::Null);
    }
}
