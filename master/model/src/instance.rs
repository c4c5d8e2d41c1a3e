//! An instance as it is on record: its phase, its machine, its stages, and what its agent reported. Changed by `world`
//! alone; what follows from a session or a listing is not stored, and comes again after a restart.

use std::sync::Arc;

use aot_proto::ids::{InstanceName, MachineId, PoolName};
use serde::{Deserialize, Serialize};

use super::identity::{Identity, PeerProcess, Revoked};
use super::json_text::JsonText;
use super::machine::{ElasticIp, Machine, MachineState};
use super::phase::{self, Happened, Phase};
use super::rolling::RollingTurn;
use super::spec::{MemberSpec, PoolSpec};
use super::stage::{Stage, StageState};
use super::unix_ms::UnixMs;

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// Its name within the cluster.
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
    /// When its agent was last heard, in milliseconds since 1970. On record it may be behind: it is written with other changes,
    /// and when the agent stays away.
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
    /// Its addresses when it was last up: what cluster facts say while it is stopped or on its way.
    #[serde(default)]
    pub up: Option<Addresses>,
    /// Why its machine may have been silent, as the provider knows it; several lines.
    #[serde(default)]
    pub explanation: String,
    /// The machine that lost its right to be this instance.
    #[serde(default)]
    pub revoked: Option<Revoked>,
    /// It has been ready on this machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_ready: bool,
    /// Its place in the last change that went over it at a pace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<RollingTurn>,
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
    /// Who holds it, or held the last one.
    #[serde(skip)]
    pub peer: Option<PeerProcess>,
    /// When the provider was last asked for its machine, and showed it; 0 = not since the master came up.
    #[serde(skip)]
    pub shown_ms: UnixMs,
    /// When that was; 0 once it has answered.
    #[serde(skip)]
    pub facts_sent_ms: UnixMs,
    /// That it could not write them, until it has.
    #[serde(skip)]
    pub unwritten: Option<Box<Unwritten>>,
    /// Session that was asked to mount its volumes.
    #[serde(skip)]
    pub volumes_sent: Option<u64>,
    /// Session that has mounted them.
    #[serde(skip)]
    pub volumes_mounted: Option<u64>,
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
            was_ready: false,
            turn: None,
            peer: None,
            shown_ms: 0,
            volumes_sent: None,
            volumes_mounted: None,
            facts: None,
            session: None,
            lost_ms: None,
            sent_generation: 0,
            facts_sent_ms: 0,
            unwritten: None,
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

    /// Its state as EC2 calls it; empty without a machine.
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
    pub(crate) fn next_stage(&self) -> Option<usize> {
        let next = self
            .stages
            .iter()
            .position(|stage| stage.state != StageState::Succeeded)?;
        (self.stages[next].state != StageState::Failed).then_some(next)
    }

    /// Forgets the machine, and all that came from it, to make room for the next one.
    pub(crate) fn forget_machine(&mut self) {
        self.machine = None;
        self.identity = None;
        self.revoked = None;
        self.was_ready = false;
        self.turn = None;
        self.facts = None;
        self.session = None;
        self.peer = None;
        self.lost_ms = None;
        self.boot_step.clear();
        self.boot_id.clear();
        self.applied_generation = 0;
        self.sent_generation = 0;
        self.facts_sent_ms = 0;
        self.unwritten = None;
        self.terminating = false;
        self.shown_ms = 0;
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
        // One that is down keeps its last addresses in the cluster facts: stop and start make one new generation, not two.
        if machine.state == MachineState::Running {
            self.up = Some(Addresses::from(&machine));
        }
        self.machine = Some(machine);
    }

    /// Whether the provider says that it runs, or says nothing against it.
    pub(crate) fn may_be_up(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| {
            matches!(machine.state, MachineState::Pending | MachineState::Running)
        })
    }
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

/// What an agent reported of its machine: claims, not proofs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Its own facts, an object.
    pub node: JsonText,
    /// `ssh-ed25519 AAAA...` lines.
    pub ssh_host_keys: Vec<String>,
    /// Root's authorized_keys line.
    pub root_public_key: String,
    /// The main user's; empty when there is none.
    pub user_public_key: String,
    /// The main user that it found.
    pub main_user: String,
}

/// Cluster facts that an instance could not write. Not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten {
    /// Number of the cluster facts that it means.
    pub generation: u64,
    /// How many times in a row.
    pub failures: u32,
    /// Not sent again before then, unless there are newer ones.
    pub next_ms: UnixMs,
    /// Why, as its agent says.
    pub error: String,
}
