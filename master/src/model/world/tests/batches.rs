//! What inputs of one batch share, and what they do not.

use super::*;
use aot_proto::limits::MAX_MESSAGE_BYTES;
use prost::Message;

/// From here on only an operator's wish, or a tick, settles what came.
fn hold(sim: &mut Sim) {
    sim.batch = usize::MAX;
}

fn facts(name: &str, text: &str) -> Box<NodeFacts> {
    Box::new(NodeFacts {
        node: serde_json::json!({"hostname": name, "text": text}),
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
    sim.settle();
    let generation = |sim: &Sim| sim.world.clusters[&cluster()].generation;
    let before = generation(&sim);
    hold(&mut sim);
    for name in ["a1", "a2", "a3"] {
        let session = sim.agents[&key(name)].session.expect("it is there");
        sim.input(Input::Facts {
            at: key(name),
            session,
            facts: facts(name, "new"),
        });
    }
    assert_eq!(generation(&sim), before);
    assert!(!sim.world.is_settled());
    sim.input(Input::Tick);
    assert_eq!(generation(&sim), before + 1);
    assert!(sim.world.is_settled());
    let handed = |effect: &&Effect| matches!(effect, Effect::Send { body, .. } if matches!(**body, Body::ClusterFacts(_)));
    assert_eq!(sim.pending.iter().filter(handed).count(), 3, "one for each");
}

#[test]
fn cluster_facts_of_any_size_go_out_in_messages_that_fit() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[3], &[]), &["one"]));
    sim.settle();
    let mut state = 1u64;
    for name in ["a1", "a2", "a3"] {
        let hex = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            format!("{state:016x}")
        });
        let text: String = hex.take(200_000).collect();
        let session = sim.agents[&key(name)].session.expect("it is there");
        sim.input(Input::Facts {
            at: key(name),
            session,
            facts: facts(name, &text),
        });
    }
    let mut sent = 0;
    for effect in &sim.pending {
        if let Effect::Send { body, .. } = effect {
            let len = v1::MasterMessage {
                body: Some((**body).clone()),
            }
            .encoded_len();
            assert!(len <= MAX_MESSAGE_BYTES, "{len}");
            sent += len;
        }
    }
    assert!(sent > 3 * MAX_MESSAGE_BYTES, "{sent} bytes to three");
    sim.settle();
    let generation = sim.world.clusters[&cluster()].generation;
    let applied = |name| sim.agents[&key(name)].generation;
    assert_eq!(["a1", "a2", "a3"].map(applied), [generation; 3]);
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
    assert!(matches!(again, Answer::Nothing(_)), "{again:?}");
    assert!(sim.world.is_settled(), "its own launch is over too");
}
