//! What came last of a spool, in memory for those who follow it live: they need not read back from disk what has just
//! been written there. Bounded per run and over all runs; what does not fit is read from the file.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::bytes::Bytes;

/// Most bytes of one run. At least as much as an agent sends ahead of acknowledgements, so that a follower who keeps up reads no
/// file.
const RUN_BYTES: usize = 1 << 20;

/// Most bytes over all runs.
const ALL_BYTES: usize = 32 << 20;

/// Bytes that all tails together hold.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicUsize);

impl Budget {
    fn reserve(&self, bytes: usize) -> bool {
        let add = |held: usize| (held + bytes <= ALL_BYTES).then_some(held + bytes);
        let (order, fail) = (Ordering::Relaxed, Ordering::Relaxed);
        self.0.fetch_update(order, fail, add).is_ok()
    }

    fn release(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The last pieces of one run, without a gap; empty while nobody follows.
#[derive(Debug)]
pub(super) struct Tail {
    pieces: VecDeque<Bytes>,
    start: u64,
    held: usize,
    followers: usize,
    budget: Arc<Budget>,
}

impl Tail {
    /// An empty one.
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self {
            pieces: VecDeque::new(),
            start: 0,
            held: 0,
            followers: 0,
            budget,
        }
    }

    /// Someone follows.
    pub(super) fn follow(&mut self) {
        self.followers += 1;
    }

    /// Someone follows no more.
    pub(super) fn leave(&mut self) {
        self.followers -= 1;
        if self.followers == 0 {
            self.clear();
        }
    }

    /// Adds the piece that begins at `offset`; what of it is here already is left out.
    pub(super) fn push(&mut self, offset: u64, mut data: Bytes) {
        let end = self.start + self.held as u64;
        if self.held > 0 && (offset..=offset + data.len() as u64).contains(&end) {
            let here = usize::try_from(end - offset).expect("not longer than the piece");
            data = data.split_off(here);
        } else {
            self.clear();
            self.start = offset;
        }
        if data.is_empty() || self.followers == 0 {
            return;
        }
        while self.held > 0 && self.held + data.len() > RUN_BYTES {
            self.drop_first();
        }
        if self.budget.reserve(data.len()) {
            self.held += data.len();
            self.pieces.push_back(data);
        } else {
            self.clear(); // with a gap in it, it would be of no use
        }
    }

    /// The piece that holds the byte `at`, from there on. The only follower's past is forgotten.
    pub(super) fn from(&mut self, at: u64) -> Option<Bytes> {
        while self.followers == 1
            && let Some(first) = self.pieces.front()
            && self.start + first.len() as u64 <= at
        {
            self.drop_first();
        }
        let mut start = self.start;
        for piece in &self.pieces {
            let end = start + piece.len() as u64;
            if (start..end).contains(&at) {
                let skip = usize::try_from(at - start).expect("within the piece");
                return Some(piece.slice(skip..));
            }
            start = end;
        }
        None
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.pieces.pop_front() {
            self.start += first.len() as u64;
            self.held -= first.len();
            self.budget.release(first.len());
        }
    }

    fn clear(&mut self) {
        while !self.pieces.is_empty() {
            self.drop_first();
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tail() -> (Tail, Arc<Budget>) {
        let budget = Arc::new(Budget::default());
        (Tail::new(budget.clone()), budget)
    }

    fn held(budget: &Budget) -> usize {
        budget.0.load(Ordering::Relaxed)
    }

    #[test]
    fn without_a_follower_nothing_is_held() {
        let (mut tail, budget) = tail();
        tail.push(0, Bytes::from_static(b"one"));
        assert_eq!((tail.from(0), held(&budget)), (None, 0));
        tail.follow();
        tail.push(3, Bytes::from_static(b"two"));
        assert_eq!(tail.from(4), Some(Bytes::from_static(b"wo")));
        tail.leave();
        assert_eq!(held(&budget), 0);
    }

    #[test]
    fn a_run_and_all_runs_have_a_bound_and_a_follower_that_is_behind_finds_no_gap() {
        let (mut tail, budget) = tail();
        tail.follow();
        tail.follow();
        let piece = Bytes::from(vec![1; 64 << 10]);
        for n in 0..100_u64 {
            tail.push(n * piece.len() as u64, piece.clone());
        }
        assert!(held(&budget) <= RUN_BYTES, "{}", held(&budget));
        assert_eq!(tail.from(0), None, "the oldest made room");
        assert!(tail.from(99 * piece.len() as u64).is_some());
        assert!(budget.reserve(ALL_BYTES - held(&budget)));
        tail.push(100 * piece.len() as u64, piece.clone());
        assert!(held(&budget) <= ALL_BYTES);
        drop(tail);
    }

    proptest! {
        #[test]
        fn whatever_comes_in_whatever_order_what_is_given_is_what_was_written(
            steps in prop::collection::vec((0u64..200, 1usize..60, 0u64..260), 1..60), followers in 1usize..3,
        ) {
            let byte = |at: u64| (at % 251) as u8;
            let (mut tail, budget) = tail();
            for _ in 0..followers { tail.follow(); }
            for (offset, len, look) in steps {
                let bytes: Vec<u8> = (offset..offset + len as u64).map(byte).collect();
                tail.push(offset, bytes.into());
                if let Some(found) = tail.from(look) {
                    prop_assert!(!found.is_empty());
                    let wanted: Vec<u8> = (look..look + found.len() as u64).map(byte).collect();
                    prop_assert_eq!(&found[..], &wanted[..]);
                }
                prop_assert_eq!(held(&budget), tail.held);
            }
            drop(tail);
            prop_assert_eq!(held(&budget), 0);
        }
    }
}
