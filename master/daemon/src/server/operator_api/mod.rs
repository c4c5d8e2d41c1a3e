//! What operators ask for, over the unix socket: each call is checked, put to whoever decides, and answered.

mod agents;
mod api_calls;
mod apply;
mod attestation;
mod builtin;
mod copy;
mod end;
mod events;
mod examine;
mod exec;
mod follow;
mod forward;
mod handed;
mod jobs;
mod lacks;
mod last_lines;
mod launch;
mod lifecycle;
mod logs;
mod masters;
mod moves;
mod notes;
mod orphans;
mod others;
mod paced;
mod plan;
mod plan_lines;
mod problems;
mod refusals;
mod rendered;
mod request;
mod secrets;
mod select;
mod service;
mod shell;
mod stage_changes;
mod status;
mod tunnel;
mod update;

use std::pin::Pin;
use std::sync::Arc;

use aot_proto::ids::{ClusterName, JobId};
use aot_proto::v1;
use aot_provider::calls::Calls;
use aot_store::Store;
use aot_store::room::Room;
use aot_store::spool::Spools;
use futures::Stream;
use refusals::{not_empty, refused, stopping, unanswered, unprepared, unput, unseen};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use crate::enrol::attest::certificates::Certificates;
use crate::enrol::secret_vault::SecretVault;
use crate::run::Engines;
use crate::run::agents::Agents;
use crate::run::ask::Lookups;
use crate::run::contents::Contents;
use crate::run::outputs::Outputs;
use crate::server::forwards::Forwards;
use crate::server::pending::{PendingLinks, ShellLink, TunnelLink};
use crate::server::transfers::Transfers;
use crate::server::ways::Ways;
use crate::session::registry::Registry;

/// Events that may wait for one operator.
const EVENTS: usize = 256;

/// What the operators' service needs.
#[derive(Clone)]
pub(crate) struct OperatorApi {
    /// Who decides.
    pub engine: Engines,
    /// Which master has what, and the way to it.
    pub ways: Ways,
    /// Who is there.
    pub registry: Arc<Registry>,
    /// Records.
    pub store: Arc<dyn Store>,
    /// Copies of runs' spools.
    pub spools: Arc<Spools>,
    /// What runs printed that have ended.
    pub outputs: Arc<Outputs>,
    /// Terminals that wait for their agents.
    pub shells: PendingLinks<ShellLink>,
    /// Connections that wait for their agents.
    pub tunnels: PendingLinks<TunnelLink>,
    /// Forwards that operators have open.
    pub forwards: Forwards,
    /// What is asked of providers without changing anything.
    pub lookups: Lookups,
    /// What their APIs are asked.
    pub calls: Calls,
    /// AWS's certificates for identity documents.
    pub certificates: Arc<Certificates>,
    /// What is handed out.
    pub agents: Arc<Agents>,
    /// What stages are run from.
    pub bundles: Arc<Contents>,
    /// Archives of copies.
    pub uploads: Arc<Contents>,
    /// How far copies are.
    pub transfers: Arc<Transfers>,
    /// Whether there is room for more.
    pub room: Arc<Room>,
    /// What values of secrets are sealed with.
    pub vault: Arc<SecretVault>,
    /// What this daemon is.
    pub info: Arc<v1::InfoReply>,
    /// Owner of tasks.
    pub tasks: TaskTracker,
    /// Stops the daemon.
    pub stop: CancellationToken,
}

/// Who asks.
pub(crate) struct Asker {
    /// `alice`, or `alice at MASTER`.
    operator: String,
    /// A master has passed it on: it is answered for what is here alone.
    is_master: bool,
    /// It is to be answered for what is here alone.
    here: bool,
    /// Id that the job is to have which it begins.
    request: Option<JobId>,
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

impl OperatorApi {
    /// Refuses what would need room on disk when there is too little.
    fn has_room(&self) -> Result<(), Status> {
        self.room
            .check()
            .map_err(|full| Status::resource_exhausted(full.to_string()))
    }

    /// The cluster to act on: the named one, or the only one where none was named.
    fn cluster(&self, name: Option<&str>) -> Result<ClusterName, Status> {
        let name = not_empty("--cluster", name)?;
        let named = name.and_then(|name| name.parse::<ClusterName>().ok());
        let is_known = |name: &ClusterName| {
            let engine = &self.engine;
            engine.read(name, |world| world.clusters.contains_key(name))
        };
        if let Some(named) = named.filter(is_known) {
            return Ok(named);
        }
        let known = self.every_cluster();
        let list = || {
            known
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match (name, known.as_slice()) {
            (None, [only]) => Ok(only.clone()),
            (None, []) => Err(Status::not_found("no cluster yet: launch one first")),
            (None, _) => Err(Status::invalid_argument(format!(
                "more than one cluster: choose one with --cluster: {}",
                list()
            ))),
            (Some(name), _) if known.iter().any(|it| it.as_str() == name) => {
                Err(Status::unavailable(format!(
                    "cluster {name} is not with this master, and the request was not passed on: use an aot-master of this master's version, or ask the one that `aot-master masters` names"
                )))
            }
            (Some(name), []) => Err(Status::not_found(format!(
                "no cluster {name:?}; there are none"
            ))),
            (Some(name), _) => Err(Status::not_found(format!(
                "no cluster {name:?}; the clusters are: {}",
                list()
            ))),
        }
    }
}
