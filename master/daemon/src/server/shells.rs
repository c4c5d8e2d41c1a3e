//! Where an operator who waits for a terminal and the agent that opens it find each other, by the terminal's secret id. Used by
//! both APIs; keeps nothing once they have met.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aot_model::key::InstanceKey;
use aot_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Terminals that may wait for their agents at once, over all clusters.
const MOST_WAITING: usize = 256;

/// Both halves of an agent's stream.
#[derive(Debug)]
pub(crate) struct StreamHalves<S> {
    /// From the agent, its hello taken.
    pub up: S,
    /// To the agent. When it is dropped, the agent hangs up.
    pub down: mpsc::Sender<Result<v1::ShellDown, Status>>,
    /// Fires when the agent's machine is shut out.
    pub over: CancellationToken,
}

#[derive(Debug)]
struct PendingShell<S> {
    at: InstanceKey,
    taker: oneshot::Sender<StreamHalves<S>>,
}

/// Terminals that wait for their agents.
#[derive(Debug)]
pub(crate) struct PendingShells<S>(Arc<Mutex<HashMap<String, PendingShell<S>>>>);

impl<S> Default for PendingShells<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S> Clone for PendingShells<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// An agent's link to come. Dropping it ends the wait: nobody is let in any more.
#[derive(Debug)]
pub(crate) struct Wait<S> {
    shells: PendingShells<S>,
    id: String,
    link: oneshot::Receiver<StreamHalves<S>>,
}

impl<S> PendingShells<S> {
    /// Waits for `id` of the agent of `at`, from now on. `None` when too many wait already.
    pub(crate) fn expect(&self, id: &str, at: &InstanceKey) -> Option<Wait<S>> {
        let (taker, link) = oneshot::channel();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST_WAITING {
            return None;
        }
        let at = at.clone();
        waiting.insert(id.to_owned(), PendingShell { at, taker });
        Some(Wait {
            shells: self.clone(),
            id: id.to_owned(),
            link,
        })
    }

    /// Hands an agent's link to whoever waits for it; gives it back when nobody does, or not for that agent.
    ///
    /// # Errors
    /// The link.
    pub(crate) fn bring(
        &self,
        id: &str,
        at: &InstanceKey,
        link: StreamHalves<S>,
    ) -> Result<(), StreamHalves<S>> {
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

impl<S> Wait<S> {
    /// The link, when it comes. Cancel safe.
    pub(crate) async fn link(&mut self) -> Option<StreamHalves<S>> {
        (&mut self.link).await.ok()
    }
}

impl<S> Drop for Wait<S> {
    fn drop(&mut self) {
        let mut waiting = self.shells.0.lock().unwrap_or_else(PoisonError::into_inner);
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

    fn link(up: u32) -> StreamHalves<u32> {
        let (down, _) = mpsc::channel(1);
        let over = CancellationToken::new();
        StreamHalves { up, down, over }
    }

    #[tokio::test]
    async fn only_the_agent_that_was_asked_gets_in_and_only_once() {
        let shells = PendingShells::default();
        let mut wait = shells.expect("id", &key("web1")).expect("there is room");
        assert!(shells.bring("id", &key("web2"), link(1)).is_err());
        assert!(shells.bring("other", &key("web1"), link(2)).is_err());
        assert!(shells.bring("id", &key("web1"), link(3)).is_ok());
        assert_eq!(wait.link().await.map(|link| link.up), Some(3));
        assert!(shells.bring("id", &key("web1"), link(4)).is_err());
    }

    #[test]
    fn nobody_gets_in_after_the_wait_and_the_room_is_given_back() {
        let shells: PendingShells<u32> = PendingShells::default();
        let waits: Vec<_> = (0..MOST_WAITING)
            .map(|n| shells.expect(&n.to_string(), &key("web1")))
            .collect();
        assert!(waits.iter().all(Option::is_some));
        assert!(shells.expect("more", &key("web1")).is_none());
        drop(waits);
        assert!(shells.bring("0", &key("web1"), link(1)).is_err());
        assert!(shells.expect("more", &key("web1")).is_some());
    }
}
