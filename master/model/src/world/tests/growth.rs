//! What clusters and jobs of thousands write and cost: no more per instance than those of hundreds.

use std::time::{Duration, Instant};

use aot_proto::limits::MAX_ANSWER_BYTES;
use prost::Message;

use super::*;
use crate::identity::Identity;
use crate::job::TargetRecord;
use crate::task::Task;

/// A ready instance that has joined.
fn joined(spec: &ClusterSpec, number: usize) -> Instance {
    let pool = &spec.pools[0];
    let member = &pool.members[number];
    let mut instance = Instance::planned(pool, member);
    let machine = format!("i-{number:017x}");
    instance.set_machine(samples::bare_machine(&machine, MachineState::Running));
    instance.phase = Phase::Ready;
    instance.identity = Some(Identity {
        key_sha256: String::new(),
        previous_key_sha256: String::new(),
        enrolled_ms: 1,
        serial: format!("{number:x}"),
        expires_unix: 1 << 40,
        previous_serial: String::new(),
        issued_ms: 1,
        used_twice: None,
        proof: Default::default(),
    });
    instance.boot_id = "boot".to_owned();
    instance.applied_generation = 1;
    instance.facts = Some(facts(&member.name).into());
    instance
}

fn facts(name: &InstanceName) -> NodeFacts {
    NodeFacts {
        node: serde_json::json!({"hostname": name.as_str()}).into(),
        ..samples::node_facts()
    }
}

/// A cluster of one pool whose launch is long over.
pub(super) fn standing(size: usize) -> Cluster {
    let spec = spec(&[size], &[]);
    let mut cluster = samples::empty_cluster(spec.clone());
    for number in 0..size {
        let instance = joined(&spec, number);
        cluster.instances.insert(instance.name.clone(), instance);
    }
    cluster.facts_sha256 = crate::facts::digest(&cluster);
    cluster
}

pub(super) fn begun(cluster: Cluster) -> World {
    let join_key = JoinKey::new(b"key");
    World::new(vec![cluster], Vec::new(), Vec::new(), join_key, [1; 32], 1)
}

/// Now, to measure what decisions cost.
pub(super) fn begin_to_measure() -> Instant {
    Instant::now()
}

#[test]
fn the_instances_of_all_clusters_are_counted() {
    let mut other = standing(2);
    other.spec.name = "other".parse().expect("a name");
    let join_key = JoinKey::new(b"key");
    let clusters = vec![standing(3), other];
    let world = World::new(clusters, Vec::new(), Vec::new(), join_key, [1; 32], 1);
    assert_eq!(world.instance_count(), 5);
}

#[test]
fn agents_that_spread_are_back_before_contact_is_lost() {
    let most = aot_proto::limits::MAX_RECONNECT_SPREAD;
    assert!(2 * most <= Duration::from_millis(LOST_AFTER_MS), "{most:?}");
}

/// An input, and all that follows from it.
fn input(world: &mut World, input: Input) -> Vec<Effect> {
    let (_, mut effects) = world.step(input, 1_000);
    effects.extend(world.reconcile_paced(1_000));
    effects
}

pub(super) fn agent(
    world: &mut World,
    at: &InstanceKey,
    session: u64,
    report: AgentInput,
) -> Vec<Effect> {
    let at = at.clone();
    input(
        world,
        Input::Agent {
            at,
            session,
            report,
        },
    )
}

pub(super) fn hello() -> v1::Hello {
    v1::Hello {
        boot_id: "boot".to_owned(),
        cluster_facts_generation: 1,
        ..v1::Hello::default()
    }
}

/// All come, and report what they have always reported; what is sent to them for that.
fn all_come(world: &mut World, session: u64) -> usize {
    let mut effects = Vec::new();
    for at in world.keys(&cluster()) {
        let report = AgentInput::Attached(hello().into());
        effects.extend(agent(world, &at, session, report));
        let report = AgentInput::Facts(facts(&at.instance).into());
        effects.extend(agent(world, &at, session, report));
    }
    effects.extend(input(world, Input::Tick));
    effects.extend(world.reconcile(1_000));
    let sent = |effect: &&Effect| matches!(effect, Effect::Send { .. } | Effect::HandOut { .. });
    effects.iter().filter(sent).count()
}

fn record_of(spec: &ClusterSpec) -> usize {
    let mut sim = Sim::new();
    sim.input(ask(spec, &["one", "two"]));
    let cluster = &sim.disk.clusters[&cluster()];
    let asked = cluster.batches.values().map(|batch| batch.members.len());
    assert_eq!(asked.sum::<usize>(), spec.instances().count());
    serde_json::to_string(cluster).expect("writes").len()
}

/// Pools of 1 to 1,000 instances, so many times as many of each.
fn many_pools(times: usize) -> ClusterSpec {
    let sizes = [1, 2, 5, 12, 30, 100, 350, 500, 1_000];
    let pools = (0..times).flat_map(|time| sizes.map(|size| (time, size)));
    let pools = pools.map(|(time, size)| {
        let mut pool = samples::pool(&format!("web-{time}x{size}-"), size);
        pool.machine.types = ["m5.large", "m5a.large", "m6i.large"]
            .map(String::from)
            .into();
        pool.machine.subnets = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
            .map(String::from)
            .into();
        pool
    });
    let mut spec = spec(&[], &[]);
    spec.pools = pools.collect();
    spec
}

#[test]
fn the_record_of_a_cluster_grows_with_its_instances() {
    let (five, ten) = (
        many_pools(5).instances().count(),
        many_pools(10).instances().count(),
    );
    assert_eq!((five, ten), (10_000, 20_000));
    let (one, two) = (record_of(&many_pools(5)), record_of(&many_pools(10)));
    assert!(one < 1_000_000, "{one} bytes");
    assert!((two as f64) < 2.3 * one as f64, "{one} and {two} bytes");
    // One pool of all of them takes many calls, each for a part of it.
    let (one, two) = (
        record_of(&spec(&[10_000], &[])),
        record_of(&spec(&[20_000], &[])),
    );
    assert!(one < 1_000_000, "{one} bytes");
    assert!((two as f64) < 2.3 * one as f64, "{one} and {two} bytes");
}

/// With facts of 4 KiB each, an answer about the largest cluster is no more than half of what is taken.
#[test]
fn an_answer_about_the_largest_cluster_is_taken() {
    const LARGEST: usize = 20_000;
    const SIZE: usize = 100;
    let mut found = standing(SIZE);
    for instance in found.instances.values_mut() {
        let facts = NodeFacts {
            node: serde_json::json!({"text": "t".repeat(4 << 10)}).into(),
            ..facts(&instance.name)
        };
        instance.facts = Some(facts.into());
    }
    let world = begun(found);
    let of_all = |len: &dyn Fn(&InstanceKey) -> usize| {
        world.keys(&cluster()).iter().map(len).sum::<usize>() / SIZE * LARGEST
    };
    let status = of_all(&|at| world.view(at).expect("is there").encoded_len());
    assert!(status < MAX_ANSWER_BYTES / 2, "{status} bytes");
    let found = &world.clusters[&cluster()];
    let facts = of_all(&|at| {
        let shown = crate::facts::shown(found, &found.instances[&at.instance]);
        shown.expect("it has facts").to_string().len()
    });
    assert!(facts < MAX_ANSWER_BYTES / 2, "{facts} bytes");
}

#[test]
fn a_reconnect_that_changes_nothing_writes_nothing() {
    const SIZE: usize = 1_000;
    let mut found = standing(SIZE);
    let mut disk = Disk::default();
    for (name, instance) in std::mem::take(&mut found.instances) {
        let at = key(name.as_str());
        disk.facts
            .extend(instance.facts.clone().map(|facts| (at.clone(), facts)));
        disk.instances.insert(at, instance);
    }
    disk.clusters.insert(cluster(), found);
    // To a master that has just been started, and again after all links were cut.
    let mut world = disk.load(1, 1);
    for session in [1, 2] {
        assert_eq!(all_come(&mut world, session), 0);
        let found = &world.clusters[&cluster()];
        assert!(found.instances.values().all(Instance::connected));
        assert_eq!(found.generation, 1);
        for at in world.keys(&cluster()) {
            let why = "the link was cut".to_owned();
            agent(&mut world, &at, session, AgentInput::Closed { why });
        }
        let changes = world.drain_changes();
        assert!(changes.is_empty(), "{changes:?}");
    }
    // One that says something else is written, and nobody else.
    let at = key("a7");
    let newer = v1::Hello {
        agent_version: "2".to_owned(),
        ..hello()
    };
    agent(&mut world, &at, 3, AgentInput::Attached(newer.into()));
    let changes = world.drain_changes();
    let written: Vec<_> = changes.instances.iter().map(|(at, _)| at).collect();
    assert_eq!(written, [&at]);
    assert!(changes.facts.is_empty());
}

#[test]
fn when_an_agent_was_last_seen_goes_on_record_once_it_stays_away() {
    let mut world = begun(standing(3));
    all_come(&mut world, 1);
    world.drain_changes();
    let keys = world.keys(&cluster());
    for at in &keys[..2] {
        let why = "it is gone".to_owned();
        agent(&mut world, at, 1, AgentInput::Closed { why });
    }
    agent(
        &mut world,
        &keys[0],
        2,
        AgentInput::Attached(hello().into()),
    );
    world.step(Input::Tick, 1_000 + LOST_AFTER_MS - 1);
    assert!(world.drain_changes().instances.is_empty());
    world.step(Input::Tick, 1_000 + LOST_AFTER_MS);
    let changes = world.drain_changes();
    let written: Vec<_> = changes
        .instances
        .iter()
        .map(|(at, it)| (at, it.last_seen_ms))
        .collect();
    assert_eq!(written, [(&keys[1], 1_000)]);
    world.step(Input::Tick, 2_000 + LOST_AFTER_MS);
    assert!(world.drain_changes().instances.is_empty(), "once");
}

/// What a job of these instances, 50 at a time, wrote: its record and its targets' rows, and its runs' rows; and what it took to
/// decide on it and to write it down.
struct Paced {
    own: usize,
    runs: usize,
    took: Duration,
}

fn paced(size: usize, kept_for: usize) -> Paced {
    let mut world = begun(standing(size));
    let keys = world.keys(&cluster());
    for at in &keys[kept_for..] {
        agent(&mut world, at, 1, AgentInput::Attached(hello().into()));
    }
    world.step(Input::Tick, 100_000); // nobody else may be about to come back
    world.drain_changes();
    let (mut own, mut runs) = (0, 0);
    let mut write = |world: &mut World| {
        let changes = world.drain_changes();
        let length = |text: serde_json::Result<String>| text.expect("writes").len();
        for job in &changes.jobs {
            own += length(serde_json::to_string(job));
        }
        for (job, name, target) in &changes.targets {
            own += job.to_string().len()
                + name.as_str().len()
                + length(serde_json::to_string::<TargetRecord>(target));
        }
        for run in &changes.runs {
            runs += length(serde_json::to_string(run));
        }
    };
    let begun = Instant::now();
    let asked = ExecAsk {
        cluster: cluster(),
        instances: keys.iter().map(|at| at.instance.clone()).collect(),
        kind: JobKind::Exec,
        task: Task::Command(Exec::default()),
        pace: Pace {
            concurrency: Some(50),
            ..Pace::default()
        },
        queue_ms: if kept_for > 0 { 1_000_000 } else { 0 },
        what: "exec '*' -- true".to_owned(),
        operator: "root".to_owned(),
        request: None,
    };
    let (answer, mut effects) = world.step(Input::Exec(asked), 100_000);
    let Answer::Exec { job, .. } = answer else {
        panic!("{answer:?}")
    };
    let mut ended = 0;
    while !effects.is_empty() {
        let mut next = Vec::new();
        for effect in effects {
            let Effect::RunBegan { instance, run, .. } = effect else {
                continue;
            };
            let at = InstanceKey {
                cluster: cluster(),
                instance,
            };
            let end = v1::Ended {
                kind: EndKind::Exited as i32,
                ..v1::Ended::default()
            };
            let report = AgentInput::RunEnded {
                run,
                ended: end.into(),
            };
            let input = Input::Agent {
                at,
                session: 1,
                report,
            };
            next.extend(world.step(input, 100_000).1);
            next.extend(world.reconcile_paced(100_000));
            write(&mut world); // each end in a commit of its own
            ended += 1;
        }
        effects = next;
    }
    let took = begun.elapsed();
    assert_eq!(ended, size - kept_for);
    assert_eq!(world.jobs[&job].open(), kept_for);
    Paced { own, runs, took }
}

#[test]
fn what_a_job_writes_grows_with_its_targets() {
    let (one, two) = (paced(5_000, 0), paced(10_000, 0));
    let each = two.own as f64 / 10_000.0;
    assert!(each < 300.0, "{each} bytes a target");
    for (one, two) in [(one.own, two.own), (one.runs, two.runs)] {
        let growth = two as f64 / one as f64;
        assert!((1.9..2.1).contains(&growth), "{one} and {two} bytes");
    }
}

/// Of ten times as many targets each costs about the same. Whatever else this machine does, one of the tries has a quiet
/// moment; a pass over all targets at each end would make it ten times as much in any.
#[test]
fn what_a_target_costs_does_not_grow_with_their_number() {
    // With half of them away as well: they come first, and are not to be asked about at each end of another.
    for away in [false, true] {
        let mut ratios = Vec::new();
        let low = (0..20).any(|_| {
            let took = |size: usize| {
                let kept_for = if away { size / 2 } else { 0 };
                paced(size, kept_for).took.as_secs_f64() / (size - kept_for) as f64
            };
            ratios.push(took(10_000) / took(1_000));
            ratios.last().is_some_and(|ratio| *ratio < 3.0)
        });
        assert!(low, "{ratios:?}");
    }
}
