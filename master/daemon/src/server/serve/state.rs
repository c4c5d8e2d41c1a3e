//! What the last master knew, read once the addresses are this one's: its store, outputs, bundles and copies. Called at the
//! start of the third phase.

use std::path::Path;
use std::sync::Arc;

use aot_host::boot_id::kernel_boot_id;
use aot_host::files::private_dir;
use aot_model::hash::JoinKey;
use aot_proto::ids::RunId;
use aot_store::blobs::BlobKind;
use aot_store::fleet::Fleet;
use aot_store::spool::Spools;
use aot_store::{Hold, Loaded, OpenStore, Store};

use super::error::{Error, io};
use super::{Opened, Stop};
use crate::enrol;
use crate::run::contents::Contents;
use crate::run::outputs::Outputs;
use crate::server::transfers::Transfers;

pub(super) struct State {
    pub(super) store: Arc<dyn Store>,
    pub(super) hold: Arc<Hold>,
    /// The masters that share the store.
    pub(super) fleet: Option<Arc<dyn Fleet>>,
    pub(super) loaded: Loaded,
    /// From a master that may live.
    pub(super) is_taken_over: bool,
    pub(super) spools: Arc<Spools>,
    /// What runs printed that have ended.
    pub(super) outputs: Arc<Outputs>,
    /// What stages are run from.
    pub(super) bundles: Arc<Contents>,
    /// What machines are given.
    pub(super) agents: Arc<Contents>,
    /// Files on their way to instances.
    pub(super) uploads: Arc<Contents>,
    pub(super) transfers: Arc<Transfers>,
    pub(super) join_key: JoinKey,
}

impl State {
    /// What works on it ends by `ending`.
    pub(super) async fn read(opened: &Opened, ending: &Stop) -> Result<Self, Error> {
        let read = Self::read_in(&opened.options.state_dir, opened, ending).await;
        read.map_err(|error| error.explained(&opened.room))
    }

    async fn read_in(dir: &Path, opened: &Opened, ending: &Stop) -> Result<Self, Error> {
        let OpenStore {
            store,
            hold,
            loaded,
            is_taken_over,
            fleet,
        } = opened.options.store.open(dir).await?;
        let spools = spools(dir, &loaded, fleet.is_some())?;
        let outputs = Outputs::new(
            spools.clone(),
            opened.blobs.clone(),
            ending.tasks.clone(),
            ending.token.clone(),
        )
        .of_master(fleet.as_ref().map(|fleet| fleet.view().borrow().me.clone()));
        let bundles = dir.join("bundles");
        private_dir(&bundles).map_err(io("make the folder", &bundles))?;
        let uploads = dir.join("transfers");
        let transfers = Transfers::open(&uploads, opened.room.clone())
            .map_err(io("use the folder", &uploads))?;
        let contents = |kind, dir: &Path| Arc::new(Contents::new(kind, dir, opened.blobs.clone()));
        let join_key = enrol::join_key(dir).map_err(io("use the join key in", dir))?;
        Ok(Self {
            store,
            hold,
            fleet,
            loaded,
            is_taken_over,
            spools,
            outputs: Arc::new(outputs),
            bundles: contents(BlobKind::Bundles, &bundles),
            agents: contents(BlobKind::Agents, &dir.join("agents")),
            uploads: contents(BlobKind::Uploads, &uploads),
            transfers: Arc::new(transfers),
            join_key,
        })
    }
}

/// `is_shared`: which runs are open is not known yet, as clusters are still to be taken.
fn spools(dir: &Path, loaded: &Loaded, is_shared: bool) -> Result<Arc<Spools>, Error> {
    let spools = Spools::open(&dir.join("spools"))?;
    let boot = kernel_boot_id().unwrap_or_default(); // where there is none, power cuts go unnoticed
    let open: Box<dyn Iterator<Item = RunId>> = match is_shared {
        false => Box::new(loaded.runs.iter().map(|run| run.id)),
        true => Box::new(spools.unfinished()),
    };
    spools
        .distrust_other_boots(&boot, open)
        .map_err(io("look at the outputs in", dir))?;
    Ok(spools)
}
