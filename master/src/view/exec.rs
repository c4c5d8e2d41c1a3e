//! The output and ends of an exec: lines with the instance's name before them, or JSON. Feeds on `ExecEvent`'s parts.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use aot_proto::v1::{ExecEnded, ExecOutput, ExecSummary};
use serde_json::{Map, Value, json};

use super::Streams;
use super::json::text_or_base64;
use super::words::{count_words, outcome_words, seconds};

/// A line longer than this is broken; also what one stream of one instance holds back at most.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Output of one stream of one instance that `--json` keeps until the end; what is past it is cut, and marked.
const MAX_KEPT_BYTES: usize = 16 << 20;

/// How many of the failed are named in the closing line.
const MAX_NAMED: usize = 10;

/// Shows output and ends as they come.
pub trait ExecView {
    /// Some output.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn output(&mut self, output: &ExecOutput, io: &mut Streams) -> io::Result<()>;
    /// One target has ended; no more output of it follows.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn ended(&mut self, job: &str, ended: &ExecEnded, io: &mut Streams) -> io::Result<()>;
    /// All have ended, or the connection was lost: nothing may be held back any longer.
    ///
    /// # Errors
    /// When a stream can't be written to.
    fn close(&mut self, io: &mut Streams) -> io::Result<()>;
}

/// `name | line`, live.
#[derive(Debug, Default)]
pub struct ExecLines {
    partial: BTreeMap<(String, bool), Vec<u8>>,
}

impl ExecLines {
    fn write(name: &str, stderr: bool, line: &[u8], io: &mut Streams) -> io::Result<()> {
        let to = if stderr {
            &mut io.stderr
        } else {
            &mut io.stdout
        };
        let mut whole = format!("{name} | ").into_bytes();
        whole.extend_from_slice(line);
        whole.push(b'\n');
        to.write_all(&whole)
    }

    fn flush(&mut self, only: Option<&str>, io: &mut Streams) -> io::Result<()> {
        for ((name, stderr), bytes) in &mut self.partial {
            if !bytes.is_empty() && only.is_none_or(|only| only == name) {
                Self::write(name, *stderr, bytes, io)?;
                bytes.clear();
            }
        }
        io.stdout.flush()
    }
}

impl ExecView for ExecLines {
    fn output(&mut self, output: &ExecOutput, io: &mut Streams) -> io::Result<()> {
        let held = self
            .partial
            .entry((output.instance.clone(), output.stderr))
            .or_default();
        for piece in output.data.split_inclusive(|byte| *byte == b'\n') {
            held.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if piece.ends_with(b"\n") || held.len() >= MAX_LINE_BYTES {
                Self::write(&output.instance, output.stderr, held, io)?;
                held.clear();
            }
        }
        io.stdout.flush()
    }

    fn ended(&mut self, _job: &str, ended: &ExecEnded, io: &mut Streams) -> io::Result<()> {
        self.flush(Some(&ended.instance), io)?;
        if ended.truncated {
            writeln!(io.stderr, "{}: its output was cut", ended.instance)?;
        }
        Ok(())
    }

    fn close(&mut self, io: &mut Streams) -> io::Result<()> {
        self.flush(None, io)
    }
}

/// One object a target as it ends.
#[derive(Debug, Default)]
pub struct ExecJson {
    kept: HashMap<String, Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    cut: bool,
}

impl ExecView for ExecJson {
    fn output(&mut self, output: &ExecOutput, _io: &mut Streams) -> io::Result<()> {
        let kept = self.kept.entry(output.instance.clone()).or_default();
        let to = if output.stderr {
            &mut kept.stderr
        } else {
            &mut kept.stdout
        };
        let room = MAX_KEPT_BYTES - to.len();
        to.extend_from_slice(&output.data[..output.data.len().min(room)]);
        kept.cut |= output.data.len() > room;
        Ok(())
    }

    fn ended(&mut self, job: &str, ended: &ExecEnded, io: &mut Streams) -> io::Result<()> {
        let kept = self.kept.remove(&ended.instance).unwrap_or_default();
        writeln!(io.stdout, "{}", ended_json(job, ended, &kept))?;
        io.stdout.flush()
    }

    fn close(&mut self, io: &mut Streams) -> io::Result<()> {
        io.stdout.flush()
    }
}

fn ended_json(job: &str, ended: &ExecEnded, kept: &Kept) -> Value {
    let mut out = Map::new();
    out.insert("job".into(), job.into());
    out.insert("instance".into(), ended.instance.as_str().into());
    out.insert("outcome".into(), ended.outcome.as_str().into());
    let code = ended.has_exit_code.then_some(ended.exit_code);
    out.insert("exit_code".into(), code.map_or(Value::Null, Value::from));
    text_or_base64(&mut out, "stdout", &kept.stdout);
    text_or_base64(&mut out, "stderr", &kept.stderr);
    out.insert("seconds".into(), json!(ended.seconds));
    if !ended.json.is_empty() {
        out.insert("result".into(), result_of(ended));
    }
    if !ended.detail.is_empty() {
        out.insert("detail".into(), ended.detail.as_str().into());
    }
    if ended.truncated || kept.cut {
        out.insert("truncated".into(), true.into());
    }
    Value::Object(out)
}

fn result_of(ended: &ExecEnded) -> Value {
    serde_json::from_str(&ended.json).unwrap_or_else(|_| ended.json.as_str().into())
}

/// `4 succeeded, 1 failed: web3 (exit code 17)`.
pub fn exec_summary(summary: &ExecSummary, ends: &[ExecEnded]) -> String {
    let mut text = count_words(
        summary
            .outcomes
            .iter()
            .map(|(word, count)| (word.as_str(), u64::from(*count))),
    );
    let mut bad: Vec<&ExecEnded> = ends
        .iter()
        .filter(|ended| ended.outcome != "succeeded")
        .collect();
    bad.sort_by(|a, b| by_number(&a.instance).cmp(&by_number(&b.instance)));
    let why = |ended: &&ExecEnded| match (
        ended.outcome.as_str(),
        ended.has_exit_code,
        ended.detail.as_str(),
    ) {
        ("failed", true, _) => format!("{} (exit code {})", ended.instance, ended.exit_code),
        ("failed", false, detail) if !detail.is_empty() => format!("{} ({detail})", ended.instance),
        (outcome, _, "") => format!("{} ({})", ended.instance, outcome_words(outcome, None)),
        (outcome, _, detail) => format!(
            "{} ({}: {detail})",
            ended.instance,
            outcome_words(outcome, None)
        ),
    };
    let named: Vec<String> = bad.iter().take(MAX_NAMED).map(why).collect();
    if !named.is_empty() {
        text.push_str(&format!(": {}", named.join(", ")));
    }
    if bad.len() > MAX_NAMED {
        text.push_str(&format!(" and {} more", bad.len() - MAX_NAMED));
    }
    text
}

/// What the agents answered to a built-in, sorted by name: a line each for ping and version, one JSON object for facts.
pub fn builtin_table(builtin: &str, ends: &[ExecEnded]) -> String {
    let mut ends: Vec<&ExecEnded> = ends.iter().collect();
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
    let line = |ended: &&ExecEnded| {
        let answer = match (ended.outcome.as_str(), builtin) {
            ("succeeded", "ping") => format!("pong  {}", seconds(ended.seconds)),
            ("succeeded", _) => match result_of(ended) {
                Value::String(text) => text,
                Value::Object(map) => match map.get("version").and_then(Value::as_str) {
                    Some(version) => version.to_owned(),
                    None => Value::Object(map).to_string(),
                },
                other => other.to_string(),
            },
            (outcome, _) => format!("{}  {}", outcome.replace('_', " "), ended.detail),
        };
        format!("{:<width$}  {answer}", ended.instance)
            .trim_end()
            .to_owned()
    };
    ends.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Sorts `web2` before `web10`: the text without its last number, then the number.
fn by_number(name: &str) -> (&str, u64, &str) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or_default(), name)
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
