//! A session's messages as the body of its `Attach`, in gRPC's framing ("gRPC over HTTP2", Length-Prefixed-Message). By hand, since
//! tonic copies each message into a buffer of its stream, which stays as large as the largest message was: after cluster facts
//! every session would hold a piece. Here a piece's bytes are passed on as they are, one copy for all sessions.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use aot_proto::v1::{ClusterFactsPiece, MasterMessage, master_message};
use futures::Stream;
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::body::{Body, Frame};
use prost::Message;
use prost::bytes::{BufMut, Bytes};
use prost::{encode_length_delimiter, length_delimiter_len};
use tonic::Status;

/// Messages that are ready at once go out in one frame until it is so long.
const TOGETHER_BYTES: usize = 32 << 10;

/// Before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Before `MasterMessage.cluster_facts`, number 3, and before `ClusterFactsPiece.data`, number 4: that a length follows ("Encoding",
/// "Message Structure").
const FACTS_KEY: u8 = 3 << 3 | 2;
const DATA_KEY: u8 = 4 << 3 | 2;

/// What a session sends, until it ends.
pub(super) type Messages = Pin<Box<dyn Stream<Item = Result<MasterMessage, Status>> + Send>>;

/// The answer to an `Attach` that was let in.
pub(super) fn response(messages: Messages) -> Response<axum::body::Body> {
    let mut response = Response::new(axum::body::Body::new(Outgoing::Open(messages)));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

enum Outgoing {
    Open(Messages),
    /// The bytes of a piece whose head was the last frame.
    Piece(Messages, Bytes),
    Ends(Status),
    Over,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (frame, next) = match std::mem::replace(&mut *self, Self::Over) {
            Self::Open(messages) => Self::collect(messages, context),
            Self::Piece(messages, data) => (Some(Frame::data(data)), Self::Open(messages)),
            Self::Ends(status) => (Some(Frame::trailers(trailers(&status))), Self::Over),
            Self::Over => return Poll::Ready(None),
        };
        *self = next;
        match frame {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Over)
    }
}

impl Outgoing {
    /// What is ready as one frame; none when nothing is.
    fn collect(mut messages: Messages, context: &mut Context<'_>) -> (Option<Frame<Bytes>>, Self) {
        let mut frame = Vec::new();
        let next = loop {
            if frame.len() >= TOGETHER_BYTES {
                break Self::Open(messages);
            }
            match messages.as_mut().poll_next(context) {
                Poll::Ready(Some(Ok(message))) => {
                    if let Some(data) = append(message, &mut frame) {
                        break Self::Piece(messages, data);
                    }
                }
                Poll::Ready(Some(Err(status))) => break Self::Ends(status),
                Poll::Ready(None) => break Self::Ends(Status::ok("")),
                Poll::Pending => break Self::Open(messages),
            }
        };
        match (frame.is_empty(), next) {
            (false, next) => (Some(Frame::data(frame.into())), next),
            (true, Self::Ends(status)) => (Some(Frame::trailers(trailers(&status))), Self::Over),
            (true, next) => (None, next),
        }
    }
}

/// Appends a message. Of a piece of cluster facts only its head: its bytes, which are given back, come right after it.
fn append(message: MasterMessage, frame: &mut Vec<u8>) -> Option<Bytes> {
    match message.body {
        Some(master_message::Body::ClusterFacts(piece)) => Some(append_head(piece, frame)),
        _ => {
            begin(message.encoded_len(), 0, frame);
            put(&message, frame);
            None
        }
    }
}

fn append_head(mut piece: ClusterFactsPiece, frame: &mut Vec<u8>) -> Bytes {
    let data = std::mem::take(&mut piece.data);
    // The order of a message's fields is free ("Encoding", "Message Structure"): the data last.
    let in_piece = piece.encoded_len() + field_len(data.len());
    begin(field_len(in_piece), data.len(), frame);
    open(FACTS_KEY, in_piece, frame);
    put(&piece, frame);
    open(DATA_KEY, data.len(), frame);
    data
}

/// Begins a message of this length, of which this many bytes are not put into the frame.
fn begin(len: usize, elsewhere: usize, frame: &mut Vec<u8>) {
    frame.reserve(PREFIX_BYTES + len - elsewhere);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(len).expect("messages have limits far below 4 GiB"));
}

fn put(message: &impl Message, frame: &mut Vec<u8>) {
    message.encode(frame).expect("a Vec has room");
}

fn open(key: u8, len: usize, frame: &mut Vec<u8>) {
    frame.put_u8(key);
    encode_length_delimiter(len, frame).expect("a Vec has room");
}

/// Length of a field whose content is so long: its key is one byte.
fn field_len(len: usize) -> usize {
    1 + length_delimiter_len(len) + len
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(unsaid) = status.add_header(&mut trailers) {
        tracing::error!(%unsaid, "an agent is not told why its session ends");
    }
    trailers
}

#[cfg(test)]
mod tests;
