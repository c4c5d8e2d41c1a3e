//! The right to write to a store: a name, and how often that right has changed hands and has been used. A store that several
//! masters reach writes only with the newest.

use tokio::sync::{Mutex, MutexGuard};

/// Where a hold stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HoldPosition {
    /// Raised by whoever takes the hold.
    pub epoch: i64,
    /// Raised by each write.
    pub seq: i64,
    /// Whether the last write was made is not known: whoever writes next asks first.
    pub is_unsure: bool,
}

/// What a write is made with. One write at a time is made with it: others wait.
#[derive(Debug)]
pub struct Hold {
    name: String,
    position: Mutex<HoldPosition>,
}

impl Hold {
    /// The hold of this name, as it stood when it was taken.
    pub fn new(name: &str, position: HoldPosition) -> Self {
        Self {
            name: name.to_owned(),
            position: Mutex::new(position),
        }
    }

    /// What it is on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it stands; whoever has this is the one who writes.
    pub async fn position(&self) -> MutexGuard<'_, HoldPosition> {
        self.position.lock().await
    }
}
