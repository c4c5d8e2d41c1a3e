//! What happened, and what happens.

use aot_proto::v1::EventPlace;

use super::again::gone;
use super::*;
use crate::again::LOST;

fn happened(number: u64, instance: &str, kind: &str, fields: &str) -> Event {
    Event {
        unix_ms: 1_767_225_784_000 + number * 1000,
        cluster: "hadoop".into(),
        instance: instance.into(),
        event: kind.into(),
        fields_json: fields.into(),
        ..Event::default()
    }
}

fn some() -> Vec<Event> {
    let failed = r#"{"stage":1,"name":"setup","outcome":"failed","exit_code":3,"seconds":2.5,"tail":["no disk"]}"#;
    vec![
        happened(0, "web1", "agent-connected", ""),
        happened(1, "web1", "stage-ended", failed),
    ]
}

fn end() -> Event {
    Event {
        message: "nothing is left of it".into(),
        last: true,
        ..happened(2, "", "cluster-gone", "")
    }
}

#[tokio::test]
async fn what_happened_is_a_line_an_event_on_standard_output() {
    let fake = Fake::start(Script {
        rest: some(),
        ..Script::default()
    });
    let ran = run(&fake, &["events", "--quiet"]).await;
    assert_eq!((ran.exit, &*ran.err), (Exit::Well, ""));
    insta::assert_snapshot!("events", ran.out);
    let ran = run(
        &fake,
        &["--json", "events", "--since", "1970-01-01 00:00:01"],
    )
    .await;
    insta::assert_snapshot!("events_json", ran.out);
    let asked = fake.asked();
    assert!(asked[0].contains("since_unix_ms: Some(0)"), "{asked:?}");
    assert!(asked[0].contains("remembered_only: true"), "{asked:?}");
    assert!(asked[1].contains("since_unix_ms: Some(1000)"), "{asked:?}");
}

#[tokio::test]
async fn following_ends_with_the_cluster_and_nothing_else() {
    let fake = Fake::start(Script {
        rest: [some(), vec![end()]].concat(),
        ..Script::default()
    });
    let ran = run(&fake, &["events", "-f"]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    assert!(
        ran.out.ends_with("hadoop nothing is left of it\n"),
        "{}",
        ran.out
    );
    let cut = Fake::start(Script {
        rest: some(),
        ..Script::default()
    });
    let ran = run(&cut, &["events", "-f"]).await;
    assert_eq!(ran.exit, Exit::Unreachable, "{}", ran.out);
}

#[tokio::test]
async fn the_next_master_is_asked_for_what_comes_after_what_was_shown() {
    let fake = Fake::start(Script {
        rest: [some(), vec![end()]].concat(),
        breaks: vec![(1, gone())],
        ..Script::default()
    });
    let ran = run(&fake, &["events", "-f", "--json"]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    assert_eq!(ran.err.matches(LOST).count(), 1, "{}", ran.err);
    let asked = fake.asked();
    assert!(asked[0].contains("since_unix_ms: None"), "{asked:?}");
    let after = format!("since_unix_ms: Some({})", 1_767_225_784_001_u64);
    assert!(asked[1].contains(&after), "{asked:?}");
}

#[tokio::test]
async fn the_next_stream_begins_at_the_place_where_the_last_one_broke_off() {
    let place = |feed, number| Some(EventPlace { feed, number });
    // Two events of one millisecond, of which the first was shown; before that, that all up to it were.
    let mut all = vec![happened(0, "", "", "")];
    all[0].place = place(7, 40);
    for (number, event) in (41..).zip(some()) {
        all.push(Event {
            unix_ms: all[0].unix_ms,
            place: place(7, number),
            ..event
        });
    }
    all.push(Event {
        place: place(9, 3),
        ..end()
    });
    let fake = Fake::start(Script {
        rest: all,
        breaks: vec![(1, gone()), (2, gone()), (3, gone())],
        ..Script::default()
    });
    let ran = run(&fake, &["events", "-f", "--json"]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    // What has a place alone is not shown. The rest is sent again and again here, whatever is asked for.
    assert_eq!(ran.out.lines().count(), 1 + 2 + 3, "{}", ran.out);
    let seen = |feed: u64, number: u64| format!("EventPlace {{ feed: {feed}, number: {number} }}");
    let asked = fake.asked();
    assert!(asked[0].contains("seen: []"), "{asked:?}");
    let since = "since_unix_ms: Some(1767225784000) })";
    for (asked, number) in asked[1..].iter().zip([40, 41, 42]) {
        assert!(asked.contains(&seen(7, number)), "{asked}");
        assert!(asked.contains(since), "{asked}");
    }
}

#[tokio::test]
async fn any_number_of_masters_may_end_as_long_as_something_comes_of_each() {
    let breaks = |told| (0..25).map(move |_| (told, gone()));
    let fake = Fake::start(Script {
        rest: [some(), vec![end()]].concat(),
        breaks: breaks(1).collect(),
        ..Script::default()
    });
    let ran = run(&fake, &["events", "-f", "--json"]).await;
    assert_eq!(ran.exit, Exit::Well, "{}", ran.err);
    assert_eq!(fake.asked().len(), 26);
    // Where nothing does, it is given up.
    let fake = Fake::start(Script {
        rest: [some(), vec![end()]].concat(),
        breaks: breaks(0).collect(),
        ..Script::default()
    });
    let ran = run(&fake, &["events", "-f", "--json"]).await;
    assert_eq!(ran.exit, Exit::Unreachable, "{}", ran.out);
    assert_eq!(fake.asked().len(), 21);
}
