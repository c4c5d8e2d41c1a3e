//! What the other side of a stream says, out of the body of its request or of its answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http::HeaderMap;
use hyper::body::Body;
use prost::bytes::{Buf, Bytes};
use tonic::{Code, Status};

use super::{PREFIX_BYTES, TunnelMessage};
use held::Held;

mod held;

/// Most of one message. The longest has one piece and what goes around it.
const MOST_BYTES: usize = 128 << 10;

/// What comes on a stream, until it ends.
pub type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// The messages of a request.
pub fn requests<T, B>(body: B) -> Messages<T>
where
    T: TunnelMessage,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    Incoming::new(Box::pin(body), false).boxed()
}

/// The messages of a body.
pub(super) struct Incoming<T, B> {
    body: Pin<Box<B>>,
    held: Held,
    /// How long the message is whose prefix was read.
    begun: Option<usize>,
    is_over: bool,
    /// Of an answer, which ends with a status.
    is_answer: bool,
    message: std::marker::PhantomData<fn() -> T>,
}

impl<T: TunnelMessage, B> Incoming<T, B> {
    pub(super) fn new(body: Pin<Box<B>>, is_answer: bool) -> Self {
        Self {
            body,
            held: Held::default(),
            begun: None,
            is_over: false,
            is_answer,
            message: std::marker::PhantomData,
        }
    }

    /// The next message of what has come; `None` until more has.
    fn message(&mut self) -> Result<Option<T>, Status> {
        if self.begun.is_none() && self.held.remaining() >= PREFIX_BYTES {
            let is_compressed = self.held.get_u8() != 0;
            let len = self.held.get_u32() as usize;
            if is_compressed {
                return Err(Status::internal("a message that is compressed, or is none"));
            }
            if len > MOST_BYTES {
                let text = format!("a message of {len} bytes, the limit is {MOST_BYTES}");
                return Err(Status::out_of_range(text));
            }
            self.begun = Some(len);
        }
        let Some(len) = self.begun.filter(|len| *len <= self.held.remaining()) else {
            return Ok(None);
        };
        self.begun = None;
        let message = T::decode((&mut self.held).take(len));
        message
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }

    /// What the end means that the body has come to; `trailers` are its last frame.
    fn end(&self, trailers: Option<&HeaderMap>) -> Option<Status> {
        if self.begun.is_some() || self.held.has_remaining() {
            return Some(Status::internal("it ends amid a message"));
        }
        let status = trailers.and_then(Status::from_header_map);
        let unsaid = || {
            self.is_answer
                .then(|| Status::unknown("it ends without a status"))
        };
        status.or_else(unsaid).filter(|it| it.code() != Code::Ok)
    }
}

impl<T, B> Stream for Incoming<T, B>
where
    T: TunnelMessage,
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Item = Result<T, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, Status>>> {
        while !self.is_over {
            let ended = match self.message() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Err(status) => Some(status),
                Ok(None) => match ready!(self.body.as_mut().poll_frame(context)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            self.held.push(data);
                            continue;
                        }
                        Err(frame) => self.end(frame.trailers_ref()),
                    },
                    Some(Err(error)) => {
                        let status = Status::from_error(error.into());
                        // Whoever asks ended its call, which is no fault.
                        Some(status).filter(|it| self.is_answer || it.code() != Code::Cancelled)
                    }
                    None => self.end(None),
                },
            };
            self.is_over = true;
            if let Some(status) = ended {
                return Poll::Ready(Some(Err(status)));
            }
        }
        Poll::Ready(None)
    }
}
