//! The owners of state, a loop for each cluster: takes inputs, lets `model::world` decide, writes what changed, then does what
//! is to be done. `engines` leads to the right loop, `engine` is the way to one, `decide` the loop, `effects` what it does,
//! `updates` what goes out to those who follow.
//!
//! Called by `server` through `Engines`. Decides nothing itself.

pub(crate) mod agents;
pub(crate) mod ask;
pub(crate) mod blob_janitor;
pub(crate) mod contents;
mod decide;
mod effects;
mod engine;
mod engines;
mod event_feed;
pub(crate) mod janitor;
pub(crate) mod keeper;
mod orphans;
pub(crate) mod outputs;
pub(crate) mod prepare;
pub(crate) mod providers;
pub(crate) mod stop;
mod updates;

use std::sync::Arc;

pub(crate) use aot_host::clock::unix_ms as now_ms;
pub(crate) use engine::Unanswered;
pub(crate) use engines::{Engines, Inherited, TakenOver};
pub(crate) use event_feed::Remembered;
#[cfg(test)]
pub(crate) use orphans::tests::Scripted;
pub(crate) use updates::{JobUpdate, Published, updates_queue};

use aot_model::hash::JoinKey;
use aot_store::fleet::Fleet;
use aot_store::room::Room;
use aot_store::spool::Spools;
use aot_store::{Hold, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::session::registry::Registry;

/// Everything that effects are done with.
pub(crate) struct Parts {
    /// Records.
    pub store: Arc<dyn Store>,
    /// What they are written with where this master has all of them; else what is good while its word counts.
    pub hold: Arc<Hold>,
    /// The masters that share them.
    pub fleet: Option<Arc<dyn Fleet>>,
    /// Copies of runs' spools.
    pub spools: Arc<Spools>,
    /// What runs printed that have ended.
    pub outputs: Arc<outputs::Outputs>,
    /// Whether there is room for more.
    pub room: Arc<Room>,
    /// Sessions.
    pub registry: Arc<Registry>,
    /// Who makes machines.
    pub providers: Arc<providers::Providers>,
    /// Agents that are handed out.
    pub agents: Arc<agents::Agents>,
    /// CA, PEM.
    pub ca_pem: String,
    /// Behind the join tokens.
    pub join_key: JoinKey,
    /// Owner of all tasks.
    pub tasks: TaskTracker,
    /// Ends the master.
    pub stop: CancellationToken,
}
