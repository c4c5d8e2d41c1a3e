//! The loop of one end: picks what is ready, asks the windows, moves it. Holds at most one window of what has come, and one
//! piece of what goes.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_proto::limits::TUNNEL_DATA_BYTES;
use aot_proto::v1::{TunnelPiece, TunnelReset, tunnel_piece::Body};
use futures::{Stream, StreamExt};
use prost::bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::window::{ReceiveWindow, SendWindow, WindowBreach};

/// Less room than this in the buffer, and a new one is made: small pieces share one, large ones have one each.
const SPARE_BYTES: usize = 16 << 10;

/// How long the last piece may take to leave, and the other end to hang up after it.
const LAST_PIECE: Duration = Duration::from_secs(2);

/// When one end is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// When both ways are over: a way that is closed does not end the other.
    BothOver,
    /// When nothing more comes: what could still be sent has no reader that answers.
    NothingComes,
}

/// How a connection ended.
#[derive(Debug)]
pub enum Close {
    /// Each way to its end.
    Whole,
    /// The other end says that it broke there.
    ResetThere(String),
    /// The local stream broke.
    ResetHere(io::Error),
    /// What is between the ends broke.
    Lost(String),
    /// The other end does not keep to the rules.
    Breach,
}

/// What a connection has carried.
#[derive(Debug)]
pub struct Carried {
    /// Bytes to the other end.
    pub sent: u64,
    /// Bytes from it.
    pub received: u64,
    /// How it ended.
    pub close: Close,
}

/// One end while it is open.
struct End<R, W> {
    read: R,
    write: W,
    leave: Leave,
    buffer: BytesMut,
    /// What is to be sent; at most one piece with data.
    outbox: VecDeque<Body>,
    send: SendWindow,
    receive: ReceiveWindow,
    /// What has come and is not written yet; its size is bounded by the window.
    queue: VecDeque<Bytes>,
    /// Of the first of them, this much is written.
    written: usize,
    /// The last that was written has not been flushed.
    unflushed: bool,
    /// The local stream is at its end.
    read_over: bool,
    /// The other end sends no more.
    comes_no_more: bool,
    /// And the local stream knows.
    write_over: bool,
    /// The other end's stream is over, too.
    hung_up: bool,
    sent: u64,
    received: u64,
}

/// Copies between a local stream and the other end, whose pieces come by `pieces` and go to `to_peer`, each made a message by
/// `wrap`. When this returns, everything that came before the end was written. The local stream is dropped by the caller: after
/// [`Close::Whole`] that is all there is to do, otherwise whoever is on it learns best by a reset.
pub async fn carry<R, W, P, E, T>(
    read: R,
    write: W,
    pieces: &mut P,
    to_peer: mpsc::Sender<T>,
    wrap: impl Fn(TunnelPiece) -> T,
    leave: Leave,
) -> Carried
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    P: Stream<Item = Result<TunnelPiece, E>> + Unpin,
    E: Display,
{
    let mut end = End {
        read,
        write,
        leave,
        buffer: BytesMut::new(),
        outbox: VecDeque::new(),
        send: SendWindow::new(),
        receive: ReceiveWindow::new(),
        queue: VecDeque::new(),
        written: 0,
        unflushed: false,
        read_over: false,
        comes_no_more: false,
        write_over: false,
        hung_up: false,
        sent: 0,
        received: 0,
    };
    let message = |body| wrap(TunnelPiece { body: Some(body) });
    let close = end.run(pieces, &to_peer, message).await;
    let reset = match &close {
        Close::ResetHere(error) => Some(Chain(error).to_string()),
        Close::Breach => Some("the other end of the connection broke the rules".to_owned()),
        Close::Whole | Close::ResetThere(_) | Close::Lost(_) => None,
    };
    let (sent, received, hung_up) = (end.sent, end.received, end.hung_up);
    let last = async {
        if let Some(detail) = reset {
            let reset = Body::Reset(TunnelReset { detail });
            let _ = to_peer.send(message(reset)).await;
        }
        drop(to_peer);
        // A call that is dropped before its answer has ended takes with it what was not sent yet.
        while let Some(Ok(_)) = pieces.next().await {}
    };
    if !hung_up && !matches!(close, Close::Lost(_)) {
        let _ = timeout(LAST_PIECE, last).await; // it had the time to read
    }
    Carried {
        sent,
        received,
        close,
    }
}

/// What was ready.
enum EndInput<E> {
    Piece(Option<Result<TunnelPiece, E>>),
    Read(io::Result<usize>),
    Written(io::Result<Option<usize>>),
    Unread,
}

/// Writes a part of this, or has what was written before get out; `None` is the latter. Cancel safe.
async fn write_some(
    write: &mut (impl AsyncWrite + Unpin),
    first: &[u8],
) -> io::Result<Option<usize>> {
    if first.is_empty() {
        return write.flush().await.map(|()| None);
    }
    write.write(first).await.map(Some)
}

fn left() -> Close {
    Close::Lost("the other end left".to_owned())
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> End<R, W> {
    async fn run<P, E, T>(
        &mut self,
        pieces: &mut P,
        to_peer: &mpsc::Sender<T>,
        message: impl Fn(Body) -> T,
    ) -> Close
    where
        P: Stream<Item = Result<TunnelPiece, E>> + Unpin,
        E: Display,
    {
        loop {
            if let Some(close) = self.over().await {
                return close;
            }
            let reads = !self.read_over && self.outbox.is_empty() && self.send.has_room();
            if reads && self.buffer.capacity() - self.buffer.len() < SPARE_BYTES {
                self.buffer = BytesMut::with_capacity(TUNNEL_DATA_BYTES);
            }
            let mut room = (&mut self.buffer).limit(TUNNEL_DATA_BYTES);
            let first = self.queue.front().map_or(&[][..], |it| &it[self.written..]);
            let writes = !first.is_empty() || self.unflushed;
            // An arm only picks what is ready. Every arm is cancel safe.
            let ready = tokio::select! {
                piece = pieces.next(), if !self.hung_up => EndInput::Piece(piece),
                read = self.read.read_buf(&mut room), if reads => EndInput::Read(read),
                written = write_some(&mut self.write, first), if writes => EndInput::Written(written),
                permit = to_peer.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(body) = self.outbox.pop_front() {
                            permit.send(message(body));
                        }
                        continue;
                    }
                    Err(_) => EndInput::Unread,
                },
            };
            let close = match ready {
                EndInput::Piece(None) => self.on_hang_up(),
                EndInput::Piece(Some(Err(error))) => Some(Close::Lost(error.to_string())),
                EndInput::Piece(Some(Ok(piece))) => self.on_piece(piece),
                EndInput::Read(read) => self.on_read(read),
                EndInput::Written(written) => self.on_written(written),
                EndInput::Unread => Some(left()),
            };
            if let Some(close) = close {
                return close;
            }
        }
    }

    fn sends_no_more(&self) -> bool {
        self.read_over && self.outbox.is_empty()
    }

    /// Closes the local stream for writing once all is written; gives the end of the whole when that has come.
    async fn over(&mut self) -> Option<Close> {
        let all_written = self.queue.is_empty() && !self.unflushed;
        if self.comes_no_more && all_written && !self.write_over {
            self.write_over = true;
            if let Err(error) = self.write.shutdown().await {
                // Who has left altogether needs no end any more.
                return (error.kind() != io::ErrorKind::NotConnected)
                    .then_some(Close::ResetHere(error));
            }
        }
        let leaves = self.sends_no_more() || self.leave == Leave::NothingComes;
        (self.write_over && leaves).then_some(Close::Whole)
    }

    /// An end that has said all, and heard all, hangs up, perhaps before what it said is written here.
    fn on_hang_up(&mut self) -> Option<Close> {
        self.hung_up = true;
        self.outbox.retain(|body| !matches!(body, Body::Granted(_)));
        let leaves = self.sends_no_more() || self.leave == Leave::NothingComes;
        let is_done = self.comes_no_more && leaves;
        (!is_done).then(left)
    }

    fn on_piece(&mut self, piece: TunnelPiece) -> Option<Close> {
        match piece.body {
            Some(Body::Data(data)) if !self.comes_no_more => {
                if let Err(WindowBreach) = self.receive.received(data.len()) {
                    return Some(Close::Breach);
                }
                self.received += data.len() as u64;
                self.queue.push_back(data);
                None
            }
            Some(Body::Data(_)) => Some(Close::Breach),
            Some(Body::End(_)) => {
                self.comes_no_more = true;
                None
            }
            Some(Body::Granted(more)) => {
                let granted = self.send.granted(more);
                granted.err().map(|WindowBreach| Close::Breach)
            }
            Some(Body::Reset(TunnelReset { detail })) => Some(Close::ResetThere(detail)),
            // Of a later version: nothing that this one waits for.
            None => None,
        }
    }

    fn on_read(&mut self, read: io::Result<usize>) -> Option<Close> {
        match read {
            Ok(0) => {
                self.read_over = true;
                self.outbox.push_back(Body::End(true));
                None
            }
            Ok(bytes) => {
                self.send.sent(bytes);
                self.sent += bytes as u64;
                let data = self.buffer.split().freeze();
                self.outbox.push_back(Body::Data(data));
                None
            }
            Err(error) => Some(Close::ResetHere(error)),
        }
    }

    fn on_written(&mut self, written: io::Result<Option<usize>>) -> Option<Close> {
        let bytes = match written {
            Ok(None) => {
                self.unflushed = false;
                return None;
            }
            Ok(Some(0)) => return Some(Close::ResetHere(io::ErrorKind::WriteZero.into())),
            Ok(Some(bytes)) => bytes,
            Err(error) => return Some(Close::ResetHere(error)),
        };
        self.written += bytes;
        self.unflushed = true;
        if let Some(first) = self.queue.front()
            && self.written >= first.len()
        {
            let whole = first.len();
            self.queue.pop_front();
            self.written = 0;
            let more = self.receive.passed_on(whole);
            if let Some(more) = more.filter(|_| !self.comes_no_more) {
                self.outbox.push_back(Body::Granted(more));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
