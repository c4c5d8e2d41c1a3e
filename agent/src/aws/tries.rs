//! How often and how long it is tried to read secrets. Pure.

use std::time::{Duration, Instant};

use aot_host::in_a_row::InARow;

use crate::backoff::Backoff;

/// How long something that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endurance {
    /// It would fail again.
    None,
    /// It may pass within seconds.
    Short,
    /// AWS asks to come back later: many machines began at once.
    Long,
}

/// The bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct RetryBounds {
    /// Ceiling of the first wait; it doubles.
    pub base: Duration,
    /// Its most.
    pub most: Duration,
    /// Tries of what may pass within seconds, with no secret read in between.
    pub tries: u32,
    /// How long AWS is asked that wants to be asked less. SSM answers 40 requests per second of an account, unless more was agreed on.
    pub throttled: Duration,
}

impl Default for RetryBounds {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            most: Duration::from_secs(20),
            tries: 5,
            throttled: Duration::from_secs(300),
        }
    }
}

/// The tries of one run.
#[derive(Debug)]
pub(super) struct Tries {
    until: Instant,
    short: InARow,
    backoff: Backoff,
}

impl Tries {
    pub(super) fn new(bounds: RetryBounds, now: Instant) -> Self {
        Self {
            until: now + bounds.throttled,
            short: InARow::new(bounds.tries.saturating_sub(1)),
            backoff: Backoff::new(bounds.base, bounds.most),
        }
    }

    /// One of the secrets was read.
    pub(super) fn came(&mut self) {
        self.short.came();
        self.backoff.reset();
    }

    /// How long to wait before the next try; `None` when there is none. `unit` is a random number in [0, 1).
    pub(super) fn wait(
        &mut self,
        endurance: Endurance,
        now: Instant,
        unit: f64,
    ) -> Option<Duration> {
        let goes_on = match endurance {
            Endurance::None => false,
            Endurance::Short => self.short.failed(),
            Endurance::Long => true,
        };
        let wait = self.backoff.next(unit);
        (goes_on && now + wait < self.until).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(endurance: Endurance) -> (usize, Duration) {
        let start = Instant::now();
        let (mut tries, mut now) = (Tries::new(RetryBounds::default(), start), start);
        let mut count = 0;
        while let Some(wait) = tries.wait(endurance, now, 0.999) {
            now += wait;
            count += 1;
        }
        (count, now - start)
    }

    #[test]
    fn what_passes_is_tried_a_few_times_and_a_busy_service_for_minutes() {
        assert_eq!(waits(Endurance::None).0, 0);
        let (count, took) = waits(Endurance::Short);
        assert!(count == 4 && took < Duration::from_secs(16), "{took:?}");
        let (count, took) = waits(Endurance::Long);
        assert!((15..30).contains(&count), "{count}");
        let bound = Duration::from_secs(270)..Duration::from_secs(300);
        assert!(bound.contains(&took), "{took:?}");
    }

    #[test]
    fn a_secret_that_is_read_lets_the_next_one_be_tried_as_often() {
        let start = Instant::now();
        let mut tries = Tries::new(RetryBounds::default(), start);
        for _ in 0..100 {
            let waits = [(); 4].map(|()| tries.wait(Endurance::Short, start, 0.5));
            assert!(waits.iter().all(Option::is_some), "{waits:?}");
            assert!(waits[0] < Some(Duration::from_secs(1)), "{waits:?}");
            tries.came();
        }
        let waits = [(); 5].map(|()| tries.wait(Endurance::Short, start, 0.0));
        assert_eq!(waits[4], None);
    }

    #[test]
    fn one_that_fails_in_both_ways_ends() {
        let start = Instant::now();
        let mut tries = Tries::new(RetryBounds::default(), start);
        let kinds = [Endurance::Long, Endurance::Short].into_iter().cycle();
        let waits = kinds.map_while(|kind| tries.wait(kind, start, 0.0));
        assert_eq!(waits.count(), 9);
    }
}
