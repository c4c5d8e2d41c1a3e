//! The closing line of a job, and what agents answered to a built-in. Pure.

use std::collections::BTreeMap;

use aot_proto::v1::{ExecEnded, ExecSummary};
use serde_json::{Map, Value};

use super::{reason, result_of, why};
use crate::view::Look;
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
pub fn builtin_table<'a>(
    builtin: &str,
    ends: impl IntoIterator<Item = &'a ExecEnded>,
    look: Look,
) -> String {
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
    let width = ends.iter().map(|ended| ended.instance.len()).max();
    let width = width.unwrap_or_default();
    let mut lines = Vec::new();
    for ended in ends {
        let name = look
            .style
            .name(&ended.instance, &format!("{:<width$}", ended.instance));
        match (ended.outcome.as_str(), builtin) {
            ("succeeded", "tail") => {
                let said = tail_lines(&result_of(ended));
                let said = said.iter().map(|line| harmless(line, look));
                lines.extend(said.map(|line| format!("{name} {} {line}", look.bar(false))));
            }
            ("succeeded", _) => {
                let answer = answer(builtin, ended);
                lines.push(format!("{name}  {}", harmless(&answer, look)));
            }
            (outcome, _) => {
                let word = look.style.bad(&outcome_words(outcome, None));
                let line = format!("{name}  {word}  {}", harmless(&reason(ended), look));
                lines.push(line.trim_end().to_owned());
            }
        }
    }
    lines.join("\n")
}

fn harmless(line: &str, look: Look) -> String {
    String::from_utf8_lossy(&look.line(line.as_bytes())).into_owned()
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

/// `file  0644  root:root  12 B  2026-01-01T00:03:04Z  /etc/hosts`, and where a link leads.
fn stat_words(seen: &Map<String, Value>) -> String {
    let text = |key: &str| seen.get(key).and_then(Value::as_str);
    let who = |name: &str, id: &str| match (text(name), seen.get(id)) {
        (Some(name), _) => name.to_owned(),
        (None, Some(id)) => id.to_string(),
        (None, None) => "?".to_owned(),
    };
    let mut words = vec![
        text("kind").unwrap_or("?").to_owned(),
        text("mode").unwrap_or("?").to_owned(),
        format!("{}:{}", who("user", "uid"), who("group", "gid")),
        bytes(seen.get("size").and_then(Value::as_u64).unwrap_or_default()),
        text("mtime").unwrap_or("-").to_owned(),
        text("path").unwrap_or("?").to_owned(),
    ];
    if let Some(target) = text("target") {
        words.push(format!("-> {target}"));
    }
    if let Some(Value::Object(end)) = seen.get("leads_to") {
        words.push(match end.get("error").and_then(Value::as_str) {
            Some(error) => format!("(leads nowhere: {error})"),
            None => format!("({})", stat_words(end)),
        });
    }
    words.join("  ")
}

fn tail_lines(seen: &Value) -> Vec<String> {
    let lines = seen.get("lines").and_then(Value::as_array);
    let lines = lines.into_iter().flatten();
    let mut lines: Vec<String> = lines
        .map(|line| line.as_str().unwrap_or_default().to_owned())
        .collect();
    if seen.get("truncated").and_then(Value::as_bool) == Some(true) {
        lines.insert(0, "[the beginning was left out]".to_owned());
    }
    lines
}
