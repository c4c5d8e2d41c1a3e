//! The agents' port: TLS 1.3, client certificate optional at this level, h2 and http/1.1 by ALPN on one port. Load balancers alone
//! are answered without TLS (`health`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_tls::ReadAhead;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{StartHandshake, TlsAcceptor};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::accept::accept_all;
use super::arrival::{Arrivals, Begun, Met};
use super::health;
use super::hello::Hello;
use super::lifetime::{self, Activity, Who};
use super::route::Guide;
use super::strangers::{ConnectionLimits, Evicted, Stay, Strangers};
use crate::enrol::ca::{self, Ca, Holder};

/// The one call of a stranger that may wait for a provider.
const ENROL: &str = "/aot.v1.Enrolment/Enrol";

/// How long the rest of a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long an HTTP/1.1 client may take to send its headers.
const HEADERS: Duration = Duration::from_secs(10);

/// How long what was said may take to leave before a connection is hung up.
const HANG_UP: Duration = Duration::from_secs(2);

/// Handshakes that are worked on at once. They cost processor time mostly, and the memory of those that come all at once
/// after a restart would stay with the process.
const HANDSHAKES: usize = 128;

/// After this long one that waits for its client leaves its turn to the next: clients that stall hold up nobody for longer.
const TURN: Duration = Duration::from_millis(100);

/// Calls at once on the connection of an agent, and of a client without a certificate.
const CALLS: u32 = 64;
const CALLS_OF_A_STRANGER: u32 = 8;

/// Bytes of one answer that wait for their connection to take them; then no more of it is asked for. hyper's own setting is 400 KiB,
/// which thousands of machines that fetch a bundle would each have.
const UNSENT_BYTES: usize = 64 << 10;

/// Who is on the other side of a connection; put into every request.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub address: SocketAddr,
    /// Another master passes it on: it goes no further.
    pub is_passed_on: bool,
    /// Holder of its client certificate, if it showed one that our CA signed.
    pub holder: Option<Holder>,
    /// Ends the connection, after [`HANG_UP`]; all requests of a connection have the same one.
    pub hang_up: CancellationToken,
}

/// Why the port can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS set-up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// Client certificates.
    #[error("cannot set up the verification of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The CA.
    #[error("cannot make the server's certificate")]
    Ca(#[from] ca::Error),
}

/// TLS settings: TLS 1.3 only, our CA for clients, a certificate with every host.
///
/// # Errors
/// When a host can't be in a certificate.
pub(crate) fn tls(ca: &Ca, hosts: &[String]) -> Result<TlsAcceptor, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let (certificate, key) = ca.server(hosts)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate, ca.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0; // agents dial seldom, and show their certificate each time
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What every connection is served with.
#[derive(Clone)]
struct Served {
    tls: Arc<ServerConfig>,
    app: Router,
    arrivals: Arrivals,
    /// Turns of handshakes.
    turns: Arc<Semaphore>,
    stop: CancellationToken,
}

/// Accepts until `stop` fires.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    app: Router,
    limits: ConnectionLimits,
    guide: Guide,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let strangers = Strangers::new(limits);
    let served = Served {
        tls: tls.config().clone(),
        app,
        arrivals: Arrivals {
            strangers: strangers.clone(),
            guide,
        },
        turns: Arc::new(Semaphore::new(HANDSHAKES)),
        stop: stop.clone(),
    };
    let met = |stream, address: SocketAddr| {
        if let Some((stay, evicted)) = strangers.enter(address.ip()) {
            tasks.spawn(connection(stream, address, stay, evicted, served.clone()));
        }
    };
    let make_room = || {
        strangers.evict_oldest();
    };
    accept_all(listener, "the agents' port", &stop, met, make_room).await;
}

/// One connection, from its first byte to its last.
async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    stay: Stay,
    evicted: Evicted,
    served: Served,
) {
    let met = Met {
        stream,
        address,
        is_passed_on: false,
        stay,
        evicted,
    };
    // Boxed, each by itself: a connection lives for long in one of them, and needs no room for the others.
    let begun = tokio::select! {
        begun = Box::pin(served.arrivals.begin(met)) => begun,
        () = served.stop.cancelled() => return,
    };
    match begun {
        None => {}
        Some(Begun::Here(met, hello)) => Box::pin(serve_here(met, hello, served)).await,
        Some(Begun::Elsewhere(passed)) => Box::pin(passed.run(served.stop)).await,
        Some(Begun::HealthCheck(mut met)) => {
            let answered = health::answer_plainly(&mut met.stream, served.app);
            let _ = timeout(HANG_UP, answered).await; // it will ask again
        }
    }
}

/// Serves a connection here, from its handshake on.
async fn serve_here(met: Met, hello: Box<Hello>, served: Served) {
    let Met {
        stream,
        address,
        is_passed_on,
        stay,
        mut evicted,
    } = met;
    // Boxed: only its handshake needs it.
    let shaking = Box::pin(shake(stream, address, is_passed_on, hello, &stay, &served));
    let shaken = tokio::select! {
        shaken = shaking => shaken,
        _ = &mut evicted => None,
    };
    let Some((stream, peer)) = shaken else {
        return;
    };
    let (who, stay, evicted) = match &peer.holder {
        Some(_) => {
            stay.is_known();
            (Who::Agent, Arc::new(stay), None)
        }
        None => (Who::Stranger, Arc::new(stay), Some(evicted)),
    };
    talk(stream, peer, who, stay, evicted, served).await;
}

/// Boxed: it goes from hand to hand, and each hand would have room for all of it for as long as the connection lives.
type Secured = Box<TlsStream<ReadAhead<TcpStream>>>;

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    is_passed_on: bool,
    hello: Box<Hello>,
    stay: &Stay,
    served: &Served,
) -> Option<(Secured, Peer)> {
    let begun = StartHandshake::from_parts(hello.accepted, ReadAhead::new(stream));
    // From here on it waits for us.
    stay.stays();
    let turn = served.turns.acquire().await.ok()?;
    let rest = begun.into_stream(served.tls.clone());
    let rest = timeout(HANDSHAKE, in_turn(rest, turn, stay));
    let secured = rest.await.ok()?;
    stay.is_waited_for();
    let stream = match secured {
        Ok(stream) => Box::new(stream),
        Err(error) => {
            tracing::info!(%address, error = %Chain(&error), "refused a TLS handshake");
            return None;
        }
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let holder = certificate.and_then(|certificate| match ca::holder(certificate) {
        Ok(holder) => Some(holder),
        Err(error) => {
            tracing::warn!(%address, error = %Chain(&error), "a client certificate of ours that does not belong to an agent");
            None
        }
    });
    let hang_up = CancellationToken::new();
    let peer = Peer {
        address,
        is_passed_on,
        holder,
        hang_up,
    };
    Some((stream, peer))
}

/// Works on a handshake; gives its turn back after a while, and continues without.
async fn in_turn<T>(rest: impl Future<Output = T>, turn: SemaphorePermit<'_>, stay: &Stay) -> T {
    let mut rest = std::pin::pin!(rest);
    let first = timeout(TURN, rest.as_mut()).await;
    drop(turn);
    match first {
        Ok(done) => done,
        Err(_) => {
            stay.is_waited_for();
            rest.await
        }
    }
}

/// Serves requests until the other side leaves, or has to go.
async fn talk(
    stream: Secured,
    peer: Peer,
    who: Who,
    stay: Arc<Stay>,
    evicted: Option<Evicted>,
    served: Served,
) {
    let activity = Activity::new();
    let hang_up = peer.hang_up.clone();
    let Served { app, stop, .. } = served;
    let service = {
        let activity = activity.clone();
        tower::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            let enrols = request.uri().path() == ENROL;
            let under_way = activity.request(enrols);
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(stay.clone());
            let answered = app.clone().oneshot(request.map(axum::body::Body::new));
            async move {
                let answer = answered.await?;
                Ok::<_, std::convert::Infallible>(
                    answer.map(|body| lifetime::TrackedBody::new(body, under_way)),
                )
            }
        })
    };
    let builder = http(who);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let has_to_go = async {
        match evicted {
            Some(evicted) => drop(evicted.await),
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = activity.outlived(who) => {
            tracing::debug!(?who, "a connection was idle for too long");
            return;
        }
        () = has_to_go => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = hang_up.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match timeout(HANG_UP, connection).await {
                Ok(result) => result,
                Err(_) => return, // it does not read
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = %Chain(&*error), "a connection ended");
    }
}

fn http(who: Who) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(match who {
            Who::Agent => CALLS,
            Who::Stranger => CALLS_OF_A_STRANGER,
        })
        .max_frame_size(64 << 10) // a piece of output is one frame, not five
        .max_send_buf_size(UNSENT_BYTES)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20);
    builder
}
