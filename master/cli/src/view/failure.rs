//! Why something failed, in words that are the same for all that failed alike. Pure; used by every view of stages.

use aot_proto::v1::{Event, InstanceView, StageOutcome, StageState, StageView};
use serde_json::Value;

use super::format::seconds;
use super::sentence::{self, fields_of};
use super::style::Style;

/// Why an instance failed, without what differs between two that fail alike: which it is, and how long it took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct InstanceFailure {
    /// `failed`, `timed out`; of what is no stage all that was said of it.
    ended: String,
    /// Index and name of the stage.
    stage: Option<(u64, String)>,
    exit_code: Option<i64>,
    detail: String,
    /// The last lines that it printed, those of standard error first.
    tail: Vec<String>,
    /// How many of them are of standard error.
    tail_stderr: usize,
}

impl InstanceFailure {
    /// The one that an event is about, and how long the stage ran where it is one; `None` when all is well, and where the event
    /// only says what a failure means that was said before.
    pub(crate) fn of_event(event: &Event) -> Option<(Self, String)> {
        if event.instance.is_empty() || sentence::is_repetition(event) {
            return None;
        }
        let fields = fields_of(event);
        let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
        match event.event.as_str() {
            "stage-ended" if !matches!(text("outcome"), "" | "succeeded") => {}
            "instance-failed" | "boot-failed" => {
                let failure = Self {
                    ended: one_line(&sentence::sentence(event)),
                    ..Self::default()
                };
                return Some((failure, String::new()));
            }
            _ => return None,
        }
        let number = |key: &str| fields.get(key).and_then(Value::as_u64);
        let tail = fields.get("tail").and_then(Value::as_array);
        let tail = tail.into_iter().flatten().filter_map(Value::as_str);
        let failure = Self {
            ended: ended(text("outcome")),
            stage: Some((number("stage").unwrap_or_default(), one_line(text("name")))),
            exit_code: fields.get("exit_code").and_then(Value::as_i64),
            detail: one_line(text("detail")),
            tail: tail.map(one_line).collect(),
            tail_stderr: usize::try_from(number("tail_stderr").unwrap_or_default())
                .unwrap_or(usize::MAX),
        };
        let took = fields.get("seconds").and_then(Value::as_f64).map(seconds);
        Some((failure, took.unwrap_or_default()))
    }

    /// That of the stage of an instance that failed, and how long it ran.
    pub(crate) fn of_view(view: &InstanceView) -> Option<(Self, String)> {
        let failed = |stage: &&StageView| stage.state() == StageState::Failed;
        let stage = view.stage_views.iter().find(failed)?;
        let outcome = match stage.outcome {
            0 => StageOutcome::Failed.into(), // on record since before outcomes were
            outcome => outcome,
        };
        let failure = Self {
            ended: ended(StageOutcome::name_of(outcome)),
            stage: Some((u64::from(stage.index), one_line(&stage.name))),
            exit_code: stage.exit_code.map(i64::from),
            detail: one_line(&stage.detail),
            tail: stage.tail.iter().map(|line| one_line(line)).collect(),
            tail_stderr: stage.tail_stderr as usize,
        };
        let took = match stage.ms {
            0 => String::new(),
            ms => seconds(ms as f64 / 1000.0),
        };
        Some((failure, took))
    }

    /// Without the lines that it printed: those of so many are not kept.
    pub(super) fn without_lines(self) -> Self {
        Self {
            tail: Vec::new(),
            tail_stderr: 0,
            ..self
        }
    }

    /// `failed in mount (exit 17)`, `timed out in hang (6.0 s): it printed nothing for too long`. `took` is empty where many
    /// are meant.
    pub(crate) fn said(&self, took: &str) -> String {
        let mut text = self.ended.clone();
        match &self.stage {
            Some((index, name)) if name.is_empty() => {
                text.push_str(&format!(" in stage {}", index + 1));
            }
            Some((_, name)) => text.push_str(&format!(" in {name}")),
            None => {}
        }
        let code = self.exit_code.map(|code| format!("exit {code}"));
        let parts: Vec<&str> = code.as_deref().into_iter().chain([took]).collect();
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        if !parts.is_empty() {
            text.push_str(&format!(" ({})", parts.join(", ")));
        }
        if !self.detail.is_empty() {
            text.push_str(&format!(": {}", self.detail));
        }
        text
    }

    /// The same in one line, with what was printed last, errors first: `failed in mount (exit 17): ! no disk`.
    pub(crate) fn line(&self, took: &str) -> String {
        let said = self.said(took);
        match self.last_printed() {
            Some(line) => format!("{said}: {line}"),
            None => said,
        }
    }

    /// The same with all lines that were printed last, and where to read more. `who` is named; `look` is one of them.
    pub(crate) fn lines(&self, who: &str, took: &str, look: &str, style: Style) -> Vec<String> {
        let who = style.bad(who);
        let is_short = self.tail.len() == 1 && self.detail.is_empty();
        let mut lines = match is_short {
            true => vec![format!("{who} {}", self.line(took))],
            false => vec![format!("{who} {}", self.said(took))],
        };
        if !is_short {
            let printed = (0..self.tail.len()).map(|at| format!("  {}", self.printed(at)));
            lines.extend(printed.map(|line| style.dim(&line)));
        }
        lines.extend(self.hint(look));
        lines
    }

    /// Where all that a stage printed is read.
    fn hint(&self, instance: &str) -> Option<String> {
        let (index, name) = self.stage.as_ref()?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_a_name = name.starts_with(|c: char| c.is_ascii_alphabetic());
        let stage = match is_a_name && name.chars().all(is_plain) {
            true => name.clone(),
            false => index.to_string(),
        };
        Some(format!("  see: aot-master logs {instance} --stage {stage}"))
    }

    fn last_printed(&self) -> Option<String> {
        let stderr = self.tail_stderr.min(self.tail.len());
        let last = match stderr {
            0 => self.tail.len(),
            stderr => stderr,
        };
        Some(self.printed(last.checked_sub(1)?))
    }

    /// One of the last lines, with a mark of its stream.
    fn printed(&self, at: usize) -> String {
        let mark = if at < self.tail_stderr { "!" } else { "|" };
        format!("{mark} {}", self.tail[at])
    }
}

/// How a stage ended that did not succeed. The name of a newer master says more than that it is unknown.
fn ended(outcome: &str) -> String {
    let words = match StageOutcome::from_name(outcome) {
        Some(StageOutcome::TimedOut) => "timed out",
        Some(StageOutcome::Cancelled) => "was cancelled",
        Some(StageOutcome::Rejected) => "was rejected",
        Some(StageOutcome::Interrupted) => "was interrupted",
        Some(StageOutcome::LostContact) => "lost contact",
        _ => return outcome.replace('_', " "),
    };
    words.to_owned()
}

/// What is said of one thing can't look like what is said of another.
fn one_line(line: &str) -> String {
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests;
