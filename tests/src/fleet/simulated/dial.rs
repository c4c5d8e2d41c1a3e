//! Connections as a real agent makes them: its TLS, the route as the server's name, HTTP/2 with its settings. Each agent dials
//! from a loopback address of its own, as masters count what comes from one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aot_agent::inside::{client_config, roots};
use aot_proto::route::Route;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Longest wait for TCP and TLS together, as the real agent's.
const CONNECT: Duration = Duration::from_millis(10_000);
/// HTTP/2 pings, as the real agent's.
const KEEPALIVE: Duration = Duration::from_millis(10_000);
/// The real agent's window and frames.
const WINDOW_BYTES: u32 = 1 << 20;
const FRAME_BYTES: u32 = 64 << 10;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    Refused,
    Timeout,
    NoMaster,
}

impl<E: std::error::Error> From<E> for DialError {
    fn from(_: E) -> Self {
        Self::Refused
    }
}

/// One connection to a master.
pub(super) struct Connection {
    pub(super) address: String,
    pub(super) channel: Channel,
}

/// How one agent connects.
pub(super) struct Way {
    pub(super) route: Route,
    pub(super) config: Arc<ClientConfig>,
    pub(super) from: Ipv4Addr,
}

impl Way {
    /// Dials this master.
    pub(super) async fn connect(&self, address: &str) -> Result<Connection, DialError> {
        let stream = timeout(CONNECT, self.secured(address)).await;
        let stream = stream.map_err(|_| DialError::Timeout)??;
        let mut once = Some(stream);
        let connector = service_fn(move |_| {
            let stream = once.take().map(TokioIo::new);
            async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
        });
        let channel = Endpoint::from_static("http://aot-master")
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES)
            .buffer_size(16)
            .connect_with_connector(connector)
            .await?;
        Ok(Connection {
            address: address.to_owned(),
            channel,
        })
    }

    async fn secured(&self, address: &str) -> Result<TlsStream<TcpStream>, DialError> {
        let to: SocketAddr = address.parse()?;
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.route.server_name())?;
        let connector = TlsConnector::from(self.config.clone());
        Ok(connector.connect(name, stream).await?)
    }
}

/// The certificates of a folder.
pub(super) struct Identities {
    folder: PathBuf,
    roots: Arc<RootCertStore>,
}

impl Identities {
    /// Of this folder, which [`super::super::records::write`] wrote.
    pub(super) fn open(folder: &Path) -> Self {
        let authority = std::fs::read_to_string(folder.join("ca.pem")).expect("an authority");
        Self {
            folder: folder.to_owned(),
            roots: roots(&authority).expect("it is one"),
        }
    }

    /// Of the agent with this number.
    pub(super) fn config(&self, number: usize) -> Arc<ClientConfig> {
        let path = |ending: &str| self.folder.join(format!("{number}.{ending}"));
        let chain = CertificateDer::pem_file_iter(path("pem"))
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(path("key")).expect("a key");
        let identity = Some((&chain[..], key.secret_der()));
        let mut config = client_config(&self.roots, identity).expect("they fit");
        config.resumption = Resumption::disabled(); // a real one makes the settings anew for each connection
        Arc::new(config)
    }
}
