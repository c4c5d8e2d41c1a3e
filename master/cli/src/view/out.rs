//! The process's streams, each with one writer: nothing else in the command line writes to a terminal.
//!
//! A writer knows whether its own stream is a terminal. Only then is text made harmless ([`super::harmless`]) and given its
//! colours ([`super::style`]); into a pipe or a file bytes go as they are.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::rc::Rc;
use std::sync::OnceLock;

use tracing_subscriber::fmt::MakeWriter;

use super::bars::Bars;
use super::{harmless, style};

/// What becomes of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StreamKind {
    /// Someone sees it: nothing in it may move the cursor, or hide what it says.
    pub terminal: bool,
    /// Colours are wanted there.
    pub colour: bool,
    /// All of it is JSON.
    pub json: bool,
}

/// What the process's terminal is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TerminalTraits {
    /// Standard input is one.
    pub stdin: bool,
    /// Standard output is one.
    pub stdout: bool,
    /// Standard error is one.
    pub stderr: bool,
    /// Lines can be drawn again: `TERM` says what it is, and not `dumb`.
    pub redraws: bool,
    /// Colours are wanted where there is a terminal: `NO_COLOR` (no-color.org) is not set.
    pub colour: bool,
    /// They are wanted elsewhere too.
    pub colour_always: bool,
}

/// When results and messages are coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Into pipes and files too, as for `less -R`
    Always,
    /// Nowhere
    Never,
}

/// What `--color` says; nothing before it was read.
static COLOUR: OnceLock<ColorChoice> = OnceLock::new();

/// What an operator says of colours, which goes before the environment.
pub fn choose_colour(choice: Option<ColorChoice>) {
    if let Some(choice) = choice {
        let _ = COLOUR.set(choice); // it is said once
    }
}

impl TerminalTraits {
    /// Of this process.
    pub(crate) fn of_process() -> Self {
        let choice = COLOUR.get().copied().unwrap_or_default();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|value| value.is_empty() || value == "dumb");
        Self {
            stdin: io::stdin().is_terminal(),
            stdout: io::stdout().is_terminal(),
            stderr: io::stderr().is_terminal(),
            redraws: !dumb,
            colour: match choice {
                ColorChoice::Auto => !dumb && !no_colour,
                ColorChoice::Always => true,
                ColorChoice::Never => false,
            },
            colour_always: choice == ColorChoice::Always,
        }
    }
}

/// The process's three streams, or a test's.
pub(crate) struct Streams {
    /// Answers of the operator.
    pub stdin: Box<dyn BufRead>,
    /// Results.
    pub stdout: Out,
    /// Progress and errors.
    pub stderr: Out,
}

impl Streams {
    /// Those of this process. Standard output is buffered: [`Streams::flush`] before waiting.
    pub(crate) fn of_process() -> Self {
        let terminal = TerminalTraits::of_process();
        let (stdout, stderr) = (
            Out::new(io::BufWriter::new(io::stdout())),
            Out::new(io::stderr()),
        );
        let kind =
            |is_terminal| StreamKind::on(is_terminal || terminal.colour_always, terminal.colour);
        stdout.set_seen(kind(terminal.stdout));
        stderr.set_seen(kind(terminal.stderr));
        Self {
            stdin: Box::new(BufReader::new(io::stdin())),
            stdout,
            stderr,
        }
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// As the streams.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()?;
        self.stderr.flush()
    }
}

impl StreamKind {
    /// On a terminal, or what is shown on one later, as colours always are; or not.
    pub(crate) fn on(terminal: bool, colour: bool) -> Self {
        Self {
            terminal,
            colour: terminal && colour,
            json: false,
        }
    }

    /// As it is written there.
    fn of(self, text: &str) -> String {
        let safe = match (self.json, self.terminal) {
            (true, _) => harmless::json(text),
            (false, true) => harmless::text(text),
            (false, false) => text.into(),
        };
        style::drawn(&safe, self.colour).into_owned()
    }
}

/// The writer of one stream. Clones write to the same one.
#[derive(Clone)]
pub(crate) struct Out(Rc<OutState>);

struct OutState {
    to: RefCell<Box<dyn Write>>,
    seen: Cell<StreamKind>,
    /// What is redrawn on it now.
    live: RefCell<Option<Bars>>,
}

impl Out {
    /// Into a pipe, a file or memory.
    pub(crate) fn new(to: impl Write + 'static) -> Self {
        Self(Rc::new(OutState {
            to: RefCell::new(Box::new(to)),
            seen: Cell::default(),
            live: RefCell::default(),
        }))
    }

    /// Says what becomes of it.
    pub(crate) fn set_seen(&self, seen: StreamKind) {
        self.0.seen.set(seen);
    }

    /// What becomes of it.
    pub(crate) fn seen(&self) -> StreamKind {
        self.0.seen.get()
    }

    /// Lines of [`Out::above`] come above these bars; `None` once they are taken away.
    pub(crate) fn set_live(&self, bars: Option<Bars>) {
        *self.0.live.borrow_mut() = bars;
    }

    /// Writes a text.
    ///
    /// # Errors
    /// As the stream.
    pub(crate) fn text(&self, text: &str) -> io::Result<()> {
        let text = self.seen().of(text);
        self.0.to.borrow_mut().write_all(text.as_bytes())
    }

    /// Prints a line: above what is redrawn, where something is.
    ///
    /// # Errors
    /// As the stream.
    pub(crate) fn above(&self, text: &str) -> io::Result<()> {
        match &*self.0.live.borrow() {
            Some(bars) if !bars.is_hidden() => bars.print(text),
            _ => self.text(&format!("{text}\n")),
        }
    }

    /// Writes a line of a program's output behind a text of ours. Its bytes stay as they are where nobody sees them.
    ///
    /// # Errors
    /// As the stream.
    pub(crate) fn line(&self, before: &str, line: &[u8]) -> io::Result<()> {
        let seen = self.seen();
        let mut all = seen.of(before).into_bytes();
        match seen.terminal {
            true => all.extend(harmless::line(line, seen.colour).into_bytes()),
            false => all.extend(line),
        }
        all.push(b'\n');
        self.0.to.borrow_mut().write_all(&all)
    }
}

/// Text that is formatted. Bytes that are no UTF-8 are replaced on a terminal.
impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.seen() {
            StreamKind {
                terminal: false,
                json: false,
                ..
            } => self.0.to.borrow_mut().write_all(bytes)?,
            _ => self.text(&String::from_utf8_lossy(bytes))?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.to.borrow_mut().flush()
    }

    /// In one piece: a character or a mark is never cut.
    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> io::Result<()> {
        self.text(&text.to_string())
    }
}

/// Width of the terminal that shows results, in characters; `None` where there is none.
pub(crate) fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// Height of the terminal that shows progress, in lines. One that does not say it has 24.
pub(crate) fn rows() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    let rows = size.map(|size| size.ws_row).unwrap_or_default();
    usize::from(if rows == 0 { 24 } else { rows })
}

/// Where the log of a master goes, with a line an event, whatever its fields say: a writer for `tracing_subscriber`, which
/// writes each event with one call.
#[derive(Debug, Clone, Copy)]
pub struct LogLines<M>(pub M);

/// Standard error for a log.
pub fn log_on_stderr() -> LogLines<fn() -> io::Stderr> {
    LogLines(io::stderr)
}

/// One event on its way.
#[derive(Debug)]
pub struct LogLine<W>(W);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for LogLines<M> {
    type Writer = LogLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        LogLine(self.0.make_writer())
    }
}

impl<W: Write> Write for LogLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(log_line(event).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn log_line(event: &[u8]) -> String {
    let text = String::from_utf8_lossy(event);
    let line = harmless::one_line(text.trim_end_matches('\n'));
    format!("{line}\n")
}

/// Prints what a panic says as all else is printed: it may quote anything.
pub fn panics_are_harmless() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?").to_owned();
        let trace = std::backtrace::Backtrace::capture();
        let mut text = format!("thread '{name}' {panic}\n");
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            text.push_str(&format!("{trace}\n"));
        }
        // Nowhere to say it.
        let _ = Streams::of_process().stderr.text(&text);
    }));
}

/// What a library drew in colours (clap, miette), to be written by an [`Out`]; `plain` is the same without colours.
pub fn drawn_by_library(plain: &str, drawn: &str) -> String {
    style::adopted(plain, drawn)
}

/// JSON that is read by people as well: the same document, harmless for a terminal.
pub(crate) fn harmless_json(text: &str) -> String {
    harmless::json(text).into_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::view::{LiveView, Style, View, samples};

    /// Memory that is shared with whoever looks at it.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Rc<RefCell<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.borrow().clone()
        }

        pub(crate) fn text(&self) -> String {
            String::from_utf8_lossy(&self.bytes()).into_owned()
        }
    }

    fn written(seen: StreamKind, write: impl FnOnce(&mut Out)) -> Vec<u8> {
        let kept = Kept::default();
        let mut out = Out::new(kept.clone());
        out.set_seen(seen);
        write(&mut out);
        kept.bytes()
    }

    const MARKS: &str = "\x1b]0;x\x07\u{9b}31m\u{202e}\r\u{200b}\u{feff}";

    #[test]
    fn each_stream_is_judged_by_itself() {
        let style = Style { colour: true };
        let said = style.bad(&format!("why: {MARKS}"));
        let write = |out: &mut Out| writeln!(out, "{said}").expect("written");
        let pipe = written(StreamKind::default(), write);
        assert_eq!(String::from_utf8_lossy(&pipe), format!("why: {MARKS}\n"));
        let terminal = written(StreamKind::on(true, false), write);
        assert_eq!(
            String::from_utf8_lossy(&terminal),
            "why: ^[]0;x^G\u{fffd}31m\u{fffd}^M\u{fffd}\u{fffd}\n"
        );
        let coloured = written(StreamKind::on(true, true), write);
        assert_eq!(
            String::from_utf8_lossy(&coloured),
            "\x1b[31mwhy: ^[]0;x^G\u{fffd}31m\u{fffd}^M\u{fffd}\u{fffd}\x1b[0m\n"
        );
        assert_eq!(StreamKind::on(false, true), StreamKind::default());
    }

    #[test]
    fn output_stays_byte_exact_where_nobody_sees_it() {
        let line = b"\xff\r\x1b[2J\x9b";
        let write = |out: &mut Out| out.line("web1 | ", line).expect("written");
        let pipe = written(StreamKind::default(), write);
        assert_eq!(pipe, b"web1 | \xff\r\x1b[2J\x9b\n");
        let terminal = written(StreamKind::on(true, true), write);
        assert_eq!(String::from_utf8_lossy(&terminal), "web1 | \u{fffd}\n");
        let raw = |out: &mut Out| out.write_all(b"\xff\x1b").expect("written");
        assert_eq!(written(StreamKind::default(), raw), b"\xff\x1b");
        assert_eq!(
            written(StreamKind::on(true, true), raw),
            "\u{fffd}^[".as_bytes()
        );
    }

    #[test]
    fn json_is_escaped_in_pipes_too() {
        let seen = StreamKind {
            json: true,
            ..StreamKind::default()
        };
        let value = serde_json::json!({ "why": MARKS });
        let text = written(seen, |out| writeln!(out, "{value}").expect("written"));
        assert!(text.is_ascii(), "{text:?}");
        let back: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(back, value);
    }

    #[test]
    fn an_event_is_one_line_of_a_log() {
        let forged = "INFO  refused machine_id=i-1\n2026-01-01 INFO all well \x1b[2J\n";
        assert_eq!(
            log_line(forged.as_bytes()),
            "INFO  refused machine_id=i-1^J2026-01-01 INFO all well ^[[2J\n"
        );
    }

    #[test]
    fn a_line_goes_above_the_live_view_and_else_to_the_stream() {
        let kept = Kept::default();
        let mut io = Streams {
            stdin: Box::new(io::empty()),
            stdout: Out::new(io::sink()),
            stderr: Out::new(kept.clone()),
        };
        let aside = io.stderr.clone();
        writeln!(io.stderr, "before").expect("written");
        aside.above("call 1").expect("written");

        let (bars, term) = Bars::in_memory(30, 90);
        let mut live = LiveView::on(bars, Style::default());
        aside.set_live(Some(live.bars()));
        for event in &samples::launch()[..4] {
            live.show(event, &mut io).expect("drawn");
        }
        aside.above("call 2\x1b[2J").expect("drawn");
        let picture = term.contents();
        assert!(
            picture.starts_with("call 2^[[2J\nhadoop  1.0 s  [") && picture.contains("web2"),
            "{picture}"
        );
        live.close(&mut io).expect("closed");
        aside.set_live(None);
        aside.above("call 3").expect("written");
        assert_eq!(kept.text(), "before\ncall 1\ncall 3\n");
    }
}
