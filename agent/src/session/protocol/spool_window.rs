//! How output is sent: which piece of which spool goes next, and when. Runs take turns, no more than the window is ever
//! under way, and small pieces wait for one another. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aot_proto::frame::MAX_FRAME_BYTES;
use aot_proto::ids::RunId;
use aot_proto::limits::{SPOOL_CHUNK_BYTES, SPOOL_WINDOW_BYTES};
use aot_proto::v1::SpoolAck;

/// A piece of this many bytes is sent at once. A smaller one of a run of which something is under way waits for more: many
/// small messages that a master has not read yet end the connection (HTTP/2, the h2 crate).
const ENOUGH: u64 = 4 << 10;
/// But no longer than this.
const TOGETHER: Duration = Duration::from_millis(20);
/// A master that has acknowledged nothing for this long, of something that is under way, is behind: small pieces wait for it.
const BEHIND: Duration = Duration::from_millis(250);

/// How far one run's spool has come.
#[derive(Debug, Clone, Copy, Default)]
struct SpoolProgress {
    bytes: u64,
    sent: u64,
    acked: u64,
    /// When the first byte came that is not sent.
    since: Option<Instant>,
}

/// A piece of a spool to be read and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolPiece {
    /// Whose spool.
    pub run: RunId,
    /// Of its first byte.
    pub offset: u64,
    /// At most this many bytes.
    pub most: usize,
}

/// Every spool of a session, and how far each has been sent and acknowledged.
#[derive(Debug)]
pub(super) struct SpoolWindow {
    runs: BTreeMap<RunId, SpoolProgress>,
    /// The run that was served last: the next one has its turn.
    served: Option<RunId>,
    /// When an acknowledgement came last, or the first piece went out since all were acknowledged.
    acked_at: Instant,
}

impl SpoolWindow {
    /// No run yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            runs: BTreeMap::new(),
            served: None,
            acked_at: now,
        }
    }

    /// A run's spool is `bytes` long now.
    pub(super) fn grown(&mut self, run: RunId, bytes: u64, now: Instant) {
        let progress = self.runs.entry(run).or_default();
        if progress.bytes <= progress.sent {
            progress.since = Some(now);
        }
        progress.bytes = progress.bytes.max(bytes);
    }

    /// A run that an earlier session has sent: its spool is `bytes` long, and the master has `acked` of them.
    pub(super) fn resume(&mut self, run: RunId, bytes: u64, acked: u64) {
        let progress = self.runs.entry(run).or_default();
        progress.bytes = progress.bytes.max(bytes);
        (progress.sent, progress.acked) = (acked, acked);
    }

    /// The master has this much of a run; with `resend` it could not keep what came after it.
    pub(super) fn acked(&mut self, ack: &SpoolAck, now: Instant) {
        self.acked_at = now;
        let run = ack.run_id.parse().ok();
        if let Some(progress) = run.and_then(|run: RunId| self.runs.get_mut(&run)) {
            progress.acked = progress.acked.max(ack.bytes.min(progress.sent));
            if ack.resend {
                progress.sent = ack.bytes.min(progress.bytes);
                progress.acked = progress.sent;
            }
        }
    }

    /// The next piece of a spool that may be sent: runs in turn, never more under way than the window.
    pub(super) fn next_piece(&self, now: Instant) -> Option<SpoolPiece> {
        let room = self.room();
        if room < MAX_FRAME_BYTES {
            return None;
        }
        let wanting = |(run, progress): (&RunId, &SpoolProgress)| {
            self.may_go(progress, now).then_some((*run, progress.sent))
        };
        let after = self.served.and_then(|served| {
            let range = (
                std::ops::Bound::Excluded(served),
                std::ops::Bound::Unbounded,
            );
            self.runs.range(range).find_map(wanting)
        });
        let (run, offset) = after.or_else(|| self.runs.iter().find_map(wanting))?;
        Some(SpoolPiece {
            run,
            offset,
            most: room.min(SPOOL_CHUNK_BYTES),
        })
    }

    /// Bytes that were sent and are not acknowledged.
    fn under_way(&self) -> u64 {
        self.runs.values().map(|run| run.sent - run.acked).sum()
    }

    /// Bytes that may be sent before more are acknowledged.
    fn room(&self) -> usize {
        let under_way = usize::try_from(self.under_way()).unwrap_or(usize::MAX);
        SPOOL_WINDOW_BYTES.saturating_sub(under_way)
    }

    fn is_behind(&self, now: Instant) -> bool {
        now >= self.acked_at + BEHIND
    }

    /// Whether there is something to be sent, and enough.
    fn may_go(&self, progress: &SpoolProgress, now: Instant) -> bool {
        let unsent = progress.bytes.saturating_sub(progress.sent);
        let alone = progress.sent == progress.acked;
        let waited = || progress.since.is_none_or(|since| now >= since + TOGETHER);
        unsent > 0 && (unsent >= ENOUGH || alone || (waited() && !self.is_behind(now)))
    }

    /// When a piece that waits for more may go without; `None` when none does, or the master has to catch up first.
    pub(super) fn piece_at(&self, now: Instant) -> Option<Instant> {
        if self.is_behind(now) || self.room() < MAX_FRAME_BYTES {
            return None;
        }
        let waiting = self.runs.values().filter(|run| run.bytes > run.sent);
        waiting
            .filter_map(|run| run.since)
            .min()
            .map(|since| since + TOGETHER)
    }

    /// This many bytes of the piece are under way now. 0 means that there is no whole frame yet: the run waits until its spool
    /// has grown.
    pub(super) fn sent(&mut self, piece: SpoolPiece, bytes: usize, now: Instant) {
        self.served = Some(piece.run);
        if self.under_way() == 0 {
            self.acked_at = now;
        }
        if let Some(progress) = self.runs.get_mut(&piece.run) {
            progress.sent += bytes as u64;
            progress.since = Some(now);
            if bytes == 0 {
                progress.bytes = progress.sent;
            }
        }
    }

    /// Nothing more of the run is sent: it was forgotten, or can't be read.
    pub(super) fn remove(&mut self, run: RunId) {
        self.runs.remove(&run);
    }
}

#[cfg(test)]
mod tests;
