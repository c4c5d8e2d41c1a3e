//! Where machines' connections and requests go: most are served here, and those of a cluster that another master has are
//! passed on to that one. Its bytes are TLS between the machine and that master: nobody reads them in between.
//!
//! Used by `listener` for connections, and by `boot_pass` for what boot scripts ask, which name no server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_model::hash::{JoinKey, PurposeKey};
use aot_proto::ids::ClusterName;
use aot_proto::limits::MAX_MASTERS;
use aot_proto::route::Route;
use aot_store::fleet::{FleetMaster, Whereabouts};
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::copy_both::copy_both;
use super::proxy_header;
use super::strangers::{Evicted, Stay};
use crate::fleet::ClusterFinder;
use crate::log_limit::LogLimit;
use crate::run::now_ms;

/// How long a cluster that nobody has is waited for. A machine's own patience is 10 s.
const NOBODY: Duration = Duration::from_secs(8);

/// How long what another master passes on waits here while a third one has its cluster: the one that passes it on may know earlier
/// whom it goes to. A part of what is waited for at most.
const MOVED_PART: u32 = 4;

/// After how long a master that does not answer is dialled again, unless another one has the cluster by then.
const DIAL_AGAIN: Duration = Duration::from_secs(1);

/// Between two looks at what is known of it.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Most that have the store asked for them at once. What it says is known to all then: others wait for that.
const LOOKS: usize = 4;

/// How long one address of a master may take to answer, and to take what goes first.
const DIAL: Duration = Duration::from_secs(2);

/// A connection that was passed on for this long belongs to an agent: a master ends one without a certificate after 15
/// minutes, and what is left of it is ended within two.
const LASTED: Duration = Duration::from_secs(20 * 60);

/// After how long without a byte the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Finds the master of a cluster, and passes on to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Guide(Arc<GuideParts>);

struct GuideParts {
    finder: ClusterFinder,
    key: PurposeKey,
    looks: Semaphore,
    lines: LogLimit,
    nobody: Duration,
}

/// Where it goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServedBy {
    /// It is served here.
    Here,
    /// To this master.
    Master(Box<FleetMaster>),
    /// Nobody had its cluster in time.
    Nowhere,
    /// There is no such cluster.
    Unknown,
}

/// What led to another master, and did not get there.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotPassed {
    /// It says no address.
    #[error("it names no address for agents")]
    NoAddress,
    /// None of its addresses answered; the last one's reason.
    #[error("it does not answer at {address}")]
    Unreachable {
        /// Of the last try.
        address: String,
        source: io::Error,
    },
}

impl Guide {
    /// By what the finder knows, with a key that all masters of the fleet derive.
    pub(crate) fn new(finder: ClusterFinder, join_key: &JoinKey) -> Self {
        Self::patient(finder, join_key, NOBODY)
    }

    /// As [`Guide::new`], but waits for this long where nobody has a cluster.
    pub(super) fn patient(finder: ClusterFinder, join_key: &JoinKey, nobody: Duration) -> Self {
        Self(Arc::new(GuideParts {
            finder,
            key: proxy_header::key(join_key),
            looks: Semaphore::new(LOOKS),
            lines: LogLimit::default(),
            nobody,
        }))
    }

    /// What headers are signed with.
    pub(super) fn key(&self) -> &PurposeKey {
        &self.0.key
    }

    /// The cluster of a route. `None` where this master has all of them, and `Some(None)` where it has no cluster.
    pub(super) async fn cluster(&self, route: Option<&Route>) -> Option<Option<ClusterName>> {
        let shared = &*self.0;
        let route = route.filter(|_| !shared.finder.is_alone())?;
        if let Some(known) = shared.finder.known_route(route) {
            return Some(Some(known));
        }
        // An unknown one has the store asked: anybody can make up as many as there are.
        let asked = async {
            let _turn = shared.looks.acquire().await.ok()?;
            shared.finder.cluster_of_route(route).await
        };
        Some(timeout(shared.nobody, asked).await.ok().flatten())
    }

    /// Where a cluster is, as far as is known now.
    pub(super) fn is_here(&self, cluster: &ClusterName) -> bool {
        self.0.finder.whereabouts(cluster) == Whereabouts::Here
    }

    /// Until when a connection that begins now may look for its master.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.0.nobody
    }

    /// Where what is for a cluster goes; while nobody has it, that is waited for. What was passed on once (`is_passed_on`) goes
    /// nowhere else: two masters that know different things would send it to and fro.
    pub(super) async fn destination(
        &self,
        cluster: &ClusterName,
        is_passed_on: bool,
        until: Instant,
    ) -> ServedBy {
        match (self.find(cluster, is_passed_on, until).await, is_passed_on) {
            (Whereabouts::Here, _) => ServedBy::Here,
            (Whereabouts::Elsewhere(master), false) => ServedBy::Master(Box::new(master)),
            (Whereabouts::Elsewhere(_), true) | (Whereabouts::Nowhere, _) => ServedBy::Nowhere,
            (Whereabouts::Unknown, _) => ServedBy::Unknown,
        }
    }

    /// With a turn the store is asked. Without one, others have it asked, and what they learn is waited for.
    async fn find(&self, cluster: &ClusterName, only_here: bool, until: Instant) -> Whereabouts {
        let shared = &*self.0;
        let moved = Instant::now() + shared.nobody / MOVED_PART;
        loop {
            let found = shared.finder.whereabouts(cluster);
            let left = until.saturating_duration_since(Instant::now());
            let is_final = match &found {
                Whereabouts::Here => true,
                Whereabouts::Elsewhere(master) => {
                    master.is_alive && (!only_here || Instant::now() >= moved)
                }
                Whereabouts::Nowhere | Whereabouts::Unknown => false,
            };
            if is_final || left.is_zero() {
                return found;
            }
            if let (Ok(_turn), false) = (shared.looks.try_acquire(), only_here) {
                let asked = timeout(left, shared.finder.find(cluster, left)).await;
                return asked.unwrap_or(found);
            }
            tokio::time::sleep(LOOK_AGAIN.min(left)).await;
        }
    }

    /// Waits until another one than this master has a cluster, or it is time to dial it again.
    pub(super) async fn after_refusal(&self, cluster: &ClusterName, id: &str, until: Instant) {
        let shared = &*self.0;
        let until = until.min(Instant::now() + DIAL_AGAIN);
        loop {
            match shared.finder.whereabouts(cluster) {
                Whereabouts::Elsewhere(master) if master.id == id => {}
                _ => return,
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if let Ok(_turn) = shared.looks.try_acquire() {
                let _ = timeout(left, shared.finder.is_here(cluster)).await; // it reads what there is
            }
            tokio::time::sleep(LOOK_AGAIN.min(left)).await;
        }
    }

    /// A connection to this master on which it takes what follows for that of the machine, which dialled `door` of ours.
    pub(super) async fn dial(
        &self,
        master: &FleetMaster,
        machine: SocketAddr,
        door: SocketAddr,
    ) -> Result<TcpStream, NotPassed> {
        let mut last = NotPassed::NoAddress;
        for address in master.says.links().take(MAX_MASTERS) {
            let header = proxy_header::written(machine, door, self.key(), now_ms());
            let begun = timeout(DIAL, begin(address, &header)).await;
            match begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => return Ok(stream),
                Err(source) => {
                    let address = address.clone();
                    last = NotPassed::Unreachable { address, source };
                }
            }
        }
        Err(last)
    }

    /// Writes down that a machine was not passed on, unless there were many such lines: when a master dies, all of its machines
    /// come within seconds.
    pub(super) fn log_not_passed(&self, machine: SocketAddr, master: &str, error: &NotPassed) {
        if let Some(left_out) = self.0.lines.admit(Instant::now()) {
            tracing::warn!(%machine, master, error = %Chain(error), left_out, "cannot pass a machine on to the master that has its cluster");
        }
    }
}

async fn begin(address: &str, first: &[u8]) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(first).await?;
    Ok(stream)
}

/// A connection that another master serves.
pub(super) struct Passed {
    pub(super) machine: TcpStream,
    pub(super) owner: TcpStream,
    pub(super) stay: Stay,
    pub(super) evicted: Evicted,
}

impl Passed {
    /// Copies until either side is through, it is let go for another, or `stop` fires.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Self {
            mut machine,
            mut owner,
            stay,
            evicted,
        } = self;
        for stream in [&machine, &owner] {
            // One that does not do so is found out by the other side.
            let _ = set_socket_keepalive(stream, true);
            let _ = set_tcp_keepidle(stream, KEEPALIVE);
        }
        let mut copied = std::pin::pin!(copy_both(&mut machine, &mut owner));
        let is_over = tokio::select! {
            _ = copied.as_mut() => true,
            _ = evicted => true,
            () = stop.cancelled() => true,
            () = Box::pin(tokio::time::sleep(LASTED)) => false,
        };
        if is_over {
            return;
        }
        stay.has_lasted();
        tokio::select! {
            _ = copied => {}
            () = stop.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests;
