//! Machines that end, that are gone without a word, and that can't be ended; and how often the provider is asked.

use super::*;
use crate::batch::{Batch, BatchState};

/// A provider with two machines, launched at the simulation's time.
fn two() -> (Sim, Vec<MachineId>) {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    let young = std::time::UNIX_EPOCH + Duration::from_millis(sim.now);
    for machine in sim.machines.values_mut().flatten() {
        machine.launched_at = Some(young);
    }
    sim.input(Input::Poll { cluster: cluster() });
    pass(&mut sim, 2);
    sim.told.clear();
    sim.ended.clear();
    sim.listings = 0;
    let ids = sim.machines.values().flatten().map(|it| it.id.clone());
    let ids = ids.collect();
    (sim, ids)
}

/// Lets time pass in steps as small as the loop's.
fn pass(sim: &mut Sim, seconds: u64) {
    for _ in 0..seconds * 4 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        sim.now += 250;
        sim.input(Input::Tick);
    }
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
}

fn reap(sim: &mut Sim, id: &MachineId) {
    for machines in sim.machines.values_mut() {
        machines.retain(|machine| machine.id != *id);
    }
}

fn set_state(sim: &mut Sim, id: &MachineId, state: MachineState) {
    for machine in sim.machines.values_mut().flatten() {
        if machine.id == *id {
            machine.state = state;
        }
    }
}

fn cleanup(sim: &mut Sim) {
    sim.input(Input::Cleanup {
        cluster: cluster(),
        by: AskedBy::default(),
    });
}

fn phase(sim: &Sim, name: &str) -> Phase {
    sim.world.instance(&key(name)).expect("is there").phase
}

fn is_there(sim: &Sim) -> bool {
    sim.world.clusters.contains_key(&cluster())
}

#[test]
fn one_that_vanished_while_the_master_was_off_is_gone_once_it_is_not_new() {
    let (mut sim, ids) = two();
    reap(&mut sim, &ids[0]);
    sim.crash();
    pass(&mut sim, 200);
    assert_ne!(phase(&sim, "a1"), Phase::Gone, "it may be new");
    assert!(sim.finds.is_empty());
    pass(&mut sim, 200);
    assert_eq!(phase(&sim, "a1"), Phase::Gone);
    assert_ne!(phase(&sim, "a2"), Phase::Gone);
    assert_eq!(sim.finds, [vec![ids[0].clone()]], "asked for once");
    let again = sim.input(ask(&spec(&[2], &[]), &[]));
    assert!(
        matches!(again, Answer::Started(_)),
        "a launch makes it again"
    );
}

#[test]
fn a_listing_that_lacks_a_machine_that_is_there_ends_nothing() {
    let (mut sim, ids) = two();
    sim.unlisted.insert(ids[0].clone());
    pass(&mut sim, 1_000);
    assert_ne!(phase(&sim, "a1"), Phase::Gone);
    assert!(
        (2..=20).contains(&sim.finds.len()),
        "{} calls",
        sim.finds.len()
    );
}

#[test]
fn one_that_lost_its_tags_is_known_to_be_terminated_all_the_same() {
    let (mut sim, ids) = two();
    sim.now += 400_000;
    sim.unlisted.insert(ids[0].clone());
    set_state(&mut sim, &ids[0], MachineState::Terminated);
    pass(&mut sim, 70);
    assert_eq!(phase(&sim, "a1"), Phase::Gone);
}

#[test]
fn one_that_is_shown_oddly_is_neither_running_nor_gone() {
    let (mut sim, ids) = two();
    sim.now += 400_000;
    sim.unlisted.insert(ids[0].clone());
    sim.unclear.push(ids[0].clone());
    reap(&mut sim, &ids[0]);
    pass(&mut sim, 200);
    assert_ne!(phase(&sim, "a1"), Phase::Gone);
    assert!(sim.finds.is_empty());
}

#[test]
fn a_cleanup_ends_when_a_machine_was_gone_before() {
    for age in [0, 400_000] {
        let (mut sim, ids) = two();
        sim.now += age;
        reap(&mut sim, &ids[0]);
        sim.crash();
        cleanup(&mut sim);
        pass(&mut sim, 40);
        assert!(!is_there(&sim), "aged {age} ms: {:?}", sim.told);
        assert_eq!(sim.ended.last().expect("it ended").1, 0);
        assert!(sim.terminations.len() <= 7, "{:?}", sim.terminations);
    }
}

#[test]
fn one_last_seen_on_its_way_out_and_then_gone_ends() {
    for age in [0, 400_000] {
        let (mut sim, ids) = two();
        sim.now += age;
        set_state(&mut sim, &ids[0], MachineState::ShuttingDown);
        sim.input(Input::Poll { cluster: cluster() });
        pass(&mut sim, 1);
        sim.crash();
        reap(&mut sim, &ids[0]);
        cleanup(&mut sim);
        pass(&mut sim, 40);
        assert!(!is_there(&sim), "aged {age} ms: {:?}", sim.told);
    }
}

#[test]
fn a_stray_that_is_gone_does_not_hold_up_a_cleanup() {
    for state in [MachineState::Running, MachineState::ShuttingDown] {
        let (mut sim, _) = two();
        sim.now += 400_000;
        let mut stray = machine("stray", 7);
        stray.state = state;
        let name = cluster();
        let strays = &mut sim.world.clusters.get_mut(&name).expect("is there").strays;
        strays.insert(stray.id.clone(), stray);
        cleanup(&mut sim);
        pass(&mut sim, 20);
        assert!(!is_there(&sim), "{state}: {:?}", sim.told);
    }
}

#[test]
fn strays_go_in_one_call() {
    let (mut sim, _) = two();
    let token = sim.machines.keys().next().expect("one batch").clone();
    let more: Vec<Machine> = (2..40).map(|n| machine(&token, n)).collect();
    sim.machines.insert("more".to_owned(), more);
    sim.input(Input::Poll { cluster: cluster() });
    pass(&mut sim, 1);
    let sizes: Vec<usize> = sim.terminations.iter().map(Vec::len).collect();
    assert_eq!(sizes, [38]);
}

#[test]
fn what_can_not_be_terminated_ends_the_cleanup_with_its_reason() {
    let (mut sim, ids) = two();
    sim.protected.insert(ids[0].clone());
    cleanup(&mut sim);
    pass(&mut sim, 20);
    assert_eq!(sim.ended.last().expect("it ended").1, 1);
    assert!(sim.terminations.len() <= 3, "{:?}", sim.terminations);
    let receipt = sim.told.iter().find(|(kind, _)| kind == "receipt");
    let (_, text) = receipt.expect("a receipt");
    let wanted = [ids[0].as_str(), "running", "cannot be terminated: no"];
    assert!(wanted.iter().all(|word| text.contains(word)), "{text}");
    let cluster = &sim.world.clusters[&cluster()];
    assert!(!cluster.cleaning);
    let kept = &sim.world.instance(&key("a1")).expect("is there");
    assert!(kept.has_machine(), "nothing ends it later by surprise");
    assert_eq!(phase(&sim, "a2"), Phase::Gone);
    let calls = sim.terminations.len();
    pass(&mut sim, 100);
    assert_eq!(sim.terminations.len(), calls);
    sim.protected.clear();
    cleanup(&mut sim);
    pass(&mut sim, 10);
    assert!(!is_there(&sim));
}

#[test]
fn a_refused_termination_is_told_and_dropped() {
    for denied in [false, true] {
        let (mut sim, ids) = two();
        match denied {
            true => sim.no_termination = Some(ErrorKind::Denied),
            false => drop(sim.protected.insert(ids[0].clone())),
        }
        sim.input(Input::Terminate {
            cluster: cluster(),
            instances: vec!["a1".parse().expect("a name")],
            by: AskedBy::default(),
        });
        pass(&mut sim, 20);
        let told = sim
            .told
            .iter()
            .filter(|(kind, _)| kind == "instance-not-terminated");
        let texts: Vec<&str> = told.map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            texts,
            [format!("cannot terminate {}: no", ids[0])],
            "{denied}"
        );
        assert_eq!(sim.terminations.len(), 2);
        assert!(sim.world.instance(&key("a1")).expect("there").has_machine());
    }
}

#[test]
fn calls_that_fail_for_a_while_are_few_and_work_in_the_end() {
    let (mut sim, _) = two();
    sim.no_termination = Some(ErrorKind::Throttled);
    cleanup(&mut sim);
    pass(&mut sim, 30);
    assert!(
        (2..=6).contains(&sim.terminations.len()),
        "{} calls",
        sim.terminations.len()
    );
    assert!(is_there(&sim));
    sim.no_termination = None;
    pass(&mut sim, 40);
    assert!(!is_there(&sim));
}

#[test]
fn an_unknown_young_machine_is_asked_about_ever_more_rarely() {
    let (mut sim, ids) = two();
    set_state(&mut sim, &ids[0], MachineState::Pending);
    sim.input(Input::Poll { cluster: cluster() });
    pass(&mut sim, 1);
    reap(&mut sim, &ids[0]);
    sim.listings = 0;
    cleanup(&mut sim);
    pass(&mut sim, 100);
    assert!(
        is_there(&sim),
        "it was never seen but new: it may come to be"
    );
    assert!(sim.terminations.len() <= 8, "{:?}", sim.terminations.len());
    assert!(sim.listings <= 80, "{}", sim.listings);
    pass(&mut sim, 300);
    assert!(!is_there(&sim));
}

#[test]
fn listings_that_fail_are_few_however_often_they_are_asked_for() {
    let (mut sim, _) = two();
    sim.no_listing = Some(ErrorKind::Unavailable);
    for _ in 0..60 {
        sim.input(Input::Poll { cluster: cluster() });
        pass(&mut sim, 1);
    }
    assert!((2..=7).contains(&sim.listings), "{}", sim.listings);
}

#[test]
fn who_may_not_look_can_not_clean_up() {
    let (mut sim, _) = two();
    sim.no_listing = Some(ErrorKind::Denied);
    cleanup(&mut sim);
    pass(&mut sim, 10);
    assert_eq!(sim.ended.last().expect("it ended").1, 1);
    assert!(!sim.world.clusters[&cluster()].cleaning);
}

#[test]
fn names_are_given_in_the_end_and_never_in_a_hurry() {
    let mut sim = Sim::new();
    sim.no_name = Some(ErrorKind::Unavailable);
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    pass(&mut sim, 30);
    let tries = sim.names.len();
    assert!((2..=7).contains(&tries), "{tries}");
    sim.no_name = None;
    pass(&mut sim, 120);
    assert_eq!(sim.names.len(), tries + 1, "and then not again");
    assert_eq!(sim.names.last().expect("one").len(), 2);
}

#[test]
fn names_that_are_refused_for_good_are_left() {
    let mut sim = Sim::new();
    sim.no_name = Some(ErrorKind::Denied);
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.run_until_quiet();
    pass(&mut sim, 300);
    assert_eq!(sim.names.len(), 3);
}

#[test]
fn a_placement_group_stays_in_the_zone_of_its_first_machines() {
    let near = |sizes: &[usize]| {
        let mut near = spec(sizes, &[]);
        for (pool, kind) in near.pools.iter_mut().zip(["first", "second"]) {
            pool.machine.placement_group = Some("near".to_owned());
            pool.machine.types = vec![kind.to_owned()];
        }
        near
    };
    let mut sim = Sim::new();
    let second = ("second".to_owned(), ErrorKind::OtherZone);
    sim.refuse.extend([second]);
    sim.input(ask(&near(&[1, 1]), &[]));
    sim.run_until_quiet();
    assert_eq!(sim.ended.last().expect("it ended").1, 0, "{:?}", sim.told);
    let zones = |sim: &Sim| {
        let batches = sim.world.clusters[&cluster()].batches.values();
        let done = batches.filter(|batch| batch.state == BatchState::Launched);
        let zone = |batch: &Batch| (batch.pool.clone(), batch.zone.clone());
        done.map(zone).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(zones(&sim)["a"], None);
    assert_eq!(zones(&sim)["b"].as_deref(), Some("zone-a"));
    // Later machines go there at once.
    sim.calls = 0;
    sim.input(ask(&near(&[1, 2]), &[]));
    sim.run_until_quiet();
    assert_eq!((sim.ended.last().expect("it ended").1, sim.calls), (0, 1));
}

#[test]
fn a_placement_group_that_others_use_elsewhere_is_told_with_the_way_out() {
    let mut alone = spec(&[1], &["kind"]);
    alone.pools[0].machine.placement_group = Some("near".to_owned());
    let mut sim = Sim::new();
    sim.refuse.insert("kind".to_owned(), ErrorKind::OtherZone);
    sim.input(ask(&alone, &[]));
    sim.run_until_quiet();
    assert_eq!((sim.ended.last().expect("it ended").1, sim.calls), (1, 1));
    let note = &sim.world.instance(&key("a1")).expect("is there").note;
    assert!(note.contains("set `subnet`"), "{note}");
}

#[test]
fn a_launch_waits_for_credentials_within_its_time() {
    let mut sim = Sim::new();
    let kind = "kind".to_owned();
    sim.refuse.insert(kind.clone(), ErrorKind::NoCredentials);
    sim.input(ask(&spec(&[1], &["kind"]), &[]));
    pass(&mut sim, 20);
    assert!(sim.world.clusters[&cluster()].launching());
    assert!((2..=6).contains(&sim.calls), "{} calls", sim.calls);
    sim.refuse.clear();
    sim.run_until_quiet();
    assert_eq!(sim.ended.last().expect("it ended").1, 0);
}

#[test]
fn an_old_machine_that_the_provider_no_longer_knows_is_gone_and_a_new_one_is_not() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.run_until_quiet();
    let id = instance(&sim, "a1").machine_id().unwrap().clone();
    let unknown = |sim: &mut Sim| {
        sim.answer(CallAnswer::Terminated {
            machines: vec![id.clone()],
            result: Ok(Terminations {
                unknown: vec![id.clone()],
                ..Terminations::default()
            }),
        })
    };
    let young = std::time::UNIX_EPOCH + Duration::from_millis(sim.now);
    for machine in sim.machines.values_mut().flatten() {
        machine.launched_at = Some(young);
    }
    sim.input(Input::Poll { cluster: cluster() });
    sim.perform_all();
    unknown(&mut sim);
    assert_eq!(instance(&sim, "a1").phase, Phase::Ready);
    sim.now += 301_000;
    unknown(&mut sim);
    assert_eq!(instance(&sim, "a1").phase, Phase::Gone);
}
