//! A connection from its first byte to where it is served: its hello is read, and where its cluster is another master's it is
//! passed on to that one. `listener` serves what stays here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_proto::ids::ClusterName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::hello::{self, BadHello, Hello};
use super::route::{Guide, Passed, ServedBy};
use super::strangers::{Evicted, Stay, Strangers};

/// How long a client may take to say hello. Its first message comes with the connection.
const HELLO: Duration = Duration::from_secs(3);

/// A connection, and its place among the others.
pub(super) struct Met {
    pub(super) stream: TcpStream,
    /// The machine's.
    pub(super) address: SocketAddr,
    /// Another master passes it on.
    pub(super) is_passed_on: bool,
    pub(super) stay: Stay,
    pub(super) evicted: Evicted,
}

impl Met {
    /// Waits for something, unless the connection has to go meanwhile.
    async fn unless_evicted<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            _ = &mut self.evicted => None,
        }
    }
}

/// Where a connection is self. The hello is boxed as it is large, and gone soon.
pub(super) enum Begun {
    Here(Met, Box<Hello>),
    Elsewhere(Passed),
    /// A load balancer's question, without TLS.
    HealthCheck(Met),
}

/// What connections are led by.
#[derive(Clone)]
pub(super) struct Arrivals {
    pub(super) strangers: Arc<Strangers>,
    pub(super) guide: Guide,
}

impl Arrivals {
    /// Reads whose it is, and finds out where it belongs.
    pub(super) async fn begin(&self, mut met: Met) -> Option<Begun> {
        let _ = met.stream.set_nodelay(true); // only a matter of speed
        let read = timeout(HELLO, hello::read(&mut met.stream, self.guide.key()));
        let read = tokio::select! {
            read = read => read.ok()?,
            _ = &mut met.evicted => return None,
        };
        let hello = match read {
            Ok(hello) => Box::new(hello),
            Err(BadHello::HealthCheck) => return Some(Begun::HealthCheck(met)),
            Err(error) => {
                tracing::info!(address = %met.address, error = %Chain(&error), "refused a TLS handshake");
                return None;
            }
        };
        if let Some(machine) = hello.machine {
            met.address = machine;
            met.is_passed_on = true;
            // From here on it counts for the machine, not for the master that passes it on.
            (met.stay, met.evicted) = self.strangers.enter(machine.ip())?;
        }
        let cluster = self.guide.cluster(hello.route.as_ref());
        match met.unless_evicted(cluster).await? {
            None => Some(Begun::Here(met, hello)),
            Some(None) => {
                tracing::debug!(address = %met.address, "a connection for a cluster that there is not");
                None
            }
            Some(Some(cluster)) if self.guide.is_here(&cluster) => Some(Begun::Here(met, hello)),
            Some(Some(cluster)) => self.lead(met, hello, cluster).await,
        }
    }

    /// Finds the master of a cluster that is not here, and begins to pass the connection on.
    async fn lead(&self, mut met: Met, hello: Box<Hello>, cluster: ClusterName) -> Option<Begun> {
        let until = self.guide.deadline();
        if !met.is_passed_on {
            let goes_on = tokio::select! {
                goes_on = met.stay.goes_on(until.into()) => goes_on,
                _ = &mut met.evicted => false,
            };
            if !goes_on {
                return None;
            }
        }
        let door = met.stream.local_addr().ok()?;
        let passenger = Passenger {
            machine: met.address,
            door,
            is_passed_on: met.is_passed_on,
        };
        let led = self.reach(&cluster, &passenger, until);
        let mut owner = match met.unless_evicted(led).await?? {
            Reached::Here => {
                if !met.is_passed_on {
                    (met.stay, met.evicted) = self.strangers.enter(met.address.ip())?;
                }
                return Some(Begun::Here(met, hello));
            }
            Reached::Owner(owner) => owner,
        };
        let said = timeout(HELLO, owner.write_all(&hello.bytes));
        met.unless_evicted(said).await?.ok()?.ok()?;
        let Met {
            stream: machine,
            stay,
            evicted,
            ..
        } = met;
        Some(Begun::Elsewhere(Passed {
            machine,
            owner,
            stay,
            evicted,
        }))
    }

    /// A master that does not answer may have died a moment ago: until `until` its cluster is looked for again. Machines that are
    /// hung up on instead use up their patience in the seconds that another master takes to take the cluster.
    async fn reach(
        &self,
        cluster: &ClusterName,
        passenger: &Passenger,
        until: Instant,
    ) -> Option<Reached> {
        let (guide, address) = (&self.guide, passenger.machine);
        loop {
            let found = guide.destination(cluster, passenger.is_passed_on, until);
            let master = match found.await {
                ServedBy::Here => return Some(Reached::Here),
                ServedBy::Master(master) => master,
                found @ (ServedBy::Nowhere | ServedBy::Unknown) => {
                    tracing::debug!(%address, %cluster, ?found, "a connection for a cluster that is not served now");
                    return None;
                }
            };
            match guide.dial(&master, address, passenger.door).await {
                Ok(owner) => return Some(Reached::Owner(owner)),
                Err(error) if Instant::now() >= until => {
                    guide.log_not_passed(address, &master.id, &error);
                    return None;
                }
                Err(_) => guide.after_refusal(cluster, &master.id, until).await,
            }
        }
    }
}

/// A connection on its way to a master.
struct Passenger {
    machine: SocketAddr,
    /// The address of ours that it dialled.
    door: SocketAddr,
    is_passed_on: bool,
}

/// Where it got to.
enum Reached {
    Here,
    Owner(TcpStream),
}
