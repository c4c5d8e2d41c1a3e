//! What an agent sends in its `Attach`, out of gRPC's framing ("gRPC over HTTP2", Length-Prefixed-Message). By hand, as what goes out
//! is (`outgoing`): a buffer of tonic's keeps the size of the largest message, in every session, 8 KiB once its machine has reported
//! facts. Here nothing is kept between two messages, and bytes of output are copied once, as there.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aot_proto::limits::MAX_MESSAGE_BYTES;
use aot_proto::v1::AgentMessage;
use futures::Stream;
use hyper::body::Body;
use prost::Message;
use prost::bytes::{Buf, Bytes};
use tonic::{Code, Status};

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The messages of a body, until it ends.
pub(super) struct Inbound<B> {
    body: B,
    unframed: Unframed,
    is_over: bool,
}

impl<B> Inbound<B> {
    pub(super) fn new(body: B) -> Self {
        Self {
            body,
            unframed: Unframed::default(),
            is_over: false,
        }
    }
}

impl<B> Stream for Inbound<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Item = Result<AgentMessage, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<AgentMessage, Status>>> {
        while !self.is_over {
            match self.unframed.message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => return Poll::Ready(self.end(Some(status))),
            }
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame.into_data().ok(), // what is no data comes last
                Some(Err(error)) => {
                    let status = Status::from_error(error.into());
                    // It ended its call, which is no fault.
                    let fault = Some(status).filter(|status| status.code() != Code::Cancelled);
                    return Poll::Ready(self.end(fault));
                }
                None => None,
            };
            match frame {
                Some(frame) => self.unframed.push(frame),
                None => {
                    let torn = self.unframed.has_begun();
                    let torn = torn.then(|| Status::internal("it ends amid a message"));
                    return Poll::Ready(self.end(torn));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl<B> Inbound<B> {
    fn end(&mut self, fault: Option<Status>) -> Option<Result<AgentMessage, Status>> {
        self.is_over = true;
        fault.map(Err)
    }
}

/// Cuts messages out of frames.
#[derive(Debug, Default)]
struct Unframed {
    /// What is left of the last frame. Empty, it holds on to nothing.
    frame: Bytes,
    /// The beginning of a message, with its prefix, whose rest has not come. Empty, it has no room either.
    begun: Vec<u8>,
}

impl Unframed {
    /// The next frame, once there is no message any more in those before it.
    fn push(&mut self, frame: Bytes) {
        self.frame = frame;
    }

    fn has_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    /// The next message; `None` until more has come.
    fn message(&mut self) -> Result<Option<AgentMessage>, Status> {
        if self.begun.is_empty()
            && let Some(end) = end_of(&self.frame)?
            && self.frame.len() >= end
        {
            let whole = self.frame.split_to(end);
            // From a slice: what is kept of it is copied, and so keeps no buffer of the connection's.
            return decode(&whole[PREFIX_BYTES..]).map(Some);
        }
        self.gather(PREFIX_BYTES);
        let Some(end) = end_of(&self.begun)? else {
            return Ok(None);
        };
        self.gather(end);
        if self.begun.len() < end {
            return Ok(None);
        }
        let mut whole = Bytes::from(std::mem::take(&mut self.begun));
        whole.advance(PREFIX_BYTES);
        decode(whole).map(Some)
    }

    /// Moves bytes of the frame to what has begun, until that is so long.
    fn gather(&mut self, len: usize) {
        let lacks = len.saturating_sub(self.begun.len());
        let more = lacks.min(self.frame.len());
        if more > 0 {
            self.begun.reserve_exact(lacks);
            self.begun.extend_from_slice(&self.frame.split_to(more));
        }
    }
}

/// Where the first message of these bytes ends; `None` when they don't say yet.
fn end_of(bytes: &[u8]) -> Result<Option<usize>, Status> {
    let Some([compressed, len @ ..]) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    if *compressed != 0 {
        return Err(Status::internal("a message that is compressed, or is none"));
    }
    let len = u32::from_be_bytes(*len) as usize;
    if len > MAX_MESSAGE_BYTES {
        let text = format!("a message of {len} bytes, the limit is {MAX_MESSAGE_BYTES}");
        return Err(Status::out_of_range(text));
    }
    Ok(Some(PREFIX_BYTES + len))
}

fn decode(message: impl Buf) -> Result<AgentMessage, Status> {
    AgentMessage::decode(message).map_err(|error| Status::internal(error.to_string()))
}

#[cfg(test)]
mod tests;
