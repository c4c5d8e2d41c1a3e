//! An answer of another master on its way to whoever asked: read by nobody here. When the way breaks, its end says so.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tonic::Status;

/// The body of an answer.
pub(super) struct PassedBody<L> {
    body: Incoming,
    /// The id of the master that it comes from.
    master: String,
    /// The connection, which is given back at its end.
    lease: Option<L>,
}

impl<L> PassedBody<L> {
    pub(super) fn new(body: Incoming, master: String, lease: L) -> Self {
        let lease = Some(lease);
        Self {
            body,
            master,
            lease,
        }
    }
}

impl<L: Unpin> Body for PassedBody<L> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // After an end that was made here nothing follows.
        if self.lease.is_none() {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.body).poll_frame(context)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => {
                self.lease = None;
                Poll::Ready(Some(lost(&self.master, &error).map(Frame::trailers)))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default() // an end of ours may be shorter than what was announced
    }
}

/// Trailers that say that the rest does not come.
fn lost(master: &str, error: &hyper::Error) -> Result<HeaderMap, Status> {
    let status = aot_proto::status::owner_gone(format!(
        "the connection to the master {master}, which has the cluster, broke ({error}): what was begun may continue; look at `aot-master masters` and `aot-master jobs`, then try again"
    ));
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}
