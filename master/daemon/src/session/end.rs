//! The end of a session as a handle of one pointer: whoever has a copy can bring it about, or wait for it. It does not go
//! through the session's queues, so it reaches a session whose agent does not read as well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::Closed;

/// The end of one session. It comes once, and stays.
#[derive(Debug, Clone)]
pub(crate) struct SessionEnd(Arc<Once>);

#[derive(Debug)]
struct Once {
    why: OnceLock<Closed>,
    come: CancellationToken,
    begun: Instant,
    /// Milliseconds after that until the agent last said something.
    heard: AtomicU64,
}

impl Default for SessionEnd {
    fn default() -> Self {
        Self(Arc::new(Once {
            why: OnceLock::new(),
            come: CancellationToken::new(),
            begun: Instant::now(),
            heard: AtomicU64::new(0),
        }))
    }
}

impl SessionEnd {
    /// The agent says something.
    pub(crate) fn hear(&self, now: Instant) {
        let since = now.saturating_duration_since(self.0.begun).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        self.0.heard.store(since, Ordering::Relaxed);
    }

    /// How long the agent has said nothing.
    pub(crate) fn silent_for(&self) -> Duration {
        let heard = Duration::from_millis(self.0.heard.load(Ordering::Relaxed));
        self.0.begun.elapsed().saturating_sub(heard)
    }

    /// Brings it about. Only the first reason counts.
    pub(crate) fn fire(&self, why: Closed) {
        self.0.why.get_or_init(|| why);
        self.0.come.cancel();
    }

    /// Why, once it has come.
    pub(crate) fn why(&self) -> Option<&Closed> {
        self.0.why.get().filter(|_| self.0.come.is_cancelled())
    }

    /// Done once it has come. Cancel safe, and may be asked again afterwards.
    pub(crate) fn come(&self) -> WaitForCancellationFuture<'_> {
        self.0.come.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays_and_everybody_hears_of_it() {
        let end = SessionEnd::default();
        let other = end.clone();
        assert_eq!(other.why(), None);
        end.fire(Closed::Revoked);
        end.fire(Closed::Replaced);
        other.come().await;
        assert_eq!(other.why(), Some(&Closed::Revoked));
    }
}
