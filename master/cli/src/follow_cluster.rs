//! Follows a stream of events to its end and shows them: the one loop behind launch, apply, wait, terminate, cleanup.

use std::future::Future;
use std::time::Duration;

use aot_proto::v1::Event;
use futures::{Stream, StreamExt};
use tokio::time::MissedTickBehavior;
use tonic::Status;

use super::Ctx;
use super::error::{Error, is_broken};
use crate::view::{Board, Json, LiveView, Plain, View};

/// How often the live view's clocks are brought up.
const REDRAW: Duration = Duration::from_millis(250);

/// What was followed.
pub(crate) struct FollowedCluster {
    /// Every instance, as the events left it.
    pub board: Board,
    /// The event that said it was the last, or simply came last before a stream that need not end with one.
    pub last: Option<Event>,
}

/// Ctrl-C, once.
pub(crate) async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the signal ends the process, as it does everywhere.
        std::future::pending::<()>().await;
    }
}

/// Shows `events` until the last one.
///
/// # Errors
/// When the stream breaks or ends before its last event, unless `detached`; when `interrupt` comes first; when an
/// output can't be written. `goes_on` says how to look at what continues.
pub(crate) async fn follow(
    ctx: &mut Ctx<'_>,
    events: impl Stream<Item = Result<Event, Status>>,
    interrupt: impl Future<Output = ()>,
    goes_on: &str,
    detached: bool,
) -> Result<FollowedCluster, Error> {
    let mut view = view_for(ctx);
    let followed = drive(ctx, view.as_mut(), events, interrupt, goes_on, detached).await;
    view.close();
    if let Some(verbose) = &ctx.verbose {
        verbose.stderr.set_live(None);
    }
    followed
}

fn view_for(ctx: &Ctx<'_>) -> Box<dyn View> {
    if ctx.json {
        Box::new(Json)
    } else if ctx.is_live() {
        let live = LiveView::new(ctx.style());
        if let Some(verbose) = &ctx.verbose {
            verbose.stderr.set_live(Some(live.bars()));
        }
        Box::new(live)
    } else {
        Box::new(Plain::new(ctx.env.offset))
    }
}

async fn drive(
    ctx: &mut Ctx<'_>,
    view: &mut dyn View,
    events: impl Stream<Item = Result<Event, Status>>,
    interrupt: impl Future<Output = ()>,
    goes_on: &str,
    detached: bool,
) -> Result<FollowedCluster, Error> {
    let mut followed = FollowedCluster {
        board: Board::default(),
        last: None,
    };
    let mut tick = tokio::time::interval(REDRAW);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let goes_on = || goes_on.to_owned();
    futures::pin_mut!(events, interrupt);
    loop {
        let event = tokio::select! {
            () = &mut interrupt => return Err(Error::Interrupted { goes_on: goes_on() }),
            _ = tick.tick() => {
                view.tick(aot_host::clock::unix_ms());
                continue;
            }
            event = events.next() => event,
        };
        match event {
            Some(Ok(event)) => {
                followed.board.step(&event);
                view.show(&event, ctx.io)?;
                let last = event.last;
                followed.last = Some(event);
                if last {
                    return Ok(followed);
                }
            }
            Some(Err(status)) => return Err(broken(status, goes_on())),
            None if detached => return Ok(followed),
            None => {
                return Err(Error::Lost {
                    goes_on: goes_on(),
                    source: None,
                });
            }
        }
    }
}

/// A status from the middle of a stream: the master's own, or a lost connection.
pub(crate) fn broken(status: Status, goes_on: String) -> Error {
    if is_broken(&status) {
        Error::Lost {
            goes_on,
            source: Some(Box::new(status)),
        }
    } else {
        status.into()
    }
}
