//! Connections that have not shown a certificate: how many there may be, of one address and in all, and which one has to
//! go when there is another. Pure but for its lock.
//!
//! One that is waited for (for the first message of its handshake, or a request with a token) is let go when a newer one
//! needs its place, oldest first: who means well says something at once. One that waits for us, or has shown a join token,
//! stays; then the newer one is refused.
//!
//! One that is passed on to another master shows its certificate to that one alone. So it ages like a stranger's here too, in a
//! class of its own, until it has lived for longer than any master bears one without a certificate: thousands of agents may
//! come by way of one master, and strangers that only open connections must not let them go.

mod class;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use class::Class;

/// Most of them, where there are descriptors for this many. Each takes some 11 KB once its handshake is done.
const MOST: usize = 8192;

/// Descriptors of a connection that is passed on: the machine's, and the one to the other master.
const PASSED_ON: usize = 2;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// Descriptors of all together, those with a certificate too. The rest is for operators, files and outputs.
    pub open: usize,
    /// Without a certificate.
    pub strangers: usize,
    /// Without a certificate and from one address. Thousands of agents may come back at once from behind one NAT.
    pub of_one: usize,
    /// Passed on to another master, and not there for long enough.
    pub passed_on: usize,
    /// The same from one address.
    pub passed_on_of_one: usize,
}

impl ConnectionLimits {
    /// For a process that may have this many descriptors open.
    pub(crate) fn of(descriptors: usize) -> Self {
        let strangers = (descriptors / 2).min(MOST);
        let passed_on = descriptors / 4 / PASSED_ON;
        Self {
            open: descriptors - descriptors / 8,
            strangers,
            of_one: strangers / 2,
            passed_on,
            passed_on_of_one: passed_on / 2,
        }
    }
}

/// Whose share a connection counts for: an address, or a network of IPv6, of which everybody has 2^64 addresses.
fn shared_by(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// Resolves when its connection has to go.
pub(super) type Evicted = oneshot::Receiver<()>;

/// All of them.
#[derive(Debug)]
pub(super) struct Strangers {
    limits: ConnectionLimits,
    table: Mutex<StrangerTable>,
}

#[derive(Debug, Default)]
struct StrangerTable {
    next: u64,
    /// Descriptors.
    open: usize,
    strangers: Class,
    passed_on: Class,
}

impl Strangers {
    /// None yet.
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            table: Mutex::default(),
        })
    }

    /// Another one, which is waited for. `None` when there is no place, and nobody has to go for it.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<(Stay, Evicted)> {
        let address = shared_by(address);
        let mut table = self.table();
        let own = table.strangers.of(address);
        if own >= self.limits.of_one && !table.strangers.evict_of(address) {
            return None;
        }
        let has_room = if table.strangers.len() >= self.limits.strangers {
            table.strangers.evict_oldest()
        } else {
            table.open < self.limits.open || table.evict_oldest()
        };
        if !has_room {
            return None;
        }
        let (alarm, evicted) = oneshot::channel();
        let number = table.next;
        table.next += 1;
        table.open += 1;
        table.strangers.insert(number, address, alarm);
        let stay = Stay {
            strangers: self.clone(),
            number,
            address,
            descriptors: AtomicUsize::new(1),
        };
        Some((stay, evicted))
    }

    /// Lets the oldest one go that is waited for, of any address: there are no descriptors left.
    pub(super) fn evict_oldest(&self) -> bool {
        self.table().evict_oldest()
    }

    fn table(&self) -> MutexGuard<'_, StrangerTable> {
        self.table.lock().expect("nobody panics with it")
    }
}

impl StrangerTable {
    /// Those whom nobody has proof of here go before those who may have shown it elsewhere.
    fn evict_oldest(&mut self) -> bool {
        self.strangers.evict_oldest() || self.passed_on.evict_oldest()
    }
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Stay {
    strangers: Arc<Strangers>,
    number: u64,
    address: IpAddr,
    descriptors: AtomicUsize,
}

impl Stay {
    /// It waits for us, or has shown that it may be here: it is not let go for another.
    pub(super) fn stays(&self) {
        self.strangers
            .table()
            .strangers
            .hold(self.number, self.address);
    }

    /// It is waited for again.
    pub(super) fn is_waited_for(&self) {
        let mut table = self.strangers.table();
        table.strangers.release(self.number, self.address);
    }

    /// It has shown a certificate: from now on it counts among all that are open alone.
    pub(super) fn is_known(&self) {
        let mut table = self.strangers.table();
        table.strangers.remove(self.number, self.address);
    }

    /// It goes to another master, which takes a second descriptor, and another one has to go where there are too many. `false`
    /// when it has to go itself.
    pub(super) fn goes_on(&self) -> bool {
        let (number, address) = (self.number, self.address);
        let limits = &self.strangers.limits;
        let mut table = self.strangers.table();
        let Some(alarm) = table.strangers.remove(number, address) else {
            return false; // it was let go
        };
        let own = table.passed_on.of(address);
        if own >= limits.passed_on_of_one && !table.passed_on.evict_of(address) {
            return false;
        }
        let has_room = if table.passed_on.len() >= limits.passed_on {
            table.passed_on.evict_oldest()
        } else {
            table.open < limits.open || table.evict_oldest()
        };
        if !has_room {
            return false;
        }
        table.open += PASSED_ON - 1;
        self.descriptors.store(PASSED_ON, Ordering::Relaxed);
        table.passed_on.insert(number, address, alarm);
        true
    }

    /// It was passed on for so long that the other master must have seen its certificate: it is let go for nobody any more.
    /// [`Evicted`] resolves with this, and means nothing any more.
    pub(super) fn has_lasted(&self) {
        let mut table = self.strangers.table();
        table.passed_on.remove(self.number, self.address);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut table = self.strangers.table();
        table.strangers.remove(self.number, self.address);
        table.passed_on.remove(self.number, self.address);
        table.open -= self.descriptors.load(Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
