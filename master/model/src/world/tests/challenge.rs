//! Challenges: one per machine at a time, answered by their value, and no tag of them is left.

use super::*;
use crate::attestation::Attestation;
use crate::world::attest::CHALLENGE_MS;
use crate::world::tests::attest::{challenged, drain, enrols, launched, machine_of, right};

#[test]
fn a_stranger_with_the_token_is_in_nobodys_way() {
    let mut sim = launched(&[1], Attestation::Challenge);
    let good = right(&machine_of(&sim, "a1"));
    let thief = EnrolAsk {
        key_sha256: "the thief's".to_owned(),
        ..good.clone()
    };
    let Answer::Challenged { id, .. } = enrols(&mut sim, &thief) else {
        panic!("it is challenged");
    };
    for guess in [
        "",
        "x",
        &format!("{id}."),
        &format!("{id}.{}", "0".repeat(64)),
    ] {
        let guess = EnrolAsk {
            answer: Secret((*guess).to_owned()),
            ..thief.clone()
        };
        let answer = enrols(&mut sim, &guess);
        assert!(!matches!(answer, Answer::Granted(_)), "{answer:?}");
    }
    let answering = challenged(&mut sim, &good).expect("the same challenge");
    assert!(answering.answer.0.starts_with(&id));
    assert!(matches!(enrols(&mut sim, &answering), Answer::Granted(_)));
    let stolen = EnrolAsk {
        key_sha256: "the thief's".to_owned(),
        ..answering
    };
    assert!(matches!(
        enrols(&mut sim, &stolen),
        Answer::Refused(Refused::Used(_))
    ));
    drain(&mut sim);
    assert!(sim.tags.is_empty(), "{:?}", sim.tags);
}

/// A challenge of one machine proves nothing of another one of the same launch.
#[test]
fn an_answer_is_of_one_machine() {
    let mut sim = launched(&[2], Attestation::Challenge);
    let first = right(&machine_of(&sim, "a1"));
    let second = right(&machine_of(&sim, "a2"));
    let of_first = challenged(&mut sim, &first).expect("it is demanded");
    challenged(&mut sim, &second).expect("it is demanded");
    let crossed = EnrolAsk {
        answer: of_first.answer,
        ..second
    };
    assert!(matches!(
        enrols(&mut sim, &crossed),
        Answer::Refused(Refused::WrongAnswer(_))
    ));
}

#[test]
fn a_challenge_whose_time_is_up_is_removed_and_another_one_begins() {
    let mut sim = launched(&[1], Attestation::Challenge);
    let good = right(&machine_of(&sim, "a1"));
    let first = challenged(&mut sim, &good).expect("it is demanded");
    sim.now += CHALLENGE_MS + 1;
    sim.input(Input::Tick);
    assert!(matches!(
        enrols(&mut sim, &good),
        Answer::Refused(Refused::Unchallenging(_))
    ));
    drain(&mut sim);
    assert!(sim.tags.is_empty(), "{:?}", sim.tags);
    assert!(matches!(
        enrols(&mut sim, &first),
        Answer::Refused(Refused::LateAnswer(_))
    ));
    let second = challenged(&mut sim, &good).expect("another one");
    assert_ne!(first.answer.0, second.answer.0);
    assert!(matches!(enrols(&mut sim, &second), Answer::Granted(_)));
    drain(&mut sim);
    assert!(sim.tags.is_empty() && sim.world.clusters[&cluster()].challenges.is_empty());
}

#[test]
fn no_tag_is_left_by_a_crash_at_any_moment() {
    for steps in 0..8 {
        let mut sim = launched(&[1], Attestation::Challenge);
        let good = right(&machine_of(&sim, "a1"));
        let mut ask = good.clone();
        for step in 0..=steps {
            if step == steps {
                sim.crash();
                sim.now += 3_000;
                sim.input(Input::Tick);
            }
            match step % 3 {
                0 => {
                    if let Answer::Challenged { .. } = enrols(&mut sim, &ask) {
                        ask = good.clone();
                    }
                }
                1 => drain(&mut sim),
                _ => {
                    let value = sim.tags.get(&good.machine).cloned();
                    ask.answer = Secret(value.unwrap_or_default());
                }
            }
        }
        // Whatever came before: it can join, and its tag goes.
        for _ in 0..40 {
            drain(&mut sim);
            if instance(&sim, "a1").identity.is_none() {
                let value = sim.tags.get(&good.machine).cloned().unwrap_or_default();
                ask.answer = Secret(value);
                enrols(&mut sim, &ask);
            }
            sim.now += 2_500;
            sim.input(Input::Tick);
        }
        assert!(
            instance(&sim, "a1").identity.is_some(),
            "after {steps} steps"
        );
        assert!(sim.tags.is_empty(), "after {steps} steps: {:?}", sim.tags);
        assert!(sim.world.clusters[&cluster()].challenges.is_empty());
    }
}

#[test]
fn calls_that_fail_are_made_again_and_told_once() {
    let mut sim = launched(&[1], Attestation::Challenge);
    let good = right(&machine_of(&sim, "a1"));
    sim.no_tags = Some(ErrorKind::Throttled);
    assert!(matches!(enrols(&mut sim, &good), Answer::Challenged { .. }));
    let rounds = |sim: &mut Sim| {
        let mut told = 0;
        for _ in 0..8 {
            while let Some(first) = sim.pending.front() {
                let is =
                    matches!(first, Effect::Event(event) if event.message.starts_with("cannot"));
                told += usize::from(is);
                sim.perform(0);
            }
            sim.now += 2_500;
            sim.input(Input::Tick);
        }
        told
    };
    assert_eq!(rounds(&mut sim), 1);
    assert!(sim.tags.is_empty());
    sim.no_tags = None;
    rounds(&mut sim);
    let answering = challenged(&mut sim, &good).expect("it is open still");
    sim.no_tags = Some(ErrorKind::Throttled);
    assert!(matches!(enrols(&mut sim, &answering), Answer::Granted(_)));
    assert_eq!(rounds(&mut sim), 1);
    assert!(!sim.tags.is_empty());
    sim.no_tags = None;
    rounds(&mut sim);
    rounds(&mut sim);
    assert!(sim.tags.is_empty(), "{:?}", sim.tags);
}
