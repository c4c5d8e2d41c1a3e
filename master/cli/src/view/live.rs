//! A launch that redraws itself: one line per instance, the counts above. [`frame`] decides what is seen; the rest only
//! puts it on the terminal.

use std::io;

use aot_proto::v1::{Event, Phase};

use super::bars::{Bar, Bars, Shows};
use super::format::{counts_text, seconds};
use super::launch_board::{Board, Row};
use super::sentence;
use super::style::Style;
use super::{Streams, View};

/// Most instances with a line of their own; the others are counted.
pub(super) const MAX_LINES: usize = 20;

/// A longer name of a stage pushes what stands behind it aside.
const MAX_STAGE_CHARS: usize = 24;

/// The live view, on standard error.
pub(crate) struct LiveView {
    board: Board,
    bars: Bars,
    lines: Vec<Bar>,
    style: Style,
    now_ms: u64,
    /// How far a wait is; then this line is the whole picture.
    progress: Option<String>,
}

impl LiveView {
    /// On the process's standard error.
    pub(crate) fn new(style: Style) -> Self {
        Self::on(Bars::on_stderr(), style)
    }

    /// On any terminal.
    pub(crate) fn on(bars: Bars, style: Style) -> Self {
        Self {
            board: Board::default(),
            bars,
            lines: Vec::new(),
            style,
            now_ms: 0,
            progress: None,
        }
    }

    /// What is on the screen, for lines that belong above it.
    pub(crate) fn bars(&self) -> Bars {
        self.bars.clone()
    }

    fn draw(&mut self) {
        let frame = match &self.progress {
            Some(progress) => vec![progress_line(
                &self.board,
                progress,
                self.now_ms,
                self.style,
            )],
            None => frame(&self.board, self.now_ms, self.style),
        };
        while self.lines.len() > frame.len() {
            if let Some(line) = self.lines.pop() {
                self.bars.remove(&line);
            }
        }
        for (place, text) in frame.into_iter().enumerate() {
            if place == self.lines.len() {
                self.lines.push(self.bars.add(Shows::Text));
            }
            self.lines[place].set_text(&text);
        }
    }
}

impl View for LiveView {
    fn show(&mut self, event: &Event, _io: &mut Streams) -> io::Result<()> {
        self.now_ms = self.now_ms.max(event.unix_ms);
        self.board.step(event);
        if event.event == "wait-progress" {
            self.progress = Some(event.message.clone());
        }
        if let Some(line) = lasting(event, self.style) {
            self.bars.print(&line)?;
        }
        self.draw();
        Ok(())
    }

    fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        self.draw();
    }

    fn close(&mut self) {
        for line in self.lines.drain(..) {
            self.bars.remove(&line);
        }
    }
}

/// What stays on the screen above the lines: failures and notices.
fn lasting(event: &Event, style: Style) -> Option<String> {
    let about = [&event.instance, &event.cluster]
        .into_iter()
        .find(|name| !name.is_empty());
    let about = about.map(String::as_str).unwrap_or_default();
    if sentence::is_repetition(event) {
        return None;
    }
    let mut said = sentence::sentence(event);
    for line in sentence::printed(event) {
        said.push_str(&format!("\n  {}", style.dim(&format!("| {line}"))));
    }
    match (event.event.as_str(), sentence::log_hint(event)) {
        (_, Some(look)) => Some(format!("{} {said}\n  {look}", style.bad(about))),
        ("instance-failed" | "boot-failed", None) => Some(format!("{} {said}", style.bad(about))),
        ("notice", None) => Some(format!("{} {said}", style.bold(about))),
        _ => None,
    }
}

/// `hadoop  [1/4] instances 'running', waiting...  12 s`.
fn progress_line(board: &Board, progress: &str, now_ms: u64, style: Style) -> String {
    let cluster = style.bold(&board.cluster);
    format!("{cluster}  {progress}  {}", style.dim(&age(board, now_ms)))
}

/// Since the first event.
fn age(board: &Board, now_ms: u64) -> String {
    let elapsed = now_ms.saturating_sub(board.started_ms) as f64 / 1000.0;
    seconds(elapsed.floor().max(1.0))
}

/// Every line of the picture: the header, the instances, the rest in counts.
fn frame(board: &Board, now_ms: u64, style: Style) -> Vec<String> {
    if board.rows().is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "{}  {}  {}",
        style.bold(&board.cluster),
        board.phase_counts(),
        style.dim(&age(board, now_ms))
    )];
    let shown = chosen(board.rows());
    let rows = || shown.iter().map(|place| &board.rows()[*place]);
    let widest = |widths: &mut dyn Iterator<Item = usize>| widths.max().unwrap_or_default();
    let widths = (
        widest(&mut rows().map(|row| row.name.chars().count())),
        widest(&mut rows().map(|row| stage_text(row).chars().count())).clamp(8, MAX_STAGE_CHARS),
    );
    for row in rows() {
        lines.push(row_line(row, widths, now_ms, style));
    }
    let rest: Vec<&Row> = (0..board.rows().len())
        .filter(|place| !shown.contains(place))
        .map(|place| &board.rows()[place])
        .collect();
    if !rest.is_empty() {
        let counts = counts_text(rest.iter().map(|row| (Phase::name_of(row.phase), 1)));
        lines.push(style.dim(&format!("  and {} more: {counts}", rest.len())));
    }
    lines
}

/// The places of the instances that get a line, in the board's order: what failed first, then what works, then what
/// waits, then what is done.
fn chosen(rows: &[Row]) -> Vec<usize> {
    let rank = |row: &Row| match row.phase() {
        Phase::Failed => 0,
        Phase::Blocked | Phase::Bootstrapping => 1,
        Phase::Ready | Phase::Gone => 4,
        Phase::Planned => 3,
        _ => 2,
    };
    let mut places: Vec<usize> = (0..rows.len()).collect();
    places.sort_by_key(|place| (rank(&rows[*place]), *place));
    places.truncate(MAX_LINES);
    places.sort_unstable();
    places
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

fn row_line(row: &Row, (width, wide): (usize, usize), now_ms: u64, style: Style) -> String {
    let stage = stage_text(row);
    let since = now_ms.saturating_sub(row.since_ms) / 1000;
    let since = match row.phase() {
        Phase::Ready | Phase::Failed | Phase::Blocked | Phase::Gone => String::new(),
        _ => seconds((since as f64).max(1.0)),
    };
    let note = if row.phase() == Phase::Ready {
        ""
    } else {
        row.note.as_str()
    };
    let text = format!(
        "  {:<width$}  {}  {stage:<wide$} {since:>6}  {}",
        row.name,
        style.phase(row.phase, 13),
        style.dim(note)
    );
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Out, samples};
    use aot_proto::v1::InstanceView;

    fn streams() -> Streams {
        Streams {
            stdin: Box::new(io::empty()),
            stdout: Out::new(io::sink()),
            stderr: Out::new(io::sink()),
        }
    }

    #[test]
    fn a_launch_is_redrawn_and_taken_away_at_the_end() {
        let (bars, term) = Bars::in_memory(30, 90);
        let mut live = LiveView::on(bars, Style::default());
        let mut pictures = Vec::new();
        for event in samples::launch() {
            live.show(&event, &mut streams()).expect("drawn");
            if matches!(event.event.as_str(), "stage-started" | "launch-ended") {
                live.tick(event.unix_ms + 2000);
                live.bars.print("").expect("drawn");
                pictures.push(term.contents());
            }
        }
        live.close();
        pictures.push(term.contents());
        insta::assert_snapshot!(pictures.join("\n-----\n"));
    }

    #[test]
    fn a_wait_is_one_line_that_is_redrawn() {
        let (bars, term) = Bars::in_memory(10, 90);
        let mut live = LiveView::on(bars, Style::default());
        let mut event = |at: u64, word: &str, instance: &str, message: &str| {
            let event = Event {
                unix_ms: 1000 + at,
                cluster: "hadoop".into(),
                instance: instance.into(),
                event: word.into(),
                message: message.into(),
                ..Event::default()
            };
            live.show(&event, &mut streams()).expect("drawn");
            live.bars.print("").expect("drawn");
            term.contents().trim().to_owned()
        };
        event(
            0,
            "wait-progress",
            "",
            "[0/2] instances 'running', waiting...",
        );
        event(4000, "instance-stopped", "web1", "stopped");
        assert_eq!(
            event(
                9000,
                "wait-progress",
                "",
                "[1/2] instances 'running', waiting..."
            ),
            "hadoop  [1/2] instances 'running', waiting...  9.0 s"
        );
        assert!(
            event(9500, "instance-failed", "web2", "it does not start")
                .starts_with("web2 failed: it does not start\n"),
        );
        live.close();
    }

    #[test]
    fn more_than_twenty_instances_are_counted_and_the_failed_ones_seen() {
        let mut board = Board::default();
        for place in 0..100 {
            let phase = match place {
                97 => Phase::Failed,
                0..50 => Phase::Ready,
                _ => Phase::Booting,
            };
            board.step(&Event {
                unix_ms: 1000,
                cluster: "big".into(),
                instance: format!("n{place}"),
                event: "snapshot".into(),
                view: Some(InstanceView {
                    name: format!("n{place}"),
                    phase: phase.into(),
                    ..InstanceView::default()
                }),
                ..Event::default()
            });
        }
        let lines = frame(&board, 61_000, Style::default());
        assert_eq!(lines.len(), 1 + MAX_LINES + 1);
        assert_eq!(lines[0], "big  50 ready, 1 failed, 49 booting  60 s");
        assert!(
            lines.iter().any(|line| line.starts_with("  n97")),
            "{lines:?}"
        );
        assert_eq!(lines[21], "  and 80 more: 50 ready, 30 booting");
    }
}
