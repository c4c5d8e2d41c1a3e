//! A call for machines as it is on record: for whom, with what, how far it is. Planned by `world` before it is made, so
//! that a repeated call says the same; stored with its cluster, as `record` has it.

mod pool;
pub(crate) mod record;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::attestation::Proof;
use super::machine::ClientToken;
use super::spec::MemberSpec;
use super::unix_ms::UnixMs;
pub use pool::PlannedPool;

/// One call for machines: the missing members of one pool. On record its pool and its members are named, see `record`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch<Pool = PlannedPool, Member = MemberSpec> {
    /// Makes the call idempotent.
    pub token: ClientToken,
    /// Label of the pool.
    pub pool: String,
    /// Machine with launch index N becomes member N.
    pub members: Vec<Member>,
    /// 1 for the first machines of these members.
    pub attempt: u32,
    /// The pool's part of the file when the call was planned: a repeat must say the same.
    pub spec: Pool,
    /// Index into the pool's types and subnets.
    pub choice: BatchChoice,
    /// Availability zone of its placement group's machines, where the pool names no subnet: a group of strategy cluster
    /// is in one zone, and a repeated call must say the same.
    #[serde(default)]
    pub zone: Option<String>,
    /// SHA-256 of the join token, hex.
    pub join_sha256: String,
    /// What its machines must prove besides holding that token.
    #[serde(default)]
    pub proof: Proof,
    /// What their user-data says of the master; a repeated call must say the same.
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
    /// Until then a master that was taken for dead may still send a call that it had begun; 0 = none.
    #[serde(default)]
    pub doubt_until_ms: UnixMs,
    /// What the last call that failed said.
    #[serde(default)]
    pub last_error: String,
    /// A call is under way. Not stored: after a restart none is.
    #[serde(skip)]
    pub in_flight: bool,
    /// When it was planned.
    pub created_ms: UnixMs,
}

/// A call for machines without a clear answer may show them this long afterwards (EC2 is eventually consistent).
const UNSURE_MS: u64 = 30_000;

/// For so long a call that is signed may still be sent (AWS General Reference, "Signature Version 4": most services take a
/// signature for 5 minutes, some for 15).
const SIGNED_MS: u64 = 15 * 60_000;

impl Batch {
    /// Whoever called it may be alive: what it signed may be sent, and show machines, for so long.
    pub(crate) fn doubt(&mut self, now: UnixMs) {
        self.doubt_until_ms = now + SIGNED_MS + UNSURE_MS;
    }

    /// It may have made machines that nobody knows of yet.
    pub(crate) fn is_unsure(&self, now: UnixMs) -> bool {
        self.in_flight
            || (self.unsure_ms > 0 && now < self.unsure_ms + UNSURE_MS)
            || now < self.doubt_until_ms
    }
}

/// Which type and subnet of the lists a batch uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchChoice {
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
    /// Texts of the cloud_config files, by pool label; a batch has its own pool's alone.
    #[serde(default)]
    pub user_parts: BTreeMap<String, String>,
}

impl BootRecord {
    /// What a batch of this pool needs of it.
    pub(crate) fn of_pool(&self, label: &str) -> Self {
        let part = self.user_parts.get_key_value(label);
        Self {
            master: self.master.clone(),
            agent_sha256: self.agent_sha256.clone(),
            user_parts: part
                .map(|(label, text)| (label.clone(), text.clone()))
                .into_iter()
                .collect(),
        }
    }
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
