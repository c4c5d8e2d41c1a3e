//! How long a connection on the agents' port may live: one without a certificate must say what it wants, and get on with
//! it; one with a certificate must carry a call. `deadline` decides; `outlived` waits.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Without a certificate: to its first request, and from the end of one to the next.
const IDLE: Duration = Duration::from_secs(10);

/// Without a certificate: a request to come in, to be answered, and each part of its answer to be taken.
const STALLED: Duration = Duration::from_secs(30);

/// The same of an enrolment, for which the provider may be asked.
const ENROLS: Duration = Duration::from_secs(60);

/// Without a certificate: at most this long in all, also for a download over a slow line.
const STRANGER: Duration = Duration::from_secs(15 * 60);

/// With a certificate, and without a call.
const UNUSED: Duration = Duration::from_secs(60);

/// Who is on the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// It showed no certificate.
    Stranger,
    /// It showed one of ours.
    Agent,
}

/// What a connection has done so far. Times are since its begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ConnectionState {
    /// Requests under way.
    open: u32,
    /// One of them asks to enrol.
    enrols: bool,
    /// When something was last done: a request came, or a part of an answer was taken.
    last: Duration,
}

/// When a connection is to end, if nothing more is done. `None` while it carries an agent's call.
fn deadline(who: Who, seen: ConnectionState) -> Option<Duration> {
    let patience = match (who, seen.open, seen.enrols) {
        (Who::Agent, 0, _) => return Some(seen.last + UNUSED),
        (Who::Agent, ..) => return None,
        (Who::Stranger, 0, _) => IDLE,
        (Who::Stranger, _, true) => ENROLS,
        (Who::Stranger, _, false) => STALLED,
    };
    Some((seen.last + patience).min(STRANGER))
}

/// What a connection does, as its requests report it to whoever ends it.
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    open: AtomicU32,
    enrols: AtomicBool,
    last_ms: AtomicU64,
    idle: AtomicWaker,
}

impl Activity {
    /// Of a connection that begins now.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            open: AtomicU32::new(0),
            enrols: AtomicBool::new(false),
            last_ms: AtomicU64::new(0),
            idle: AtomicWaker::new(),
        })
    }

    /// A request begins; it is over when what this gives is dropped.
    pub(crate) fn request(self: &Arc<Self>, enrols: bool) -> UnderWay {
        self.open.fetch_add(1, Ordering::Relaxed);
        if enrols {
            self.enrols.store(true, Ordering::Relaxed);
        }
        self.progress();
        UnderWay(self.clone())
    }

    fn progress(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms, Ordering::Relaxed);
    }

    fn seen(&self) -> ConnectionState {
        ConnectionState {
            open: self.open.load(Ordering::Relaxed),
            enrols: self.enrols.load(Ordering::Relaxed),
            last: Duration::from_millis(self.last_ms.load(Ordering::Relaxed)),
        }
    }

    /// Returns when the connection has lived for too long without doing anything. Holds no timer while it carries a call.
    pub(crate) async fn outlived(&self, who: Who) {
        loop {
            match deadline(who, self.seen()) {
                Some(at) if self.began.elapsed() >= at => return,
                Some(at) => Box::pin(tokio::time::sleep_until(self.began + at)).await,
                None => self.no_call().await,
            }
        }
    }

    async fn no_call(&self) {
        poll_fn(|context| {
            self.idle.register(context.waker());
            match self.open.load(Ordering::Acquire) {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }
}

/// A request that is not over.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.progress();
        if self.0.open.fetch_sub(1, Ordering::Release) == 1 {
            self.0.enrols.store(false, Ordering::Relaxed);
            self.0.idle.wake();
        }
    }
}

/// The body of an answer: what is taken of it is progress, and the request is over with it.
#[derive(Debug)]
pub(crate) struct TrackedBody<B> {
    body: B,
    under_way: UnderWay,
}

impl<B> TrackedBody<B> {
    /// Of a request that is under way.
    pub(crate) fn new(body: B, under_way: UnderWay) -> Self {
        under_way.0.progress();
        Self { body, under_way }
    }
}

impl<B: Body + Unpin> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_ready() {
            self.under_way.0.progress();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test's tasks end with it")]
mod tests {
    use super::*;

    fn seen(open: u32, enrols: bool, last_s: u64) -> ConnectionState {
        ConnectionState {
            open,
            enrols,
            last: Duration::from_secs(last_s),
        }
    }

    #[test]
    fn a_stranger_is_waited_for_a_little_and_an_agent_while_it_calls() {
        for (who, seen, wanted) in [
            (Who::Stranger, seen(0, false, 0), Some(10)),
            (Who::Stranger, seen(0, false, 7), Some(17)),
            (Who::Stranger, seen(1, false, 7), Some(37)),
            (Who::Stranger, seen(2, true, 7), Some(67)),
            (Who::Stranger, seen(1, false, 899), Some(900)),
            (Who::Stranger, seen(1, true, 5000), Some(900)),
            (Who::Agent, seen(0, false, 7), Some(67)),
            (Who::Agent, seen(1, false, 7), None),
            (Who::Agent, seen(0, false, 5000), Some(5060)),
        ] {
            let wanted = wanted.map(Duration::from_secs);
            assert_eq!(deadline(who, seen), wanted, "{who:?} {seen:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_keeps_an_agents_connection_and_its_end_starts_the_clock() {
        let activity = Activity::new();
        let call = activity.request(false);
        let outlived = {
            let activity = activity.clone();
            tokio::spawn(async move { activity.outlived(Who::Agent).await })
        };
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!outlived.is_finished());
        drop(call);
        let ended = Instant::now();
        outlived.await.expect("ends");
        assert_eq!(ended.elapsed().as_secs(), UNUSED.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_taken_slowly_lives_and_one_that_is_not_taken_ends() {
        let activity = Activity::new();
        let mut answer = TrackedBody::new(
            axum::body::Body::from_stream(futures::stream::repeat_with(|| {
                Ok::<_, std::io::Error>("x")
            })),
            activity.request(false),
        );
        let outlived = {
            let activity = activity.clone();
            tokio::spawn(async move { activity.outlived(Who::Stranger).await })
        };
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(25)).await;
            assert!(!outlived.is_finished());
            poll_fn(|context| Pin::new(&mut answer).poll_frame(context)).await;
        }
        let last = Instant::now();
        outlived.await.expect("ends");
        assert_eq!(last.elapsed().as_secs(), STALLED.as_secs());
    }
}
