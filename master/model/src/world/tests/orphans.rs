//! Deletions of what carries the tag of an unknown cluster.

use super::*;
use crate::world::tests::lifecycle::{by, fleet, outcomes, pass, started};

fn delete_orphans(sim: &mut Sim, uuid: &str) -> Answer {
    let places = ["local", "eu-west-1"].map(|name| {
        let region = (name != "local").then(|| name.to_owned());
        (name.parse().expect("a name"), region)
    });
    sim.input(Input::DeleteOrphans(DeleteOrphansAsk {
        cluster: "old".parse().expect("a name"),
        uuid: uuid.to_owned(),
        places: places.into(),
        by: by("orphans"),
    }))
}

#[test]
fn orphans_are_deleted_by_a_job_one_region_after_the_other() {
    let mut sim = Sim::new();
    let answer = delete_orphans(&mut sim, "5f0c");
    let job = started(answer);
    assert_eq!(sim.disk.jobs[&job].operator, "uid 7");
    let calls = |effect: &&Effect| matches!(effect, Effect::CallOrphans { .. });
    assert_eq!(sim.pending.iter().filter(calls).count(), 1);
    sim.perform_all();
    assert_eq!(sim.deletions.len(), 2);
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Succeeded); 2]);
    assert_eq!(sim.ended, [(job, 0)]);
    let last = sim.told.last().map(|(_, text)| text.as_str());
    assert_eq!(last, Some("2 resources deleted"));
}

#[test]
fn a_deletion_of_orphans_that_a_crash_cut_off_goes_on() {
    let mut sim = Sim::new();
    let answer = delete_orphans(&mut sim, "5f0c");
    let job = started(answer);
    sim.perform(0);
    sim.crash();
    pass(&mut sim, 2);
    assert_eq!(sim.deletions.len(), 2, "each once: {:?}", sim.deletions);
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Succeeded); 2]);
}

#[test]
fn a_region_that_cannot_be_asked_has_failed_and_the_others_have_their_turn() {
    let mut sim = Sim::new();
    sim.no_termination = Some(ErrorKind::Denied);
    let answer = delete_orphans(&mut sim, "5f0c");
    let job = started(answer);
    sim.perform_all();
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Failed); 2]);
    assert_eq!(sim.ended, [(job, 1)]);
}

#[test]
fn a_cluster_of_this_master_is_not_deleted_as_an_orphan() {
    let mut sim = fleet(1);
    let answer = delete_orphans(&mut sim, "uuid");
    assert!(
        matches!(&answer, Answer::Error(OpError::Conflict(why)) if why.contains("cleanup c deletes it")),
        "{answer:?}"
    );
    assert!(sim.deletions.is_empty());
}
