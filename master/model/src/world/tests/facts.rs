//! Cluster facts at a pace, and instances that cannot write them.

use aot_proto::facts::{PIECE_BYTES, Pieces};

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
        node: serde_json::json!({"hostname": name, "new": text}).into(),
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
    sim.perform_all();
    let has = sim.agents[&key("a2")].content.json();
    assert!(String::from_utf8_lossy(&has).contains("599"));
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

/// Text that can't be packed.
fn noise(len: usize) -> String {
    let mut state = 1u64;
    let hex = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        format!("{state:016x}")
    });
    hex.take(len / 16).collect()
}

#[test]
fn cluster_facts_of_any_size_go_out_in_pieces_that_all_share() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[3], &[]), &["one"]));
    sim.run_until_quiet();
    new_facts(&mut sim, "a1", &noise(3_000_000));
    let mut shared = Vec::new();
    for effect in &sim.pending {
        if let Effect::HandOut { facts, .. } = effect {
            let fits = |piece: &v1::ClusterFactsPiece| piece.data.len() <= PIECE_BYTES;
            assert!(facts.len() > 10 && facts.iter().all(fits));
            shared.push(facts.clone());
        }
    }
    assert_eq!(shared.len(), 3);
    assert!(shared.iter().all(|facts| Pieces::ptr_eq(facts, &shared[0])));
    drop(shared);
    sim.run_until_quiet();
    let generation = sim.world.clusters[&cluster()].generation;
    let applied = |name| sim.agents[&key(name)].generation;
    assert_eq!(["a1", "a2", "a3"].map(applied), [generation; 3]);
    // Once all have them, nothing of it is kept packed.
    sim.input(Input::Tick);
    assert!(!sim.world.published[&cluster()].is_packed());
}

#[test]
fn an_instance_that_changes_costs_the_others_its_own_entry() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[5], &[]), &[]));
    sim.run_until_quiet();
    sim.now += 60_000;
    sim.handed.clear();
    new_facts(&mut sim, "a2", "other");
    sim.perform_all();
    assert_eq!(sim.handed.len(), 5);
    for (at, facts) in &sim.handed {
        assert_eq!((facts.entries.len(), facts.removed.len()), (1, 0), "{at}");
        assert_eq!(facts.base + 1, facts.generation);
    }
    // One that leaves, its name alone.
    sim.now += 60_000;
    sim.handed.clear();
    let names = vec!["a3".parse().expect("a name")];
    sim.input(Input::Revoke {
        cluster: cluster(),
        instances: names,
        operator: "root".to_owned(),
    });
    sim.perform_all();
    let given: Vec<&str> = sim
        .handed
        .iter()
        .map(|(at, _)| at.instance.as_str())
        .collect();
    assert_eq!(given, ["a1", "a2", "a4", "a5"]);
    for (at, facts) in &sim.handed {
        assert_eq!(
            (facts.entries.len(), &facts.removed[..]),
            (0, &["a3".to_owned()][..]),
            "{at}"
        );
    }
}

#[test]
fn one_that_was_away_is_sent_what_it_missed_and_after_a_restart_too() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[4], &[]), &[]));
    sim.run_until_quiet();
    let away = |sim: &mut Sim, name: &str| {
        let agent = sim.agents.get_mut(&key(name)).expect("is there");
        let session = agent.session.take().expect("is connected");
        sim.silent.insert(name.to_owned());
        let why = "cut off".to_owned();
        sim.agent(key(name), session, AgentInput::Closed { why });
    };
    away(&mut sim, "a1");
    for text in ["one", "two"] {
        sim.now += 60_000;
        new_facts(&mut sim, "a2", text);
        sim.perform_all();
    }
    let back = |sim: &mut Sim| {
        sim.handed.clear();
        sim.silent.clear();
        sim.agents_come();
        sim.now += 60_000;
        sim.input(Input::Tick);
        sim.perform_all();
        let generation = sim.world.clusters[&cluster()].generation;
        assert_eq!(sim.agents[&key("a1")].generation, generation);
    };
    back(&mut sim);
    let (at, facts) = &sim.handed[0];
    assert_eq!((sim.handed.len(), at), (1, &key("a1")));
    assert_eq!(facts.generation - facts.base, 2, "both at once");
    assert_eq!(facts.entries.len(), 1);
    // What a master that has just been started does not know any more goes out as a whole, and only to whom it has to.
    away(&mut sim, "a1");
    sim.now += 60_000;
    new_facts(&mut sim, "a2", "three");
    sim.perform_all();
    sim.crash();
    back(&mut sim);
    let whole = sim.handed.iter().filter(|(_, facts)| facts.base == 0);
    let whole: Vec<_> = whole.map(|(at, facts)| (at, facts.entries.len())).collect();
    assert_eq!(whole, [(&key("a1"), 4)]);
    // The others have new facts of a2, as its agent reports them again.
    sim.handed.retain(|(_, facts)| facts.base > 0);
    assert!(sim.handed.len() >= 3);
    assert!(sim.handed.iter().all(|(_, facts)| facts.entries.len() == 1));
}

#[test]
fn a_newer_generation_waits_until_the_one_before_it_is_acknowledged() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    sim.now += 60_000;
    let handed = |sim: &Sim| {
        let handed = |effect: &&Effect| matches!(effect, Effect::HandOut { .. });
        sim.pending.iter().filter(handed).count()
    };
    new_facts(&mut sim, "a2", "one");
    assert_eq!(handed(&sim), 2);
    for text in ["two", "three"] {
        sim.now += 10_000;
        new_facts(&mut sim, "a2", text);
        assert_eq!(handed(&sim), 2, "still under way");
    }
    sim.handed.clear();
    sim.perform_all();
    let generation = sim.world.clusters[&cluster()].generation;
    let steps: Vec<u64> = sim
        .handed
        .iter()
        .map(|(_, facts)| facts.generation - facts.base)
        .collect();
    assert_eq!(steps, [1, 1, 2, 2], "the two that waited in one");
    assert!(
        sim.agents
            .values()
            .all(|agent| agent.generation == generation)
    );
}

#[test]
fn whoever_could_not_apply_a_change_is_sent_the_whole() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[3], &[]), &[]));
    sim.run_until_quiet();
    sim.unwritable.insert("a1".to_owned());
    sim.now += 60_000;
    sim.handed.clear();
    new_facts(&mut sim, "a2", "other");
    sim.perform_all();
    sim.unwritable.clear();
    sim.now += 2_000;
    sim.input(Input::Tick);
    sim.perform_all();
    let given = sim.handed.iter().filter(|(at, _)| at == &key("a1"));
    let bases: Vec<bool> = given.map(|(_, facts)| facts.base > 0).collect();
    assert_eq!(bases, [true, false]);
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
