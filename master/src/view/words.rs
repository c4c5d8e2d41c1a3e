//! Events, numbers and times in words. Pure.

use std::collections::BTreeMap;

use aot_proto::v1::{Event, InstanceView};
use serde_json::{Map, Value};
use time::{OffsetDateTime, UtcOffset};

/// The event's own fields; empty when they are no JSON object.
pub fn fields_of(event: &Event) -> Map<String, Value> {
    serde_json::from_str(&event.fields_json).unwrap_or_default()
}

/// `0.8 ms`, `3.2 s`, `41 s`, `12m05s`, `3h10m`.
pub fn seconds(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let whole = seconds.round() as u64;
    if seconds < 0.00995 {
        format!("{:.1} ms", seconds * 1000.0)
    } else if seconds < 0.9995 {
        format!("{:.0} ms", seconds * 1000.0)
    } else if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if whole < 120 {
        format!("{whole} s")
    } else if whole < 3600 {
        format!("{}m{:02}s", whole / 60, whole % 60)
    } else {
        format!("{}h{:02}m", whole / 3600, whole / 60 % 60)
    }
}

/// `512 B`, `1.5 KiB`, `12.3 MiB`, `100 GiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let places = usize::from(value < 99.95);
    format!("{value:.places$} {}", UNITS[unit])
}

/// The time of day, `12:03:04`, `offset` away from UTC; `12:03:04Z` in UTC itself.
pub fn clock(unix_ms: u64, offset: UtcOffset) -> String {
    let stamp = i64::try_from(unix_ms / 1000)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        .to_offset(offset);
    let zone = if offset.is_utc() { "Z" } else { "" };
    format!(
        "{:02}:{:02}:{:02}{zone}",
        stamp.hour(),
        stamp.minute(),
        stamp.second()
    )
}

/// `4 ready, 1 failed`, the biggest first; nothing for an empty map.
pub fn count_words<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> String {
    let mut merged: BTreeMap<&str, u64> = BTreeMap::new();
    for (word, count) in counts {
        *merged.entry(word).or_default() += count;
    }
    let mut pairs: Vec<_> = merged.into_iter().filter(|(_, count)| *count > 0).collect();
    pairs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let words: Vec<String> = pairs
        .iter()
        .map(|(word, count)| format!("{count} {}", word.replace('_', " ")))
        .collect();
    words.join(", ")
}

/// `2 security groups, 1 address`: kinds of things, the most first; nothing for none.
pub fn count_things<'a>(kinds: impl IntoIterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for kind in kinds {
        *counts.entry(kind).or_default() += 1;
    }
    let mut pairs: Vec<_> = counts.into_iter().collect();
    pairs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let words: Vec<String> = pairs
        .iter()
        .map(|(kind, count)| {
            let ending = match (count, kind.ends_with('s')) {
                (1, _) => "",
                (_, true) => "es",
                (_, false) => "s",
            };
            format!("{count} {}{ending}", kind.replace('-', " "))
        })
        .collect();
    words.join(", ")
}

/// The public value, or the private one; `None` when there is neither.
pub fn places<'a>(public: &'a str, private: &'a str) -> Option<&'a str> {
    [public, private].into_iter().find(|text| !text.is_empty())
}

/// `stage 1 (hadoop)`; from the event's fields, else from its view.
fn stage_of(fields: &Map<String, Value>, view: Option<&InstanceView>) -> String {
    let index = fields
        .get("stage")
        .and_then(Value::as_u64)
        .or(view.map(|v| u64::from(v.stage)));
    let name = fields
        .get("name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match (index, name) {
        (Some(index), "") => format!("stage {index}"),
        (Some(index), name) => format!("stage {index} ({name})"),
        (None, "") => "a stage".to_owned(),
        (None, name) => format!("stage {name}"),
    }
}

/// How something ended that did not succeed: `failed with exit code 17`, `timed out`.
pub fn outcome_words(outcome: &str, exit_code: Option<i64>) -> String {
    match (outcome, exit_code) {
        ("failed" | "", Some(code)) => format!("failed with exit code {code}"),
        ("" | "failed", None) => "failed".to_owned(),
        ("succeeded", _) => "ended ok".to_owned(),
        ("lost_contact", _) => "lost contact".to_owned(),
        (other, _) => other.replace('_', " "),
    }
}

/// One event as a sentence without its subject and without a full stop.
pub fn sentence(event: &Event) -> String {
    let fields = fields_of(event);
    let stage = || stage_of(&fields, event.view.as_ref());
    let with_message = |text: String| match event.message.as_str() {
        "" => text,
        message => format!("{text}: {message}"),
    };
    match event.event.as_str() {
        "stage-started" => match fields.get("attempt").and_then(Value::as_u64) {
            Some(attempt) if attempt > 1 => format!("{} started, attempt {attempt}", stage()),
            _ => format!("{} started", stage()),
        },
        "stage-ended" => stage_ended(event, &fields),
        "stage-skipped" if event.message.is_empty() => {
            format!("{} skipped: nothing in it changed", stage())
        }
        "stage-skipped" => with_message(format!("{} skipped", stage())),
        "stage-interrupted" => with_message(format!("{} interrupted", stage())),
        "instance-rebooting" => with_message("rebooting".to_owned()),
        "boot-failed" => with_message("boot failed".to_owned()),
        "instance-failed" => with_message("failed".to_owned()),
        "instance-ready" if event.message.is_empty() => "ready".to_owned(),
        _ if !event.message.is_empty() => event.message.clone(),
        other => other
            .strip_prefix("instance-")
            .unwrap_or(other)
            .replace('-', " "),
    }
}

fn stage_ended(event: &Event, fields: &Map<String, Value>) -> String {
    let stage = stage_of(fields, event.view.as_ref());
    let outcome = fields
        .get("outcome")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let exit_code = fields.get("exit_code").and_then(Value::as_i64);
    let took = fields.get("seconds").and_then(Value::as_f64).map(seconds);
    if outcome == "succeeded" || (outcome.is_empty() && exit_code == Some(0)) {
        return match took {
            Some(took) => format!("{stage} ended ok in {took}"),
            None => format!("{stage} ended ok"),
        };
    }
    let mut text = format!("{stage} {}", outcome_words(outcome, exit_code));
    if let Some(took) = took {
        text.push_str(&format!(" after {took}"));
    }
    if !event.message.is_empty() {
        text.push_str(&format!(": {}", event.message));
    }
    text
}

/// Where to look when this event is bad news about an instance; `None` for any other.
pub fn where_to_look(event: &Event) -> Option<String> {
    let fields = fields_of(event);
    let failed = event.event == "stage-ended"
        && fields
            .get("outcome")
            .and_then(Value::as_str)
            .is_some_and(|outcome| outcome != "succeeded");
    let stage = fields.get("stage").and_then(Value::as_u64)?;
    failed.then(|| format!("see: aot-master logs {} --stage {stage}", event.instance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_keep_two_figures() {
        for (given, want) in [
            (0.0008, "0.8 ms"),
            (0.25, "250 ms"),
            (3.21, "3.2 s"),
            (9.97, "10 s"),
            (41.2, "41 s"),
            (725.0, "12m05s"),
            (11_400.0, "3h10m"),
            (-1.0, "0.0 ms"),
        ] {
            assert_eq!(seconds(given), want, "{given}");
        }
    }

    #[test]
    fn bytes_keep_three_figures() {
        for (given, want) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (12_900_000, "12.3 MiB"),
            (100 << 30, "100 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(bytes(given), want, "{given}");
        }
    }

    #[test]
    fn the_clock_follows_the_offset() {
        let ms = 1_767_225_784_000; // 2026-01-01T00:03:04Z
        assert_eq!(clock(ms, UtcOffset::UTC), "00:03:04Z");
        assert_eq!(
            clock(ms, UtcOffset::from_hms(-5, 0, 0).expect("in range")),
            "19:03:04"
        );
    }

    #[test]
    fn counts_are_sorted_and_zeros_left_out() {
        assert_eq!(
            count_words([("failed", 1), ("ready", 3), ("gone", 0), ("ready", 1)]),
            "4 ready, 1 failed"
        );
        assert_eq!(count_words([("timed_out", 2)]), "2 timed out");
        assert_eq!(count_words([]), "");
    }

    #[test]
    fn things_are_counted_as_people_do() {
        let kinds = [
            "rule",
            "address",
            "security-group",
            "rule",
            "address",
            "rule",
        ];
        assert_eq!(
            count_things(kinds),
            "3 rules, 2 addresses, 1 security group"
        );
        assert_eq!(count_things([]), "");
    }

    #[test]
    fn every_event_has_its_sentence() {
        let table = [
            (
                "stage-started",
                r#"{"stage":0,"name":"prereq","attempt":1}"#,
                "",
                "stage 0 (prereq) started",
            ),
            (
                "stage-started",
                r#"{"stage":0,"attempt":2}"#,
                "",
                "stage 0 started, attempt 2",
            ),
            (
                "stage-ended",
                r#"{"stage":0,"name":"prereq","outcome":"succeeded","exit_code":0,"seconds":3.21}"#,
                "",
                "stage 0 (prereq) ended ok in 3.2 s",
            ),
            (
                "stage-ended",
                r#"{"stage":1,"name":"node","outcome":"failed","exit_code":17,"seconds":41}"#,
                "",
                "stage 1 (node) failed with exit code 17 after 41 s",
            ),
            (
                "stage-ended",
                r#"{"stage":1,"outcome":"timed_out","seconds":60}"#,
                "no output",
                "stage 1 timed out after 60 s: no output",
            ),
            (
                "stage-skipped",
                r#"{"stage":1}"#,
                "",
                "stage 1 skipped: nothing in it changed",
            ),
            (
                "stage-interrupted",
                r#"{"stage":1}"#,
                "the machine rebooted",
                "stage 1 interrupted: the machine rebooted",
            ),
            ("instance-requested", "", "", "requested"),
            (
                "instance-launched",
                "",
                "launched as i-1",
                "launched as i-1",
            ),
            ("instance-failed", "", "no capacity", "failed: no capacity"),
            (
                "cluster-facts-applied",
                "not json",
                "",
                "cluster facts applied",
            ),
        ];
        for (event, fields, message, want) in table {
            let event = Event {
                event: event.into(),
                fields_json: fields.into(),
                message: message.into(),
                ..Event::default()
            };
            assert_eq!(sentence(&event), want);
        }
    }

    #[test]
    fn only_a_failed_stage_says_where_to_look() {
        let event = |outcome: &str| Event {
            instance: "web1".into(),
            event: "stage-ended".into(),
            fields_json: format!(r#"{{"stage":2,"outcome":"{outcome}"}}"#),
            ..Event::default()
        };
        assert_eq!(
            where_to_look(&event("failed")).as_deref(),
            Some("see: aot-master logs web1 --stage 2")
        );
        assert_eq!(where_to_look(&event("succeeded")), None);
    }
}
