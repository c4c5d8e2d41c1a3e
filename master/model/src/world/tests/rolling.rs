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
fn paced(sizes: &[usize]) -> ClusterSpec {
    let mut spec = spec(sizes, &[]);
    for pool in &mut spec.pools {
        pool.update = policy();
        pool.health = Some(ping());
    }
    spec
}

fn begun(spec: &ClusterSpec, stages: &[&str]) -> Sim {
    let mut sim = Sim::new();
    sim.input(ask(spec, stages));
    sim.run_until_quiet();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    sim
}

fn apply(
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
fn on<'a>(sim: &'a Sim, content: &str) -> Vec<&'a str> {
    let instances = sim.world.clusters[&cluster()].instances.values();
    let has = instances.filter(|it| it.stages[0].plan.key == content);
    has.map(|it| it.name.as_str()).collect()
}

/// Those of a pool that are being changed.
fn under_change<'a>(sim: &'a Sim, pool: &str) -> Vec<&'a str> {
    let instances = sim.world.clusters[&cluster()].instances.values();
    let of = instances.filter(|it| it.name.as_str().starts_with(pool));
    let open = of.filter(|it| {
        let turn = it.turn.as_ref().map(|turn| &turn.step);
        let open = matches!(turn, Some(TurnStep::Changing | TurnStep::Checking { .. }));
        open && !matches!(it.phase, Phase::Failed | Phase::Gone)
    });
    open.map(|it| it.name.as_str()).collect()
}

fn changed(sim: &Sim) -> usize {
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
    // The one that failed goes first when it goes on, and all end on what it was mended to.
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
fn who_is_away_is_left_as_it_was_and_counts_as_no_error() {
    let spec = paced(&[4]);
    let mut sim = begun(&spec, &["old"]);
    let session = sim.agents[&key("a1")].session.expect("it is there");
    sim.silent.insert("a1".to_owned());
    sim.agents.get_mut(&key("a1")).expect("known").session = None;
    sim.agent(
        key("a1"),
        session,
        AgentInput::Closed {
            why: "cut".to_owned(),
        },
    );
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
    let session = sim.agents[&key("a1")].session.expect("it is there");
    sim.agents.get_mut(&key("a1")).expect("known").session = None;
    sim.agent(
        key("a1"),
        session,
        AgentInput::Closed {
            why: "cut".to_owned(),
        },
    );
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
