//! One copy while its run continues: how far it is, for those who follow it.

use std::sync::{Arc, Mutex};

use prost::bytes::Bytes;
use tokio::sync::watch;

use super::tail::{Budget, Tail};

/// How far the copy of a spool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes that are here.
    pub bytes: u64,
    /// They are all there will be.
    pub ended: bool,
}

/// What an append came to.
#[derive(Debug, Clone)]
pub enum Arrived {
    /// This much is here; to be acknowledged.
    Part(Progress),
    /// The whole spool in one piece: it goes to the store with the run's end.
    Whole(Bytes),
}

/// What the readers of a copy share with whoever appends to it.
pub(super) struct Feed {
    pub(super) progress: watch::Sender<Progress>,
    /// The spool, when it came in one short piece; the store has it later.
    pub(super) whole: Mutex<Option<Bytes>>,
    pub(super) tail: Mutex<Tail>,
    /// Where the frames begin that were read for its last line.
    pub(super) last_at: Mutex<u64>,
}

impl Feed {
    /// Of a copy of which this many bytes are here.
    pub(super) fn new(bytes: u64, budget: Arc<Budget>) -> Self {
        Self {
            progress: watch::Sender::new(Progress {
                bytes,
                ended: false,
            }),
            whole: Mutex::new(None),
            tail: Mutex::new(Tail::new(budget)),
            last_at: Mutex::new(0),
        }
    }
}
