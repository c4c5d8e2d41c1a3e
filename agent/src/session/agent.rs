//! What every session of an agent shares: its settings, its identity, its runs. Made once by the service.

use std::sync::Arc;

use aot_host::chain::Chain;
use aot_host::files::shut_dir;
use tokio::sync::{Mutex, watch};
use tokio_util::task::TaskTracker;

use crate::cluster_facts::FactsPaths;
use crate::config::Config;
use crate::file_builtins::FileReads;
use crate::identity::{ClientIdentity, Vault};
use crate::link::Link;
use crate::masters::epoch::HighestEpoch;
use crate::runner::Runner;
use crate::shell::Shells;
use crate::tunnel::Tunnels;

/// What a session needs of its agent.
pub(crate) struct Agent {
    pub config: Config,
    pub link: Link,
    /// Below it no master is obeyed.
    pub epoch: HighestEpoch,
    /// Where the identity is stored.
    pub vault: Vault,
    /// The identity of the day, for whoever opens a connection.
    pub identity: watch::Sender<Option<Arc<ClientIdentity>>>,
    pub runner: Runner,
    /// Terminals that operators have open.
    pub shells: Shells,
    /// Connections that operators forward.
    pub tunnels: Tunnels,
    /// Tasks of the agent.
    pub tracker: TaskTracker,
    /// Held by whoever puts volumes in place: work of a session that has ended may continue when the next one begins.
    pub volumes: Arc<Mutex<()>>,
    /// Held by whoever puts cluster facts in place, for the same reason: each rests on those before.
    pub cluster_facts: Arc<Mutex<()>>,
    /// Files that are being read for builtins.
    pub reads: FileReads,
    /// When the agent was started, ms since 1970.
    pub started_unix_ms: u64,
    /// Random, drawn at its start.
    pub process_id: String,
}

impl Agent {
    /// Stores the identity again where somebody removed it: without it the next start could not enrol.
    pub(super) fn restore_identity(&self) {
        if self.vault.is_filled() {
            return;
        }
        let Some(identity) = self.identity.borrow().clone() else {
            return;
        };
        tracing::warn!("the stored certificate was removed; it is stored again");
        let stored = shut_dir(&self.config.state_dir)
            .map_err(|error| Chain(&error).to_string())
            .and_then(|()| {
                let stored = self.vault.store(&identity);
                stored.map_err(|error| Chain(&error).to_string())
            });
        if let Err(error) = stored {
            tracing::warn!(error, "the certificate cannot be stored");
        }
    }
}

/// Where cluster facts go.
pub(crate) fn paths(config: &Config) -> FactsPaths {
    FactsPaths {
        state_dir: config.state_dir.clone(),
        etc_dir: config.etc_dir.clone(),
        root_home: config.root_home.clone(),
    }
}
