//! Connections that have not shown a certificate: how many there may be, of one address and in all, and which one has to
//! go when there is another. Pure but for its lock.
//!
//! One that is waited for (for the first message of its handshake, or a request with a token) is let go when a newer one
//! needs its place, oldest first: who means well says something at once. One that waits for us, or has shown a join token,
//! stays; then the newer one is refused.
//!
//! One that is passed on to another master shows its certificate to that one alone. So it counts in a class of its own, until it
//! has lived for longer than any master bears one without a certificate. Where that class is full the newest waits for a place and
//! is refused in the end: if the oldest went for it, agents that are too many for one master would push each other out for ever,
//! instead of trying another one.
//!
//! A boot request that is passed on takes a connection to the other master, besides its own. Those are counted by themselves: past
//! their number a request is refused for the moment, since who waits for an answer is never let go for another.

mod class;
mod shares;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use class::Class;
use shares::Shares;

/// Most of them, where there are descriptors for this many. Each takes some 11 KB once its handshake is done.
const MOST: usize = 8192;

/// Descriptors of a connection that is passed on: the machine's, and the one to the other master.
const PASSED_ON: usize = 2;

/// Most boot requests that are passed on at once: each takes some 100 KB while its answer is under way.
const MOST_REQUESTS: usize = 1024;

/// Between two looks for a place by one that waits for it, should a place become free that another one was told of.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    /// Boot requests that are passed on at once.
    pub requests: usize,
    /// The same from one address.
    pub requests_of_one: usize,
}

impl ConnectionLimits {
    /// For a process that may have this many descriptors open.
    pub(crate) fn of(descriptors: usize) -> Self {
        let strangers = (descriptors / 2).min(MOST);
        let passed_on = descriptors / 4 / PASSED_ON;
        let requests = (descriptors / 16).min(MOST_REQUESTS);
        Self {
            open: descriptors - descriptors / 8,
            strangers,
            of_one: strangers / 2,
            passed_on,
            passed_on_of_one: passed_on / 2,
            requests,
            requests_of_one: requests / 2,
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
    /// There is a place for one more that is passed on.
    has_place: Notify,
}

#[derive(Debug, Default)]
struct StrangerTable {
    next: u64,
    /// Descriptors.
    open: usize,
    strangers: Class,
    passed_on: Class,
    requests: Shares,
}

impl Strangers {
    /// None yet.
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            table: Mutex::default(),
            has_place: Notify::new(),
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
            table.open < self.limits.open || table.strangers.evict_oldest()
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
    /// Those whom nobody has proof of here go before those who may have shown it elsewhere. Only where the system itself has no
    /// descriptor left: nobody else comes to the place of one that is passed on.
    fn evict_oldest(&mut self) -> bool {
        self.strangers.evict_oldest() || self.passed_on.evict_oldest()
    }
}

/// Whether one goes to another master.
enum GoesOn {
    Now,
    /// There are too many that do.
    Later,
    /// It was let go.
    Never,
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

    /// It goes to another master, which takes a second descriptor. Where there are too many of these it waits until then, and may be
    /// let go meanwhile as a stranger. `false` when it has to go itself.
    pub(super) async fn goes_on(&self, until: Instant) -> bool {
        loop {
            let has_place = self.strangers.has_place.notified();
            match self.try_to_go_on() {
                GoesOn::Now => return true,
                GoesOn::Never => return false,
                GoesOn::Later => {}
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            let _ = timeout_at(until.min(now + LOOK_AGAIN), has_place).await; // either way it looks again
        }
    }

    fn try_to_go_on(&self) -> GoesOn {
        let (number, address) = (self.number, self.address);
        let limits = &self.strangers.limits;
        let mut table = self.strangers.table();
        if !table.strangers.has(number, address) {
            return GoesOn::Never; // it was let go
        }
        if table.passed_on.len() >= limits.passed_on
            || table.passed_on.of(address) >= limits.passed_on_of_one
        {
            return GoesOn::Later;
        }
        let Some(alarm) = table.strangers.remove(number, address) else {
            return GoesOn::Never;
        };
        if table.open >= limits.open && !table.strangers.evict_oldest() {
            table.strangers.insert(number, address, alarm);
            return GoesOn::Later;
        }
        table.open += PASSED_ON - 1;
        self.descriptors.store(PASSED_ON, Ordering::Relaxed);
        table.passed_on.insert(number, address, alarm);
        GoesOn::Now
    }

    /// A request of it goes to another master, on a connection of its own. `None` when there are too many of these, in all or of its
    /// address, or no descriptor is left.
    pub(super) fn passes_request(&self) -> Option<PassedRequest> {
        let limits = &self.strangers.limits;
        let mut table = self.strangers.table();
        if !table
            .requests
            .has_room(self.address, limits.requests, limits.requests_of_one)
        {
            return None;
        }
        if table.open >= limits.open && !table.strangers.evict_oldest() {
            return None;
        }
        table.open += 1;
        table.requests.add(self.address);
        Some(PassedRequest {
            strangers: self.strangers.clone(),
            address: self.address,
        })
    }

    /// It was passed on for so long that the other master must have seen its certificate: it is let go for nobody any more.
    /// [`Evicted`] resolves with this, and means nothing any more.
    pub(super) fn has_lasted(&self) {
        self.leave_passed_on(&mut self.strangers.table());
    }

    fn leave_passed_on(&self, table: &mut StrangerTable) {
        if table.passed_on.remove(self.number, self.address).is_some() {
            self.strangers.has_place.notify_one();
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut table = self.strangers.table();
        table.strangers.remove(self.number, self.address);
        self.leave_passed_on(&mut table);
        table.open -= self.descriptors.load(Ordering::Relaxed);
    }
}

/// The place of a request that is passed on, given back when it is dropped: once its connection to the other master is closed.
#[derive(Debug)]
pub(super) struct PassedRequest {
    strangers: Arc<Strangers>,
    address: IpAddr,
}

impl Drop for PassedRequest {
    fn drop(&mut self) {
        let mut table = self.strangers.table();
        table.open -= 1;
        table.requests.remove(self.address);
    }
}

#[cfg(test)]
mod tests;
