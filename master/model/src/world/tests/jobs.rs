//! Jobs over many instances: their pace, what is kept for the absent, cancellations, and any crash between.

use super::*;
use crate::task::Task;
use crate::world::TargetState;

/// Agents `a1..aN` that stand by, and nothing pending.
fn fleet(size: usize) -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[size], &[]), &[]));
    sim.run_until_quiet();
    sim
}

pub(super) fn deliver(sim: &mut Sim) {
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
}

fn begin(sim: &mut Sim, size: usize, pace: Pace, queue_ms: u64) -> JobId {
    let answer = sim.input(Input::Exec(ExecAsk {
        cluster: cluster(),
        instances: (1..=size).map(|n| key(&format!("a{n}")).instance).collect(),
        kind: JobKind::Exec,
        task: Task::Command(Exec::default()),
        pace,
        queue_ms,
        what: String::new(),
        operator: String::new(),
        request: None,
    }));
    let Answer::Exec { job, targets } = answer else {
        panic!("{answer:?}")
    };
    let untouched =
        |(_, state): &(InstanceName, TargetState)| matches!(state, TargetState::Waiting);
    assert!(
        targets.iter().all(untouched),
        "all that happens to them is told later"
    );
    job
}

/// Instances that have the job and have not ended it.
fn running(sim: &Sim) -> BTreeSet<String> {
    let runs = sim.world.runs.values();
    runs.map(|run| run.at.instance.to_string()).collect()
}

fn names(from: usize, to: usize) -> BTreeSet<String> {
    (from..=to).map(|n| format!("a{n}")).collect()
}

/// The command on this instance ends.
fn end(sim: &mut Sim, name: &str, exit_code: i32) {
    deliver(sim);
    let at = key(name);
    let run = sim.world.runs.values().find(|run| run.at == at);
    let run = run.unwrap_or_else(|| panic!("{name} has no run")).id;
    let ended = Box::new(v1::Ended {
        kind: EndKind::Exited as i32,
        exit_code,
        ..v1::Ended::default()
    });
    sim.of_run(run, AgentInput::RunEnded { run, ended });
}

pub(super) fn leaves(sim: &mut Sim, name: &str) {
    let agent = sim.agents.get_mut(&key(name)).expect("is there");
    let session = agent.session.take().expect("is connected");
    sim.agent(
        key(name),
        session,
        AgentInput::Closed {
            why: "test".to_owned(),
        },
    );
}

pub(super) fn comes_back(sim: &mut Sim, name: &str) {
    let machine = sim
        .world
        .instance(&key(name))
        .and_then(|i| i.machine.clone());
    sim.agent_comes(&key(name), &machine.expect("has one"));
}

fn pace(concurrency: usize) -> Pace {
    Pace {
        concurrency: Some(concurrency),
        ..Pace::default()
    }
}

fn cancellations(sim: &Sim) -> usize {
    let is_cancel = |effect: &&Effect| matches!(effect, Effect::Send { body, .. } if matches!(**body, Body::CancelRun(_)));
    sim.pending.iter().filter(is_cancel).count()
}

#[test]
fn no_more_than_the_concurrency_have_a_job_at_a_time() {
    let mut sim = fleet(5);
    let job = begin(&mut sim, 5, pace(2), 0);
    assert_eq!(running(&sim), names(1, 2));
    end(&mut sim, "a2", 0);
    assert_eq!(running(&sim), BTreeSet::from(["a1".into(), "a3".into()]));
    for name in ["a1", "a3", "a4", "a5"] {
        end(&mut sim, name, 0);
    }
    let ended = &sim.world.jobs[&job];
    assert!(ended.ended_ms.is_some() && ended.open() == 0);
}

#[test]
fn a_batch_waits_for_its_time_after_the_one_before() {
    let mut sim = fleet(4);
    let patient = Pace {
        batch_wait_ms: 10_000,
        ..pace(2)
    };
    begin(&mut sim, 4, patient, 0);
    end(&mut sim, "a1", 0);
    assert_eq!(running(&sim), names(2, 2), "batch by batch");
    end(&mut sim, "a2", 0);
    sim.now += 9_000;
    sim.input(Input::Tick);
    assert!(running(&sim).is_empty());
    sim.now += 1_000;
    sim.input(Input::Tick);
    assert_eq!(running(&sim), names(3, 4));
}

#[test]
fn nothing_follows_a_canary_that_fails_and_all_follow_those_that_succeed() {
    for (exit_code, then) in [(0, names(3, 4)), (1, BTreeSet::new())] {
        let mut sim = fleet(4);
        let canaries = Pace {
            canary: 2,
            ..Pace::default()
        };
        let job = begin(&mut sim, 4, canaries, 0);
        assert_eq!(running(&sim), names(1, 2));
        end(&mut sim, "a1", exit_code);
        if exit_code == 0 {
            assert_eq!(running(&sim), names(2, 2), "all canaries first");
        }
        end(&mut sim, "a2", 0);
        assert_eq!(running(&sim), then);
        if exit_code != 0 {
            assert_eq!(outcome(&sim, job, "a3"), Some(Outcome::Cancelled));
            let why = &sim.world.jobs[&job].targets[&key("a4").instance];
            let why = &why.as_ref().expect("ended").detail;
            assert!(why.contains("canary"), "{why}");
        }
    }
}

#[test]
fn too_many_errors_end_a_job_and_what_runs_goes_on() {
    let mut sim = fleet(6);
    let careful = Pace {
        max_errors: Some(1),
        ..pace(2)
    };
    let job = begin(&mut sim, 6, careful, 0);
    end(&mut sim, "a1", 1);
    assert_eq!(running(&sim), names(2, 3), "one error is allowed");
    end(&mut sim, "a2", 1);
    assert_eq!(running(&sim), names(3, 3), "two are not");
    end(&mut sim, "a3", 0);
    let outcomes = sim.world.jobs[&job].outcomes();
    assert_eq!(
        outcomes,
        BTreeMap::from([("cancelled", 3), ("failed", 2), ("succeeded", 1)])
    );
}

#[test]
fn a_job_is_kept_for_the_absent_as_long_as_it_says() {
    for (away_ms, then) in [(5_000, None), (60_000, Some(Outcome::Absent))] {
        let mut sim = fleet(2);
        leaves(&mut sim, "a2");
        let job = begin(&mut sim, 2, Pace::default(), 30_000);
        assert_eq!(outcome(&sim, job, "a2"), None, "it is kept");
        end(&mut sim, "a1", 0);
        sim.now += away_ms;
        sim.input(Input::Tick);
        comes_back(&mut sim, "a2");
        assert_eq!(outcome(&sim, job, "a2"), then);
        if then.is_none() {
            end(&mut sim, "a2", 0);
            assert_eq!(outcome(&sim, job, "a2"), Some(Outcome::Succeeded));
        }
    }
}

#[test]
fn a_job_waits_a_moment_for_those_whose_session_has_just_broken() {
    for (away_ms, then) in [(1_000, None), (6_000, Some(Outcome::Absent))] {
        let mut sim = fleet(2);
        leaves(&mut sim, "a2");
        let job = begin(&mut sim, 2, Pace::default(), 0);
        assert_eq!(outcome(&sim, job, "a2"), None, "most are back soon");
        end(&mut sim, "a1", 0);
        sim.now += away_ms;
        sim.input(Input::Tick);
        comes_back(&mut sim, "a2");
        assert_eq!(outcome(&sim, job, "a2"), then);
    }
    // Those that have been away for longer are not waited for.
    let mut sim = fleet(2);
    leaves(&mut sim, "a2");
    sim.now += 6_000;
    let job = begin(&mut sim, 2, Pace::default(), 0);
    assert_eq!(outcome(&sim, job, "a2"), Some(Outcome::Absent));
}

#[test]
fn many_absent_instances_are_settled_in_one_step() {
    let mut sim = fleet(1);
    let mut wanted = spec(&[1], &[]);
    wanted.launch.timeout = Duration::from_secs(1);
    let big = ask(&spec(&[3_000], &[]), &[]);
    sim.refuse.insert(String::new(), ErrorKind::Other);
    sim.input(big);
    deliver(&mut sim);
    let job = begin(&mut sim, 3_000, pace(1), 0);
    end(&mut sim, "a1", 0);
    let outcomes = sim.world.jobs[&job].outcomes();
    assert_eq!(
        outcomes,
        BTreeMap::from([("absent", 2_999), ("succeeded", 1)])
    );
}

#[test]
fn a_cancelled_job_ends_what_runs_and_starts_nothing_more() {
    let mut sim = fleet(4);
    let job = begin(&mut sim, 4, pace(2), 0);
    deliver(&mut sim);
    let cancel = || Input::Cancel {
        cluster: cluster(),
        job,
        grace_ms: 7,
        operator: "uid 0".to_owned(),
    };
    let answer = sim.input(cancel());
    let Answer::Exec { targets, .. } = answer else {
        panic!("{answer:?}")
    };
    let runs = |(_, state): &&(InstanceName, TargetState)| matches!(state, TargetState::Running(runs) if runs.len() == 1);
    assert_eq!(targets.iter().filter(runs).count(), 2);
    assert_eq!(cancellations(&sim), 2);
    assert_eq!(outcome(&sim, job, "a3"), Some(Outcome::Cancelled));
    assert_eq!(
        outcome(&sim, job, "a1"),
        None,
        "its agent says how it ended"
    );
    for run in sim.world.runs.keys().copied().collect::<Vec<_>>() {
        let ended = Box::new(v1::Ended {
            kind: EndKind::Cancelled as i32,
            ..v1::Ended::default()
        });
        sim.of_run(run, AgentInput::RunEnded { run, ended });
    }
    assert_eq!(
        sim.world.jobs[&job].outcomes(),
        BTreeMap::from([("cancelled", 4)])
    );
    assert!(matches!(
        sim.input(cancel()),
        Answer::Error(OpError::Conflict(_))
    ));
}

#[test]
fn a_cancellation_reaches_agents_that_were_away() {
    let mut sim = fleet(2);
    let job = begin(&mut sim, 2, Pace::default(), 0);
    // a1 has it when the link breaks; a2 never got it.
    sim.pending
        .retain(|effect| !matches!(effect, Effect::Send { at, .. } if at == &key("a2")));
    deliver(&mut sim);
    leaves(&mut sim, "a1");
    leaves(&mut sim, "a2");
    sim.input(Input::Cancel {
        cluster: cluster(),
        job,
        grace_ms: 0,
        operator: "uid 0".to_owned(),
    });
    sim.crash(); // what was asked for is on disk
    comes_back(&mut sim, "a1");
    comes_back(&mut sim, "a2");
    assert_eq!(cancellations(&sim), 1, "a1 is told");
    deliver(&mut sim);
    assert_eq!(outcome(&sim, job, "a2"), Some(Outcome::Cancelled));
    let mut journal = sim.agents[&key("a2")].journal.values();
    assert!(journal.all(|forgotten| *forgotten), "it never started");
}

#[test]
fn a_cancelled_launch_runs_no_more_stages() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &["one", "two"]));
    while sim.world.runs.len() < 2 {
        deliver(&mut sim);
        sim.agents_come();
        sim.now += 2_500;
        sim.input(Input::Tick);
    }
    let job = sim.world.clusters[&cluster()]
        .launch
        .as_ref()
        .expect("runs")
        .job;
    deliver(&mut sim);
    sim.input(Input::Cancel {
        cluster: cluster(),
        job,
        grace_ms: 0,
        operator: "uid 0".to_owned(),
    });
    assert_eq!(cancellations(&sim), 2);
    assert_eq!(sim.ended.len(), 0);
    for verdict in sim.world.jobs[&job].targets.values() {
        let verdict = verdict.as_ref().expect("the launch is over");
        let told = (verdict.outcome, verdict.detail.as_str());
        assert_eq!(told, (Outcome::Cancelled, "cancelled by uid 0"));
    }
    for run in sim.world.runs.keys().copied().collect::<Vec<_>>() {
        let kind = EndKind::Exited as i32; // it was just done
        let ended = Box::new(v1::Ended {
            kind,
            ..v1::Ended::default()
        });
        sim.of_run(run, AgentInput::RunEnded { run, ended });
    }
    deliver(&mut sim);
    assert!(sim.world.runs.is_empty(), "stage two is not started");
    assert_eq!(sim.ended, [(job, 1)]);
}

#[test]
fn a_job_that_is_over_is_forgotten_here_but_not_one_that_may_still_change() {
    let mut sim = fleet(2);
    let job = begin(&mut sim, 1, Pace::default(), 0);
    end(&mut sim, "a1", 0);
    let lost = begin(&mut sim, 2, Pace::default(), 0);
    deliver(&mut sim);
    end(&mut sim, "a1", 0);
    leaves(&mut sim, "a2");
    sim.now += LOST_AFTER_MS + 120_000;
    sim.input(Input::Tick);
    sim.now += 120_000;
    sim.input(Input::Tick);
    assert!(!sim.world.jobs.contains_key(&job));
    assert_eq!(outcome(&sim, lost, "a2"), Some(Outcome::LostContact));
    assert!(matches!(
        sim.input(Input::Follow {
            cluster: cluster(),
            job
        }),
        Answer::Error(OpError::NoJob(_))
    ));
    comes_back(&mut sim, "a2");
    end(&mut sim, "a2", 3);
    assert_eq!(outcome(&sim, lost, "a2"), Some(Outcome::Failed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever ends, leaves, comes and crashes in whatever order: never more at a time than asked for, every target has
    /// one end, and none is given it twice.
    #[test]
    fn every_target_ends_once_whatever_happens(
        (concurrency, canary, max_errors) in (1usize..4, 0usize..3, 0usize..6),
        steps in prop::collection::vec((0u8..6, 0usize..5, 0i32..2), 1..60),
        batch in 1usize..4,
    ) {
        const SIZE: usize = 5;
        let mut sim = fleet(SIZE);
        sim.batch = batch;
        let careful = Pace { canary, max_errors: Some(max_errors), ..pace(concurrency) };
        let job = begin(&mut sim, SIZE, careful, 600_000);
        let mut given: BTreeMap<RunId, InstanceKey> = BTreeMap::new();
        for (what, who, exit_code) in steps {
            let name = format!("a{}", who + 1);
            let connected = sim.agents[&key(&name)].session.is_some();
            match what {
                0 | 1 if connected && sim.world.runs.values().any(|run| run.at == key(&name)) => end(&mut sim, &name, exit_code),
                2 if connected => leaves(&mut sim, &name),
                3 if !connected => comes_back(&mut sim, &name),
                4 => sim.crash(),
                _ => deliver(&mut sim),
            }
            sim.now += 3_000;
            sim.input(Input::Tick);
            given.extend(sim.world.runs.values().map(|run| (run.id, run.at.clone())));
            // One that has lost contact makes room: it may never come back.
            let at_a_time = sim.world.jobs.get(&job).map_or(0, |job| job.so_far(&Tally::of(job)).running);
            prop_assert!(at_a_time <= concurrency, "{at_a_time} at a time");
        }
        for _ in 0..4 * SIZE {
            for n in 1..=SIZE {
                if sim.agents[&key(&format!("a{n}"))].session.is_none() {
                    comes_back(&mut sim, &format!("a{n}"));
                }
            }
            deliver(&mut sim);
            given.extend(sim.world.runs.values().map(|run| (run.id, run.at.clone())));
            for at in sim.world.runs.values().map(|run| run.at.clone()).collect::<Vec<_>>() {
                end(&mut sim, at.instance.as_str(), 0);
            }
        }
        let record = sim.disk.job(job);
        prop_assert_eq!(record.open(), 0);
        prop_assert_eq!(record.outcomes().values().sum::<u32>() as usize, SIZE);
        let places: BTreeSet<&InstanceKey> = given.values().collect();
        prop_assert_eq!(places.len(), given.len(), "one run a target");
    }
}
