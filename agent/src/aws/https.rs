//! One request to AWS on a connection of its own, by what the agent has anyway: its resolver, rustls, hyper. Not proxied.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::answer::HttpAnswer;
use super::endpoint::AwsEndpoint;
use super::failure::Error;
use crate::link;

/// Longest wait for a name, TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest wait for an answer on a connection.
const ANSWER: Duration = Duration::from_secs(20);
/// Largest answer that is read: the longest value, each byte of it as JSON may escape it.
const MOST_BYTES: usize = 512 << 10;

/// Whose certificates are believed.
#[derive(Debug, Clone)]
pub(super) enum Trust {
    /// Those of the machine's own store.
    Machine,
    /// These.
    #[cfg(test)]
    Only(RootCertStore),
}

impl Trust {
    /// The settings of TLS. The machine's store is read for each run that needs it: an agent that idles holds none.
    ///
    /// # Errors
    /// When the machine has no root certificates.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let roots = match self {
            Self::Machine => tokio::task::spawn_blocking(machine_roots)
                .await
                .unwrap_or_else(|_| RootCertStore::empty()),
            #[cfg(test)]
            Self::Only(roots) => roots.clone(),
        };
        if roots.is_empty() {
            return Err(Error::NoRoots);
        }
        let builder = ClientConfig::builder_with_provider(aot_tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|_| Error::NoRoots)?;
        Ok(Arc::new(
            builder.with_root_certificates(roots).with_no_client_auth(),
        ))
    }
}

/// All certificates of the machine's store that can be used.
fn machine_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(error = %Chain(error), "a root certificate cannot be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

/// Sends a request and reads the answer; `tls` is needed where the endpoint speaks it.
///
/// # Errors
/// When there is no answer in time.
pub(super) async fn exchange(
    endpoint: &AwsEndpoint,
    tls: Option<Arc<ClientConfig>>,
    request: Request<Full<Bytes>>,
) -> Result<HttpAnswer, Error> {
    let url = || endpoint.url();
    let late = |what: &str, limit: Duration| format!("no {what} in {} s", limit.as_secs());
    let stream = timeout(CONNECT, connect(endpoint)).await;
    let stream = stream.unwrap_or_else(|_| Err(late("connection", CONNECT)));
    let stream = stream.map_err(|why| Error::Unreachable { url: url(), why })?;
    let broken = |why: String| Error::Broken { url: url(), why };
    let answer = async {
        let Some(tls) = tls else {
            return answer(stream, request).await.map_err(broken);
        };
        let name = ServerName::try_from(endpoint.host().to_owned());
        let name = name.map_err(|error| broken(error.to_string()))?;
        let stream = TlsConnector::from(tls).connect(name, stream).await;
        let stream = stream.map_err(|error| match distrusted(&error) {
            Some(why) => Error::Untrusted { url: url(), why },
            None => broken(error.to_string()),
        })?;
        answer(stream, request).await.map_err(broken)
    };
    let answer = timeout(ANSWER, answer).await;
    answer.unwrap_or_else(|_| Err(broken(late("answer", ANSWER))))
}

async fn connect(endpoint: &AwsEndpoint) -> Result<TcpStream, String> {
    let found = link::resolve(endpoint.host()).await;
    let mut last = "the name has no address".to_owned();
    for ip in found.map_err(|error| error.to_string())? {
        match TcpStream::connect(SocketAddr::new(ip, endpoint.port())).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

/// Why a certificate is not believed, which is another matter than a broken connection; `None` of all other errors.
fn distrusted(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match inner {
        rustls::Error::InvalidCertificate(why) => Some(why.to_string()),
        _ => None,
    }
}

async fn answer<S>(stream: S, request: Request<Full<Bytes>>) -> Result<HttpAnswer, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let read = async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| error.to_string())?;
        let header = |name: &str| {
            let value = response.headers().get(name);
            let text = value.and_then(|value| value.to_str().ok());
            text.unwrap_or_default().to_owned()
        };
        let (error_type, date) = (header("x-amzn-errortype"), header("date"));
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MOST_BYTES).collect();
        let body = body.await.map_err(|error| error.to_string())?;
        Ok(HttpAnswer {
            status,
            error_type,
            date,
            body: body.to_bytes().to_vec(),
        })
    };
    // The connection's own end is seen by whoever reads.
    let drive = async {
        let _ = connection.await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        read = read => read,
        never = drive => match never {},
    }
}
