//! The masters' port: TLS 1.3 with a client certificate of a master, then the operators' calls, and nothing else.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_tls::ReadAhead;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::{PeerIdentity, PeerMaster};
use crate::server::accept::accept_all;
use crate::server::named_stream::NamedStream;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes at once. Masters are few: what comes past that is hung up.
const HANDSHAKES: usize = 64;

/// Connections whose handshake is over and that wait to be served. With more, handshakes wait.
const SHAKEN: usize = 16;

/// How often a connection is asked whether it lives, and how long its answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Bytes that may be under way to us, in one call and in all of a connection.
const WINDOWS: (u32, u32) = (1 << 20, 2 << 20);

/// Largest frame of HTTP/2 to us.
const FRAME_BYTES: u32 = 64 << 10;

/// Serves `service` to masters until `stop` fires.
pub(crate) async fn serve<S>(
    listener: TcpListener,
    identity: Arc<PeerIdentity>,
    service: S,
    tasks: TaskTracker,
    stop: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let (shaken, connections) = mpsc::channel(SHAKEN);
    tasks.spawn(accept(
        listener,
        identity,
        shaken,
        tasks.clone(),
        stop.clone(),
    ));
    let until = stop.clone();
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_frame_size(FRAME_BYTES)
        .add_service(service)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
            until.cancelled().await;
        })
        .await;
    if let Err(error) = served {
        // This master's operators and machines have what they need; others' operators are told by their doors.
        tracing::error!(error = %Chain(&error), "the masters' port failed");
    }
}

/// A connection of a master.
type PeerStream = NamedStream<TlsStream<ReadAhead<TcpStream>>, PeerMaster>;

type Shaken = mpsc::Sender<io::Result<PeerStream>>;

async fn accept(
    listener: TcpListener,
    identity: Arc<PeerIdentity>,
    shaken: Shaken,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let turns = Arc::new(Semaphore::new(HANDSHAKES));
    let met = |stream, address| {
        if let Ok(turn) = turns.clone().try_acquire_owned() {
            let shake = shake(stream, address, identity.clone(), shaken.clone(), turn);
            tasks.spawn(shake);
        }
    };
    accept_all(listener, "the masters' port", &stop, met, || {}).await;
}

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    identity: Arc<PeerIdentity>,
    shaken: Shaken,
    _turn: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true); // only a matter of speed
    let server = match identity.server() {
        Ok(server) => server,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot take connections of masters");
            return;
        }
    };
    let shaking = TlsAcceptor::from(server).accept(ReadAhead::new(stream));
    let secured = tokio::time::timeout(HANDSHAKE, shaking).await;
    let stream = match secured {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%address, error = %Chain(&error), "refused a handshake on the masters' port");
            return;
        }
        Err(_) => return,
    };
    let Some(master) = identity.peer(stream.get_ref().1.peer_certificates()) else {
        tracing::warn!(%address, "refused a certificate on the masters' port that does not belong to a master");
        return;
    };
    let name = PeerMaster(master.into());
    let stream = PeerStream { stream, name };
    let _ = tokio::time::timeout(HANDSHAKE, shaken.send(Ok(stream))).await; // it is hung up while this master stops
}
