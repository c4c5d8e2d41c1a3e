//! Cleanups: machines first, then the rest, then the record; each is a job.

use super::*;
use crate::world::tests::lifecycle::{change, clean_up, fleet, outcomes, pass, terminate};

#[test]
fn cleanup_ends_every_machine_and_forgets_the_cluster() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    sim.input(Input::Cleanup {
        cluster: cluster(),
        by: AskedBy::default(),
    });
    for _ in 0..20 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        sim.now += 2_500;
        sim.input(Input::Tick);
    }
    assert_eq!(sim.alive(), 0);
    assert!(sim.world.clusters.is_empty() && sim.disk.clusters.is_empty());
    assert_eq!(sim.ended.last().expect("ended").1, 0);
}

/// A launch whose call for machines is about to be sent.
fn calling() -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.perform(1); // the preparation; 0 is the event
    while !sim.pending.iter().any(|effect| {
        matches!(
            effect,
            Effect::Call {
                call: Call::Launch { .. },
                ..
            }
        )
    }) {
        sim.perform(0);
    }
    sim
}

/// A master that was only paused sends what it had signed: its machines are ended too, however the next one fared meanwhile.
#[test]
fn after_a_take_over_a_cleanup_waits_for_as_long_as_a_call_may_still_be_sent() {
    for refused in [false, true] {
        let mut sim = calling();
        let token = first_token(&sim);
        sim.take_over();
        let taken = sim.now;
        if refused {
            sim.refuse.insert(String::new(), ErrorKind::NoCapacity);
            run(&mut sim, 2);
        }
        sim.input(Input::Cleanup {
            cluster: cluster(),
            by: AskedBy::default(),
        });
        while sim.now < taken + 14 * 60_000 {
            run(&mut sim, 10);
            if sim.now < taken + 5 * 60_000 {
                sim.crash(); // that it is in doubt is on record
            }
        }
        assert!(!sim.world.clusters.is_empty(), "it may still be sent");
        sim.machines.insert(token.clone(), vec![machine(&token, 0)]);
        while sim.now < taken + 17 * 60_000 {
            run(&mut sim, 10);
        }
        assert_eq!(sim.alive(), 0);
        assert!(sim.world.clusters.is_empty());
    }
}

#[test]
fn a_cleanup_waits_until_a_call_without_an_answer_can_show_no_more_machines() {
    let mut sim = calling();
    sim.crash(); // the call may have been made
    let token = first_token(&sim);
    sim.input(Input::Cleanup {
        cluster: cluster(),
        by: AskedBy::default(),
    });
    run(&mut sim, 20);
    assert!(!sim.world.clusters.is_empty(), "it may still show up");
    sim.machines.insert(token.clone(), vec![machine(&token, 0)]);
    run(&mut sim, 60);
    assert_eq!(sim.alive(), 0);
    assert!(sim.world.clusters.is_empty());
}

#[test]
fn what_is_left_is_deleted_by_one_call_at_a_time() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.run_until_quiet();
    sim.input(Input::Cleanup {
        cluster: cluster(),
        by: AskedBy::default(),
    });
    let mut sweeps = 0;
    for _ in 0..10 {
        while let Some(at) = sim.pending.iter().position(|effect| {
            !matches!(
                effect,
                Effect::Call {
                    call: Call::Cleanup,
                    ..
                }
            )
        }) {
            sim.perform(at);
        }
        sweeps = sim.pending.len();
        sim.now += 2_000;
        sim.input(Input::Tick);
    }
    assert_eq!(sweeps, 1, "it waits for the first one's answer");
    run(&mut sim, 10);
    assert!(sim.world.clusters.is_empty());
}

#[test]
fn a_cleanup_is_one_job_with_an_id_of_its_own_that_a_crash_does_not_end() {
    let mut sim = fleet(2);
    let job = clean_up(&mut sim);
    assert_ne!(job, JobId::from_parts(0, 0));
    assert_eq!(clean_up(&mut sim), job, "asked for again, it is the same");
    sim.crash();
    assert_eq!(clean_up(&mut sim), job);
    pass(&mut sim, 30);
    assert!(sim.world.clusters.is_empty());
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Succeeded); 2]);
    assert_eq!(sim.ended, [(job, 0)], "its end is told once");
    assert_eq!(sim.disk.jobs[&job].operator, "uid 7");
}

#[test]
fn a_cleanup_ends_the_jobs_of_its_cluster() {
    let mut sim = fleet(2);
    let stop = change(&mut sim, JobKind::Reboot, &["a1"]);
    let end = terminate(&mut sim, &["a2"]);
    clean_up(&mut sim);
    pass(&mut sim, 30);
    assert_eq!(outcomes(&sim, stop), [Some(Outcome::Failed)]);
    assert_eq!(outcomes(&sim, end), [Some(Outcome::Succeeded)]);
}

#[test]
fn whoever_waits_for_an_answer_gets_it_when_the_cluster_is_gone() {
    let mut sim = fleet(1);
    let job = change(&mut sim, JobKind::Stop, &["a1"]);
    let call = |effect: &Effect| {
        matches!(
            effect,
            Effect::Call {
                call: Call::Change { .. },
                ..
            }
        )
    };
    sim.pending.retain(|effect| !call(effect)); // it takes long
    clean_up(&mut sim);
    pass(&mut sim, 30);
    assert!(sim.world.clusters.is_empty());
    sim.answer(CallAnswer::Changed {
        job,
        result: Ok(Terminations::default()),
        error: None,
    });
    let answered = |effect: &Effect| matches!(effect, Effect::CallAnswered { .. });
    assert!(sim.pending.iter().any(answered));
    assert!(sim.world.calls.is_empty());
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Failed)]);
}

#[test]
fn a_cleanup_that_leaves_something_has_failed_for_all_of_it() {
    let mut sim = fleet(2);
    let id = sim
        .world
        .instance(&key("a1"))
        .and_then(Instance::machine_id);
    let id = id.expect("has one").clone();
    sim.protected.insert(id);
    let job = clean_up(&mut sim);
    pass(&mut sim, 30);
    assert!(!sim.world.clusters[&cluster()].cleaning);
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Failed); 2]);
    assert_eq!(sim.ended.last(), Some(&(job, 1)));
    let next = clean_up(&mut sim);
    assert_ne!(next, job);
}

#[test]
fn a_launch_in_the_batch_that_ends_a_cleanup_is_on_disk_before_its_calls_are_made() {
    let mut sim = fleet(1);
    clean_up(&mut sim);
    let sweep = |effect: &Effect| {
        matches!(
            effect,
            Effect::Call {
                call: Call::Cleanup,
                ..
            }
        )
    };
    while !sim.pending.iter().any(sweep) {
        match sim.pending.is_empty() {
            false => sim.perform(0),
            true => {
                sim.now += 1_000;
                sim.input(Input::Tick);
            }
        }
    }
    sim.pending.clear();
    let cleaned = Input::Answered {
        cluster: cluster_id(),
        answer: CallAnswer::Cleaned(Ok(Vec::new())),
    };
    let mut launch = ask(&spec(&[2], &[]), &[]);
    if let Input::Launch(launch) = &mut launch {
        launch.fresh_uuid = "another".to_owned();
    }
    sim.inputs([cleaned, launch]);
    let another = ClusterUuid::new("another");
    let calls = sim.pending.iter().filter_map(|effect| match effect {
        Effect::Call { cluster, .. } => Some(&cluster.uuid),
        _ => None,
    });
    let called: BTreeSet<_> = calls.collect();
    assert_eq!(called, BTreeSet::from([&another]), "it is prepared");
    assert_eq!(sim.disk.clusters[&cluster()].uuid, another);
    let names: Vec<&str> = sim
        .disk
        .instances
        .keys()
        .map(|key| key.instance.as_str())
        .collect();
    assert_eq!(names, ["a1", "a2"]);
    sim.agents.clear(); // their machines are gone
    sim.crash();
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
}
