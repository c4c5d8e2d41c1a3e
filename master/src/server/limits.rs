//! How often one address may use what needs no certificate. Pure but for its lock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Requests that one address may make at once.
const BURST: f64 = 1000.0;

/// And how many a second after that. A whole pool may come from one address behind a NAT.
const PER_SECOND: f64 = 200.0;

/// Addresses that are remembered; past it those that have been quiet are dropped.
const ADDRESSES: usize = 65_536;

/// A token bucket an address.
#[derive(Debug, Default)]
pub struct RateLimit {
    buckets: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl RateLimit {
    /// Takes one request of this address, now; says whether it may be served.
    pub fn take(&self, address: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().expect("nobody panics with it");
        if buckets.len() >= ADDRESSES {
            let full = Duration::from_secs_f64(BURST / PER_SECOND);
            buckets.retain(|_, (_, last)| now.duration_since(*last) < full);
        }
        if buckets.len() >= ADDRESSES && !buckets.contains_key(&address) {
            return false;
        }
        let (level, last) = buckets.entry(address).or_insert((BURST, now));
        *level = (*level + now.duration_since(*last).as_secs_f64() * PER_SECOND).min(BURST);
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

    #[test]
    fn one_address_is_slowed_down_and_the_others_are_not() {
        let (limit, now) = (RateLimit::default(), Instant::now());
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let taken = (0..5000).filter(|_| limit.take(a, now)).count();
        assert_eq!(taken, 1000);
        assert!(limit.take(b, now));
        assert!(limit.take(a, now + Duration::from_secs(1)));
    }
}
