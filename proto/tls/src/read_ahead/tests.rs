use std::cell::RefCell;
use std::collections::VecDeque;

use super::*;

/// Has this many bytes for a read at once; 0 is nothing for now. Counts how often it was asked.
struct Kernel<'a> {
    there: VecDeque<usize>,
    asked: &'a RefCell<usize>,
    next: u8,
}

impl AsyncRead for Kernel<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        *self.asked.borrow_mut() += 1;
        match self.there.pop_front() {
            Some(0) => return Poll::Pending,
            None => return Poll::Ready(Ok(())),
            Some(there) => {
                let read = there.min(buffer.remaining());
                for _ in 0..read {
                    buffer.put_slice(&[self.next]);
                    self.next = self.next.wrapping_add(1) % 251;
                }
                if there > read {
                    self.there.push_front(there - read);
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Reads as rustls does until there is nothing for now; how often bytes came, and which.
fn drain(stream: &mut ReadAhead<Kernel<'_>>) -> (usize, Vec<u8>) {
    let mut context = Context::from_waker(std::task::Waker::noop());
    let (mut reads, mut all) = (0, Vec::new());
    loop {
        let mut piece = [0; ASKED_BYTES];
        let mut buffer = ReadBuf::new(&mut piece);
        match Pin::new(&mut *stream).poll_read(&mut context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return (reads, all),
            Poll::Ready(Ok(())) => all.extend_from_slice(buffer.filled()),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => return (reads, all),
        }
        reads += 1;
    }
}

fn kernel<'a>(there: &[usize], asked: &'a RefCell<usize>) -> ReadAhead<Kernel<'a>> {
    ReadAhead::new(Kernel {
        there: there.iter().copied().collect(),
        asked,
        next: 0,
    })
}

#[test]
fn much_is_read_with_few_calls_whole_and_in_order() {
    let asked = RefCell::new(0);
    let mut stream = kernel(&[200 << 10, 0, 1 << 10, 0, 9 << 10], &asked);
    let (reads, all) = drain(&mut stream);
    assert_eq!((reads, all.len()), (50, 200 << 10));
    // The first as it was asked for, four of 64 KiB at most, and the one that finds nothing.
    assert_eq!(*asked.borrow(), 6);
    let bytes = all.iter().enumerate();
    let mut wrong = bytes.filter(|(at, byte)| **byte != (at % 251) as u8);
    assert_eq!(wrong.next(), None);
}

#[test]
fn what_is_idle_holds_nothing_and_little_is_read_as_it_is_asked_for() {
    let asked = RefCell::new(0);
    let mut stream = kernel(&[100 << 10, 0, 1 << 10, 0, 9 << 10], &asked);
    drain(&mut stream);
    assert_eq!(stream.held.capacity(), 0);
    *asked.borrow_mut() = 0;
    assert_eq!(drain(&mut stream).1.len(), 1 << 10);
    assert_eq!((*asked.borrow(), stream.held.capacity()), (2, 0));
    assert_eq!(drain(&mut stream).1.len(), 9 << 10);
    assert_eq!(stream.held.capacity(), 0, "nor at the end");
}
