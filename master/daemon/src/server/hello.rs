//! How a connection on the agents' port begins: maybe a header of another master that passes it on, then the ClientHello, which
//! names its cluster by a route. Read before anything is spent on a handshake; all of it is there with the first packets of
//! whoever means well.

use std::io;
use std::net::SocketAddr;

use aot_model::hash::PurposeKey;
use aot_proto::route::Route;
use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::proxy_header::{self, BadHeader, Opening};
use crate::run::now_ms;

/// Most that a connection may begin with. A hello has some 2 KiB with the keys that are exchanged today.
const MAX_BYTES: usize = 16 << 10;

/// How much is read at once.
const PIECE_BYTES: usize = 2 << 10;

/// How a load balancer begins that asks how this master is. It does so without TLS: an NLB's health checks by HTTPS know no TLS 1.3
/// (Elastic Load Balancing, "Health checks for Network Load Balancer target groups"), and nothing else is spoken here.
const HEALTH_CHECK: &[u8] = b"GET /v1/health ";

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadHello {
    /// As read(2).
    #[error("it broke off")]
    Broken(#[from] io::Error),
    /// It ended before its hello did.
    #[error("it ended before its hello did")]
    Short,
    /// It does not come to an end.
    #[error("its hello is longer than {MAX_BYTES} bytes")]
    Long,
    /// Not a ClientHello.
    #[error("it does not begin as TLS does")]
    Tls(#[source] rustls::Error),
    /// Whoever wrote it is no master of ours.
    #[error(transparent)]
    Header(#[from] BadHeader),
    /// A load balancer's question. It is to be answered as it was asked.
    #[error("it asks how this master is, without TLS")]
    HealthCheck,
}

/// How a connection began.
pub(super) struct Hello {
    /// The machine that another master passes on.
    pub(super) machine: Option<SocketAddr>,
    /// Of which cluster it is, as it says.
    pub(super) route: Option<Route>,
    /// What was read after a header: the hello, and maybe more.
    pub(super) bytes: Vec<u8>,
    /// The same, for a handshake here.
    pub(super) accepted: Accepted,
}

/// Reads a connection's begin. Whoever calls it bounds the time.
///
/// # Errors
/// When it does not begin as one that can be served; TLS was answered by then.
pub(super) async fn read(stream: &mut TcpStream, key: &PurposeKey) -> Result<Hello, BadHello> {
    let mut bytes = Vec::new();
    let machine = header(stream, &mut bytes, key).await?;
    if machine.is_none() && is_health_check(stream, &mut bytes).await? {
        return Err(BadHello::HealthCheck);
    }
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        // All of it first: what comes behind the hello belongs to the handshake too.
        while fed < bytes.len() {
            let mut rest = &bytes[fed..];
            fed += acceptor.read_tls(&mut rest)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let route = hello.server_name().and_then(Route::of_server_name);
                return Ok(Hello {
                    machine,
                    route,
                    bytes,
                    accepted,
                });
            }
            Ok(None) => more(stream, &mut bytes).await?,
            Err((error, alert)) => return Err(refused(stream, error, alert).await),
        }
    }
}

/// The machine of a header, which is taken off the bytes.
async fn header(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    key: &PurposeKey,
) -> Result<Option<SocketAddr>, BadHello> {
    loop {
        match proxy_header::read(bytes, key, now_ms())? {
            Opening::Plain => return Ok(None),
            Opening::Part => more(stream, bytes).await?,
            Opening::Header { machine, bytes: of } => {
                bytes.drain(..of);
                return Ok(Some(machine));
            }
        }
    }
}

/// Whether it is a load balancer's question, all of which is read then: what is left unread at the end resets a connection, and
/// with it the answer.
async fn is_health_check(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<bool, BadHello> {
    loop {
        let begin = bytes.len().min(HEALTH_CHECK.len());
        if bytes[..begin] != HEALTH_CHECK[..begin] {
            return Ok(false);
        }
        if begin == HEALTH_CHECK.len() && bytes.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(true);
        }
        more(stream, bytes).await?;
    }
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), BadHello> {
    let room = MAX_BYTES.saturating_sub(bytes.len()).min(PIECE_BYTES);
    if room == 0 {
        return Err(BadHello::Long);
    }
    bytes.reserve(room);
    let read = (&mut *stream).take(room as u64).read_buf(bytes).await?;
    match read {
        0 => Err(BadHello::Short),
        _ => Ok(()),
    }
}

/// Says why, in the words of TLS, as far as that leaves at once.
async fn refused(
    stream: &mut TcpStream,
    error: rustls::Error,
    mut alert: AcceptedAlert,
) -> BadHello {
    let mut said = Vec::new();
    if alert.write_all(&mut said).is_ok() {
        let _ = stream.write_all(&said).await; // it may have gone
    }
    BadHello::Tls(error)
}

#[cfg(test)]
mod tests;
