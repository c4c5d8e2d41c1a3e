//! Where events of all clusters go: to whoever follows one now, and into a memory of the last ones, for whoever asks later what
//! happened. Called by the loops and, through `engines`, by the operators' service. What is remembered goes with this process.
//!
//! Each event has a number, so that whoever has lost its stream has the next one begin where that broke off: several events have
//! one millisecond, and clocks differ. Numbers count within this process, whose feed has a random number of its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use aot_model::event::Event;
use aot_model::unix_ms::UnixMs;
use aot_proto::ids::ClusterName;
use aot_proto::v1;
use prost::Message as _;
use tokio::sync::broadcast;

use super::updates::Published;

/// Events that a slow subscriber may be behind. Past it, it is given a new snapshot.
const EVENTS: usize = 8192;

/// Most events that are remembered. Past it, the oldest go.
const MOST_REMEMBERED: usize = 20_000;

/// Most bytes of them, as they go over the socket. Past it, the oldest go.
const MOST_BYTES: usize = 8 << 20;

/// The way of all events. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EventFeed(Arc<FeedState>);

struct FeedState {
    feed: u64,
    sender: broadcast::Sender<Published>,
    recent: Mutex<RecentEvents>,
}

/// What is remembered of a cluster.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remembered {
    /// In the order in which they came.
    pub events: Vec<v1::Event>,
    /// Whatever came before this is not known any more.
    pub since_ms: UnixMs,
    /// Some of what was asked for may not be known any more.
    pub is_short: bool,
    /// Of the last event so far, of whatever cluster.
    pub place: v1::EventPlace,
}

impl EventFeed {
    /// One that remembers nothing from before `now`; `feed` is random.
    pub(super) fn new(feed: u64, now: UnixMs) -> Self {
        Self(Arc::new(FeedState {
            feed,
            sender: broadcast::channel(EVENTS).0,
            recent: Mutex::new(RecentEvents {
                since_ms: now,
                ..RecentEvents::default()
            }),
        }))
    }

    /// Sends an event to those who follow, and remembers it unless it is for the followers of a job alone.
    pub(super) fn publish(&self, event: Event, now: UnixMs) {
        let (ends, aside) = (event.ends.map(|ends| ends.0), event.aside);
        let mut event = event.into_wire(now);
        // Until it is sent, nobody reads what is remembered: whoever does and follows misses nothing, and sees nothing twice.
        let mut recent = self.recent();
        if aside.is_none() {
            recent.number += 1;
            event.place = Some(self.place(recent.number));
            recent.push(slim(&event), MOST_REMEMBERED, MOST_BYTES);
        }
        if self.0.sender.receiver_count() > 0 {
            let published = Published { event, ends, aside };
            let _ = self.0.sender.send(published); // they may have left meanwhile
        }
    }

    fn place(&self, number: u64) -> v1::EventPlace {
        let feed = self.0.feed;
        v1::EventPlace { feed, number }
    }

    /// All events from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Published> {
        self.0.sender.subscribe()
    }

    /// What is remembered of a cluster and was not seen yet, and all events from now on.
    pub(super) fn subscribe_from(
        &self,
        cluster: &ClusterName,
        cursor: &v1::EventCursor,
    ) -> (Remembered, broadcast::Receiver<Published>) {
        let recent = self.recent();
        let seen = cursor.seen.iter().filter(|it| it.feed == self.0.feed);
        let seen = seen.map(|it| it.number).max();
        let is_next = |event: &v1::Event| match seen {
            Some(seen) => number(event) > seen,
            None => cursor
                .since_unix_ms
                .is_some_and(|since| event.unix_ms >= since),
        };
        let fits = |event: &&v1::Event| event.cluster == cluster.as_str() && is_next(event);
        let remembered = Remembered {
            events: recent.events.iter().filter(fits).cloned().collect(),
            since_ms: recent.since_ms,
            is_short: match seen {
                Some(seen) => seen < recent.forgotten,
                None => cursor
                    .since_unix_ms
                    .is_some_and(|since| since > 0 && since < recent.since_ms),
            },
            place: self.place(recent.number),
        };
        (remembered, self.subscribe())
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, RecentEvents> {
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event as it is remembered: of its instance only what is shown with an event, and never as the last of a stream.
fn slim(event: &v1::Event) -> v1::Event {
    let view = event.view.as_ref().map(|view| v1::InstanceView {
        cluster: view.cluster.clone(),
        name: view.name.clone(),
        machine_id: view.machine_id.clone(),
        stage: view.stage,
        stages: view.stages,
        state: view.state,
        phase: view.phase,
        ..v1::InstanceView::default()
    });
    v1::Event {
        unix_ms: event.unix_ms,
        cluster: event.cluster.clone(),
        instance: event.instance.clone(),
        event: event.event.clone(),
        message: event.message.clone(),
        fields_json: event.fields_json.clone(),
        view,
        last: false,
        exit_code: 0,
        place: event.place,
    }
}

fn number(event: &v1::Event) -> u64 {
    event.place.map_or(0, |place| place.number)
}

#[derive(Debug, Default)]
struct RecentEvents {
    events: VecDeque<v1::Event>,
    bytes: usize,
    since_ms: UnixMs,
    /// Of the last one.
    number: u64,
    /// Of the last one that is not remembered any more.
    forgotten: u64,
}

impl RecentEvents {
    fn push(&mut self, event: v1::Event, most: usize, most_bytes: usize) {
        self.bytes += event.encoded_len();
        self.events.push_back(event);
        while self.events.len() > most || self.bytes > most_bytes {
            let Some(oldest) = self.events.pop_front() else {
                return;
            };
            self.bytes -= oldest.encoded_len();
            self.since_ms = self.since_ms.max(oldest.unix_ms + 1);
            self.forgotten = number(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ClusterName {
        text.parse().expect("a name")
    }

    fn since(since: UnixMs) -> v1::EventCursor {
        v1::EventCursor {
            seen: Vec::new(),
            since_unix_ms: Some(since),
        }
    }

    fn messages(remembered: &Remembered) -> Vec<&str> {
        let events = remembered.events.iter();
        events.map(|event| event.message.as_str()).collect()
    }

    #[test]
    fn what_happened_is_remembered_by_cluster_and_time() {
        let feed = EventFeed::new(7, 5);
        for (cluster, text, now) in [("a", "one", 10), ("b", "other", 11), ("a", "two", 12)] {
            feed.publish(Event::cluster(&name(cluster), "notice", text), now);
        }
        let aside = Event {
            aside: Some(aot_proto::ids::JobId::from_parts(1, 1)),
            ..Event::cluster(&name("a"), "receipt", "for one job")
        };
        feed.publish(aside, 13);
        let from = |cluster, ms| feed.subscribe_from(&name(cluster), &since(ms)).0;
        let all = from("a", 0);
        assert_eq!(messages(&all), ["one", "two"]);
        assert_eq!(all.since_ms, 5);
        assert_eq!(messages(&from("a", 11)), ["two"]);
        assert_eq!(messages(&from("c", 0)), [""; 0]);
        let is_short = [0, 4, 5].map(|ms| from("a", ms).is_short);
        assert_eq!(is_short, [false, true, false]);
    }

    #[test]
    fn what_has_one_time_is_sent_from_where_the_last_stream_broke_off() {
        let feed = EventFeed::new(7, 5);
        let publish = |cluster: &str, text: &str| {
            feed.publish(Event::cluster(&name(cluster), "notice", text), 10);
        };
        publish("a", "one");
        publish("b", "other");
        let (_, mut live) = feed.subscribe_from(&name("a"), &since(10));
        publish("a", "two");
        publish("a", "three");
        let two = live.try_recv().expect("it was published").event;
        assert_eq!(two.message, "two");
        let mut cursor = v1::EventCursor {
            seen: vec![two.place.expect("it has one")],
            since_unix_ms: Some(0),
        };
        let of = |cursor: &v1::EventCursor| feed.subscribe_from(&name("a"), cursor).0;
        let next = of(&cursor);
        assert_eq!((messages(&next), next.is_short), (vec!["three"], false));
        // All up to the last: nothing but what comes.
        cursor.seen.push(next.place);
        assert_eq!(messages(&of(&cursor)), [""; 0]);
        // Another process has a feed of its own: its numbers say nothing of these.
        let other = v1::EventPlace {
            feed: 8,
            number: 100,
        };
        cursor.seen = vec![other];
        assert_eq!(messages(&of(&cursor)), ["one", "two", "three"]);
        for since in [Some(11), None] {
            cursor.since_unix_ms = since;
            assert_eq!(messages(&of(&cursor)), [""; 0]);
        }
    }

    #[test]
    fn what_was_not_seen_and_is_forgotten_is_known_to_be_missing() {
        let feed = EventFeed::new(7, 0);
        let long = "x".repeat(MOST_BYTES / 2);
        for now in 1..=4 {
            feed.publish(Event::cluster(&name("a"), "notice", long.clone()), now);
        }
        for (number, is_short) in [(1, true), (2, true), (3, false), (4, false)] {
            let cursor = v1::EventCursor {
                seen: vec![v1::EventPlace { feed: 7, number }],
                since_unix_ms: None,
            };
            let remembered = feed.subscribe_from(&name("a"), &cursor).0;
            assert_eq!(remembered.is_short, is_short, "{number}");
        }
    }

    #[tokio::test]
    async fn whoever_follows_from_then_on_sees_each_event_once() {
        let feed = EventFeed::new(7, 0);
        let event = |number: u64| Event::cluster(&name("a"), "notice", number.to_string());
        let publisher = {
            let feed = feed.clone();
            std::thread::spawn(move || {
                for number in 0..2_000 {
                    feed.publish(event(number), number);
                }
            })
        };
        let (remembered, mut live) = feed.subscribe_from(&name("a"), &since(0));
        publisher.join().expect("it ends");
        let mut seen: Vec<String> = remembered.events.into_iter().map(|it| it.message).collect();
        while let Ok(published) = live.try_recv() {
            seen.push(published.event.message);
        }
        let all: Vec<String> = (0..2_000).map(|number: u64| number.to_string()).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn what_is_remembered_is_bounded_by_count_and_by_bytes() {
        let mut recent = RecentEvents::default();
        let event = |number: u64, bytes: usize| v1::Event {
            unix_ms: number,
            message: "x".repeat(bytes),
            ..v1::Event::default()
        };
        for number in 1..=10 {
            recent.push(event(number, 1), 4, 1 << 20);
        }
        let times = |recent: &RecentEvents| -> Vec<u64> {
            recent.events.iter().map(|event| event.unix_ms).collect()
        };
        assert_eq!(times(&recent), [7, 8, 9, 10]);
        assert_eq!(recent.since_ms, 7);
        recent.push(event(11, 900), 4, 1_000);
        assert_eq!(times(&recent), [8, 9, 10, 11]);
        recent.push(event(12, 500), 4, 1_000);
        assert_eq!(times(&recent), [12]);
        // One that is too long by itself is not kept either.
        recent.push(event(13, 5_000), 4, 1_000);
        assert_eq!((times(&recent), recent.bytes), (vec![], 0));
        assert_eq!(recent.since_ms, 14);
    }

    #[test]
    fn of_an_instance_only_what_an_event_shows_is_remembered() {
        let event = Event {
            instance: Some("web1".parse().expect("a name")),
            view: Some(v1::InstanceView {
                name: "web1".to_owned(),
                machine_id: "i-1".to_owned(),
                properties_json: "x".repeat(10_000),
                explanation: "x".repeat(10_000),
                phase: v1::Phase::Ready.into(),
                ..v1::InstanceView::default()
            }),
            ends: Some((aot_proto::ids::JobId::from_parts(1, 1), 1)),
            ..Event::cluster(&name("a"), "instance-ready", "")
        };
        let kept = slim(&event.into_wire(3));
        assert!(kept.encoded_len() < 100, "{kept:?}");
        let view = kept.view.expect("a view");
        assert_eq!((view.phase(), &*view.machine_id), (v1::Phase::Ready, "i-1"));
        assert!(!kept.last && kept.exit_code == 0 && kept.instance == "web1");
    }
}
