//! What one side of a stream says, as the body of its request or of its answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Response, header};
use hyper::body::{Body, Frame};
use prost::bytes::Bytes;
use tonic::Status;

use super::{TunnelMessage, append};

/// Messages that are ready at once go out in one frame until it is so long.
const TOGETHER_BYTES: usize = 32 << 10;

pub(super) type Said<T> = BoxStream<'static, Result<T, Status>>;

/// The answer to a call that was let in: what is said on it, and how it ends.
pub fn response<T: TunnelMessage>(
    messages: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Response<impl Body<Data = Bytes, Error = Infallible> + Send + 'static> {
    let mut response = Response::new(Outgoing::new(messages.boxed(), true));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// The body.
pub(super) struct Outgoing<T> {
    /// `None` once it has ended.
    messages: Option<Said<T>>,
    /// The bytes of a piece whose head was the last frame.
    data: Option<Bytes>,
    /// How it ended, where that is still to be said.
    status: Option<Status>,
    /// Whoever answers says how that ended.
    is_answer: bool,
}

impl<T> Outgoing<T> {
    pub(super) fn new(messages: Said<T>, is_answer: bool) -> Self {
        Self {
            messages: Some(messages),
            data: None,
            status: None,
            is_answer,
        }
    }
}

impl<T: TunnelMessage> Outgoing<T> {
    /// What is ready as one frame, up to bytes that are one of their own; empty when nothing is.
    fn collect(&mut self, context: &mut Context<'_>) -> Vec<u8> {
        let mut frame = Vec::new();
        while let Some(messages) = &mut self.messages
            && self.data.is_none()
            && frame.len() < TOGETHER_BYTES
        {
            match messages.as_mut().poll_next(context) {
                Poll::Ready(Some(Ok(message))) => self.data = append(message, &mut frame),
                Poll::Ready(None) => self.end(Status::ok("")),
                Poll::Ready(Some(Err(status))) => self.end(status),
                Poll::Pending => break,
            }
        }
        frame
    }

    fn end(&mut self, status: Status) {
        self.messages = None;
        self.status = self.is_answer.then_some(status);
    }
}

impl<T: TunnelMessage> Body for Outgoing<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let frame = self.collect(context);
        if !frame.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(frame.into()))));
        }
        match (self.status.take(), &self.messages) {
            (Some(status), _) => Poll::Ready(Some(Ok(Frame::trailers(trailers(&status))))),
            (None, None) => Poll::Ready(None),
            (None, Some(_)) => Poll::Pending,
        }
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // What can't be said in a header is left out; that it ended is not.
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    trailers
}
