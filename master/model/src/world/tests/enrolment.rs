//! Who may enrol, and what becomes of a machine that never does.

use super::*;

#[test]
fn an_agent_that_never_enrols_fails_at_the_deadline_and_may_still_come() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &["one"]));
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    sim.now += 601_000;
    sim.input(Input::Tick);
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    let instance = sim.world.instance(&key("a1")).expect("is there");
    assert!(
        instance.note.contains("never called home"),
        "{}",
        instance.note
    );
    sim.input(ask(&spec(&[1], &[]), &["one"]));
    sim.run_until_quiet();
    assert_eq!(
        (sim.phases(), sim.alive()),
        (BTreeSet::from([Phase::Ready]), 1)
    );
}

#[test]
fn each_way_to_enrol_wrongly_has_its_own_reason() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    let token = sim.world.clusters[&cluster()]
        .batches
        .keys()
        .next()
        .expect("one batch")
        .clone();
    let good = |key: &str, id: &str| EnrolAsk {
        token_sha256: sha256_hex(JoinKey::new(b"key").token(&token).as_bytes()),
        machine: id.parse().expect("an id"),
        key_sha256: key.to_owned(),
        document: ShownDocument::Nothing,
        answer: Secret::default(),
    };
    let id = machine(&token, 0).id.to_string();
    let refused = |sim: &mut Sim, ask: EnrolAsk| match sim.input(Input::Enrol(ask)) {
        Answer::Refused(why) => Some(why),
        _ => None,
    };
    assert_eq!(refused(&mut sim, good("k", &id)), Some(Refused::TooEarly));
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    let unknown = EnrolAsk {
        token_sha256: "x".to_owned(),
        ..good("k", &id)
    };
    assert_eq!(refused(&mut sim, unknown), Some(Refused::UnknownToken));
    assert!(matches!(
        refused(&mut sim, good("k", "i-other")),
        Some(Refused::OtherMachine(_))
    ));
    assert_eq!(refused(&mut sim, good("k", &id)), None);
    assert_eq!(
        refused(&mut sim, good("k", &id)),
        None,
        "the reply may have been lost"
    );
    assert!(matches!(
        refused(&mut sim, good("other", &id)),
        Some(Refused::Used(_))
    ));
    let machine = sim
        .world
        .instance(&key("a1"))
        .and_then(Instance::machine_id);
    let machine = machine.cloned().expect("has one");
    sim.agent(key("a1"), 7, AgentInput::Attached(Box::default()));
    sim.input(Input::Issued {
        at: key("a1"),
        machine,
        session: Some(7),
        asked_with: Some(String::new()),
        key_sha256: "renewed".to_owned(),
        serial: "1".to_owned(),
        expires_unix: 1,
    });
    assert_eq!(refused(&mut sim, good("renewed", &id)), None);
    assert_eq!(
        refused(&mut sim, good("k", &id)),
        None,
        "the renewal may never have arrived"
    );
    sim.input(Input::Terminate {
        cluster: cluster(),
        instances: vec!["a1".parse().expect("a name")],
        by: AskedBy::default(),
    });
    assert!(matches!(
        refused(&mut sim, good("k", &id)),
        Some(Refused::Ending(_))
    ));
}
