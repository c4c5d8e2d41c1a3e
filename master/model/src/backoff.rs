//! How long to wait before a call is made again. Pure: the time is a value.

use super::unix_ms::UnixMs;

/// The first wait; every failure in a row doubles it.
const FIRST_MS: u64 = 1_000;
/// The longest wait.
const LONGEST_MS: u64 = 60_000;

/// Milliseconds to wait after this many failures in a row; none after none.
pub(crate) fn wait_ms(failures: u32) -> u64 {
    match failures {
        0 => 0,
        n => (FIRST_MS << (n - 1).min(16)).min(LONGEST_MS),
    }
}

/// One kind of call that is repeated: at most one is under way, and after a failure the next waits from one second to
/// one minute. A success resets it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CallBackoff {
    in_flight: bool,
    failures: u32,
    next_ms: UnixMs,
}

impl CallBackoff {
    /// Whether the call may be made now.
    pub(crate) fn is_due(&self, now: UnixMs) -> bool {
        // A clock that was set back must not stop the calls.
        let is_time = now >= self.next_ms || self.next_ms - now > LONGEST_MS;
        !self.in_flight && is_time
    }

    /// Whether one is under way.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// How many have failed in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Milliseconds until the call may be made.
    pub(crate) fn left_ms(&self, now: UnixMs) -> u64 {
        self.next_ms.saturating_sub(now)
    }

    /// The call is made.
    pub(crate) fn begin(&mut self) {
        self.in_flight = true;
    }

    /// It worked: the next one need not wait.
    pub(crate) fn worked(&mut self) {
        *self = Self::default();
    }

    /// It failed: the next one waits, longer with every failure.
    pub(crate) fn failed(&mut self, now: UnixMs) {
        self.in_flight = false;
        self.failures = self.failures.saturating_add(1);
        self.next_ms = now + wait_ms(self.failures);
    }

    /// Not within this many milliseconds, whatever the number of failures.
    pub(crate) fn wait_at_least(&mut self, now: UnixMs, ms: u64) {
        self.next_ms = self.next_ms.max(now + ms);
    }

    /// Somebody has asked for it: it is made at once, unless one is under way.
    pub(crate) fn hurry(&mut self) {
        *self = Self {
            in_flight: self.in_flight,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_a_second_to_a_minute() {
        let waits: Vec<u64> = (0..9).map(wait_ms).collect();
        assert_eq!(
            waits,
            [
                0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000
            ]
        );
        assert_eq!(wait_ms(u32::MAX), 60_000);
    }

    #[test]
    fn one_call_at_a_time_and_none_before_its_time() {
        let mut calls = CallBackoff::default();
        assert!(calls.is_due(0));
        calls.begin();
        assert!(!calls.is_due(u64::MAX), "one is under way");
        calls.failed(10_000);
        assert!(!calls.is_due(10_999) && calls.is_due(11_000));
        calls.begin();
        calls.failed(11_000);
        assert_eq!((calls.failures(), calls.left_ms(11_500)), (2, 1_500));
        calls.worked();
        assert!(calls.is_due(11_000) && calls.failures() == 0);
    }

    #[test]
    fn calls_in_a_minute_of_refusals_are_few() {
        let (mut calls, mut made) = (CallBackoff::default(), 0);
        for now in (0..60_000).step_by(10) {
            if calls.is_due(now) {
                made += 1;
                calls.begin();
                calls.failed(now);
            }
        }
        assert_eq!(made, 6);
    }

    #[test]
    fn a_hurry_ends_the_wait_but_makes_no_second_call() {
        let mut calls = CallBackoff::default();
        calls.failed(0);
        calls.wait_at_least(0, 30_000);
        assert!(!calls.is_due(29_999));
        calls.hurry();
        assert!(calls.is_due(1));
        calls.begin();
        calls.hurry();
        assert!(!calls.is_due(1));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_the_calls() {
        let mut calls = CallBackoff::default();
        calls.failed(10_000_000);
        assert!(calls.is_due(1_000));
    }
}
