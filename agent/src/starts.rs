//! Children that are being started, and who must wait for them.
//!
//! Between fork(2) and execve(2) a child holds a copy of every descriptor of ours, also of a file that was being written at
//! that moment and has been closed since. Until its execve(2) that file can't be run: ETXTBSY. So whoever has written
//! programs waits, before they are run, for the starts that were under way. All of the service's children are started here
//! (`master/tests/starts.rs` holds that); a shim, a terminal's keeper and a copy write no programs of their own.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The most that someone waits: a child whose program lies on a disk that does not answer is no reason to do nothing.
const LIMIT: Duration = Duration::from_secs(10);

static STARTS: Starts = Starts::new();

/// Runs `spawn`, which returns once its child has executed its program or could not, as `spawn` of std and tokio do.
pub(crate) fn start<T>(spawn: impl FnOnce() -> T) -> T {
    STARTS.start(spawn)
}

/// Returns when no child holds a file that was closed before this call: when each start that is under way has ended,
/// ten seconds at most.
pub(crate) fn wait_for_earlier() {
    if !STARTS.wait_for(STARTS.mark(), LIMIT) {
        tracing::warn!("a child has not executed its program in 10 s; a stage's files may be busy");
    }
}

struct Starts {
    state: Mutex<StartNumbers>,
    ended: Condvar,
}

struct StartNumbers {
    /// Number of the next start.
    next: u64,
    under_way: BTreeSet<u64>,
}

/// One start, which ends with it, also when it panics.
struct StartGuard<'a> {
    starts: &'a Starts,
    number: u64,
}

impl Starts {
    const fn new() -> Self {
        Self {
            state: Mutex::new(StartNumbers {
                next: 0,
                under_way: BTreeSet::new(),
            }),
            ended: Condvar::new(),
        }
    }

    fn start<T>(&self, spawn: impl FnOnce() -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = state.next;
        state.next += 1;
        state.under_way.insert(number);
        drop(state);
        let _guard = StartGuard {
            starts: self,
            number,
        };
        spawn()
    }

    /// Every start so far has a lower number.
    fn mark(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.next
    }

    /// Waits until the starts before `mark` have ended; false when `limit` passes first.
    fn wait_for(&self, mark: u64, limit: Duration) -> bool {
        let is_under_way =
            |state: &mut StartNumbers| state.under_way.first().is_some_and(|n| *n < mark);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.ended.wait_timeout_while(state, limit, is_under_way);
        let timeout = waited.unwrap_or_else(PoisonError::into_inner).1;
        !timeout.timed_out()
    }
}

impl Drop for StartGuard<'_> {
    fn drop(&mut self) {
        let state = self.starts.state.lock();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.under_way.remove(&self.number);
        self.starts.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn earlier_starts_are_waited_for_and_later_ones_are_not() {
        let starts = Starts::new();
        let before = starts.mark();
        assert!(
            starts.wait_for(before, Duration::ZERO),
            "nothing is started"
        );
        starts.start(|| {
            assert!(starts.wait_for(before, LONG), "it is a later one");
            assert!(!starts.wait_for(starts.mark(), Duration::from_millis(1)));
        });
        assert!(
            starts.wait_for(starts.mark(), Duration::ZERO),
            "it has ended"
        );
    }

    #[test]
    fn the_end_of_a_start_wakes_who_waits_for_it() {
        let starts = Starts::new();
        let (go, may_end) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (begun, begins) = std::sync::mpsc::channel();
            let starts = &starts;
            scope.spawn(move || {
                starts.start(|| {
                    begun.send(()).unwrap();
                    may_end.recv().unwrap();
                });
            });
            begins.recv().unwrap();
            let mark = starts.mark();
            assert!(!starts.wait_for(mark, Duration::from_millis(1)));
            go.send(()).unwrap();
            assert!(starts.wait_for(mark, LONG));
        });
    }

    #[test]
    fn a_start_that_panics_has_ended() {
        let starts = Starts::new();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            starts.start(|| panic!("as a spawn never does"));
        }));
        assert!(panicked.is_err());
        assert!(starts.wait_for(starts.mark(), Duration::ZERO));
    }
}
