//! The first phase: the state folder is this master's. Nothing listens yet, and the store is left as it is: a start that
//! fails for want of an address must not bring it up to date for a newer program.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use aot_host::files::private_dir;
use aot_store::blobs::Blobs;
use aot_store::room::Room;

use super::error::{Error, io};
use super::{ServeOptions, state_dir};
use crate::enrol::ca::Ca;
use crate::enrol::shared_keys;
use crate::run::agents::Agents;

/// A master with its state folder. Dropped, it gives that back.
pub struct Opened {
    pub(super) options: ServeOptions,
    pub(super) room: Arc<Room>,
    pub(super) ca: Arc<Ca>,
    pub(super) agents: Arc<Agents>,
    /// Where long things are put.
    pub(super) blobs: Option<Arc<dyn Blobs>>,
    /// Held to the end, and so the last field: what comes before is closed by then.
    pub(super) lock: File,
}

impl Opened {
    /// Takes the state folder, waiting a little for a master that is ending.
    ///
    /// # Errors
    /// [`Error::Running`] when another master has the folder; else what could not be used, or that there is no room.
    pub async fn open(options: ServeOptions) -> Result<Self, Error> {
        let dir = options.state_dir.clone();
        private_dir(&dir).map_err(io("make the folder", &dir))?;
        state_dir::own_state(&dir)?;
        let room = Arc::new(Room::new(&dir, options.keep_free));
        let opened = Self::locked(options, &dir, room.clone()).await;
        opened.map_err(|error| error.explained(&room))
    }

    async fn locked(options: ServeOptions, dir: &Path, room: Arc<Room>) -> Result<Self, Error> {
        // Before anything is read: two masters on one state would each undo what the other decides.
        let lock = state_dir::lock_in_time(dir, &options.socket).await?;
        if let Some(shared) = options.store.shared_secrets() {
            shared_keys::agree(dir, shared, options.fleet_key.as_ref()).await?;
        }
        let ca = Arc::new(Ca::open(dir)?);
        let agents = Arc::new(Agents::open(&options.agent_dir, &dir.join("agents"))?);
        let place = options.blobs.as_ref();
        let blobs = place.map(|place| place.of_masters(ca.id()));
        Ok(Self {
            options,
            room,
            ca,
            agents,
            blobs,
            lock,
        })
    }
}
