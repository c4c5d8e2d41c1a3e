//! What boot scripts ask of a master that has not got their cluster: passed on to the one that has it, request by request. They
//! fetch by curl, wget or python, which name no route in TLS; their requests have it in a header.
//!
//! The token of such a request is known to the other master alone. So it counts for its address and route here, by the limits
//! of requests with a known token, and the other master counts it again for the same address. How many are passed on at once is
//! limited by itself (`strangers`): what is over is to come again in a moment.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use aot_host::chain::Chain;
use aot_proto::route::Route;
use aot_store::fleet::FleetMaster;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::limits::RateLimit;
use super::listener::Peer;
use super::owner_tls;
use super::route::{Guide, NotPassed, ServedBy};
use super::strangers::Stay;
use crate::enrol::ca::Ca;

/// Names the cluster of a request by its route.
const ROUTE: &str = "x-aot-route";

/// Largest request that is passed on: a report of a boot step.
pub(super) const MAX_REQUEST_BYTES: usize = 4096;

/// How long the other master may take to begin its answer. Less than an agent that enrols waits: it is told why.
const ANSWER: Duration = Duration::from_secs(15);

/// How long a whole answer may take: as long as a connection without a certificate may live.
const WHOLE: Duration = Duration::from_secs(15 * 60);

/// After how many seconds one that was over the number is to come again. Boot scripts come again by themselves, later and later.
const COME_AGAIN: HeaderValue = HeaderValue::from_static("5");

/// What passing on needs.
pub(crate) struct BootPass {
    pub(crate) guide: Guide,
    /// The authority of other masters' certificates.
    pub(crate) ca: Arc<Ca>,
    /// How often.
    pub(crate) limit: Arc<RateLimit>,
    /// Owner of connections to other masters.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Why another master's answer is not there.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("cannot reach it")]
    NotPassed(#[from] NotPassed),
    #[error("cannot speak TLS with it")]
    Tls(#[from] io::Error),
    #[error("cannot set up TLS")]
    Config(#[from] rustls::Error),
    #[error("cannot speak HTTP with it")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be passed on")]
    Request(#[from] axum::Error),
    #[error("it did not answer in {} s", ANSWER.as_secs())]
    Late,
    #[error("too many boot requests are passed on at once")]
    TooMany,
}

/// Who asks, and for which cluster.
struct BootAsker {
    peer: Peer,
    stay: Arc<Stay>,
    route: Route,
}

/// Passes a request on where its cluster is another master's; all others go to `next`.
pub(super) async fn to_owner(
    State(pass): State<Arc<BootPass>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(asker) = asker(&request) else {
        return next.run(request).await;
    };
    let Some(Some(cluster)) = pass.guide.cluster(Some(&asker.route)).await else {
        return next.run(request).await; // its token is not known either
    };
    if pass.guide.is_here(&cluster) || asker.peer.is_passed_on {
        return next.run(request).await;
    }
    let (address, known) = (asker.peer.address, asker.route.to_string());
    if !pass.limit.admit(address.ip(), Some(&known), Instant::now()) {
        return StatusCode::TOO_MANY_REQUESTS.into_response();
    }
    match pass
        .guide
        .destination(&cluster, false, pass.guide.deadline())
        .await
    {
        ServedBy::Here | ServedBy::Unknown => next.run(request).await,
        ServedBy::Nowhere => come_again(),
        ServedBy::Master(master) => pass.ask(&master, &asker, request).await,
    }
}

/// `None` where the request names no route.
fn asker(request: &Request) -> Option<BootAsker> {
    let route = request.headers().get(ROUTE)?.to_str().ok()?;
    let extensions = request.extensions();
    Some(BootAsker {
        route: route.trim().parse().ok()?,
        peer: extensions.get::<Peer>()?.clone(),
        stay: extensions.get::<Arc<Stay>>()?.clone(),
    })
}

impl BootPass {
    async fn ask(&self, master: &FleetMaster, asker: &BootAsker, request: Request) -> Response {
        let answer = timeout(ANSWER, self.answer(master, asker, request)).await;
        match answer.unwrap_or(Err(NoAnswer::Late)) {
            Ok(answer) => {
                if answer.status().is_success() {
                    asker.stay.stays(); // its token is known there
                }
                answer
            }
            Err(error) => {
                let address = asker.peer.address;
                self.limit.log(address.ip(), |left_out| {
                    tracing::warn!(%address, master = master.id, error = %Chain(&error), left_out, "cannot pass a boot request on to the master that has its cluster");
                });
                match error {
                    NoAnswer::TooMany => come_again(),
                    _ => StatusCode::BAD_GATEWAY.into_response(),
                }
            }
        }
    }

    async fn answer(
        &self,
        master: &FleetMaster,
        asker: &BootAsker,
        request: Request,
    ) -> Result<Response, NoAnswer> {
        let request = copied(request).await?;
        let place = asker.stay.passes_request().ok_or(NoAnswer::TooMany)?;
        let machine = asker.peer.address;
        // What it dialled is of no interest to anybody.
        let door = SocketAddr::new(machine.ip(), 0);
        let stream = self.guide.dial(master, machine, door).await?;
        let name = ServerName::try_from(asker.route.server_name());
        let name = name.map_err(io::Error::other)?;
        let tls = TlsConnector::from(owner_tls::client(&self.ca)?);
        let stream = tls.connect(name, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with whoever waits for the answer, also when that never comes.
        let wanted = self.stop.child_token();
        let (until, wanted) = (wanted.clone(), wanted.drop_guard());
        self.tasks.spawn(async move {
            tokio::select! {
                _ = timeout(WHOLE, connection) => {} // whoever reads the answer sees why
                () = until.cancelled() => {}
            }
            drop(place);
        });
        let answer = sender.send_request(request).await?;
        let mut passed = Response::new(Body::empty());
        *passed.status_mut() = answer.status();
        copy_headers(
            answer.headers(),
            passed.headers_mut(),
            &[CONTENT_LENGTH, CONTENT_TYPE],
        );
        let body = answer.into_body();
        *passed.body_mut() = Body::new(WantedBody {
            body,
            _wanted: wanted,
        });
        Ok(passed)
    }
}

/// For the moment.
fn come_again() -> Response {
    let mut answer = StatusCode::SERVICE_UNAVAILABLE.into_response();
    answer.headers_mut().insert(RETRY_AFTER, COME_AGAIN);
    answer
}

/// The body of an answer, whose connection ends with it.
struct WantedBody {
    body: Incoming,
    _wanted: DropGuard,
}

impl hyper::body::Body for WantedBody {
    type Data = <Incoming as hyper::body::Body>::Data;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The same request for another server.
async fn copied(request: Request) -> Result<http::Request<Body>, NoAnswer> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_REQUEST_BYTES).await?;
    let mut copied = http::Request::new(Body::from(body));
    *copied.method_mut() = parts.method;
    *copied.uri_mut() = parts
        .uri
        .path_and_query()
        .map_or_else(http::Uri::default, |it| it.clone().into());
    let headers = copied.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("aot-master"));
    copy_headers(&parts.headers, headers, &[AUTHORIZATION, CONTENT_TYPE]);
    if let Some(route) = parts.headers.get(ROUTE) {
        headers.insert(ROUTE, route.clone());
    }
    Ok(copied)
}

fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, names: &[http::HeaderName]) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
mod tests;
