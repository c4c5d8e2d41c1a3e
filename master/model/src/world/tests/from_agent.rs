//! An agent is believed about itself alone, and in the session that its instance has now.

use super::*;

/// Two instances, ready, and a command that runs on both; `a1`'s run is given.
fn at_work() -> (Sim, JobId, RunId) {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    let answer = sim.input(Input::Exec(ExecAsk {
        cluster: cluster(),
        instances: vec![key("a1").instance, key("a2").instance],
        kind: JobKind::Exec,
        task: crate::task::Task::Command(Exec::default()),
        pace: Pace::default(),
        queue_ms: 0,
        what: String::new(),
        operator: String::new(),
        request: None,
    }));
    let Answer::Exec { job, .. } = answer else {
        panic!("{answer:?}")
    };
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    let run = sim.world.runs_of(&key("a1")).next().expect("it runs").id;
    (sim, job, run)
}

fn session(sim: &Sim, name: &str) -> u64 {
    sim.world
        .instance(&key(name))
        .expect("is there")
        .session
        .expect("is connected")
}

/// One input of every kind, but the one that opens a session. Adding a kind without adding it here does not compile.
fn one_of_each(run: RunId, generation: u64) -> Vec<AgentInput> {
    let next = |last: &AgentInput| match last {
        AgentInput::Attached(_) => Some(AgentInput::HeldBy(Box::new(SessionHolder {
            peer: crate::identity::PeerProcess {
                address: core::net::IpAddr::from([10, 0, 0, 9]),
                certificate: 9,
                boot: 9,
                process: None,
            },
            serial: "a lie".to_owned(),
            replaced_ms: Some(0),
        }))),
        AgentInput::HeldBy(_) => Some(AgentInput::Facts(Box::new(NodeFacts {
            node: serde_json::json!({"hostname": "liar"}).into(),
            ssh_host_keys: Vec::new(),
            root_public_key: "a key of its own".to_owned(),
            user_public_key: String::new(),
            main_user: String::new(),
        }))),
        AgentInput::Facts(_) => Some(AgentInput::Applied {
            generation,
            error: "a lie".to_owned(),
        }),
        AgentInput::Applied { .. } => Some(AgentInput::VolumesMounted {
            id: 1,
            error: "a lie".to_owned(),
        }),
        AgentInput::VolumesMounted { .. } => Some(AgentInput::RunAnswer {
            run,
            accepted: false,
            reason: "a lie".to_owned(),
        }),
        AgentInput::RunAnswer { .. } => Some(AgentInput::Printed {
            run,
            lines: Box::default(),
        }),
        AgentInput::Printed { .. } => Some(AgentInput::RunEnded {
            run,
            ended: Box::default(),
        }),
        AgentInput::RunEnded { .. } => Some(AgentInput::Closed {
            why: "a lie".to_owned(),
        }),
        AgentInput::Closed { .. } => None,
    };
    let mut all = vec![AgentInput::Attached(Box::default())];
    while let Some(more) = next(all.last().expect("one at least")) {
        all.push(more);
    }
    all.remove(0);
    all
}

fn unchanged(sim: &mut Sim, at: &InstanceKey, session: u64, report: AgentInput) {
    let what = format!("{report:?}");
    let input = Input::Agent {
        at: at.clone(),
        session,
        report,
    };
    let (answer, mut effects) = sim.world.step(input, sim.now);
    effects.extend(sim.world.reconcile(sim.now));
    assert!(matches!(answer, Answer::NotItsOwn), "{what}: {answer:?}");
    assert!(effects.is_empty(), "{what}: {effects:?}");
    let changes = sim.world.drain_changes();
    assert!(changes.is_empty(), "{what}: {changes:?}");
}

#[test]
fn runs_of_another_instance_are_out_of_reach() {
    let (mut sim, job, run) = at_work();
    let stranger = session(&sim, "a2");
    for accepted in [true, false] {
        let reason = "disk failure on a1".to_owned();
        unchanged(
            &mut sim,
            &key("a2"),
            stranger,
            AgentInput::RunAnswer {
                run,
                accepted,
                reason,
            },
        );
    }
    let ended = Box::default();
    unchanged(
        &mut sim,
        &key("a2"),
        stranger,
        AgentInput::RunEnded { run, ended },
    );
    assert!(sim.world.own_run(&key("a2"), stranger, run).is_none());
    assert_eq!(sim.world.jobs[&job].targets[&key("a1").instance], None);
    let answer = sim.of_run(
        run,
        AgentInput::RunEnded {
            run,
            ended: Box::new(v1::Ended {
                kind: EndKind::Exited as i32,
                ..v1::Ended::default()
            }),
        },
    );
    assert!(matches!(answer, Answer::Ack), "its own agent ends it");
    assert!(sim.world.jobs[&job].targets[&key("a1").instance].is_some());
}

#[test]
fn no_session_but_the_newest_of_an_instance_changes_anything() {
    let (mut sim, _, run) = at_work();
    let at = key("a1");
    let (old, new) = (session(&sim, "a1"), session(&sim, "a2") + 10);
    sim.agents.get_mut(&at).expect("is there").session = Some(new);
    let hello = v1::Hello {
        runs: vec![v1::RunState {
            run_id: run.to_string(),
            ..v1::RunState::default()
        }],
        ..v1::Hello::default()
    };
    sim.agent(at.clone(), new, AgentInput::Attached(Box::new(hello)));
    let generation = sim.world.clusters[&cluster()].generation;
    for session in [old, new + 1, 0] {
        for report in one_of_each(run, generation) {
            unchanged(&mut sim, &at, session, report);
        }
    }
    assert!(sim.world.own_run(&at, new, run).is_some());
    assert!(sim.world.own_run(&at, old, run).is_none());
}

#[test]
fn a_hello_that_is_decided_on_late_does_not_take_the_place_of_a_newer_session() {
    let (mut sim, _, _) = at_work();
    let (at, old) = (key("a1"), session(&sim, "a1"));
    sim.agent(at.clone(), old + 100, AgentInput::Attached(Box::default()));
    let answer = sim.agent(at.clone(), old + 99, AgentInput::Attached(Box::default()));
    assert!(matches!(answer, Answer::NotItsOwn), "{answer:?}");
    assert_eq!(session(&sim, "a1"), old + 100);
    let closed =
        |effect: &Effect| matches!(effect, Effect::Close { session, .. } if *session == old + 99);
    assert!(sim.pending.iter().any(closed), "the late one is ended");
}

#[test]
fn cluster_facts_that_were_not_sent_cannot_be_acknowledged() {
    let (mut sim, _, _) = at_work();
    let (at, session) = (key("a1"), session(&sim, "a1"));
    let generation = sim.world.clusters[&cluster()].generation;
    for generation in [0, generation + 1, u64::MAX] {
        for error in ["", "a lie"] {
            let error = error.to_owned();
            unchanged(
                &mut sim,
                &at,
                session,
                AgentInput::Applied { generation, error },
            );
        }
    }
    assert_eq!(
        sim.world
            .instance(&at)
            .expect("is there")
            .applied_generation,
        generation
    );
}

#[test]
fn an_instance_is_given_its_own_bundles_and_copies_and_no_others() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &["one"]));
    sim.run_until_quiet();
    let bundle = |sim: &Sim, name: &str| {
        let instance = sim.world.instance(&key(name)).expect("is there");
        instance.stages[0].plan.bundle_sha256.clone()
    };
    let (own, copied) = (bundle(&sim, "a1"), "c".repeat(64));
    assert!(sim.world.may_fetch(&key("a1"), &own));
    assert!(!sim.world.may_fetch(&key("stranger"), &own));
    assert!(!sim.world.may_fetch(&key("a1"), &copied));
    sim.input(Input::Exec(ExecAsk {
        cluster: cluster(),
        instances: vec![key("a1").instance],
        kind: JobKind::Copy,
        task: crate::task::Task::CopyIn(crate::task::CopyIn {
            sha256: copied.clone(),
            ..crate::task::CopyIn::default()
        }),
        pace: Pace::default(),
        queue_ms: 0,
        what: String::new(),
        operator: String::new(),
        request: None,
    }));
    assert!(sim.world.may_fetch(&key("a1"), &copied));
    assert!(!sim.world.may_fetch(&key("a2"), &copied));
}
