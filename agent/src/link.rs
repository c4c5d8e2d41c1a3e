//! One TLS connection to a master: names resolved without NSS, each address tried in turn. Used by enrolment, the
//! session and the bulk lane. Knows nothing of what is said on it.

mod refusal;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::ids::ClusterName;
use aot_proto::route::Route;
use aot_tls::ReadAhead;
use hickory_resolver::Resolver;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::config::split_address;
use crate::identity::ClientIdentity;
use crate::masters::DialOrder;
use crate::tls;
use refusal::Inspected;
pub(crate) use refusal::Refusal;

/// Longest wait for a name, and for TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(10);
/// HTTP/2 pings on a connection, also an idle one.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How much of a bundle may be under way; also bounds the memory that a fetch takes.
const WINDOW_BYTES: u32 = 1 << 20;
/// Largest frame of HTTP/2 to us: of a long message fewer have to be made and taken apart.
const FRAME_BYTES: u32 = 64 << 10;

/// A master that could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The name has no address.
    #[error("cannot resolve {name}: {why}")]
    Name { name: String, why: String },
    /// TCP or TLS failed.
    #[error("cannot reach the master at {address}")]
    Unreachable {
        /// Name or address and port.
        address: String,
        source: io::Error,
    },
    /// No answer in time.
    #[error("the master at {0} did not answer in 10 s")]
    Timeout(String),
    /// HTTP/2 could not be started.
    #[error("the master at {address} does not speak HTTP/2")]
    Http {
        /// Name or address and port.
        address: String,
        source: tonic::transport::Error,
    },
    /// The master does not take our certificate.
    #[error("the master at {0} does not accept the certificate")]
    Refused(String),
    /// The certificate can't be used.
    #[error("cannot use the identity")]
    Tls(#[from] tls::Error),
    /// There was no address to try.
    #[error("the settings name no master")]
    NoMaster,
}

/// How to reach the masters.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    order: Arc<Mutex<DialOrder>>,
    roots: Arc<RootCertStore>,
    route: Arc<Mutex<KnownRoute>>,
}

/// What masters lead this machine's connections by. Without it each goes to the master that takes it.
#[derive(Debug, Default)]
struct KnownRoute {
    /// By the settings, which count where they have one.
    of_settings: Option<Route>,
    /// By the certificate.
    of_identity: Option<Route>,
}

impl Link {
    /// To any of the masters in `order` that shows a certificate of an authority in `roots`; `route` is that of the settings.
    pub(crate) fn new(
        order: DialOrder,
        roots: Arc<RootCertStore>,
        of_settings: Option<Route>,
    ) -> Self {
        let route = KnownRoute {
            of_settings,
            of_identity: None,
        };
        Self {
            order: Arc::new(Mutex::new(order)),
            roots,
            route: Arc::new(Mutex::new(route)),
        }
    }

    /// Leads the connections from now on to whoever has this cluster, unless the settings say another.
    pub(crate) fn lead_to(&self, cluster: &ClusterName) {
        let mut route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        route.of_identity = Some(Route::of(cluster));
    }

    fn route(&self) -> Option<Route> {
        let route = self.route.lock().unwrap_or_else(PoisonError::into_inner);
        let known = route.of_settings.as_ref().or(route.of_identity.as_ref());
        known.cloned()
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// Which master is next; no lock across `.await`.
    pub(crate) fn order(&self) -> MutexGuard<'_, DialOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects beside a session: to its master where that answers. The channel is good for this one connection: it is
    /// dropped, not mended, when it breaks.
    ///
    /// # Errors
    /// The last master's, when none answered.
    pub(crate) async fn connect(
        &self,
        identity: Option<&ClientIdentity>,
    ) -> Result<Channel, Error> {
        let round = self.order().round();
        let connection = self.first_that_answers(round, identity, |_, _| {}).await?;
        Ok(connection.channel)
    }

    /// Connects to the next master that answers, which is the next one from now on; `identity` is shown when there is one.
    /// Whoever gets nowhere with it calls [`DialOrder::failed`].
    ///
    /// # Errors
    /// The last master's, when none answered.
    pub(crate) async fn dial(
        &self,
        identity: Option<&ClientIdentity>,
    ) -> Result<Connection, Error> {
        let round = self.order().round();
        let failed = |address: &str, _: &Error| self.order().failed(address);
        let connection = self.first_that_answers(round, identity, failed).await?;
        self.order().reached(&connection.address);
        Ok(connection)
    }

    /// Connects to the master that answered last, and to no other. It stays the next one when it refuses: it may be about to
    /// come back. When it says nothing the one after it is next.
    ///
    /// # Errors
    /// When it did not answer.
    pub(crate) async fn redial(&self, identity: &ClientIdentity) -> Result<Connection, Error> {
        let mut round = self.order().round();
        round.truncate(1);
        let failed = |address: &str, error: &Error| {
            if matches!(error, Error::Timeout(_)) {
                self.order().failed(address);
            }
        };
        self.first_that_answers(round, Some(identity), failed).await
    }

    async fn first_that_answers(
        &self,
        round: Vec<String>,
        identity: Option<&ClientIdentity>,
        failed: impl Fn(&str, &Error),
    ) -> Result<Connection, Error> {
        let config = Arc::new(tls::client_config(
            &self.roots,
            identity.map(ClientIdentity::for_tls),
        )?);
        let route = self.route();
        let mut last = Error::NoMaster;
        for address in round {
            match connect_one(&address, config.clone(), route.as_ref()).await {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    tracing::debug!(address, error = %Chain(&error), "this master was not reached");
                    failed(&address, &error);
                    last = error;
                }
            }
        }
        Err(last)
    }
}

/// One connection to a master.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The master's, as it was dialled.
    pub address: String,
    /// To make calls on.
    pub channel: Channel,
    /// What the master said of our certificate.
    pub refusal: Refusal,
}

async fn connect_one(
    address: &str,
    config: Arc<ClientConfig>,
    route: Option<&Route>,
) -> Result<Connection, Error> {
    let dialled = timeout(CONNECT, dial(address, config, route)).await;
    let stream = dialled.map_err(|_| Error::Timeout(address.to_owned()))??;
    let refusal = Refusal::default();
    let mut once = Some(Inspected {
        stream,
        refusal: refusal.clone(),
    });
    let connector = service_fn(move |_| {
        let stream = once.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let connected = Endpoint::from_static("http://aot-master")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .buffer_size(16)
        .connect_with_connector(connector)
        .await;
    match connected {
        Ok(channel) => Ok(Connection {
            address: address.to_owned(),
            channel,
            refusal,
        }),
        Err(_) if refusal.is_certificate_over() => Err(Error::Refused(address.to_owned())),
        Err(source) => Err(Error::Http {
            address: address.to_owned(),
            source,
        }),
    }
}

async fn dial(
    address: &str,
    config: Arc<ClientConfig>,
    route: Option<&Route>,
) -> Result<TlsStream<ReadAhead<TcpStream>>, Error> {
    let unreachable = |source| Error::Unreachable {
        address: address.to_owned(),
        source,
    };
    let (host, port) =
        split_address(address).ok_or_else(|| unreachable(io::ErrorKind::InvalidInput.into()))?;
    let mut last = unreachable(io::ErrorKind::AddrNotAvailable.into());
    for ip in resolve(host).await? {
        let connected = async {
            let stream = TcpStream::connect(SocketAddr::new(ip, port)).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(config.clone())
                .connect(server_name(route, host, ip), ReadAhead::new(stream))
                .await
        };
        match connected.await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = unreachable(error),
        }
    }
    Err(last)
}

/// What the handshake names (SNI): the route, else the host where it is a DNS name. The answer is not compared with it, see
/// `tls`.
fn server_name(route: Option<&Route>, host: &str, ip: IpAddr) -> ServerName<'static> {
    let name = route.map_or_else(|| host.to_owned(), Route::server_name);
    ServerName::try_from(name).unwrap_or_else(|_| ServerName::IpAddress(ip.into()))
}

/// Addresses of `host`, by /etc/hosts and the servers of /etc/resolv.conf unless it is an address itself.
pub(crate) async fn resolve(host: &str) -> Result<Vec<IpAddr>, Error> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let name = |why: String| Error::Name {
        name: host.to_owned(),
        why,
    };
    let resolver = Resolver::builder_tokio()
        .and_then(|builder| builder.build())
        .map_err(|error| name(error.to_string()))?;
    let found = resolver
        .lookup_ip(host)
        .await
        .map_err(|error| name(error.to_string()))?;
    Ok(found.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_named_in_place_of_the_host_and_that_of_the_settings_counts() {
        let name = |text: &str| -> ClusterName { text.parse().unwrap() };
        let ip = IpAddr::from([10, 0, 0, 1]);
        let route = Route::of(&name("web"));
        for (route, host, wanted) in [
            (None, "m.example", "m.example".to_owned()),
            (None, "10.0.0.1", "10.0.0.1".to_owned()),
            (Some(&route), "m.example", route.server_name()),
            (Some(&route), "10.0.0.1", route.server_name()),
        ] {
            assert_eq!(server_name(route, host, ip).to_str(), wanted);
        }
        let link = |of_settings| {
            let order = DialOrder::new("i-1", Vec::new(), Vec::new());
            Link::new(order, Arc::new(RootCertStore::empty()), of_settings)
        };
        let by_identity = link(None);
        assert_eq!(by_identity.route(), None, "nothing is known yet");
        by_identity.lead_to(&name("web"));
        assert_eq!(by_identity.clone().route(), Some(route.clone()));
        let by_settings = link(Some(Route::of(&name("db"))));
        by_settings.lead_to(&name("web"));
        assert_eq!(by_settings.route(), Some(Route::of(&name("db"))));
    }
}
