//! Events and answers as JSON, one document per line: the shapes of the interface's `--json` section. Pure but for the
//! one writer.

use std::io::{self, Write as _};

use aot_proto::v1::{
    Event, InstanceView, LogLine, MachineState, Phase, Proof, StageOutcome, StageState,
};
use base64::Engine as _;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::sentence::fields_of;
use super::{Streams, View};

/// The JSON view: one event per line on standard output, and the summary as the last line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Json;

impl View for Json {
    fn show(&mut self, event: &Event, io: &mut Streams) -> io::Result<()> {
        writeln!(io.stdout, "{}", event_json(event))?;
        if let Some(summary) = event_summary(event) {
            writeln!(io.stdout, "{summary}")?;
        }
        io.stdout.flush()
    }
}

/// RFC 3339 with milliseconds, in UTC; `null` for 0.
pub(crate) fn rfc3339(unix_ms: u64) -> Value {
    let shape =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    if unix_ms == 0 {
        return Value::Null;
    }
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000)
        .ok()
        .and_then(|stamp| stamp.format(&shape).ok())
        .map_or(Value::Null, Value::String)
}

/// A text, or `null` for an empty one.
fn text(text: &str) -> Value {
    if text.is_empty() {
        Value::Null
    } else {
        text.into()
    }
}

/// One event: `{"time","cluster","instance","event",...its own fields}`; what its view adds never hides a field.
pub(crate) fn event_json(event: &Event) -> Value {
    let mut out = Map::new();
    out.insert("time".into(), rfc3339(event.unix_ms));
    out.insert("cluster".into(), text(&event.cluster));
    out.insert("instance".into(), text(&event.instance));
    out.insert("event".into(), event.event.as_str().into());
    let mut add = |key: String, value: Value| {
        out.entry(key).or_insert(value);
    };
    for (key, value) in fields_of(event) {
        add(key, value);
    }
    if !event.message.is_empty() {
        add("message".into(), event.message.as_str().into());
    }
    if let Some(view) = &event.view {
        add("phase".into(), text(Phase::name_of(view.phase)));
        add("state".into(), text(MachineState::name_of(view.state)));
        add("machine_id".into(), text(&view.machine_id));
    }
    if event.last {
        add("exit_code".into(), event.exit_code.into());
    }
    Value::Object(out)
}

/// The last line, `{"cluster","summary"}`, for the last event when it has a summary.
pub(crate) fn event_summary(event: &Event) -> Option<Value> {
    let summary = fields_of(event).remove("summary")?;
    event
        .last
        .then(|| json!({"cluster": text(&event.cluster), "summary": summary}))
}

/// One instance, as `status` and `list` print it.
pub(crate) fn instance_json(view: &InstanceView) -> Value {
    let mut out = json!({
        "cluster": view.cluster,
        "name": view.name,
        "pool": text(&view.pool),
        "machine_id": text(&view.machine_id),
        "state": text(MachineState::name_of(view.state)),
        "phase": text(Phase::name_of(view.phase)),
        "stage": if view.stages == 0 { Value::Null } else { view.stage.into() },
        "private_ip": text(&view.private_ip),
        "public_ip": text(&view.public_ip),
        "public_dns": text(&view.public_dns),
        "agent": {
            "connected": view.connected,
            "last_seen": rfc3339(view.last_seen_unix_ms),
            "version": text(&view.agent_version),
        },
        "proof": text(Proof::name_of(view.proof)),
    });
    if !view.warning.is_empty() {
        out["warning"] = view.warning.as_str().into();
    }
    out
}

/// The stages of one instance, for `list -s`.
pub(crate) fn stages_json(view: &InstanceView) -> Value {
    let stage = |stage: &aot_proto::v1::StageView| {
        json!({
            "stage": stage.index,
            "name": stage.name,
            "state": StageState::name_of(stage.state),
            "outcome": text(StageOutcome::name_of(stage.outcome)),
            "attempt": stage.attempt,
            "exit_code": stage.exit_code,
            "seconds": stage.ms as f64 / 1000.0,
            "tail": stage.tail,
            "bundle_sha256": text(&stage.bundle_sha256),
            "detail": text(&stage.detail),
        })
    };
    view.stage_views.iter().map(stage).collect()
}

/// Puts bytes into `out` as `key` when they are UTF-8, else as `key_base64`.
pub(crate) fn text_or_base64(out: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => out.insert(key.to_owned(), text.into()),
        Err(_) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
            out.insert(format!("{key}_base64"), encoded.into())
        }
    };
}

/// One piece of a stage's output, or a mark in it.
pub(crate) fn log_json(line: &LogLine) -> Value {
    let mut out = Map::new();
    out.insert("time".into(), rfc3339(line.unix_ms));
    out.insert("instance".into(), line.instance.as_str().into());
    out.insert("stage".into(), line.stage.into());
    out.insert("name".into(), text(&line.name));
    out.insert("attempt".into(), line.attempt.into());
    if line.note.is_empty() {
        out.insert(
            "stream".into(),
            if line.stderr { "stderr" } else { "stdout" }.into(),
        );
        text_or_base64(&mut out, "data", &line.data);
    } else {
        out.insert("note".into(), line.note.as_str().into());
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;

    #[test]
    fn a_launch_as_json_lines() {
        let mut lines = Vec::new();
        for event in samples::launch() {
            lines.push(event_json(&event).to_string());
            lines.extend(event_summary(&event).map(|summary| summary.to_string()));
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn an_instance_has_exactly_the_keys_of_the_interface() {
        let ready = instance_json(&samples::view("web1", "ready", &["succeeded"]));
        let planned = instance_json(&samples::view("web1", "planned", &[]));
        insta::assert_snapshot!(format!(
            "{ready}\n{planned}\n{}",
            stages_json(&samples::view("web1", "failed", &["failed", "waiting"]))
        ));
    }

    #[test]
    fn a_field_is_never_hidden_by_what_the_view_says() {
        let mut event = samples::launch().swap_remove(2);
        event.fields_json = r#"{"phase":"mine","time":"not mine"}"#.into();
        let json = event_json(&event);
        assert_eq!(json["phase"], "mine");
        assert_eq!(json["time"], "2026-01-01T00:03:04.000Z");
    }

    #[test]
    fn bytes_that_are_no_text_are_base64() {
        let mut out = Map::new();
        text_or_base64(&mut out, "stdout", b"a\xffb");
        text_or_base64(&mut out, "stderr", "ä".as_bytes());
        assert_eq!(
            Value::Object(out),
            json!({"stdout_base64": "Yf9i", "stderr": "ä"})
        );
    }
}
