//! The connection to a master that is there: one `connect`, no retry, no name.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aot_proto::v1::operator_client::OperatorClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::CliEnv;
use super::error::Error;

/// Who answers the commands.
pub(crate) type Client = OperatorClient<Channel>;

/// Longest wait for the answer of a call that only looks something up.
pub(crate) const QUERY: Duration = Duration::from_secs(60);

/// Longest wait for the answer of a call that makes the master ask its provider.
pub(crate) const ASK_PROVIDER: Duration = Duration::from_secs(300);

/// A status of ten thousand instances with their properties fits; the master is trusted.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A master that says nothing for these two together, not even to a ping of HTTP/2, is lost.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// Bytes that may be under way to us, in one answer and in all: output of many at once is not held up by round trips.
const WINDOWS: (u32, u32) = (1 << 20, 2 << 20);

/// Largest frame of HTTP/2 to us: one of output and what goes with it.
const FRAME_BYTES: u32 = 64 << 10;

/// Connects once.
///
/// # Errors
/// [`Error::NoMaster`] when nobody answers, [`Error::NotAMaster`] when something else does.
pub(crate) async fn dial(env: &CliEnv) -> Result<Client, Error> {
    let socket = &env.socket;
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| Error::NoMaster {
            socket: socket.clone(),
            source,
        })?;
    // The channel may dial once: a second connection would hide that the first was lost.
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().ok().and_then(|mut held| held.take());
        async move {
            stream.map(TokioIo::new).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::ConnectionAborted,
                    "the connection was closed",
                )
            })
        }
    });
    let channel = Endpoint::from_static("http://master")
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_frame_size(FRAME_BYTES)
        .connect_with_connector(connector)
        .await
        .map_err(|source| Error::NotAMaster {
            socket: socket.clone(),
            source,
        })?;
    Ok(OperatorClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// A request with a deadline.
pub(crate) fn within<T>(limit: Duration, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}
