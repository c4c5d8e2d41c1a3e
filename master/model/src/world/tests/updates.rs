//! Updates: jobs that end with a listing of their own.

use super::*;
use crate::world::tests::lifecycle::{by, detail, fleet, names, outcomes};

fn update(sim: &mut Sim) -> JobId {
    let answer = sim.input(Input::Update {
        cluster: cluster(),
        instances: names(&["a1"]),
        by: by("update"),
    });
    match answer {
        Answer::Exec { job, .. } => job,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_update_ends_with_a_listing_that_was_asked_for_after_it() {
    let mut sim = fleet(1);
    sim.perform_all();
    sim.now += 5_000;
    sim.input(Input::Poll { cluster: cluster() });
    sim.now += 10;
    let job = update(&mut sim);
    let before = sim.listings;
    sim.perform_all();
    assert_eq!(sim.listings, before + 2, "the first was asked for before");
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Succeeded)]);
    assert_eq!(sim.disk.jobs[&job].operator, "uid 7");
}

#[test]
fn an_update_that_fails_says_why_and_the_next_is_asked_at_once() {
    let mut sim = fleet(1);
    sim.no_listing = Some(ErrorKind::Throttled);
    let job = update(&mut sim);
    sim.perform_all();
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Failed)]);
    assert_eq!(detail(&sim, job, "a1"), "no");
    sim.no_listing = None;
    let next = update(&mut sim);
    sim.perform_all();
    assert_eq!(outcomes(&sim, next), [Some(Outcome::Succeeded)]);
}

#[test]
fn an_update_without_an_answer_ends_in_time_after_a_crash_too() {
    for crash in [false, true] {
        let mut sim = fleet(1);
        sim.perform_all();
        let job = update(&mut sim);
        sim.pending.clear();
        if crash {
            sim.crash();
        }
        sim.now += 31_000;
        sim.input(Input::Tick);
        assert_eq!(outcomes(&sim, job), [Some(Outcome::TimedOut)]);
    }
}
