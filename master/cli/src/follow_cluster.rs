//! Follows a stream of events to its end and shows them: the one loop behind launch, apply, wait, terminate, cleanup.

use std::collections::HashMap;
use std::io::Write as _;
use std::pin::Pin;
use std::time::Duration;

use aot_proto::v1::{Event, InstanceView};
use futures::{Stream, StreamExt};
use tokio::time::MissedTickBehavior;
use tonic::Status;

use super::Ctx;
use super::again::{LOST, may_come};
use super::dial::Client;
use super::error::{Error, is_broken};
use super::interrupt::Interrupt;
use super::printing::PrintingQuery;
use crate::view::{Board, Detail, Json, LiveView, Plain, View};

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

/// Shows `events` until the last one, and those of the next master when one is lost. `each` sees all that is shown.
///
/// # Errors
/// When no master tells the rest, or the stream ends before its last event; when the operator detaches; when an output can't be
/// written.
pub(crate) async fn follow(
    ctx: &mut Ctx<'_>,
    source: &mut impl EventSource,
    events: impl Stream<Item = Result<Event, Status>>,
    interrupt: Interrupt,
    each: &mut dyn FnMut(&Event),
) -> Result<FollowedCluster, Error> {
    let follower = EventFollower {
        view: view_for(ctx),
        followed: FollowedCluster {
            board: Board::default(),
            last: None,
        },
        shown: ShownEvents::default(),
        each,
    };
    let followed = follower.drive(ctx, source, events, interrupt).await;
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
        let detail = match (ctx.quiet, &ctx.verbose) {
            (true, _) => Detail::Failures,
            (false, Some(_)) => Detail::Steps,
            (false, None) => Detail::Counts,
        };
        Box::new(Plain::new(ctx.env.offset, detail))
    }
}

/// What happens in a cluster.
pub(crate) type EventStream<'e> = Pin<Box<dyn Stream<Item = Result<Event, Status>> + 'e>>;

/// What tells the rest once a master is lost.
pub(crate) trait EventSource {
    /// How to look at what continues.
    fn goes_on(&self) -> String;
    /// What Ctrl-C may cancel; empty where it only leaves.
    fn cancels(&self) -> String;
    /// Nothing need come.
    fn is_detached(&self) -> bool;
    /// Something happened that was not shown before.
    fn came(&mut self);
    /// The master that is followed.
    fn client(&mut self) -> &mut Client;
    /// The events from now on, of the next master; `None` when there is none.
    async fn next(
        &mut self,
        ctx: &mut Ctx<'_>,
        why: &Status,
    ) -> Result<Option<EventStream<'static>>, Error>;
}

struct EventFollower<'f> {
    view: Box<dyn View>,
    followed: FollowedCluster,
    shown: ShownEvents,
    each: &'f mut dyn FnMut(&Event),
}

impl EventFollower<'_> {
    async fn drive(
        mut self,
        ctx: &mut Ctx<'_>,
        source: &mut impl EventSource,
        events: impl Stream<Item = Result<Event, Status>>,
        interrupt: Interrupt,
    ) -> Result<FollowedCluster, Error> {
        let driven = self.show_all(ctx, source, events, interrupt).await;
        let closed = self.view.close(ctx.io);
        driven?;
        closed?;
        Ok(self.followed)
    }

    async fn show_all(
        &mut self,
        ctx: &mut Ctx<'_>,
        source: &mut impl EventSource,
        events: impl Stream<Item = Result<Event, Status>>,
        mut interrupt: Interrupt,
    ) -> Result<(), Error> {
        let mut tick = tokio::time::interval(REDRAW);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events: EventStream<'_> = Box::pin(events);
        let mut printing = PrintingQuery::default();
        loop {
            let event = tokio::select! {
                () = interrupt.pressed() => {
                    self.interrupted(ctx, source, &mut interrupt).await?;
                    continue;
                }
                _ = tick.tick() => {
                    self.view.tick(aot_host::clock::unix_ms(), ctx.io)?;
                    let cluster = &self.followed.board.cluster;
                    printing.ask(source.client(), cluster, || self.view.running());
                    continue;
                }
                lines = printing.answered() => {
                    self.view.last_lines(&lines);
                    continue;
                }
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    // One without a place may be what another master said as well.
                    if event.place.is_some() {
                        source.came();
                    }
                    if self.show(ctx, event)? {
                        return Ok(());
                    }
                }
                Some(Err(status)) if may_come(&status) => {
                    self.note(ctx, LOST)?;
                    let goes_on = source.goes_on();
                    let next = tokio::select! {
                        next = source.next(ctx, &status) => next?,
                        () = interrupt.pressed() => return Err(Error::Interrupted { goes_on }),
                    };
                    events = next.ok_or_else(|| lost(Some(status), goes_on))?;
                    self.shown.come_again();
                }
                Some(Err(status)) => return Err(status.into()),
                None if source.is_detached() => return Ok(()),
                None => return Err(lost(None, source.goes_on())),
            }
        }
    }

    /// Asks whether to detach or to cancel, where something can be cancelled. No picture is drawn over the question.
    async fn interrupted(
        &mut self,
        ctx: &mut Ctx<'_>,
        source: &mut impl EventSource,
        interrupt: &mut Interrupt,
    ) -> Result<(), Error> {
        self.view.hide();
        ctx.io.stdout.flush()?;
        let (job, goes_on) = (source.cancels(), source.goes_on());
        let (client, stderr) = (Some(source.client()), &mut ctx.io.stderr);
        let said = interrupt.handle(client, &job, goes_on, stderr).await?;
        self.note(ctx, &said)
    }

    /// Shows an event; whether it was the last.
    fn show(&mut self, ctx: &mut Ctx<'_>, event: Event) -> Result<bool, Error> {
        self.followed.board.step(&event);
        if self.shown.is_new(&event) {
            self.view.show(&event, ctx.io)?;
            (self.each)(&event);
        }
        let last = event.last;
        self.followed.last = Some(event);
        Ok(last)
    }

    /// Says something between the events.
    fn note(&mut self, ctx: &mut Ctx<'_>, text: &str) -> Result<(), Error> {
        if ctx.json {
            return ctx.message(text);
        }
        let cluster = self.followed.last.as_ref().map(|it| it.cluster.clone());
        let event = Event {
            unix_ms: aot_host::clock::unix_ms(),
            cluster: cluster.unwrap_or_default(),
            event: "notice".to_owned(),
            message: text.to_owned(),
            ..Event::default()
        };
        Ok(self.view.show(&event, ctx.io)?)
    }
}

/// What was shown of a cluster. The next master begins with all instances as they are, and with how far a wait is.
#[derive(Default)]
struct ShownEvents {
    instances: HashMap<String, InstanceView>,
    progress: String,
    is_again: bool,
}

impl ShownEvents {
    fn come_again(&mut self) {
        self.is_again = true;
    }

    /// Whether an event says what was not shown; notes it as shown.
    fn is_new(&mut self, event: &Event) -> bool {
        let mut is_known = false;
        if let Some(view) = &event.view {
            let view = lasting(view);
            let before = self.instances.get(&event.instance);
            is_known = event.event == "snapshot" && before == Some(&view);
            self.instances.insert(event.instance.clone(), view);
        }
        if event.event == "wait-progress" {
            is_known = self.progress == event.message;
            self.progress.clone_from(&event.message);
        }
        event.last || !(self.is_again && is_known)
    }
}

/// Without what is another at each look.
fn lasting(view: &InstanceView) -> InstanceView {
    let mut view = InstanceView {
        last_seen_unix_ms: 0,
        connected: false,
        warning: String::new(),
        ..view.clone()
    };
    for stage in &mut view.stage_views {
        (stage.ms, stage.seconds) = (0, 0);
    }
    view
}

/// The connection to a master was lost, and with it what it had to tell.
pub(crate) fn lost(status: Option<Status>, goes_on: String) -> Error {
    Error::Lost {
        goes_on,
        source: status.map(Box::new),
    }
}

/// A status from the middle of a stream: the master's own, or a lost connection.
pub(crate) fn broken(status: Status, goes_on: String) -> Error {
    match is_broken(&status) {
        true => lost(Some(status), goes_on),
        false => status.into(),
    }
}
