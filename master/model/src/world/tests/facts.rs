//! Cluster facts at a pace, and instances that cannot write them.

use super::*;

fn notices(effects: &[Effect]) -> usize {
    let notice =
        |effect: &&Effect| matches!(effect, Effect::Event(event) if event.kind == "notice");
    effects.iter().filter(notice).count()
}

fn deliver(sim: &mut Sim) -> usize {
    let mut told = 0;
    while !sim.pending.is_empty() {
        told += notices(&sim.pending.make_contiguous()[..1]);
        sim.perform(0);
    }
    told
}

fn new_facts(sim: &mut Sim, name: &str, text: &str) {
    let session = sim.agents[&key(name)].session.expect("is connected");
    let facts = NodeFacts {
        node: serde_json::json!({"hostname": name, "new": text}),
        ssh_host_keys: Vec::new(),
        root_public_key: String::new(),
        user_public_key: String::new(),
        main_user: String::new(),
    };
    sim.agent(key(name), session, AgentInput::Facts(Box::new(facts)));
}

#[test]
fn a_storm_of_facts_makes_few_generations_and_the_last_ones_are_in() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[3], &[]), &[]));
    sim.run_until_quiet();
    let generation = |sim: &Sim| sim.world.clusters[&cluster()].generation;
    sim.now += 60_000;
    let before = generation(&sim);
    for n in 0..600 {
        new_facts(&mut sim, "a1", &n.to_string());
        sim.now += 50;
        sim.input(Input::Tick);
    }
    let made = generation(&sim) - before;
    assert!((5..=13).contains(&made), "{made} generations in 30 s");
    let last = generation(&sim);
    for _ in 0..4 {
        sim.now += 2_000;
        sim.input(Input::Tick);
    }
    assert!(generation(&sim) <= last + 1, "nothing changes any more");
    assert!(!sim.world.stale.contains_key(&cluster()), "none is lost");
    let facts = crate::facts::of(&sim.world.clusters[&cluster()]);
    assert!(String::from_utf8_lossy(&facts.json).contains("599"));
}

#[test]
fn one_that_cannot_write_cluster_facts_is_asked_again_at_a_pace_and_told_of_once() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    sim.unwritable.insert("a1".to_owned());
    sim.now += 60_000;
    new_facts(&mut sim, "a2", "other");
    let before = sim.given;
    let mut told = deliver(&mut sim);
    for _ in 0..1200 {
        sim.now += 250;
        sim.input(Input::Tick);
        told += deliver(&mut sim);
    }
    let given = sim.given - before;
    assert!(
        (6..=14).contains(&given),
        "given {given} times in 5 minutes"
    );
    assert_eq!(told, 1, "one event, not one a try");
    let note = &sim.world.instance(&key("a1")).expect("is there").note;
    assert_eq!(note, "could not write cluster facts: disk full");
    sim.unwritable.clear();
    for _ in 0..300 {
        sim.now += 250;
        sim.input(Input::Tick);
        deliver(&mut sim);
    }
    let instance = sim.world.instance(&key("a1")).expect("is there");
    assert!(instance.unwritten.is_none());
    assert_eq!(
        instance.applied_generation,
        sim.world.clusters[&cluster()].generation
    );
}

#[test]
fn stages_of_others_do_not_wait_for_one_that_cannot_write_and_the_launch_ends_and_says_why() {
    let mut sim = Sim::new();
    sim.unwritable.insert("a1".to_owned());
    sim.input(ask(&spec(&[3], &[]), &["one"]));
    sim.run_until_quiet();
    let phase = |name: &str| sim.world.instance(&key(name)).expect("is there").phase;
    assert_eq!(phase("a2"), Phase::Ready);
    assert_eq!(phase("a3"), Phase::Ready);
    assert_eq!(phase("a1"), Phase::Failed);
    let note = &sim.world.instance(&key("a1")).expect("is there").note;
    assert_eq!(note, "could not write cluster facts: disk full");
    assert_eq!(sim.ended.len(), 1, "the launch ended");
    assert_eq!(sim.ended[0].1, 1, "and not well");
    assert!(!sim.started.keys().any(|(at, _)| at == &key("a1")));
}

#[test]
fn one_that_never_answers_is_waited_for_a_minute() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    sim.now += 60_000;
    new_facts(&mut sim, "a2", "other");
    sim.pending.clear(); // what was sent is never answered
    let open = |sim: &Sim| sim.world.barrier_open(&sim.world.clusters[&cluster()]);
    assert!(!open(&sim));
    sim.now += 59_000;
    sim.input(Input::Tick);
    sim.pending.clear();
    assert!(!open(&sim));
    sim.now += 2_000;
    sim.input(Input::Tick);
    assert!(open(&sim));
}
