//! The closing line of a job, and what agents answered to a built-in. Pure.

use std::collections::BTreeMap;
use std::io;

use aot_proto::v1::{BuiltinName, JobEnded, JobSummary, Outcome, OutcomeCount};
use serde_json::{Map, Value};

use super::{bar, reason, result_of, why};
use crate::view::format::{bytes, counts_text, outcome_text, seconds};
use crate::view::out::{Out, harmless_json};
use crate::view::ranges::{by_number, ranges};
use crate::view::style::Style;

/// How many reasons are told in the closing line.
const MAX_REASONS: usize = 10;

/// How many ended so, by the name of the outcome.
pub(crate) fn outcome_counts(outcomes: &[OutcomeCount]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for OutcomeCount { outcome, count } in outcomes {
        *counts.entry(Outcome::name_of(*outcome)).or_default() += u64::from(*count);
    }
    counts
}

/// The counts of a summary that is made here.
pub(crate) fn counts_of<'a>(ends: impl IntoIterator<Item = &'a JobEnded>) -> Vec<OutcomeCount> {
    let mut counts: BTreeMap<i32, u32> = BTreeMap::new();
    for ended in ends {
        *counts.entry(ended.outcome).or_default() += 1;
    }
    let count = |(outcome, count)| OutcomeCount { outcome, count };
    counts.into_iter().map(count).collect()
}

/// `4 succeeded, 1 failed: web3 (exit code 17)`; equal reasons are told once.
pub(crate) fn job_summary<'a>(
    summary: &JobSummary,
    ends: impl IntoIterator<Item = &'a JobEnded>,
) -> String {
    let mut text = counts_text(outcome_counts(&summary.outcomes));
    let (mut bad, mut cut) = (BTreeMap::new(), BTreeMap::new());
    for ended in ends {
        let name = ended.instance.as_str();
        if ended.outcome() != Outcome::Succeeded {
            let names: &mut Vec<&str> = bad.entry(why(ended)).or_default();
            names.push(name);
        }
        if ended.truncated || ended.cut_bytes > 0 {
            cut.insert(by_number(name), ended.cut_bytes);
        }
    }
    text.push_str(&reasons_text(bad));
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
fn reasons_text(bad: BTreeMap<String, Vec<&str>>) -> String {
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

/// Prints what the agents answered to a built-in, sorted by name: a line each for ping, version and stat, one JSON object
/// for facts, `name | line` for tail.
///
/// # Errors
/// When the stream can't be written to.
pub(crate) fn show_builtin<'a>(
    builtin: BuiltinName,
    ends: impl IntoIterator<Item = &'a JobEnded>,
    style: Style,
    out: &Out,
) -> io::Result<()> {
    let mut ends: Vec<&JobEnded> = ends.into_iter().collect();
    ends.sort_by(|a, b| by_number(&a.instance).cmp(&by_number(&b.instance)));
    if builtin == BuiltinName::Facts {
        let good = ends
            .iter()
            .filter(|ended| ended.outcome() == Outcome::Succeeded);
        let facts: Map<String, Value> = good
            .map(|ended| (ended.instance.clone(), result_of(ended)))
            .collect();
        return match facts.is_empty() {
            true => Ok(()),
            false => out.text(&harmless_json(&format!("{:#}\n", Value::Object(facts)))),
        };
    }
    let width = ends.iter().map(|ended| ended.instance.len()).max();
    let width = width.unwrap_or_default();
    for ended in ends {
        let name = style.name(&ended.instance, &format!("{:<width$}", ended.instance));
        match (ended.outcome(), builtin) {
            (Outcome::Succeeded, BuiltinName::Tail) => {
                let before = format!("{name} {} ", bar(style, false, false));
                for line in tail_lines(&result_of(ended)) {
                    out.line(&before, in_one(&line).as_bytes())?;
                }
            }
            (Outcome::Succeeded, _) => {
                let answer = answer(builtin, ended);
                out.line(&format!("{name}  "), in_one(&answer).as_bytes())?;
            }
            _ => {
                let word = style.bad(&outcome_text(ended.outcome));
                match reason(ended).as_str() {
                    "" => out.text(&format!("{name}  {word}\n"))?,
                    reason => out.line(&format!("{name}  {word}  "), in_one(reason).as_bytes())?,
                }
            }
        }
    }
    Ok(())
}

/// What one agent answered stays in one line: none speaks in the name of another.
fn in_one(line: &str) -> String {
    line.replace('\n', "^J")
}

fn answer(builtin: BuiltinName, ended: &JobEnded) -> String {
    match (builtin, result_of(ended)) {
        (BuiltinName::Ping, _) => format!("pong  {}", seconds(ended.seconds)),
        (_, Value::String(text)) => text,
        (BuiltinName::Version, Value::Object(map)) => {
            match map.get("version").and_then(Value::as_str) {
                Some(version) => version.to_owned(),
                None => Value::Object(map).to_string(),
            }
        }
        (BuiltinName::Stat, Value::Object(map)) => stat_text(&map),
        (_, other) => other.to_string(),
    }
}

/// `file  0644  root:root  12 B  2026-01-01T00:03:04Z  /etc/hosts`, and where a link leads.
fn stat_text(seen: &Map<String, Value>) -> String {
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
            None => format!("({})", stat_text(end)),
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
