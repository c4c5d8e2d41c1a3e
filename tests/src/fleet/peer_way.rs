//! The ways between masters: a relay before each one's port for the others, which knows who dials and can part any two of them.
//! Connections of machines that are passed on go by the agents' ports, and so not by it: [`super::sockets`] breaks those.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sockets;
use crate::process;
use crate::proxy::Proxy;
use crate::rig::reserve_port;

/// Processes of the masters that run, by their places in the fleet.
#[derive(Debug, Clone, Default)]
pub(super) struct Pids(Arc<Mutex<BTreeMap<usize, u32>>>);

impl Pids {
    fn all(&self) -> MutexGuard<'_, BTreeMap<usize, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which master has dialled this port of loopback from that address.
    fn who(&self, from: SocketAddr, to: u16) -> Option<usize> {
        let mut dialled = sockets::dialled(to).into_iter();
        let (_, inode) = dialled.find(|(port, _)| *port == from.port())?;
        let socket = PathBuf::from(format!("socket:[{inode}]"));
        let pids = self.all().clone();
        let mut found = pids
            .into_iter()
            .filter(|(_, pid)| process::open_files(*pid).contains(&socket));
        found.next().map(|(at, _)| at)
    }
}

/// The way to one master's port for the others. While that master does not run nobody listens, as it would be without a relay:
/// by that the others know that it has ended.
pub(super) struct PeerWay {
    at: usize,
    port: u16,
    _lock: File,
    pids: Pids,
    relay: Option<Proxy>,
}

impl PeerWay {
    /// To the master in this place of the fleet.
    pub(super) fn new(pids: &Pids, at: usize) -> Self {
        let (port, lock) = reserve_port();
        Self {
            at,
            port,
            _lock: lock,
            pids: pids.clone(),
            relay: None,
        }
    }

    /// What other masters dial.
    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The master runs as this process, and listens on that port, now or soon.
    pub(super) fn open(&mut self, pid: u32, to: u16) {
        self.pids.all().insert(self.at, pid);
        let (pids, port) = (self.pids.clone(), self.port);
        let who = move |from| pids.who(from, port);
        self.relay = Some(Proxy::knowing(port, to, Box::new(who)));
    }

    /// The master has ended.
    pub(super) fn close(&mut self) {
        self.pids.all().remove(&self.at);
        self.relay = None;
    }

    /// Its relay.
    ///
    /// # Panics
    /// When the master does not run.
    pub(super) fn relay(&self) -> &Proxy {
        self.relay.as_ref().expect("the master runs")
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_dials_is_known_by_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("it is bound");
        let stream = TcpStream::connect(to).expect("it listens");
        let from = stream.local_addr().expect("it is bound");
        let pids = Pids::default();
        pids.all().insert(0, 1); // somebody else
        assert_eq!(pids.who(from, to.port()), None);
        pids.all().insert(2, std::process::id());
        assert_eq!(pids.who(from, to.port()), Some(2));
    }
}
