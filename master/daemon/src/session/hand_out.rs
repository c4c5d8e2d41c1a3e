//! Cluster facts on their way to one agent: piece after piece, each once its stream has taken what was before it. Sessions have
//! turns, so that what waits in the streams does not grow with the number of machines; control messages pass by. Run by `stream`.

use std::sync::Arc;
use std::time::Duration;

use aot_proto::facts::Pieces;
use aot_proto::v1::{MasterMessage, master_message};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};

/// Sessions that have their turn at once.
pub(super) const TURNS: usize = 128;

/// How long a turn takes at most: an agent that reads slowly continues in its next one.
const TURN: Duration = Duration::from_secs(10);

/// Sends all pieces; ends early when the stream is gone. Dropped at any point, it leaves pieces out and gives its turn back.
pub(super) async fn hand_out(
    turns: Arc<Semaphore>,
    outbound: mpsc::Sender<Box<MasterMessage>>,
    pieces: Pieces,
) {
    let mut left = pieces.iter();
    let mut over = false;
    while !over {
        // Never closed.
        let Ok(_turn) = turns.acquire().await else {
            return;
        };
        let end = Instant::now() + TURN;
        // Room for all is there once the stream has taken what it was given: the last piece as well.
        while let Ok(taken) = timeout_at(end, outbound.reserve_many(outbound.max_capacity())).await
        {
            let Ok(mut room) = taken else {
                return;
            };
            let (Some(piece), Some(permit)) = (left.next(), room.next()) else {
                over = true;
                break;
            };
            let body = master_message::Body::ClusterFacts(piece.clone());
            permit.send(Box::new(MasterMessage { body: Some(body) }));
            if Instant::now() >= end {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aot_proto::v1::ClusterFactsPiece;
    use tokio::time::sleep;

    use super::*;

    fn pieces(count: u64) -> Pieces {
        let piece = |n| ClusterFactsPiece {
            offset: n,
            total_bytes: count,
            ..ClusterFactsPiece::default()
        };
        (0..count).map(piece).collect()
    }

    fn offset(message: Option<Box<MasterMessage>>) -> u64 {
        match message.and_then(|it| it.body) {
            Some(master_message::Body::ClusterFacts(piece)) => piece.offset,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_goes_out_once_the_one_before_it_was_taken() {
        let turns = Arc::new(Semaphore::new(1));
        let (out, mut sent) = mpsc::channel(16);
        let task = tokio::spawn(hand_out(Arc::clone(&turns), out, pieces(5)));
        for n in 0..5 {
            sleep(Duration::from_millis(10)).await;
            assert_eq!(sent.len(), 1);
            assert_eq!(turns.available_permits(), 0, "until the last was taken");
            assert_eq!(offset(sent.recv().await), n);
        }
        task.await.expect("it ends");
        assert_eq!(turns.available_permits(), 1);
        assert!(sent.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_read_gives_its_turn_to_the_next_and_continues_later() {
        let turns = Arc::new(Semaphore::new(1));
        let (out, mut slow) = mpsc::channel(4);
        let first = tokio::spawn(hand_out(Arc::clone(&turns), out, pieces(3)));
        sleep(Duration::from_millis(10)).await;
        let (out, mut sent) = mpsc::channel(4);
        let second = tokio::spawn(hand_out(Arc::clone(&turns), out, pieces(2)));
        sleep(Duration::from_millis(10)).await;
        assert!(sent.is_empty(), "it is not its turn");
        assert_eq!(offset(sent.recv().await), 0);
        assert_eq!(offset(sent.recv().await), 1);
        second.await.expect("it ends");
        for n in 0..3 {
            assert_eq!(offset(slow.recv().await), n);
        }
        first.await.expect("it ends");
        assert_eq!(turns.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_with_its_session() {
        let turns = Arc::new(Semaphore::new(1));
        let (out, sent) = mpsc::channel(4);
        let cut_off = tokio::spawn(hand_out(Arc::clone(&turns), out.clone(), pieces(3)));
        sleep(Duration::from_millis(10)).await;
        assert_eq!(turns.available_permits(), 0);
        cut_off.abort();
        assert!(cut_off.await.is_err());
        assert_eq!(turns.available_permits(), 1);
        drop(sent);
        hand_out(Arc::clone(&turns), out, pieces(3)).await;
        assert_eq!(turns.available_permits(), 1);
    }
}
