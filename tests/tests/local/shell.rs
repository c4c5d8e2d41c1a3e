//! `shell`: a terminal on a clone, with the real binaries in a real terminal, and every way that one can end.

use std::process::Stdio;
use std::time::Duration;

use aot_tests::machine::LocalMachine;
use aot_tests::process;
use aot_tests::rig::{LIMIT, Output, Rig, Running};
use aot_tests::screen::Screen;
use aot_tests::wait;
use nix::sys::signal::Signal;
use serde_json::Value;

/// After this nothing of a terminal that was hung up is left: its grace of 5 s, and time to spare.
const HUNG_UP_WITHIN: Duration = Duration::from_secs(120);

fn launched() -> Rig {
    let rig = Rig::local();
    rig.cluster(
        "{cluster: shell, provider: local, instances: [{name: head}], pools: [{name: node, size: 2}]}\n",
    );
    rig.launch().expect(0);
    rig
}

fn alone() -> Rig {
    let rig = Rig::local();
    rig.cluster("{cluster: shell, provider: local, instances: [{name: head}]}\n");
    rig.launch().expect(0);
    rig
}

/// A terminal of sh on `head`, at its prompt.
fn at_prompt(rig: &Rig) -> Screen {
    let mut screen = Screen::start(rig.command(["shell", "head", "--", "sh"]));
    screen.waits_for("# ");
    screen.types("PS1='rea''dy> '\r");
    screen.waits_for("ready> ");
    assert!(screen.is_raw());
    screen.clear();
    screen
}

/// With nothing on standard input.
fn shell(rig: &Rig, args: &[&str]) -> Output {
    rig.cli(["shell"].iter().chain(args))
}

/// With this on standard input.
fn shell_with(rig: &Rig, input: &str, args: &[&str]) -> Output {
    let input = std::fs::File::open(rig.file("input", input)).expect("the file");
    let command = rig.command(["shell"].iter().chain(args));
    Running::start_with(command, Stdio::from(input)).finish(LIMIT)
}

/// Processes in a clone that run this very command line.
fn running(machine: &LocalMachine, line: &str) -> Vec<u32> {
    let init = machine.init_pid().expect("it is up");
    let mut found = process::tree(init);
    found.retain(|pid| process::command_line(*pid) == line);
    found
}

#[track_caller]
fn begins(machine: &LocalMachine, line: &str) {
    wait::until(|| !running(machine, line).is_empty(), HUNG_UP_WITHIN, line);
}

#[track_caller]
fn nothing_is_left(machine: &LocalMachine, line: &str) {
    let gone = || running(machine, line).is_empty() && keepers(machine).is_empty();
    wait::until(gone, HUNG_UP_WITHIN, &format!("the end of {line}"));
}

/// Whoever owns what runs in the clone's terminals.
fn keepers(machine: &LocalMachine) -> Vec<u32> {
    let init = machine.init_pid().expect("it is up");
    let mut found = process::tree(init);
    found.retain(|pid| process::command_line(*pid).contains("exe terminal "));
    found
}

/// The newest job.
fn last_job(rig: &Rig) -> Value {
    let output = rig.cli(["jobs", "--json"]);
    output.expect(0);
    output.json().remove(0)
}

#[test]
fn the_exit_code_is_that_of_the_program_and_it_is_on_record() {
    let rig = launched();
    for (script, code, outcome) in [
        ("exit 0", 0, "succeeded"),
        ("exit 7", 7, "failed"),
        ("kill -9 $$", 137, "failed"),
    ] {
        shell(&rig, &["head", "--", "sh", "-c", script]).expect(code);
        let job = last_job(&rig);
        assert_eq!(job["summary"][outcome], 1, "{job}");
        assert_eq!(job["kind"], "shell");
        assert_eq!(job["what"], format!("shell head -- sh -c {script}"));
        assert_eq!(job["operator"], super::lifecycle::me());
        assert!(job["ended"].is_string(), "{job}");
    }
    shell(&rig, &["head", "--", "no-such-program"]).expect(127);

    for (args, code, says) in [
        (&["n*"][..], 2, "node1, node2"),
        (&["nobody"], 3, "nobody"),
        (&["head", "--user", "nobody-here"], 1, "nobody-here"),
        (&["head", "--json"], 2, "--json"),
    ] {
        let output = shell(&rig, args);
        output.expect(code);
        assert!(output.stderr.contains(says), "{}", output.shown());
    }

    rig.cli(["stop", "--yes", "node1"]).expect(0);
    let output = shell(&rig, &["node1"]);
    output.expect(1);
    assert!(
        output.stderr.contains("not connected"),
        "{}",
        output.shown()
    );
    assert_eq!(last_job(&rig)["summary"]["absent"], 1);
}

#[test]
fn a_login_has_its_user_its_home_and_its_terminal() {
    let rig = alone();
    let output = shell(
        &rig,
        &[
            "head",
            "--",
            "sh",
            "-c",
            "id -un; pwd; echo $AOT_INSTANCE; tty; ps -o args= -p $$",
        ],
    );
    output.expect(0);
    let text = output.text().replace('\r', "");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "root", "{text}");
    assert_eq!(lines[2], "head", "{text}");
    assert!(lines[3].starts_with("/dev/pts/"), "{text}");

    let output = shell(
        &rig,
        &[
            "head",
            "--user",
            "nobody",
            "--",
            "sh",
            "-c",
            "id -un; test -r /dev/tty && test -w $(tty) && echo mine",
        ],
    );
    output.expect(0);
    let text = output.text().replace('\r', "");
    assert!(
        text.starts_with("nobody\n") || text.contains("\nnobody\n"),
        "{text}"
    );
    assert!(text.ends_with("mine\n"), "{text}");

    // Without a command: the login shell, which ends at the end of the input.
    let output = shell_with(&rig, "echo $0; exit 9\n", &["head"]);
    output.expect(9);
    assert!(
        output.text().contains("\n-"),
        "its name says so: {}",
        output.shown()
    );
}

#[test]
fn without_a_terminal_the_end_of_the_input_is_typed_and_ten_megabytes_come_whole() {
    let rig = alone();
    let output = shell_with(
        &rig,
        "a line\nno line",
        &[
            "head",
            "--",
            "sh",
            "-c",
            "stty -echo -opost; cat; echo over",
        ],
    );
    output.expect(0);
    assert!(
        output.text().ends_with("a line\nno lineover\n"),
        "{}",
        output.shown()
    );

    let output = shell(
        &rig,
        &["head", "--", "sh", "-c", "stty -echo -opost; seq 1500000"],
    );
    output.expect(0);
    let wanted: String = (1..=1_500_000).map(|n| format!("{n}\n")).collect();
    assert!(wanted.len() > 10_000_000);
    let text = output.text();
    // The end of the input may have been echoed before the echo was switched off.
    let text = text.trim_start_matches(['^', 'D', '\u{8}', '\u{4}']);
    assert!(text == wanted, "{} bytes of {}", text.len(), wanted.len());
}

#[test]
fn ctrl_c_goes_there_the_size_follows_and_the_shell_lives_on() {
    let rig = alone();
    let machine = rig.machine("head");
    let mut screen = at_prompt(&rig);
    screen.types("stty size\r");
    screen.waits_for("24 80");
    screen.resize(132, 50);
    screen.signal(Signal::SIGWINCH);
    screen.types("sleep 4301\r");
    begins(&machine, "sleep 4301");
    screen.clear();
    screen.types("\x03");
    screen.waits_for("ready> ");
    nothing_runs(&machine, "sleep 4301");
    screen.types("stty size; echo ali''ve\r");
    screen.waits_for("50 132");
    screen.waits_for("alive");
    screen.types("~?\r");
    screen.waits_for("Supported escapes");
    screen.types("exit 5\r");
    assert_eq!(screen.ends(), Some(5));
    assert!(!screen.is_raw());
    nothing_is_left(&machine, "sh");
}

#[track_caller]
fn nothing_runs(machine: &LocalMachine, line: &str) {
    wait::until(|| running(machine, line).is_empty(), HUNG_UP_WITHIN, line);
}

#[test]
fn whoever_leaves_or_is_ended_has_the_terminal_back_and_leaves_nothing_there() {
    let rig = alone();
    let machine = rig.machine("head");

    let mut screen = at_prompt(&rig);
    screen.types("printf '\\033[?1049h\\033[?25l'; (trap '' HUP; exec sleep 4302)\r");
    begins(&machine, "sleep 4302");
    screen.clear();
    screen.types("\r~.");
    assert_eq!(screen.ends(), Some(130));
    assert!(!screen.is_raw());
    screen.waits_for("left head");
    screen.waits_for("\u{1b}[?1049l");
    screen.waits_for("\u{1b}[?25h");
    nothing_is_left(&machine, "sleep 4302");
    assert_eq!(last_job(&rig)["summary"]["cancelled"], 1);

    for (signal, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
        (Signal::SIGINT, 130),
    ] {
        let mut screen = at_prompt(&rig);
        screen.types("sleep 4303\r");
        begins(&machine, "sleep 4303");
        screen.signal(signal);
        assert_eq!(screen.ends(), Some(code), "{signal}");
        assert!(!screen.is_raw(), "{signal}");
        nothing_is_left(&machine, "sleep 4303");
    }

    // What has a session of its own is not the terminal's.
    let mut screen = at_prompt(&rig);
    screen.types("setsid sleep 4304 &\r");
    begins(&machine, "sleep 4304");
    screen.types("exit\r");
    assert_eq!(screen.ends(), Some(0));
    nothing_is_left(&machine, "sh");
    assert_eq!(running(&machine, "sleep 4304").len(), 1);
}

#[test]
fn a_cancelled_job_is_hung_up() {
    let rig = alone();
    let mut screen = at_prompt(&rig);
    let job = last_job(&rig);
    assert!(job["ended"].is_null(), "{job}");
    rig.cli(["jobs", "cancel", job["job"].as_str().expect("an id")]);
    assert_eq!(screen.ends(), Some(1));
    assert!(!screen.is_raw());
    screen.waits_for(&format!("cancelled by {}", super::lifecycle::me()));
    nothing_is_left(&rig.machine("head"), "sh");
}

#[test]
fn a_killed_agent_or_master_gives_the_terminal_back_and_what_ran_there_is_killed() {
    let rig = alone();
    let machine = rig.machine("head");

    let mut screen = at_prompt(&rig);
    screen.types("(trap '' HUP; exec sleep 4305)\r");
    begins(&machine, "sleep 4305");
    let killed = machine.kill_agent();
    assert_eq!(screen.ends(), Some(4));
    assert!(!screen.is_raw());
    screen
        .waits_for("the connection to its agent broke; what ran in the terminal is hung up there");
    nothing_is_left(&machine, "sleep 4305");
    assert_eq!(last_job(&rig)["summary"]["lost_contact"], 1);
    is_back(&rig, killed);

    let mut screen = at_prompt(&rig);
    screen.types("(trap '' HUP; exec sleep 4306)\r");
    begins(&machine, "sleep 4306");
    rig.kill_master();
    assert_eq!(screen.ends(), Some(4));
    assert!(!screen.is_raw());
    screen.waits_for("lost the master; what ran in the terminal of head is hung up there");
    nothing_is_left(&machine, "sleep 4306");
    let lost = || last_job(&rig)["summary"]["lost_contact"] == 1;
    wait::until(lost, HUNG_UP_WITHIN, "the end on record");
}

/// Waits until another agent than this one, which ends, answers for `head`.
#[track_caller]
fn is_back(rig: &Rig, gone: u32) {
    wait::until(|| !process::alive(gone), LIMIT, "the end of the agent");
    let answers = || rig.cli(["exec", "head", "ping"]).code == Some(0);
    wait::until(answers, LIMIT, "the next agent");
}

/// Stops the agent while a shell is at its prompt; how that ends. The next agent is there then.
#[track_caller]
fn stopped_at_prompt(rig: &Rig, machine: &LocalMachine) -> i32 {
    let mut screen = at_prompt(rig);
    let stopped = machine.agent_pid().expect("an agent");
    process::send(stopped, Signal::SIGTERM);
    let code = screen.ends().expect("it ends by itself");
    let signal = code - 128;
    screen.waits_for(&format!("ended by signal {signal}: the agent was stopped"));
    nothing_is_left(machine, "sh");
    is_back(rig, stopped);
    code
}

#[test]
fn a_stopped_agent_hangs_up_and_says_so() {
    let rig = alone();
    let machine = rig.machine("head");
    // On a machine that is busy for all of the 5 s that it has, a shell is killed like one that does not listen.
    let mut codes = (0..3).map(|_| stopped_at_prompt(&rig, &machine));
    assert_eq!(codes.find(|code| *code != 137), Some(129));

    let mut screen = at_prompt(&rig);
    screen.types("trap '' HUP; exec sleep 4307\r");
    begins(&machine, "sleep 4307");
    process::send(machine.agent_pid().expect("an agent"), Signal::SIGTERM);
    assert_eq!(screen.ends(), Some(137));
    screen.waits_for("ended by signal 9: the agent was stopped");
    nothing_is_left(&machine, "sleep 4307");
}
