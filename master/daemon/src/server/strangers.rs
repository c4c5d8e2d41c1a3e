//! Connections that have not shown a certificate: how many there may be, of one address and in all, and which one has to
//! go when there is another. Pure but for its lock.
//!
//! One that is waited for (for the first message of its handshake, or a request with a token) is let go when a newer one
//! needs its place, oldest first: who means well says something at once. One that waits for us, or has shown a join token,
//! stays; then the newer one is refused.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

/// Most of them, where there are descriptors for this many. Each takes some 11 KB once its handshake is done.
const MOST: usize = 8192;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// All together, those with a certificate too. The rest of the descriptors is for operators, files and outputs.
    pub open: usize,
    /// Without a certificate.
    pub strangers: usize,
    /// Without a certificate and from one address. Thousands of agents may come back at once from behind one NAT.
    pub of_one: usize,
}

impl ConnectionLimits {
    /// For a process that may have this many descriptors open.
    pub(crate) fn of(descriptors: usize) -> Self {
        let strangers = (descriptors / 2).min(MOST);
        Self {
            open: descriptors - descriptors / 8,
            strangers,
            of_one: strangers / 2,
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
    open: usize,
    strangers: usize,
    shares: HashMap<IpAddr, Share>,
    /// Those that can be let go, oldest first.
    waited_for: BTreeMap<u64, IpAddr>,
}

/// The connections of one address, by number. A sender that is dropped ends its connection.
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
        let own = table.shares.get(&address).map_or(0, Share::len);
        if own >= self.limits.of_one && !table.evict_of(address) {
            return None;
        }
        let full = table.strangers >= self.limits.strangers || table.open >= self.limits.open;
        if full && !table.evict_oldest() {
            return None;
        }
        let (alarm, evicted) = oneshot::channel();
        let number = table.next;
        table.next += 1;
        table.open += 1;
        table.strangers += 1;
        table.waited_for.insert(number, address);
        let share = table.shares.entry(address).or_default();
        share.waited_for.insert(number, alarm);
        let stay = Stay {
            strangers: self.clone(),
            number,
            address,
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
    fn evict_of(&mut self, address: IpAddr) -> bool {
        let share = self.shares.get(&address);
        let oldest = share.and_then(|share| share.waited_for.keys().next().copied());
        oldest.is_some_and(|number| self.remove(number, address))
    }

    fn evict_oldest(&mut self) -> bool {
        let oldest = self.waited_for.iter().next();
        let oldest = oldest.map(|(number, address)| (*number, *address));
        oldest.is_some_and(|(number, address)| self.remove(number, address))
    }

    /// Forgets one, which ends it; says whether it was there.
    fn remove(&mut self, number: u64, address: IpAddr) -> bool {
        self.waited_for.remove(&number);
        let Some(share) = self.shares.get_mut(&address) else {
            return false;
        };
        let was_there =
            share.waited_for.remove(&number).is_some() || share.staying.remove(&number).is_some();
        if share.len() == 0 {
            self.shares.remove(&address);
        }
        self.strangers -= usize::from(was_there);
        was_there
    }
}

/// The place of one connection, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Stay {
    strangers: Arc<Strangers>,
    number: u64,
    address: IpAddr,
}

impl Stay {
    /// It waits for us, or has shown that it may be here: it is not let go for another.
    pub(super) fn stays(&self) {
        let mut table = self.strangers.table();
        table.waited_for.remove(&self.number);
        if let Some(share) = table.shares.get_mut(&self.address)
            && let Some(alarm) = share.waited_for.remove(&self.number)
        {
            share.staying.insert(self.number, alarm);
        }
    }

    /// It is waited for again.
    pub(super) fn is_waited_for(&self) {
        let mut table = self.strangers.table();
        let Some(share) = table.shares.get_mut(&self.address) else {
            return;
        };
        if let Some(alarm) = share.staying.remove(&self.number) {
            share.waited_for.insert(self.number, alarm);
            table.waited_for.insert(self.number, self.address);
        }
    }

    /// It has shown a certificate: from now on it counts among all that are open alone.
    pub(super) fn is_known(&self) {
        self.strangers.table().remove(self.number, self.address);
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let mut table = self.strangers.table();
        table.remove(self.number, self.address);
        table.open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        open: 6,
        strangers: 4,
        of_one: 3,
    };

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn has_to_go(evicted: &mut Evicted) -> bool {
        evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_oldest_of_an_address_goes_for_its_next_one_and_others_are_left_alone() {
        let strangers = Strangers::new(LIMITS);
        let mut other = strangers.enter(address(2)).expect("a place");
        let mut held: Vec<_> = (0..3)
            .map(|_| strangers.enter(address(1)).expect("a place"))
            .collect();
        held.push(strangers.enter(address(1)).expect("the oldest goes"));
        let gone: Vec<bool> = held.iter_mut().map(|(_, gone)| has_to_go(gone)).collect();
        assert_eq!(gone, [true, false, false, false]);
        assert!(!has_to_go(&mut other.1));
    }

    #[test]
    fn who_waits_for_us_or_has_shown_a_token_is_not_let_go() {
        let strangers = Strangers::new(LIMITS);
        let mut held: Vec<_> = (0..3)
            .map(|_| strangers.enter(address(1)).expect("a place"))
            .collect();
        held.iter().for_each(|(stay, _)| stay.stays());
        assert!(
            strangers.enter(address(1)).is_none(),
            "it is refused instead"
        );
        assert!(strangers.enter(address(2)).is_some(), "others are not");
        held[1].0.is_waited_for();
        assert!(strangers.enter(address(1)).is_some());
        assert!(has_to_go(&mut held[1].1));
    }

    #[test]
    fn who_shows_a_certificate_leaves_its_place_to_others() {
        let strangers = Strangers::new(LIMITS);
        let agents: Vec<_> = (0..4)
            .map(|_| {
                let (stay, _) = strangers.enter(address(1)).expect("a place");
                stay.is_known();
                stay
            })
            .collect();
        let one = strangers.enter(address(1)).expect("a place");
        one.0.stays();
        let two = strangers.enter(address(1)).expect("a place");
        two.0.stays();
        assert!(
            strangers.enter(address(1)).is_none(),
            "all descriptors are used"
        );
        drop(agents);
        assert!(strangers.enter(address(1)).is_some());
    }

    #[test]
    fn what_is_dropped_leaves_nothing_behind() {
        let strangers = Strangers::new(LIMITS);
        for round in 0..100 {
            let (stay, _evicted) = strangers.enter(address(round)).expect("a place");
            stay.stays();
        }
        let table = strangers.table();
        assert_eq!((table.open, table.strangers), (0, 0));
        assert!(table.shares.is_empty() && table.waited_for.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_has_one_share() {
        let of = |text: &str| shared_by(text.parse().expect("an address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn few_descriptors_leave_some_for_operators_and_files() {
        let few = ConnectionLimits::of(1024);
        assert_eq!((few.open, few.strangers, few.of_one), (896, 512, 256));
        assert_eq!(ConnectionLimits::of(524_288).strangers, MOST);
    }
}
