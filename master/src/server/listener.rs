//! The agents' port: TLS 1.3, client certificate optional at this level, h2 and http/1.1 by ALPN on one port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::enrol::ca::{self, Ca, Holder};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long an HTTP/1.1 client may take to send its headers.
const HEADERS: Duration = Duration::from_secs(10);

/// Handshakes at once. More wait in the kernel's backlog: they cost processor time mostly, and the memory of those that
/// come all at once after a restart would stay with the process.
const HANDSHAKES: usize = 128;

/// Who is on the other side of a connection; put into every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Holder of its client certificate, if it showed one that our CA signed.
    pub holder: Option<Holder>,
}

/// Why the port can't be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS set-up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// Client certificates.
    #[error("cannot set up the check of client certificates")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// The CA.
    #[error("cannot make the server's certificate")]
    Ca(#[from] ca::Error),
}

/// TLS settings: TLS 1.3 only, our CA for clients, a certificate with every host.
///
/// # Errors
/// When a host can't be in a certificate.
pub fn tls(ca: &Ca, hosts: &[String]) -> Result<TlsAcceptor, Error> {
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

/// Accepts until `stop` fires.
pub async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    app: Router,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let slots = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
    loop {
        let slot = slots
            .clone()
            .acquire_owned()
            .await
            .expect("it is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, address)) => {
                let (tls, app, stop) = (tls.clone(), app.clone(), stop.clone());
                tasks.spawn(async move {
                    let shaken = Box::pin(shake(stream, address, &tls)).await;
                    drop(slot);
                    if let Some((stream, peer)) = shaken {
                        talk(stream, peer, app, stop).await;
                    }
                });
            }
            Err(error) => back_off(&error).await,
        }
    }
}

/// Out of descriptors, most likely: accepting at once again would only spin.
async fn back_off(error: &io::Error) {
    tracing::error!(%error, "cannot accept connections for the moment");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Boxed: it goes from hand to hand, and each hand would have room for all of it for as long as the connection lives.
type Secured = Box<TlsStream<TcpStream>>;

async fn shake(
    stream: TcpStream,
    address: SocketAddr,
    tls: &TlsAcceptor,
) -> Option<(Secured, Peer)> {
    let _ = stream.set_nodelay(true); // only a matter of speed
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Box::new(stream),
        Ok(Err(error)) => {
            tracing::info!(%address, %error, "refused a TLS handshake");
            return None;
        }
        Err(_) => return None,
    };
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first());
    let holder = certificate.and_then(|certificate| match ca::holder(certificate) {
        Ok(holder) => Some(holder),
        Err(error) => {
            tracing::warn!(%address, %error, "a client certificate of ours that is no agent's");
            None
        }
    });
    Some((stream, Peer { address, holder }))
}

async fn talk(stream: Secured, peer: Peer, app: Router, stop: CancellationToken) {
    let service = app.map_request(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request.map(axum::body::Body::new)
    });
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
        .max_concurrent_streams(64)
        .max_frame_size(64 << 10) // a piece of output is one frame, not five
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(2 << 20);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = %error, "a connection ended");
    }
}
