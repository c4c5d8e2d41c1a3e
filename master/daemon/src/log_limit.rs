//! Keeps lines that strangers and agents cause from filling the log: a few at once, then one every few seconds, which says how
//! many were left out. Asked by sessions and by what serves strangers. Pure but for its lock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines of one source that may come at once.
const BURST: u32 = 10;

/// After them, one in this time.
const EVERY: Duration = Duration::from_secs(2);

/// Sources that are remembered; past it those that have been quiet are dropped, and all others share one allowance.
const SOURCES: usize = 4096;

/// The lines of one source.
#[derive(Debug, Clone, Copy, Default)]
struct SourceLines {
    written: u32,
    since: Option<Instant>,
    left_out: u64,
}

impl SourceLines {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let passed = now.duration_since(since).as_secs() / EVERY.as_secs();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        if passed > 0 {
            self.written = self.written.saturating_sub(passed);
            self.since = Some(now);
        }
        if self.written >= BURST {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }

    fn is_full(&self, now: Instant) -> bool {
        let all = EVERY * BURST;
        self.since
            .is_none_or(|since| now.duration_since(since) > all)
    }
}

/// What one session may cause.
#[derive(Debug, Default)]
pub(crate) struct LogLimit(Mutex<SourceLines>);

impl LogLimit {
    /// `Some` when a line may be written now, with the number of those that were left out before it.
    pub(crate) fn admit(&self, now: Instant) -> Option<u64> {
        self.0.lock().expect("nobody panics with it").admit(now)
    }
}

/// What each address may cause.
#[derive(Debug, Default)]
pub(crate) struct LogLimits(Mutex<(HashMap<IpAddr, SourceLines>, SourceLines)>);

impl LogLimits {
    /// [`LogLimit::admit`], of this address.
    pub(crate) fn admit(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let mut all = self.0.lock().expect("nobody panics with it");
        let (sources, others) = &mut *all;
        if sources.len() >= SOURCES {
            sources.retain(|_, lines| !lines.is_full(now));
        }
        if sources.len() >= SOURCES && !sources.contains_key(&address) {
            return others.admit(now);
        }
        sources.entry(address).or_default().admit(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_that_say_how_many_there_were() {
        let (limit, start) = (LogLimit::default(), Instant::now());
        let (mut said, mut left_out) = (0, 0);
        for ms in 0..60_000 {
            if let Some(before) = limit.admit(start + Duration::from_millis(ms)) {
                said += 1;
                left_out += before;
            }
        }
        assert!((30..=50).contains(&said), "{said} lines in a minute");
        assert!(left_out > 55_000, "{left_out}");
    }

    #[test]
    fn one_address_does_not_hide_another_however_many_there_are() {
        let (limit, now) = (LogLimits::default(), Instant::now());
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        for _ in 0..1000 {
            limit.admit(address(1), now);
        }
        assert_eq!(limit.admit(address(1), now), None);
        assert_eq!(limit.admit(address(2), now), Some(0));
        let lines = (0..100_000).filter(|n| limit.admit(address(*n), now).is_some());
        assert!(lines.count() < SOURCES + 2 * BURST as usize);
        assert!(limit.0.lock().expect("unlocked").0.len() <= SOURCES);
    }
}
