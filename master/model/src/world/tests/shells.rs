//! Terminals: records of what another task serves.

use super::*;

fn shell(sim: &mut Sim) -> JobId {
    served(sim, JobKind::Shell)
}

fn served(sim: &mut Sim, kind: JobKind) -> JobId {
    let id = JobId::from_parts(sim.now, 7);
    let mut job = Job::new(
        id,
        kind,
        cluster(),
        "shell a1".to_owned(),
        "uid 0".to_owned(),
        sim.now,
    );
    job.targets = [(key("a1").instance, None)].into();
    sim.input(Input::Record(Box::new(job)));
    id
}

fn verdict(sim: &Sim, id: JobId) -> Option<Verdict> {
    sim.world.jobs[&id].targets[&key("a1").instance].clone()
}

fn end(sim: &mut Sim, id: JobId, outcome: Outcome) {
    let mut job = sim.world.jobs[&id].clone();
    job.targets = [(key("a1").instance, Some(Verdict::without_run(outcome, "")))].into();
    sim.input(Input::Record(Box::new(job)));
}

#[test]
fn a_terminal_is_open_until_its_end_is_recorded() {
    let mut sim = Sim::new();
    let id = shell(&mut sim);
    assert_eq!(sim.world.jobs[&id].open(), 1);
    sim.now += 5_000;
    end(&mut sim, id, Outcome::Succeeded);
    assert_eq!(
        verdict(&sim, id).expect("ended").outcome,
        Outcome::Succeeded
    );
    assert_eq!(sim.world.jobs[&id].ended_ms, Some(sim.now));
}

#[test]
fn a_terminal_of_a_master_that_is_gone_has_lost_contact() {
    for kind in [JobKind::Shell, JobKind::Forward] {
        let mut sim = Sim::new();
        let id = served(&mut sim, kind);
        sim.crash();
        let lost = verdict(&sim, id).expect("ended by the restart");
        assert_eq!(lost.outcome, Outcome::LostContact);
        assert_eq!(lost.detail, "the master was restarted");
        sim.input(Input::Tick);
        assert!(sim.disk.jobs[&id].ended_ms.is_some(), "it is on disk");
    }
}

#[test]
fn a_cancelled_terminal_stays_cancelled_whatever_comes_after() {
    for kind in [JobKind::Shell, JobKind::Forward] {
        let mut sim = Sim::new();
        let id = served(&mut sim, kind);
        sim.input(Input::Cancel {
            cluster: cluster(),
            job: id,
            grace_ms: 0,
            operator: "uid 1".to_owned(),
        });
        end(&mut sim, id, Outcome::Succeeded);
        let cancelled = verdict(&sim, id).expect("ended");
        assert_eq!(cancelled.outcome, Outcome::Cancelled);
        assert!(cancelled.detail.contains("uid 1"), "{}", cancelled.detail);
    }
}

#[test]
fn what_agents_answered_is_kept_on_disk_and_soon_not_in_memory() {
    let mut sim = Sim::new();
    let terminal = shell(&mut sim);
    end(&mut sim, terminal, Outcome::Succeeded);
    let id = JobId::from_parts(sim.now, 8);
    let answered = Job {
        ended_ms: Some(sim.now),
        kind: JobKind::Exec,
        ..sim.world.jobs[&terminal].clone()
    };
    sim.input(Input::Record(Box::new(Job { id, ..answered })));
    sim.input(Input::Tick);
    assert!(sim.world.jobs.contains_key(&id), "someone may look at once");
    sim.now += 1_000;
    sim.input(Input::Tick);
    assert!(!sim.world.jobs.contains_key(&id));
    assert!(
        sim.world.jobs.contains_key(&terminal),
        "it may be followed longer"
    );
    assert_eq!(sim.disk.job(id).outcomes()["succeeded"], 1);
}
