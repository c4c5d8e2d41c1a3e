//! The random numbers that worlds begin with.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac;

/// A seed for each world, all from one: HMAC-SHA256 of a count, as ids are made of each. So no two worlds make the same ids.
pub(super) struct Seeds {
    key: hmac::Key,
    pub(super) drawn: AtomicU64,
}

impl Seeds {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, seed),
            drawn: AtomicU64::new(0),
        }
    }

    pub(super) fn draw(&self) -> [u8; 32] {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        let tag = hmac::sign(&self.key, &count.to_le_bytes());
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}
