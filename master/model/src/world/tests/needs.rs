//! Stages that wait for stages of other instances, and stages that are run again.

use super::*;
use crate::spec::Need;

/// One stage; `needs` as `a1/0`, or `pool:a/0` of all members.
pub(super) fn plan(spec: &ClusterSpec, name: &str, needs: &[&str]) -> StagePlan {
    let need = |text: &&str| {
        let (whose, stage) = text.split_once('/').expect("a stage");
        let members = |label: &str| {
            let pool = spec.pools.iter().find(|pool| pool.label() == label);
            let members = &pool.expect("a pool").members;
            members.iter().map(|member| member.name.clone()).collect()
        };
        Need {
            of: match whose.strip_prefix("pool:") {
                Some(label) => members(label),
                None => vec![whose.parse().expect("a name")],
            },
            stage: stage.parse().expect("a number"),
            text: (*text).to_owned(),
        }
    };
    StagePlan {
        needs: needs.iter().map(need).collect(),
        ..stage(name)
    }
}

pub(super) type Plans = BTreeMap<String, Vec<StagePlan>>;

/// The stages of each pool, each with its needs.
pub(super) fn plans(spec: &ClusterSpec, pools: &[&[&[&str]]]) -> Plans {
    let pools = spec.pools.iter().zip(pools);
    let plans = pools.map(|(pool, stages)| {
        let label = pool.label().to_owned();
        let stages = stages.iter().enumerate();
        let stages = stages.map(|(index, needs)| plan(spec, &format!("{label}{index}"), needs));
        (label.clone(), stages.collect())
    });
    plans.collect()
}

pub(super) fn launch(spec: &ClusterSpec, plans: &Plans) -> Input {
    let Input::Launch(mut launch) = ask(spec, &[]) else {
        unreachable!("it asks for a launch")
    };
    launch.stages = plans.clone();
    Input::Launch(launch)
}

pub(super) struct Again<'a> {
    pub of: &'a [&'a str],
    pub from: Option<usize>,
    pub force: bool,
    pub failed: bool,
}

pub(super) const ALL: Again<'static> = Again {
    of: &["a1", "b1", "b2", "c1"],
    from: None,
    force: false,
    failed: false,
};

pub(super) fn apply(sim: &mut Sim, plans: &Plans, again: &Again<'_>) -> Answer {
    sim.input(Input::Apply(ApplyAsk {
        cluster: cluster(),
        instances: again
            .of
            .iter()
            .map(|name| name.parse().expect("a name"))
            .collect(),
        file: None,
        stages: plans.clone(),
        from: again.from,
        force: again.force,
        failed: again.failed,
        pace: Default::default(),
        what: "apply".to_owned(),
        operator: "test".to_owned(),
        request: None,
    }))
}

pub(super) fn states(sim: &Sim, name: &str) -> Vec<StageState> {
    let instance = sim.world.instance(&key(name)).expect("is there");
    instance.stages.iter().map(|stage| stage.state).collect()
}

pub(super) fn phases(sim: &Sim) -> Vec<(&str, Phase)> {
    let instances = sim.world.clusters[&cluster()].instances.values();
    instances.map(|i| (i.name.as_str(), i.phase)).collect()
}

pub(super) fn view(sim: &Sim, name: &str) -> v1::InstanceView {
    sim.world.view(&key(name)).expect("is there")
}

pub(super) fn error(sim: &Sim) -> &str {
    let launch = sim.world.clusters[&cluster()].launch.as_ref();
    &launch.expect("there was one").error
}

pub(super) fn code(sim: &Sim) -> u32 {
    sim.ended.last().expect("one has ended").1
}

pub(super) fn started(sim: &Sim, name: &str, stage: &str) -> u32 {
    let count = sim.started.get(&(key(name), stage.to_owned()));
    count.copied().unwrap_or(0)
}

/// Everything that can happen, until nothing can any more; `look` is asked after every step.
pub(super) fn go(sim: &mut Sim, mut look: impl FnMut(&mut Sim)) {
    for _ in 0..200 {
        while !sim.pending.is_empty() {
            sim.perform(0);
            look(sim);
        }
        sim.agents_move();
        look(sim);
        sim.now += 2_500;
        sim.input(Input::Tick);
        look(sim);
    }
}

/// a1 <- b1, b2 <- c1 (which waits for all of b).
pub(super) fn chain() -> (Sim, ClusterSpec, Plans) {
    let spec = spec(&[1, 2, 1], &["t"]);
    let plans = plans(&spec, &[&[&[]], &[&["a1/0"]], &[&["pool:b/0"]]]);
    (Sim::new(), spec, plans)
}

#[test]
fn a_stage_starts_when_all_that_it_needs_has_succeeded() {
    let (mut sim, spec, plans) = chain();
    sim.input(launch(&spec, &plans));
    let done = [StageState::Succeeded];
    go(&mut sim, |sim| {
        if !sim.world.clusters[&cluster()]
            .instances
            .contains_key(&key("a1").instance)
        {
            return;
        }
        for b in ["b1", "b2"] {
            assert!(
                started(sim, b, "b0") == 0 || states(sim, "a1") == done,
                "{b} was early"
            );
            assert!(
                started(sim, "c1", "c0") == 0 || states(sim, b) == done,
                "c1 was early"
            );
        }
    });
    assert_eq!((code(&sim), error(&sim)), (0, ""));
    assert!(phases(&sim).iter().all(|(_, phase)| *phase == Phase::Ready));
}

#[test]
fn what_waits_is_shown_with_what_it_waits_for() {
    let (mut sim, spec, plans) = chain();
    sim.input(launch(&spec, &plans));
    let mut seen = BTreeSet::new();
    go(&mut sim, |sim| {
        if sim.world.instance(&key("c1")).is_some() {
            seen.insert(view(sim, "b1").note);
            seen.insert(view(sim, "c1").note);
        }
    });
    assert!(seen.contains("waits for a1/0"), "{seen:?}");
    assert!(
        seen.contains("waits for pool:b/0 (0 of 2 have succeeded)"),
        "{seen:?}"
    );
    assert_eq!(view(&sim, "c1").note, "");
    assert_eq!(view(&sim, "c1").stage_views[0].detail, "");
}

#[test]
fn a_need_that_failed_ends_the_launch_and_a_retry_of_it_lets_all_go_on() {
    let (mut sim, spec, plans) = chain();
    sim.exit.insert("a1".to_owned(), 7);
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    assert_eq!(code(&sim), 1);
    assert_eq!(
        error(&sim),
        "0 of 4 instances ready; b1 waits for a1/0, which failed, and 2 more waiting"
    );
    for (name, phase) in [
        ("a1", Phase::Failed),
        ("b1", Phase::Blocked),
        ("c1", Phase::Blocked),
    ] {
        assert_eq!(
            sim.world.clusters[&cluster()].instances[&key(name).instance].phase,
            phase
        );
    }
    let why = "waits for a1/0, which failed";
    assert_eq!(
        (
            view(&sim, "b2").note.as_str(),
            view(&sim, "b2").stage_views[0].detail.as_str()
        ),
        (why, why)
    );
    assert_eq!(
        view(&sim, "c1").note,
        "waits for pool:b/0, of which b1 waits for what failed"
    );
    // The record says the same, and so does another master.
    let job = sim.world.jobs.values().next_back().expect("the launch");
    let verdict = job.targets[&key("b1").instance].as_ref().expect("it ended");
    assert_eq!(
        (verdict.outcome, verdict.detail.as_str()),
        (Outcome::Failed, "blocked: waits for a1/0, which failed")
    );
    sim.crash();
    assert_eq!(view(&sim, "b2").note, why);

    sim.exit.clear();
    let answer = apply(&mut sim, &plans, &Again { of: &["a1"], ..ALL });
    assert!(matches!(answer, Answer::Started(_)), "{answer:?}");
    go(&mut sim, |_| ());
    assert_eq!((code(&sim), error(&sim)), (0, ""), "judged by a1 alone");
    assert!(
        phases(&sim).iter().all(|(_, phase)| *phase == Phase::Ready),
        "{:?}",
        phases(&sim)
    );
    assert_eq!(
        (started(&sim, "a1", "a0"), started(&sim, "b1", "b0")),
        (2, 1)
    );
}

#[test]
fn enough_ready_is_enough_also_when_others_wait_in_vain() {
    let (mut sim, mut spec, plans) = chain();
    spec.launch.min_ready = MinReady::Count(3);
    sim.exit.insert("b2".to_owned(), 7);
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    assert_eq!(code(&sim), 1, "a1 and b1 are two");
    spec.launch.min_ready = MinReady::Count(2);
    let mut sim = Sim::new();
    sim.exit.insert("b2".to_owned(), 7);
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    assert_eq!((code(&sim), error(&sim)), (0, ""));
    assert_eq!(
        view(&sim, "c1").note,
        "waits for pool:b/0, of which b2 failed"
    );
}

#[test]
fn a_need_that_succeeded_counts_also_when_a_later_stage_fails() {
    let spec = spec(&[1, 1], &["t"]);
    let plans = plans(&spec, &[&[&[], &[]], &[&[], &["a1/0"]]]);
    let mut sim = Sim::new();
    sim.input(launch(&spec, &plans));
    go(&mut sim, |sim| {
        let done = sim
            .world
            .instance(&key("a1"))
            .and_then(|a| a.stages.first());
        if done.is_some_and(|stage| stage.state == StageState::Succeeded) {
            sim.exit.insert("a1".to_owned(), 7);
        }
    });
    assert_eq!(
        states(&sim, "a1"),
        [StageState::Succeeded, StageState::Failed]
    );
    assert_eq!(phases(&sim), [("a1", Phase::Failed), ("b1", Phase::Ready)]);
}

#[test]
fn a_need_of_a_machine_that_was_replaced_is_waited_for_again() {
    let spec = spec(&[1, 1], &["t"]);
    let plans = plans(&spec, &[&[&[]], &[&[], &["a1/0"]]]);
    let mut sim = Sim::new();
    sim.exit.insert("b1".to_owned(), 7);
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    assert_eq!(phases(&sim), [("a1", Phase::Ready), ("b1", Phase::Failed)]);
    sim.input(Input::Terminate {
        cluster: cluster(),
        instances: vec![key("a1").instance],
        by: AskedBy::default(),
    });
    go(&mut sim, |_| ());
    assert_eq!(phases(&sim)[0], ("a1", Phase::Gone));
    sim.exit.clear();
    sim.agents.remove(&key("a1"));
    sim.input(launch(&spec, &plans));
    go(&mut sim, |sim| {
        let early = started(sim, "b1", "b1") > 0 && started(sim, "a1", "a0") < 2;
        assert!(
            !early,
            "the old machine's stage was taken for the new one's"
        );
    });
    assert_eq!(
        (
            code(&sim),
            started(&sim, "a1", "a0"),
            started(&sim, "b1", "b1")
        ),
        (0, 2, 1)
    );
}

#[test]
fn a_need_that_is_run_again_holds_only_what_has_not_run() {
    let (mut sim, spec, plans) = chain();
    sim.input(launch(&spec, &plans));
    sim.run_until_quiet();
    sim.exit.insert("a1".to_owned(), 7);
    apply(
        &mut sim,
        &plans,
        &Again {
            of: &["a1"],
            force: true,
            ..ALL
        },
    );
    sim.run_until_quiet();
    assert_eq!(code(&sim), 1);
    let rest: Vec<Phase> = phases(&sim)[1..].iter().map(|(_, phase)| *phase).collect();
    assert_eq!(rest, [Phase::Ready; 3]);
    apply(
        &mut sim,
        &plans,
        &Again {
            of: &["b1"],
            force: true,
            ..ALL
        },
    );
    sim.run_until_quiet();
    assert_eq!(
        error(&sim),
        "0 of 1 instance ready; b1 waits for a1/0, which failed"
    );
    assert_eq!(
        (started(&sim, "b1", "b0"), started(&sim, "b2", "b0")),
        (1, 1)
    );
}

/// What each of these pools, of two instances, needs of those before it: the whole pool, or the first of it.
fn webs() -> impl Strategy<Value = (Vec<Vec<(usize, bool)>>, Vec<bool>)> {
    let needs = prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..3);
    let pools = prop::collection::vec(needs, 1..6);
    (pools, prop::collection::vec(prop::bool::weighted(0.2), 12)).prop_map(|(pools, fails)| {
        let earlier = |(pool, needs): (usize, Vec<(prop::sample::Index, bool)>)| {
            let needs = needs.into_iter().filter(|_| pool > 0);
            needs
                .map(|(on, all)| (on.index(pool.max(1)), all))
                .collect()
        };
        (pools.into_iter().enumerate().map(earlier).collect(), fails)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_launch_ends_and_all_that_can_run_has_run((webs, fails) in webs(), crash in any::<bool>(), batch in 1usize..6) {
        let spec = spec(&vec![2; webs.len()], &["t"]);
        let label = |pool: usize| char::from(b'a' + u8::try_from(pool).expect("few pools"));
        let text = |(on, all): &(usize, bool)| match all {
            true => format!("pool:{}/0", label(*on)),
            false => format!("{}1/0", label(*on)),
        };
        let texts: Vec<Vec<String>> = webs.iter().map(|needs| needs.iter().map(text).collect()).collect();
        let plans: Plans = spec.pools.iter().zip(&texts).map(|(pool, needs)| {
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            (pool.label().to_owned(), vec![plan(&spec, pool.label(), &needs)])
        }).collect();
        let mut sim = Sim::new();
        sim.batch = batch;
        // Members 1 and 2 of each pool: whether its stage can run, and succeeds.
        let mut well: Vec<[bool; 2]> = Vec::new();
        for (pool, needs) in webs.iter().enumerate() {
            let met = needs.iter().all(|(on, all)| well[*on][0] && (!all || well[*on][1]));
            let of = [0, 1].map(|member| {
                if fails[pool * 2 + member] {
                    sim.exit.insert(format!("{}{}", label(pool), member + 1), 7);
                }
                met && !fails[pool * 2 + member]
            });
            well.push(of);
        }
        sim.input(launch(&spec, &plans));
        sim.run_until_quiet();
        for (pool, of) in well.iter().enumerate() {
            for (member, ready) in of.iter().enumerate() {
                let name = format!("{}{}", label(pool), member + 1);
                prop_assert_eq!(view(&sim, &name).phase() == v1::Phase::Ready, *ready, "{}: {:?}", name, view(&sim, &name));
            }
        }
        prop_assert_eq!(code(&sim) == 0, well.iter().flatten().all(|well| *well));
        if crash {
            sim.crash();
            go(&mut sim, |_| ());
        }
        sim.exit.clear();
        let names: Vec<String> = spec.instances().map(|(_, member)| member.name.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let answer = apply(&mut sim, &plans, &Again { of: &names, failed: true, ..ALL });
        prop_assert_eq!(matches!(answer, Answer::Ack), code(&sim) == 0);
        sim.run_until_quiet();
        prop_assert!(phases(&sim).iter().all(|(_, phase)| *phase == Phase::Ready), "{:?}", phases(&sim));
    }
}
