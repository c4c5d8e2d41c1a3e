//! Forwards that operators have open: what their connections are led by, and what these have carried. A forward lives as long
//! as the call that began it; its connections are calls of their own, which find it by its job.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aot_model::key::InstanceKey;
use aot_proto::ids::JobId;
use aot_proto::limits::MAX_TUNNELS;
use aot_proto::{plural, v1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Permits of a forward: one a connection.
const TURNS: u32 = MAX_TUNNELS as u32;

/// One forward.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Whose machine its connections come out at.
    pub at: InstanceKey,
    /// Who began it: nobody else uses it.
    pub operator: String,
    /// Where they lead to from there.
    pub to: v1::TunnelDestination,
    /// Ends all of them.
    pub end: CancellationToken,
    turns: Arc<Semaphore>,
    tally: ForwardTally,
}

/// What a forward's connections have come to.
#[derive(Debug, Default)]
struct ForwardTally {
    opened: AtomicU64,
    refused: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Forward {
    /// One without connections.
    pub(crate) fn new(at: InstanceKey, operator: String, to: v1::TunnelDestination) -> Self {
        Self {
            at,
            operator,
            to,
            end: CancellationToken::new(),
            turns: Arc::new(Semaphore::new(MAX_TUNNELS)),
            tally: ForwardTally::default(),
        }
    }

    /// Room for one more connection, for as long as it lives; `None` when there are too many.
    pub(crate) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.turns.clone().try_acquire_owned().ok()
    }

    /// Waits until it has no connections, and will have none.
    pub(crate) async fn emptied(&self) {
        if let Ok(all) = self.turns.acquire_many(TURNS).await {
            all.forget();
        }
    }

    /// A connection was refused by the machine, or did not come about.
    pub(crate) fn refused(&self) {
        self.tally.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended that carried this many bytes to the machine, and from it.
    pub(crate) fn carried(&self, sent: u64, received: u64) {
        self.tally.opened.fetch_add(1, Ordering::Relaxed);
        self.tally.sent.fetch_add(sent, Ordering::Relaxed);
        self.tally.received.fetch_add(received, Ordering::Relaxed);
    }

    /// All of that, for the record.
    pub(crate) fn summary(&self) -> String {
        let count = |it: &AtomicU64| it.load(Ordering::Relaxed);
        let number = |it| usize::try_from(count(it)).unwrap_or(usize::MAX);
        let mut text = format!(
            "{}, {} bytes sent, {} received",
            plural::count(number(&self.tally.opened), "connection"),
            count(&self.tally.sent),
            count(&self.tally.received),
        );
        let refused = count(&self.tally.refused);
        if refused > 0 {
            text.push_str(&format!(", {refused} refused"));
        }
        text
    }
}

/// All forwards that are open, by their jobs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forwards(Arc<Mutex<HashMap<JobId, Arc<Forward>>>>);

impl Forwards {
    /// Adds one, for as long as what this gives lives.
    pub(crate) fn open(&self, job: JobId, forward: Arc<Forward>) -> OpenForward {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(job, Arc::clone(&forward));
        OpenForward {
            forwards: self.clone(),
            job,
            forward,
        }
    }

    /// The forward of this job, if it is open and this operator's.
    pub(crate) fn of(&self, job: JobId, operator: &str) -> Option<Arc<Forward>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.get(&job)?;
        (found.operator == operator).then(|| Arc::clone(found))
    }
}

/// A forward while it is open; dropped, its connections end and no further ones are let in.
#[derive(Debug)]
pub(crate) struct OpenForward {
    forwards: Forwards,
    job: JobId,
    forward: Arc<Forward>,
}

impl Drop for OpenForward {
    fn drop(&mut self) {
        let mut all = self
            .forwards
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.job);
        self.forward.end.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward() -> Arc<Forward> {
        let at = InstanceKey {
            cluster: "c".parse().expect("a name"),
            instance: "web1".parse().expect("a name"),
        };
        let to = v1::TunnelDestination::default();
        Arc::new(Forward::new(at, "uid 0".to_owned(), to))
    }

    #[test]
    fn a_forward_is_found_by_its_own_operator_for_as_long_as_it_is_open() {
        let (forwards, job) = (Forwards::default(), JobId::from_parts(1, 1));
        let open = forwards.open(job, forward());
        let found = forwards.of(job, "uid 0").expect("it is open");
        assert!(forwards.of(job, "uid 1").is_none(), "it is another's");
        assert!(forwards.of(JobId::from_parts(2, 2), "uid 0").is_none());
        assert!(!found.end.is_cancelled());
        drop(open);
        assert!(found.end.is_cancelled(), "its connections end");
        assert!(forwards.of(job, "uid 0").is_none());
    }

    #[tokio::test]
    async fn connections_are_bounded_and_waited_for() {
        let forward = forward();
        let mut turns: Vec<_> = (0..MAX_TUNNELS).map_while(|_| forward.turn()).collect();
        assert_eq!(turns.len(), MAX_TUNNELS);
        assert!(forward.turn().is_none());
        turns.pop();
        assert!(forward.turn().is_some(), "the room is given back");
        let mut emptied = std::pin::pin!(forward.emptied());
        assert!(futures::poll!(emptied.as_mut()).is_pending());
        drop(turns);
        emptied.await;
        assert!(forward.turn().is_none(), "there will be none");
    }

    #[test]
    fn the_record_says_what_was_carried() {
        let forward = forward();
        assert_eq!(forward.summary(), "0 connections, 0 bytes sent, 0 received");
        forward.carried(10, 20);
        forward.refused();
        let summary = forward.summary();
        assert_eq!(
            summary,
            "1 connection, 10 bytes sent, 20 received, 1 refused"
        );
    }
}
