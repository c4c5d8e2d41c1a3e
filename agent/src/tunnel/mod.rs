//! Connections that operators forward to this machine: each on a connection of its own to the master, so that none waits for
//! another, and no control message for any. Opened by the session; they end with their connection, or with the agent.

mod place;

use std::sync::Arc;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::limits::MAX_MESSAGE_BYTES;
use aot_proto::v1::agent_link_client::AgentLinkClient;
use aot_proto::v1::{
    OpenTunnel, TunnelAnswer, TunnelDestination, TunnelHello, TunnelPiece, TunnelReset, TunnelUp,
    tunnel_piece, tunnel_up,
};
use aot_tunnel::{Carried, Close, Leave, carry};
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Response, Streaming};

use crate::config::ForwardPolicy;
use crate::identity::ClientIdentity;
use crate::let_in::{self, let_in};
use crate::link::Link;
use place::LocalStream;

/// Connections at once, of all operators; one more is refused.
const MOST: usize = 1024;
/// How long the last messages may take to leave when the agent stops.
const END: Duration = Duration::from_secs(2);

/// Every forwarded connection of this agent.
pub(crate) struct Tunnels {
    policy: ForwardPolicy,
    link: Link,
    /// The certificate of the day; `None` until enrolled.
    identity: watch::Receiver<Option<Arc<ClientIdentity>>>,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Tunnels {
    /// None yet. `policy` says where they may lead to.
    pub(crate) fn new(
        policy: ForwardPolicy,
        link: Link,
        identity: watch::Receiver<Option<Arc<ClientIdentity>>>,
    ) -> Self {
        Self {
            policy,
            link,
            identity,
            slots: Arc::new(Semaphore::new(MOST)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Opens one in the background. Whatever goes wrong is reported to the master, or seen by it as an end.
    pub(crate) fn open(&self, open: OpenTunnel) {
        let tunnel = Tunnel {
            policy: self.policy,
            link: self.link.clone(),
            identity: self.identity.borrow().clone(),
            stop: self.stop.clone(),
        };
        let slot = self.slots.clone().try_acquire_owned().ok();
        self.tasks.spawn(async move {
            let job = open.job_id.clone();
            let to = open.to.clone().unwrap_or_default();
            match tunnel.run(open, slot.is_some()).await {
                Ok(Some(carried)) => {
                    let Carried { sent, received, .. } = carried;
                    tracing::info!(
                        job,
                        host = to.host,
                        port = to.port,
                        path = to.path,
                        sent,
                        received,
                        "a forwarded connection has ended"
                    );
                }
                Ok(None) => tracing::info!(
                    job,
                    host = to.host,
                    port = to.port,
                    path = to.path,
                    "a connection was not forwarded"
                ),
                Err(error) => {
                    tracing::warn!(job, error = %Chain(&error), "no forwarded connection")
                }
            }
        });
    }

    /// Ends all of them; waits a short while for their last messages to leave.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = timeout(END, self.tasks.wait()).await; // what is left ends with the process
    }
}

struct Tunnel {
    policy: ForwardPolicy,
    link: Link,
    identity: Option<Arc<ClientIdentity>>,
    stop: CancellationToken,
}

impl Tunnel {
    /// To its end; `None` when the machine did not connect.
    async fn run(self, open: OpenTunnel, has_slot: bool) -> Result<Option<Carried>, let_in::Error> {
        let hello = message(tunnel_up::Body::Hello(TunnelHello {
            tunnel_id: open.tunnel_id,
        }));
        let identity = self.identity.as_deref();
        let (up, down) = let_in(&self.link, identity, hello, async |channel, up| {
            let client = AgentLinkClient::new(channel);
            let mut client = client.max_decoding_message_size(MAX_MESSAGE_BYTES);
            client.tunnel(up).await.map(Response::into_inner)
        })
        .await?;
        // Nothing is connected to before the master has taken the stream: one that nobody waits for is never opened.
        let connected = match has_slot {
            true => self.connect(&open.to.unwrap_or_default()).await,
            false => Err(format!("its agent has {MOST} forwarded connections open")),
        };
        let refused = connected.as_ref().err().cloned().unwrap_or_default();
        let answer = TunnelAnswer { refused };
        // A master that is gone is seen by whoever carries.
        let _ = up.send(message(tunnel_up::Body::Answer(answer))).await;
        match connected {
            Ok(stream) => Ok(Some(self.serve(stream, down, up).await)),
            Err(_) => {
                drop(up);
                hung_up(down).await;
                Ok(None)
            }
        }
    }

    async fn connect(&self, to: &TunnelDestination) -> Result<LocalStream, String> {
        tokio::select! {
            stream = place::connect(to, self.policy) => stream,
            () = self.stop.cancelled() => Err("its agent was stopped".to_owned()),
        }
    }

    async fn serve(
        &self,
        stream: LocalStream,
        down: Streaming<TunnelPiece>,
        up: mpsc::Sender<TunnelUp>,
    ) -> Carried {
        match stream {
            LocalStream::Tcp(mut stream) => {
                let (read, write) = stream.split();
                let carried = self.carry(read, write, down, up).await;
                if !matches!(carried.close, Close::Whole) {
                    // Dropped so, it is reset: whoever is on it learns that this was no end.
                    let _ = stream.set_zero_linger();
                }
                carried
            }
            LocalStream::Unix(mut stream) => {
                let (read, write) = stream.split();
                self.carry(read, write, down, up).await
            }
        }
    }

    async fn carry(
        &self,
        read: impl AsyncRead + Unpin,
        write: impl AsyncWrite + Unpin,
        down: Streaming<TunnelPiece>,
        up: mpsc::Sender<TunnelUp>,
    ) -> Carried {
        let last = up.downgrade();
        let mut pieces = down.map(|piece| piece.map_err(|status| status.message().to_owned()));
        let wrap = |piece| message(tunnel_up::Body::Piece(piece));
        let carry = carry(read, write, &mut pieces, up, wrap, Leave::BothOver);
        let mut carry = std::pin::pin!(carry);
        tokio::select! {
            carried = &mut carry => return carried,
            () = self.stop.cancelled() => {}
        }
        if let Some(up) = last.upgrade() {
            let detail = "its agent was stopped".to_owned();
            let body = Some(tunnel_piece::Body::Reset(TunnelReset { detail }));
            let _ = up.send(wrap(TunnelPiece { body })).await; // the process is about to end
        }
        carry.await
    }
}

/// The master ends its half when it has read ours.
async fn hung_up(mut down: Streaming<TunnelPiece>) {
    let read = async { while let Ok(Some(_)) = down.message().await {} };
    let _ = timeout(END, read).await; // it had the time to read
}

fn message(body: tunnel_up::Body) -> TunnelUp {
    TunnelUp { body: Some(body) }
}
