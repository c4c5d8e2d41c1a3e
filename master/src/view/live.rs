//! A launch that redraws itself: one line an instance, the counts above. [`frame`] decides what is seen; the rest only
//! puts it on the terminal.

use std::io;

use aot_proto::v1::Event;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::board::{Board, Row};
use super::style::Style;
use super::words::{self, count_words, seconds};
use super::{Streams, View};

/// Most instances with a line of their own; the others are counted.
pub const MAX_LINES: usize = 20;

/// The live view, on standard error.
pub struct Live {
    board: Board,
    bars: MultiProgress,
    lines: Vec<ProgressBar>,
    style: Style,
    now_ms: u64,
    /// How far a wait is; then this line is the whole picture.
    progress: Option<String>,
}

impl Live {
    /// On the process's standard error.
    pub fn new(style: Style) -> Self {
        Self::on(ProgressDrawTarget::stderr(), style)
    }

    /// On any terminal.
    pub fn on(target: ProgressDrawTarget, style: Style) -> Self {
        Self {
            board: Board::default(),
            bars: MultiProgress::with_draw_target(target),
            lines: Vec::new(),
            style,
            now_ms: 0,
            progress: None,
        }
    }

    /// What is on the screen, for lines that belong above it.
    pub fn bars(&self) -> MultiProgress {
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
                let style = ProgressStyle::with_template("{wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar());
                self.lines
                    .push(self.bars.add(ProgressBar::new(0).with_style(style)));
            }
            self.lines[place].set_message(text);
        }
    }
}

impl View for Live {
    fn show(&mut self, event: &Event, _io: &mut Streams) -> io::Result<()> {
        self.now_ms = self.now_ms.max(event.unix_ms);
        self.board.take(event);
        if event.event == "wait-progress" {
            self.progress = Some(event.message.clone());
        }
        if let Some(line) = lasting(event, self.style) {
            self.bars.println(line)?;
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
            line.finish_and_clear();
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
    let said = words::sentence(event);
    match (event.event.as_str(), words::where_to_look(event)) {
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
        board.phase_words(),
        style.dim(&age(board, now_ms))
    )];
    let shown = chosen(board.rows());
    let width = shown
        .iter()
        .map(|place| board.rows()[*place].name.len())
        .max()
        .unwrap_or_default();
    for place in &shown {
        lines.push(row_line(&board.rows()[*place], width, now_ms, style));
    }
    let rest: Vec<&Row> = (0..board.rows().len())
        .filter(|place| !shown.contains(place))
        .map(|place| &board.rows()[place])
        .collect();
    if !rest.is_empty() {
        let counts = count_words(rest.iter().map(|row| (row.phase.as_str(), 1)));
        lines.push(style.dim(&format!("  and {} more: {counts}", rest.len())));
    }
    lines
}

/// The places of the instances that get a line, in the board's order: what failed first, then what works, then what
/// waits, then what is done.
fn chosen(rows: &[Row]) -> Vec<usize> {
    let rank = |row: &Row| match row.phase.as_str() {
        "failed" => 0,
        "bootstrapping" => 1,
        "ready" | "gone" => 4,
        "planned" => 3,
        _ => 2,
    };
    let mut places: Vec<usize> = (0..rows.len()).collect();
    places.sort_by_key(|place| (rank(&rows[*place]), *place));
    places.truncate(MAX_LINES);
    places.sort_unstable();
    places
}

fn row_line(row: &Row, width: usize, now_ms: u64, style: Style) -> String {
    let stage = match (row.phase.as_str(), row.stages) {
        (_, 0) => String::new(),
        ("bootstrapping", of) => format!("stage {}/{of}", row.stage + 1),
        (_, of) => format!("{}/{of} ok", row.stages_ok),
    };
    let since = now_ms.saturating_sub(row.since_ms) / 1000;
    let since = match row.phase.as_str() {
        "ready" | "failed" | "gone" => String::new(),
        _ => seconds((since as f64).max(1.0)),
    };
    let note = if row.phase == "ready" {
        ""
    } else {
        row.note.as_str()
    };
    let text = format!(
        "  {:<width$}  {}  {stage:<10} {since:>7}  {}",
        row.name,
        style.phase(&row.phase, 13),
        style.dim(note)
    );
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::samples;
    use aot_proto::v1::InstanceView;
    use indicatif::InMemoryTerm;

    fn streams() -> Streams {
        Streams {
            stdin: Box::new(io::empty()),
            stdout: Box::new(io::sink()),
            stderr: Box::new(io::sink()),
        }
    }

    #[test]
    fn a_launch_is_redrawn_and_taken_away_at_the_end() {
        let term = InMemoryTerm::new(30, 90);
        let mut live = Live::on(
            ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), 255),
            Style::default(),
        );
        let mut pictures = Vec::new();
        for event in samples::launch() {
            live.show(&event, &mut streams()).expect("drawn");
            if matches!(event.event.as_str(), "stage-started" | "launch-ended") {
                live.tick(event.unix_ms + 2000);
                live.bars.println("").expect("drawn");
                pictures.push(term.contents());
            }
        }
        live.close();
        pictures.push(term.contents());
        insta::assert_snapshot!(pictures.join("\n-----\n"));
    }

    #[test]
    fn a_wait_is_one_line_that_is_redrawn() {
        let term = InMemoryTerm::new(10, 90);
        let mut live = Live::on(
            ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), 255),
            Style::default(),
        );
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
            live.bars.println("").expect("drawn");
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
                97 => "failed",
                0..50 => "ready",
                _ => "booting",
            };
            board.take(&Event {
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
