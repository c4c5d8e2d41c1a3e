//! What a launch needs before its first machine.

use super::*;
use crate::spec::{GroupAction, SecurityGroupSpec};

fn group() -> SecurityGroupSpec {
    SecurityGroupSpec {
        name: "g".into(),
        action: GroupAction::Create,
        allow_all_own_traffic: true,
        allow_ssh_from: Vec::new(),
        allow_inbound: Vec::new(),
    }
}

#[test]
fn no_machine_is_asked_for_before_its_prerequisites_are_there() {
    let mut sim = Sim::new();
    sim.no_prerequisites = Some(ErrorKind::Throttled);
    sim.input(ask(&spec(&[1], &[]), &[]));
    run(&mut sim, 20);
    assert_eq!(sim.calls, 0);
    assert!(sim.prepares > 2, "it is tried again");
    sim.crash();
    sim.no_prerequisites = None;
    sim.run_until_quiet();
    assert_eq!((sim.calls, last_code(&sim)), (1, 0));
    sim.input(ask(&spec(&[1], &[]), &[]));
    let before = sim.prepares;
    sim.run_until_quiet();
    assert_eq!(sim.prepares, before, "nothing to make, nothing to stand on");
}

#[test]
fn prerequisites_that_cannot_be_had_end_the_launch_without_a_machine() {
    let mut sim = Sim::new();
    sim.no_prerequisites = Some(ErrorKind::Denied);
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.perform_all();
    assert_eq!((sim.calls, last_code(&sim)), (0, 1));
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    assert_eq!(instance(&sim, "a1").note, "no");
    sim.no_prerequisites = None;
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
}

#[test]
fn groups_are_looked_after_by_every_launch_even_when_no_machine_is_missing() {
    let mut wanted = spec(&[1], &[]);
    wanted.security_groups.push(group());
    let mut sim = Sim::new();
    sim.input(ask(&wanted, &[]));
    sim.run_until_quiet();
    assert_eq!(sim.prepares, 1);
    sim.input(ask(&wanted, &[]));
    sim.run_until_quiet();
    assert_eq!((sim.prepares, sim.calls, last_code(&sim)), (2, 1, 0));
    let changed = |sim: &Sim| {
        sim.world.clusters[&cluster()]
            .launch
            .as_ref()
            .unwrap()
            .changed
    };
    assert!(!changed(&sim));
    sim.notices = vec!["a rule was added".into()];
    sim.input(ask(&wanted, &[]));
    sim.run_until_quiet();
    assert!(changed(&sim), "a rule is a change");
    sim.no_prerequisites = Some(ErrorKind::Denied);
    sim.input(ask(&wanted, &[]));
    sim.perform_all();
    assert_eq!(last_code(&sim), 1, "a launch whose groups fail has failed");
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
}
