//! What inputs of one batch share, and what they do not.

use super::*;

/// From here on only an operator's wish, or a tick, settles what came.
fn hold(sim: &mut Sim) {
    sim.batch = usize::MAX;
}

fn facts(name: &str, text: &str) -> Box<NodeFacts> {
    Box::new(NodeFacts {
        node: serde_json::json!({"hostname": name, "text": text}).into(),
        ssh_host_keys: Vec::new(),
        root_public_key: format!("key of {name}"),
        user_public_key: String::new(),
        main_user: String::new(),
    })
}

#[test]
fn changes_that_come_together_make_one_generation() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[3], &[]), &["one"]));
    sim.run_until_quiet();
    let generation = |sim: &Sim| sim.world.clusters[&cluster()].generation;
    let before = generation(&sim);
    hold(&mut sim);
    for name in ["a1", "a2", "a3"] {
        let session = sim.agents[&key(name)].session.expect("it is there");
        sim.agent(key(name), session, AgentInput::Facts(facts(name, "new")));
    }
    assert_eq!(generation(&sim), before);
    assert!(!sim.world.is_reconciled());
    sim.input(Input::Tick);
    assert_eq!(generation(&sim), before + 1);
    assert!(sim.world.is_reconciled());
    let handed = |effect: &&Effect| matches!(effect, Effect::HandOut { .. });
    assert_eq!(sim.pending.iter().filter(handed).count(), 3, "one for each");
}

#[test]
fn an_answer_counts_what_follows_from_what_came_before_in_its_batch() {
    let mut sim = Sim::new();
    let wanted = ask(&spec(&[1], &[]), &["one"]);
    sim.input(wanted);
    for _ in 0..20 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        if sim.world.runs.is_empty() {
            sim.agents_come();
        }
    }
    assert_eq!(sim.world.runs.len(), 1, "the stage runs");
    hold(&mut sim);
    sim.runs_end();
    assert!(sim.world.clusters[&cluster()].launching());
    let again = sim.input(ask(&spec(&[1], &[]), &["one"]));
    assert!(matches!(again, Answer::UpToDate(_)), "{again:?}");
    assert!(sim.world.is_reconciled(), "its own launch is over too");
}

#[test]
fn a_call_says_the_same_after_the_file_has_changed_and_the_master_was_restarted() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &["big"]), &[]));
    let first = first_token(&sim);
    let mut wanted = spec(&[3], &["small"]);
    wanted.pools[0].members[2].hostname = "other".to_owned();
    sim.input(ask(&wanted, &[]));
    sim.crash();
    let batches = &sim.world.clusters[&cluster()].batches;
    let said = |batch: &crate::batch::Batch| {
        let members = batch.members.iter().map(|it| it.hostname.clone());
        (
            batch.spec.machine.types.clone(),
            members.collect::<Vec<_>>(),
        )
    };
    let (first, others): (Vec<_>, Vec<_>) = batches.values().partition(|it| it.token.0 == first);
    let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(said(first[0]), (texts(&["big"]), texts(&["a1", "a2"])));
    assert_eq!(others.len(), 1);
    assert_eq!(said(others[0]), (texts(&["small"]), texts(&["other"])));
}

#[test]
fn a_pool_is_on_record_once_and_only_while_a_batch_names_it() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1_200], &["big"]), &[]));
    let mut record = sim.disk.clusters[&cluster()].clone();
    let pools = |record: &Cluster| {
        let written = serde_json::to_value(record).expect("writes");
        let pools = written["batches"]["pools"].as_object().expect("pools");
        (record.batches.len(), pools.len())
    };
    assert_eq!(pools(&record), (3, 1));
    sim.input(ask(&spec(&[1_201], &["big"]), &[]));
    record = sim.disk.clusters[&cluster()].clone();
    assert_eq!(pools(&record), (4, 2));
    record.batches.retain(|_, batch| batch.members.len() > 1);
    assert_eq!(pools(&record), (3, 1));
}
