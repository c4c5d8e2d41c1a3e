//! The world against a provider and agents that behave, in any order and with any crash of the master between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use aot_proto::ids::{ClusterName, InstanceName, JobId, RunId};
use aot_proto::v1::{self, EndKind, master_message::Body};
use proptest::prelude::*;

mod batches;
mod jobs;
mod needs;
mod revoke;
mod shells;
mod whole;

use super::*;
use crate::model::cluster::{BootRecord, NodeFacts, StagePlan, StageState};
use crate::model::file::{
    ClusterSpec, LaunchPolicy, MachineSpec, MemberSpec, MinReady, OnFailure, PoolSpec, ProviderKind,
};
use crate::model::ground::Ground;
use crate::model::hash::sha256_hex;
use crate::model::job::{Exec, JobKind, Outcome, Task, Verdict};
use crate::model::machine::{
    AttachedVolume, ClientToken, ElasticIp, ErrorKind, Leftovers, Machine, MachineState,
};
use crate::model::pace::Pace;
use crate::model::phase::Phase;

fn cluster() -> ClusterName {
    "c".parse().expect("a name")
}

fn key(name: &str) -> Key {
    Key {
        cluster: cluster(),
        instance: name.parse().expect("a name"),
    }
}

fn spec(sizes: &[usize], types: &[&str]) -> ClusterSpec {
    let member = |name: String| MemberSpec {
        hostname: name.clone(),
        name: name.parse().expect("a name"),
    };
    let pool = |(n, size): (usize, &usize)| {
        let label = char::from(b'a' + u8::try_from(n).expect("few pools")).to_string();
        PoolSpec {
            name: Some(label.parse().expect("a name")),
            members: (1..=*size).map(|i| member(format!("{label}{i}"))).collect(),
            owner: None,
            user: None,
            machine: MachineSpec {
                types: types.iter().map(ToString::to_string).collect(),
                ..MachineSpec::default()
            },
            stages: Vec::new(),
        }
    };
    ClusterSpec {
        name: cluster(),
        provider: ProviderKind::Local,
        region: None,
        launch: LaunchPolicy {
            min_ready: MinReady::All,
            on_failure: OnFailure::Keep,
            timeout: Duration::from_secs(600),
            replace: 0,
        },
        security_groups: Vec::new(),
        discovery_url: None,
        groups: BTreeMap::new(),
        pools: sizes.iter().enumerate().map(pool).collect(),
        base_dir: "/".into(),
    }
}

fn stage(content: &str) -> StagePlan {
    StagePlan {
        name: content.to_owned(),
        bundle_sha256: sha256_hex(content.as_bytes()),
        bundle_bytes: 1,
        args: Vec::new(),
        env: BTreeMap::new(),
        timeout: None,
        silence_timeout: None,
        needs: Vec::new(),
        key: content.to_owned(),
    }
}

fn ask(spec: &ClusterSpec, stages: &[&str]) -> Input {
    let plans: Vec<StagePlan> = stages.iter().map(|content| stage(content)).collect();
    Input::Launch(Box::new(LaunchAsk {
        spec: spec.clone(),
        file: "/cluster.yml".into(),
        stages: spec
            .pools
            .iter()
            .map(|pool| (pool.label().to_owned(), plans.clone()))
            .collect(),
        prune: false,
        timeout: None,
        boot: BootRecord::default(),
        fresh_uuid: "uuid".to_owned(),
        operator: "test".to_owned(),
    }))
}

/// What is on disk: the changes, applied as the store does.
#[derive(Default, Clone)]
struct Disk {
    clusters: BTreeMap<ClusterName, Cluster>,
    instances: BTreeMap<Key, Instance>,
    facts: BTreeMap<Key, std::sync::Arc<NodeFacts>>,
    jobs: BTreeMap<JobId, Job>,
    tasks: BTreeMap<JobId, String>,
    runs: BTreeMap<RunId, Run>,
}

impl Disk {
    fn write(&mut self, changes: Changes) {
        self.clusters.extend(
            changes
                .clusters
                .into_iter()
                .map(|c| (c.spec.name.clone(), c)),
        );
        self.instances.extend(changes.instances);
        self.facts.extend(changes.facts);
        self.jobs
            .extend(changes.jobs.into_iter().map(|job| (job.id, job)));
        self.tasks
            .extend(changes.tasks.into_iter().map(|(id, task)| {
                let text = serde_json::to_string(task.as_ref()).expect("writes");
                (id, text)
            }));
        self.runs
            .extend(changes.runs.into_iter().map(|run| (run.id, run)));
        for cluster in changes.removed {
            self.clusters.remove(&cluster.spec.name);
            self.instances
                .retain(|key, _| key.cluster != cluster.spec.name);
        }
    }

    /// As the store keeps it: the task beside the record.
    fn job(&self, job: &Job) -> Job {
        let text = serde_json::to_string(job).expect("writes");
        let task = self.tasks.get(&job.id);
        Job {
            task: task.map(|text| std::sync::Arc::new(serde_json::from_str(text).expect("reads"))),
            ..serde_json::from_str(&text).expect("reads")
        }
    }

    /// Through JSON, as the store does it: what is not kept is lost.
    fn load(&self, seed: u64, now: UnixMs) -> World {
        let copy = |cluster: &Cluster| -> Cluster {
            let text = serde_json::to_string(cluster).expect("writes");
            let mut cluster: Cluster = serde_json::from_str(&text).expect("reads");
            for (key, instance) in self
                .instances
                .iter()
                .filter(|(key, _)| key.cluster == cluster.spec.name)
            {
                let text = serde_json::to_string(instance).expect("writes");
                let mut instance: Instance = serde_json::from_str(&text).expect("reads");
                if instance.identity.is_some() {
                    instance.facts = self.facts.get(key).cloned();
                }
                cluster.instances.insert(key.instance.clone(), instance);
            }
            cluster
        };
        let runs: Vec<Run> = self
            .runs
            .values()
            .filter(|run| run.verdict.is_none())
            .cloned()
            .collect();
        World::new(
            self.clusters.values().map(copy).collect(),
            self.jobs.values().map(|job| self.job(job)).collect(),
            runs,
            JoinKey::new(b"key"),
            seed,
            now,
        )
    }
}

/// An agent: its machine, its session, and the runs in its journal.
#[derive(Default)]
struct Agent {
    session: Option<u64>,
    enrolled: bool,
    generation: u64,
    joiner: aot_proto::facts::Joiner,
    journal: BTreeMap<RunId, bool>,
}

/// The master, its disk, a provider and agents.
struct Sim {
    world: World,
    disk: Disk,
    now: UnixMs,
    pending: VecDeque<Effect>,
    machines: BTreeMap<String, Vec<Machine>>,
    agents: BTreeMap<Key, Agent>,
    started: BTreeMap<(Key, String), u32>,
    sessions: u64,
    starts: u64,
    ended: Vec<(JobId, u32)>,
    refuse: BTreeMap<String, ErrorKind>,
    calls: usize,
    mounted: Vec<(Key, Vec<v1::Volume>)>,
    no_volume: String,
    /// What preparing has made.
    news: Vec<String>,
    /// The next launch call works, and its answer is lost.
    lose: bool,
    prepares: usize,
    no_ground: Option<ErrorKind>,
    no_address: Option<ErrorKind>,
    /// Members whose agents never call home.
    silent: BTreeSet<String>,
    exit: BTreeMap<String, i32>,
    /// So many inputs share what follows from them, as those of one batch do.
    batch: usize,
    taken: usize,
}

impl Sim {
    fn new() -> Self {
        Self {
            world: Disk::default().load(1, 1),
            starts: 1,
            disk: Disk::default(),
            now: 1_000,
            pending: VecDeque::new(),
            machines: BTreeMap::new(),
            agents: BTreeMap::new(),
            started: BTreeMap::new(),
            sessions: 0,
            ended: Vec::new(),
            refuse: BTreeMap::new(),
            calls: 0,
            mounted: Vec::new(),
            no_volume: String::new(),
            news: Vec::new(),
            lose: false,
            prepares: 0,
            no_ground: None,
            no_address: None,
            silent: BTreeSet::new(),
            exit: BTreeMap::new(),
            batch: 1,
            taken: 0,
        }
    }

    fn input(&mut self, input: Input) -> Answer {
        self.taken += 1;
        let whole = matches!(input, Input::Tick) || self.taken.is_multiple_of(self.batch);
        let (answer, mut effects) = self.world.take(input, self.now);
        effects.extend(match whole {
            true => self.world.settle(self.now),
            false => self.world.settle_jobs(self.now),
        });
        self.check_counts();
        self.disk.write(self.world.take_changes());
        self.pending.extend(effects);
        answer
    }

    /// What is counted on, or looked up, is what counting and looking anew would give.
    fn check_counts(&self) {
        for (id, tally) in &self.world.tallies {
            assert_eq!(*tally, Tally::of(&self.world.jobs[id]));
        }
        let mut at: BTreeMap<Key, BTreeSet<RunId>> = BTreeMap::new();
        for run in self.world.runs.values() {
            at.entry(run.at.clone()).or_default().insert(run.id);
        }
        assert_eq!(self.world.runs_at, at);
        for cluster in self.world.clusters.values() {
            for (machine, at) in machines_of(cluster) {
                let found = self.world.by_machine(&cluster.spec.name, &machine);
                assert_eq!(found.map(|instance| &instance.name), Some(&at.instance));
            }
        }
    }

    /// kill -9 of the master, and a start.
    fn crash(&mut self) {
        self.pending.clear();
        self.starts += 1; // ids of two starts must differ, as they do by chance outside
        self.world = self.disk.load(self.starts * 1_000_003, self.now);
        for agent in self.agents.values_mut() {
            agent.session = None;
        }
    }

    /// Does the pending effect at `index`.
    fn perform(&mut self, index: usize) {
        let Some(effect) = self.pending.remove(index) else {
            return;
        };
        match effect {
            Effect::CallLaunch { cluster, token } => self.call_launch(cluster, token),
            Effect::CallDescribe { cluster } => {
                let machines = self.machines.values().flatten().cloned().collect();
                self.input(Input::Described {
                    cluster,
                    result: Ok(machines),
                });
            }
            Effect::CallTerminate { cluster, machines } => {
                for machine in self
                    .machines
                    .values_mut()
                    .flatten()
                    .filter(|m| machines.contains(&m.id))
                {
                    machine.state = MachineState::Terminated;
                }
                self.input(Input::Terminated {
                    cluster,
                    unknown: Vec::new(),
                    error: None,
                });
            }
            Effect::CallPrepare { cluster } => {
                self.prepares += 1;
                let result = match self.no_ground {
                    Some(kind) => Err(failure(kind)),
                    None => Ok(Ground {
                        news: self.news.clone(),
                        ..Ground::default()
                    }),
                };
                self.input(Input::Prepared { cluster, result });
            }
            Effect::CallAddresses { cluster, machines } => {
                let results = machines.into_iter().map(|(id, name)| {
                    let address = ElasticIp {
                        allocation: format!("eipalloc-{name}"),
                        address: format!("192.0.2.{}", name.as_str().len()),
                    };
                    (
                        id,
                        self.no_address
                            .map_or(Ok(address), |kind| Err(failure(kind))),
                    )
                });
                let results = results.collect();
                self.input(Input::Addressed { cluster, results });
            }
            Effect::CallExplain { cluster, machines } => {
                let text = "state checks: instance impaired".to_owned();
                let texts = machines.into_iter().map(|id| (id, text.clone())).collect();
                self.input(Input::Explained { cluster, texts });
            }
            Effect::CallStart { cluster, machines } => {
                for machine in self
                    .machines
                    .values_mut()
                    .flatten()
                    .filter(|m| machines.contains(&m.id))
                {
                    machine.state = MachineState::Running;
                }
                self.input(Input::LifecycleDone {
                    cluster,
                    error: None,
                });
            }
            Effect::CallName { .. } => {}
            Effect::CallCleanup { cluster } => {
                self.input(Input::Cleaned {
                    cluster,
                    result: Ok(Vec::new()),
                });
            }
            Effect::Event(event) => self.ended.extend(event.ends),
            Effect::TargetEnded { .. } | Effect::RunBegan { .. } | Effect::JobNote { .. } => {}
            Effect::Send { at, session, body } => self.receive(&at, session, *body),
            Effect::Close { at, session } => {
                let agent = self.agents.entry(at.clone()).or_default();
                agent.session.take_if(|open| *open == session);
                let why = "revoked".to_owned();
                self.input(Input::Closed { at, session, why });
            }
        }
    }

    fn call_launch(&mut self, cluster: ClusterName, token: String) {
        self.calls += 1;
        let batch = self.world.clusters[&cluster].batches[&token].clone();
        let kind = batch
            .spec
            .machine
            .types
            .get(batch.choice.kind)
            .cloned()
            .unwrap_or_default();
        let lost = std::mem::take(&mut self.lose);
        let result = match self.refuse.get(&kind) {
            Some(kind) => Err(failure(*kind)),
            None => Ok(self
                .machines
                .entry(token.clone())
                .or_insert_with(|| {
                    (0..batch.members.len())
                        .map(|i| machine(&token, i))
                        .collect()
                })
                .clone()),
        };
        let result = match lost {
            true => Err(Failure {
                leftovers: Leftovers::Unknown,
                ..failure(ErrorKind::Unavailable)
            }),
            false => result,
        };
        self.input(Input::Launched {
            cluster,
            token,
            result,
        });
    }

    fn receive(&mut self, at: &Key, session: u64, body: Body) {
        let agent = self.agents.entry(at.clone()).or_default();
        if agent.session != Some(session) {
            return;
        }
        match body {
            Body::ClusterFacts(piece) => {
                let Ok(Some(facts)) = agent.joiner.take(&piece) else {
                    return;
                };
                agent.generation = facts.generation;
                let (at, generation) = (at.clone(), facts.generation);
                self.input(Input::Applied {
                    at,
                    session,
                    generation,
                    error: String::new(),
                });
            }
            Body::Volumes(volumes) => {
                self.mounted.push((at.clone(), volumes.volumes));
                let error = self.no_volume.clone();
                let (at, id) = (at.clone(), volumes.id);
                self.input(Input::VolumesMounted {
                    at,
                    session,
                    id,
                    error,
                });
            }
            Body::StartRun(start) => {
                let run: RunId = start.run_id.parse().expect("our own id");
                if agent.journal.contains_key(&run) {
                    return;
                }
                agent.journal.insert(run, false);
                if let Some(v1::start_run::What::Stage(stage)) = start.what {
                    *self.started.entry((at.clone(), stage.name)).or_default() += 1;
                }
                self.input(Input::RunAnswer {
                    run,
                    accepted: true,
                    reason: String::new(),
                });
            }
            Body::ForgetRun(forget) => {
                agent
                    .journal
                    .insert(forget.run_id.parse().expect("our own id"), true);
            }
            _ => {}
        }
    }

    /// Every agent without a session comes (back), and every run ends.
    fn agents_move(&mut self) {
        self.agents_come();
        self.runs_end();
    }

    fn agents_come(&mut self) {
        let machines: Vec<(Key, Machine)> = self
            .world
            .clusters
            .values()
            .flat_map(|cluster| cluster.instances.values())
            .filter_map(|i| Some((key(i.name.as_str()), i.machine.clone()?)))
            .filter(|(_, machine)| machine.state == MachineState::Running)
            .collect();
        for (at, machine) in machines {
            if !self.silent.contains(at.instance.as_str()) {
                self.agent_comes(&at, &machine);
            }
        }
    }

    fn runs_end(&mut self) {
        let open: Vec<RunId> = self.world.runs.keys().copied().collect();
        for run in open {
            let at = self.world.runs[&run].at.clone();
            let agent = &self.agents.entry(at.clone()).or_default();
            if agent.session.is_some() && agent.journal.get(&run) == Some(&false) {
                let code = self.exit.get(at.instance.as_str()).copied().unwrap_or(0);
                let ended = v1::Ended {
                    kind: EndKind::Exited as i32,
                    exit_code: code,
                    ..v1::Ended::default()
                };
                self.input(Input::RunEnded {
                    run,
                    ended: Box::new(ended),
                });
            }
        }
    }

    fn agent_comes(&mut self, at: &Key, machine: &Machine) {
        if self.agents.entry(at.clone()).or_default().session.is_some() {
            return;
        }
        if !self.agents[at].enrolled {
            let token = machine.client_token.as_ref().expect("the sim sets it");
            let secret = JoinKey::new(b"key").token(&token.0);
            let answer = self.input(Input::Enrol(EnrolAsk {
                token_sha256: sha256_hex(secret.as_bytes()),
                machine: machine.id.clone(),
                key_sha256: format!("key of {}", machine.id),
                document: String::new(),
                signature: String::new(),
            }));
            if !matches!(answer, Answer::Granted(_)) {
                return;
            }
            self.agents.get_mut(at).expect("made above").enrolled = true;
        }
        self.sessions += 1;
        let session = self.sessions;
        let agent = self.agents.get_mut(at).expect("made above");
        agent.session = Some(session);
        let runs = agent.journal.iter().filter(|(_, forgotten)| !**forgotten);
        let hello = v1::Hello {
            boot_id: "boot".to_owned(),
            cluster_facts_generation: agent.generation,
            runs: runs
                .map(|(id, _)| v1::RunState {
                    run_id: id.to_string(),
                    ..v1::RunState::default()
                })
                .collect(),
            ..v1::Hello::default()
        };
        self.input(Input::Attached {
            at: at.clone(),
            session,
            hello: Box::new(hello),
        });
        let facts = NodeFacts {
            node: serde_json::json!({"hostname": at.instance.as_str()}),
            ssh_host_keys: Vec::new(),
            root_public_key: format!("key of {}", at.instance),
            user_public_key: String::new(),
            main_user: String::new(),
        };
        self.input(Input::Facts {
            at: at.clone(),
            session,
            facts: Box::new(facts),
        });
    }

    /// Until nothing happens any more, or the launch is over.
    fn settle(&mut self) {
        for _ in 0..500 {
            while !self.pending.is_empty() {
                self.perform(0);
            }
            if self.world.clusters.values().all(|c| !c.launching()) && self.world.runs.is_empty() {
                return;
            }
            self.agents_move();
            self.now += 2_500;
            self.input(Input::Tick);
        }
        let stuck: Vec<String> = self
            .world
            .clusters
            .values()
            .flat_map(|c| c.instances.values())
            .map(|i| {
                let stages: Vec<&str> = i.stages.iter().map(|stage| stage.state.as_str()).collect();
                format!(
                    "{} {} {:?} {stages:?} applied {}",
                    i.name, i.phase, i.session, i.applied_generation
                )
            })
            .collect();
        panic!("the launch never ended: {stuck:#?} {:#?}", self.world.runs);
    }

    fn phases(&self) -> BTreeSet<Phase> {
        self.world.clusters[&cluster()]
            .wanted()
            .map(|i| i.phase)
            .collect()
    }

    fn alive(&self) -> usize {
        self.machines
            .values()
            .flatten()
            .filter(|m| !m.state.is_ending())
            .count()
    }
}

fn failure(kind: ErrorKind) -> Failure {
    Failure {
        kind,
        leftovers: Leftovers::None,
        message: "no".to_owned(),
    }
}

fn machine(token: &str, index: usize) -> Machine {
    Machine {
        id: format!("i-{}-{index}", &sha256_hex(token.as_bytes())[..8])
            .parse()
            .expect("an id"),
        client_token: Some(ClientToken(token.to_owned())),
        launch_index: u32::try_from(index).expect("few"),
        name: None,
        state: MachineState::Running,
        state_reason: String::new(),
        private_ip: Some(format!("10.0.0.{index}")),
        public_ip: None,
        private_dns: None,
        public_dns: None,
        instance_type: None,
        availability_zone: None,
        region: None,
        subnet: None,
        image: None,
        launched_at: None,
        tags: BTreeMap::new(),
        volumes: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The master is killed wherever the numbers say, effects are done in any order, and `launch` comes again now and
    /// then: one set of machines, each stage once everywhere, all ready.
    #[test]
    fn any_order_and_any_crash_gives_one_set_of_machines_and_each_stage_once(
        moves in prop::collection::vec((0usize..7, any::<prop::sample::Index>()), 0..120),
        batch in 1usize..6,
    ) {
        let mut wanted = spec(&[1, 3], &[]);
        wanted.pools[1].machine.allocate_ip_address = true;
        let mut sim = Sim::new();
        sim.batch = batch;
        sim.input(ask(&wanted, &["one", "two"]));
        for (what, index) in moves {
            match what {
                0 => sim.crash(),
                1 => { sim.input(ask(&wanted, &["one", "two"])); }
                2 => sim.agents_move(),
                3 => { sim.now += 700; sim.input(Input::Tick); }
                4 => sim.lose = true,
                _ if !sim.pending.is_empty() => sim.perform(index.index(sim.pending.len())),
                _ => {}
            }
        }
        sim.crash();
        sim.input(ask(&wanted, &["one", "two"]));
        sim.settle();
        prop_assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
        prop_assert_eq!(sim.alive(), 4, "machines: {:?}", sim.machines.keys());
        let found = &sim.world.clusters[&cluster()];
        prop_assert_eq!(found.instances.values().filter(|i| i.elastic_ip.is_some()).count(), 3);
        prop_assert!(found.strays.is_empty());
        prop_assert_eq!(sim.started.len(), 8);
        prop_assert!(sim.started.values().all(|count| *count == 1), "{:?}", sim.started);
    }
}

#[test]
fn a_second_launch_changes_nothing_and_says_so() {
    let wanted = spec(&[2], &[]);
    let mut sim = Sim::new();
    sim.input(ask(&wanted, &["one"]));
    sim.settle();
    let calls = sim.calls;
    assert!(matches!(
        sim.input(ask(&wanted, &["one"])),
        Answer::Nothing(_)
    ));
    sim.settle();
    assert_eq!((sim.calls, sim.started.values().sum::<u32>()), (calls, 2));
    assert!(sim.ended.iter().all(|(_, code)| *code == 0));
    assert_eq!(sim.ended.len(), 2);
}

#[test]
fn a_changed_stage_and_all_after_it_run_again_and_nothing_before() {
    let wanted = spec(&[1], &[]);
    let mut sim = Sim::new();
    sim.input(ask(&wanted, &["one", "two", "three"]));
    sim.settle();
    sim.input(ask(&wanted, &["one", "two-b", "three"]));
    sim.settle();
    let count = |name: &str| sim.started.get(&(key("a1"), name.to_owned())).copied();
    assert_eq!(
        ["one", "two", "two-b", "three"].map(count),
        [Some(1), Some(1), Some(1), Some(2)]
    );
}

#[test]
fn growing_by_one_adds_one_machine_and_a_generation_everywhere() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[3], &[]), &["one"]));
    sim.settle();
    sim.input(ask(&spec(&[4], &[]), &["one"]));
    sim.settle();
    let found = &sim.world.clusters[&cluster()];
    assert_eq!((sim.alive(), found.generation), (4, 2));
    assert!(found.instances.values().all(|i| i.applied_generation == 2));
}

#[test]
fn no_stage_starts_before_every_instance_has_the_facts() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &["one"]));
    while sim.machines.is_empty() {
        sim.perform(0);
    }
    let machines: Vec<Machine> = sim.machines.values().flatten().cloned().collect();
    let first = key(sim.world.clusters[&cluster()]
        .by_machine(&machines[0].id)
        .expect("taken")
        .name
        .as_str());
    sim.agent_comes(&first, &machines[0]);
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    assert!(sim.started.is_empty() && sim.world.runs.is_empty());
    assert_eq!(sim.world.clusters[&cluster()].generation, 0);
}

#[test]
fn a_failed_stage_stops_that_instance_and_keeps_its_machine() {
    let mut sim = Sim::new();
    sim.exit.insert("a1".to_owned(), 3);
    sim.input(ask(&spec(&[2], &[]), &["one", "two"]));
    sim.settle();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready, Phase::Failed]));
    assert_eq!((sim.alive(), sim.ended.last().expect("ended").1), (2, 1));
    assert_eq!(sim.started.get(&(key("a1"), "two".to_owned())), None);
    sim.exit.clear();
    sim.input(ask(&spec(&[2], &[]), &["one", "two"]));
    sim.settle();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    assert_eq!(
        sim.started[&(key("a2"), "one".to_owned())],
        1,
        "what was well ran again"
    );
}

#[test]
fn no_capacity_moves_on_to_the_next_type_and_then_gives_up() {
    let mut sim = Sim::new();
    sim.refuse.insert("big".to_owned(), ErrorKind::NoCapacity);
    sim.input(ask(&spec(&[2], &["big", "small"]), &[]));
    sim.settle();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Ready]));
    let mut sim = Sim::new();
    sim.refuse.insert("big".to_owned(), ErrorKind::NoCapacity);
    sim.input(ask(&spec(&[2], &["big"]), &[]));
    sim.settle();
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    assert_eq!(sim.ended.last().expect("ended").1, 1);
}

#[test]
fn machines_of_an_answer_that_never_came_are_adopted_by_their_token() {
    let mut sim = Sim::new();
    sim.refuse.insert(String::new(), ErrorKind::Unavailable);
    sim.input(ask(&spec(&[2], &[]), &["one"]));
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    let token = sim.world.clusters[&cluster()]
        .batches
        .keys()
        .next()
        .expect("one batch")
        .clone();
    sim.machines
        .insert(token.clone(), (0..2).map(|i| machine(&token, i)).collect());
    sim.settle();
    assert_eq!(
        (sim.phases(), sim.alive()),
        (BTreeSet::from([Phase::Ready]), 2)
    );
}

#[test]
fn an_agent_that_never_enrols_fails_at_the_deadline_and_may_still_come() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &["one"]));
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    sim.now += 601_000;
    sim.input(Input::Tick);
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    assert_eq!(sim.phases(), BTreeSet::from([Phase::Failed]));
    let instance = sim.world.instance(&key("a1")).expect("is there");
    assert!(
        instance.note.contains("never called home"),
        "{}",
        instance.note
    );
    sim.input(ask(&spec(&[1], &[]), &["one"]));
    sim.settle();
    assert_eq!(
        (sim.phases(), sim.alive()),
        (BTreeSet::from([Phase::Ready]), 1)
    );
}

#[test]
fn each_way_to_enrol_wrongly_has_its_own_reason() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    let token = sim.world.clusters[&cluster()]
        .batches
        .keys()
        .next()
        .expect("one batch")
        .clone();
    let good = |key: &str, id: &str| EnrolAsk {
        token_sha256: sha256_hex(JoinKey::new(b"key").token(&token).as_bytes()),
        machine: id.parse().expect("an id"),
        key_sha256: key.to_owned(),
        document: String::new(),
        signature: String::new(),
    };
    let id = machine(&token, 0).id.to_string();
    let refused = |sim: &mut Sim, ask: EnrolAsk| match sim.input(Input::Enrol(ask)) {
        Answer::Refused(why) => Some(why),
        _ => None,
    };
    assert_eq!(refused(&mut sim, good("k", &id)), Some(Refused::TooEarly));
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    let unknown = EnrolAsk {
        token_sha256: "x".to_owned(),
        ..good("k", &id)
    };
    assert_eq!(refused(&mut sim, unknown), Some(Refused::UnknownToken));
    assert!(matches!(
        refused(&mut sim, good("k", "i-other")),
        Some(Refused::OtherMachine(_))
    ));
    assert_eq!(refused(&mut sim, good("k", &id)), None);
    assert_eq!(
        refused(&mut sim, good("k", &id)),
        None,
        "the reply may have been lost"
    );
    assert!(matches!(
        refused(&mut sim, good("other", &id)),
        Some(Refused::Used(_))
    ));
    sim.input(Input::Issued {
        at: key("a1"),
        key_sha256: "renewed".to_owned(),
        serial: "1".to_owned(),
        expires_unix: 1,
    });
    assert_eq!(refused(&mut sim, good("renewed", &id)), None);
    assert_eq!(
        refused(&mut sim, good("k", &id)),
        None,
        "the renewal may never have arrived"
    );
    sim.input(Input::Terminate {
        cluster: cluster(),
        instances: vec!["a1".parse().expect("a name")],
    });
    assert!(matches!(
        refused(&mut sim, good("k", &id)),
        Some(Refused::Ending(_))
    ));
}

fn exec(sim: &mut Sim, names: &[&str]) -> JobId {
    let instances: Vec<InstanceName> = names
        .iter()
        .map(|name| name.parse().expect("a name"))
        .collect();
    let exec = Exec {
        argv: vec!["true".to_owned()],
        ..Exec::default()
    };
    let answer = sim.input(Input::Exec(ExecAsk {
        cluster: cluster(),
        instances,
        kind: JobKind::Exec,
        task: Task::Command(exec),
        pace: Pace::default(),
        queue_ms: 0,
        what: String::new(),
        operator: String::new(),
    }));
    match answer {
        Answer::Exec { job, .. } => job,
        other => panic!("{other:?}"),
    }
}

fn outcome(sim: &Sim, job: JobId, name: &str) -> Option<Outcome> {
    let verdict: Option<&Verdict> = sim.world.jobs[&job].targets[&key(name).instance].as_ref();
    verdict.map(|verdict| verdict.outcome)
}

#[test]
fn every_target_of_a_command_ends_in_one_outcome_and_lost_ones_are_never_started_late() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[3], &[]), &[]));
    sim.settle();
    let close = |sim: &mut Sim, name: &str| {
        let session = sim
            .agents
            .get_mut(&key(name))
            .and_then(|agent| agent.session.take())
            .expect("is there");
        sim.input(Input::Closed {
            at: key(name),
            session,
            why: "test".to_owned(),
        });
    };
    close(&mut sim, "a3");
    let job = exec(&mut sim, &["a1", "a2", "a3"]);
    assert_eq!(
        outcome(&sim, job, "a3"),
        Some(Outcome::Absent),
        "told at once"
    );
    // a2's message is lost with its session, before the agent had it.
    sim.pending
        .retain(|effect| !matches!(effect, Effect::Send { at, .. } if at == &key("a2")));
    close(&mut sim, "a2");
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    sim.now += LOST_AFTER_MS + 1;
    sim.input(Input::Tick);
    assert_eq!(outcome(&sim, job, "a2"), Some(Outcome::LostContact));
    sim.agents_move();
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    sim.agents_move();
    assert_eq!(outcome(&sim, job, "a1"), Some(Outcome::Succeeded));
    assert_eq!(
        outcome(&sim, job, "a2"),
        Some(Outcome::Rejected),
        "it must not start behind anyone's back"
    );
    let forgotten = sim.agents[&key("a2")]
        .journal
        .values()
        .all(|forgotten| *forgotten);
    assert!(forgotten, "it was started");
}

#[test]
fn lost_contact_turns_into_the_real_outcome_when_the_agent_comes_back() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[1], &[]), &[]));
    sim.settle();
    let job = exec(&mut sim, &["a1"]);
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    sim.crash();
    sim.now += LOST_AFTER_MS + 1;
    sim.input(Input::Tick);
    assert_eq!(outcome(&sim, job, "a1"), Some(Outcome::LostContact));
    sim.agents_move();
    assert_eq!(outcome(&sim, job, "a1"), Some(Outcome::Succeeded));
}

#[test]
fn exit_194_reboots_a_bounded_number_of_times() {
    let mut sim = Sim::new();
    sim.exit
        .insert("a1".to_owned(), aot_proto::limits::EXIT_REBOOT);
    sim.input(ask(&spec(&[1], &[]), &["one"]));
    for boot in 0..20 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        sim.agents_move();
        let at = key("a1");
        let state = sim
            .world
            .instance(&at)
            .map(|i| (i.stages[0].state, i.session));
        if let Some((StageState::Rebooting, Some(session))) = state {
            sim.input(Input::Closed {
                at: at.clone(),
                session,
                why: "reboot".to_owned(),
            });
            let hello = v1::Hello {
                boot_id: format!("boot-{boot}"),
                cluster_facts_generation: 1,
                ..v1::Hello::default()
            };
            sim.sessions += 1;
            let session = sim.sessions;
            sim.agents.get_mut(&at).expect("is there").session = Some(session);
            sim.input(Input::Attached {
                at,
                session,
                hello: Box::new(hello),
            });
        }
    }
    let instance = sim.world.instance(&key("a1")).expect("is there");
    assert_eq!(instance.phase, Phase::Failed);
    assert_eq!(
        sim.started[&(key("a1"), "one".to_owned())],
        6,
        "the first run and five reboots"
    );
    assert!(instance.note.contains("reboots"), "{}", instance.note);
}

#[test]
fn cleanup_ends_every_machine_and_forgets_the_cluster() {
    let mut sim = Sim::new();
    sim.input(ask(&spec(&[2], &[]), &[]));
    sim.settle();
    sim.input(Input::Cleanup { cluster: cluster() });
    for _ in 0..20 {
        while !sim.pending.is_empty() {
            sim.perform(0);
        }
        sim.now += 2_500;
        sim.input(Input::Tick);
    }
    assert_eq!(sim.alive(), 0);
    assert!(sim.world.clusters.is_empty() && sim.disk.clusters.is_empty());
    assert_eq!(sim.ended.last().expect("ended").1, 0);
}

#[test]
fn a_rollback_terminates_what_the_launch_made_and_nothing_else() {
    let mut wanted = spec(&[1], &[]);
    let mut sim = Sim::new();
    sim.input(ask(&wanted, &["one"]));
    sim.settle();
    wanted = spec(&[2], &[]);
    wanted.launch.on_failure = OnFailure::Rollback;
    sim.exit.insert("a2".to_owned(), 1);
    sim.input(ask(&wanted, &["one"]));
    sim.settle();
    while !sim.pending.is_empty() {
        sim.perform(0);
    }
    assert_eq!(sim.alive(), 1);
    assert!(
        sim.world
            .instance(&key("a1"))
            .expect("is there")
            .has_machine()
    );
}
