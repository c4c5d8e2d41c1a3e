//! A TCP relay before a master whose links can be cut or held: the network's faults, without the kernel's help. For tests with
//! local clones, which then dial it as the advertised address, and for the ways between masters, where it knows who dials.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait;

/// Between two pieces of 64 KiB of a link that is slow.
const SLOW: Duration = Duration::from_millis(20);

/// Says who dials from this address, by a number of the test's own.
pub type Who = Box<dyn Fn(SocketAddr) -> Option<usize> + Send + Sync>;

/// What becomes of all links of whoever dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// They break, and so does every new one.
    Cut,
    /// Nothing more gets through, and nobody is told.
    Held,
}

/// A relay that listens; its links end with it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    upstream: Mutex<Option<SocketAddr>>,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    next: AtomicU64,
    slow: AtomicBool,
    ended: AtomicBool,
    who: Option<Who>,
    /// By who dials. Locked after `links` where both are.
    partings: Mutex<BTreeMap<usize, Parting>>,
    parted: AtomicU64,
}

struct Link {
    agent: TcpStream,
    master: TcpStream,
    who: Option<usize>,
    held: Mutex<bool>,
    changed: Condvar,
}

impl Link {
    fn cut(&self) {
        // It may have ended by itself.
        let _ = self.agent.shutdown(Shutdown::Both);
        let _ = self.master.shutdown(Shutdown::Both);
        self.hold(false);
    }

    fn part(&self, how: Parting) {
        match how {
            Parting::Cut => self.cut(),
            Parting::Held => self.hold(true),
        }
    }

    fn hold(&self, held: bool) {
        *lock(&self.held) = held;
        self.changed.notify_all();
    }

    fn wait_while_held(&self) {
        let held = lock(&self.held);
        let free = self.changed.wait_while(held, |held| *held);
        drop(free.unwrap_or_else(PoisonError::into_inner));
    }

    /// Copies until one side ends; then both are at their end.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream, slow: &AtomicBool) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            self.wait_while_held();
            if slow.load(Ordering::SeqCst) {
                let _ = wait::maybe(|| None::<()>, SLOW);
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        self.cut();
    }
}

impl Proxy {
    /// Listens on a port of its own. Whoever dials before [`Proxy::lead_to`] is sent away.
    ///
    /// # Panics
    /// When there is no port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the relay");
        Self::on(listener, Shared::default())
    }

    /// Listens on this port, leads to that one, and knows who dials.
    ///
    /// # Panics
    /// When another has the port.
    pub fn knowing(port: u16, to: u16, who: Who) -> Self {
        // A child that another thread forks may hold what was here before for a moment longer.
        let bind = || TcpListener::bind(("127.0.0.1", port)).ok();
        let listener = wait::some(bind, wait::LIMIT, "the relay's port is free");
        let shared = Shared {
            who: Some(who),
            ..Shared::default()
        };
        let proxy = Self::on(listener, shared);
        proxy.lead_to(to);
        proxy
    }

    fn on(listener: TcpListener, shared: Shared) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &theirs));
        Self {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads every new link there.
    pub fn lead_to(&self, port: u16) {
        *lock(&self.shared.upstream) = Some(SocketAddr::from(([127, 0, 0, 1], port)));
    }

    /// Links that are up, in the order in which they came.
    pub fn links(&self) -> Vec<u64> {
        lock(&self.shared.links).keys().copied().collect()
    }

    /// Lets some 3 MB a second through each link, or (`false`) all that comes: what is large is under way for long.
    pub fn slow(&self, slow: bool) {
        self.shared.slow.store(slow, Ordering::SeqCst);
    }

    /// Ends a link on both sides. One that is gone stays gone.
    pub fn cut(&self, link: u64) {
        if let Some(link) = self.link(link) {
            link.cut();
        }
    }

    /// Lets nothing more through a link, or (`false`) all that has waited.
    pub fn hold(&self, link: u64, held: bool) {
        if let Some(link) = self.link(link) {
            link.hold(held);
        }
    }

    /// Cuts or holds all links of whoever this is, and those that it dials from now on.
    pub fn part(&self, who: usize, how: Parting) {
        let links = lock(&self.shared.links);
        lock(&self.shared.partings).insert(who, how);
        for link in links.values().filter(|link| link.who == Some(who)) {
            link.part(how);
            self.shared.parted.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// What it dials from now on gets through, and so does what was held.
    pub fn join(&self, who: usize) {
        let links = lock(&self.shared.links);
        lock(&self.shared.partings).remove(&who);
        for link in links.values().filter(|link| link.who == Some(who)) {
            link.hold(false);
        }
    }

    /// How many links were cut or held by [`Proxy::part`].
    pub fn parted(&self) -> u64 {
        self.shared.parted.load(Ordering::SeqCst)
    }

    fn link(&self, number: u64) -> Option<Arc<Link>> {
        lock(&self.shared.links).get(&number).cloned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the acceptor
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for link in lock(&self.shared.links).values() {
            link.cut();
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for agent in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let upstream = *lock(&shared.upstream);
        let (Ok(agent), Some(upstream)) = (agent, upstream) else {
            continue;
        };
        let who = match (&shared.who, agent.peer_addr()) {
            (Some(who), Ok(from)) => who(from),
            _ => None,
        };
        // Without a master the agent finds its link closed, and tries again.
        let Ok(master) = TcpStream::connect(upstream) else {
            continue;
        };
        for stream in [&agent, &master] {
            let _ = stream.set_nodelay(true); // only makes it quicker
        }
        shared.begin(Link {
            agent,
            master,
            who,
            held: Mutex::new(false),
            changed: Condvar::new(),
        });
    }
}

impl Shared {
    fn begin(self: &Arc<Self>, link: Link) {
        let link = Arc::new(link);
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let mut links = lock(&self.links);
        let parting = link
            .who
            .and_then(|who| lock(&self.partings).get(&who).copied());
        if let Some(how) = parting {
            link.part(how);
            self.parted.fetch_add(1, Ordering::SeqCst);
        }
        links.insert(number, Arc::clone(&link));
        drop(links);
        let (up, theirs) = (Arc::clone(&link), Arc::clone(self));
        std::thread::spawn(move || up.pump(&up.agent, &up.master, &theirs.slow));
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            link.pump(&link.master, &link.agent, &shared.slow);
            lock(&shared.links).remove(&number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heard::{Heard, SOON, WHILE, heard};

    fn next(stream: &mut TcpStream, limit: Duration) -> Heard {
        stream.set_read_timeout(Some(limit)).expect("a socket");
        heard(stream)
    }

    fn hears(stream: &mut TcpStream) -> bool {
        matches!(next(stream, SOON), Heard::Byte(_))
    }

    #[test]
    fn links_are_parted_by_who_dials() {
        let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = upstream.local_addr().expect("it is bound").port();
        std::thread::spawn(move || {
            for mut stream in upstream.incoming().map_while(Result::ok) {
                let _ = stream.write_all(b"ab"); // whoever dials may be gone
                std::thread::spawn(move || while let Ok(1..) = stream.read(&mut [0]) {});
            }
        });
        let (port, _lock) = crate::rig::reserve_port();
        // Numbered as they come.
        let dialled = AtomicU64::new(0);
        let who = move |_| usize::try_from(dialled.fetch_add(1, Ordering::SeqCst)).ok();
        let proxy = Proxy::knowing(port, to, Box::new(who));
        let dial = || TcpStream::connect(proxy.address()).expect("it listens");
        let (mut cut, mut free) = (dial(), dial());
        assert!(hears(&mut cut) && hears(&mut free));
        proxy.part(0, Parting::Cut);
        assert!(hears(&mut free));
        let _ = hears(&mut cut); // what had come before
        assert!(!hears(&mut cut));
        proxy.part(2, Parting::Held);
        let mut held = dial();
        let silence = next(&mut held, WHILE);
        assert_eq!(silence, Heard::Silence, "one that is dialled amid it");
        assert_eq!(proxy.parted(), 2);
        proxy.join(2);
        assert!(hears(&mut held), "nothing is lost");
    }
}
