//! Identities that are taken away: from then on, over restarts, until there is another machine.

use super::*;

fn revoke(sim: &mut Sim, names: &[&str]) -> Answer {
    sim.input(Input::Revoke {
        cluster: cluster(),
        instances: names.iter().map(|name| key(name).instance).collect(),
        operator: "uid 0".to_owned(),
    })
}

/// Two instances of one pool, ready.
fn ready() -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &["one"]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    sim
}

/// What an agent of this machine is answered when it enrols with the token of its launch and this key.
fn enrols(sim: &mut Sim, name: &str, its_key: &str) -> Answer {
    let machine = instance(sim, name).machine.clone().expect("it has one");
    let token = machine.client_token.as_ref().expect("the sim sets it");
    let secret = JoinKey::new(b"key").token(&token.0);
    sim.input(Input::Enrol(EnrolAsk {
        token_sha256: sha256_hex(secret.as_bytes()),
        machine: machine.id,
        key_sha256: its_key.to_owned(),
        document: ShownDocument::Nothing,
        answer: Secret::default(),
    }))
}

fn attaches(sim: &mut Sim, name: &str, session: u64) {
    sim.agent(key(name), session, AgentInput::Attached(Box::default()));
}

fn closes(sim: &Sim) -> Vec<(String, u64)> {
    let close = |effect: &Effect| match effect {
        Effect::Close { at, session } => Some((at.instance.to_string(), *session)),
        _ => None,
    };
    sim.pending.iter().filter_map(close).collect()
}

#[test]
fn its_session_ends_at_once_and_its_facts_are_told_no_more() {
    let mut sim = ready();
    let (session, generation) = (
        instance(&sim, "a1").session.expect("connected"),
        sim.world.clusters[&cluster()].generation,
    );

    assert!(matches!(revoke(&mut sim, &["a1"]), Answer::Ack));

    assert_eq!(closes(&sim), [("a1".to_owned(), session)]);
    let a1 = instance(&sim, "a1");
    assert!(a1.is_revoked() && !a1.connected() && a1.identity.is_none());
    assert_eq!(a1.phase, Phase::Failed);
    assert!(a1.note.contains("revoked"), "{}", a1.note);
    let on_disk: Vec<_> = sim.disk.facts.keys().cloned().collect();
    assert_eq!(on_disk, [key("a2")], "nor do they come back with a restart");
    let found = &sim.world.clusters[&cluster()];
    assert_eq!(found.generation, generation + 1);
    sim.perform_all();
    let has = &sim.agents[&key("a2")].content;
    let peers: Vec<&str> = has.peers().map(|peer| peer.name.as_str()).collect();
    assert_eq!(peers, ["a2"], "its keys open no door any more");
    assert_eq!(instance(&sim, "a2").phase, Phase::Ready);
}

#[test]
fn its_machine_is_let_in_never_again() {
    let mut sim = ready();
    let old_key = format!("key of {}", instance(&sim, "a1").machine_id().expect("has"));
    revoke(&mut sim, &["a1"]);
    for start in 0..2 {
        for its_key in [&old_key, "another"] {
            let answer = enrols(&mut sim, "a1", its_key);
            assert!(
                matches!(answer, Answer::Refused(Refused::Revoked(_))),
                "start {start}, {its_key}: {answer:?}"
            );
        }
        sim.pending.clear();
        attaches(&mut sim, "a1", 70 + start);
        assert_eq!(closes(&sim), [("a1".to_owned(), 70 + start)]);
        assert!(!instance(&sim, "a1").connected());
        sim.crash();
    }
    assert!(instance(&sim, "a1").is_revoked(), "kept over restarts");
    let coming_back = instance(&sim, "a1").clone();
    assert!(!sim.world.is_coming_back(&coming_back));
}

fn issued(sim: &mut Sim, name: &str, session: Option<u64>, its_key: &str) -> Answer {
    let known = instance(sim, name);
    let machine = known.machine_id().cloned();
    let serial = known.identity.as_ref().map(|it| it.serial.clone());
    let serial = serial.unwrap_or_default();
    sim.input(Input::Issued {
        at: key(name),
        machine: machine.expect("it has one"),
        session,
        asked_with: session.map(|_| serial),
        key_sha256: its_key.to_owned(),
        serial: "07".to_owned(),
        expires_unix: 9,
    })
}

fn shut_out(sim: &Sim) -> Vec<String> {
    let shut = |effect: &Effect| match effect {
        Effect::ShutOut { at } => Some(at.instance.to_string()),
        _ => None,
    };
    sim.pending.iter().filter_map(shut).collect()
}

#[test]
fn a_certificate_that_was_on_its_way_is_not_given_out_and_brings_nothing_back() {
    let mut sim = ready();
    let session = instance(&sim, "a1").session;
    let old_key = format!("key of {}", instance(&sim, "a1").machine_id().expect("has"));
    revoke(&mut sim, &["a1"]);
    assert_eq!(shut_out(&sim), ["a1"], "fetches and terminals too");
    for asked in [session, None] {
        let answer = issued(&mut sim, "a1", asked, &old_key);
        assert!(
            matches!(answer, Answer::Refused(Refused::NotCurrent(_))),
            "{asked:?}: {answer:?}"
        );
    }
    assert!(instance(&sim, "a1").identity.is_none());
}

#[test]
fn a_certificate_is_renewed_only_in_the_session_that_the_instance_has_now() {
    let mut sim = ready();
    let old = instance(&sim, "a1").session.expect("connected");
    attaches(&mut sim, "a1", old + 1_000);
    let before = instance(&sim, "a1").identity.clone();
    for asked in [old, old + 2_000] {
        let answer = issued(&mut sim, "a1", Some(asked), "new");
        assert!(
            matches!(answer, Answer::Refused(Refused::NotCurrent(_))),
            "{answer:?}"
        );
        assert_eq!(instance(&sim, "a1").identity, before);
    }
    let answer = issued(&mut sim, "a1", None, "a key that never enrolled");
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    let answer = issued(&mut sim, "a1", Some(old + 1_000), "new");
    assert!(matches!(answer, Answer::Ack), "{answer:?}");
    let identity = instance(&sim, "a1").identity.clone().expect("it stands");
    assert_eq!(
        (identity.key_sha256.as_str(), identity.serial.as_str()),
        ("new", "07")
    );
}

#[test]
fn what_the_machine_before_has_open_ends_when_another_takes_its_place() {
    let mut sim = ready();
    sim.input(Input::Terminate {
        cluster: cluster(),
        instances: vec![key("a1").instance],
        by: AskedBy::default(),
    });
    for _ in 0..10 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        sim.now += 10_000;
        sim.input(Input::Tick);
    }
    assert_eq!(instance(&sim, "a1").phase, Phase::Gone);
    sim.pending.clear();
    sim.input(ask(&spec(&[2], &[]), &["one"]));
    assert_eq!(shut_out(&sim), ["a1"]);
}

#[test]
fn launch_leaves_it_alone_until_it_has_another_machine() {
    let mut sim = ready();
    revoke(&mut sim, &["a1"]);
    let old = instance(&sim, "a1").machine_id().cloned();

    sim.input(ask(&spec(&[2], &[]), &["one", "two"]));
    sim.run_until_quiet();
    assert!(instance(&sim, "a1").is_revoked());
    assert_eq!(instance(&sim, "a1").phase, Phase::Failed);
    assert!(instance(&sim, "a1").note.contains("revoked"));
    assert_eq!(instance(&sim, "a2").phase, Phase::Ready);

    sim.input(Input::Terminate {
        cluster: cluster(),
        instances: vec![key("a1").instance],
        by: AskedBy::default(),
    });
    for _ in 0..10 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        sim.now += 10_000;
        sim.input(Input::Tick);
    }
    assert_eq!(instance(&sim, "a1").phase, Phase::Gone);
    sim.agents.remove(&key("a1"));
    sim.input(ask(&spec(&[2], &[]), &["one", "two"]));
    sim.run_until_quiet();
    let a1 = instance(&sim, "a1");
    assert_ne!(a1.machine_id().cloned(), old);
    assert_eq!((a1.phase, a1.revoked.is_none()), (Phase::Ready, true));
}

#[test]
fn a_machine_that_has_not_called_home_is_shut_out_too() {
    let mut sim = Sim::new();
    sim.silent.insert("a1".to_owned());
    sim.input(ask(&spec(&[2], &[]), &[]));
    for _ in 0..5 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        sim.agents_move();
    }
    assert_eq!(instance(&sim, "a1").phase, Phase::Booting);
    revoke(&mut sim, &["a1"]);
    assert!(matches!(
        enrols(&mut sim, "a1", "first"),
        Answer::Refused(Refused::Revoked(_))
    ));
    sim.run_until_quiet();
    assert_eq!(instance(&sim, "a1").phase, Phase::Failed, "the launch ends");
}

#[test]
fn what_it_ran_has_lost_contact_at_once() {
    let mut sim = ready();
    let task = Exec {
        argv: vec!["sleep".to_owned()],
        ..Exec::default()
    };
    let answer = sim.input(Input::Exec(ExecAsk {
        cluster: cluster(),
        instances: vec![key("a1").instance, key("a2").instance],
        kind: JobKind::Exec,
        task: Task::Command(task),
        pace: Pace::default(),
        queue_ms: 0,
        what: String::new(),
        operator: String::new(),
        request: None,
    }));
    let Answer::Exec { job, .. } = answer else {
        panic!("{answer:?}");
    };
    revoke(&mut sim, &["a1"]);
    sim.now += 1_000;
    sim.input(Input::Tick);
    let outcome = |name: &str| {
        let verdict = sim.world.jobs[&job].targets[&key(name).instance].as_ref();
        verdict.map(|verdict| verdict.outcome)
    };
    assert_eq!(
        (outcome("a1"), outcome("a2")),
        (Some(Outcome::LostContact), None)
    );
}

#[test]
fn a_terminal_that_is_open_there_ends() {
    let mut sim = ready();
    let shell = |n: u128, name: &str| Job {
        targets: [(key(name).instance, None)].into(),
        ..Job::new(
            JobId::from_parts(1, n),
            JobKind::Shell,
            cluster(),
            "shell".to_owned(),
            String::new(),
            1,
        )
    };
    let (first, second) = (shell(1, "a1"), shell(2, "a2"));
    let ids = (first.id, second.id);
    for job in [first, second] {
        sim.input(Input::Record(Box::new(job)));
    }
    sim.pending.clear();
    revoke(&mut sim, &["a1"]);
    let ended: Vec<JobId> = sim
        .pending
        .iter()
        .filter_map(|effect| match effect {
            Effect::TargetEnded { job, .. } => Some(*job),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [ids.0], "and not {}", ids.1);
}

#[test]
fn there_must_be_something_to_take() {
    let mut sim = ready();
    let nobody = sim.input(Input::Revoke {
        cluster: "other".parse().expect("a name"),
        instances: Vec::new(),
        operator: String::new(),
    });
    assert!(matches!(nobody, Answer::Error(OpError::NoCluster(_))));
    assert!(matches!(
        revoke(&mut sim, &["b9"]),
        Answer::Error(OpError::Conflict(_))
    ));
    revoke(&mut sim, &["a1"]);
    let first = instance(&sim, "a1").revoked.clone();
    sim.now += 5_000;
    sim.pending.clear();
    assert!(matches!(revoke(&mut sim, &["a1"]), Answer::Ack));
    assert_eq!(instance(&sim, "a1").revoked, first, "twice is as once");
    assert!(closes(&sim).is_empty());
}
