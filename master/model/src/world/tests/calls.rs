//! Calls that are repeated: what one launch tried in vain, and what a cluster leaves behind that is cleaned up.

use super::*;

fn pass(sim: &mut Sim, seconds: u64) {
    for _ in 0..seconds {
        sim.perform_all();
        sim.now += 1_000;
        sim.input(Input::Tick);
    }
    sim.perform_all();
}

fn waits(sim: &Sim, of_kind: impl Fn(&Effect) -> bool) -> bool {
    sim.pending.iter().any(of_kind)
}

/// Until the cluster is forgotten.
fn clean_up(sim: &mut Sim) {
    sim.input(Input::Cleanup {
        cluster: cluster(),
        by: AskedBy::default(),
    });
    pass(sim, 60);
    assert!(sim.world.clusters.is_empty(), "it is cleaned up");
}

#[test]
fn machines_that_would_not_start_in_one_launch_are_started_at_once_by_the_next() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.run_until_quiet();
    let session = sim.agents.get_mut(&key("a1")).unwrap().session.take();
    let why = "stopped".to_owned();
    sim.agent(
        key("a1"),
        session.expect("connected"),
        AgentInput::Closed { why },
    );
    for machine in sim.machines.values_mut().flatten() {
        machine.state = MachineState::Stopped;
    }
    sim.input(Input::Poll { cluster: cluster() });
    sim.perform_all();
    sim.no_start = true;
    sim.input(ask(&spec(&[1], &[]), &[]));
    pass(&mut sim, 601); // a second after its time: the next try would be in a minute
    assert!(!sim.world.clusters[&cluster()].launching());
    let tries = sim.start_calls;
    assert!((8..=40).contains(&tries), "{tries} calls in ten minutes");
    sim.input(ask(&spec(&[1], &[]), &[]));
    let starts = |effect: &Effect| {
        matches!(
            effect,
            Effect::Call {
                call: Call::Start(_),
                ..
            }
        )
    };
    assert!(waits(&sim, starts), "the new launch asks at once");
}

#[test]
fn a_new_cluster_of_a_name_inherits_no_call_of_the_one_before() {
    let mut sim = Sim::new();
    let explains = |effect: &Effect| {
        matches!(
            effect,
            Effect::Call {
                call: Call::Explain(_),
                ..
            }
        )
    };
    sim.silent.insert("a1".to_owned());
    for turn in 0..2 {
        sim.input(ask(&spec(&[1], &[]), &[]));
        pass(&mut sim, 599);
        sim.now += 2_000;
        sim.input(Input::Tick);
        assert!(waits(&sim, explains), "turn {turn}: it is asked about");
        // Its answer is lost.
        sim.pending.retain(|effect| !explains(effect));
        clean_up(&mut sim);
        sim.machines.clear();
        sim.agents.clear();
    }
}

#[test]
fn nothing_is_remembered_of_a_cluster_that_is_cleaned_up() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    clean_up(&mut sim);
    // These were under way.
    sim.answer(CallAnswer::Addressed(Vec::new()));
    sim.answer(CallAnswer::Explained(BTreeMap::new()));
    sim.answer(CallAnswer::Named {
        machines: Vec::new(),
        result: Err(failure(ErrorKind::Unavailable)),
    });
    sim.answer(CallAnswer::Terminated {
        machines: Vec::new(),
        result: Err(failure(ErrorKind::Unavailable)),
    });
    let world = &sim.world;
    assert!(world.calls.is_empty(), "{:?}", world.calls);
    assert!(world.stale.is_empty() && world.machines.is_empty());
}

/// A cluster that has the name of one that was cleaned up.
fn renewed() -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.run_until_quiet();
    clean_up(&mut sim);
    sim.machines.clear();
    sim.agents.clear();
    let Input::Launch(mut again) = ask(&spec(&[1], &[]), &[]) else {
        unreachable!("it asks for a launch");
    };
    again.fresh_uuid = "another".to_owned();
    sim.input(Input::Launch(again));
    sim.run_until_quiet();
    sim.perform_all();
    sim
}

/// One answer of each kind, of which each would change something in this cluster.
fn answers(sim: &Sim) -> Vec<CallAnswer> {
    let machine = instance(sim, "a1").machine.clone().expect("it has one");
    let id = machine.id.clone();
    let machines = vec![id.clone()];
    let no = || failure(ErrorKind::Unavailable);
    vec![
        CallAnswer::Launched {
            token: first_token(sim),
            result: Err(no()),
        },
        CallAnswer::Prepared(Err(no())),
        CallAnswer::Addressed(vec![(id.clone(), Err(no()))]),
        CallAnswer::ChallengesSet(vec![(id.clone(), Err(no()))]),
        CallAnswer::ChallengesRemoved {
            machines: machines.clone(),
            error: Some(no()),
        },
        CallAnswer::Explained(BTreeMap::new()),
        CallAnswer::Changed {
            job: sim.world.jobs.keys().next_back().copied().expect("a stop"),
            result: Err(no()),
            error: Some(no()),
        },
        CallAnswer::Started(Some("no".to_owned())),
        CallAnswer::Described(Err(no())),
        CallAnswer::Found {
            machines: machines.clone(),
            result: Err(no()),
        },
        CallAnswer::Terminated {
            machines: machines.clone(),
            result: Err(no()),
        },
        CallAnswer::Named {
            machines,
            result: Err(no()),
        },
        CallAnswer::Cleaned(Ok(Vec::new())),
    ]
}

/// Which of the kinds an answer is, so that the table has a row for each.
fn row(answer: &CallAnswer) -> usize {
    match answer {
        CallAnswer::Launched { .. } => 0,
        CallAnswer::Prepared(_) => 1,
        CallAnswer::Addressed(_) => 2,
        CallAnswer::ChallengesSet(_) => 3,
        CallAnswer::ChallengesRemoved { .. } => 4,
        CallAnswer::Explained(_) => 5,
        CallAnswer::Changed { .. } => 6,
        CallAnswer::Started(_) => 7,
        CallAnswer::Described(_) => 8,
        CallAnswer::Found { .. } => 9,
        CallAnswer::Terminated { .. } => 10,
        CallAnswer::Named { .. } => 11,
        CallAnswer::Cleaned(_) => 12,
    }
}

/// Whether an answer to a call of the cluster with this uuid leaves all as it is.
fn changes_nothing(sim: &mut Sim, uuid: &str, answer: CallAnswer) -> bool {
    let calls = format!("{:?}", sim.world.calls);
    let cluster = ClusterId {
        name: cluster(),
        uuid: ClusterUuid::new(uuid),
    };
    let (_, effects) = sim.world.step(Input::Answered { cluster, answer }, sim.now);
    // Whoever asked for a change is told what came of it, whatever has become of the cluster.
    let told = |effect: &Effect| matches!(effect, Effect::CallAnswered { .. });
    effects.iter().all(told)
        && sim.world.drain_changes().is_empty()
        && sim.world.is_reconciled()
        && calls == format!("{:?}", sim.world.calls)
}

#[test]
fn an_answer_for_a_cluster_that_was_cleaned_up_changes_nothing_in_the_next_of_its_name() {
    for at in 0..13 {
        for (uuid, ignored) in [("uuid", true), ("another", false)] {
            let mut sim = renewed();
            sim.input(Input::Lifecycle(LifecycleAsk {
                cluster: cluster(),
                instances: vec![key("a1").instance],
                kind: JobKind::Stop,
                timeout_ms: 60_000,
                by: AskedBy::default(),
            }));
            let answer = answers(&sim).swap_remove(at);
            assert_eq!(row(&answer), at);
            let kind = format!("{answer:?}");
            assert_eq!(changes_nothing(&mut sim, uuid, answer), ignored, "{kind}");
        }
    }
}
