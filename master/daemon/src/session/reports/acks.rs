//! What was stored is acknowledged, for only then may its agent drop it; acks of one run that are ready together become one.

use aot_proto::v1::{self, master_message};
use aot_store::spool::Arrived;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};

use super::output::StoredPiece;
use super::{Master, Reports};

impl<M: Master> Reports<M> {
    /// Acknowledges what is stored by now: of each run only the last of its pieces. Gives the bytes of all of them.
    pub(super) async fn stored<F: Future<Output = StoredPiece> + Send>(
        &mut self,
        pieces: &mut FuturesOrdered<F>,
        first: StoredPiece,
    ) -> usize {
        let mut last = first;
        let mut bytes = last.1;
        while let Some(Some(next)) = pieces.next().now_or_never() {
            bytes += next.1;
            let before = std::mem::replace(&mut last, next);
            // An ack counts bytes from the start: the later one says all that the earlier one would.
            let follows = last.0 == before.0 && last.2.is_ok();
            if !(follows && is_part(&before)) {
                self.ack(before).await;
            }
        }
        self.ack(last).await;
        bytes
    }

    /// Acknowledges a piece, or has it requested again; the last one of a run brings its end to the loop.
    pub(super) async fn ack(&mut self, (run, _, arrived): StoredPiece) {
        match arrived {
            Ok(Arrived::Part(progress)) => {
                self.send(master_message::Body::SpoolAck(v1::SpoolAck {
                    run_id: run.to_string(),
                    bytes: progress.bytes,
                    resend: false,
                }));
                if progress.ended {
                    self.run_ended(run, None).await;
                }
            }
            // Not acknowledged: it is on disk only with its run's end, and then its agent may forget the run.
            Ok(Arrived::Whole(bytes)) => self.run_ended(run, Some(bytes)).await,
            Err(error) => self.not_stored(run, &error).await,
        }
    }
}

/// More of the same run is to come, or has.
fn is_part((_, _, arrived): &StoredPiece) -> bool {
    matches!(arrived, Ok(Arrived::Part(progress)) if !progress.ended)
}
