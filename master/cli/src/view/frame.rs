//! The picture of a launch: a line per instance where there is room for all, else counts by pool, what failed, and what takes
//! longest. Pure: never more lines than were asked for, and what it costs is one pass over the instances.

use std::collections::BTreeMap;

use aot_proto::plural;
use aot_proto::v1::Phase;

use super::format::{counts_text, seconds};
use super::launch_board::{Board, Row};
use super::ranges::{by_number, ranges};
use super::sentence;
use super::style::Style;

/// Even a terminal without height gets so many lines.
const MIN_LINES: usize = 4;

/// Characters of the bar.
const BAR: usize = 20;

/// A longer name of a stage pushes what stands behind it aside.
const MAX_STAGE_CHARS: usize = 24;

/// Longest text of names in a picture.
const MAX_NAMES_CHARS: usize = 32;

/// Every line of the picture of a board, `most` at most.
pub(crate) fn frame(board: &Board, now_ms: u64, style: Style, most: usize) -> Vec<String> {
    if board.is_empty() {
        return Vec::new();
    }
    let room = most.max(MIN_LINES) - 1;
    let mut lines = vec![header(board, now_ms, style)];
    if board.len() <= room {
        lines.extend(row_lines(board, &board.rows(), now_ms, style));
    } else {
        lines.extend(Crowd::of(board).lines(room, now_ms, style));
    }
    lines
}

/// Instances whose stages run, those first that take longest, as many as a picture of so many lines may show.
pub(super) fn running(board: &Board, most: usize) -> Vec<String> {
    let rows = board.unordered();
    let mut found: Vec<&Row> = rows
        .filter(|row| row.phase() == Phase::Bootstrapping)
        .collect();
    slowest(&mut found, most);
    found.into_iter().map(|row| row.name.clone()).collect()
}

/// Leaves the `most` that take longest, in that order.
fn slowest(rows: &mut Vec<&Row>, most: usize) {
    let key = |row: &&Row| (rank(row), row.since_ms, by_number(&row.name).1);
    if rows.len() > most && most > 0 {
        rows.select_nth_unstable_by_key(most - 1, key);
    }
    rows.truncate(most);
    rows.sort_by_key(key);
}

/// What runs goes before what waits for others, that before what waits for its machine.
fn rank(row: &Row) -> u8 {
    match row.phase() {
        Phase::Bootstrapping => 0,
        Phase::Blocked => 1,
        Phase::Planned => 3,
        _ => 2,
    }
}

/// `hadoop  2m05s  [=========!          ] 412 of 1000 ready, 8 failed, 580 booting`.
fn header(board: &Board, now_ms: u64, style: Style) -> String {
    let all = board.len();
    let counted = |phase: Phase| board.unordered().filter(|row| row.phase() == phase).count();
    let (ready, failed) = (counted(Phase::Ready), counted(Phase::Failed));
    let share = |count: usize| count * BAR / all.max(1);
    let bad = share(failed).max(usize::from(failed > 0));
    let good = match ready + failed == all {
        true => BAR - bad,
        false => share(ready).min(BAR - bad),
    };
    let bar = format!(
        "{}{}{}",
        style.good(&"=".repeat(good)),
        style.bad(&"!".repeat(bad)),
        " ".repeat(BAR - good - bad)
    );
    let rest = board.phase_counts_but(Phase::Ready);
    let rest = match rest.as_str() {
        "" => String::new(),
        rest => format!(", {rest}"),
    };
    let age = match age(board, now_ms) {
        age if age.is_empty() => age,
        age => format!("{}  ", style.dim(&age)),
    };
    let cluster = style.bold(&board.cluster);
    format!("{cluster}  {age}[{bar}] {ready} of {all} ready{rest}")
}

/// Since the first event; empty of a board that has seen none.
pub(super) fn age(board: &Board, now_ms: u64) -> String {
    if board.started_ms == 0 {
        return String::new();
    }
    let elapsed = now_ms.saturating_sub(board.started_ms) as f64 / 1000.0;
    seconds(elapsed.floor().max(1.0))
}

/// A board with more instances than lines.
struct Crowd<'b> {
    board: &'b Board,
    /// By pool, how many are in which phase.
    pools: BTreeMap<&'b str, Vec<&'b Row>>,
    /// By the number of the failure, who has it.
    failed: BTreeMap<Option<usize>, Vec<&'b Row>>,
    under_way: Vec<&'b Row>,
}

impl<'b> Crowd<'b> {
    fn of(board: &'b Board) -> Self {
        let mut crowd = Self {
            board,
            pools: BTreeMap::new(),
            failed: BTreeMap::new(),
            under_way: Vec::new(),
        };
        for row in board.unordered() {
            crowd.pools.entry(&row.pool).or_default().push(row);
            match row.phase() {
                Phase::Failed => crowd.failed.entry(row.failure).or_default().push(row),
                Phase::Ready | Phase::Gone => {}
                _ => crowd.under_way.push(row),
            }
        }
        crowd
    }

    /// At most so many lines.
    fn lines(mut self, room: usize, now_ms: u64, style: Style) -> Vec<String> {
        let mut lines = Vec::new();
        if self.pools.len() > 1 {
            lines.extend(self.pool_lines((room / 3).clamp(1, 8), style));
        }
        let mut shown = 0;
        for line in self.failed_lines((room / 4).max(1), style) {
            shown += line.1;
            lines.push(line.0);
        }
        let left = room.saturating_sub(lines.len() + 1);
        slowest(&mut self.under_way, left);
        shown += self.under_way.len();
        lines.extend(row_lines(self.board, &self.under_way, now_ms, style));
        if shown < self.board.len() && lines.len() < room {
            let slow = self.under_way.iter().map(|row| Phase::name_of(row.phase));
            let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
            for row in self
                .board
                .unordered()
                .filter(|row| row.phase() != Phase::Failed)
            {
                *counts.entry(Phase::name_of(row.phase)).or_default() += 1;
            }
            for name in slow {
                counts.entry(name).and_modify(|count| *count -= 1);
            }
            let rest: u64 = counts.values().sum();
            if rest > 0 {
                let text = format!("  and {rest} more: {}", counts_text(counts));
                lines.push(style.dim(&text));
            }
        }
        lines
    }

    /// `web  412 of 900 ready, 12 failed`, at most so many.
    fn pool_lines(&self, most: usize, style: Style) -> Vec<String> {
        let shown = match self.pools.len() <= most {
            true => most,
            false => most - 1,
        };
        let label = |pool: &str| match pool {
            "" => "(no pool)".to_owned(),
            pool => pool.to_owned(),
        };
        let names = self
            .pools
            .keys()
            .take(shown)
            .map(|pool| label(pool).chars().count());
        let width = names.max().unwrap_or_default();
        let line = |(pool, rows): (&&str, &Vec<&Row>)| {
            let ready = rows
                .iter()
                .filter(|row| row.phase() == Phase::Ready)
                .count();
            let others = rows.iter().filter(|row| row.phase() != Phase::Ready);
            let others = counts_text(others.map(|row| (Phase::name_of(row.phase), 1)));
            let others = match others.as_str() {
                "" => String::new(),
                others => format!(", {others}"),
            };
            format!(
                "  {:<width$}  {ready} of {} ready{others}",
                label(pool),
                rows.len()
            )
        };
        let mut lines: Vec<String> = self.pools.iter().take(shown).map(line).collect();
        let rest = self.pools.len().saturating_sub(shown);
        if rest > 0 {
            let text = format!("  and {}", plural::count(rest, "more pool"));
            lines.push(style.dim(&text));
        }
        lines
    }

    /// `web[1-4]  failed in mount (exit 17): ! no disk`, and of how many each is; those with the most first, at most so many.
    fn failed_lines(&self, most: usize, style: Style) -> Vec<(String, usize)> {
        let mut kinds: Vec<_> = self.failed.iter().collect();
        kinds.sort_by_key(|(number, rows)| (std::cmp::Reverse(rows.len()), **number));
        let shown = match kinds.len() <= most {
            true => most,
            false => most - 1,
        };
        let line = |(_, rows): &(&Option<usize>, &Vec<&Row>)| {
            let names = ranges(rows.iter().map(|row| &*row.name));
            let names = match names.chars().count() <= MAX_NAMES_CHARS {
                true => names,
                false => plural::count(rows.len(), "instance"),
            };
            let why = self.board.why(rows[0]);
            (format!("  {} {why}", style.bad(&names)), rows.len())
        };
        let mut lines: Vec<_> = kinds.iter().take(shown).map(line).collect();
        let rest: usize = kinds.iter().skip(shown).map(|(_, rows)| rows.len()).sum();
        if rest > 0 {
            let text = format!("  and {rest} more failed otherwise");
            lines.push((style.bad(&text), rest));
        }
        lines
    }
}

/// `peers (2 of 3)` of a stage that runs, else how many are done.
fn stage_text(row: &Row) -> String {
    let (stage, all) = (u64::from(row.stage), u64::from(row.stages));
    match (row.phase(), all) {
        (_, 0) => String::new(),
        (Phase::Bootstrapping, all) => sentence::stage_position(&row.stage_name, stage, all),
        (_, all) => format!("{}/{all} ok", row.stages_ok),
    }
}

/// A line per instance.
fn row_lines(board: &Board, rows: &[&Row], now_ms: u64, style: Style) -> Vec<String> {
    let widest = |widths: &mut dyn Iterator<Item = usize>| widths.max().unwrap_or_default();
    let name = widest(&mut rows.iter().map(|row| row.name.chars().count()));
    let stages = rows.iter().map(|row| stage_text(row).chars().count());
    let stage = widest(&mut stages.into_iter()).clamp(8, MAX_STAGE_CHARS);
    let lines = rows.iter();
    lines
        .map(|row| row_line(board, row, (name, stage), now_ms, style))
        .collect()
}

fn row_line(
    board: &Board,
    row: &Row,
    (width, wide): (usize, usize),
    now_ms: u64,
    style: Style,
) -> String {
    let name = format!("  {:<width$}  {}", row.name, style.phase(row.phase, 13));
    if row.phase() == Phase::Failed {
        return format!("{name}  {}", style.dim(&board.why(row)));
    }
    let stage = stage_text(row);
    let since = now_ms.saturating_sub(row.since_ms) / 1000;
    let since = match row.phase() {
        Phase::Ready | Phase::Blocked | Phase::Gone => String::new(),
        _ if row.since_ms == 0 => String::new(),
        _ => seconds((since as f64).max(1.0)),
    };
    let note = match row.phase() {
        Phase::Ready => String::new(),
        Phase::Bootstrapping if !row.last_line.is_empty() => row.last_line.clone(),
        _ => row.note.clone(),
    };
    let text = format!("{name}  {stage:<wide$} {since:>6}  {}", style.dim(&note));
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests;
