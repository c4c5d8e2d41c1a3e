//! What a change at a pace writes, says and costs: as much for each instance, however many there are, and no pass over all of
//! them for what one of them reports.

use prost::Message;

use super::growth::{agent, begin_to_measure, begun, hello, standing};
use super::*;
use crate::health::{HealthCheck, HealthSpec};
use crate::pace::{Amount, PacePolicy};
use crate::stage::Stage;

/// When all of it happens: nobody may be about to come back any more.
const NOW: u64 = 100_000;

/// How many at a time.
const PACE: usize = 50;

/// What a change of all wrote and said after it had begun, until the last instance was changed.
#[derive(Debug, Default)]
struct RollingCost {
    clusters: usize,
    instances: usize,
    runs: usize,
    events: usize,
    event_bytes: usize,
    /// Passes over all instances that were due.
    passes: usize,
    took: Duration,
}

impl RollingCost {
    fn count(&mut self, world: &mut World, effects: &[Effect]) {
        let changes = world.drain_changes();
        self.clusters += changes.clusters.len();
        self.instances += changes.instances.len();
        self.runs += changes.runs.len();
        self.passes += usize::from(!world.is_reconciled());
        for effect in effects {
            if let Effect::Event(event) = effect {
                self.events += 1;
                self.event_bytes += event.clone().into_wire(NOW).encoded_len();
            }
        }
    }
}

/// So many ready instances with one stage and their agents, and what is known of them.
fn ready(size: usize, health: Option<HealthSpec>) -> World {
    let mut found = standing(size);
    found.spec.pools[0].health = health;
    for instance in found.instances.values_mut() {
        let mut stage = Stage::waiting(stage("old"));
        stage.state = StageState::Succeeded;
        instance.stages = vec![stage];
        instance.was_ready = true;
    }
    let mut world = begun(found);
    for at in world.keys(&cluster()) {
        agent(&mut world, &at, 1, AgentInput::Attached(hello().into()));
    }
    world.step(Input::Tick, NOW);
    world.reconcile(NOW);
    world.drain_changes();
    world
}

fn begin(world: &mut World) -> (JobId, Vec<Effect>) {
    let found = &world.clusters[&cluster()];
    let label = found.spec.pools[0].label().to_owned();
    let asked = ApplyAsk {
        cluster: cluster(),
        instances: found.instances.keys().cloned().collect(),
        stages: BTreeMap::from([(label, vec![stage("new")])]),
        from: None,
        force: false,
        failed: false,
        pace: PacePolicy {
            concurrency: Some(Amount::Count(PACE)),
            max_errors: Some(Amount::Count(1)),
            ..PacePolicy::default()
        },
        what: "apply".to_owned(),
        operator: "root".to_owned(),
        file: None,
        request: None,
    };
    let (answer, effects) = world.step(Input::Apply(asked), NOW);
    let Answer::Started(job) = answer else {
        panic!("{answer:?}")
    };
    (job, effects)
}

fn runs_of(effects: &[Effect]) -> Vec<(InstanceName, RunId)> {
    let runs = effects.iter().filter_map(|effect| match effect {
        Effect::RunBegan { instance, run, .. } => Some((instance.clone(), *run)),
        _ => None,
    });
    runs.collect()
}

fn ended(world: &mut World, instance: InstanceName, run: RunId, exit_code: i32) -> Vec<Effect> {
    let ended = v1::Ended {
        kind: EndKind::Exited as i32,
        exit_code,
        ..v1::Ended::default()
    };
    let input = Input::Agent {
        at: key(instance.as_str()),
        session: 1,
        report: AgentInput::RunEnded {
            run,
            ended: ended.into(),
        },
    };
    let (_, mut effects) = world.step(input, NOW);
    effects.extend(world.reconcile_paced(NOW));
    effects
}

/// Changes all, each end of a run in a commit of its own, and no pass over all instances before the last.
fn rolled(size: usize, health: Option<HealthSpec>) -> RollingCost {
    let mut world = ready(size, health);
    let (job, effects) = begin(&mut world);
    world.drain_changes();
    let mut cost = RollingCost::default();
    let mut open: VecDeque<(InstanceName, RunId)> = runs_of(&effects).into();
    assert_eq!(open.len(), PACE);
    let measured = begin_to_measure();
    while let Some((instance, run)) = open.pop_front() {
        let effects = ended(&mut world, instance, run, 0);
        open.extend(runs_of(&effects));
        assert!(open.len() <= PACE);
        cost.count(&mut world, &effects);
    }
    cost.took = measured.elapsed();
    let effects = world.reconcile(NOW);
    let last = effects.iter().find_map(|effect| match effect {
        Effect::Event(event) => event.ends,
        _ => None,
    });
    assert_eq!(last, Some((job, 0)), "all are changed");
    cost
}

#[test]
fn a_change_at_a_pace_writes_and_says_little_of_each_instance() {
    const SIZE: usize = 200;
    let ping = HealthSpec::new(HealthCheck::Ping);
    // Of each: its begin and its end, with a check another one between them.
    for (health, instances, events) in [(None, 2, 4), (Some(ping), 3, 5)] {
        let is_checked = usize::from(health.is_some());
        let cost = rolled(SIZE, health);
        let begun = PACE; // of these the begin was counted before
        assert_eq!(cost.clusters, 0, "no record of all: {cost:?}");
        assert_eq!(cost.instances, instances * SIZE - begun, "{cost:?}");
        assert_eq!(cost.runs, 2 * (1 + is_checked) * SIZE - begun, "{cost:?}");
        assert_eq!(cost.events, events * SIZE - 2 * begun, "{cost:?}");
        let each = cost.event_bytes / cost.events;
        assert!(each < 400, "an event has {each} bytes");
        assert_eq!(cost.passes, 1, "the last end alone wants one: {cost:?}");
    }
}

/// As of [`growth`], of a job's targets: a pass over all at each end would make it ten times as much.
#[test]
fn what_a_change_of_one_costs_does_not_grow_with_their_number() {
    let mut ratios = Vec::new();
    let low = (0..20).any(|_| {
        let took = |size: usize| rolled(size, None).took.as_secs_f64() / size as f64;
        ratios.push(took(2_000) / took(200));
        ratios.last().is_some_and(|ratio| *ratio < 3.0)
    });
    assert!(low, "{ratios:?}");
}

#[test]
fn what_does_not_go_well_is_left_to_a_pass() {
    let mut world = ready(100, None);
    let (_, effects) = begin(&mut world);
    let mut open = runs_of(&effects).into_iter();
    let (instance, run) = open.next().expect("one runs");
    let effects = ended(&mut world, instance, run, 7);
    assert!(runs_of(&effects).is_empty() && !world.is_reconciled());
    // Nor does one that goes well give its place away before that.
    let (instance, run) = open.next().expect("another runs");
    assert!(runs_of(&ended(&mut world, instance, run, 0)).is_empty());
    assert_eq!(runs_of(&world.reconcile(NOW)).len(), 2);
    assert!(world.is_reconciled());
    let (instance, run) = open.next().expect("a third runs");
    assert_eq!(runs_of(&ended(&mut world, instance, run, 0)).len(), 1);
}

#[test]
fn one_that_has_left_is_not_the_next() {
    let mut world = ready(PACE + 2, None);
    let (_, effects) = begin(&mut world);
    let runs = runs_of(&effects);
    let gone = world.keys(&cluster()).into_iter().find(|at| {
        let turn = world.instance(at).and_then(|it| it.turn.as_ref());
        turn.is_some_and(|turn| turn.place == PACE)
    });
    let why = "the link was cut".to_owned();
    agent(
        &mut world,
        &gone.expect("it waits"),
        1,
        AgentInput::Closed { why },
    );
    let mut begun = Vec::new();
    for (instance, run) in runs.into_iter().take(2) {
        begun.extend(runs_of(&ended(&mut world, instance, run, 0)));
        begun.extend(runs_of(&world.reconcile(NOW)));
    }
    let at = |(instance, _): &(InstanceName, RunId)| {
        let turn = world.instance(&key(instance.as_str()))?.turn.as_ref()?;
        Some(turn.place)
    };
    assert_eq!(begun.iter().map(at).collect::<Vec<_>>(), [Some(PACE + 1)]);
}
