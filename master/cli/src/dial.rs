//! The connection to a master that is there: one `connect`, no retry, no name.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aot_proto::headers;
use aot_proto::limits::MAX_ANSWER_BYTES;
use aot_proto::v1::operator_client::OperatorClient;
use aot_proto::v1::{CancelJobRequest, FollowRequest, RetryJobRequest};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::CliEnv;
use super::error::Error;

/// Who answers the commands.
pub(crate) type Client = OperatorClient<InterceptedService<Channel, Addressed>>;

/// Names the cluster of `--cluster` in the headers of each request that names nothing else there: a master that does not have
/// it passes the request on, unread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addressed {
    cluster: Option<String>,
}

impl Interceptor for Addressed {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        let names = |name| metadata.contains_key(name);
        if let (Some(cluster), false) = (
            &self.cluster,
            names(headers::CLUSTER) || names(headers::JOB),
        ) {
            headers::set(metadata, headers::CLUSTER, cluster);
        }
        Ok(request)
    }
}

/// A request about a job, whose cluster the master knows.
pub(crate) trait OfJob: Sized {
    /// The job's id.
    fn job_id(&self) -> &str;

    /// With that in its headers.
    fn of_job(self) -> Request<Self> {
        let id = self.job_id().to_owned();
        let mut request = Request::new(self);
        headers::set(request.metadata_mut(), headers::JOB, &id);
        request
    }
}

macro_rules! of_job {
    ($($request:ident),*) => {$(
        impl OfJob for $request {
            fn job_id(&self) -> &str {
                &self.job_id
            }
        }
    )*};
}

of_job!(FollowRequest, CancelJobRequest, RetryJobRequest);

/// A request about another cluster than that of `--cluster`.
pub(crate) fn about<T>(cluster: &str, mut request: Request<T>) -> Request<T> {
    headers::set(request.metadata_mut(), headers::CLUSTER, cluster);
    request
}

/// Longest wait for the answer of a call that only looks something up.
pub(crate) const QUERY: Duration = Duration::from_secs(60);

/// Longest wait for the answer of a call that makes the master ask its provider.
pub(crate) const ASK_PROVIDER: Duration = Duration::from_secs(300);

/// A master that says nothing for these two together, not even to a ping of HTTP/2, is lost.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// Bytes that may be under way to us, in one answer and in all: output of many at once is not held up by round trips.
const WINDOWS: (u32, u32) = (1 << 20, 2 << 20);

/// Largest frame of HTTP/2 to us: one of output and what goes with it.
const FRAME_BYTES: u32 = 64 << 10;

/// Connects once. What is asked is about this cluster, where one was named.
///
/// # Errors
/// [`Error::NoMaster`] when nobody answers, [`Error::NotAMaster`] when something else does.
pub(crate) async fn dial(env: &CliEnv, cluster: Option<&str>) -> Result<Client, Error> {
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
    let addressed = Addressed {
        cluster: cluster.map(str::to_owned),
    };
    let client = OperatorClient::with_interceptor(channel, addressed);
    Ok(client.max_decoding_message_size(MAX_ANSWER_BYTES))
}

/// A duration on the wire. At least 1: 0 stands for "as the file says".
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// A request with a deadline.
pub(crate) fn within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

#[cfg(test)]
/// Of a master that is not there.
pub(crate) fn nobody() -> Client {
    let channel = Endpoint::from_static("http://nobody").connect_lazy();
    OperatorClient::with_interceptor(channel, Addressed::default())
}
