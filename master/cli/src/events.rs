//! `events`: what happened in a cluster, as far as its master remembers, and what happens.

use std::io::Write as _;

use aot_proto::v1::{Event, EventCursor, EventPlace, WatchRequest};
use tonic::{Status, Streaming};

use super::Ctx;
use super::again::{Again, LOST, may_come};
use super::args::EventsArgs;
use super::connect::{Start, connect};
use super::error::{Error, Exit};
use super::follow_cluster::{broken, ctrl_c, lost};
use crate::view::{event_json, event_line};

/// What is said when this ends before the cluster does.
const GOES_ON: &str = "what happens in the cluster does not depend on this";

/// Shows events on standard output, a line each.
///
/// # Errors
/// When the cluster is not known, the master can't be asked or followed, or on Ctrl-C.
pub(crate) async fn events(ctx: &mut Ctx<'_>, args: &EventsArgs) -> Result<Exit, Error> {
    let client = connect(ctx, Start::WithState).await?;
    let mut source = RecalledEvents {
        request: request(ctx.cluster.clone(), args, aot_host::clock::unix_ms()),
        again: Again::new(ctx, client, Start::WithState),
    };
    let events = source.ask().await?;
    follow(ctx, &mut source, events, ctrl_c()).await
}

/// With `-f` alone, nothing of what was.
fn request(cluster: Option<String>, args: &EventsArgs, now_ms: u64) -> WatchRequest {
    let since = args.since.map(|since| since.unix_ms(now_ms));
    WatchRequest {
        cluster,
        since_unix_ms: since.or((!args.follow).then_some(0)),
        remembered_only: !args.follow,
        cursor: args.follow.then(|| EventCursor {
            seen: Vec::new(),
            since_unix_ms: since,
        }),
        ..WatchRequest::default()
    }
}

/// Most feeds of which it is remembered how far they were seen: each start of a master is one.
const FEEDS: usize = 64;

/// Where events come from, and how to have the next ones.
struct RecalledEvents {
    request: WatchRequest,
    again: Again,
}

impl RecalledEvents {
    async fn ask(&mut self) -> Result<Streaming<Event>, Status> {
        let request = self.request.clone();
        Ok(self.again.client().watch(request).await?.into_inner())
    }

    /// From now on only what comes after this; of masters that have shown nothing yet, what they remember since this began.
    fn note(&mut self, event: &Event) {
        // An older master knows no places, and goes by this.
        let seen = self.request.since_unix_ms.unwrap_or_default();
        if !event.event.is_empty() {
            self.request.since_unix_ms = Some(seen.max(event.unix_ms.saturating_add(1)));
        }
        let (Some(cursor), Some(place)) = (&mut self.request.cursor, event.place) else {
            return;
        };
        cursor.since_unix_ms.get_or_insert(event.unix_ms);
        let known = cursor.seen.iter().position(|it| it.feed == place.feed);
        let before = known.map_or(0, |index| cursor.seen.remove(index).number);
        if cursor.seen.len() == FEEDS {
            cursor.seen.remove(0); // the one that nothing was heard of for longest
        }
        cursor.seen.push(EventPlace {
            number: place.number.max(before),
            ..place
        });
    }

    /// Those of the next master; `None` when there is none in time.
    async fn next(&mut self, ctx: &mut Ctx<'_>, why: &Status) -> Option<Streaming<Event>> {
        if !self.again.broke(ctx, Some(why)) {
            return None;
        }
        loop {
            self.again.next(ctx).await?;
            match self.ask().await {
                Ok(events) => return Some(events),
                Err(status) if self.again.may_pass(&status).await => {}
                Err(_) => return None,
            }
        }
    }
}

async fn follow(
    ctx: &mut Ctx<'_>,
    source: &mut RecalledEvents,
    mut events: Streaming<Event>,
    interrupt: impl Future<Output = ()>,
) -> Result<Exit, Error> {
    let interrupted = || Error::Interrupted {
        goes_on: GOES_ON.to_owned(),
    };
    futures::pin_mut!(interrupt);
    loop {
        let event = tokio::select! {
            () = &mut interrupt => return Err(interrupted()),
            event = events.message() => event,
        };
        match event {
            Ok(Some(event)) => {
                source.note(&event);
                if event.event.is_empty() {
                    continue; // it has a place alone
                }
                source.again.came();
                show(ctx, &event)?;
                if event.last {
                    return Ok(Exit::from_wire(event.exit_code));
                }
            }
            Ok(None) if source.request.remembered_only => return Ok(Exit::Well),
            Ok(None) => return Err(lost(None, GOES_ON.to_owned())),
            Err(status) if may_come(&status) => {
                ctx.message(LOST)?;
                let next = tokio::select! {
                    next = source.next(ctx, &status) => next,
                    () = &mut interrupt => return Err(interrupted()),
                };
                events = next.ok_or_else(|| lost(Some(status), GOES_ON.to_owned()))?;
            }
            Err(status) => return Err(broken(status, GOES_ON.to_owned())),
        }
    }
}

fn show(ctx: &mut Ctx<'_>, event: &Event) -> Result<(), Error> {
    if ctx.json {
        ctx.print(&event_json(event).to_string())?;
    } else if let Some(line) = event_line(event, ctx.env.offset) {
        ctx.print(&line)?;
    }
    // Whoever follows reads it now.
    Ok(ctx.io.stdout.flush()?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::args::{Command, SinceWhen};

    fn args(words: &str) -> EventsArgs {
        let words = ["aot-master", "events"]
            .into_iter()
            .chain(words.split_whitespace());
        match crate::parse(words.map(Into::into)).map(|cli| cli.command) {
            Ok(Command::Events(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_is_asked_for_unless_it_is_only_followed() {
        let now_ms = 100_000_000;
        for (words, since, remembered_only) in [
            ("", Some(0), true),
            ("-f", None, false),
            ("--since 10s", Some(99_990_000), true),
            ("-f --since 1970-01-02T00:00:00Z", Some(86_400_000), false),
            ("-f --since 1970-01-02T00:00:01.5", Some(86_401_500), false),
        ] {
            let request = request(None, &args(words), now_ms);
            assert_eq!(request.since_unix_ms, since, "{words}");
            assert_eq!(request.remembered_only, remembered_only, "{words}");
            assert_eq!(request.cursor.is_some(), !remembered_only, "{words}");
            let cursor = request.cursor.unwrap_or_default();
            let since = since.filter(|_| !remembered_only);
            assert_eq!(cursor.since_unix_ms, since, "{words}");
        }
        let long = SinceWhen::Ago(Duration::from_secs(u64::MAX));
        assert_eq!(long.unix_ms(now_ms), 0, "not before 1970");
        for bad in ["yesterday", "10", ""] {
            let words = ["aot-master", "events", "--since", bad];
            let refused = crate::parse(words.map(Into::into)).expect_err(bad);
            assert!(refused.to_string().contains("time in UTC"), "{refused}");
        }
    }
}
