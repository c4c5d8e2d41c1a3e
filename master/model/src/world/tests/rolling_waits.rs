//! Changes at a pace in which somebody is waited for who may never come.

use super::jobs::leaves;
use super::needs::{self, code, error, go, plan, started};
use super::rolling::{apply, begun, changed, on, paced, under_change};
use super::*;
use crate::pace::{Amount, PacePolicy};
use crate::rolling::TurnStep;

/// Its agent goes, and does not come back by itself.
fn goes(sim: &mut Sim, name: &str) {
    sim.silent.insert(name.to_owned());
    leaves(sim, name);
}

fn step<'a>(sim: &'a Sim, name: &str) -> &'a TurnStep {
    let turn = instance(sim, name).turn.as_ref();
    &turn.expect("it has a place").step
}

#[test]
fn who_is_away_is_left_as_it_was_and_counts_as_no_error() {
    let spec = paced(&[4]);
    let mut sim = begun(&spec, &["old"]);
    goes(&mut sim, "a1");
    sim.input(ask(&spec, &["new"]));
    let began = sim.now;
    sim.run_until_quiet();
    assert!(
        sim.now < began + 120_000,
        "it is not waited for until the launch's time is up"
    );
    assert_eq!((on(&sim, "new"), code(&sim)), (vec!["a2", "a3", "a4"], 1));
    assert_eq!(
        error(&sim),
        "not all agents are connected; 1 instance is as before (a1); `aot-master apply` continues there"
    );
    let job = sim.world.jobs.values().next_back().expect("the launch").id;
    assert_eq!(outcome(&sim, job, "a1"), Some(Outcome::Absent));
    sim.silent.clear();
    sim.agents_come();
    apply(&mut sim, &spec, &["new"], |_| ());
    sim.run_until_quiet();
    assert_eq!((code(&sim), on(&sim, "new").len()), (0, 4));
}

#[test]
fn one_that_is_lost_on_its_way_is_an_error() {
    let spec = paced(&[3]);
    let mut sim = begun(&spec, &["old"]);
    sim.input(ask(&spec, &["new"]));
    sim.perform_all();
    goes(&mut sim, "a1");
    run(&mut sim, 60);
    assert_eq!(on(&sim, "new"), ["a1"], "it was the canary");
    let launch = sim.world.clusters[&cluster()]
        .launch
        .as_ref()
        .expect("it runs");
    let stopped = launch
        .rolling
        .as_ref()
        .and_then(|rolling| rolling.stopped.clone());
    assert_eq!(stopped.as_deref(), Some("a: a canary did not succeed (a1)"));
}

#[test]
fn one_that_was_lost_on_its_way_is_asked_when_another_launch_took_over() {
    let spec = paced(&[4]);
    let mut sim = begun(&spec, &["old"]);
    sim.input(ask(&spec, &["new"]));
    sim.perform_all();
    goes(&mut sim, "a1");
    run(&mut sim, 60);
    sim.input(ask(&spec, &["newer"]));
    assert_eq!(*step(&sim, "a1"), TurnStep::Lost);
    assert_eq!(under_change(&sim, "a"), ["a2"], "it holds nobody up");
    sim.run_until(|sim| changed(sim) == 3);
    assert!(!sim.checks.contains_key("a1"), "{:?}", sim.checks);
    sim.silent.clear();
    go(&mut sim, |_| ());
    assert_eq!((code(&sim), error(&sim)), (0, ""));
    assert_eq!(
        (on(&sim, "newer").len(), started(&sim, "a1", "newer")),
        (4, 1)
    );
    assert_eq!(sim.checks["a1"], 1, "it is asked like all others");
}

#[test]
fn one_that_was_lost_amid_its_check_is_not_ready_before_it_has_passed() {
    let spec = paced(&[3]);
    let mut sim = begun(&spec, &["old"]);
    sim.input(ask(&spec, &["new"]));
    sim.run_until(|sim| matches!(step(sim, "a1"), TurnStep::Checking { .. }));
    goes(&mut sim, "a1");
    run(&mut sim, 60);
    // The same stages: it has none to run, but nobody knows that all is well.
    sim.unhealthy.insert("a1".to_owned());
    let mut wider = spec.clone();
    wider.pools[0].update.concurrency = Some(Amount::Count(3));
    sim.input(ask(&wider, &["new"]));
    assert_eq!(*step(&sim, "a1"), TurnStep::Lost);
    sim.run_until(|sim| changed(sim) == 2);
    assert_ne!(instance(&sim, "a1").phase, Phase::Ready);
    sim.silent.clear();
    go(&mut sim, |_| ());
    let sick = instance(&sim, "a1");
    assert_eq!(
        (code(&sim), sick.phase, sick.note.as_str()),
        (1, Phase::Failed, "health check failed 2 times (exit 1)")
    );
}

#[test]
fn one_that_comes_back_counts_from_then_on() {
    let spec = paced(&[6]);
    let mut sim = begun(&spec, &["old"]);
    sim.input(ask(&spec, &["new"]));
    sim.perform_all();
    goes(&mut sim, "a1");
    run(&mut sim, 60);
    sim.input(ask(&spec, &["newer"]));
    sim.silent.clear();
    sim.agents_come();
    assert_eq!(under_change(&sim, "a"), ["a1", "a2"], "both are canaries");
    go(&mut sim, |sim| {
        let open = under_change(sim, "a").len();
        assert!(open <= 2, "{:?}", under_change(sim, "a"));
        let canaries = ["a1", "a2"].map(|name| *step(sim, name) == TurnStep::Passed);
        assert!(canaries == [true, true] || on(sim, "newer").len() <= 2);
    });
    assert_eq!((on(&sim, "newer").len(), code(&sim)), (6, 0));
}

#[test]
fn pools_that_need_each_other_go_side_by_side_and_none_waits_for_ever() {
    let spec = paced(&[3, 3]);
    let plans = |key: &str| -> needs::Plans {
        let stages = |pool: &str, other: &str| {
            let first = plan(&spec, &format!("{pool}0"), &[]);
            let second = plan(&spec, &format!("{pool}1"), &[other]);
            [first, second]
                .map(|plan| StagePlan {
                    key: format!("{key}{}", plan.name),
                    ..plan
                })
                .to_vec()
        };
        [
            ("a".to_owned(), stages("a", "pool:b/0")),
            ("b".to_owned(), stages("b", "pool:a/0")),
        ]
        .into()
    };
    let mut sim = Sim::new();
    // So that instances of both have failed, and those of the other wait for them.
    sim.input(needs::launch(&spec, &plans("old")));
    sim.run_until_quiet();
    for name in ["a3", "b3"] {
        sim.exit.insert(name.to_owned(), 7);
    }
    let mut allowed = spec.clone();
    for pool in &mut allowed.pools {
        pool.update.max_errors = Some(Amount::Count(3));
    }
    sim.input(needs::launch(&allowed, &plans("new")));
    sim.run_until_quiet();
    sim.exit.clear();
    sim.input(needs::launch(&allowed, &plans("newer")));
    sim.run_until_quiet();
    assert_eq!((code(&sim), error(&sim)), (0, ""));
    assert_eq!(
        (on(&sim, "newera0").len(), on(&sim, "newerb0").len()),
        (3, 3)
    );
}

#[test]
fn one_that_waits_in_its_own_pool_lets_the_other_go_too() {
    let mut spec = paced(&[2]);
    spec.pools[0].update = PacePolicy {
        concurrency: Some(Amount::Count(1)),
        ..PacePolicy::default()
    };
    let plans = |key: &str| -> needs::Plans {
        let first = plan(&spec, "a0", &[]);
        let second = plan(&spec, "a1", &["a2/0", "a1/0"]);
        let plans = [first, second].map(|plan| StagePlan {
            key: format!("{key}{}", plan.name),
            ..plan
        });
        [("a".to_owned(), plans.to_vec())].into()
    };
    let mut sim = Sim::new();
    sim.input(needs::launch(&spec, &plans("old")));
    sim.run_until_quiet();
    // Both fail in their first stage, so the first to go waits for the second one's.
    sim.exit
        .extend(["a1", "a2"].map(|name| (name.to_owned(), 7)));
    let mut allowed = spec.clone();
    allowed.pools[0].update.max_errors = Some(Amount::Count(2));
    sim.input(needs::launch(&allowed, &plans("bad")));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    sim.exit.clear();
    sim.input(needs::launch(&spec, &plans("good")));
    sim.run_until_quiet();
    assert_eq!((code(&sim), error(&sim)), (0, ""));
}

/// Pool `a` needs `b`, which is changed all at once.
fn needy(spec: &ClusterSpec, key: &str, more: bool) -> needs::Plans {
    let stages = |pool: &str, need: &[&str]| {
        let stages = (0..if more { 2 } else { 1 }).map(|at| StagePlan {
            key: format!("{key}{at}"),
            ..plan(
                spec,
                &format!("{pool}{at}"),
                if at == usize::from(more) { need } else { &[] },
            )
        });
        stages.collect::<Vec<_>>()
    };
    let need = if more { "pool:b/1" } else { "pool:b/0" };
    [
        ("a".to_owned(), stages("a", &[need])),
        ("b".to_owned(), stages("b", &[])),
    ]
    .into()
}

#[test]
fn who_waits_for_what_failed_elsewhere_holds_nobody_up_for_ever() {
    let mut spec = paced(&[3, 1]);
    spec.pools[0].update = PacePolicy {
        concurrency: Some(Amount::Count(1)),
        ..PacePolicy::default()
    };
    spec.pools[1].update = PacePolicy::default();
    let mut sim = Sim::new();
    sim.input(needs::launch(&spec, &needy(&spec, "old", false)));
    sim.run_until_quiet();
    sim.exit.insert("b1".to_owned(), 7);
    sim.input(needs::launch(&spec, &needy(&spec, "new", false)));
    go(&mut sim, |_| ());
    assert!(
        error(&sim).starts_with("a1 waits for stages that do not come"),
        "{}",
        error(&sim)
    );
}

#[test]
fn who_needs_a_stage_that_was_never_brought_ends_too() {
    let mut spec = paced(&[1, 3]);
    let mut sim = Sim::new();
    spec.pools[0].update = PacePolicy::default();
    sim.input(needs::launch(&spec, &needy(&spec, "old", false)));
    sim.run_until_quiet();
    sim.exit.insert("b1".to_owned(), 7);
    sim.input(needs::launch(&spec, &needy(&spec, "new", true)));
    go(&mut sim, |_| ());
    assert!(
        error(&sim).starts_with("b: a canary did not succeed (b1)"),
        "{}",
        error(&sim)
    );
}

#[test]
fn who_a_canary_needs_is_a_canary_too() {
    let mut spec = paced(&[6]);
    spec.pools[0].update.max_errors = Some(Amount::Count(5));
    spec.pools[0].update.concurrency = None;
    let plans = |key: &str| -> needs::Plans {
        let first = plan(&spec, "a0", &[]);
        let second = plan(&spec, "a1", &["a2/0", "a1/0"]);
        let plans = [first, second].map(|plan| StagePlan {
            key: format!("{key}{}", plan.name),
            ..plan
        });
        [("a".to_owned(), plans.to_vec())].into()
    };
    let mut sim = Sim::new();
    sim.input(needs::launch(&spec, &plans("old")));
    sim.run_until_quiet();
    // Its first stage fails everywhere: then a canary waits for a2, which is changed with it.
    sim.exit.extend((1..7).map(|n| (format!("a{n}"), 7)));
    let mut all = spec.clone();
    all.pools[0].update = PacePolicy {
        concurrency: Some(Amount::Count(6)),
        max_errors: Some(Amount::Count(6)),
        ..PacePolicy::default()
    };
    sim.input(needs::launch(&all, &plans("bad")));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    sim.exit.clear();
    let mut most = 0;
    sim.input(needs::launch(&spec, &plans("good")));
    go(&mut sim, |sim| {
        if changed(sim) == 0 {
            most = most.max(under_change(sim, "a").len());
        }
    });
    assert_eq!((most, code(&sim)), (2, 0));
}

#[test]
fn a_machine_that_is_going_gets_no_turn() {
    let spec = paced(&[3]);
    let mut sim = begun(&spec, &["old"]);
    sim.input(ask(&spec, &["new"]));
    sim.input(Input::Terminate {
        cluster: cluster(),
        instances: vec!["a2".parse().expect("a name")],
        by: Default::default(),
    });
    go(&mut sim, |_| ());
    assert_eq!(on(&sim, "new"), ["a1", "a3"], "{}", error(&sim));
}
