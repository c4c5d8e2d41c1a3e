//! The life of a master, each phase a type: [`Opened`] has the state folder, [`Bound`] its addresses too, [`Running`] what is
//! in the folder and its tasks, and ends in a drain. Called by the program; who makes machines is handed in.

mod bound;
mod error;
mod opened;
pub(crate) mod operators;
mod ports;
mod running;
mod services;
mod state;
mod state_dir;
mod stopping;
#[cfg(test)]
mod tests;
mod warnings;

use std::path::PathBuf;
use std::sync::Arc;

use aot_model::retention;
use aot_store::Backend;
use aot_store::blobs::BlobPlace;

pub use bound::Bound;
pub use error::Error;
pub use opened::Opened;
pub use running::Running;
pub use state_dir::lock_to_move;
pub use stopping::Stop;

use crate::enrol::attest::certificates::Certificates;
use crate::enrol::fleet_seal::FleetSeal;
use crate::run::providers::Providers;

/// What a daemon is started with; every default is applied.
pub struct ServeOptions {
    /// Who makes machines.
    pub providers: Arc<Providers>,
    /// Agents' port, `host:port`; port 0 = any.
    pub listen: String,
    /// What agents dial; empty = the address as bound.
    pub advertise: Vec<String>,
    /// Masters' port, `host:port`; port 0 = any. Opened with a fleet key alone.
    pub peer_listen: String,
    /// What other masters dial; `None` = the address as bound, with a host of `advertise` where that is all addresses.
    pub peer_advertise: Option<String>,
    /// Where its state lies.
    pub state_dir: PathBuf,
    /// What keeps its records.
    pub store: Arc<dyn Backend>,
    /// Where long things are put; `None` = all of them stay in the state folder.
    pub blobs: Option<Arc<dyn BlobPlace>>,
    /// Operators' socket.
    pub socket: PathBuf,
    /// What this program is built from, for operators: version and commit.
    pub build: String,
    /// Where agents to hand out lie.
    pub agent_dir: PathBuf,
    /// Started by a command, not by `serve`.
    pub background: bool,
    /// A service manager runs it, and starts it again (systemd.exec(5): INVOCATION_ID).
    pub supervised: bool,
    /// What the next start goes by where it is given nothing else: a file and its text.
    pub settings: (PathBuf, String),
    /// How long jobs, and how much of what they printed, are kept.
    pub retention: retention::RetentionLimits,
    /// Bytes of the state's disk that are to stay free.
    pub keep_free: u64,
    /// Where AWS's certificates for identity documents lie.
    pub certificates: Certificates,
    /// What the masters that may take each other's place seal their keys with. Without it this one is alone.
    pub fleet_key: Option<FleetSeal>,
}
