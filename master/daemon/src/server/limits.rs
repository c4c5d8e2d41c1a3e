//! How often one address may use what needs no certificate. Pure but for its locks.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::log_limit::LogLimits;

/// How many requests there may be at once, and how many per second after that.
#[derive(Debug, Clone, Copy)]
struct Rate {
    burst: f64,
    per_second: f64,
}

/// With a join token that is known. A whole pool may come from one address behind a NAT.
const KNOWN: Rate = Rate {
    burst: 1000.0,
    per_second: 200.0,
};

/// With another token, or none: nobody who means well has more than a few.
const UNKNOWN: Rate = Rate {
    burst: 200.0,
    per_second: 20.0,
};

/// Buckets that are remembered; past it those that have been quiet are dropped.
const BUCKETS: usize = 65_536;

/// What an address may still ask for. A flood with bad tokens takes nothing from who has a good one, nor one with the token
/// of one batch from another batch.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    known: Buckets<(IpAddr, String)>,
    unknown: Buckets<IpAddr>,
    lines: LogLimits,
}

impl RateLimit {
    /// Writes a line that this address causes, unless it caused many; gives how many were left out before it.
    pub(crate) fn log(&self, address: IpAddr, write: impl FnOnce(u64)) {
        if let Some(left_out) = self.lines.admit(address, Instant::now()) {
            write(left_out);
        }
    }

    /// Takes one request of this address, now; says whether it may be served. `known` is the token's SHA-256 when there is
    /// such a token.
    pub(crate) fn admit(&self, address: IpAddr, known: Option<&str>, now: Instant) -> bool {
        match known {
            Some(token) => self.known.admit((address, token.to_owned()), KNOWN, now),
            None => self.unknown.admit(address, UNKNOWN, now),
        }
    }
}

/// A token bucket each.
#[derive(Debug)]
struct Buckets<K>(Mutex<HashMap<K, (f64, Instant)>>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Buckets<K> {
    fn admit(&self, key: K, rate: Rate, now: Instant) -> bool {
        let mut buckets = self.0.lock().expect("nobody panics with it");
        if buckets.len() >= BUCKETS {
            let full = Duration::from_secs_f64(rate.burst / rate.per_second);
            buckets.retain(|_, (_, last)| now.duration_since(*last) < full);
        }
        if buckets.len() >= BUCKETS && !buckets.contains_key(&key) {
            return false;
        }
        let (level, last) = buckets.entry(key).or_insert((rate.burst, now));
        let more = now.duration_since(*last).as_secs_f64() * rate.per_second;
        *level = (*level + more).min(rate.burst);
        *last = now;
        if *level < 1.0 {
            return false;
        }
        *level -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[test]
    fn one_address_is_slowed_down_and_the_others_are_not() {
        let (limit, now) = (RateLimit::default(), Instant::now());
        let taken = (0..5000).filter(|_| limit.admit(A, None, now)).count();
        assert_eq!(taken, 200);
        assert!(limit.admit(B, None, now));
        assert!(limit.admit(A, None, now + Duration::from_secs(1)));
    }

    #[test]
    fn bad_tokens_take_nothing_from_good_ones_nor_one_batch_from_another() {
        let (limit, now) = (RateLimit::default(), Instant::now());
        while limit.admit(A, None, now) {}
        let taken = (0..5000)
            .filter(|_| limit.admit(A, Some("one"), now))
            .count();
        assert_eq!(taken, 1000);
        assert!(limit.admit(A, Some("two"), now));
        assert!(!limit.admit(A, None, now));
    }
}
