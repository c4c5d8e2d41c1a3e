//! Jobs looked at afterwards: the list, and one with its end on each instance. Pure; called by `cli` for `jobs`.

use std::collections::BTreeSet;

use aot_proto::v1::{JobEnded, JobKind, JobStarted, JobsReply, Outcome, jobs_reply};
use serde_json::{Value, json};
use time::UtcOffset;

use super::format::{bytes, counts_text, day_and_clock, outcome_text, seconds};
use super::grid::{Cell, Grid, or_dash};
use super::job_output::{outcome_counts, reason};
use super::json::rfc3339;
use super::ranges::by_number;
use super::style::{Paint, Style};

/// Room that a command should have in a list.
const MIN_WHAT_CHARS: usize = 20;

/// Characters of a short id: the time of a ULID, to the millisecond.
const SHORT_ID_CHARS: usize = 10;

/// Ids as a person types them: without `job-`, and as many characters as tell each from all others.
fn short_ids(ids: &[&str]) -> Vec<String> {
    let bare = |id: &str| id.strip_prefix("job-").unwrap_or(id).to_owned();
    let all: Vec<String> = ids.iter().map(|id| bare(id)).collect();
    let short = |chars: usize| -> Vec<String> {
        let cut = |id: &String| id.chars().take(chars).collect();
        all.iter().map(cut).collect()
    };
    let longest = all.iter().map(|id| id.chars().count()).max();
    let lengths = SHORT_ID_CHARS..longest.unwrap_or_default();
    let is_clear = |ids: &Vec<String>| ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
    lengths.map(short).find(is_clear).unwrap_or(all.clone())
}

/// Who, what, when and how long.
pub(crate) fn job_heading(
    started: &JobStarted,
    now_ms: u64,
    offset: UtcOffset,
    style: Style,
) -> String {
    let mut out = format!(
        "{}  {}",
        style.bold(&started.job_id),
        JobKind::name_of(started.kind)
    );
    if !started.cluster.is_empty() {
        out.push_str(&format!(" in {}", started.cluster));
    }
    if !started.operator.is_empty() {
        out.push_str(&format!(", by {}", started.operator));
    }
    for line in started.what.lines() {
        out.push_str(&format!("\n  {line}"));
    }
    let since = |end: u64| seconds(end.saturating_sub(started.started_unix_ms) as f64 / 1000.0);
    let how_long = match started.ended_unix_ms {
        0 => style.busy(&format!("running for {}", since(now_ms))),
        end => format!("took {}", since(end)),
    };
    let begun = day_and_clock(started.started_unix_ms, offset);
    out.push_str(&format!("\n  started {begun}, {how_long}"));
    if started.output_dropped {
        out.push_str(
            "\n  its output is no longer kept: it was too old, or all output took too much space",
        );
    }
    out
}

/// A line for each target; those without an end are still open.
pub(crate) fn outcomes_table<'a>(
    started: &'a JobStarted,
    ends: impl Fn(&str) -> Option<&'a JobEnded>,
    style: Style,
    columns: Option<usize>,
) -> String {
    let mut names: Vec<&str> = started.instances.iter().map(String::as_str).collect();
    names.sort_by_key(|name| by_number(name));
    let mut table = Grid::new(&["instance", "outcome", "took", "why"]);
    for name in names {
        table.row(match ends(name) {
            None => [name, "open", "-", ""].map(Cell::new),
            Some(ended) => outcome_cells(ended),
        });
    }
    table.fitted(style, columns, &[])
}

fn outcome_cells(ended: &JobEnded) -> [Cell; 4] {
    let (word, colour) = match ended.outcome() {
        Outcome::Succeeded => (Outcome::Succeeded.to_string(), Style::good as Paint),
        _ => (outcome_text(ended.outcome), Style::bad as Paint),
    };
    let cut = match (ended.cut_bytes, ended.truncated) {
        (0, false) => String::new(),
        (0, true) => "some output cut".to_owned(),
        (cut, _) => format!("{} of output cut", bytes(cut)),
    };
    let why: Vec<String> = [reason(ended), cut]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    [
        Cell::new(&ended.instance),
        Cell::painted(word, colour),
        Cell::new(match ended.seconds > 0.0 {
            true => seconds(ended.seconds),
            false => "-".to_owned(),
        }),
        Cell::new(why.join(", ")),
    ]
}

/// What was run, as the master lists it. On a terminal ids are short, and lines have at most this many `columns`: what is
/// told least often is left out until there is room for the command. Where there is only one cluster it is not told.
pub(crate) fn jobs_table(
    reply: &JobsReply,
    offset: UtcOffset,
    style: Style,
    columns: Option<usize>,
) -> String {
    let clusters: BTreeSet<&str> = reply.jobs.iter().map(|job| job.cluster.as_str()).collect();
    let mut left_out = match clusters.len() {
        0 | 1 => vec!["cluster"],
        _ => Vec::new(),
    };
    let Some(columns) = columns else {
        return jobs_text(reply, offset, style, &left_out);
    };
    let ids: Vec<&str> = reply.jobs.iter().map(|job| job.job_id.as_str()).collect();
    let jobs = reply.jobs.iter().zip(short_ids(&ids));
    let jobs = jobs.map(|(job, job_id)| jobs_reply::Entry {
        job_id,
        ..job.clone()
    });
    let reply = &JobsReply {
        jobs: jobs.collect(),
    };
    let mut whole = jobs_text(reply, offset, style, &left_out);
    for next in ["by", "output", "took"] {
        let heads = whole.lines().next().unwrap_or_default();
        if heads.chars().count() + MIN_WHAT_CHARS <= columns {
            break;
        }
        left_out.push(next);
        whole = jobs_text(reply, offset, style, &left_out);
    }
    fitted(&whole, columns)
}

fn jobs_text(reply: &JobsReply, offset: UtcOffset, style: Style, left_out: &[&str]) -> String {
    let heads = [
        "job", "cluster", "started", "took", "outcome", "output", "by", "what",
    ];
    let shown = |head: &&str| !left_out.contains(head);
    let kept: Vec<&str> = heads.iter().copied().filter(shown).collect();
    let mut table = Grid::new(&kept);
    for job in &reply.jobs {
        let cells = heads.iter().zip(job_cells(job, offset));
        let kept = cells.filter(|(head, _)| shown(head));
        table.row(kept.map(|(_, cell)| cell));
    }
    table.text(style)
}

fn job_cells(job: &jobs_reply::Entry, offset: UtcOffset) -> [String; 8] {
    let took = match job.ended_unix_ms.checked_sub(job.started_unix_ms) {
        Some(ms) if job.ended_unix_ms > 0 => seconds(ms as f64 / 1000.0),
        _ => "running".to_owned(),
    };
    let mut outcomes = counts_text(outcome_counts(&job.outcomes));
    if open(job) > 0 {
        let comma = if outcomes.is_empty() { "" } else { ", " };
        outcomes.push_str(&format!("{comma}{} open", open(job)));
    }
    let output = match (job.output_dropped, job.output_bytes) {
        (true, _) => "dropped".to_owned(),
        (false, 0) => "-".to_owned(),
        (false, kept) => bytes(kept),
    };
    let what = match job.what.lines().next() {
        None | Some("") => JobKind::name_of(job.kind),
        Some(line) => line,
    };
    [
        job.job_id.clone(),
        or_dash(&job.cluster).to_owned(),
        day_and_clock(job.started_unix_ms, offset),
        took,
        or_dash(&outcomes).to_owned(),
        output,
        or_dash(&job.operator).to_owned(),
        what.to_owned(),
    ]
}

/// Every line in at most this many characters; what is cut is marked.
fn fitted(text: &str, columns: usize) -> String {
    let fit = |line: &str| match line.char_indices().nth(columns) {
        None => line.to_owned(),
        Some(_) => {
            let kept: String = line.chars().take(columns.saturating_sub(1)).collect();
            format!("{}…", kept.trim_end())
        }
    };
    text.lines().map(fit).collect::<Vec<_>>().join("\n")
}

/// One entry of the list of jobs.
pub(crate) fn job_json(job: &jobs_reply::Entry) -> Value {
    let cluster = (!job.cluster.is_empty()).then_some(&job.cluster);
    let operator = (!job.operator.is_empty()).then_some(&job.operator);
    json!({
        "job": job.job_id,
        "kind": JobKind::name_of(job.kind),
        "cluster": cluster,
        "what": job.what,
        "started": rfc3339(job.started_unix_ms),
        "ended": rfc3339(job.ended_unix_ms),
        "summary": outcome_counts(&job.outcomes),
        "operator": operator,
        "targets": job.targets,
        "open": open(job),
        "output_bytes": job.output_bytes,
        "output_dropped": job.output_dropped,
    })
}

/// How many of a job's targets have not ended.
pub(super) fn open(job: &jobs_reply::Entry) -> u32 {
    job.targets
        .saturating_sub(job.outcomes.iter().map(|it| it.count).sum())
}

#[cfg(test)]
mod tests;
