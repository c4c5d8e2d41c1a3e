//! The closing line of a job, and what agents answered to a built-in. Pure.

use std::collections::BTreeMap;

use aot_proto::v1::{ExecEnded, ExecSummary};
use serde_json::{Map, Value};

use super::{reason, result_of, why};
use crate::view::ranges::{by_number, ranges};
use crate::view::words::{bytes, count_words, outcome_words, seconds};

/// How many reasons are told in the closing line.
const MAX_REASONS: usize = 10;

/// `4 succeeded, 1 failed: web3 (exit code 17)`; equal reasons are told once.
pub fn exec_summary<'a>(
    summary: &ExecSummary,
    ends: impl IntoIterator<Item = &'a ExecEnded>,
) -> String {
    let mut text = count_words(
        summary
            .outcomes
            .iter()
            .map(|(word, count)| (word.as_str(), u64::from(*count))),
    );
    let (mut bad, mut cut) = (BTreeMap::new(), BTreeMap::new());
    for ended in ends {
        let name = ended.instance.as_str();
        if ended.outcome != "succeeded" {
            let names: &mut Vec<&str> = bad.entry(why(ended)).or_default();
            names.push(name);
        }
        if ended.truncated || ended.cut_bytes > 0 {
            cut.insert(by_number(name), ended.cut_bytes);
        }
    }
    text.push_str(&told(bad));
    if let Some(first) = cut.keys().next() {
        let names = match cut.len() {
            1 => first.2.to_owned(),
            _ => ranges(cut.keys().map(|key| key.2)),
        };
        let total = match cut.values().sum() {
            0 => String::new(),
            total => format!(" ({})", bytes(total)),
        };
        text.push_str(&format!("; output was cut: {names}{total}"));
    }
    text
}

/// `: web2 (timed out), web10 (exit code 17)`, by the first name of each reason.
fn told(bad: BTreeMap<String, Vec<&str>>) -> String {
    let mut reasons: Vec<_> = bad.into_iter().collect();
    reasons.sort_by_key(|(_, names)| names.iter().map(|name| by_number(name)).min());
    let parts: Vec<String> = reasons
        .iter()
        .take(MAX_REASONS)
        .map(|(reason, names)| format!("{} ({reason})", ranges(names.iter().copied())))
        .collect();
    let rest: usize = reasons
        .iter()
        .skip(MAX_REASONS)
        .map(|(_, names)| names.len())
        .sum();
    match (parts.is_empty(), rest) {
        (true, _) => String::new(),
        (false, 0) => format!(": {}", parts.join(", ")),
        (false, rest) => format!(": {} and {rest} more", parts.join(", ")),
    }
}

/// What the agents answered to a built-in, sorted by name: a line each for ping, version and stat, one JSON object for
/// facts, `name | line` for tail.
pub fn builtin_table<'a>(builtin: &str, ends: impl IntoIterator<Item = &'a ExecEnded>) -> String {
    let mut ends: Vec<&ExecEnded> = ends.into_iter().collect();
    ends.sort_by(|a, b| by_number(&a.instance).cmp(&by_number(&b.instance)));
    if builtin == "facts" {
        let good = ends.iter().filter(|ended| ended.outcome == "succeeded");
        let facts: Map<String, Value> = good
            .map(|ended| (ended.instance.clone(), result_of(ended)))
            .collect();
        return if facts.is_empty() {
            String::new()
        } else {
            format!("{:#}", Value::Object(facts))
        };
    }
    let width = ends
        .iter()
        .map(|ended| ended.instance.len())
        .max()
        .unwrap_or_default();
    let mut lines = Vec::new();
    for ended in ends {
        let name = &ended.instance;
        match (ended.outcome.as_str(), builtin) {
            ("succeeded", "tail") => {
                let text = tail_text(&result_of(ended));
                lines.extend(text.lines().map(|line| format!("{name:<width$} | {line}")));
            }
            ("succeeded", _) => lines.push(format!("{name:<width$}  {}", answer(builtin, ended))),
            _ => {
                let word = outcome_words(&ended.outcome, None);
                let line = format!("{name:<width$}  {word}  {}", reason(ended));
                lines.push(line.trim_end().to_owned());
            }
        }
    }
    lines.join("\n")
}

fn answer(builtin: &str, ended: &ExecEnded) -> String {
    match (builtin, result_of(ended)) {
        ("ping", _) => format!("pong  {}", seconds(ended.seconds)),
        (_, Value::String(text)) => text,
        ("version", Value::Object(map)) => match map.get("version").and_then(Value::as_str) {
            Some(version) => version.to_owned(),
            None => Value::Object(map).to_string(),
        },
        ("stat", Value::Object(map)) => stat_words(&map),
        (_, other) => other.to_string(),
    }
}

/// `size=12 mode=0644 ...`: the fields as they come.
fn stat_words(map: &Map<String, Value>) -> String {
    let words: Vec<String> = map
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| match value {
            Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        })
        .collect();
    words.join("  ")
}

/// The lines of a tail: a text, a list of texts, or the text or lines inside of an object.
fn tail_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(lines) => {
            let lines: Vec<String> = lines.iter().map(tail_text).collect();
            lines.join("\n")
        }
        Value::Object(map) => match ["text", "lines", "data"]
            .iter()
            .find_map(|key| map.get(*key))
        {
            Some(inner) => tail_text(inner),
            None => value.to_string(),
        },
        other => other.to_string(),
    }
}
