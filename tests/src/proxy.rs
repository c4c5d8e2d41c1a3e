//! A TCP relay between agents and a master whose links can be cut or held: the network's faults, without the kernel's help.
//! For tests with local clones, which then dial it as the advertised address.

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
}

struct Link {
    agent: TcpStream,
    master: TcpStream,
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
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
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
        // Without a master the agent finds its link closed, and tries again.
        let Ok(master) = TcpStream::connect(upstream) else {
            continue;
        };
        for stream in [&agent, &master] {
            let _ = stream.set_nodelay(true); // only makes it quicker
        }
        let link = Arc::new(Link {
            agent,
            master,
            held: Mutex::new(false),
            changed: Condvar::new(),
        });
        let number = shared.next.fetch_add(1, Ordering::SeqCst);
        lock(&shared.links).insert(number, Arc::clone(&link));
        let (up, shared) = (Arc::clone(&link), Arc::clone(shared));
        let theirs = Arc::clone(&shared);
        std::thread::spawn(move || up.pump(&up.agent, &up.master, &theirs.slow));
        std::thread::spawn(move || {
            link.pump(&link.master, &link.agent, &shared.slow);
            lock(&shared.links).remove(&number);
        });
    }
}
