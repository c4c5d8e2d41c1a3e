//! The master between its disk, a provider and agents that behave as each test says: inputs go in, effects wait until
//! they are done, in any order, and the master may be killed between any two.

mod agents;
mod provider;

use super::*;
use crate::secret::KeptSecret;
pub(super) use agents::Agent;

/// The master, its disk, a provider and agents.
pub(super) struct Sim {
    pub world: World,
    pub disk: Disk,
    pub now: UnixMs,
    pub pending: VecDeque<Effect>,
    pub machines: BTreeMap<String, Vec<Machine>>,
    pub agents: BTreeMap<InstanceKey, Agent>,
    pub started: BTreeMap<(InstanceKey, String), u32>,
    pub sessions: u64,
    /// Instances that cannot write cluster facts, and how many times all were given some.
    pub unwritable: BTreeSet<String>,
    pub given: u32,
    /// What they were given.
    pub handed: Vec<(InstanceKey, v1::ClusterFacts)>,
    pub starts: u64,
    pub ended: Vec<(JobId, u32)>,
    pub refuse: BTreeMap<String, ErrorKind>,
    pub calls: usize,
    pub mounted: Vec<(InstanceKey, Vec<v1::Volume>)>,
    pub no_volume: String,
    /// What preparing has made.
    pub notices: Vec<String>,
    /// The next launch call works, and its answer is lost.
    pub lose: bool,
    pub prepares: usize,
    pub no_prerequisites: Option<ErrorKind>,
    pub no_address: Option<ErrorKind>,
    /// Members whose agents never call home.
    pub silent: BTreeSet<String>,
    /// Values of challenges, by machine.
    pub tags: BTreeMap<MachineId, String>,
    /// Tags can't be set or removed.
    pub no_tags: Option<ErrorKind>,
    pub exit: BTreeMap<String, i32>,
    /// Instances whose health checks fail, and how many were asked of each.
    pub unhealthy: BTreeSet<String>,
    pub checks: BTreeMap<String, u32>,
    /// So many inputs share what follows from them, as those of one batch do.
    pub batch: usize,
    pub taken: usize,
    /// Machines that listings by tag lack.
    pub unlisted: BTreeSet<MachineId>,
    /// Machines that listings show without their state.
    pub unclear: Vec<MachineId>,
    pub no_listing: Option<ErrorKind>,
    pub listings: usize,
    /// Machines that were asked for by id, by call.
    pub finds: Vec<Vec<MachineId>>,
    /// Machines that were asked to end, by call.
    pub terminations: Vec<Vec<MachineId>>,
    /// The whole call that ends machines fails so.
    pub no_termination: Option<ErrorKind>,
    /// Machines that are protected from termination.
    pub protected: BTreeSet<MachineId>,
    /// Machines that were asked to be named, by call.
    pub names: Vec<Vec<MachineId>>,
    pub no_name: Option<ErrorKind>,
    /// Regions in which orphans were deleted, by call.
    pub deletions: Vec<InstanceName>,
    /// What jobs asked of machines, by call.
    pub changes: Vec<(JobKind, Vec<MachineId>)>,
    /// Machines that are asked to start stay as they are.
    pub no_start: bool,
    pub start_calls: usize,
    /// What operators were told, besides the ends of jobs.
    pub told: Vec<(String, String)>,
    /// Names and versions of the secrets that runs were given.
    pub secrets: BTreeMap<RunId, Vec<(String, Option<String>)>>,
}

impl Sim {
    pub(super) fn new() -> Self {
        Self {
            world: Disk::default().load(1, 1),
            starts: 1,
            disk: Disk::default(),
            now: 1_000,
            pending: VecDeque::new(),
            machines: BTreeMap::new(),
            agents: BTreeMap::new(),
            started: BTreeMap::new(),
            unwritable: BTreeSet::new(),
            given: 0,
            handed: Vec::new(),
            sessions: 0,
            ended: Vec::new(),
            refuse: BTreeMap::new(),
            calls: 0,
            mounted: Vec::new(),
            no_volume: String::new(),
            notices: Vec::new(),
            lose: false,
            prepares: 0,
            no_prerequisites: None,
            no_address: None,
            silent: BTreeSet::new(),
            tags: BTreeMap::new(),
            no_tags: None,
            exit: BTreeMap::new(),
            unhealthy: BTreeSet::new(),
            checks: BTreeMap::new(),
            batch: 1,
            taken: 0,
            unlisted: BTreeSet::new(),
            unclear: Vec::new(),
            no_listing: None,
            listings: 0,
            finds: Vec::new(),
            terminations: Vec::new(),
            no_termination: None,
            protected: BTreeSet::new(),
            names: Vec::new(),
            no_name: None,
            deletions: Vec::new(),
            changes: Vec::new(),
            no_start: false,
            start_calls: 0,
            told: Vec::new(),
            secrets: BTreeMap::new(),
        }
    }

    pub(super) fn input(&mut self, input: Input) -> Answer {
        self.taken += 1;
        let ticks = matches!(input, Input::Tick);
        let whole = ticks || self.taken.is_multiple_of(self.batch);
        let (answer, mut effects) = self.world.step(input, self.now);
        effects.extend(match whole {
            true => self.world.reconcile(self.now),
            false => self.world.reconcile_paced(self.now),
        });
        self.check_counts();
        self.disk.write(self.world.drain_changes());
        if ticks {
            self.check_published();
            self.disk.check(&self.world, self.now);
        }
        self.pending.extend(effects);
        answer
    }

    /// Inputs of one batch, as the loop has them: what follows from all of them, then one write to disk.
    pub(super) fn inputs(&mut self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            let (_, effects) = self.world.step(input, self.now);
            self.pending.extend(effects);
        }
        self.pending.extend(self.world.reconcile(self.now));
        self.check_counts();
        self.disk.write(self.world.drain_changes());
    }

    /// What was handed out last is what there is, unless it is known to be stale.
    fn check_published(&self) {
        for cluster in self.world.clusters.values() {
            let name = &cluster.spec.name;
            if let (Some(published), None) =
                (self.world.published.get(name), self.world.stale.get(name))
                && cluster.instances.len() < 50
            {
                let now = crate::facts::digest(cluster);
                assert_eq!(published.digest(), now, "what changes an entry says so");
            }
        }
    }

    /// What is counted on, or looked up, is what counting and looking anew would give.
    pub(super) fn check_counts(&self) {
        for (id, tally) in &self.world.tallies {
            assert_eq!(*tally, Tally::of(&self.world.jobs[id]));
        }
        let mut at: BTreeMap<InstanceKey, BTreeSet<RunId>> = BTreeMap::new();
        for run in self.world.runs.values() {
            at.entry(run.at.clone()).or_default().insert(run.id);
        }
        assert_eq!(self.world.runs_at, at);
        for cluster in self.world.clusters.values() {
            self.check_queue(cluster);
            for (machine, at) in machines_of(cluster) {
                let found = self.world.by_machine(&cluster.spec.name, &machine);
                assert_eq!(found.map(|instance| &instance.name), Some(&at.instance));
            }
        }
    }

    /// How far a change at a pace is known to be without a pass is how far it is. Who is away is seen when it is their turn.
    fn check_queue(&self, cluster: &crate::cluster::Cluster) {
        let queue = self.world.queues.get(&cluster.spec.name);
        if queue.is_some() && cluster.instances.values().all(Instance::connected) {
            assert_eq!(queue, self.world.turn_queue(cluster).as_ref());
        }
    }

    /// kill -9 of the master, and a start.
    pub(super) fn crash(&mut self) {
        self.disk.check(&self.world, self.now);
        self.pending.clear();
        self.starts += 1; // ids of two starts must differ, as they do by chance outside
        self.world = self.disk.load(self.starts * 1_000_003, self.now);
        for agent in self.agents.values_mut() {
            agent.session = None;
        }
    }

    /// Another master took this one for dead, and continues with what was on disk.
    pub(super) fn take_over(&mut self) {
        self.crash();
        self.world.doubt_calls();
    }

    /// Does the pending effect at `index`.
    pub(super) fn perform(&mut self, index: usize) {
        let Some(effect) = self.pending.remove(index) else {
            return;
        };
        match effect {
            Effect::Call { cluster, call } => {
                let answer = self.call(call);
                self.input(Input::Answered { cluster, answer });
            }
            Effect::CallOrphans { job, place, .. } => {
                self.deletions.push(place.clone());
                let thing = (
                    "volume".to_owned(),
                    "v".to_owned(),
                    "deleted".to_owned(),
                    false,
                );
                let result = self
                    .no_termination
                    .map_or(Ok(vec![thing]), |kind| Err(failure(kind)));
                self.input(Input::OrphansDeleted { job, place, result });
            }
            Effect::Measure { run } => {
                // As of one that has begun, and whose output stands still.
                self.input(Input::Measured { run, bytes: 10 });
            }
            Effect::Event(event) => {
                self.ended.extend(event.ends);
                self.told
                    .push((event.kind.to_owned(), event.message.clone()));
            }
            Effect::TargetEnded { .. }
            | Effect::CallAnswered { .. }
            | Effect::RunBegan { .. }
            | Effect::JobNote { .. } => {}
            Effect::Send { at, session, body } => self.receive(&at, session, *body),
            Effect::StartWithSecrets {
                at,
                session,
                run,
                start,
                secrets,
            } => {
                let given = secrets.iter().map(|it| {
                    let version = it.kept.as_ref().map(|kept| match kept {
                        KeptSecret::Sealed(sealed) => sealed.version.clone(),
                        KeptSecret::OnMachine(_, at) => format!("at {}", at.id),
                    });
                    (it.given.name.clone(), version)
                });
                self.secrets.insert(run, given.collect());
                self.receive(&at, session, Body::StartRun(*start));
            }
            Effect::HandOut { at, session, facts } => self.handed_out(&at, session, &facts),
            Effect::ShutOut { at } => {
                let open = self.agents.get_mut(&at).and_then(|it| it.session.take());
                if let Some(session) = open {
                    let why = "shut out".to_owned();
                    self.agent(at, session, AgentInput::Closed { why });
                }
            }
            Effect::Close { at, session } | Effect::Expire { at, session } => {
                let agent = self.agents.entry(at.clone()).or_default();
                agent.session.take_if(|open| *open == session);
                let why = "revoked".to_owned();
                self.agent(at, session, AgentInput::Closed { why });
            }
        }
    }

    /// Does all that is pending, and what follows from it at once.
    pub(super) fn perform_all(&mut self) {
        while !self.pending.is_empty() {
            self.perform(0);
        }
    }

    /// Until this is so: all that is pending is done, agents move and time passes.
    pub(super) fn run_until(&mut self, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..1_000 {
            if is_so(self) {
                return;
            }
            if !self.pending.is_empty() {
                self.perform(0);
                continue;
            }
            self.agents_move();
            if is_so(self) {
                return;
            }
            self.now += 500;
            self.input(Input::Tick);
        }
        panic!("it never comes to that");
    }

    /// Until nothing happens any more, or the launch is over.
    pub(super) fn run_until_quiet(&mut self) {
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

    pub(super) fn phases(&self) -> BTreeSet<Phase> {
        self.world.clusters[&cluster()]
            .wanted()
            .map(|i| i.phase)
            .collect()
    }

    pub(super) fn alive(&self) -> usize {
        self.machines
            .values()
            .flatten()
            .filter(|m| !m.state.is_ending())
            .count()
    }
}
