//! Which certificate counts, and what shows that an identity is held twice.

use core::net::IpAddr;

use super::*;
use crate::identity::{Identity, PeerProcess, RENEWAL_MS};

/// One instance, ready, whose agent was given the certificate `first` when it enrolled.
fn ready() -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &["one"]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    let its_key = identity(&sim).key_sha256.clone();
    issued(&mut sim, None, &its_key, "first");
    sim
}

fn identity(sim: &Sim) -> &Identity {
    let instance = sim.world.instance(&key("a1")).expect("is there");
    instance.identity.as_ref().expect("it stands")
}

fn session(sim: &Sim) -> u64 {
    let instance = sim.world.instance(&key("a1")).expect("is there");
    instance.session.expect("connected")
}

/// A certificate is made: for the session and certificate that asked for its renewal, or as it enrols.
fn issued(sim: &mut Sim, renewal: Option<(u64, &str)>, its_key: &str, serial: &str) -> bool {
    let machine = sim
        .world
        .instance(&key("a1"))
        .and_then(Instance::machine_id);
    let machine = machine.cloned().expect("has one");
    let answer = sim.input(Input::Issued {
        at: key("a1"),
        machine,
        session: renewal.map(|(session, _)| session),
        asked_with: renewal.map(|(_, serial)| serial.to_owned()),
        key_sha256: its_key.to_owned(),
        serial: serial.to_owned(),
        expires_unix: sim.now / 1000 + 24 * 3600,
    });
    matches!(answer, Answer::Ack)
}

fn counts(sim: &Sim, serial: &str) -> bool {
    identity(sim).certifies(serial, sim.now)
}

fn seen(sim: &mut Sim, serial: &str) {
    let serial = serial.to_owned();
    let at = key("a1");
    sim.input(Input::CertificateSeen { at, serial });
}

#[test]
fn a_certificate_counts_until_the_next_one_has_arrived_and_no_longer() {
    let mut sim = ready();
    let open = session(&sim);
    assert!(counts(&sim, "first") && !counts(&sim, "another") && !counts(&sim, ""));
    assert!(issued(&mut sim, Some((open, "first")), "k2", "second"));
    assert!(
        counts(&sim, "first") && counts(&sim, "second"),
        "the reply may get lost"
    );
    seen(&mut sim, "first");
    assert!(counts(&sim, "first"));
    seen(&mut sim, "second");
    assert!(!counts(&sim, "first") && counts(&sim, "second"));
    assert!(!identity(&sim).holds("key of i-1") && identity(&sim).holds("k2"));

    // It is not waited for longer than an hour.
    assert!(issued(&mut sim, Some((open, "second")), "k3", "third"));
    sim.now += RENEWAL_MS - 1;
    assert!(counts(&sim, "second"));
    sim.now += 1;
    assert!(!counts(&sim, "second") && counts(&sim, "third"));
    assert!(!issued(&mut sim, Some((open, "second")), "k4", "fourth"));
    assert!(!issued(&mut sim, Some((open, "first")), "k4", "fourth"));
    assert!(issued(&mut sim, Some((open, "third")), "k4", "fourth"));
}

#[test]
fn an_agent_that_never_gets_the_answer_keeps_the_certificate_that_it_has() {
    let mut sim = ready();
    let open = session(&sim);
    let first_key = identity(&sim).key_sha256.clone();
    for (its_key, serial) in [("k2", "lost"), ("k3", "lost too"), ("k4", "arrived")] {
        assert!(issued(&mut sim, Some((open, "first")), its_key, serial));
        assert!(counts(&sim, "first") && counts(&sim, serial));
        assert!(identity(&sim).holds(&first_key), "nor is it shut out later");
    }
    assert!(!counts(&sim, "lost") && !counts(&sim, "lost too"));
}

#[test]
fn a_session_ends_with_its_certificate_and_one_that_renews_does_not() {
    let mut sim = ready();
    let open = session(&sim);
    held(&mut sim, open, peer(1), None);
    let expires = |sim: &mut Sim| -> Vec<u64> {
        sim.pending.clear();
        sim.input(Input::Tick);
        let expire = |effect: &Effect| match effect {
            Effect::Expire { session, .. } => Some(*session),
            _ => None,
        };
        sim.pending.iter().filter_map(expire).collect()
    };
    sim.now += 20 * 3_600_000;
    assert!(expires(&mut sim).is_empty());
    assert!(issued(&mut sim, Some((open, "first")), "k2", "second"));
    sim.now += 5 * 3_600_000;
    assert!(expires(&mut sim).is_empty(), "past the first one's end");
    sim.now += 20 * 3_600_000;
    assert_eq!(expires(&mut sim), [open]);
}

fn peer(process: u64) -> PeerProcess {
    PeerProcess {
        address: IpAddr::from([10, 0, 0, 1]),
        certificate: 1,
        boot: 1,
        process: Some(process),
    }
}

fn held(sim: &mut Sim, session: u64, peer: PeerProcess, replaced_ms: Option<u64>) {
    let holder = Box::new(SessionHolder {
        peer,
        serial: "first".to_owned(),
        replaced_ms,
    });
    sim.agent(key("a1"), session, AgentInput::HeldBy(holder));
}

/// Whether it is told that the identity is used twice when `next` takes the place of `first`, which was heard so long ago.
fn is_told(first: PeerProcess, next: PeerProcess, replaced_ms: Option<u64>) -> bool {
    let mut sim = ready();
    let open = session(&sim);
    held(&mut sim, open, first, None);
    sim.agent(key("a1"), open + 100, AgentInput::Attached(Box::default()));
    sim.pending.clear();
    held(&mut sim, open + 100, next, replaced_ms);
    told(&sim) > 0
}

fn told(sim: &Sim) -> usize {
    let twice = |effect: &&Effect| matches!(effect, Effect::Event(event) if event.kind == "identity-used-twice");
    sim.pending.iter().filter(twice).count()
}

#[test]
fn two_that_hold_one_identity_are_told_and_one_that_comes_back_is_not() {
    let first = peer(1);
    let elsewhere = |peer: PeerProcess| PeerProcess {
        address: IpAddr::from([10, 0, 0, 2]),
        ..peer
    };
    let renewed = |peer: PeerProcess| PeerProcess {
        certificate: 2,
        ..peer
    };
    let rebooted = |peer: PeerProcess| PeerProcess { boot: 2, ..peer };
    let silent = PeerProcess {
        process: None,
        ..first
    };
    let alive = Some(3_000);
    for (what, next, replaced, expected) in [
        ("a link that was cut", first, alive, false),
        (
            "the same, behind another gateway",
            elsewhere(first),
            alive,
            false,
        ),
        (
            "the same, with a new certificate",
            renewed(first),
            alive,
            false,
        ),
        ("the agent was started again", peer(2), alive, false),
        (
            "the machine was started again",
            rebooted(peer(2)),
            None,
            false,
        ),
        (
            "the same, and nobody saw it end",
            rebooted(peer(2)),
            Some(10_000),
            false,
        ),
        ("it had ended before", elsewhere(peer(2)), None, false),
        ("another machine", rebooted(peer(2)), alive, true),
        ("another address", elsewhere(peer(2)), alive, true),
        ("another certificate", renewed(peer(2)), alive, true),
        ("nobody in particular", silent, alive, true),
    ] {
        assert_eq!(is_told(first, next, replaced), expected, "{what}");
    }
    assert!(
        is_told(silent, silent, alive),
        "two of nobody in particular"
    );
}

#[test]
fn a_session_that_answers_after_another_took_its_place_is_told_once_in_a_while() {
    let mut sim = ready();
    let old = session(&sim);
    let answers = |sim: &mut Sim, session| {
        sim.pending.clear();
        let at = key("a1");
        sim.input(Input::StillThere { at, session });
        told(sim)
    };
    assert_eq!(
        answers(&mut sim, old),
        0,
        "it is the one that the instance has"
    );
    sim.agent(key("a1"), old + 100, AgentInput::Attached(Box::default()));
    assert_eq!(answers(&mut sim, old), 1);
    let shown = sim.world.view(&key("a1")).expect("is there");
    assert!(
        shown.warning.contains("two processes use its identity"),
        "{}",
        shown.warning
    );
    sim.crash();
    assert!(identity(&sim).used_twice.is_some(), "kept over restarts");
    sim.agents_move();
    let newest = self::session(&sim);
    assert_eq!(answers(&mut sim, newest - 1), 0, "it was told a moment ago");
    sim.now += 60_000;
    assert_eq!(answers(&mut sim, newest - 1), 1);
}
