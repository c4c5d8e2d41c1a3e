//! The operators' socket while the master runs: who may connect, and what becomes of the master when nobody can.

use std::io;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::limits::MAX_ANSWER_BYTES;
use aot_proto::v1::operator_server::OperatorServer;
use aot_store::Store;
use futures::{Stream, StreamExt};
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::run::stop;
use crate::server::door::Door;
use crate::server::named_stream::NamedStream;
use crate::server::operator_api::OperatorApi;
use crate::server::operator_name::{self, OperatorName};
use crate::server::ways::Ways;

/// How long the operators' socket is left alone after a connection could not be taken.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Connections whose operators' names are looked up at once; more of them wait.
const NAMED_AT_ONCE: usize = 16;

/// Largest frame of HTTP/2 to us: a piece of a forwarded connection, and what goes with it.
const FRAME_BYTES: u32 = 64 << 10;

/// Operators' connections as they come. When one can't be taken, for want of a descriptor most likely, the next is tried a
/// little later: at once would only spin.
fn accepted(socket: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    futures::stream::unfold(socket, |socket| async move {
        loop {
            match socket.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), socket)),
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "cannot accept operators' connections for the moment");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    })
}

/// A connection of somebody who may connect: root, and the user whose process this is.
async fn allowed(stream: UnixStream, own: u32) -> io::Result<Option<OperatorStream>> {
    let Ok(peer) = stream.peer_cred() else {
        return Ok(None);
    };
    if peer.uid() != 0 && peer.uid() != own {
        return Ok(None);
    }
    let name = operator_name::of(peer).await;
    Ok(Some(OperatorStream { stream, name }))
}

/// A connection of an operator.
pub(crate) type OperatorStream = NamedStream<UnixStream, OperatorName>;

/// The operators' service behind its door.
pub(super) type Operators = Door<OperatorServer<OperatorApi>>;

/// The same one for operators' socket and masters' port.
pub(super) fn service(api: OperatorApi, ways: Ways, store: Arc<dyn Store>) -> Operators {
    let service = OperatorServer::new(api)
        .max_decoding_message_size(16 << 20)
        .max_encoding_message_size(MAX_ANSWER_BYTES);
    Door::new(service, ways, store)
}

/// Connections of those who may connect, with their names.
pub(crate) fn incoming(socket: UnixListener) -> impl Stream<Item = io::Result<OperatorStream>> {
    let uid = rustix::process::geteuid().as_raw();
    accepted(socket)
        .map(move |stream| async move { allowed(stream?, uid).await })
        .buffer_unordered(NAMED_AT_ONCE)
        .filter_map(|stream| std::future::ready(stream.transpose()))
}

pub(super) async fn serve(socket: UnixListener, service: Operators, stop: CancellationToken) {
    let mut builder = tonic::transport::Server::builder().max_frame_size(FRAME_BYTES);
    let server = builder.add_service(service);
    let until = stop.clone();
    let result = server
        .serve_with_incoming_shutdown(incoming(socket), async move { until.cancelled().await })
        .await;
    if let Err(error) = result {
        tracing::error!(error = %Chain(&error), "the operators' socket failed");
        // Nobody could ask for anything any more.
        stop::because(format!("the operators' socket failed: {}", Chain(&error)));
        stop.cancel();
    }
}
