//! What TLS reads from. The library asks for 4 KiB at a time, so that a record of 16 KiB is five system calls; while much comes, more
//! is read here at once, and handed on from memory. A connection that is idle has no buffer.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What is read at once while much comes.
const AHEAD_BYTES: usize = 64 << 10;

/// Who asks for this much, and gets it, has not read all that is there.
const ASKED_BYTES: usize = 4 << 10;

/// A stream that is read ahead, from when a read was filled to when there is nothing to read for the moment.
#[derive(Debug)]
pub struct ReadAhead<S> {
    stream: S,
    is_ahead: bool,
    held: Vec<u8>,
    /// Of what is held, this much was handed on.
    taken: usize,
}

impl<S> ReadAhead<S> {
    /// Of a stream from which nothing was read ahead so far.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            is_ahead: false,
            held: Vec::new(),
            taken: 0,
        }
    }
}

impl<S: AsyncRead + Unpin> ReadAhead<S> {
    /// Reads to what is held, all of which was handed on; to nothing when there is nothing to read.
    fn fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.taken = 0;
        self.held.clear();
        self.held.reserve_exact(AHEAD_BYTES);
        let read = pin!(self.stream.read_buf(&mut self.held)).poll(context);
        if !matches!(read, Poll::Ready(Ok(1..))) {
            self.is_ahead = false;
            self.held = Vec::new();
        }
        read.map_ok(|_| ())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_ahead {
            let asked = buffer.remaining();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            this.is_ahead = asked >= ASKED_BYTES && buffer.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        if this.taken == this.held.len() {
            ready!(this.fill(context))?;
        }
        let rest = &this.held[this.taken..];
        let some = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..some]);
        this.taken += some;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }
}

#[cfg(test)]
mod tests;
