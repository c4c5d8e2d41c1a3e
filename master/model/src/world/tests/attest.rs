//! Who is let in, by what they show: every combination, and challenges over crashes and failures.

use super::*;
use crate::attestation::{Attestation, Document, Flaw, Proof, Secret, ShownDocument};
use crate::world::attest::CHALLENGE_MS;
use std::time::SystemTime;

const REGION: &str = "eu-west-1";

pub(super) fn ec2(sizes: &[usize], attestation: Attestation) -> ClusterSpec {
    ClusterSpec {
        provider: ProviderKind::Ec2,
        attestation,
        ..spec(sizes, &[])
    }
}

/// Machines that run, whose agents have not come.
pub(super) fn launched(sizes: &[usize], attestation: Attestation) -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(&ec2(sizes, attestation), &[]));
    drain(&mut sim);
    sim
}

pub(super) fn drain(sim: &mut Sim) {
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
}

pub(super) fn machine_of(sim: &Sim, name: &str) -> Machine {
    instance(sim, name).machine.clone().expect("it has one")
}

/// The right document of a machine.
pub(super) fn document(machine: &Machine) -> Document {
    Document {
        account: machine.account.clone().expect("the sim sets it"),
        region: REGION.to_owned(),
        machine: machine.id.clone(),
        pending: machine.launched_at.expect("the sim sets it"),
    }
}

pub(super) fn right(machine: &Machine) -> EnrolAsk {
    let token = machine.client_token.as_ref().expect("the sim sets it");
    let secret = JoinKey::new(b"key").token(&token.0);
    EnrolAsk {
        token_sha256: sha256_hex(secret.as_bytes()),
        machine: machine.id.clone(),
        key_sha256: format!("key of {}", machine.id),
        document: ShownDocument::Signed(document(machine)),
        answer: Secret::default(),
    }
}

/// As the server asks: once more when the provider has shown the machines.
pub(super) fn enrols(sim: &mut Sim, ask: &EnrolAsk) -> Answer {
    for _ in 0..3 {
        match sim.input(Input::Enrol(ask.clone())) {
            Answer::Later => drain(sim),
            other => return other,
        }
    }
    panic!("the provider has shown the machines, and it waits for them");
}

/// Begins a challenge: the ask that answers it rightly.
pub(super) fn challenged(sim: &mut Sim, ask: &EnrolAsk) -> Option<EnrolAsk> {
    let Answer::Challenged { id, .. } = enrols(sim, ask) else {
        return None;
    };
    drain(sim);
    let value = sim.tags.get(&ask.machine).cloned().expect("the tag is set");
    assert!(value.starts_with(&format!("{id}.")), "{value}");
    Some(EnrolAsk {
        answer: Secret(value),
        ..ask.clone()
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Token {
    Right,
    OtherBatch,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Paper {
    Right,
    None,
    Forged,
    OtherRegion,
    OtherAccount,
    Replayed,
    OtherStart,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answered {
    Right,
    None,
    Wrong,
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Host {
    New,
    Rebuilt,
    Revoked,
    Live,
    Dead,
}

/// Makes the machine what the case says; gives the machine that asks.
fn prepared(sim: &mut Sim, host: Host) -> Machine {
    let machine = machine_of(sim, "a1");
    let terminates = |sim: &mut Sim| {
        sim.input(Input::Terminate {
            cluster: cluster(),
            instances: vec![key("a1").instance],
            by: AskedBy::default(),
        });
        drain(sim);
        sim.input(Input::Poll { cluster: cluster() });
        drain(sim);
        assert_eq!(machine_of(sim, "a1").state, MachineState::Terminated);
    };
    match host {
        Host::New => {}
        Host::Dead => terminates(sim),
        Host::Rebuilt => {
            terminates(sim);
            let spec = sim.world.clusters[&cluster()].spec.clone();
            sim.now += 1_000;
            sim.input(ask(&spec, &[]));
            drain(sim);
            assert_ne!(machine_of(sim, "a1").id, machine.id);
        }
        Host::Revoked => {
            sim.input(Input::Revoke {
                cluster: cluster(),
                instances: vec![key("a1").instance],
                operator: "op".to_owned(),
            });
        }
        Host::Live => {
            let first = EnrolAsk {
                key_sha256: "the first key".to_owned(),
                ..right(&machine)
            };
            let first = challenged(sim, &first).unwrap_or(first);
            assert!(matches!(enrols(sim, &first), Answer::Granted(_)));
        }
    }
    machine
}

fn shown(sim: &Sim, asker: &Machine, paper: Paper) -> ShownDocument {
    let good = document(asker);
    ShownDocument::Signed(match paper {
        Paper::Right => good,
        Paper::None => return ShownDocument::Nothing,
        Paper::Forged => return ShownDocument::Bad("its signature is wrong".to_owned()),
        Paper::OtherRegion => Document {
            region: "eu-west-2".to_owned(),
            ..good
        },
        Paper::OtherAccount => Document {
            account: "999999999999".to_owned(),
            ..good
        },
        Paper::Replayed => document(&machine_of(sim, "a2")),
        Paper::OtherStart => Document {
            pending: SystemTime::UNIX_EPOCH - Duration::from_secs(86_400),
            ..good
        },
    })
}

fn admitted(
    demand: Attestation,
    token: Token,
    paper: Paper,
    answered: Answered,
    host: Host,
) -> bool {
    let mut sim = launched(&[2, 1], demand);
    let asker = prepared(&mut sim, host);
    let mut ask = right(&asker);
    match token {
        Token::Right => {}
        Token::OtherBatch => ask.token_sha256 = right(&machine_of(&sim, "b1")).token_sha256,
        Token::Unknown => ask.token_sha256 = sha256_hex(b"made up"),
    }
    ask.document = shown(&sim, &asker, paper);
    let answering = match answered {
        Answered::None => None,
        _ => challenged(&mut sim, &ask),
    };
    let mut ask = answering.unwrap_or(ask);
    match answered {
        Answered::Wrong => ask.answer.0.push('0'),
        Answered::Late => {
            sim.now += CHALLENGE_MS + 1;
            drain(&mut sim);
        }
        Answered::Right | Answered::None => {}
    }
    let answer = enrols(&mut sim, &ask);
    let granted = matches!(answer, Answer::Granted(_));
    if granted {
        let identity = instance(&sim, "a1").identity.clone().expect("enrolled");
        let wanted = sim.world.clusters[&cluster()].proof;
        assert_eq!(identity.proof, wanted, "what it proved is on record");
    } else if host == Host::New {
        assert_eq!(instance(&sim, "a1").identity, None);
    }
    granted
}

#[test]
fn every_combination_of_token_document_challenge_and_machine() {
    use Attestation::{Both, Challenge, Document, Token as TokenAlone};
    let papers = [
        Paper::Right,
        Paper::None,
        Paper::Forged,
        Paper::OtherRegion,
        Paper::OtherAccount,
        Paper::Replayed,
        Paper::OtherStart,
    ];
    let answers = [
        Answered::Right,
        Answered::None,
        Answered::Wrong,
        Answered::Late,
    ];
    let hosts = [
        Host::New,
        Host::Rebuilt,
        Host::Revoked,
        Host::Live,
        Host::Dead,
    ];
    let mut cases = 0;
    for demand in [TokenAlone, Document, Challenge, Both] {
        for token in [Token::Right, Token::OtherBatch, Token::Unknown] {
            for paper in papers {
                for answered in answers {
                    for host in hosts {
                        let paper_good =
                            matches!(demand, TokenAlone | Challenge) || paper == Paper::Right;
                        let answer_good =
                            matches!(demand, TokenAlone | Document) || answered == Answered::Right;
                        let wanted =
                            token == Token::Right && host == Host::New && paper_good && answer_good;
                        assert_eq!(
                            admitted(demand, token, paper, answered, host),
                            wanted,
                            "{demand:?} {token:?} {paper:?} {answered:?} {host:?}"
                        );
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 4 * 3 * 7 * 4 * 5);
}

#[test]
fn the_provider_is_asked_only_when_token_and_document_are_good_and_once_for_many() {
    let mut sim = launched(&[3], Attestation::Document);
    let describes = |sim: &Sim| {
        let is = |effect: &&Effect| {
            matches!(
                effect,
                Effect::Call {
                    call: Call::Describe,
                    ..
                }
            )
        };
        sim.pending.iter().filter(is).count()
    };
    sim.now += 60_000;
    let good = right(&machine_of(&sim, "a1"));
    for shown in [ShownDocument::Nothing, ShownDocument::Bad("no".to_owned())] {
        let bad = EnrolAsk {
            document: shown,
            ..good.clone()
        };
        assert!(matches!(enrols(&mut sim, &bad), Answer::Refused(_)));
    }
    let stranger = EnrolAsk {
        token_sha256: "x".to_owned(),
        ..good.clone()
    };
    assert!(matches!(enrols(&mut sim, &stranger), Answer::Refused(_)));
    assert_eq!(describes(&sim), 0);
    for name in ["a1", "a2", "a3", "a1"] {
        let good = right(&machine_of(&sim, name));
        assert!(matches!(sim.input(Input::Enrol(good)), Answer::Later));
    }
    assert_eq!(describes(&sim), 1);
    drain(&mut sim);
    for name in ["a1", "a2", "a3"] {
        let good = right(&machine_of(&sim, name));
        assert!(matches!(sim.input(Input::Enrol(good)), Answer::Granted(_)));
    }
    assert_eq!(describes(&sim), 0);
}

#[test]
fn a_machine_that_the_provider_shows_stopped_or_no_more_is_not_let_in() {
    let mut sim = launched(&[2], Attestation::Document);
    sim.now += 60_000;
    for machine in sim.machines.values_mut().flatten() {
        machine.state = MachineState::Stopped;
    }
    let good = right(&machine_of(&sim, "a1"));
    let refused = enrols(&mut sim, &good);
    assert!(
        matches!(&refused, Answer::Refused(Refused::NotProven { flaw, .. }) if *flaw == Flaw::NotRunning(MachineState::Stopped)),
        "{refused:?}"
    );
    assert!(instance(&sim, "a1").note.contains("stopped"));
    // Not shown is not known: it waits.
    sim.now += 60_000;
    sim.machines.clear();
    assert!(matches!(sim.input(Input::Enrol(good)), Answer::Later));
    drain(&mut sim);
    assert_eq!(instance(&sim, "a1").identity, None);
}

#[test]
fn a_refusal_is_told_once() {
    let mut sim = launched(&[1], Attestation::Document);
    let bad = EnrolAsk {
        document: ShownDocument::Nothing,
        ..right(&machine_of(&sim, "a1"))
    };
    let told = |sim: &Sim| {
        let is = |effect: &&Effect| matches!(effect, Effect::Event(event) if event.kind == "enrolment-refused");
        sim.pending.iter().filter(is).count()
    };
    for _ in 0..5 {
        assert!(matches!(enrols(&mut sim, &bad), Answer::Refused(_)));
    }
    assert_eq!(told(&sim), 1);
    assert!(instance(&sim, "a1").note.contains("identity document"));
    let good = right(&machine_of(&sim, "a1"));
    assert!(matches!(enrols(&mut sim, &good), Answer::Granted(_)));
    assert_eq!(instance(&sim, "a1").note, "");
}

#[test]
fn the_same_key_needs_no_second_proof() {
    let mut sim = launched(&[1], Attestation::Both);
    let good = right(&machine_of(&sim, "a1"));
    let answering = challenged(&mut sim, &good).expect("it is demanded");
    assert!(matches!(enrols(&mut sim, &answering), Answer::Granted(_)));
    let again = EnrolAsk {
        document: ShownDocument::Nothing,
        ..good
    };
    assert!(matches!(enrols(&mut sim, &again), Answer::Granted(_)));
    let identity = instance(&sim, "a1").identity.clone().expect("enrolled");
    assert_eq!(identity.proof, Proof::Both);
}

#[test]
fn the_demand_is_decided_once_and_kept() {
    let proof = |sim: &Sim| sim.world.clusters[&cluster()].proof;
    let mut sim = launched(&[2], Attestation::Auto);
    assert_eq!(proof(&sim), Proof::Document);
    sim.crash();
    assert_eq!(proof(&sim), Proof::Document);
    // A launch without the certificate, and without anything to make, changes nothing.
    let without = |spec: &ClusterSpec| match ask(spec, &[]) {
        Input::Launch(mut ask) => {
            ask.certificate.there = false;
            Input::Launch(ask)
        }
        other => other,
    };
    sim.input(without(&ec2(&[2], Attestation::Auto)));
    assert_eq!(proof(&sim), Proof::Document);
    sim.input(without(&ec2(&[3], Attestation::Auto)));
    assert_eq!(proof(&sim), Proof::Challenge);
    let batches = &sim.world.clusters[&cluster()].batches;
    let proofs: Vec<Proof> = batches.values().map(|batch| batch.proof).collect();
    assert_eq!(proofs.len(), 2);
    assert!(proofs.contains(&Proof::Document) && proofs.contains(&Proof::Challenge));
    sim.input(without(&ec2(&[3 + 101], Attestation::Auto)));
    assert_eq!(proof(&sim), Proof::Token);
}

#[test]
fn a_document_that_nobody_could_check_is_refused_before_anything_is_made() {
    for attestation in [Attestation::Document, Attestation::Both] {
        let mut sim = Sim::new();
        let Input::Launch(mut asked) = ask(&ec2(&[1], attestation), &[]) else {
            panic!("it is a launch");
        };
        asked.certificate.there = false;
        let answer = sim.input(Input::Launch(asked));
        assert!(
            matches!(&answer, Answer::Error(error) if error.to_string().contains("attestation import")),
            "{answer:?}"
        );
        assert!(sim.world.clusters.is_empty() && sim.pending.is_empty());
    }
}
