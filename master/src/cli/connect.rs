//! One connection to the master over its unix socket: one `connect`, no retry, no name. Starts a master where the
//! command may.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aot_proto::v1::operator_client::OperatorClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::background;
use super::error::Error;
use super::{CliEnv, Ctx};

/// Who answers the commands.
pub type Client = OperatorClient<Channel>;

/// Longest wait for the answer of a call that only looks something up.
pub const LOOK_UP: Duration = Duration::from_secs(60);

/// Longest wait for the answer of a call that makes the master ask its provider.
pub const ASK_PROVIDER: Duration = Duration::from_secs(300);

/// A status of ten thousand instances with their properties fits; the master is trusted.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A master that says nothing for these two together, not even to a ping of HTTP/2, is lost.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// Bytes that may be under way to us, in one answer and in all: output of many at once is not held up by round trips.
const WINDOWS: (u32, u32) = (1 << 20, 2 << 20);

/// Largest frame of HTTP/2 to us: one of output and what goes with it.
const FRAME_BYTES: u32 = 64 << 10;

/// When a command may start a master in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Whenever none answers.
    Always,
    /// When none answers and there is a state that it could serve.
    WithState,
    /// Never.
    Never,
}

/// Connects, after starting a master when none answers and `start` allows it. With `-v`, the master's calls are shown
/// from here on.
///
/// # Errors
/// When nobody answers, or the start failed.
pub async fn connect(ctx: &mut Ctx<'_>, start: Start) -> Result<Client, Error> {
    let client = dial_or_start(ctx, start).await?;
    // A master that may not be started is about to be stopped: it makes no calls for us, and should close in peace.
    if let Some(verbose) = ctx.verbose.as_ref().filter(|_| start != Start::Never) {
        verbose.open(&client).await?;
    }
    Ok(client)
}

async fn dial_or_start(ctx: &mut Ctx<'_>, start: Start) -> Result<Client, Error> {
    let error = match dial(ctx.env).await {
        Ok(client) => return Ok(client),
        Err(error) => error,
    };
    let Error::NoMaster { source, .. } = &error else {
        return Err(error);
    };
    match &ctx.env.background {
        Some(daemon) if is_absent(source) && may_start(ctx.env, start) => {
            background::start(daemon, ctx.env, &mut ctx.io.stderr).await
        }
        _ => Err(error),
    }
}

/// Nobody listens, as opposed to: we may not ask.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn may_start(env: &CliEnv, start: Start) -> bool {
    // `serve` owns this state and is only away for the moment: one in the background would take its place.
    if env.state_dir.join("foreground").exists() {
        return false;
    }
    match start {
        Start::Always => true,
        Start::Never => false,
        Start::WithState => {
            std::fs::read_dir(&env.state_dir).is_ok_and(|mut entries| entries.next().is_some())
        }
    }
}

/// Connects once.
///
/// # Errors
/// [`Error::NoMaster`] when nobody answers, [`Error::NotAMaster`] when something else does.
pub async fn dial(env: &CliEnv) -> Result<Client, Error> {
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
pub fn within<T>(limit: Duration, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}
