//! How long to wait before the next try: full jitter under a growing ceiling. Used by enrolment, link and fetch.

use std::time::Duration;

/// Grows from `base` to `most`, doubling; each wait is a random part of the ceiling (AWS Architecture Blog,
/// "Exponential Backoff And Jitter", full jitter).
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    most: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Starts at `base`, never above `most`.
    pub fn new(base: Duration, most: Duration) -> Self {
        Self {
            base,
            most,
            ceiling: base,
        }
    }

    /// The next wait; `unit` is a random number in [0, 1).
    pub fn next(&mut self, unit: f64) -> Duration {
        let wait = self.ceiling.mul_f64(unit.clamp(0.0, 1.0));
        self.ceiling = (self.ceiling * 2).min(self.most);
        wait
    }

    /// Back to the start: something worked.
    pub fn reset(&mut self) {
        self.ceiling = self.base;
    }
}

/// A random number in [0, 1), from the operating system.
pub fn unit() -> f64 {
    let mut bytes = [0u8; 8];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.5;
    }
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn waits_stay_under_a_ceiling_that_doubles(unit in 0.0f64..1.0, tries in 1usize..40) {
            let (base, most) = (Duration::from_millis(200), Duration::from_secs(30));
            let mut backoff = Backoff::new(base, most);
            for n in 0..tries {
                let ceiling = base.checked_mul(1 << n.min(20)).unwrap_or(most).min(most);
                prop_assert!(backoff.next(unit) <= ceiling);
            }
            backoff.reset();
            prop_assert!(backoff.next(unit) <= base);
        }
    }

    #[test]
    fn the_whole_range_is_used() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        assert_eq!(backoff.next(0.0), Duration::ZERO);
        assert_eq!(backoff.next(0.5), Duration::from_secs(1));
        assert_eq!(backoff.next(1.0), Duration::from_secs(4));
        assert!((0..100).map(|_| unit()).all(|u| (0.0..1.0).contains(&u)));
    }
}
