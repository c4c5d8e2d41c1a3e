//! Calls on other masters' ports. A connection carries one call at a time: an operator that reads slowly holds up nobody
//! else, and what may wait for it is bounded by its own stream. One that is free again is kept for the next for a while.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::headers;
use aot_store::fleet::FleetMaster;
use aot_tls::ReadAhead;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Request, Response};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::identity::{self, PeerIdentity};
use super::passed::PassedBody;
use crate::enrol::masters;

/// How long a master may take to be connected to. Less than it has for any answer: who waits is told that it is not reached.
pub(crate) const CONNECT: Duration = Duration::from_secs(3);

/// How long a connection is kept without a call, and how many a master; more are closed.
const KEPT: Duration = Duration::from_secs(20);
const MOST_KEPT: usize = 8;

/// A master that says nothing for these two together while a call is under way, not even to a ping of HTTP/2, is lost.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(10));

/// Bytes of an answer that may wait for whoever asked.
const WINDOW: u32 = 256 << 10;

/// The same of a connection, which has one answer at a time. The h2 crate ends one on which too many small frames wait, and counts
/// half of this as enough for them: a stream full of the smallest ones must fit.
const CONNECTION_WINDOW: u32 = 64 * WINDOW;

/// Largest frame of HTTP/2 to us: one of output and what goes with it.
const FRAME_BYTES: u32 = 64 << 10;

/// Why a master is not reached.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// It has said no address.
    #[error("it has not said where other masters reach it")]
    NoAddress,
    /// In time.
    #[error("no connection within {} s", CONNECT.as_secs())]
    Late,
    /// TCP, or TLS.
    #[error("cannot connect")]
    Connect(#[from] std::io::Error),
    /// Own certificate.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// Somebody else listens there.
    #[error("another listens at that address")]
    Other,
    /// HTTP/2.
    #[error("it does not answer")]
    Http(#[from] hyper::Error),
}

/// All other masters' ports. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Inner>);

struct Inner {
    identity: Arc<PeerIdentity>,
    kept: Mutex<HashMap<PeerAddress, Vec<IdleConnection>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A master and its address.
type PeerAddress = (String, String);

struct IdleConnection {
    sender: SendRequest<Body>,
    since: Instant,
}

/// A connection while it carries a call. Dropped, it is kept for the next one.
struct Lease {
    key: PeerAddress,
    sender: Option<SendRequest<Body>>,
    peers: Peers,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take().filter(|it| !it.is_closed()) {
            self.peers.keep(self.key.clone(), sender);
        }
    }
}

impl Peers {
    /// Dialled with this identity; connections end by `stop`.
    pub(crate) fn new(
        identity: Arc<PeerIdentity>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let kept = Mutex::default();
        Self(Arc::new(Inner {
            identity,
            kept,
            tasks,
            stop,
        }))
    }

    /// The id of this master.
    pub(crate) fn me(&self) -> &str {
        self.0.identity.id()
    }

    /// What a client of this master's calls is made with; they are asked for by `operator`.
    pub(crate) fn channel(&self, master: FleetMaster, operator: &str) -> PeerChannel {
        PeerChannel {
            peers: self.clone(),
            master,
            operator: operator.to_owned(),
        }
    }

    /// Has this master answer a request of an operator; both bodies are copied as they come. What fails on the way is an answer
    /// too: UNAVAILABLE, with the master and the way out.
    pub(crate) async fn pass(
        &self,
        master: &FleetMaster,
        operator: &str,
        request: Request<Body>,
    ) -> Response<Body> {
        let request = addressed(request, &master.id, operator);
        match self.send(master, request).await {
            Ok((answer, lease)) => {
                answer.map(|body| Body::new(PassedBody::new(body, master.id.clone(), lease)))
            }
            Err(error) => unreached(master, &error).into_http(),
        }
    }

    async fn send(
        &self,
        master: &FleetMaster,
        mut request: Request<Body>,
    ) -> Result<(Response<hyper::body::Incoming>, Lease), Error> {
        let address = &master.says.peer;
        if address.is_empty() {
            return Err(Error::NoAddress);
        }
        let key = (master.id.clone(), address.clone());
        loop {
            let kept = self.kept(&key);
            let is_new = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => {
                    let dialled = tokio::time::timeout(CONNECT, self.dial(master)).await;
                    dialled.map_err(|_| Error::Late)??
                }
            };
            let asked = async {
                sender.ready().await.ok();
                sender.try_send_request(request).await
            };
            match asked.await {
                Ok(answer) => {
                    let lease = Lease {
                        key,
                        sender: Some(sender),
                        peers: self.clone(),
                    };
                    return Ok((answer, lease));
                }
                // One that was kept had ended meanwhile: nothing was sent.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(Error::Http(failed.into_error())),
                },
            }
        }
    }

    async fn dial(&self, master: &FleetMaster) -> Result<SendRequest<Body>, Error> {
        let tcp = TcpStream::connect(&master.says.peer).await?;
        let _ = tcp.set_nodelay(true); // only a matter of speed
        let name = ServerName::try_from(masters::host(&master.id)).map_err(|_| Error::Other)?;
        let connector = TlsConnector::from(self.0.identity.client()?);
        let stream = connector.connect(name, ReadAhead::new(tcp)).await?;
        let shown = stream.get_ref().1.peer_certificates();
        if self.0.identity.peer(shown).as_deref() != Some(&*master.id) {
            return Err(Error::Other);
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES)
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .handshake(TokioIo::new(stream))
            .await?;
        let stop = self.0.stop.clone();
        self.0.tasks.spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %Chain(&error), "a connection to a master ended");
                    }
                }
                () = stop.cancelled() => {}
            }
        });
        Ok(sender)
    }

    /// A connection that is free.
    fn kept(&self, key: &PeerAddress) -> Option<SendRequest<Body>> {
        let mut all = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.get_mut(key)?;
        found.retain(IdleConnection::is_good);
        found.pop().map(|kept| kept.sender)
    }

    fn keep(&self, key: PeerAddress, sender: SendRequest<Body>) {
        let since = Instant::now();
        let mut all = self.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of masters that are gone go here too.
        for kept in all.values_mut() {
            kept.retain(IdleConnection::is_good);
        }
        all.retain(|_, kept| !kept.is_empty());
        let kept = all.entry(key).or_default();
        if kept.len() < MOST_KEPT {
            kept.push(IdleConnection { sender, since });
        }
    }
}

impl IdleConnection {
    fn is_good(&self) -> bool {
        !self.sender.is_closed() && self.since.elapsed() < KEPT
    }
}

/// The request as it goes to that master: by its name, and asked for by `operator`, whatever the operator says of that.
fn addressed(mut request: Request<Body>, master: &str, operator: &str) -> Request<Body> {
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Authority::try_from(masters::host(master)).ok();
    let path = request.uri().path_and_query().cloned();
    uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(uri) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().remove(HOST);
    request.headers_mut().remove(headers::OPERATOR);
    if let Ok(operator) = HeaderValue::from_str(operator) {
        request.headers_mut().insert(headers::OPERATOR, operator);
    }
    // What is known of the operator's connection is not of this one.
    request.extensions_mut().clear();
    request
}

fn unreached(master: &FleetMaster, error: &Error) -> Status {
    aot_proto::status::owner_gone(format!(
        "the master {} at {}, which is to answer this, is not reached ({}): look at `aot-master masters`, and try again: another one takes its clusters when it is gone",
        master.id,
        master.says.peer,
        Chain(error)
    ))
}

/// Calls on one master, for a client of ours.
#[derive(Clone)]
pub(crate) struct PeerChannel {
    peers: Peers,
    master: FleetMaster,
    operator: String,
}

impl Service<Request<Body>> for PeerChannel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            let Self {
                peers,
                master,
                operator,
            } = own;
            Ok(peers.pass(&master, &operator, request).await)
        })
    }
}
