//! The calls of a forward: the one that begins its job and keeps it, and one for each connection.

use aot_proto::v1::{
    ForwardEnded, ForwardEvent, ForwardRequest, ForwardStarted, Outcome, TunnelInput, TunnelOpen,
    TunnelOutput, TunnelPiece, forward_event, tunnel_input, tunnel_output,
};
use aot_tunnel::{Carried, Leave, carry};
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::place::ForwardPlace;
use crate::connect::{Start, connect};
use crate::dial::dial;
use crate::error::{Error, Exit};
use crate::{CliEnv, Ctx};

/// Messages of one connection that may wait for the master, past HTTP/2's own window.
const QUEUE: usize = 4;

/// A forward that has begun. It ends when this is dropped.
pub(super) struct Forwarded {
    /// Its job, its instance, and the cluster of that.
    pub started: ForwardStarted,
    events: Streaming<ForwardEvent>,
}

/// Begins one.
///
/// # Errors
/// When the master can't be asked, or refuses.
pub(super) async fn begin(ctx: &mut Ctx<'_>, place: ForwardPlace) -> Result<Forwarded, Error> {
    let mut client = connect(ctx, Start::WithState).await?;
    let request = ForwardRequest {
        cluster: ctx.cluster.clone(),
        instance: place.name,
        to: Some(place.to),
    };
    let mut events = client.forward(request).await?.into_inner();
    match events.message().await?.and_then(|first| first.body) {
        Some(forward_event::Body::Started(started)) => Ok(Forwarded { started, events }),
        _ => Err(lost(None)),
    }
}

impl Forwarded {
    /// Waits until it ends before it is dropped; says how. Cancel safe.
    pub(super) async fn ended(&mut self) -> Result<ForwardEnded, Error> {
        loop {
            match self.events.message().await {
                Ok(Some(ForwardEvent { body })) => {
                    if let Some(forward_event::Body::Ended(ended)) = body {
                        return Ok(ended);
                    }
                }
                Ok(None) => return Err(lost(None)),
                Err(status) => return Err(lost(Some(Box::new(status)))),
            }
        }
    }
}

/// What to exit with after a forward that ended by itself.
pub(super) fn exit_of(ended: &ForwardEnded) -> Exit {
    match ended.outcome() {
        Outcome::LostContact => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

fn lost(source: Option<Box<tonic::Status>>) -> Error {
    Error::Lost {
        goes_on: "the connections of the forward have ended; begin another".to_owned(),
        source,
    }
}

/// A connection that the machine has made.
pub(super) struct Connected {
    to_master: mpsc::Sender<TunnelInput>,
    from_master: Streaming<TunnelOutput>,
}

/// Opens a connection of a forward; on a connection of its own to the master, so that none waits for another.
///
/// # Errors
/// [`Error::NotConnected`] when the machine refuses, others when the master can't be asked.
pub(super) async fn open(env: &CliEnv, started: &ForwardStarted) -> Result<Connected, Error> {
    let mut client = dial(env, Some(&started.cluster)).await?;
    let (to_master, messages) = mpsc::channel(QUEUE);
    let open = TunnelOpen {
        job_id: started.job_id.clone(),
    };
    let _ = to_master.try_send(message(tunnel_input::Body::Open(open))); // the channel is empty
    let mut from_master = client
        .tunnel(ReceiverStream::new(messages))
        .await?
        .into_inner();
    match from_master.message().await?.and_then(|first| first.body) {
        Some(tunnel_output::Body::Answer(answer)) if answer.refused.is_empty() => Ok(Connected {
            to_master,
            from_master,
        }),
        Some(tunnel_output::Body::Answer(answer)) => Err(Error::NotConnected {
            instance: started.instance.clone(),
            why: answer.refused,
        }),
        _ => Err(lost(None)),
    }
}

impl Connected {
    /// Copies between it and a local stream, to its end.
    pub(super) async fn carry(
        self,
        read: impl AsyncRead + Unpin,
        write: impl AsyncWrite + Unpin,
        leave: Leave,
    ) -> Carried {
        let mut pieces = pieces(self.from_master);
        let wrap = |piece| message(tunnel_input::Body::Piece(piece));
        carry(read, write, &mut pieces, self.to_master, wrap, leave).await
    }
}

fn message(body: tunnel_input::Body) -> TunnelInput {
    TunnelInput { body: Some(body) }
}

fn pieces(
    outputs: Streaming<TunnelOutput>,
) -> impl Stream<Item = Result<TunnelPiece, String>> + Unpin {
    outputs.map(|output| match output {
        Ok(TunnelOutput {
            body: Some(tunnel_output::Body::Piece(piece)),
        }) => Ok(piece),
        Ok(_) => Ok(TunnelPiece::default()),
        Err(status) => Err(status.message().to_owned()),
    })
}
