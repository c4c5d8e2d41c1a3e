//! Copies what two connections send each other. A connection that is idle has no buffer: bytes are read to the stack once there
//! are some, and only what the other side does not take at once is held until it does.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

/// Read at once, and the most that is held of each direction.
const PIECE_BYTES: usize = 32 << 10;

/// How long one side may leave untaken what the other sends: it has hung, or wants to be a burden.
const STALLED: Duration = Duration::from_secs(60);

/// How long one side may still send after the other has ended. Both sides of TLS end soon after each other.
const HALF_OPEN: Duration = Duration::from_secs(60);

/// Until both sides have ended, or one breaks off.
///
/// # Errors
/// As read(2) and write(2), or when one side does not end.
pub(super) async fn copy_both(a: &mut TcpStream, b: &mut TcpStream) -> io::Result<()> {
    let ((read_a, write_a), (read_b, write_b)) = (a.split(), b.split());
    let mut there = Box::pin(copy(read_a, write_b));
    let mut back = Box::pin(copy(read_b, write_a));
    let rest = tokio::select! {
        ended = &mut there => { ended?; back }
        ended = &mut back => { ended?; there }
    };
    match timeout(HALF_OPEN, rest).await {
        Ok(ended) => ended,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// What came of one piece.
enum CopiedPiece {
    /// All of it was taken.
    All,
    /// This was not.
    But(Vec<u8>),
    /// There will be no more.
    End,
}

/// One direction, until its end, which is passed on.
async fn copy(mut from: ReadHalf<'_>, to: WriteHalf<'_>) -> io::Result<()> {
    loop {
        match poll_fn(|context| copy_piece(&mut from, &to, context)).await? {
            CopiedPiece::All => {}
            CopiedPiece::But(rest) => write_all(&to, &rest).await?,
            CopiedPiece::End => return Ok(shutdown(to.as_ref(), Shutdown::Write)?),
        }
    }
}

/// Not async, so that its buffer is in no task. A read that does not fill it has taken all that there was: by that tokio knows that
/// the next bytes are to be waited for, and no read finds nothing.
fn copy_piece(
    from: &mut ReadHalf<'_>,
    to: &WriteHalf<'_>,
    context: &mut Context<'_>,
) -> Poll<io::Result<CopiedPiece>> {
    let mut room = [MaybeUninit::uninit(); PIECE_BYTES];
    let mut buffer = ReadBuf::uninit(&mut room);
    ready!(Pin::new(from).poll_read(context, &mut buffer))?;
    let read = buffer.filled();
    if read.is_empty() {
        return Poll::Ready(Ok(CopiedPiece::End));
    }
    let taken = match to.try_write(read) {
        Ok(taken) => taken,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Poll::Ready(Err(error)),
    };
    Poll::Ready(Ok(match taken == read.len() {
        true => CopiedPiece::All,
        false => CopiedPiece::But(read[taken..].to_vec()),
    }))
}

async fn write_all(to: &WriteHalf<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let writable = timeout(STALLED, to.writable()).await;
        writable.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match to.try_write(bytes) {
            Ok(taken) => bytes = &bytes[taken..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (dialled.expect("connects"), accepted.expect("accepts").0)
    }

    /// Bytes of which each part is another.
    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7 % 251) as u8).collect()
    }

    #[tokio::test]
    async fn bytes_go_both_ways_whole_and_each_end_is_passed_on_by_itself() {
        let (mut machine, mut at_door) = pair().await;
        let (mut to_owner, mut owner) = pair().await;
        let copied = copy_both(&mut at_door, &mut to_owner);
        let (sent, answer) = (bytes(3 << 20), bytes(5 << 20));
        let (sent, answer) = (&sent, &answer);
        let machines = async move {
            machine.write_all(sent).await.expect("writes");
            machine.shutdown().await.expect("ends its half");
            let mut got = Vec::new();
            machine.read_to_end(&mut got).await.expect("reads");
            assert!(got == *answer);
        };
        let owners = async move {
            let mut got = Vec::new();
            owner.read_to_end(&mut got).await.expect("reads");
            assert!(got == *sent, "whole before the end");
            // It answers once the other half has ended.
            owner.write_all(answer).await.expect("writes");
        };
        let (copied, (), ()) = tokio::join!(copied, machines, owners);
        copied.expect("both have ended");
    }

    #[tokio::test]
    async fn one_that_breaks_off_ends_both() {
        let (machine, mut at_door) = pair().await;
        let (mut to_owner, owner) = pair().await;
        // Closed with bytes unread, which resets it.
        to_owner.try_write(b"unread").expect("writes");
        owner.readable().await.expect("has bytes");
        drop(owner);
        let ended = copy_both(&mut at_door, &mut to_owner).await;
        assert!(ended.is_err());
        drop(machine);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_never_ends_after_the_other_is_not_waited_for() {
        let (machine, mut at_door) = pair().await;
        let (mut to_owner, _owner) = pair().await;
        drop(machine);
        let ended = copy_both(&mut at_door, &mut to_owner).await;
        let error = ended.expect_err("it does not end");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_takes_nothing_is_not_waited_for() {
        let (machine, mut at_door) = pair().await;
        let (mut to_owner, _owner) = pair().await;
        let floods = async {
            loop {
                machine.writable().await.expect("is open");
                let _ = machine.try_write(&[7; PIECE_BYTES]); // as much as goes
            }
        };
        let ended = tokio::select! {
            ended = copy_both(&mut at_door, &mut to_owner) => ended,
            () = floods => unreachable!("it has no end"),
        };
        let error = ended.expect_err("nothing is taken");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn an_idle_copy_is_small() {
        let (_machine, mut at_door) = pair().await;
        let (mut to_owner, _owner) = pair().await;
        let each = size_of_val(&copy(at_door.split().0, to_owner.split().1));
        let both = size_of_val(&copy_both(&mut at_door, &mut to_owner));
        assert!(2 * each + both < 1536, "2 * {each} + {both}");
    }
}
