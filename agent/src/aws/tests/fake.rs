//! A metadata service and services of AWS, in this process: each request is answered by a function.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// `POST /`
    pub what: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// Status and body.
pub(super) type Answer = (u16, String);

/// A server; it ends with this value.
pub(super) struct FakeServer {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _tasks: JoinSet<()>,
}

impl FakeServer {
    /// One that is asked in the clear.
    pub(super) async fn plain(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(None, answer).await
    }

    /// One with this certificate.
    pub(super) async fn with_tls(
        config: Arc<ServerConfig>,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(Some(config), answer).await
    }

    async fn start(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (record, answer) = (asked.clone(), Arc::new(answer));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (record, answer, tls) = (record.clone(), answer.clone(), tls.clone());
                connections.spawn(async move {
                    let answer = |asked: &Asked| {
                        record.lock().unwrap().push(asked.clone());
                        answer(asked)
                    };
                    match tls {
                        None => serve(stream, answer).await,
                        Some(config) => {
                            if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                                serve(stream, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            url: format!("{scheme}://{address}"),
            asked,
            _tasks: tasks,
        }
    }

    /// All requests so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Requests of one connection, until the other side has had enough.
async fn serve<S>(mut stream: S, answer: impl Fn(&Asked) -> Answer)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut bytes = Vec::new();
    loop {
        let asked = loop {
            if let Some((asked, end)) = parsed(&bytes) {
                bytes.drain(..end);
                break asked;
            }
            match stream.read_buf(&mut bytes).await {
                Ok(read) if read > 0 => {}
                _ => return,
            }
        };
        let (status, body) = answer(&asked);
        let head = format!(
            "HTTP/1.1 {status} Status\r\ncontent-length: {}\r\ndate: Sun, 30 Aug 2015 12:36:00 GMT\r\n\r\n",
            body.len()
        );
        let written = stream.write_all(&[head, body].concat().into_bytes()).await;
        if written.is_err() {
            return;
        }
    }
}

/// A whole request, and where it ends.
fn parsed(bytes: &[u8]) -> Option<(Asked, usize)> {
    let head = bytes.windows(4).position(|it| it == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let (what, lines) = text.split_once("\r\n").unwrap_or((&text, ""));
    let headers: BTreeMap<String, String> = lines
        .split("\r\n")
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length");
    let length: usize = length.map_or(0, |text| text.parse().unwrap());
    let end = head + 4 + length;
    let body = bytes.get(head + 4..end)?;
    let asked = Asked {
        what: what.trim_end_matches(" HTTP/1.1").to_owned(),
        headers,
        body: String::from_utf8_lossy(body).into_owned(),
    };
    Some((asked, end))
}

/// Whether a request is signed with this key for this service and region, as AWS computes it (AWS General Reference, "Create a
/// signed AWS API request"): written here once more, so that two ways have to come to the same.
pub(super) fn is_signed(asked: &Asked, secret_key: &str, region: &str, service: &str) -> bool {
    let authorization = &asked.headers["authorization"];
    let part = |name: &str| {
        let start = authorization.find(name).unwrap() + name.len();
        authorization[start..].split(", ").next().unwrap()
    };
    let signed_headers = part("SignedHeaders=");
    let canonical: String = signed_headers
        .split(';')
        .map(|name| format!("{name}:{}\n", asked.headers[name].trim()))
        .collect();
    let request = format!(
        "POST\n/\n\n{canonical}\n{signed_headers}\n{}",
        sha256(asked.body.as_bytes())
    );
    let time = &asked.headers["x-amz-date"];
    let scope = format!("{}/{region}/{service}/aws4_request", &time[..8]);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        sha256(request.as_bytes())
    );
    let key = format!("AWS4{secret_key}").into_bytes();
    let parts = [&time[..8], region, service, "aws4_request", &to_sign];
    let signature = parts.iter().fold(key, |key, part| sign(&key, part));
    part("Credential=").ends_with(&scope) && part("Signature=") == hex(&signature)
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An authority, and the settings of a server with a certificate of it for this address.
pub(super) fn authority(address: &str) -> (RootCertStore, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![address.to_owned()]).unwrap();
    let certificate: CertificateDer<'static> =
        params.signed_by(&key, &issuer).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(aot_tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (roots, Arc::new(config))
}
