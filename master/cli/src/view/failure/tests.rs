//! Tests of failures in words.

use super::*;

fn ended(fields: &str) -> Event {
    Event {
        instance: "web1".into(),
        event: "stage-ended".into(),
        fields_json: fields.into(),
        ..Event::default()
    }
}

fn of(fields: &str) -> (InstanceFailure, String) {
    InstanceFailure::of_event(&ended(fields)).expect("a failure")
}

#[test]
fn every_end_that_is_not_well_has_its_words() {
    for (fields, want) in [
        (
            r#"{"stage":1,"name":"mount","outcome":"failed","exit_code":17,"seconds":4.0}"#,
            "failed in mount (exit 17, 4.0 s)",
        ),
        (
            r#"{"stage":1,"outcome":"failed","exit_code":null}"#,
            "failed in stage 2",
        ),
        (
            r#"{"stage":0,"name":"x","outcome":"timed_out","seconds":6,"detail":"it printed nothing for too long"}"#,
            "timed out in x (6.0 s): it printed nothing for too long",
        ),
        (
            r#"{"stage":0,"name":"x","outcome":"rejected","detail":"no room"}"#,
            "was rejected in x: no room",
        ),
        (
            r#"{"stage":0,"name":"x","outcome":"of_tomorrow"}"#,
            "of tomorrow in x",
        ),
    ] {
        let (failure, took) = of(fields);
        assert_eq!(failure.said(&took), want);
    }
    assert!(InstanceFailure::of_event(&ended(r#"{"stage":0,"outcome":"succeeded"}"#)).is_none());
    let mut meaning = ended(r#"{"stage":0}"#);
    meaning.event = "instance-failed".into();
    assert!(
        InstanceFailure::of_event(&meaning).is_none(),
        "the end of its stage was said"
    );
    meaning.fields_json.clear();
    meaning.message = "no capacity".into();
    let (failure, _) = InstanceFailure::of_event(&meaning).expect("a failure");
    assert_eq!(failure.line(""), "failed: no capacity");
}

#[test]
fn what_was_printed_last_stands_below_errors_first_and_one_line_behind() {
    let plain = Style::default();
    let one = of(r#"{"stage":0,"name":"mount","outcome":"failed","exit_code":17,"tail":["no disk"],"tail_stderr":1}"#).0;
    assert_eq!(
        one.lines("web[1-4]", "", "web1", plain),
        [
            "web[1-4] failed in mount (exit 17): ! no disk",
            "  see: aot-master logs web1 --stage mount"
        ]
    );
    let many = of(r#"{"stage":0,"name":"my mount","outcome":"failed","exit_code":17,"tail":["why\nnot","no disk","began"],"tail_stderr":2}"#).0;
    assert_eq!(
        many.lines("web1", "1.0 s", "web1", plain).join("\n"),
        "web1 failed in my mount (exit 17, 1.0 s)\n  ! why not\n  ! no disk\n  | began\n  see: aot-master logs web1 --stage 0"
    );
    assert_eq!(
        many.line(""),
        "failed in my mount (exit 17): ! no disk",
        "the last of the errors"
    );
    assert_eq!(
        many.clone().without_lines().line(""),
        "failed in my mount (exit 17)"
    );
}

#[test]
fn a_view_says_the_same_as_the_event() {
    let mut view = crate::view::samples::view("web1", "failed", &["failed"]);
    view.stage_views[0].tail = vec!["no disk".into()];
    view.stage_views[0].tail_stderr = 1;
    let (of_view, took) = InstanceFailure::of_view(&view).expect("a failure");
    let (of_event, _) = of(
        r#"{"stage":0,"name":"bundle-0","outcome":"failed","exit_code":17,"tail":["no disk"],"tail_stderr":1}"#,
    );
    assert_eq!((of_view, &*took), (of_event, "3.0 s"));
    let ready = crate::view::samples::view("web1", "ready", &["succeeded"]);
    assert!(InstanceFailure::of_view(&ready).is_none());
}
