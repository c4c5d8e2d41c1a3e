//! Machines whose agents go in the middle of a launch and stay away, and runs of which nothing is said any more.

use super::jobs::{comes_back, deliver, leaves};
use super::needs::{Plans, launch, plans};
use super::*;

fn error(sim: &Sim) -> String {
    let launch = sim.world.clusters[&cluster()].launch.as_ref();
    launch.map_or(String::new(), |launch| launch.error.clone())
}

fn ticks(sim: &mut Sim, seconds: u64) {
    for _ in 0..seconds / 2 {
        deliver(sim);
        sim.now += 2_000;
        sim.input(Input::Tick);
    }
    deliver(sim);
}

/// Until stage 0 of every instance runs.
fn running(spec: &ClusterSpec, plans: &Plans) -> Sim {
    let mut sim = Sim::new();
    sim.input(launch(spec, plans));
    for _ in 0..10 {
        deliver(&mut sim);
        sim.agents_come();
        ticks(&mut sim, 2);
    }
    sim
}

fn state(sim: &Sim, name: &str) -> StageState {
    sim.world.instance(&key(name)).expect("is there").stages[0].state
}

fn launching(sim: &Sim) -> bool {
    sim.world.clusters[&cluster()].launching()
}

#[test]
fn a_launch_ends_by_its_time_when_a_machine_is_lost_in_the_middle_of_a_stage() {
    let spec = spec(&[2], &["t"]);
    let mut sim = running(&spec, &plans(&spec, &[&[&[]]]));
    assert_eq!(state(&sim, "a1"), StageState::Running);
    sim.silent.insert("a1".to_owned());
    leaves(&mut sim, "a1");
    ticks(&mut sim, 500);
    assert!(launching(&sim), "it may come back until the time is up");
    sim.runs_end();
    ticks(&mut sim, 200);
    assert!(!launching(&sim), "it waits for ever");
    assert_eq!(
        error(&sim),
        "1 of 2 instances ready; a1: contact lost in stage a0"
    );
    let job = sim.world.clusters[&cluster()]
        .launch
        .as_ref()
        .expect("one")
        .job;
    let verdict = sim.world.jobs[&job].targets[&key("a1").instance].clone();
    assert_eq!(verdict.expect("ended").outcome, Outcome::LostContact);
    let view = sim.world.view(&key("a1")).expect("is there");
    assert_eq!(view.note, "contact lost in stage a0");
    // It comes back after all, and its stage has ended well meanwhile.
    sim.silent.clear();
    comes_back(&mut sim, "a1");
    sim.run_until_quiet();
    let instance = sim.world.instance(&key("a1")).expect("is there");
    assert_eq!((instance.phase, instance.note.as_str()), (Phase::Ready, ""));
}

#[test]
fn those_who_wait_for_one_that_is_lost_do_not_keep_the_launch() {
    let spec = spec(&[1, 1], &["t"]);
    let mut sim = running(&spec, &plans(&spec, &[&[&[]], &[&["a1/0"]]]));
    assert_eq!(state(&sim, "b1"), StageState::Waiting);
    sim.silent.insert("a1".to_owned());
    leaves(&mut sim, "a1");
    ticks(&mut sim, 700);
    assert!(!launching(&sim), "it waits for ever");
    let text = error(&sim);
    assert!(text.contains("a1: contact lost in stage a0"), "{text}");
}

#[test]
fn a_reboot_has_its_time_and_no_more() {
    let spec = spec(&[1], &["t"]);
    let mut sim = running(&spec, &plans(&spec, &[&[&[]]]));
    sim.exit
        .insert("a1".to_owned(), aot_proto::limits::EXIT_REBOOT);
    sim.runs_end();
    deliver(&mut sim);
    assert_eq!(state(&sim, "a1"), StageState::Rebooting);
    sim.silent.insert("a1".to_owned());
    leaves(&mut sim, "a1");
    ticks(&mut sim, LONGEST_REBOOT_MS / 1000 - 10);
    assert!(launching(&sim), "a machine may take long to come up");
    ticks(&mut sim, 30);
    assert!(!launching(&sim), "it waits for ever");
    assert!(
        error(&sim).contains("has not come back from the reboot"),
        "{}",
        error(&sim)
    );
}

#[test]
fn a_stage_that_its_agent_does_not_end_by_its_timeout_ends_here() {
    let spec = spec(&[1], &["t"]);
    let mut plans = plans(&spec, &[&[&[]]]);
    for stage in plans.values_mut().flatten() {
        stage.timeout = Some(Duration::from_secs(5));
    }
    let mut sim = running(&spec, &plans);
    ticks(&mut sim, 20);
    assert_eq!(
        state(&sim, "a1"),
        StageState::Running,
        "its agent has its time"
    );
    ticks(&mut sim, 60);
    assert_eq!(state(&sim, "a1"), StageState::Failed);
    assert!(!launching(&sim));
    let instance = sim.world.instance(&key("a1")).expect("is there");
    assert!(instance.note.contains("timed out"), "{}", instance.note);
}

#[test]
fn a_cancelled_command_of_which_nothing_is_said_is_over() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.run_until_quiet();
    let job = exec(&mut sim, &["a1"]);
    deliver(&mut sim);
    sim.input(Input::Cancel {
        cluster: cluster(),
        job,
        grace_ms: 20_000,
        operator: "test".to_owned(),
    });
    ticks(&mut sim, 30);
    assert_eq!(outcome(&sim, job, "a1"), None, "its agent has its time");
    ticks(&mut sim, 60);
    assert_eq!(outcome(&sim, job, "a1"), Some(Outcome::Cancelled));
}

#[test]
fn a_command_without_a_limit_is_never_given_up() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.run_until_quiet();
    let job = exec(&mut sim, &["a1"]);
    ticks(&mut sim, 10_000);
    assert_eq!(outcome(&sim, job, "a1"), None);
}
