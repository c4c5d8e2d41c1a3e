//! Changes that go over ready instances at a pace.

use super::*;
use crate::health::{HealthCheck, HealthSpec};
use crate::pace::{Amount, PacePolicy};
use crate::rolling::TurnStep;
use crate::world::tests::needs::{self, code, error, go, plan, started};

/// Two at a time, the first alone, and no errors.
fn policy() -> PacePolicy {
    PacePolicy {
        concurrency: Some(Amount::Count(2)),
        canary: Some(1),
        ..PacePolicy::default()
    }
}

fn ping() -> HealthSpec {
    HealthSpec {
        retries: 1,
        ..HealthSpec::new(HealthCheck::Ping)
    }
}

/// Pools of these sizes that are changed so.
pub(super) fn paced(sizes: &[usize]) -> ClusterSpec {
    let mut spec = spec(sizes, &[]);
    for pool in &mut spec.pools {
        pool.update = policy();
        pool.health = Some(ping());
    }
    spec
}

pub(super) fn begun(spec: &ClusterSpec, stages: &[&str]) -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(spec, stages));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    sim
}

pub(super) fn apply(
    sim: &mut Sim,
    spec: &ClusterSpec,
    stages: &[&str],
    change: impl Fn(&mut ApplyAsk),
) -> Answer {
    let plans: Vec<StagePlan> = stages.iter().map(|content| stage(content)).collect();
    let names = spec.instances().map(|(_, member)| member.name.clone());
    let pools = spec.pools.iter();
    let mut ask = ApplyAsk {
        cluster: cluster(),
        instances: names.collect(),
        file: None,
        stages: pools
            .map(|pool| (pool.label().to_owned(), plans.clone()))
            .collect(),
        from: None,
        force: false,
        failed: false,
        pace: PacePolicy::default(),
        what: "apply".to_owned(),
        operator: "test".to_owned(),
        request: None,
    };
    change(&mut ask);
    sim.input(Input::Apply(ask))
}

/// Those whose first stage is of this content.
pub(super) fn on<'a>(sim: &'a Sim, content: &str) -> Vec<&'a str> {
    let instances = sim.world.clusters[&cluster()].instances.values();
    let has = instances.filter(|it| it.stages[0].plan.key == content);
    has.map(|it| it.name.as_str()).collect()
}

/// Those of a pool that are being changed.
pub(super) fn under_change<'a>(sim: &'a Sim, pool: &str) -> Vec<&'a str> {
    let instances = sim.world.clusters[&cluster()].instances.values();
    let of = instances.filter(|it| it.name.as_str().starts_with(pool));
    let open = of.filter(|it| {
        let turn = it.turn.as_ref().map(|turn| &turn.step);
        let open = matches!(turn, Some(TurnStep::Changing | TurnStep::Checking { .. }));
        open && !matches!(it.phase, Phase::Failed | Phase::Gone)
    });
    open.map(|it| it.name.as_str()).collect()
}

pub(super) fn changed(sim: &Sim) -> usize {
    let instances = sim.world.clusters[&cluster()].instances.values();
    instances
        .filter(|it| {
            it.turn
                .as_ref()
                .is_some_and(|turn| turn.step == TurnStep::Passed)
        })
        .count()
}

#[test]
fn a_pool_is_changed_two_at_a_time_after_its_canary() {
    let spec = paced(&[6]);
    let mut sim = begun(&spec, &["old"]);
    assert!(sim.checks.is_empty(), "the first launch is not rolled");
    sim.input(ask(&spec, &["new"]));
    assert_eq!(on(&sim, "new"), ["a1"], "all others are as before");
    let mut most = 0;
    go(&mut sim, |sim| {
        let open = under_change(sim, "a").len();
        most = most.max(open);
        assert!(open <= if changed(sim) == 0 { 1 } else { 2 });
    });
    assert_eq!((most, on(&sim, "new").len(), code(&sim)), (2, 6, 0));
    assert_eq!(sim.checks.values().sum::<u32>(), 6);
    assert!(sim.started.iter().all(|(_, count)| *count == 1));
    assert!(matches!(
        sim.input(ask(&spec, &["new"])),
        Answer::UpToDate(_)
    ));
}

#[test]
fn a_place_that_is_free_goes_to_the_next_at_once() {
    for health in [None, Some(ping())] {
        let mut spec = paced(&[5]);
        spec.pools[0].health = health;
        spec.pools[0].update.canary = None;
        let mut sim = begun(&spec, &["old"]);
        sim.input(ask(&spec, &["new"]));
        sim.perform_all();
        // Nothing but what agents report: no time passes.
        for _ in 0..10 {
            sim.runs_end();
            sim.perform_all();
        }
        assert_eq!((on(&sim, "new").len(), code(&sim)), (5, 0));
    }
}

#[test]
fn nothing_said_is_all_at_once_and_flags_go_before_the_file() {
    let mut spec = spec(&[4], &[]);
    let mut sim = begun(&spec, &["old"]);
    apply(&mut sim, &spec, &["new"], |_| ());
    assert_eq!(on(&sim, "new").len(), 4);
    sim.run_until_quiet();
    apply(&mut sim, &spec, &["newer"], |ask| {
        ask.pace.concurrency = Some(Amount::Percent(75))
    });
    assert_eq!(on(&sim, "newer").len(), 3);
    sim.run_until_quiet();
    spec.pools[0].update = policy();
    let Input::Launch(mut launch) = ask(&spec, &["newest"]) else {
        panic!("a launch")
    };
    launch.pace.canary = Some(0);
    sim.input(Input::Launch(launch));
    assert_eq!(
        on(&sim, "newest").len(),
        2,
        "no canary, and two as the file says"
    );
    sim.run_until_quiet();
    assert_eq!((on(&sim, "newest").len(), code(&sim)), (4, 0));
}

#[test]
fn a_canary_that_fails_leaves_all_others_as_they_were() {
    let spec = paced(&[4]);
    let mut sim = begun(&spec, &["old"]);
    sim.exit.insert("a1".to_owned(), 7);
    sim.input(ask(&spec, &["new"]));
    sim.run_until_quiet();
    assert_eq!((on(&sim, "new"), code(&sim)), (vec!["a1"], 1));
    assert_eq!(
        error(&sim),
        "a: a canary did not succeed (a1); 3 instances are as before (a2, a3, a4); `aot-master apply` continues there"
    );
    let job = sim.world.jobs.values().next_back().expect("the launch");
    let verdict = job.targets[&key("a2").instance].as_ref().expect("it ended");
    assert_eq!(
        (verdict.outcome, verdict.detail.as_str()),
        (
            Outcome::Cancelled,
            "not started: a: a canary did not succeed (a1)"
        )
    );
    assert_eq!(
        needs::view(&sim, "a2").note,
        "as before: its turn did not come"
    );
    assert_eq!(instance(&sim, "a2").phase, Phase::Ready);
    // The one that failed goes first when it continues, and all end on what it was mended to.
    sim.exit.clear();
    sim.crash();
    apply(&mut sim, &spec, &["mended"], |_| ());
    assert_eq!(
        under_change(&sim, "a"),
        Vec::<&str>::new(),
        "nobody is connected yet"
    );
    sim.run_until_quiet();
    assert_eq!(
        (on(&sim, "mended").len(), code(&sim), error(&sim)),
        (4, 0, "")
    );
}

#[test]
fn who_fails_its_check_is_failed_and_only_asked_again_where_nothing_changed() {
    let spec = paced(&[6]);
    let mut sim = begun(&spec, &["old"]);
    let sick = ["a2", "a3"].map(str::to_owned);
    sim.unhealthy.extend(sick);
    sim.input(ask(&spec, &["new"]));
    sim.run_until_quiet();
    assert_eq!(code(&sim), 1);
    let unhealthy = instance(&sim, "a2");
    assert_eq!(
        (unhealthy.phase, unhealthy.note.as_str()),
        (Phase::Failed, "health check failed 2 times (exit 1)")
    );
    assert_eq!(
        (sim.checks["a2"], sim.checks["a3"]),
        (2, 2),
        "once more each"
    );
    assert_eq!(on(&sim, "old"), ["a4", "a5", "a6"]);
    let stopped = "and max_errors is 0; 3 instances are as before (a4, a5, a6)";
    assert!(error(&sim).contains(stopped), "{}", error(&sim));
    let said = |sim: &Sim, kind: &str| sim.told.iter().filter(|(it, _)| it == kind).count();
    assert_eq!(
        (said(&sim, "update-started"), said(&sim, "update-stopped")),
        (3, 1)
    );
    sim.unhealthy.clear();
    apply(&mut sim, &spec, &["new"], |_| ());
    assert_eq!(under_change(&sim, "a"), ["a2"], "it is the canary");
    sim.run_until_quiet();
    assert_eq!((code(&sim), error(&sim), on(&sim, "new").len()), (0, "", 6));
    assert!(
        sim.started.values().all(|count| *count == 1),
        "{:?}",
        sim.started
    );
}

#[test]
fn without_a_check_in_the_file_one_that_failed_it_is_taken_for_good() {
    let mut spec = paced(&[2]);
    let mut sim = begun(&spec, &["old"]);
    sim.unhealthy.insert("a1".to_owned());
    sim.input(ask(&spec, &["new"]));
    sim.run_until_quiet();
    assert_eq!(instance(&sim, "a1").phase, Phase::Failed);
    spec.pools[0].update = PacePolicy::default();
    spec.pools[0].health = None;
    sim.input(ask(&spec, &["new"]));
    sim.run_until_quiet();
    assert_eq!(
        (code(&sim), sim.phases()),
        (0, BTreeSet::from([Phase::Ready]))
    );
    assert_eq!(
        (started(&sim, "a1", "new"), started(&sim, "a2", "new")),
        (1, 1)
    );
}

#[test]
fn errors_that_are_allowed_stop_nothing() {
    let mut spec = paced(&[5]);
    spec.pools[0].update.max_errors = Some(Amount::Count(1));
    let mut sim = begun(&spec, &["old"]);
    sim.exit.insert("a3".to_owned(), 7);
    sim.input(ask(&spec, &["new"]));
    sim.run_until_quiet();
    assert_eq!((on(&sim, "new").len(), code(&sim)), (5, 1));
    assert_eq!(error(&sim), "4 of 5 instances ready, 5 needed");
}

#[test]
fn a_cancelled_change_leaves_the_rest_as_it_was() {
    let spec = paced(&[4]);
    let mut sim = begun(&spec, &["old"]);
    let Answer::Started(job) = sim.input(ask(&spec, &["new"])) else {
        panic!("it was started");
    };
    sim.perform_all();
    sim.input(Input::Cancel {
        cluster: cluster(),
        job,
        grace_ms: 0,
        operator: "me".to_owned(),
    });
    go(&mut sim, |_| ());
    assert_eq!((on(&sim, "new"), code(&sim)), (vec!["a1"], 1));
    assert_eq!(outcome(&sim, job, "a3"), Some(Outcome::Cancelled));
    apply(&mut sim, &spec, &["new"], |_| ());
    sim.run_until_quiet();
    assert_eq!((code(&sim), on(&sim, "new").len()), (0, 4));
}

#[test]
fn what_is_under_way_counts_when_another_launch_takes_over() {
    let spec = paced(&[6]);
    let mut sim = begun(&spec, &["old"]);
    sim.input(ask(&spec, &["new"]));
    sim.run_until(|sim| under_change(sim, "a").len() == 2);
    let open: Vec<String> = under_change(&sim, "a")
        .iter()
        .map(ToString::to_string)
        .collect();
    sim.input(ask(&spec, &["newer"]));
    assert_eq!(on(&sim, "newer"), open, "nobody else has a turn");
    go(&mut sim, |sim| assert!(under_change(sim, "a").len() <= 2));
    assert_eq!((on(&sim, "newer").len(), code(&sim)), (6, 0));
}

#[test]
fn the_same_launch_again_joins_the_one_that_runs() {
    let spec = paced(&[4]);
    let mut sim = begun(&spec, &["old"]);
    let Answer::Started(job) = sim.input(ask(&spec, &["new"])) else {
        panic!("it was started");
    };
    sim.run_until(|sim| changed(sim) == 1);
    let again = sim.input(ask(&spec, &["new"]));
    assert!(
        matches!(again, Answer::Started(same) if same == job),
        "{again:?}"
    );
}

#[test]
fn batches_have_a_pause_between_them() {
    let mut spec = paced(&[4]);
    spec.pools[0].update = PacePolicy {
        concurrency: Some(Amount::Count(2)),
        batch_wait_ms: Some(60_000),
        ..PacePolicy::default()
    };
    let mut sim = begun(&spec, &["old"]);
    sim.input(ask(&spec, &["new"]));
    assert_eq!(on(&sim, "new").len(), 2);
    sim.run_until(|sim| changed(sim) == 2);
    let ended = sim.now;
    sim.crash();
    sim.run_until(|sim| on(sim, "new").len() == 4);
    assert!(sim.now >= ended + 60_000, "a restart does not shorten it");
    sim.run_until_quiet();
    assert_eq!(code(&sim), 0);
}

#[test]
fn a_pool_goes_after_those_whose_stages_it_needs() {
    let spec = paced(&[2, 2]);
    let plans = |key: &str| -> needs::Plans {
        let first = StagePlan {
            key: key.to_owned(),
            ..plan(&spec, "a0", &["pool:b/0"])
        };
        let second = StagePlan {
            key: key.to_owned(),
            ..plan(&spec, "b0", &[])
        };
        [
            ("a".to_owned(), vec![first]),
            ("b".to_owned(), vec![second]),
        ]
        .into()
    };
    let mut sim = Sim::new();
    sim.input(needs::launch(&spec, &plans("old")));
    sim.run_until_quiet();
    sim.input(needs::launch(&spec, &plans("new")));
    go(&mut sim, |sim| {
        let new = on(sim, "new");
        let all_of_b = ["b1", "b2"].iter().all(|name| new.contains(name));
        assert!(all_of_b || !new.contains(&"a1"), "{new:?}");
    });
    assert_eq!((on(&sim, "new").len(), code(&sim)), (4, 0));
}

#[test]
fn single_instances_of_which_the_same_is_said_share_a_pace() {
    let mut spec = spec(&[1, 1, 1], &[]);
    for pool in &mut spec.pools {
        pool.name = None;
        pool.update = policy();
    }
    let mut sim = Sim::new();
    let named = |stages: &[&str]| {
        let Input::Launch(mut launch) = ask(&spec, stages) else {
            panic!("a launch")
        };
        let plans: Vec<StagePlan> = stages.iter().map(|it| stage(it)).collect();
        let labels = spec.pools.iter().map(|pool| pool.label().to_owned());
        launch.stages = labels.map(|label| (label, plans.clone())).collect();
        Input::Launch(launch)
    };
    sim.input(named(&["old"]));
    sim.run_until_quiet();
    sim.input(named(&["new"]));
    assert_eq!(on(&sim, "new"), ["a1"]);
    sim.run_until_quiet();
    assert_eq!((on(&sim, "new").len(), code(&sim)), (3, 0));
}

#[test]
fn stages_that_are_forced_run_again_at_the_pace() {
    let spec = paced(&[3]);
    let mut sim = begun(&spec, &["one", "two"]);
    apply(&mut sim, &spec, &["one", "two"], |ask| ask.from = Some(1));
    assert_eq!(under_change(&sim, "a"), ["a1"]);
    sim.run_until_quiet();
    assert_eq!(
        (started(&sim, "a3", "one"), started(&sim, "a3", "two")),
        (1, 2)
    );
    assert_eq!(code(&sim), 0);
}

#[test]
fn failed_ones_are_those_too_that_did_not_pass_their_check() {
    let spec = paced(&[3]);
    let mut sim = begun(&spec, &["old"]);
    sim.unhealthy.insert("a1".to_owned());
    sim.input(ask(&spec, &["new"]));
    sim.run_until_quiet();
    assert_eq!(instance(&sim, "a1").phase, Phase::Failed);
    let answer = apply(&mut sim, &spec, &["new"], |ask| ask.failed = true);
    assert!(matches!(answer, Answer::Started(_)), "{answer:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The master is killed wherever the numbers say, and effects are done in any order: never more are under change than the
    /// pace allows, each stage runs once everywhere, and all end on the new version.
    #[test]
    fn any_order_and_any_crash_keeps_the_pace(
        moves in prop::collection::vec((0usize..7, any::<prop::sample::Index>()), 0..150),
        batch in 1usize..6,
        unhealthy in prop::option::of(1usize..6),
    ) {
        let spec = paced(&[1, 5]);
        let mut sim = begun(&spec, &["one", "two"]);
        sim.batch = batch;
        sim.unhealthy.extend(unhealthy.map(|number| format!("b{number}")));
        sim.input(ask(&spec, &["new", "newer"]));
        for (what, index) in moves {
            match what {
                0 => sim.crash(),
                1 => { sim.input(ask(&spec, &["new", "newer"])); }
                2 => sim.agents_move(),
                3 => { sim.now += 700; sim.input(Input::Tick); }
                _ if !sim.pending.is_empty() => sim.perform(index.index(sim.pending.len())),
                _ => {}
            }
            let open = under_change(&sim, "b").len();
            prop_assert!(open <= 2, "{:?}", under_change(&sim, "b"));
        }
        sim.crash();
        sim.unhealthy.clear();
        for _ in 0..2 {
            sim.input(ask(&spec, &["new", "newer"]));
            sim.run_until_quiet();
        }
        prop_assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
        prop_assert_eq!(on(&sim, "new").len(), 6);
        let new = sim.started.iter().filter(|((_, stage), _)| stage.starts_with("new"));
        prop_assert_eq!(new.clone().count(), 12);
        prop_assert!(new.clone().all(|(_, count)| *count == 1), "{:?}", sim.started);
    }
}
