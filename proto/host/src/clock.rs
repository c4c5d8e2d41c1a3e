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

/// Time since this host was booted, with the time in which it was suspended (clock_gettime(2), CLOCK_BOOTTIME).
#[must_use]
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
