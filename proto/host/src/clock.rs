//! The wall clock, for records that people and other machines read, and the time since boot, for what must not outlive a host
//! that slept. What else waits asks `std::time::Instant`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time since 1970; zero on a machine whose clock says less.
#[must_use]
pub fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

/// The two clocks of this host, read together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// As [`since_boot`] counts.
    pub since_boot: Duration,
    /// As [`since_1970`] does.
    pub since_1970: Duration,
}

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            since_boot: since_boot(),
            since_1970: since_1970(),
        }
    }

    /// By how much the two clocks have moved apart from then to `later`. The clock since boot stands still while a hypervisor
    /// suspends this host, which does not know of it; the wall clock is put right afterwards, as a rule.
    #[must_use]
    pub fn apart(self, later: Self) -> Duration {
        // What one says less the other is the same at both moments, while both go.
        let (then, now) = (
            self.since_1970 + later.since_boot,
            later.since_1970 + self.since_boot,
        );
        then.abs_diff(now)
    }
}

/// Time since this host was booted, with the time in which it was suspended (clock_gettime(2), CLOCK_BOOTTIME).
#[must_use]
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_both_go_are_not_apart_and_one_that_stood_still_is() {
        let at = |since_boot, since_1970| Moment {
            since_boot: Duration::from_secs(since_boot),
            since_1970: Duration::from_secs(since_1970),
        };
        let then = at(100, 5000);
        assert_eq!(then.apart(at(160, 5060)), Duration::ZERO);
        assert_eq!(then.apart(at(102, 5042)), Duration::from_secs(40));
        assert_eq!(then.apart(at(160, 4060)), Duration::from_secs(1000));
        assert!(Moment::now().apart(Moment::now()) < Duration::from_secs(1));
    }
}
