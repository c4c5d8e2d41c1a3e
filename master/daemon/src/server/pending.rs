//! Where an operator who waits for a terminal, or for a connection, and the agent that opens it find each other, by its secret
//! id. Used by both APIs; keeps nothing once they have met.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aot_model::key::InstanceKey;
use aot_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// What may wait for its agent at once, over all clusters: terminals, and by themselves connections.
const MOST_WAITING: usize = 256;

/// Both halves of an agent's stream.
#[derive(Debug)]
pub(crate) struct StreamHalves<U, D> {
    /// From the agent, its hello taken.
    pub up: U,
    /// To the agent. When it is dropped, the agent hangs up.
    pub down: mpsc::Sender<Result<D, Status>>,
    /// Fires when the agent's machine is shut out.
    pub over: CancellationToken,
}

/// Of a terminal.
pub(crate) type ShellLink = StreamHalves<Streaming<v1::ShellUp>, v1::ShellDown>;

/// Of a forwarded connection.
pub(crate) type TunnelLink = StreamHalves<Streaming<v1::TunnelUp>, v1::TunnelPiece>;

#[derive(Debug)]
struct PendingLink<L> {
    at: InstanceKey,
    taker: oneshot::Sender<L>,
}

/// Whatever waits for its agent's link, of one kind.
#[derive(Debug)]
pub(crate) struct PendingLinks<L>(Arc<Mutex<HashMap<String, PendingLink<L>>>>);

impl<L> Default for PendingLinks<L> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<L> Clone for PendingLinks<L> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// An agent's link to come. Dropping it ends the wait: nobody is let in any more.
#[derive(Debug)]
pub(crate) struct Wait<L> {
    links: PendingLinks<L>,
    id: String,
    link: oneshot::Receiver<L>,
}

impl<L> PendingLinks<L> {
    /// Waits for `id` of the agent of `at`, from now on. `None` when too many wait already.
    pub(crate) fn expect(&self, id: &str, at: &InstanceKey) -> Option<Wait<L>> {
        let (taker, link) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST_WAITING {
            return None;
        }
        let at = at.clone();
        waiting.insert(id.to_owned(), PendingLink { at, taker });
        Some(Wait {
            links: self.clone(),
            id: id.to_owned(),
            link,
        })
    }

    /// Hands an agent's link to whoever waits for it; gives it back when nobody does, or not for that agent.
    ///
    /// # Errors
    /// The link.
    pub(crate) fn bring(&self, id: &str, at: &InstanceKey, link: L) -> Result<(), L> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Another agent's guess must not end the wait of the right one.
        if waiting.get(id).is_none_or(|found| found.at != *at) {
            return Err(link);
        }
        match waiting.remove(id) {
            Some(found) => found.taker.send(link),
            None => Err(link),
        }
    }
}

impl<L> Wait<L> {
    /// The link, when it comes. Cancel safe.
    pub(crate) async fn link(&mut self) -> Option<L> {
        (&mut self.link).await.ok()
    }
}

impl<L> Drop for Wait<L> {
    fn drop(&mut self) {
        let mut waiting = self.links.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(instance: &str) -> InstanceKey {
        InstanceKey {
            cluster: "c".parse().expect("a name"),
            instance: instance.parse().expect("a name"),
        }
    }

    #[tokio::test]
    async fn only_the_agent_that_was_asked_gets_in_and_only_once() {
        let links = PendingLinks::default();
        let mut wait = links.expect("id", &key("web1")).expect("there is room");
        assert!(links.bring("id", &key("web2"), 1).is_err());
        assert!(links.bring("other", &key("web1"), 2).is_err());
        assert!(links.bring("id", &key("web1"), 3).is_ok());
        assert_eq!(wait.link().await, Some(3));
        assert!(links.bring("id", &key("web1"), 4).is_err());
    }

    #[test]
    fn nobody_gets_in_after_the_wait_and_the_room_is_given_back() {
        let links: PendingLinks<u32> = PendingLinks::default();
        let waits: Vec<_> = (0..MOST_WAITING)
            .map(|n| links.expect(&n.to_string(), &key("web1")))
            .collect();
        assert!(waits.iter().all(Option::is_some));
        assert!(links.expect("more", &key("web1")).is_none());
        drop(waits);
        assert!(links.bring("0", &key("web1"), 1).is_err());
        assert!(links.expect("more", &key("web1")).is_some());
    }
}
