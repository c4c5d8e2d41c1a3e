//! What instances send, into folders here: which archive goes where, and how far each is. Used by a copy from instances;
//! unpacks nothing itself, see `incoming`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aot_archive::{Destination, Links, Tops};

use super::incoming::Incoming;
use super::remains;

/// Where everything goes.
pub(super) struct Receive {
    destination: Arc<Destination>,
    /// What may stand at the top of an archive.
    tops: Tops,
    /// Each instance has a folder of its own.
    folders: bool,
    incoming: HashMap<String, Incoming>,
}

impl Receive {
    /// Into `to`; with one folder per instance, or straight.
    ///
    /// # Errors
    /// When there is no such destination and it can't be made.
    pub(super) fn new(
        to: &Path,
        into: bool,
        folders: bool,
        tops: Tops,
    ) -> Result<Self, aot_archive::DestinationError> {
        let destination = aot_archive::destination(to, into || folders, Links::Replaced)?;
        remains::remove(&destination.path);
        Ok(Self {
            destination: Arc::new(destination),
            tops,
            folders,
            incoming: HashMap::new(),
        })
    }

    /// The next bytes of an instance's archive. Cancel safe it is not: a job is followed to its end.
    pub(super) async fn piece(&mut self, instance: &str, data: &[u8]) {
        let (destination, tops) = (&self.destination, &self.tops);
        let begin = || Incoming::begin(destination.clone(), tops.clone());
        let incoming = self.incoming.entry(instance.to_owned());
        incoming.or_insert_with(begin).piece(data).await;
    }

    /// How much of an instance's archive has come.
    pub(super) fn bytes(&self, instance: &str) -> u64 {
        self.incoming.get(instance).map_or(0, Incoming::bytes)
    }

    /// Puts what came in its destination, when it is what the instance says that it sent.
    ///
    /// # Errors
    /// Why nothing of it is there, for a person.
    pub(super) async fn finish(&mut self, instance: &str, sha256: &str) -> Result<(), String> {
        let incoming = self.incoming.remove(instance).ok_or("nothing came")?;
        let (destination, folders) = (self.destination.clone(), self.folders);
        let (instance, sha256) = (instance.to_owned(), sha256.to_owned());
        let publish = move || {
            let own = folders.then_some(instance.as_str());
            incoming.publish(&sha256, &destination, own)
        };
        tokio::task::spawn_blocking(publish)
            .await
            .unwrap_or_else(|_| Err("putting it in place was interrupted".to_owned()))
    }

    /// Drops what came of an instance.
    pub(super) fn drop_of(&mut self, instance: &str) {
        if let Some(incoming) = self.incoming.remove(instance) {
            incoming.discard();
        }
    }
}

impl Drop for Receive {
    /// What is not in its destination is removed before the program may end.
    fn drop(&mut self) {
        for (_, incoming) in self.incoming.drain() {
            incoming.discard();
        }
    }
}

#[cfg(test)]
mod tests;
