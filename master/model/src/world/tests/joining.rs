//! What a join token is good for: only for machines that have not joined, and only for this long.

use super::*;

fn token(sim: &Sim, name: &str) -> String {
    let machine = sim
        .world
        .instance(&key(name))
        .and_then(|it| it.machine.clone());
    let token = machine
        .expect("has one")
        .client_token
        .expect("the sim sets it");
    sha256_hex(JoinKey::new(b"key").token(&token.0).as_bytes())
}

fn reports(sim: &mut Sim, token: &str, about: &str, step: &str) -> Answer {
    let machine = sim
        .world
        .instance(&key(about))
        .and_then(Instance::machine_id);
    let machine = machine.cloned().expect("has one");
    sim.pending.clear();
    sim.input(Input::BootStep {
        token_sha256: token.to_owned(),
        machine,
        step: step.to_owned(),
        detail: "forged".to_owned(),
    })
}

fn events(sim: &Sim) -> Vec<&'static str> {
    let kind = |effect: &Effect| match effect {
        Effect::Event(event) => Some(event.kind),
        _ => None,
    };
    sim.pending.iter().filter_map(kind).collect()
}

/// Three machines of one launch, of which `a3` has not called home.
fn launched() -> Sim {
    let mut sim = Sim::new();
    sim.silent.insert("a3".to_owned());
    sim.input(ask(&spec(&[3], &[]), &[]));
    for _ in 0..5 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        sim.agents_move();
    }
    let phase = |name: &str| sim.world.instance(&key(name)).expect("is there").phase;
    assert_eq!(phase("a3"), Phase::Booting);
    assert!(phase("a1") != Phase::Booting && phase("a2") != Phase::Booting);
    sim
}

#[test]
fn nobody_speaks_for_a_machine_that_has_joined_but_its_agent() {
    let mut sim = launched();
    let token = token(&sim, "a2");
    for step in ["failed", "agent"] {
        let before = sim.world.instance(&key("a1")).cloned();
        let answer = reports(&mut sim, &token, "a1", step);
        assert!(
            matches!(answer, Answer::Refused(Refused::Joined(_))),
            "{step}: {answer:?}"
        );
        assert_eq!(events(&sim), Vec::<&str>::new());
        assert_eq!(sim.world.instance(&key("a1")).cloned(), before);
    }
    assert!(matches!(
        reports(&mut sim, &token, "a3", "failed"),
        Answer::Ack
    ));
    assert_eq!(events(&sim), ["boot-failed"]);
}

#[test]
fn a_token_ends_with_its_time() {
    let mut sim = launched();
    let token = token(&sim, "a3");
    let deadline = sim.world.clusters[&cluster()]
        .launch
        .as_ref()
        .expect("one")
        .deadline_ms;
    sim.now = deadline + 5 * 60_000;
    sim.input(Input::Tick);
    assert!(sim.world.token_brings_agent(&token), "some boot slowly");
    assert!(matches!(
        reports(&mut sim, &token, "a3", "agent"),
        Answer::Ack
    ));
    // The launch is over by then, and the time after it too.
    for hour in 1..=2 {
        sim.now = deadline + hour * 60 * 60_000;
        sim.input(Input::Tick);
    }
    assert!(!sim.world.token_brings_agent(&token));
    let late = reports(&mut sim, &token, "a3", "agent");
    assert!(
        matches!(late, Answer::Refused(Refused::Expired)),
        "{late:?}"
    );
}

#[test]
fn a_token_brings_no_agent_once_all_have_joined() {
    let mut sim = launched();
    let token = token(&sim, "a1");
    assert!(sim.world.token_brings_agent(&token));
    assert!(!sim.world.token_brings_agent("unknown"));
    sim.silent.clear();
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    assert!(!sim.world.token_brings_agent(&token));
}
