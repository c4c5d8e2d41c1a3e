//! Launches: of the same file, of a changed one, with no capacity, without an answer, rolled back.

use super::needs::{Again, apply};
use super::*;
use crate::spec::SpotSpec;

#[test]
fn a_second_launch_changes_nothing_and_says_so() {
    let wanted = spec(&[2], &[]);
    let mut sim = Sim::new();
    sim.input(ask(&wanted, &["one"]));
    sim.run_until_quiet();
    let calls = sim.calls;
    assert!(matches!(
        sim.input(ask(&wanted, &["one"])),
        Answer::UpToDate(_)
    ));
    sim.run_until_quiet();
    assert_eq!((sim.calls, sim.started.values().sum::<u32>()), (calls, 2));
    assert!(sim.ended.iter().all(|(_, code)| *code == 0));
    assert_eq!(sim.ended.len(), 2);
}

#[test]
fn a_changed_stage_and_all_after_it_run_again_and_nothing_before() {
    let wanted = spec(&[1], &[]);
    let mut sim = Sim::new();
    sim.input(ask(&wanted, &["one", "two", "three"]));
    sim.run_until_quiet();
    sim.input(ask(&wanted, &["one", "two-b", "three"]));
    sim.run_until_quiet();
    let count = |name: &str| sim.started.get(&(key("a1"), name.to_owned())).copied();
    assert_eq!(
        ["one", "two", "two-b", "three"].map(count),
        [Some(1), Some(1), Some(1), Some(2)]
    );
}

#[test]
fn growing_by_one_adds_one_machine_and_a_generation_everywhere() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[3], &[]), &["one"]));
    sim.run_until_quiet();
    sim.input(ask(&spec(&[4], &[]), &["one"]));
    sim.run_until_quiet();
    let found = &sim.world.clusters[&cluster()];
    assert_eq!((sim.alive(), found.generation), (4, 2));
    assert!(found.instances.values().all(|i| i.applied_generation == 2));
}

#[test]
fn no_capacity_moves_on_to_the_next_type_and_then_gives_up() {
    let mut sim = Sim::new();
    sim.refuse.insert("big".to_owned(), ErrorKind::NoCapacity);
    sim.input(ask(&spec(&[2], &["big", "small"]), &[]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    let mut sim = Sim::new();
    sim.refuse.insert("big".to_owned(), ErrorKind::NoCapacity);
    sim.input(ask(&spec(&[2], &["big"]), &[]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    assert_eq!(sim.ended.last().expect("ended").1, 1);
}

#[test]
fn machines_of_an_answer_that_never_came_are_adopted_by_their_token() {
    let mut sim = Sim::new();
    sim.refuse.insert(String::new(), ErrorKind::Unavailable);
    sim.input(ask(&spec(&[2], &[]), &["one"]));
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    let token = sim.world.clusters[&cluster()]
        .batches
        .keys()
        .next()
        .expect("one batch")
        .clone();
    sim.machines
        .insert(token.clone(), (0..2).map(|i| machine(&token, i)).collect());
    sim.run_until_quiet();
    assert_eq!(
        (sim.phases(), sim.alive()),
        (BTreeSet::from([Phase::Ready]), 2)
    );
}

#[test]
fn a_rollback_terminates_what_the_launch_made_and_nothing_else() {
    let mut wanted = spec(&[1], &[]);
    let mut sim = Sim::new();
    sim.input(ask(&wanted, &["one"]));
    sim.run_until_quiet();
    wanted = spec(&[2], &[]);
    wanted.launch.on_failure = OnFailure::Rollback;
    sim.exit.insert("a2".to_owned(), 1);
    sim.input(ask(&wanted, &["one"]));
    sim.run_until_quiet();
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    assert_eq!(sim.alive(), 1);
    assert!(
        sim.world
            .instance(&key("a1"))
            .expect("is there")
            .has_machine()
    );
}

#[test]
fn spot_without_capacity_falls_back_only_where_the_file_says_so() {
    for fallback in [true, false] {
        let mut wanted = spec(&[1], &["big", "small"]);
        wanted.pools[0].machine.spot = Some(SpotSpec {
            max_price: None,
            fallback,
        });
        let mut sim = Sim::new();
        for kind in ["big", "small"] {
            sim.refuse.insert(kind.to_owned(), ErrorKind::NoCapacity);
        }
        sim.input(ask(&wanted, &[]));
        sim.perform_all();
        let batches = &sim.world.clusters[&cluster()].batches;
        let tried: BTreeSet<(usize, bool)> = batches
            .values()
            .map(|batch| (batch.choice.kind, batch.choice.on_demand))
            .collect();
        let mut all = BTreeSet::from([(0, false), (1, false)]);
        if fallback {
            all.extend([(0, true), (1, true)]);
        }
        assert_eq!(tried, all);
        assert_eq!(last_code(&sim), 1);
    }
}

#[test]
fn an_account_limit_of_one_type_moves_on_to_the_next() {
    let mut sim = Sim::new();
    sim.refuse.insert("big".to_owned(), ErrorKind::Quota);
    sim.input(ask(&spec(&[2], &["big", "small"]), &[]));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
}

#[test]
fn a_launch_starts_stopped_machines_and_waits_for_their_agents() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    for machine in sim.machines.values_mut().flatten() {
        machine.state = MachineState::Stopped;
    }
    for name in ["a1", "a2"] {
        let session = instance(&sim, name).session.expect("connected");
        sim.agent(
            key(name),
            session,
            AgentInput::Closed { why: String::new() },
        );
        sim.agents.get_mut(&key(name)).unwrap().session = None;
    }
    sim.input(Input::Poll { cluster: cluster() });
    sim.perform_all();
    assert_eq!(instance(&sim, "a1").state(), "stopped");
    assert!(matches!(
        sim.input(ask(&spec(&[2], &[]), &[])),
        Answer::Started(_)
    ));
    run(&mut sim, 10);
    assert!(
        sim.world.clusters[&cluster()].launching(),
        "their agents are not back"
    );
    sim.run_until_quiet();
    assert_eq!(last_code(&sim), 0);
    assert!(
        sim.machines
            .values()
            .flatten()
            .all(|m| m.state == MachineState::Running)
    );
}

#[test]
fn the_record_of_a_launch_says_how_it_ended_once_another_took_over() {
    let mut sim = Sim::new();
    let mut wanted = spec(&[2], &[]);
    wanted.launch.min_ready = MinReady::Count(1);
    sim.exit.insert("a2".to_owned(), 1);
    let launched = |sim: &Sim| {
        let launch = sim.world.clusters[&cluster()].launch.as_ref();
        launch.expect("it was begun").job
    };
    sim.input(ask(&wanted, &["one"]));
    let enough = launched(&sim);
    sim.run_until_quiet();
    sim.input(ask(&wanted, &["two"]));
    let superseded = launched(&sim);
    sim.input(ask(&wanted, &["three"]));
    sim.run_until_quiet();
    for (job, why) in [
        (enough, ""),
        (
            superseded,
            "a newer launch of this cluster took over: test's",
        ),
    ] {
        let (_, error) = sim.disk.job(job).end().expect("it is over");
        assert_eq!(error, why);
    }
}

#[test]
fn a_launch_and_an_apply_of_no_instances_end_on_record() {
    let mut sim = Sim::new();
    let launched = sim.input(ask(&spec(&[0], &[]), &["one"]));
    sim.run_until_quiet();
    let nothing = Again {
        of: &[],
        from: None,
        force: false,
        failed: false,
    };
    let applied = apply(&mut sim, &BTreeMap::new(), &nothing);
    sim.run_until_quiet();
    for answer in [launched, applied] {
        let (Answer::Started(job) | Answer::UpToDate(job)) = answer else {
            panic!("{answer:?}")
        };
        let record = &sim.disk.jobs[&job];
        assert!(record.targets.is_empty(), "{record:?}");
        assert!(record.ended_ms.is_some(), "{record:?}");
        assert_eq!(record.error.as_deref(), Some(""), "it has succeeded");
        assert!(sim.ended.contains(&(job, 0)));
    }
}
