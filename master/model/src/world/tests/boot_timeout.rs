//! Machines that never call home.

use super::*;

#[test]
fn a_silent_machine_is_explained_and_made_again_as_often_as_the_file_says() {
    let mut wanted = spec(&[2], &[]);
    wanted.launch.replace = 1;
    let mut sim = Sim::new();
    sim.silent.insert("a2".to_owned());
    sim.input(ask(&wanted, &["one"]));
    sim.run_until_quiet();
    let found = instance(&sim, "a2");
    assert_eq!((found.phase, found.attempt), (Phase::Failed, 2));
    assert!(
        found.note.contains("never called home") && found.explanation.contains("impaired"),
        "{} {}",
        found.note,
        found.explanation
    );
    assert_eq!((sim.alive(), sim.calls), (2, 2), "the first one is ended");
    sim.silent.clear();
    sim.input(ask(&wanted, &["one"]));
    sim.run_until_quiet();
    assert_eq!(
        (sim.phases(), sim.alive()),
        (BTreeSet::from([Phase::Ready]), 2)
    );
}

#[test]
fn a_replaced_machine_is_terminated_even_when_the_master_dies_before_the_call() {
    let mut wanted = spec(&[1], &[]);
    wanted.launch.replace = 1;
    let mut sim = Sim::new();
    sim.silent.insert("a1".to_owned());
    sim.input(ask(&wanted, &[]));
    sim.perform_all();
    sim.now += 601_000;
    sim.input(Input::Tick);
    while instance(&sim, "a1").attempt == 1 {
        sim.perform(0);
    }
    sim.crash(); // the intent to terminate is all that is left
    assert_eq!(sim.world.clusters[&cluster()].strays.len(), 1);
    sim.silent.clear();
    sim.agents.clear();
    sim.run_until_quiet();
    run(&mut sim, 10);
    assert_eq!(sim.alive(), 1);
    assert!(sim.world.clusters[&cluster()].strays.is_empty());
}
