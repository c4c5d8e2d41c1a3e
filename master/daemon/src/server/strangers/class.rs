//! Connections of one kind, by their addresses, and which of them can be let go.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use tokio::sync::oneshot;

/// All of one kind. A sender that is dropped ends its connection.
#[derive(Debug, Default)]
pub(super) struct Class {
    count: usize,
    shares: HashMap<IpAddr, Share>,
    /// Those that can be let go, oldest first.
    waited_for: BTreeMap<u64, IpAddr>,
}

/// The connections of one address, by number.
#[derive(Debug, Default)]
struct Share {
    waited_for: BTreeMap<u64, oneshot::Sender<()>>,
    staying: HashMap<u64, oneshot::Sender<()>>,
}

impl Share {
    fn len(&self) -> usize {
        self.waited_for.len() + self.staying.len()
    }
}

impl Class {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// How many are of this address.
    pub(super) fn of(&self, address: IpAddr) -> usize {
        self.shares.get(&address).map_or(0, Share::len)
    }

    /// Whether this one is there.
    pub(super) fn has(&self, number: u64, address: IpAddr) -> bool {
        let share = self.shares.get(&address);
        share.is_some_and(|share| {
            share.waited_for.contains_key(&number) || share.staying.contains_key(&number)
        })
    }

    /// One more, which can be let go.
    pub(super) fn insert(&mut self, number: u64, address: IpAddr, alarm: oneshot::Sender<()>) {
        self.count += 1;
        self.waited_for.insert(number, address);
        let share = self.shares.entry(address).or_default();
        share.waited_for.insert(number, alarm);
    }

    /// It can't be let go any more.
    pub(super) fn hold(&mut self, number: u64, address: IpAddr) {
        self.waited_for.remove(&number);
        if let Some(share) = self.shares.get_mut(&address)
            && let Some(alarm) = share.waited_for.remove(&number)
        {
            share.staying.insert(number, alarm);
        }
    }

    /// It can be let go again.
    pub(super) fn release(&mut self, number: u64, address: IpAddr) {
        let Some(share) = self.shares.get_mut(&address) else {
            return;
        };
        if let Some(alarm) = share.staying.remove(&number) {
            share.waited_for.insert(number, alarm);
            self.waited_for.insert(number, address);
        }
    }

    /// Lets the oldest one of this address go; says whether there was one.
    pub(super) fn evict_of(&mut self, address: IpAddr) -> bool {
        let share = self.shares.get(&address);
        let oldest = share.and_then(|share| share.waited_for.keys().next().copied());
        oldest.is_some_and(|number| self.remove(number, address).is_some())
    }

    /// Lets the oldest one of all go; says whether there was one.
    pub(super) fn evict_oldest(&mut self) -> bool {
        let oldest = self.waited_for.iter().next();
        let oldest = oldest.map(|(number, address)| (*number, *address));
        oldest.is_some_and(|(number, address)| self.remove(number, address).is_some())
    }

    /// Forgets one; gives what ends it when it is dropped.
    pub(super) fn remove(&mut self, number: u64, address: IpAddr) -> Option<oneshot::Sender<()>> {
        self.waited_for.remove(&number);
        let share = self.shares.get_mut(&address)?;
        let waited_for = share.waited_for.remove(&number);
        let alarm = waited_for.or_else(|| share.staying.remove(&number));
        if share.len() == 0 {
            self.shares.remove(&address);
        }
        self.count -= usize::from(alarm.is_some());
        alarm
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && self.shares.is_empty() && self.waited_for.is_empty()
    }
}
