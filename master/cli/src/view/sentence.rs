//! Events and stages in words: what happened, how it ended, where to read more. Pure; used by the views of a launch and by
//! tables of stages.

use aot_proto::v1::{Event, InstanceView, StageOutcome};
use serde_json::{Map, Value};

use super::format::seconds;

/// The event's own fields; empty when they are no JSON object.
pub(crate) fn fields_of(event: &Event) -> Map<String, Value> {
    serde_json::from_str(&event.fields_json).unwrap_or_default()
}

/// `peers (2 of 3)`: the one way to say which stage.
pub(super) fn stage_position(name: &str, index: u64, count: u64) -> String {
    let place = format!("{} of {}", index + 1, count.max(index + 1));
    match name {
        "" => place,
        name => format!("{name} ({place})"),
    }
}

/// `stage peers`; from the event's fields, else from its view.
fn stage_of(fields: &Map<String, Value>, view: Option<&InstanceView>) -> String {
    let (name, index, _) = stage_fields(fields, view);
    match (name, index) {
        ("", Some(index)) => format!("stage {}", index + 1),
        ("", None) => "a stage".to_owned(),
        (name, _) => format!("stage {name}"),
    }
}

/// Name, index and count.
fn stage_fields<'a>(
    fields: &'a Map<String, Value>,
    view: Option<&InstanceView>,
) -> (&'a str, Option<u64>, Option<u64>) {
    let number = |key: &str| fields.get(key).and_then(Value::as_u64);
    let name = fields.get("name").and_then(Value::as_str);
    (
        name.unwrap_or_default(),
        number("stage").or(view.map(|view| u64::from(view.stage))),
        number("stages").or(view.map(|view| u64::from(view.stages))),
    )
}

/// `stage peers (2 of 3)`.
fn stage_and_position(fields: &Map<String, Value>, view: Option<&InstanceView>) -> String {
    match stage_fields(fields, view) {
        (name, Some(index), Some(count)) if count > 0 => {
            format!("stage {}", stage_position(name, index, count))
        }
        _ => stage_of(fields, view),
    }
}

/// How a try of a stage ended: `failed (exit 17, 1 ms)`, `timed out after 6.0 s: it printed nothing for too long`. `took`
/// is empty where that is not known.
pub(super) fn stage_outcome_text(
    outcome: i32,
    exit_code: Option<i64>,
    took: &str,
    detail: &str,
) -> String {
    let after = |word: &str| match took {
        "" => word.to_owned(),
        took => format!("{word} after {took}"),
    };
    let said = match (StageOutcome::try_from(outcome), exit_code) {
        (Ok(StageOutcome::Succeeded), _) | (Ok(StageOutcome::Unspecified), Some(0)) => match took {
            "" => "ended ok".to_owned(),
            took => format!("ended ok in {took}"),
        },
        (Ok(StageOutcome::Failed | StageOutcome::Unspecified), code) => {
            let parts = [
                code.map_or_else(String::new, |code| format!("exit {code}")),
                took.to_owned(),
            ];
            let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            match parts.is_empty() {
                true => "failed".to_owned(),
                false => format!("failed ({})", parts.join(", ")),
            }
        }
        (Ok(StageOutcome::TimedOut), _) => after("timed out"),
        (Ok(StageOutcome::Cancelled), _) => after("was cancelled"),
        (Ok(StageOutcome::Rejected), _) => "was rejected".to_owned(),
        (Ok(StageOutcome::Interrupted), _) => "was interrupted".to_owned(),
        (Ok(StageOutcome::LostContact), _) => after("lost contact"),
        (Ok(StageOutcome::Absent), _) => StageOutcome::Absent.to_string(),
        (Ok(StageOutcome::Reboot), code) => {
            format!("asked for a reboot ({})", code.unwrap_or(194))
        }
        (Err(_), _) => StageOutcome::name_of(outcome).to_owned(),
    };
    match detail {
        "" => said,
        why => format!("{said}: {why}"),
    }
}

/// One event as a sentence without its subject and without a full stop.
pub(super) fn sentence(event: &Event) -> String {
    let fields = fields_of(event);
    let stage = || stage_of(&fields, event.view.as_ref());
    let started = || stage_and_position(&fields, event.view.as_ref());
    let with_message = |text: String| match event.message.as_str() {
        "" => text,
        message => format!("{text}: {message}"),
    };
    match event.event.as_str() {
        "stage-started" => match fields.get("attempt").and_then(Value::as_u64) {
            Some(attempt) if attempt > 1 => format!("{} started, attempt {attempt}", started()),
            _ => format!("{} started", started()),
        },
        "stage-ended" => stage_ended(event, &fields),
        "stage-skipped" if event.message.is_empty() => {
            format!("{} skipped: nothing in it changed", stage())
        }
        "stage-skipped" => with_message(format!("{} skipped", stage())),
        "stage-interrupted" | "instance-rebooting" if fields.contains_key("outcome") => {
            stage_ended(event, &fields)
        }
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
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    let exit_code = fields.get("exit_code").and_then(Value::as_i64);
    let took = fields.get("seconds").and_then(Value::as_f64).map(seconds);
    let took = took.unwrap_or_default();
    let said = match (text("outcome"), StageOutcome::from_name(text("outcome"))) {
        // The name of a newer master says more than that it is unknown.
        (name, None) if !name.is_empty() => name.replace('_', " "),
        (_, outcome) => {
            let outcome = outcome.unwrap_or_default().into();
            stage_outcome_text(outcome, exit_code, &took, text("detail"))
        }
    };
    match text("left") {
        "" => format!("{stage} {said}"),
        left => format!("{stage} {said}, and {left}"),
    }
}

/// Only says what the end of a stage, told just before, means for the instance.
pub(super) fn is_repetition(event: &Event) -> bool {
    event.event == "instance-failed" && fields_of(event).contains_key("stage")
}

/// The last lines that something printed which did not succeed: of its errors, if there were any.
pub(super) fn last_printed(tail: &[String], stderr: usize, most: usize) -> &[String] {
    let lines = match stderr.min(tail.len()) {
        0 => tail,
        stderr => &tail[..stderr],
    };
    &lines[lines.len().saturating_sub(most)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_its_sentence() {
        let table = [
            (
                "stage-started",
                r#"{"stage":0,"stages":2,"name":"prereq","attempt":1}"#,
                "",
                "stage prereq (1 of 2) started",
            ),
            (
                "stage-started",
                r#"{"stage":0,"attempt":2}"#,
                "",
                "stage 1 started, attempt 2",
            ),
            (
                "stage-ended",
                r#"{"stage":0,"name":"prereq","outcome":"succeeded","exit_code":0,"seconds":3.21}"#,
                "",
                "stage prereq ended ok in 3.2 s",
            ),
            (
                "stage-ended",
                r#"{"stage":1,"name":"node","outcome":"failed","exit_code":17,"seconds":41}"#,
                "",
                "stage node failed (exit 17, 41 s)",
            ),
            (
                "stage-ended",
                r#"{"stage":1,"name":"x","outcome":"timed_out","seconds":60,"detail":"no output"}"#,
                "told by the fields",
                "stage x timed out after 60 s: no output",
            ),
            (
                "stage-ended",
                r#"{"stage":1,"name":"x","outcome":"cancelled","exit_code":null,"seconds":6}"#,
                "",
                "stage x was cancelled after 6.0 s",
            ),
            (
                "stage-ended",
                r#"{"stage":1,"name":"x","outcome":"rejected","seconds":0,"detail":"no room"}"#,
                "",
                "stage x was rejected: no room",
            ),
            (
                "instance-rebooting",
                r#"{"stage":1,"name":"x","outcome":"reboot","exit_code":194,"seconds":1}"#,
                "",
                "stage x asked for a reboot (194)",
            ),
            (
                "stage-interrupted",
                r#"{"stage":1,"name":"x","outcome":"interrupted","detail":"its machine went down"}"#,
                "",
                "stage x was interrupted: its machine went down",
            ),
            (
                "stage-skipped",
                r#"{"stage":1}"#,
                "",
                "stage 2 skipped: nothing in it changed",
            ),
            (
                "stage-interrupted",
                r#"{"stage":1}"#,
                "the machine rebooted",
                "stage 2 interrupted: the machine rebooted",
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
}
