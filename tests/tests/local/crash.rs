//! What is killed, and what comes of it: the master at five points of a launch, an agent, a machine. Nothing runs twice
//! that need not, nothing is made twice, nothing is lost: with records in a file, and in a database.

use aot_tests::process;
use aot_tests::rig::{LIMIT, Rig};
use aot_tests::wait;
use nix::sys::signal::Signal;
use serde_json::json;

on_both_stores![
    master_killed_before_the_machines_answer,
    master_killed_after_the_machines_are_launched,
    master_killed_at_enrolment,
    master_killed_in_the_first_stage,
    master_killed_after_the_second_stage_began,
    a_launch_goes_on_as_soon_as_a_master_is_back,
    an_agent_killed_in_a_stage_loses_nothing,
    a_stage_that_ends_while_there_is_no_agent_is_reported_later,
    a_machine_that_loses_power_in_a_stage_runs_it_again,
    a_machine_that_is_rebooted_in_a_stage_runs_it_again,
    master_and_agent_killed_together_in_a_stage,
    an_interrupted_command_says_how_to_go_on_and_the_launch_goes_on,
];

/// Leaves a line at its start and, when the file that it waits for is there, one at its end.
const WAITS: &str = "echo \"begin $AOT_ATTEMPT\" | tee -a /opt/ledger
until test -e /opt/go; do sleep 0.05; done
echo \"end $AOT_ATTEMPT\" | tee -a /opt/ledger
";

fn one_machine(rig: &Rig) {
    rig.bundle("waits", WAITS);
    rig.bundle("after", "echo after >> /opt/ledger\n");
    rig.cluster(
        "
cluster: crash
provider: local
instances:
  - name: head
    bootstrap_sequence: [{dir: waits}, {dir: after}]
",
    );
}

/// Launches in the background and waits until the first stage runs.
fn launch_into_the_stage(rig: &Rig) -> aot_tests::rig::Running {
    one_machine(rig);
    let launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    ledger_has(rig, "begin 1");
    launch
}

#[track_caller]
fn ledger_has(rig: &Rig, line: &str) {
    let read = || rig.machines().first()?.read("/opt/ledger");
    let has = || read().is_some_and(|text| text.lines().any(|found| found == line));
    wait::until(has, LIMIT, &format!("{line:?} in the ledger"));
}

/// Kills the master at the first event of this kind: the launch brings the next one, and joins itself there.
#[track_caller]
fn master_killed_at(rig: &Rig, event: &str, stage: Option<u64>) {
    let stage_of =
        |n: u32| format!("echo {n} >> /opt/ledger\nsleep 0.7\necho {n} done >> /opt/ledger\n");
    rig.bundle("first", &stage_of(0));
    rig.bundle("second", &stage_of(1));
    rig.cluster(
        "
cluster: killed
provider: local
instances:
  - {name: head, bootstrap_sequence: [{dir: first}, {dir: second}]}
pools:
  - {name: node, size: 2, bootstrap_sequence: [{dir: first}, {dir: second}]}
",
    );
    let mut launch = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    launch.until(
        |line| line["event"] == event && stage.is_none_or(|stage| line["stage"] == stage),
        LIMIT,
        event,
    );
    let before: Vec<_> = rig.machines();
    let first = rig.kill_master();
    launch.finish(LIMIT).expect(0);

    let again = rig.launch();

    again.expect(0);
    assert_eq!(
        again.json().last().expect("a last line")["summary"],
        json!({"ready": 3})
    );
    assert_ne!(rig.master_pid().expect("a new master"), first);
    let after = rig.machine_ids();
    assert_eq!(after.keys().collect::<Vec<_>>(), ["head", "node1", "node2"]);
    assert_eq!(
        rig.machines().len(),
        3,
        "no second set of machines: {:?}",
        rig.machines()
    );
    for machine in before {
        let name = &machine.name;
        assert_eq!(after[name], machine.id, "{name} kept its machine");
    }
    let folders = std::fs::read_dir(rig.state_dir().join("local/machines")).expect("the folders");
    assert_eq!(folders.count(), 3, "no folder that is no machine");
    for name in after.keys() {
        assert_eq!(
            rig.sh(name, "cat /opt/ledger"),
            "0\n0 done\n1\n1 done",
            "{name}: each stage once"
        );
        for stage in rig.stages(name) {
            assert_eq!(stage["attempt"], 1, "{name}: {stage}");
        }
    }
}

fn master_killed_before_the_machines_answer(rig: &Rig) {
    master_killed_at(rig, "instance-requested", None);
}

fn master_killed_after_the_machines_are_launched(rig: &Rig) {
    master_killed_at(rig, "instance-launched", None);
}

fn master_killed_at_enrolment(rig: &Rig) {
    master_killed_at(rig, "instance-enrolled", None);
}

fn master_killed_in_the_first_stage(rig: &Rig) {
    master_killed_at(rig, "stage-started", Some(0));
}

fn master_killed_after_the_second_stage_began(rig: &Rig) {
    master_killed_at(rig, "stage-started", Some(1));
}

fn a_launch_goes_on_as_soon_as_a_master_is_back(rig: &Rig) {
    let launch = launch_into_the_stage(rig);
    launch.signal(Signal::SIGKILL); // else it brings the next master
    launch.finish(LIMIT);
    rig.kill_master();
    std::fs::write(
        format!(
            "/proc/{}/root/opt/go",
            rig.machine("head").init_pid().expect("up")
        ),
        "",
    )
    .expect("the stage goes on without a master");
    ledger_has(rig, "end 1");

    // No second launch: any command brings a master, and that is enough.
    rig.cli(["wait", "head", "--state", "ready", "--timeout", "100s"])
        .expect(0);

    assert_eq!(rig.sh("head", "cat /opt/ledger"), "begin 1\nend 1\nafter");
    let logs = rig.cli(["logs", "head", "--stage", "0"]).text();
    assert!(logs.contains("begin 1") && logs.contains("end 1"), "{logs}");
    let jobs = rig.cli(["jobs", "--json"]);
    let launched = jobs.one(|job| job["kind"] == "launch");
    assert_eq!(launched["summary"], json!({"succeeded": 1}), "{launched}");
}

fn an_agent_killed_in_a_stage_loses_nothing(rig: &Rig) {
    let launch = launch_into_the_stage(rig);
    let machine = rig.machine("head");

    let old = machine.kill_agent();
    let new = wait::some(
        || machine.agent_pid().filter(|pid| *pid != old),
        LIMIT,
        "a new agent",
    );
    assert_ne!(old, new);
    let connected = || rig.status()["head"]["agent"]["connected"] == true;
    wait::until(connected, LIMIT, "the new agent's session");
    rig.sh("head", "touch /opt/go");

    let output = launch.finish(LIMIT);
    output.expect(0);
    assert_eq!(rig.sh("head", "cat /opt/ledger"), "begin 1\nend 1\nafter");
    assert_eq!(rig.stages("head")[0]["attempt"], 1);
    assert!(
        output.events("stage-interrupted").is_empty(),
        "{}",
        output.shown()
    );
    let logs = rig.cli(["logs", "head", "--stage", "0"]);
    assert_eq!(
        logs.text(),
        "head/waits | begin 1\nhead/waits | end 1\n",
        "output whole, once: {}",
        logs.shown()
    );
}

fn a_stage_that_ends_while_there_is_no_agent_is_reported_later(rig: &Rig) {
    let launch = launch_into_the_stage(rig);
    let machine = rig.machine("head");
    let init = machine.init_pid().expect("up");

    // Frozen first, so that pid 1 starts no new agent before the stage has ended.
    let agent = machine.agent_pid().expect("an agent");
    process::send(agent, Signal::SIGSTOP);
    std::fs::write(format!("/proc/{init}/root/opt/go"), "").expect("a file in the clone");
    ledger_has(rig, "end 1");
    process::kill_hard(agent);

    launch.finish(LIMIT).expect(0);
    assert_eq!(rig.sh("head", "cat /opt/ledger"), "begin 1\nend 1\nafter");
    assert_eq!(rig.stages("head")[0]["attempt"], 1);
}

fn a_machine_that_loses_power_in_a_stage_runs_it_again(rig: &Rig) {
    let mut launch = launch_into_the_stage(rig);
    let machine = rig.machine("head");
    let boot = machine.boot_id();

    machine.lose_power();
    // As the provider starts it: there is no command for that yet.
    rig.cli(["machine-run", machine.dir.to_str().expect("a path")])
        .expect(0);

    let interrupted = launch.event("stage-interrupted", "head", LIMIT);
    assert_eq!(
        (&interrupted["stage"], &interrupted["attempt"]),
        (&json!(0), &json!(1))
    );
    ledger_has(rig, "begin 2");
    rig.sh("head", "touch /opt/go");
    launch.finish(LIMIT).expect(0);
    assert_ne!(machine.boot_id(), boot);
    assert_eq!(
        rig.sh("head", "cat /opt/ledger"),
        "begin 1\nbegin 2\nend 2\nafter"
    );
    assert_eq!(rig.stages("head")[0]["attempt"], 2);
    assert_eq!(rig.machine("head").id, machine.id);
}

fn a_machine_that_is_rebooted_in_a_stage_runs_it_again(rig: &Rig) {
    let mut launch = launch_into_the_stage(rig);
    let machine = rig.machine("head");
    let boot = machine.boot_id();

    process::send(machine.supervisor_pid().expect("up"), Signal::SIGHUP);

    let interrupted = launch.event("stage-interrupted", "head", LIMIT);
    assert_eq!(
        (&interrupted["stage"], &interrupted["attempt"]),
        (&json!(0), &json!(1))
    );
    ledger_has(rig, "begin 2");
    rig.sh("head", "touch /opt/go");
    launch.finish(LIMIT).expect(0);
    assert_ne!(machine.boot_id(), boot);
    assert_eq!(
        rig.sh("head", "cat /opt/ledger"),
        "begin 1\nbegin 2\nend 2\nafter"
    );
}

fn master_and_agent_killed_together_in_a_stage(rig: &Rig) {
    let launch = launch_into_the_stage(rig);
    let machine = rig.machine("head");
    rig.kill_master();
    machine.kill_agent();
    let init = machine.init_pid().expect("up");
    std::fs::write(format!("/proc/{init}/root/opt/go"), "").expect("a file in the clone");

    launch.finish(LIMIT).expect(0);

    assert_eq!(rig.sh("head", "cat /opt/ledger"), "begin 1\nend 1\nafter");
    assert_eq!(rig.stages("head")[0]["attempt"], 1);
}

fn an_interrupted_command_says_how_to_go_on_and_the_launch_goes_on(rig: &Rig) {
    let launch = launch_into_the_stage(rig);
    launch.signal(Signal::SIGINT);
    let output = launch.finish(LIMIT);
    output.expect(130);
    assert!(
        output.stderr.contains("aot-master status"),
        "{}",
        output.shown()
    );

    let joined = rig.spawn(["launch", "--json", "--yes", "cluster.yml"]);
    rig.sh("head", "touch /opt/go");
    joined.finish(LIMIT).expect(0);
    assert_eq!(
        rig.sh("head", "cat /opt/ledger"),
        "begin 1\nend 1\nafter",
        "joined, not begun anew"
    );
}
