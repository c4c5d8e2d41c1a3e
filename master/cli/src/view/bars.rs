//! Lines that are redrawn at the bottom of standard error. The only place that draws them, and like the writer of a stream
//! it makes harmless what it is given.

use std::io;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::{harmless, style};

/// How often they are drawn in a second at most, as indicatif has it for a terminal of its own.
const REDRAWS: u8 = 20;

/// A terminal whose cursor rests at the begin of the last line. At its end, where indicatif leaves it, what is typed would begin a
/// line below, and the lines would be taken for those one further down.
#[derive(Debug)]
struct RestsAtBegin<T>(T);

impl<T: TermLike> TermLike for RestsAtBegin<T> {
    fn width(&self) -> u16 {
        self.0.width()
    }

    fn height(&self) -> u16 {
        self.0.height()
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.write_str("\r")?;
        self.0.flush()
    }
}

/// Some lines; clones are the same lines.
#[derive(Clone)]
pub(crate) struct Bars(MultiProgress);

/// One of them.
pub(crate) struct Bar(ProgressBar);

/// What a line shows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shows {
    /// A text, as wide as the terminal at most.
    Text,
    /// How many bytes of all have come.
    Share(u64),
    /// How many bytes have come.
    Bytes,
}

impl Bars {
    /// On the process's standard error; nothing is seen unless it is a terminal.
    pub(crate) fn on_stderr() -> Self {
        Self::on(ProgressDrawTarget::stderr())
    }

    /// The same for lines that are always taken away again: where Ctrl-C is echoed as ^C, that stays on the last one and goes with it.
    pub(crate) fn over_stderr() -> Self {
        let term = Term::buffered_stderr();
        let dumb = std::env::var_os("TERM").is_none_or(|value| value.is_empty() || value == "dumb");
        match term.is_term() && !dumb {
            true => Self::over(term),
            false => Self::hidden(),
        }
    }

    fn over(term: impl TermLike + 'static) -> Self {
        let term = Box::new(RestsAtBegin(term));
        Self::on(ProgressDrawTarget::term_like_with_hz(term, REDRAWS))
    }

    /// Not seen at all.
    pub(crate) fn hidden() -> Self {
        Self::on(ProgressDrawTarget::hidden())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        Self(MultiProgress::with_draw_target(target))
    }

    /// In memory, and what is seen there.
    #[cfg(test)]
    pub(crate) fn in_memory(rows: u16, columns: u16) -> (Self, indicatif::InMemoryTerm) {
        let term = indicatif::InMemoryTerm::new(rows, columns);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(term.clone()), 255);
        (Self::on(target), term)
    }

    /// In memory, as [`Bars::over_stderr`] on a terminal.
    #[cfg(test)]
    pub(crate) fn over_memory(rows: u16, columns: u16) -> (Self, indicatif::InMemoryTerm) {
        let term = indicatif::InMemoryTerm::new(rows, columns);
        (Self::over(term.clone()), term)
    }

    /// Whether nobody sees them.
    pub(crate) fn is_hidden(&self) -> bool {
        self.0.is_hidden()
    }

    /// One more, below the others.
    pub(crate) fn add(&self, shows: Shows) -> Bar {
        let (template, bar) = match shows {
            Shows::Text => ("{wide_msg}", ProgressBar::new(0)),
            Shows::Share(bytes) => (
                "{prefix} [{bar:10}] {bytes}/{total_bytes} {bytes_per_sec} {wide_msg}",
                ProgressBar::new(bytes),
            ),
            Shows::Bytes => (
                "{prefix} {spinner} {bytes} {bytes_per_sec} {wide_msg}",
                ProgressBar::no_length(),
            ),
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        Bar(self.0.add(bar.with_style(style)))
    }

    /// Takes one away.
    pub(crate) fn remove(&self, bar: &Bar) {
        bar.0.finish_and_clear();
        self.0.remove(&bar.0);
    }

    /// Prints lines above them.
    ///
    /// # Errors
    /// As the terminal.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        self.0.println(style::drawn(&harmless::text(text), true))
    }

    /// Lets something else print while they are away.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Takes them away until they are drawn again; a failing terminal shows none anyway.
    pub(crate) fn clear(&self) {
        let _ = self.0.clear();
    }

    /// Leaves on the screen what is there.
    pub(crate) fn leave(&self) {
        self.0.set_move_cursor(false);
    }
}

impl Bar {
    pub(crate) fn set_text(&self, text: &str) {
        self.0.set_message(line(text));
    }

    /// What stands before a number of bytes.
    pub(crate) fn set_prefix(&self, text: &str) {
        self.0.set_prefix(cut(&line(text)));
    }

    /// This many bytes are there.
    pub(crate) fn set_bytes(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// This many more.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// How many bytes are there.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> u64 {
        self.0.position()
    }

    /// How many there will be, where that is known.
    pub(crate) fn all_bytes(&self) -> Option<u64> {
        self.0.length()
    }

    /// No more comes; stays with this text, or as it is.
    pub(crate) fn end(&self, text: Option<&str>) {
        match text {
            Some(text) => self.0.abandon_with_message(line(text)),
            None => self.0.abandon(),
        }
    }

    /// Whether no more comes.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    /// Draws its clock again.
    pub(crate) fn tick(&self) {
        self.0.tick();
    }
}

/// One line, harmless, with the colours that [`super::Style`] gave it.
fn line(text: &str) -> String {
    style::drawn(&harmless::one_line(text), true).into_owned()
}

/// A prefix that leaves room for the rest of its line on 80 columns.
fn cut(text: &str) -> String {
    const MOST: usize = 24;
    match text.chars().count() > MOST {
        true => text.chars().take(MOST - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_harmless() {
        let (bars, term) = Bars::in_memory(10, 200);
        let marks = "a\x1b[2J\x1b]0;x\x07\u{202e}\nb";
        let bar = bars.add(Shows::Text);
        bar.set_text(marks);
        bars.print(marks).expect("drawn");
        let picture = term.contents();
        assert!(picture.starts_with("a^[[2J^[]0;x^G"), "{picture}");
        assert!(picture.contains("^Jb"), "a bar is one line: {picture}");
        bars.remove(&bar);
        let bar = bars.add(Shows::Bytes);
        bar.set_prefix(marks);
        bar.end(Some(marks));
        let picture = term.contents();
        assert_eq!(picture.matches("^[[2J^[]0;x^G").count(), 3, "{picture}");
    }

    #[test]
    fn what_ctrl_c_is_echoed_as_goes_with_the_lines() {
        let (bars, term) = Bars::over_memory(10, 40);
        term.write_line("before").expect("written");
        let lines: Vec<Bar> = (0..3).map(|_| bars.add(Shows::Text)).collect();
        for (line, text) in lines.iter().zip(["one", "two", "three"]) {
            line.set_text(text);
            line.tick();
        }
        bars.print("above").expect("drawn");
        assert_eq!(term.contents(), "before\nabove\none\ntwo\nthree");
        term.write_str("^C").expect("written");
        for line in &lines {
            bars.remove(line);
        }
        assert_eq!(term.contents(), "before\nabove");
        term.write_line("after").expect("written");
        assert_eq!(term.contents(), "before\nabove\nafter");
    }

    #[test]
    fn a_line_of_bytes_fits_80_columns() {
        let (bars, term) = Bars::in_memory(10, 80);
        let bar = bars.add(Shows::Share(137_000_000));
        bar.set_prefix(&"a-long-name-of-an-instance".repeat(2));
        bar.set_bytes(136_999_999);
        bar.end(Some("timed out"));
        let picture = term.contents();
        assert_eq!(picture.trim_end().lines().count(), 1, "{picture}");
        assert!(picture.starts_with("a-long-name-of-an-insta…"), "{picture}");
    }
}
