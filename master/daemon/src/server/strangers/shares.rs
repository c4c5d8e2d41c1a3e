//! How many of a kind there are, in all and of each address.

use std::collections::HashMap;
use std::net::IpAddr;

/// Counts.
#[derive(Debug, Default)]
pub(super) struct Shares {
    all: usize,
    of_one: HashMap<IpAddr, usize>,
}

impl Shares {
    /// Whether there may be another one of this address.
    pub(super) fn has_room(&self, address: IpAddr, most: usize, most_of_one: usize) -> bool {
        let own = self.of_one.get(&address).copied().unwrap_or(0);
        self.all < most && own < most_of_one
    }

    /// One more.
    pub(super) fn add(&mut self, address: IpAddr) {
        self.all += 1;
        *self.of_one.entry(address).or_default() += 1;
    }

    /// One less.
    pub(super) fn remove(&mut self, address: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(own) = self.of_one.get_mut(&address) {
            *own -= 1;
            if *own == 0 {
                self.of_one.remove(&address);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.all == 0 && self.of_one.is_empty()
    }
}
