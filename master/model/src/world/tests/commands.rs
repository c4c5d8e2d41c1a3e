//! Commands on many instances: one end for each target, also of those whose agents go away.

use super::*;

#[test]
fn every_target_of_a_command_ends_in_one_outcome_and_lost_ones_are_never_started_late() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[3], &[]), &[]));
    sim.run_until_quiet();
    let close = |sim: &mut Sim, name: &str| {
        let session = sim
            .agents
            .get_mut(&key(name))
            .and_then(|agent| agent.session.take())
            .expect("is there");
        sim.agent(
            key(name),
            session,
            AgentInput::Closed {
                why: "test".to_owned(),
            },
        );
    };
    close(&mut sim, "a3");
    sim.now += 5_000; // for longer than those that are back soon
    let job = exec(&mut sim, &["a1", "a2", "a3"]);
    assert_eq!(
        outcome(&sim, job, "a3"),
        Some(Outcome::Absent),
        "told at once"
    );
    // a2's message is lost with its session, before the agent had it.
    sim.pending
        .retain(|effect| !matches!(effect, Effect::Send { at, .. } if at == &key("a2")));
    close(&mut sim, "a2");
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    sim.now += LOST_AFTER_MS + 1;
    sim.input(Input::Tick);
    assert_eq!(outcome(&sim, job, "a2"), Some(Outcome::LostContact));
    sim.agents_move();
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    sim.agents_move();
    assert_eq!(outcome(&sim, job, "a1"), Some(Outcome::Succeeded));
    assert_eq!(
        outcome(&sim, job, "a2"),
        Some(Outcome::Rejected),
        "it must not start behind anyone's back"
    );
    let forgotten = sim.agents[&key("a2")]
        .journal
        .values()
        .all(|forgotten| *forgotten);
    assert!(forgotten, "it was started");
}

#[test]
fn lost_contact_turns_into_the_real_outcome_when_the_agent_comes_back() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.run_until_quiet();
    let job = exec(&mut sim, &["a1"]);
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    sim.crash();
    sim.now += LOST_AFTER_MS + 1;
    sim.input(Input::Tick);
    assert_eq!(outcome(&sim, job, "a1"), Some(Outcome::LostContact));
    sim.agents_move();
    assert_eq!(outcome(&sim, job, "a1"), Some(Outcome::Succeeded));
}
