//! The machine's own metadata service, version 2 (EC2 User Guide, "Use IMDSv2"): a session token by PUT, then GETs.
//! Used by enrolment and facts where the provider is ec2. Never proxied, never cached on disk.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read.
const MOST_BYTES: usize = 64 << 10;

/// What went wrong with IMDS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No answer in time.
    #[error("the metadata service did not answer {path} in 2 s")]
    Timeout {
        /// What was asked for.
        path: String,
    },
    /// The connection or the HTTP exchange failed.
    #[error("cannot read {path} from the metadata service: {why}")]
    Broken {
        /// What was asked for.
        path: String,
        why: String,
    },
    /// An answer other than 200.
    #[error("the metadata service answered {status} to {path}")]
    Status {
        /// What was asked for.
        path: String,
        status: u16,
    },
}

/// A session with IMDS.
pub(crate) struct Imds {
    base: String,
    token: String,
}

impl Imds {
    /// Gets a session token from `base` (`http://host[:port]`), good for five minutes.
    ///
    /// # Errors
    /// When the service does not answer.
    pub(crate) async fn open(base: &str) -> Result<Self, Error> {
        let header = ("X-aws-ec2-metadata-token-ttl-seconds", "300");
        let token = ask(base, Method::PUT, "/latest/api/token", header).await?;
        Ok(Self {
            base: base.to_owned(),
            token,
        })
    }

    /// The text at `path`, such as `/latest/meta-data/instance-id`.
    ///
    /// # Errors
    /// When the service does not answer, or has nothing there (404).
    pub(crate) async fn get(&self, path: &str) -> Result<String, Error> {
        ask(
            &self.base,
            Method::GET,
            path,
            ("X-aws-ec2-metadata-token", &self.token),
        )
        .await
    }

    /// As [`Imds::get`]; `None` when there is nothing there.
    ///
    /// # Errors
    /// When the service does not answer.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<String>, Error> {
        match self.get(path).await {
            Ok(text) => Ok(Some(text)),
            Err(Error::Status { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn ask(
    base: &str,
    method: Method,
    path: &str,
    header: (&str, &str),
) -> Result<String, Error> {
    let answer = timeout(TIMEOUT, exchange(base, method, path, header)).await;
    match answer {
        Err(_) => Err(Error::Timeout {
            path: path.to_owned(),
        }),
        Ok(Err(why)) => Err(Error::Broken {
            path: path.to_owned(),
            why: why.to_string(),
        }),
        Ok(Ok((StatusCode::OK, text))) => Ok(text),
        Ok(Ok((status, _))) => Err(Error::Status {
            path: path.to_owned(),
            status: status.as_u16(),
        }),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn exchange(
    base: &str,
    method: Method,
    path: &str,
    header: (&str, &str),
) -> Result<(StatusCode, String), AnyError> {
    let authority = base
        .strip_prefix("http://")
        .unwrap_or(base)
        .trim_end_matches('/');
    let address = if authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", authority)
        .header(header.0, header.1)
        .body(Empty::<Bytes>::new())?;
    // The sender goes with the block, so that the connection ends after the answer.
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BYTES)
            .collect()
            .await?
            .to_bytes();
        Ok((status, String::from_utf8(body.into())?))
    };
    tokio::join!(answer, connection).0
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a test's tasks end with its runtime"
)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A metadata service that knows one path and demands the token.
    async fn serve(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = vec![0; 4096];
            let mut len = 0;
            while !bytes[..len].ends_with(b"\r\n\r\n") {
                match stream.read(&mut bytes[len..]).await {
                    Ok(read) if read > 0 => len += read,
                    _ => return,
                }
            }
            let text = String::from_utf8_lossy(&bytes[..len]).to_lowercase();
            let answer =
                if text.starts_with("put /latest/api/token") && text.contains("ttl-seconds: 300") {
                    "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nt0k"
                } else if !text.contains("x-aws-ec2-metadata-token: t0k") {
                    "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"
                } else if text.starts_with("get /latest/meta-data/instance-id ") {
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\ni-0abc\r\n0\r\n\r\n"
                } else {
                    "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
                };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_token_is_sent_and_a_gap_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(serve(listener));
        let imds = Imds::open(&base).await.unwrap();
        assert_eq!(
            imds.get("/latest/meta-data/instance-id").await.unwrap(),
            "i-0abc"
        );
        assert_eq!(
            imds.find("/latest/meta-data/public-ipv4").await.unwrap(),
            None
        );
        server.abort();
        let _ = server.await;
        assert!(matches!(Imds::open(&base).await, Err(Error::Broken { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_service_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        assert!(matches!(
            Imds::open(&base).await,
            Err(Error::Timeout { .. })
        ));
    }
}
