//! Streams to operators, in fewer and larger pieces. HTTP/2 (the h2 crate) counts small frames that were not read yet, and
//! ends a connection with too many: a command line that is stopped for some seconds would lose its job. So what comes in
//! quick succession is held for a moment, and goes out together: tonic puts all messages that are ready into one frame.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aot_proto::v1::{self, job_event};
use futures::{Stream, StreamExt};
use tokio::time::{Instant, Sleep};
use tonic::Status;

/// Time between two pieces, unless there is enough for one.
const EVERY: Duration = Duration::from_millis(20);

/// Bytes that are enough for a piece.
const ENOUGH: usize = 4 << 10;

/// Most messages that are held. When there are more, they go out.
const MOST: usize = 64;

/// Weight of a message that goes out at once, with all before it.
const NOW: usize = usize::MAX;

/// Bytes that a message counts for.
pub(super) trait Weighed {
    /// At least; [`NOW`] when nothing is to wait for more.
    fn weight(&self) -> usize;
}

impl<T: Weighed> Weighed for Result<T, Status> {
    fn weight(&self) -> usize {
        self.as_ref().map_or(NOW, T::weight)
    }
}

impl Weighed for v1::JobEvent {
    fn weight(&self) -> usize {
        match &self.body {
            Some(job_event::Body::Output(output)) => output.data.len(),
            // The last word.
            Some(job_event::Body::Summary(_)) => NOW,
            _ => 0,
        }
    }
}

impl Weighed for v1::Event {
    fn weight(&self) -> usize {
        if self.last { NOW } else { 0 }
    }
}

impl Weighed for v1::LogLine {
    fn weight(&self) -> usize {
        0
    }
}

/// A stream that does not send many small pieces.
pub(super) struct Paced<S: Stream> {
    inner: S,
    held: VecDeque<S::Item>,
    weight: usize,
    ended: bool,
    /// What is held goes out.
    open: bool,
    /// Not before then, unless there is enough.
    next: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The same messages, the first of them at once.
pub(super) fn paced<S: Stream>(inner: S) -> Paced<S> {
    Paced {
        inner,
        held: VecDeque::new(),
        weight: 0,
        ended: false,
        open: false,
        next: Instant::now(),
        timer: None,
    }
}

impl<S: Stream + Unpin> Paced<S>
where
    S::Item: Weighed,
{
    fn fill(&mut self, context: &mut Context<'_>) {
        while !self.ended && self.held.len() < MOST {
            match self.inner.poll_next_unpin(context) {
                Poll::Ready(Some(message)) => {
                    self.weight = self.weight.saturating_add(message.weight());
                    self.held.push_back(message);
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => return,
            }
        }
    }

    fn is_due(&mut self, context: &mut Context<'_>) -> bool {
        if self.ended || self.weight >= ENOUGH || self.held.len() >= MOST {
            return true;
        }
        let next = self.next;
        if Instant::now() >= next {
            return true;
        }
        let sleep = || Box::pin(tokio::time::sleep_until(next));
        let timer = self.timer.get_or_insert_with(sleep);
        timer.as_mut().poll(context).is_ready()
    }
}

impl<S: Stream + Unpin> Stream for Paced<S>
where
    S::Item: Weighed + Unpin,
{
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let paced = self.get_mut();
        if paced.open {
            if let Some(message) = paced.held.pop_front() {
                return Poll::Ready(Some(message));
            }
            paced.open = false;
            paced.next = Instant::now() + EVERY;
        }
        paced.fill(context);
        if paced.held.is_empty() {
            return if paced.ended {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        }
        if !paced.is_due(context) {
            return Poll::Pending;
        }
        (paced.open, paced.weight, paced.timer) = (true, 0, None);
        Poll::Ready(paced.held.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    impl Weighed for usize {
        fn weight(&self) -> usize {
            *self
        }
    }

    fn ready(paced: &mut Paced<ReceiverStream<usize>>) -> Vec<usize> {
        std::iter::from_fn(|| paced.next().now_or_never().flatten()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_goes_out_at_once_and_what_follows_goes_out_together() {
        let (sender, inbox) = mpsc::channel(100);
        let mut paced = paced(ReceiverStream::new(inbox));
        let send = async |weight| sender.send(weight).await.expect("there is room");
        send(1).await;
        assert_eq!(ready(&mut paced), [1]);
        send(2).await;
        send(3).await;
        assert!(ready(&mut paced).is_empty(), "they wait for more");
        let begun = Instant::now();
        assert_eq!(paced.next().await, Some(2));
        assert!(begun.elapsed() >= EVERY && begun.elapsed() < 2 * EVERY);
        assert_eq!(ready(&mut paced), [3]);
        send(4).await;
        send(ENOUGH).await;
        assert_eq!(ready(&mut paced), [4, ENOUGH], "that is enough");
        send(5).await;
        send(NOW).await;
        assert_eq!(ready(&mut paced), [5, NOW], "the last word does not wait");
        for _ in 0..MOST {
            send(0).await;
        }
        tokio::task::yield_now().await; // a task may do only so much at once (tokio::task::coop)
        assert_eq!(ready(&mut paced).len(), MOST, "no more are held");
        send(6).await;
        drop(sender);
        assert_eq!(paced.collect::<Vec<_>>().await, [6]);
    }
}
