//! Cluster facts on their way to one agent: piece after piece, each once its stream has taken what was before it. Sessions have
//! turns, so that what waits in the streams does not grow with the number of machines. Asked by `stream`, which sends its
//! control messages first.

use std::sync::Arc;

use aot_proto::facts::Pieces;
use aot_proto::limits::HAND_OUT_TURN;
use aot_proto::v1::ClusterFactsPiece;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// What is left to be sent to one agent, and whether it has its turn. Dropped, it gives its turn back.
pub(super) struct HandOut {
    turns: Arc<Semaphore>,
    pieces: Pieces,
    next: usize,
    turn: Turn,
}

enum Turn {
    /// Its place in the queue is kept for as long as this lives.
    Awaited(BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>),
    Has {
        _permit: OwnedSemaphorePermit,
        until: Instant,
    },
}

impl HandOut {
    pub(super) fn new(turns: &Arc<Semaphore>, pieces: Pieces) -> Self {
        Self {
            turns: Arc::clone(turns),
            pieces,
            next: 0,
            turn: awaited(turns),
        }
    }

    pub(super) fn has_turn(&self) -> bool {
        matches!(self.turn, Turn::Has { .. })
    }

    /// Waits for its turn, unless it has it. May be dropped and called again: it keeps its place in the queue.
    pub(super) async fn await_turn(&mut self) {
        if let Turn::Awaited(turn) = &mut self.turn
            && let Ok(permit) = turn.await
        {
            self.turn = Turn::Has {
                _permit: permit,
                until: Instant::now() + HAND_OUT_TURN,
            };
        }
    }

    /// The next piece. `None` once all were sent: when the stream has taken the last one, so that the turn lasts as long.
    pub(super) fn next(&mut self) -> Option<ClusterFactsPiece> {
        let piece = self.pieces.get(self.next).cloned();
        self.next += 1;
        piece
    }

    /// A turn that has lasted long enough is given up: it waits for the next one.
    pub(super) fn pass_on(&mut self) {
        if let Turn::Has { until, .. } = &self.turn
            && Instant::now() >= *until
        {
            self.turn = awaited(&self.turns);
        }
    }
}

fn awaited(turns: &Arc<Semaphore>) -> Turn {
    Turn::Awaited(Arc::clone(turns).acquire_owned().boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hand_out(turns: &Arc<Semaphore>) -> HandOut {
        HandOut::new(turns, [ClusterFactsPiece::default()].into())
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_given_in_order_and_back_after_their_time() {
        let turns = Arc::new(Semaphore::new(1));
        let (mut first, mut second) = (hand_out(&turns), hand_out(&turns));
        first.await_turn().await;
        assert!(first.await_turn().now_or_never().is_some(), "it has it");
        assert!(second.await_turn().now_or_never().is_none());
        first.pass_on();
        assert!(first.has_turn(), "its time is not over");
        tokio::time::advance(HAND_OUT_TURN).await;
        first.pass_on();
        assert!(!first.has_turn());
        let mut third = hand_out(&turns);
        // In the order in which they asked first, however often they are asked again.
        assert!(first.await_turn().now_or_never().is_none());
        assert!(third.await_turn().now_or_never().is_none());
        second.await_turn().await;
        assert!(third.await_turn().now_or_never().is_none());
        drop(second);
        first.await_turn().await;
        assert!(first.has_turn() && !third.has_turn());
        drop(first);
        third.await_turn().await;
        assert_eq!(turns.available_permits(), 0);
        drop(third);
        assert_eq!(turns.available_permits(), 1);
    }
}
