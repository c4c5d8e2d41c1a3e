//! Calls for machines that outlive their launch, and machines that show up when nobody waits for them any more.

use super::*;

#[test]
fn machines_that_show_up_after_a_rollback_are_ended() {
    let mut wanted = spec(&[1], &[]);
    wanted.launch.on_failure = OnFailure::Rollback;
    let mut sim = Sim::new();
    sim.refuse.insert(String::new(), ErrorKind::Unavailable);
    sim.input(ask(&wanted, &[]));
    run(&mut sim, 610);
    assert_eq!(last_code(&sim), 1);
    let token = first_token(&sim);
    sim.machines.insert(token.clone(), vec![machine(&token, 0)]);
    let calls = sim.calls;
    run(&mut sim, 130);
    assert_eq!(
        (sim.alive(), sim.calls),
        (0, calls),
        "a launch that is over asks for nothing"
    );
}

/// Everything that is pending but calls for machines.
fn all_but_launches(sim: &mut Sim) {
    let other = |effect: &Effect| {
        !matches!(
            effect,
            Effect::Call {
                call: Call::Launch { .. },
                ..
            }
        )
    };
    while let Some(at) = sim.pending.iter().position(other) {
        sim.perform(at);
    }
}

/// A launch of one machine whose call gets no answer until the launch is over.
fn outlived_call(types: &[&str]) -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], types), &[]));
    for _ in 0..310 {
        all_but_launches(&mut sim);
        sim.now += 2_000;
        sim.input(Input::Tick);
    }
    all_but_launches(&mut sim);
    assert_eq!(last_code(&sim), 1, "the time is up");
    sim
}

#[test]
fn a_call_that_fails_after_its_launch_is_followed_by_no_other() {
    for kind in [ErrorKind::NoCapacity, ErrorKind::Throttled] {
        let mut sim = outlived_call(&["big", "small"]);
        sim.refuse.insert("big".to_owned(), kind);
        run(&mut sim, 120);
        assert_eq!(sim.calls, 1, "nobody waits for a machine any more");
        assert_eq!(instance(&sim, "a1").phase, Phase::Failed);
    }
}

#[test]
fn what_a_call_has_made_is_shown_before_its_answer() {
    let mut sim = outlived_call(&[]);
    let token = first_token(&sim);
    sim.machines.insert(token.clone(), vec![machine(&token, 0)]);
    for _ in 0..2 {
        sim.now += 2_000;
        sim.input(Input::Tick);
        all_but_launches(&mut sim);
    }
    assert!(instance(&sim, "a1").has_machine(), "the table shows it");
    run(&mut sim, 4);
    assert_eq!((sim.alive(), sim.calls), (1, 1), "its answer says the same");
}

#[test]
fn what_an_unclear_answer_after_the_launch_left_behind_is_seen_soon() {
    let mut sim = outlived_call(&[]);
    sim.lose = true;
    sim.perform(0);
    let made = std::mem::take(&mut sim.machines);
    run(&mut sim, 4); // not shown at once
    sim.machines = made;
    run(&mut sim, 4);
    assert!(instance(&sim, "a1").has_machine(), "the table shows it");
}

#[test]
fn what_carries_the_tags_of_no_call_of_ours_is_left_alone() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.run_until_quiet();
    sim.machines
        .insert("foreign".into(), vec![machine("foreign", 0)]);
    sim.input(Input::Poll { cluster: cluster() });
    sim.perform_all();
    assert_eq!(sim.alive(), 2);
    sim.input(Input::Cleanup {
        cluster: cluster(),
        by: AskedBy::default(),
    });
    run(&mut sim, 10);
    assert_eq!(
        sim.alive(),
        0,
        "a cleanup takes along whatever has the cluster's tag"
    );
    assert!(sim.world.clusters.is_empty());
}
