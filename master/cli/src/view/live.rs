//! A launch that redraws itself. What is seen `frame` decides; this puts it on the terminal, with failures above it.

use std::io;

use aot_proto::limits::MAX_LAST_LINES;
use aot_proto::v1::Event;
use aot_proto::v1::last_lines_reply::Line;

use super::bars::{Bar, Bars, Shows};
use super::frame::{age, frame, running};
use super::launch_board::Board;
use super::out::rows;
use super::sentence;
use super::style::Style;
use super::{Streams, View};

/// A board of more instances is drawn by its clock alone, not with each event.
const DRAWN_AT_ONCE: usize = 50;

/// The live view, on standard error.
pub(crate) struct LiveView {
    board: Board,
    picture: Picture,
    style: Style,
    now_ms: u64,
    /// How far a wait is; then this line is the whole picture.
    progress: Option<String>,
}

/// Lines that are drawn again in the place of those before.
pub(crate) struct Picture {
    bars: Bars,
    /// How high the terminal is, asked each time: it changes its size.
    rows: fn() -> usize,
    lines: Vec<Bar>,
}

impl Picture {
    /// On the process's standard error; nothing is there yet.
    pub(crate) fn on_stderr() -> Self {
        Self::on(Bars::over_stderr(), rows)
    }

    /// On any terminal.
    fn on(bars: Bars, rows: fn() -> usize) -> Self {
        Self {
            bars,
            rows,
            lines: Vec::new(),
        }
    }

    /// What is on the screen, for lines that belong above it.
    pub(crate) fn bars(&self) -> &Bars {
        &self.bars
    }

    /// How many lines it may have: one is the cursor's.
    pub(crate) fn most(&self) -> usize {
        (self.rows)().saturating_sub(1)
    }

    /// Draws these lines.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        while self.lines.len() > lines.len() {
            if let Some(line) = self.lines.pop() {
                self.bars.remove(&line);
            }
        }
        for (place, text) in lines.iter().enumerate() {
            if place == self.lines.len() {
                self.lines.push(self.bars.add(Shows::Text));
            }
            self.lines[place].set_text(text);
        }
    }

    /// Takes it away. Safe to repeat.
    pub(crate) fn close(&mut self) {
        for line in self.lines.drain(..) {
            self.bars.remove(&line);
        }
    }
}

impl LiveView {
    /// On the process's standard error.
    pub(crate) fn new(style: Style) -> Self {
        Self::in_place_of(Picture::on_stderr(), style)
    }

    /// On a terminal of 30 lines.
    #[cfg(test)]
    pub(crate) fn on(bars: Bars, style: Style) -> Self {
        Self::in_place_of(Picture::on(bars, || 30), style)
    }

    fn in_place_of(picture: Picture, style: Style) -> Self {
        Self {
            board: Board::default(),
            picture,
            style,
            now_ms: 0,
            progress: None,
        }
    }

    /// What is on the screen, for lines that belong above it.
    pub(crate) fn bars(&self) -> Bars {
        self.picture.bars().clone()
    }

    fn draw(&mut self) {
        let frame = match &self.progress {
            Some(progress) => vec![progress_line(
                &self.board,
                progress,
                self.now_ms,
                self.style,
            )],
            None => frame(&self.board, self.now_ms, self.style, self.picture.most()),
        };
        self.picture.draw(&frame);
    }

    /// Prints what is to be said of those that failed, above the picture.
    fn say_failures(&mut self, now_ms: Option<u64>) -> io::Result<()> {
        for report in self.board.due(now_ms, self.style) {
            self.picture.bars().print(&report.lines.join("\n"))?;
        }
        Ok(())
    }
}

impl View for LiveView {
    fn show(&mut self, event: &Event, _io: &mut Streams) -> io::Result<()> {
        self.now_ms = self.now_ms.max(event.unix_ms);
        self.board.step(event);
        let is_progress = event.event == "wait-progress";
        if is_progress {
            self.progress = Some(event.message.clone());
        }
        if let Some(line) = notice(event, self.style) {
            self.say_failures(None)?;
            self.picture.bars().print(&line)?;
        }
        if is_progress || event.last || self.board.len() <= DRAWN_AT_ONCE {
            self.draw();
        }
        Ok(())
    }

    fn tick(&mut self, now_ms: u64, _io: &mut Streams) -> io::Result<()> {
        self.now_ms = self.now_ms.max(now_ms);
        self.say_failures(Some(now_ms))?;
        self.draw();
        Ok(())
    }

    fn running(&self) -> Vec<String> {
        match self.progress {
            Some(_) => Vec::new(),
            None => running(&self.board, self.picture.most().min(MAX_LAST_LINES)),
        }
    }

    fn last_lines(&mut self, lines: &[Line]) {
        for line in lines {
            self.board
                .set_last_line(&line.instance, line.stage, &line.text);
        }
    }

    fn hide(&mut self) {
        self.picture.close();
    }

    fn close(&mut self, _io: &mut Streams) -> io::Result<()> {
        self.picture.close();
        self.say_failures(None)
    }
}

/// What else stays on the screen above the picture.
fn notice(event: &Event, style: Style) -> Option<String> {
    let about = [&event.instance, &event.cluster]
        .into_iter()
        .find(|name| !name.is_empty());
    let about = about.map(String::as_str).unwrap_or_default();
    let is_of_all = event.instance.is_empty();
    match event.event.as_str() {
        "notice" | "update-stopped" => Some(format!(
            "{} {}",
            style.bold(about),
            sentence::sentence(event)
        )),
        "instance-failed" | "boot-failed" if is_of_all => Some(format!(
            "{} {}",
            style.bad(about),
            sentence::sentence(event)
        )),
        _ => None,
    }
}

/// `hadoop  [1/4] instances 'running', waiting...  12 s`.
fn progress_line(board: &Board, progress: &str, now_ms: u64, style: Style) -> String {
    let cluster = style.bold(&board.cluster);
    format!("{cluster}  {progress}  {}", style.dim(&age(board, now_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Out, samples};

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
                live.tick(event.unix_ms + 2000, &mut streams())
                    .expect("drawn");
                live.bars().print("").expect("drawn");
                pictures.push(term.contents());
            }
        }
        live.close(&mut streams()).expect("closed");
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
            live.bars().print("").expect("drawn");
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
        event(9500, "instance-failed", "web2", "it does not start");
        event(9500, "instance-failed", "web1", "it does not start");
        live.tick(10_000, &mut streams()).expect("drawn");
        live.tick(11_000, &mut streams()).expect("drawn");
        let shown = term.contents().trim_start().to_owned();
        assert!(
            shown.starts_with("web[1-2] failed: it does not start\n"),
            "{shown}"
        );
        live.close(&mut streams()).expect("closed");
    }
}
