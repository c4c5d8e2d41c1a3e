//! What a master's TLS says of our certificate, and the stream that listens for it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use aot_tls::ReadAhead;
use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// What the other side says of our certificate. In TLS 1.3 it says so after our side of the handshake is over, so it
/// comes with the first bytes that are read, long after the connection was made (RFC 8446, 4.4.2.4).
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusal(Arc<AtomicBool>);

impl Refusal {
    /// The other side sent the alert certificate_expired: by its clock our certificate is over, or not yet good.
    pub(crate) fn is_certificate_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn inspect(&self, error: &io::Error) {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let over = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
        if inner == Some(&over) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// A stream whose errors are looked through for a [`Refusal`]: HTTP/2 keeps only their text.
pub(super) struct Inspected {
    pub(super) stream: TlsStream<ReadAhead<TcpStream>>,
    pub(super) refusal: Refusal,
}

impl AsyncRead for Inspected {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            self.refusal.inspect(error);
        }
        read
    }
}

impl AsyncWrite for Inspected {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
