//! What a session's reports reach of the rest of the master: who decides, what is recorded, who signs. `server` implements
//! it over the loop, tests over lists; nothing here knows either.

use std::collections::BTreeSet;
use std::sync::Arc;

use aot_model::key::InstanceKey;
use aot_model::world::{AgentInput, Input};
use aot_proto::ids::{ClusterName, JobId, RunId, SpiffeId};
use aot_proto::v1;
use aot_store::room::Room;
use aot_store::spool::Spools;
use prost::bytes::Bytes;
use tokio::sync::Semaphore;

use crate::enrol::ca::Issued;
use crate::session::registry::Registry;

/// What an agent that says hello is welcomed with.
#[derive(Debug, Default)]
pub(crate) struct Greeting {
    /// Login user of the machine; `None` where the file names none.
    pub(crate) main_user: Option<String>,
    /// As the file names it.
    pub(crate) hostname: String,
    /// Runs of its instance that have not ended on record.
    pub(crate) open: BTreeSet<RunId>,
    /// How many instances the master knows, of all clusters, with a session or without.
    pub(crate) instances: usize,
}

/// A run of the very instance that speaks of it, in that instance's present session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnRun {
    pub(crate) job: JobId,
    /// Most bytes of output that are kept of it.
    pub(crate) output_cap: u64,
    pub(crate) is_stage: bool,
    /// It prints an archive, which nobody reads a second time.
    pub(crate) is_archive: bool,
}

/// The master as one session's reports see it.
pub(crate) trait Master: Send + Sync + 'static {
    fn spools(&self) -> &Arc<Spools>;

    fn room(&self) -> &Room;

    fn registry(&self) -> &Registry;

    /// Where agents find the masters, host:port, this one first.
    fn addresses(&self) -> Vec<String>;

    /// Of the hold on a cluster, see `Welcome`.
    fn epoch(&self, cluster: &ClusterName) -> i64;

    /// Turns of facts that are read and decided on: when a thousand agents come back together, what their facts need for a
    /// moment would stay with the process.
    fn facts_turns(&self) -> &Semaphore;

    fn greeting(&self, at: &InstanceKey) -> Greeting;

    /// The run, if it is this instance's and this session its present one. The only way to a run: no agent reaches another's.
    fn own_run(&self, at: &InstanceKey, session: u64, run: RunId) -> Option<OwnRun>;

    /// Brings an input that nobody waits for; waits while too many wait for a decision.
    fn submit(&self, input: Input) -> impl Future<Output = ()> + Send;

    /// Brings an input, and waits until it, and all that was brought before it, is decided and on disk; `false` when the master
    /// stops first.
    fn decide(&self, input: Input) -> impl Future<Output = bool> + Send;

    /// [`Master::submit`] of a run's end, with its whole spool where that goes into the store: it does if the end is accepted.
    fn submit_end(
        &self,
        at: InstanceKey,
        session: u64,
        report: AgentInput,
        spool: Option<(RunId, Bytes)>,
    ) -> impl Future<Output = ()> + Send;

    /// Whether outputs that are short go into the store however they came.
    fn outputs_are_shared(&self) -> bool;

    /// Whether outputs that do not go into the store are put elsewhere before the ends of their runs may be on record.
    fn outputs_are_put(&self) -> bool;

    /// [`Master::submit_end`] of a run whose whole spool is in a file, once that is put. Does not wait for it.
    fn submit_once_put(&self, at: &InstanceKey, run: RunId, ended: Box<v1::Ended>);

    /// Passes on how far a copy to this instance is; lossy.
    fn copy_progress(&self, job: JobId, at: &InstanceKey, progress: &v1::CopyProgress);

    /// A further certificate for the key that asks, or why there is none.
    fn renew(
        &self,
        csr_der: &[u8],
        id: &SpiffeId,
        session: u64,
        asked_with: String,
    ) -> impl Future<Output = Result<Issued, String>> + Send;
}
