//! Who is connected: instance → the handle of its live session.

use std::collections::HashMap;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aot_proto::v1::master_message;
use tokio::sync::{mpsc, oneshot, watch};

use super::Closed;
use crate::model::cluster::Key;

/// Commands that may wait for a session. When full, the session is closed: it does not read, so it is not there.
pub const COMMANDS: usize = 1024;

/// A wish of the master to one session.
#[derive(Debug)]
pub enum Command {
    /// Pass it on.
    Send(Box<master_message::Body>),
    /// Ask the agent itself. Boxed: every session's queue has room for 32 commands from its start.
    Builtin(Box<Question>),
    /// A newer session took over.
    Replaced,
    /// End.
    Close(Closed),
}

/// What an agent is to answer itself.
#[derive(Debug)]
pub struct Question {
    /// ping, facts, version.
    pub name: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<BuiltinAnswer>,
    /// After which nobody waits any more.
    pub deadline: Instant,
}

/// What an agent itself answered.
#[derive(Debug, Clone)]
pub struct BuiltinAnswer {
    /// JSON, or why not.
    pub result: Result<String, String>,
}

#[derive(Debug, Clone)]
struct Handle {
    session: u64,
    commands: mpsc::Sender<Command>,
}

/// All live sessions.
#[derive(Debug)]
pub struct Registry {
    handles: RwLock<HashMap<Key, Handle>>,
    next: AtomicU64,
    came: watch::Sender<u64>,
}

impl Registry {
    /// An empty one. Sessions are numbered from `first` on, which must grow from start to start of the master.
    pub fn new(first: u64) -> Self {
        Self {
            handles: RwLock::default(),
            next: AtomicU64::new(first),
            came: watch::Sender::new(first),
        }
    }

    /// Puts a session in the place of any other of the same instance, which is told; gives its number and commands.
    pub fn register(&self, at: &Key) -> (u64, mpsc::Receiver<Command>) {
        let session = self.next.fetch_add(1, Ordering::Relaxed);
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let handle = Handle { session, commands };
        let old = self
            .handles
            .write()
            .expect("nobody panics with it")
            .insert(at.clone(), handle);
        if let Some(old) = old {
            let _ = old.commands.try_send(Command::Replaced); // one that is stuck ends by its silence
        }
        self.came.send_replace(session);
        (session, inbox)
    }

    /// Changes whenever a session comes.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.came.subscribe()
    }

    /// Whether an instance has a session.
    pub fn has(&self, at: &Key) -> bool {
        self.handles
            .read()
            .expect("nobody panics with it")
            .contains_key(at)
    }

    /// Takes a session out, unless a newer one has its place.
    pub fn remove(&self, at: &Key, session: u64) {
        let mut handles = self.handles.write().expect("nobody panics with it");
        if handles
            .get(at)
            .is_some_and(|handle| handle.session == session)
        {
            handles.remove(at);
        }
    }

    /// Gives a command to this very session; says whether it was taken.
    pub fn send(&self, at: &Key, session: u64, command: Command) -> bool {
        let handles = self.handles.read().expect("nobody panics with it");
        match handles.get(at).filter(|handle| handle.session == session) {
            Some(handle) => handle.commands.try_send(command).is_ok(),
            None => false,
        }
    }

    /// Gives a command to whichever session there is; says whether it was taken.
    pub fn send_any(&self, at: &Key, command: Command) -> bool {
        let handles = self.handles.read().expect("nobody panics with it");
        handles
            .get(at)
            .is_some_and(|handle| handle.commands.try_send(command).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            cluster: "c".parse().expect("a name"),
            instance: "a".parse().expect("a name"),
        }
    }

    #[test]
    fn a_late_close_keeps_the_new_session() {
        let registry = Registry::new(7);
        let (old, mut old_inbox) = registry.register(&key());
        let (new, mut inbox) = registry.register(&key());
        assert!(new > old);
        assert!(matches!(old_inbox.try_recv(), Ok(Command::Replaced)));
        registry.remove(&key(), old);
        assert!(registry.send_any(&key(), Command::Close(Closed::Silent)));
        assert!(inbox.try_recv().is_ok());
        assert!(
            !registry.send(&key(), old, Command::Replaced),
            "the old one is not sent to"
        );
        registry.remove(&key(), new);
        assert!(!registry.send_any(&key(), Command::Replaced));
    }
}
