//! Records of what there is: clusters, batches, instances, stages. The store keeps them as they stand here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aot_proto::ids::{ClusterName, InstanceName, JobId, MachineId, PoolName, RunId};
use serde::{Deserialize, Serialize};

use super::file::{ClusterSpec, MemberSpec, Need, PoolSpec};
use super::ground::Ground;
use super::machine::{ClientToken, ClusterRef, ElasticIp, Machine, MachineState};
use super::phase::{self, Happened, Phase};

/// Milliseconds since 1970: the only clock that records carry.
pub type UnixMs = u64;

/// One cluster that was launched at least once and not cleaned up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cluster {
    /// What the operator asked for last.
    pub spec: ClusterSpec,
    /// Path of the file that said so.
    pub file: PathBuf,
    /// In every tag of every resource; made at the first launch.
    pub uuid: String,
    /// Number of the cluster facts that were handed out last; 0 = none yet.
    pub generation: u64,
    /// SHA-256 of the content of that generation, to see a change.
    pub facts_sha256: String,
    /// The launch that runs, or the last one.
    pub launch: Option<Launch>,
    /// Every call that was made to get machines, by client token.
    pub batches: BTreeMap<String, Batch>,
    /// What the file's names stand for.
    #[serde(default)]
    pub ground: Ground,
    /// The launch that the ground was made ready for; another one asks again.
    #[serde(default)]
    pub prepared_for: Option<JobId>,
    /// Machines with our tags that no instance has: replaced, or made by a call whose answer was lost. They are
    /// terminated, and kept here until they are gone.
    #[serde(default)]
    pub strays: BTreeMap<MachineId, Machine>,
    /// A cleanup was asked for and is not through.
    pub cleaning: bool,
    /// By name.
    #[serde(skip)]
    pub instances: BTreeMap<InstanceName, Instance>,
}

impl Cluster {
    /// How providers know it.
    pub fn reference(&self) -> ClusterRef {
        ClusterRef {
            name: self.spec.name.clone(),
            uuid: self.uuid.clone(),
            region: self.spec.region.clone(),
        }
    }

    /// Instances that the file still names.
    pub fn wanted(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values().filter(|instance| instance.wanted)
    }

    /// Whether a launch runs.
    pub fn launching(&self) -> bool {
        self.launch
            .as_ref()
            .is_some_and(|launch| launch.ended_ms.is_none())
    }

    /// The instance that this machine is.
    pub fn by_machine(&self, machine: &MachineId) -> Option<&Instance> {
        self.instances
            .values()
            .find(|instance| instance.machine_id() == Some(machine))
    }
}

/// One `launch` or `apply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// Its job.
    pub job: JobId,
    /// When it began.
    pub started_ms: UnixMs,
    /// Until when every instance must have enrolled.
    pub deadline_ms: UnixMs,
    /// When it was over.
    pub ended_ms: Option<UnixMs>,
    /// Whether it had anything to do.
    pub changed: bool,
    /// Why it failed; empty when it did not.
    pub error: String,
    /// Instances that it asked machines for: what a rollback terminates.
    pub made: Vec<InstanceName>,
    /// Of an apply: the instances whose stages it runs, and by which it is judged. `None` = all, as a launch.
    #[serde(default)]
    pub only: Option<BTreeSet<InstanceName>>,
    /// An operator cancelled it: no stage of it starts any more.
    #[serde(default)]
    pub cancelled: bool,
    /// What it made is terminated, or will be when it shows up late.
    #[serde(default)]
    pub rolled_back: bool,
    /// How long its instances have to enrol; the deadline is put off by it when machines are made again.
    #[serde(default)]
    pub timeout_ms: u64,
    /// How often each instance's silent machine was made again.
    #[serde(default)]
    pub replaced: BTreeMap<InstanceName, u32>,
    /// Instances whose machines were stopped when it began: it starts them and waits for their agents.
    #[serde(default)]
    pub starts: BTreeSet<InstanceName>,
}

/// One call for machines: the missing members of one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Makes the call idempotent.
    pub token: ClientToken,
    /// Label of the pool.
    pub pool: String,
    /// Machine with launch index N becomes member N.
    pub members: Vec<MemberSpec>,
    /// 1 for the first machines of these members.
    pub attempt: u32,
    /// The pool's part of the file when the call was planned: a repeat must say the same.
    pub spec: PoolSpec,
    /// Index into the pool's types and subnets.
    pub choice: Choice,
    /// SHA-256 of the join token, hex.
    pub join_sha256: String,
    /// What the machines were told of the master; a repeat must say the same.
    pub boot: BootRecord,
    /// Where it is.
    pub state: BatchState,
    /// Calls made so far.
    pub calls: u32,
    /// Not before this time is it called again.
    pub next_call_ms: UnixMs,
    /// When it was last called without a clear answer since; 0 = what it left behind is known.
    #[serde(default)]
    pub unsure_ms: UnixMs,
    /// What the last call that failed said.
    #[serde(default)]
    pub last_error: String,
    /// A call is under way. Not kept: after a restart none is.
    #[serde(skip)]
    pub in_flight: bool,
    /// When it was planned.
    pub created_ms: UnixMs,
}

/// A call for machines without a clear answer may show them this long afterwards (EC2 is eventually consistent).
const UNSURE_MS: u64 = 30_000;

impl Batch {
    /// It may have made machines that nobody knows of yet.
    pub fn is_unsure(&self, now: UnixMs) -> bool {
        self.in_flight || (self.unsure_ms > 0 && now < self.unsure_ms + UNSURE_MS)
    }
}

/// Which type and subnet of the lists a batch uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Index into the list of types.
    pub kind: usize,
    /// Index into the list of subnets.
    pub subnet: usize,
    /// Not from the spot market: it had no capacity.
    #[serde(default)]
    pub on_demand: bool,
}

/// The part of the user-data that does not follow from the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BootRecord {
    /// Where the master is reached.
    pub master: Vec<String>,
    /// SHA-256 of the agents, by architecture.
    pub agent_sha256: BTreeMap<String, String>,
    /// Texts of the cloud_config files, by pool label.
    #[serde(default)]
    pub user_parts: BTreeMap<String, String>,
}

/// How far a batch is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchState {
    /// On disk; the call may or may not have been made.
    Requested,
    /// The provider gave the machines.
    Launched,
    /// Given up, with the reason.
    Failed(String),
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Name.
    pub name: InstanceName,
    /// Host name.
    pub hostname: String,
    /// Pool, `None` for a single instance.
    pub pool: Option<PoolName>,
    /// `Owner`.
    pub owner: Option<String>,
    /// Main login user of the image.
    pub user: Option<String>,
    /// The file still names it.
    pub wanted: bool,
    /// Where it is.
    pub phase: Phase,
    /// Why it is there, for a person.
    pub note: String,
    /// Its machine as the provider showed it last.
    pub machine: Option<Machine>,
    /// Token of the batch that made, or is making, its machine.
    pub batch: Option<String>,
    /// How many machines it has had.
    pub attempt: u32,
    /// The key that its agent enrolled with.
    pub identity: Option<Identity>,
    /// Last step that its boot script reported.
    pub boot_step: String,
    /// Boot id of the last session.
    pub boot_id: String,
    /// Version of its agent.
    pub agent_version: String,
    /// Last word from its agent.
    pub last_seen_ms: UnixMs,
    /// Cluster facts that it acknowledged.
    pub applied_generation: u64,
    /// The bootstrap sequence and how far it is.
    pub stages: Vec<Stage>,
    /// Termination was asked for.
    pub terminating: bool,
    /// The lasting address that its machine was given.
    #[serde(default)]
    pub elastic_ip: Option<ElasticIp>,
    /// Why it has none although it should.
    #[serde(default)]
    pub address_error: String,
    /// Its addresses when it was last up: what others are told while it is stopped or on its way.
    #[serde(default)]
    pub up: Option<Addresses>,
    /// Why its machine may have been silent, as the provider knows it; several lines.
    #[serde(default)]
    pub explanation: String,
    /// The machine that lost its right to be this instance.
    #[serde(default)]
    pub revoked: Option<Revoked>,
    /// What its agent reported; kept in a table of its own.
    #[serde(skip)]
    pub facts: Option<Arc<NodeFacts>>,
    /// Session that is open now.
    #[serde(skip)]
    pub session: Option<u64>,
    /// Since when there is none; `None` before the first one and after a restart of the master.
    #[serde(skip)]
    pub lost_ms: Option<UnixMs>,
    /// Cluster facts that this session was sent.
    #[serde(skip)]
    pub sent_generation: u64,
    /// Session that was asked to mount its volumes.
    #[serde(skip)]
    pub volumes_sent: Option<u64>,
    /// Session that has mounted them.
    #[serde(skip)]
    pub volumes_mounted: Option<u64>,
}

/// Where a machine is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Within its network.
    pub private_ip: Option<String>,
    /// From outside.
    pub public_ip: Option<String>,
    /// Its name there.
    pub private_dns: Option<String>,
    /// Its name outside.
    pub public_dns: Option<String>,
}

impl From<&Machine> for Addresses {
    fn from(machine: &Machine) -> Self {
        Self {
            private_ip: machine.private_ip.clone(),
            public_ip: machine.public_ip.clone(),
            private_dns: machine.private_dns.clone(),
            public_dns: machine.public_dns.clone(),
        }
    }
}

impl Instance {
    /// A new one, planned.
    pub fn planned(pool: &PoolSpec, member: &MemberSpec) -> Self {
        Self {
            name: member.name.clone(),
            hostname: member.hostname.clone(),
            pool: pool.name.clone(),
            owner: pool.owner.clone(),
            user: pool.user.clone(),
            wanted: true,
            phase: Phase::Planned,
            note: String::new(),
            machine: None,
            batch: None,
            attempt: 0,
            identity: None,
            boot_step: String::new(),
            boot_id: String::new(),
            agent_version: String::new(),
            last_seen_ms: 0,
            applied_generation: 0,
            stages: Vec::new(),
            terminating: false,
            elastic_ip: None,
            address_error: String::new(),
            up: None,
            explanation: String::new(),
            revoked: None,
            volumes_sent: None,
            volumes_mounted: None,
            facts: None,
            session: None,
            lost_ms: None,
            sent_generation: 0,
        }
    }

    /// Takes the step that the table has for this; says whether anything changed.
    pub fn happen(&mut self, happened: Happened) -> bool {
        match phase::step(self.phase, happened) {
            Some(to) => {
                self.phase = to;
                true
            }
            None => false,
        }
    }

    /// Id of its machine.
    pub fn machine_id(&self) -> Option<&MachineId> {
        self.machine.as_ref().map(|machine| &machine.id)
    }

    /// It has a machine that is not gone, nor going.
    pub fn has_machine(&self) -> bool {
        !self.terminating
            && self
                .machine
                .as_ref()
                .is_some_and(|machine| !machine.state.is_ending())
    }

    /// EC2's word for its state; empty without a machine.
    pub fn state(&self) -> &'static str {
        self.machine
            .as_ref()
            .map_or("", |machine| machine.state.as_str())
    }

    /// Its machine was shut out; another one may take its place.
    pub fn is_revoked(&self) -> bool {
        let machine = self.revoked.as_ref().map(|revoked| &revoked.machine);
        machine.is_some() && machine == self.machine_id()
    }

    /// An agent session is open.
    pub fn connected(&self) -> bool {
        self.session.is_some()
    }

    /// Next stage that has to run; `None` when all succeeded or one failed.
    pub fn next_stage(&self) -> Option<usize> {
        let next = self
            .stages
            .iter()
            .position(|stage| stage.state != StageState::Succeeded)?;
        (self.stages[next].state != StageState::Failed).then_some(next)
    }

    /// Forgets the machine, and all that came from it, to make room for the next one.
    pub fn forget_machine(&mut self) {
        self.machine = None;
        self.identity = None;
        self.revoked = None;
        self.facts = None;
        self.session = None;
        self.lost_ms = None;
        self.boot_step.clear();
        self.boot_id.clear();
        self.applied_generation = 0;
        self.sent_generation = 0;
        self.terminating = false;
        self.elastic_ip = None;
        self.address_error.clear();
        self.up = None;
        self.explanation.clear();
        self.volumes_sent = None;
        self.volumes_mounted = None;
        for stage in &mut self.stages {
            stage.reset();
        }
    }

    /// Its addresses when it was last up, or as they are.
    pub fn addresses(&self) -> Addresses {
        let now = || self.machine.as_ref().map(Addresses::from);
        self.up.clone().or_else(now).unwrap_or_default()
    }

    /// Takes over what the provider shows of its machine.
    pub fn set_machine(&mut self, machine: Machine) {
        if machine.state == MachineState::Running {
            self.up = Some(Addresses::from(&machine));
        }
        self.machine = Some(machine);
    }

    /// Whether the provider says that it runs, or says nothing against it.
    pub fn may_be_up(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| {
            matches!(machine.state, MachineState::Pending | MachineState::Running)
        })
    }
}

/// Who enrolled as this instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// SHA-256 of the public key (SubjectPublicKeyInfo), hex: a repeat with the same key is the same agent.
    pub key_sha256: String,
    /// The key before the last renewal: the answer to that one may have been lost, and then this is still the agent's.
    #[serde(default)]
    pub previous_key_sha256: String,
    /// When it first enrolled.
    pub enrolled_ms: UnixMs,
    /// Serial of the last certificate, hex.
    pub serial: String,
    /// When that one ends, seconds since 1970.
    pub expires_unix: u64,
    /// EC2 identity document as the agent sent it; its signature is verified by a later attestor.
    pub document: String,
    /// Its signature.
    pub signature: String,
}

impl Identity {
    /// Whether this is a key that was certified for it.
    pub fn holds(&self, key_sha256: &str) -> bool {
        self.key_sha256 == key_sha256
            || (!self.previous_key_sha256.is_empty() && self.previous_key_sha256 == key_sha256)
    }
}

/// A machine whose identity was taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// Which machine: none with this id is let in again.
    pub machine: MachineId,
    /// Serial of its last certificate, hex; empty when it had none.
    pub serial: String,
    /// When that certificate ends, seconds since 1970.
    pub expires_unix: u64,
    /// When it was taken away.
    pub revoked_ms: UnixMs,
    /// By whom.
    pub operator: String,
}

/// What an agent reported of its machine: claims, not proofs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its own facts.
    pub node: serde_json::Value,
    /// `ssh-ed25519 AAAA...` lines.
    pub ssh_host_keys: Vec<String>,
    /// Root's authorized_keys line.
    pub root_public_key: String,
    /// The main user's; empty when there is none.
    pub user_public_key: String,
    /// The main user that it found.
    pub main_user: String,
}

/// What a stage is, from the file and its bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Name.
    pub name: String,
    /// Content address of the bundle, hex.
    pub bundle_sha256: String,
    /// Its size.
    pub bundle_bytes: u64,
    /// Arguments of bootstrap.sh.
    pub args: Vec<String>,
    /// More environment.
    pub env: BTreeMap<String, String>,
    /// Longest run.
    pub timeout: Option<Duration>,
    /// Longest silence.
    pub silence_timeout: Option<Duration>,
    /// What it waits for.
    pub needs: Vec<Need>,
    /// Same key = same bundle, args and env = done once is done.
    pub key: String,
}

/// One stage of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What to run.
    pub plan: StagePlan,
    /// How far it is.
    pub state: StageState,
    /// Tries so far; the current one's number while it runs.
    pub attempt: u32,
    /// Reboots (exit 194) within this attempt.
    pub reboots: u32,
    /// Times in a row that a try was interrupted.
    pub interruptions: u32,
    /// The run that is, or was, its last try.
    pub run: Option<RunId>,
    /// Exit status of the last try, when it had one.
    pub exit_code: Option<i32>,
    /// Why, for a person.
    pub detail: String,
    /// Start of the last try.
    pub started_ms: UnixMs,
    /// End of the last try; 0 while it runs.
    pub ended_ms: UnixMs,
    /// Boot id when a reboot was asked for; another one means that it happened.
    pub reboot_from: String,
}

impl Stage {
    /// A new one that waits.
    pub fn waiting(plan: StagePlan) -> Self {
        Self {
            plan,
            state: StageState::Waiting,
            attempt: 0,
            reboots: 0,
            interruptions: 0,
            run: None,
            exit_code: None,
            detail: String::new(),
            started_ms: 0,
            ended_ms: 0,
            reboot_from: String::new(),
        }
    }

    /// Waits again, as if it had never run on this machine; attempts go on counting.
    pub fn reset(&mut self) {
        let attempt = self.attempt;
        *self = Self::waiting(self.plan.clone());
        self.attempt = attempt;
    }
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageState {
    /// Not begun, or to be tried again.
    Waiting,
    /// A run was asked for.
    Running,
    /// It asked for a reboot, which has not happened yet.
    Rebooting,
    /// Done, and stays so while its key stays the same.
    Succeeded,
    /// Not done; nothing after it runs.
    Failed,
}

impl StageState {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Rebooting => "rebooting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

/// An instance's full name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Cluster.
    pub cluster: ClusterName,
    /// Instance.
    pub instance: InstanceName,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.cluster, self.instance)
    }
}
