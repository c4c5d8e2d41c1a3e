//! Who is connected: instance → the handle of its live session, and what else its machine has open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aot_model::key::InstanceKey;
use aot_proto::facts::Pieces;
use aot_proto::ids::ClusterName;
use aot_proto::limits::HAND_OUT_TURNS;
use aot_proto::v1::master_message;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Closed;
use super::end::SessionEnd;

/// Commands that may wait for a session. When full, the session is ended: it does not read, so it is not there.
pub(crate) const COMMANDS: usize = 1024;

/// What the master wants of one session.
#[derive(Debug)]
pub enum SessionCommand {
    /// Pass it on.
    Send(Box<master_message::Body>),
    /// Pass these on, one after the other, in its turns.
    HandOut(Pieces),
    /// Ask the agent itself. Boxed: every session's queue has room for 32 commands from its start.
    Builtin(Box<Question>),
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

#[derive(Debug)]
struct Handle {
    session: u64,
    /// Version of the protocol that it speaks; `None` before its hello.
    protocol: Option<u32>,
    /// By how much its machine's clock was ahead of this host's at its hello, ms; `None` = it did not say.
    clock_ahead_ms: Option<i64>,
    commands: mpsc::Sender<SessionCommand>,
    end: SessionEnd,
}

/// A session that was registered, as its owner needs it.
#[derive(Debug)]
pub(crate) struct Registered {
    /// Its number.
    pub session: u64,
    /// What it is to do.
    pub commands: mpsc::Receiver<SessionCommand>,
    /// When it is to end.
    pub end: SessionEnd,
    /// How long the session has said nothing that it took the place of; `None` when there was none.
    pub replaced: Option<Duration>,
    /// Turns of sessions that are sent cluster facts.
    pub turns: Arc<Semaphore>,
}

/// All live sessions, and the machines' other streams.
#[derive(Debug)]
pub(crate) struct Registry {
    handles: RwLock<HashMap<InstanceKey, Handle>>,
    streams: Mutex<HashMap<InstanceKey, OpenStreams>>,
    next: AtomicU64,
    came: watch::Sender<u64>,
    turns: Arc<Semaphore>,
}

/// What a machine has open beside its session: one end for all of it. Only there while something is open.
#[derive(Debug)]
struct OpenStreams {
    number: u64,
    open: usize,
    shut_out: CancellationToken,
}

impl Registry {
    /// An empty one. Sessions are numbered from `first` on, which must grow from start to start of the master.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            handles: RwLock::default(),
            streams: Mutex::default(),
            next: AtomicU64::new(first),
            came: watch::Sender::new(first),
            turns: Arc::new(Semaphore::new(HAND_OUT_TURNS)),
        }
    }

    /// Puts a session in the place of any other of the same instance, which ends.
    pub(crate) fn register(&self, at: &InstanceKey) -> Registered {
        let session = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, commands) = mpsc::channel(COMMANDS);
        let end = SessionEnd::default();
        let handle = Handle {
            session,
            protocol: None,
            clock_ahead_ms: None,
            commands: sender,
            end: end.clone(),
        };
        let old = self
            .handles
            .write()
            .expect("nobody panics with it")
            .insert(at.clone(), handle);
        let replaced = old.map(|old| {
            old.end.fire(Closed::Replaced);
            old.end.silent_for()
        });
        self.came.send_replace(session);
        Registered {
            session,
            commands,
            end,
            replaced,
            turns: Arc::clone(&self.turns),
        }
    }

    /// Notes which version of the protocol a session speaks, as it was agreed on.
    pub(crate) fn agreed(&self, at: &InstanceKey, session: u64, protocol: u32) {
        let mut handles = self.handles.write().expect("nobody panics with it");
        if let Some(handle) = handles.get_mut(at).filter(|it| it.session == session) {
            handle.protocol = Some(protocol);
        }
        drop(handles);
        self.came.send_modify(|_| {});
    }

    /// Notes by how much a session's machine has its clock ahead of this host's.
    pub(crate) fn note_clock(&self, at: &InstanceKey, session: u64, ahead_ms: i64) {
        let mut handles = self.handles.write().expect("nobody panics with it");
        if let Some(handle) = handles.get_mut(at).filter(|it| it.session == session) {
            handle.clock_ahead_ms = Some(ahead_ms);
        }
    }

    /// By how much the machines with a session that said so had their clocks ahead of this host's at their hello, ms.
    pub(crate) fn clocks(&self) -> Vec<(InstanceKey, i64)> {
        let handles = self.handles.read().expect("nobody panics with it");
        let said =
            |(at, handle): (&InstanceKey, &Handle)| Some((at.clone(), handle.clock_ahead_ms?));
        handles.iter().filter_map(said).collect()
    }

    /// Which version of the protocol the session of an instance speaks; `None` without one, and before its hello.
    pub(crate) fn protocol(&self, at: &InstanceKey) -> Option<u32> {
        let handles = self.handles.read().expect("nobody panics with it");
        handles.get(at).and_then(|handle| handle.protocol)
    }

    /// Changes whenever a session comes, and whenever one has said hello.
    pub(crate) fn arrivals(&self) -> watch::Receiver<u64> {
        self.came.subscribe()
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.handles.read().expect("nobody panics with it").len()
    }

    /// Whether an instance has a session.
    pub(crate) fn has(&self, at: &InstanceKey) -> bool {
        self.handles
            .read()
            .expect("nobody panics with it")
            .contains_key(at)
    }

    /// Takes a session out, unless a newer one has its place.
    pub(crate) fn remove(&self, at: &InstanceKey, session: u64) {
        self.forget(at, |handle| handle.session == session);
    }

    /// Ends this very session and forgets it in the same step; says whether it was there.
    pub(crate) fn end(&self, at: &InstanceKey, session: u64, why: Closed) -> bool {
        let found = self.forget(at, |handle| handle.session == session);
        found.map(|handle| handle.end.fire(why)).is_some()
    }

    /// Ends all that the machine of an instance has open, whatever session it is in, and forgets it in the same step.
    pub(crate) fn shut_out(&self, at: &InstanceKey) {
        if let Some(handle) = self.forget(at, |_| true) {
            handle.end.fire(Closed::Revoked);
        }
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(streams) = streams.remove(at) {
            streams.shut_out.cancel();
        }
    }

    /// Ends the sessions of all machines of a cluster, and forgets them in the same step.
    pub(crate) fn end_all(&self, cluster: &ClusterName, why: &Closed) {
        let mut handles = self.handles.write().expect("nobody panics with it");
        for (_, handle) in handles.extract_if(|at, _| at.cluster == *cluster) {
            handle.end.fire(why.clone());
        }
    }

    fn forget(&self, at: &InstanceKey, is_meant: impl FnOnce(&Handle) -> bool) -> Option<Handle> {
        let mut handles = self.handles.write().expect("nobody panics with it");
        if handles.get(at).is_some_and(is_meant) {
            return handles.remove(at);
        }
        None
    }

    /// Gives a command to this very session; says whether it was taken.
    pub(crate) fn send(&self, at: &InstanceKey, session: u64, command: SessionCommand) -> bool {
        self.give(at, |handle| handle.session == session, command)
            .is_some()
    }

    /// Gives a command to whichever session there is; gives its end when it was taken.
    pub(crate) fn send_any(&self, at: &InstanceKey, command: SessionCommand) -> Option<SessionEnd> {
        self.give(at, |_| true, command)
    }

    /// A session whose queue is full does not read: it ends, and is forgotten, for what it would miss is never sent again
    /// in it.
    fn give(
        &self,
        at: &InstanceKey,
        is_meant: impl FnOnce(&Handle) -> bool,
        command: SessionCommand,
    ) -> Option<SessionEnd> {
        let full = {
            let handles = self.handles.read().expect("nobody panics with it");
            let handle = handles.get(at).filter(|handle| is_meant(handle))?;
            match handle.commands.try_send(command) {
                Ok(()) => return Some(handle.end.clone()),
                Err(mpsc::error::TrySendError::Full(_)) => handle.session,
                Err(mpsc::error::TrySendError::Closed(_)) => return None,
            }
        };
        self.end(at, full, Closed::Unread);
        None
    }

    /// Notes that a machine opens a stream beside its session: it is told when it is shut out.
    pub(crate) fn open(self: &Arc<Self>, at: &InstanceKey) -> Open {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = streams.entry(at.clone()).or_insert_with(|| OpenStreams {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            open: 0,
            shut_out: CancellationToken::new(),
        });
        entry.open += 1;
        Open {
            registry: Arc::clone(self),
            at: at.clone(),
            number: entry.number,
            shut_out: entry.shut_out.clone(),
        }
    }
}

/// A stream that a machine has open beside its session, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Open {
    registry: Arc<Registry>,
    at: InstanceKey,
    number: u64,
    shut_out: CancellationToken,
}

impl Open {
    /// Fires when the machine is shut out: the stream is to end then, whatever it was about.
    pub(crate) fn shut_out(&self) -> &CancellationToken {
        &self.shut_out
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut streams = self
            .registry
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Another machine of the instance may have its own by now.
        if let Some(entry) = streams.get_mut(&self.at)
            && entry.number == self.number
        {
            entry.open -= 1;
            if entry.open == 0 {
                streams.remove(&self.at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> InstanceKey {
        InstanceKey {
            cluster: "c".parse().expect("a name"),
            instance: "a".parse().expect("a name"),
        }
    }

    fn command() -> SessionCommand {
        SessionCommand::Send(Box::new(master_message::Body::Reboot(
            aot_proto::v1::Reboot::default(),
        )))
    }

    #[test]
    fn a_late_close_keeps_the_new_session() {
        let registry = Registry::new(7);
        let old = registry.register(&key());
        let mut new = registry.register(&key());
        assert!(new.session > old.session);
        assert_eq!(old.end.why(), Some(&Closed::Replaced));
        assert!(old.replaced.is_none() && new.replaced.is_some());
        registry.remove(&key(), old.session);
        assert!(!registry.end(&key(), old.session, Closed::Revoked));
        assert_eq!(new.end.why(), None);
        assert!(registry.send_any(&key(), command()).is_some());
        assert!(new.commands.try_recv().is_ok());
        assert!(
            !registry.send(&key(), old.session, command()),
            "the old one is not sent to"
        );
        registry.remove(&key(), new.session);
        assert!(registry.send_any(&key(), command()).is_none());
    }

    #[test]
    fn what_a_session_speaks_is_known_from_its_hello_on_and_of_that_session_alone() {
        let registry = Registry::new(1);
        let old = registry.register(&key());
        let arrivals = registry.arrivals();
        assert_eq!(registry.protocol(&key()), None);
        registry.agreed(&key(), old.session, 4);
        assert!(arrivals.has_changed().expect("it is open"));
        assert_eq!(registry.protocol(&key()), Some(4));
        let new = registry.register(&key());
        registry.agreed(&key(), old.session, 4);
        assert_eq!(registry.protocol(&key()), None);
        registry.agreed(&key(), new.session, 5);
        assert_eq!(registry.protocol(&key()), Some(5));
    }

    #[test]
    fn a_session_that_is_ended_is_forgotten_in_the_same_step() {
        let registry = Registry::new(1);
        let open = registry.register(&key());
        assert!(registry.end(&key(), open.session, Closed::Expired));
        assert_eq!(open.end.why(), Some(&Closed::Expired));
        assert!(!registry.has(&key()));
        assert!(!registry.send(&key(), open.session, command()));
    }

    #[test]
    fn a_session_that_does_not_read_ends_when_its_queue_is_full_and_can_be_shut_out_before() {
        let registry = Registry::new(1);
        let unread = registry.register(&key());
        for _ in 0..COMMANDS {
            assert!(registry.send(&key(), unread.session, command()));
        }
        assert_eq!(unread.end.why(), None);
        assert!(!registry.send(&key(), unread.session, command()));
        assert_eq!(unread.end.why(), Some(&Closed::Unread));
        assert!(!registry.has(&key()));

        let unread = registry.register(&key());
        while unread.commands.capacity() > 0 {
            assert!(registry.send(&key(), unread.session, command()));
        }
        registry.shut_out(&key());
        assert_eq!(unread.end.why(), Some(&Closed::Revoked));
        assert!(!registry.has(&key()));
    }

    #[test]
    fn all_streams_of_a_machine_end_when_it_is_shut_out_and_those_of_the_next_one_do_not() {
        let registry = Arc::new(Registry::new(1));
        let (first, second) = (registry.open(&key()), registry.open(&key()));
        drop(first);
        registry.shut_out(&key());
        assert!(second.shut_out().is_cancelled());
        let next = registry.open(&key());
        drop(second);
        assert!(!next.shut_out().is_cancelled());
        assert_eq!(registry.streams.lock().expect("fine").len(), 1);
        drop(next);
        assert!(registry.streams.lock().expect("fine").is_empty());
    }
}
