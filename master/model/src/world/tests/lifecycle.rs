//! What changes or ends machines: each is a job, on disk before its call, with an end that is true after any crash.

use super::*;

pub(super) fn fleet(size: usize) -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[size], &[]), &[]));
    sim.run_until_quiet();
    sim.ended.clear();
    sim
}

/// Lets time pass, with agents that come where their machines run and go where they do not.
pub(super) fn pass(sim: &mut Sim, seconds: u64) {
    for _ in 0..seconds {
        sim.perform_all();
        sim.now += 1_000;
        sim.input(Input::Tick);
    }
    sim.perform_all();
}

pub(super) fn by(what: &str) -> AskedBy {
    AskedBy {
        what: what.to_owned(),
        operator: "uid 7".to_owned(),
        request: None,
    }
}

pub(super) fn names(names: &[&str]) -> Vec<InstanceName> {
    names.iter().map(|name| key(name).instance).collect()
}

pub(super) fn change(sim: &mut Sim, kind: JobKind, targets: &[&str]) -> JobId {
    let ask = LifecycleAsk {
        cluster: cluster(),
        instances: names(targets),
        kind,
        timeout_ms: 60_000,
        by: by("it"),
    };
    match sim.input(Input::Lifecycle(ask)) {
        Answer::Exec { job, .. } => job,
        other => panic!("{other:?}"),
    }
}

pub(super) fn terminate(sim: &mut Sim, targets: &[&str]) -> JobId {
    let answer = sim.input(Input::Terminate {
        cluster: cluster(),
        instances: names(targets),
        by: by("terminate"),
    });
    started(answer)
}

pub(super) fn clean_up(sim: &mut Sim) -> JobId {
    let answer = sim.input(Input::Cleanup {
        cluster: cluster(),
        by: by("cleanup"),
    });
    started(answer)
}

pub(super) fn started(answer: Answer) -> JobId {
    match answer {
        Answer::Started(job) => job,
        other => panic!("{other:?}"),
    }
}

/// As the disk has it.
pub(super) fn outcomes(sim: &Sim, job: JobId) -> Vec<Option<Outcome>> {
    let record = sim.disk.job(job);
    let targets = record.targets.values();
    targets
        .map(|end| end.as_ref().map(|end| end.outcome))
        .collect()
}

pub(super) fn detail(sim: &Sim, job: JobId, name: &str) -> String {
    let end = sim.disk.job(job).targets[&key(name).instance].clone();
    end.map(|end| end.detail).unwrap_or_default()
}

fn agent_goes(sim: &mut Sim, name: &str) {
    let session = sim
        .agents
        .get_mut(&key(name))
        .and_then(|it| it.session.take());
    let why = "it went down".to_owned();
    sim.agent(
        key(name),
        session.expect("connected"),
        AgentInput::Closed { why },
    );
}

#[test]
fn a_stop_is_a_job_by_its_operator_that_ends_when_all_are_stopped() {
    let mut sim = fleet(2);
    let job = change(&mut sim, JobKind::Stop, &["a1", "a2"]);
    let record = &sim.disk.jobs[&job];
    assert_eq!(
        (record.operator.as_str(), record.kind),
        ("uid 7", JobKind::Stop)
    );
    assert_eq!(outcomes(&sim, job), [None, None], "nothing was asked yet");
    pass(&mut sim, 5);
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Succeeded); 2]);
    assert_eq!(sim.changes.len(), 1, "one call for all");
    assert!(sim.disk.jobs[&job].ended_ms.is_some());
}

#[test]
fn an_agent_that_leaves_with_its_machine_is_told_apart_from_one_that_was_cut_off() {
    let disconnects = |sim: &Sim| {
        let text = |effect: &Effect| match effect {
            Effect::Event(event) if event.kind == "agent-disconnected" => {
                Some(event.message.clone())
            }
            _ => None,
        };
        sim.pending.iter().filter_map(text).collect::<Vec<_>>()
    };
    let mut sim = fleet(2);
    agent_goes(&mut sim, "a1");
    assert_eq!(disconnects(&sim), ["disconnected: it went down"]);
    terminate(&mut sim, &["a2"]);
    sim.pending.clear();
    agent_goes(&mut sim, "a2");
    assert_eq!(disconnects(&sim), ["disconnected: its machine was ended"]);
}

#[test]
fn a_start_ends_when_the_agent_is_back() {
    let mut sim = fleet(1);
    change(&mut sim, JobKind::Stop, &["a1"]);
    agent_goes(&mut sim, "a1");
    pass(&mut sim, 5);
    let job = change(&mut sim, JobKind::Start, &["a1"]);
    pass(&mut sim, 5);
    assert_eq!(
        outcomes(&sim, job),
        [None],
        "it runs, and has not called home"
    );
    sim.agents_come();
    pass(&mut sim, 3);
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Succeeded)]);
}

#[test]
fn what_is_not_there_in_time_has_timed_out() {
    let mut sim = fleet(1);
    let job = change(&mut sim, JobKind::Reboot, &["a1"]);
    pass(&mut sim, 70);
    assert_eq!(
        outcomes(&sim, job),
        [Some(Outcome::TimedOut)],
        "the same boot"
    );
}

#[test]
fn each_target_says_whether_the_provider_took_it() {
    let mut sim = fleet(2);
    let protected = sim
        .world
        .instance(&key("a1"))
        .and_then(Instance::machine_id);
    let protected = protected.expect("has one").clone();
    sim.protected.insert(protected);
    let job = change(&mut sim, JobKind::Stop, &["a1", "a2"]);
    pass(&mut sim, 5);
    assert_eq!(
        outcomes(&sim, job),
        [Some(Outcome::Failed), Some(Outcome::Succeeded)]
    );
    assert_eq!(detail(&sim, job, "a1"), "no");
}

#[test]
fn a_call_that_fails_ends_the_job_and_is_not_repeated_behind_anyones_back() {
    let mut sim = fleet(1);
    sim.no_termination = Some(ErrorKind::Denied);
    let job = change(&mut sim, JobKind::Stop, &["a1"]);
    pass(&mut sim, 60);
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Failed)]);
    assert_eq!(sim.changes.len(), 1);
}

#[test]
fn a_stop_that_a_crash_cut_off_is_asked_for_again() {
    for answered in [false, true] {
        let mut sim = fleet(2);
        let job = change(&mut sim, JobKind::Stop, &["a1", "a2"]);
        if answered {
            let call = |effect: &Effect| {
                matches!(
                    effect,
                    Effect::Call {
                        call: Call::Change { .. },
                        ..
                    }
                )
            };
            let at = sim.pending.iter().position(call).expect("it is asked");
            sim.perform(at);
        }
        sim.crash();
        pass(&mut sim, 5);
        assert_eq!(outcomes(&sim, job), [Some(Outcome::Succeeded); 2]);
        assert_eq!(sim.changes.len(), 1, "answered before: {answered}");
    }
}

#[test]
fn a_reboot_that_a_crash_cut_off_is_never_asked_for_again() {
    let mut sim = fleet(1);
    let job = change(&mut sim, JobKind::Reboot, &["a1"]);
    sim.crash();
    pass(&mut sim, 5);
    assert!(sim.changes.is_empty());
    assert_eq!(outcomes(&sim, job), [Some(Outcome::LostContact)]);
    assert!(detail(&sim, job, "a1").contains("may have been rebooted"));
}

#[test]
fn a_reboot_that_was_taken_before_a_crash_is_waited_for() {
    let mut sim = fleet(1);
    let job = change(&mut sim, JobKind::Reboot, &["a1"]);
    pass(&mut sim, 1);
    sim.crash();
    pass(&mut sim, 2);
    assert_eq!(outcomes(&sim, job), [None]);
    let hello = v1::Hello {
        boot_id: "another".to_owned(),
        ..v1::Hello::default()
    };
    sim.sessions += 1;
    let session = sim.sessions;
    sim.agents.get_mut(&key("a1")).expect("is there").session = Some(session);
    sim.agent(key("a1"), session, AgentInput::Attached(Box::new(hello)));
    pass(&mut sim, 3);
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Succeeded)]);
    assert_eq!(sim.changes.len(), 1);
}

#[test]
fn nothing_is_touched_when_one_of_them_cannot_be_rebooted() {
    let mut sim = fleet(2);
    change(&mut sim, JobKind::Stop, &["a1"]);
    pass(&mut sim, 5);
    let jobs = sim.disk.jobs.len();
    let ask = LifecycleAsk {
        cluster: cluster(),
        instances: names(&["a1", "a2"]),
        kind: JobKind::Reboot,
        timeout_ms: 60_000,
        by: by("reboot"),
    };
    let answer = sim.input(Input::Lifecycle(ask));
    assert!(
        matches!(&answer, Answer::Error(OpError::Conflict(why)) if why.contains("a1; start it instead")),
        "{answer:?}"
    );
    assert_eq!((sim.changes.len(), sim.disk.jobs.len()), (1, jobs));
}

#[test]
fn a_cancelled_stop_ends_and_takes_nothing_back() {
    let mut sim = fleet(1);
    let job = change(&mut sim, JobKind::Stop, &["a1"]);
    let cancel = |job| Input::Cancel {
        cluster: cluster(),
        job,
        grace_ms: 0,
        operator: "uid 8".to_owned(),
    };
    sim.input(cancel(job));
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Cancelled)]);
    let job = terminate(&mut sim, &["a1"]);
    let answer = sim.input(cancel(job));
    assert!(
        matches!(answer, Answer::Error(OpError::Conflict(_))),
        "{answer:?}"
    );
}

#[test]
fn a_termination_ends_when_the_machines_are_gone_after_a_crash_too() {
    let mut sim = fleet(3);
    let job = terminate(&mut sim, &["a1", "a2"]);
    assert_eq!(outcomes(&sim, job), [None, None]);
    sim.crash();
    pass(&mut sim, 10);
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Succeeded); 2]);
    assert_eq!(sim.alive(), 1);
    let again = terminate(&mut sim, &["a1"]);
    assert_eq!(outcomes(&sim, again), [Some(Outcome::Absent)]);
}

#[test]
fn a_termination_that_is_refused_has_failed_with_its_reason() {
    let mut sim = fleet(1);
    let id = sim
        .world
        .instance(&key("a1"))
        .and_then(Instance::machine_id);
    let id = id.expect("has one").clone();
    sim.protected.insert(id.clone());
    let job = terminate(&mut sim, &["a1"]);
    pass(&mut sim, 30);
    assert_eq!(outcomes(&sim, job), [Some(Outcome::Failed)]);
    assert_eq!(
        detail(&sim, job, "a1"),
        format!("cannot terminate {id}: no")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Killed wherever the numbers say: every job that changes machines ends, and no reboot is asked for twice.
    #[test]
    fn every_change_ends_whatever_happens(
        kinds in prop::collection::vec(0usize..4, 1..5),
        moves in prop::collection::vec((0usize..5, any::<prop::sample::Index>()), 0..60),
    ) {
        let mut sim = fleet(2);
        let mut jobs = Vec::new();
        let mut moves = moves.into_iter();
        for kind in kinds {
            jobs.push(match kind {
                0 => sim.try_change(JobKind::Stop),
                1 => sim.try_change(JobKind::Start),
                2 => sim.try_change(JobKind::Reboot),
                _ => Some(terminate(&mut sim, &["a1"])),
            });
            for (what, index) in moves.by_ref().take(15) {
                match what {
                    0 => sim.crash(),
                    1 => sim.agents_come(),
                    2 => { sim.now += 700; sim.input(Input::Tick); }
                    _ if !sim.pending.is_empty() => sim.perform(index.index(sim.pending.len())),
                    _ => {}
                }
            }
        }
        sim.crash();
        for _ in 0..80 {
            sim.agents_come();
            pass(&mut sim, 1);
        }
        for job in jobs.into_iter().flatten() {
            let all = outcomes(&sim, job);
            prop_assert!(all.iter().all(Option::is_some), "{:?}", sim.disk.jobs[&job]);
        }
        let reboots = sim.changes.iter().filter(|(kind, _)| *kind == JobKind::Reboot).count();
        let asked = sim.disk.jobs.values().filter(|job| job.kind == JobKind::Reboot).count();
        prop_assert!(reboots <= asked, "{reboots} calls for {asked} reboots");
    }
}

impl Sim {
    fn try_change(&mut self, kind: JobKind) -> Option<JobId> {
        let ask = LifecycleAsk {
            cluster: cluster(),
            instances: names(&["a1", "a2"]),
            kind,
            timeout_ms: 60_000,
            by: by("it"),
        };
        match self.input(Input::Lifecycle(ask)) {
            Answer::Exec { job, .. } => Some(job),
            _ => None,
        }
    }
}
