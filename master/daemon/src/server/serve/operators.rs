//! The operators' socket while the master runs: who may connect, and what becomes of the master when nobody can.

use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::v1::operator_server::OperatorServer;
use aot_store::Store;
use aot_store::fatal::Vital;
use futures::{Stream, StreamExt};
use std::sync::Arc;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::run::stop;
use crate::server::door::Door;
use crate::server::operator_api::OperatorApi;
use crate::server::ways::Ways;

/// How long the operators' socket is left alone after a connection could not be taken.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Operators' connections as they come. When one can't be taken, for want of a descriptor most likely, the next is tried a
/// little later: at once would only spin.
fn accepted(socket: UnixListener) -> impl Stream<Item = std::io::Result<UnixStream>> {
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

/// The operators' service behind its door.
pub(super) type Operators = Door<OperatorServer<OperatorApi>>;

/// The same one for operators' socket and masters' port.
pub(super) fn service(api: OperatorApi, ways: Ways, store: Arc<dyn Store>) -> Operators {
    let service = OperatorServer::new(api)
        .max_decoding_message_size(16 << 20)
        .max_encoding_message_size(64 << 20);
    Door::new(service, ways, store)
}

pub(super) async fn serve(socket: UnixListener, service: Operators, stop: CancellationToken) {
    let _vital = Vital::new("the operators' socket");
    let uid = rustix::process::geteuid().as_raw();
    let allowed = accepted(socket).filter(move |stream| {
        let peer = stream.as_ref().map(|stream| stream.peer_cred());
        std::future::ready(
            peer.is_ok_and(|peer| peer.is_ok_and(|peer| peer.uid() == 0 || peer.uid() == uid)),
        )
    });
    let server = tonic::transport::Server::builder().add_service(service);
    let until = stop.clone();
    let result = server
        .serve_with_incoming_shutdown(allowed, async move { until.cancelled().await })
        .await;
    if let Err(error) = result {
        tracing::error!(error = %Chain(&error), "the operators' socket failed");
        // Nobody could ask for anything any more.
        stop::because(format!("the operators' socket failed: {}", Chain(&error)));
        stop.cancel();
    }
}
