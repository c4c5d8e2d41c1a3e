//! One terminal from its start to its end: what is typed here goes there, what it shows is written here.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Duration;

use aot_proto::v1::{ShellEnded, ShellInput, ShellOutput, ShellSize, shell_input, shell_output};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{self, MissedTickBehavior};
use tonic::{Status, Streaming};

use super::escape::{EscapeAction, Escapes, HELP};
use super::modes::Modes;
use super::signals::{Caught, TerminalSignals};
use super::terminal::{self, RawMode};

/// Largest piece of input in one message.
const PIECE_BYTES: usize = 16 << 10;
/// Pieces that may wait between the threads that read and write, and this loop.
const PIECES: usize = 4;
/// Messages that may wait for a program that does not read. Past it, nothing is read here, not even `~.`.
const MOST_PENDING: usize = 256;
/// Ctrl-D, the end of a file in a terminal (termios(3), VEOF).
const EOT: u8 = 4;
/// Between two of them: one that comes while a program is being started is lost.
const EOT_EVERY: Duration = Duration::from_millis(500);

/// How a terminal ended.
#[derive(Debug)]
pub(super) enum TerminalEnd {
    /// The master says how.
    Remote(ShellEnded),
    /// `~.`
    Left,
    /// A signal to this process: its number.
    Signal(u8),
    /// The master is gone.
    Lost(Option<Box<Status>>),
    /// Nobody takes what it shows.
    Output(io::Error),
}

enum TerminalInput {
    Typed(Option<Vec<u8>>),
    Shown(Result<Option<ShellOutput>, Status>),
    Unwritable,
    Signal(Caught),
    EndAgain,
}

pub(super) struct TerminalSession {
    typed: mpsc::Sender<ShellInput>,
    shown: Streaming<ShellOutput>,
    signals: TerminalSignals,
    /// `None` when standard input is not a terminal; escapes are then only bytes.
    raw: Option<RawMode>,
    escapes: Escapes,
    modes: Modes,
    pending: VecDeque<shell_input::Body>,
    /// Standard input is at its end, and is not a terminal.
    ended: bool,
}

impl TerminalSession {
    /// One that has started.
    pub(super) fn new(
        typed: mpsc::Sender<ShellInput>,
        shown: Streaming<ShellOutput>,
        signals: TerminalSignals,
        raw: Option<RawMode>,
    ) -> Self {
        Self {
            typed,
            shown,
            signals,
            raw,
            escapes: Escapes::default(),
            modes: Modes::default(),
            pending: VecDeque::new(),
            ended: false,
        }
    }

    /// Until its end; this process's terminal is as before then.
    pub(super) async fn run(mut self) -> TerminalEnd {
        // A size that came between the asking and here.
        self.pending.push_back(resize());
        let mut keys = read_stdin();
        let (screen, mut writer) = write_stdout();
        let end = self.copy(&mut keys, &screen).await;
        let undo = self.modes.undo();
        if self.raw.is_some() && cut_off(&end) && !undo.is_empty() {
            // Without room nobody is looking.
            let _ = screen.try_send(undo.into_bytes());
        }
        drop(screen);
        // What it showed last is written before anything is said about it; a signal need not wait for that.
        let written = tokio::select! {
            written = &mut writer => written.unwrap_or(Ok(())),
            number = self.signals.fatal() => return TerminalEnd::Signal(number),
        };
        match (end, written) {
            (TerminalEnd::Output(_), Err(error)) => TerminalEnd::Output(error),
            (end, _) => end,
        }
    }

    async fn copy(
        &mut self,
        keys: &mut mpsc::Receiver<Vec<u8>>,
        screen: &mpsc::Sender<Vec<u8>>,
    ) -> TerminalEnd {
        let mut again = time::interval(EOT_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // An arm only picks an input. Every arm is cancel safe.
            let input = tokio::select! {
                permit = self.typed.reserve(), if !self.pending.is_empty() => {
                    if let (Ok(permit), body @ Some(_)) = (permit, self.pending.pop_front()) {
                        permit.send(ShellInput { body });
                    }
                    continue;
                }
                piece = keys.recv(), if !self.ended && self.pending.len() < MOST_PENDING => TerminalInput::Typed(piece),
                // Nothing is read from the master that could not be written here.
                input = next(&mut self.shown, screen) => input,
                caught = self.signals.next() => TerminalInput::Signal(caught),
                _ = again.tick(), if self.ended && self.pending.is_empty() => TerminalInput::EndAgain,
            };
            let end = match input {
                TerminalInput::Typed(piece) => self.keys(piece, screen).await,
                TerminalInput::Shown(message) => self.show(message, screen).await,
                TerminalInput::Unwritable => {
                    Some(TerminalEnd::Output(io::ErrorKind::BrokenPipe.into()))
                }
                TerminalInput::Signal(caught) => self.caught(caught),
                TerminalInput::EndAgain => {
                    self.pending.push_back(shell_input::Body::Data(vec![EOT]));
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn show(
        &mut self,
        message: Result<Option<ShellOutput>, Status>,
        screen: &mpsc::Sender<Vec<u8>>,
    ) -> Option<TerminalEnd> {
        match message {
            Ok(Some(ShellOutput { body })) => match body {
                Some(shell_output::Body::Data(data)) => {
                    self.modes.step(&data);
                    // There was room; a screen that is gone is seen by the loop.
                    let _ = screen.send(data).await;
                    None
                }
                Some(shell_output::Body::Ended(ended)) => Some(TerminalEnd::Remote(ended)),
                Some(shell_output::Body::Started(_)) | None => None,
            },
            Ok(None) => Some(TerminalEnd::Lost(None)),
            Err(status) => Some(TerminalEnd::Lost(Some(Box::new(status)))),
        }
    }

    async fn keys(
        &mut self,
        piece: Option<Vec<u8>>,
        screen: &mpsc::Sender<Vec<u8>>,
    ) -> Option<TerminalEnd> {
        let Some(piece) = piece else {
            // A terminal that ends is one that was closed; a file that ends is an end that is told.
            self.ended = true;
            return self.raw.is_some().then_some(TerminalEnd::Signal(1));
        };
        let steps = match self.raw {
            Some(_) => self.escapes.step(&piece),
            None => vec![EscapeAction::Send(piece)],
        };
        for step in steps {
            match step {
                EscapeAction::Send(data) => self.pending.push_back(shell_input::Body::Data(data)),
                // A screen that is gone is seen by the loop.
                EscapeAction::Help => drop(screen.send(HELP.as_bytes().to_vec()).await),
                EscapeAction::Leave => return Some(TerminalEnd::Left),
            }
        }
        None
    }

    fn caught(&mut self, caught: Caught) -> Option<TerminalEnd> {
        match caught {
            Caught::Fatal(number) => return Some(TerminalEnd::Signal(number)),
            Caught::Resized => self.pending.push_back(resize()),
            Caught::Continued => {
                if let Some(Err(error)) = self.raw.as_ref().map(RawMode::again) {
                    return Some(TerminalEnd::Output(error));
                }
                self.pending.push_back(resize());
            }
        }
        None
    }
}

fn resize() -> shell_input::Body {
    let (columns, rows) = terminal::size(&[&io::stdin(), &io::stdout()]);
    shell_input::Body::Resize(ShellSize { columns, rows })
}

/// The next word of the master, once there is room for it.
async fn next(shown: &mut Streaming<ShellOutput>, screen: &mpsc::Sender<Vec<u8>>) -> TerminalInput {
    match screen.reserve().await {
        Ok(_room) => TerminalInput::Shown(shown.message().await),
        Err(_) => TerminalInput::Unwritable,
    }
}

/// Whether the program had no time to tidy up.
fn cut_off(end: &TerminalEnd) -> bool {
    match end {
        TerminalEnd::Remote(ended) => ended.exit_code.is_none_or(|code| code > 128),
        TerminalEnd::Left | TerminalEnd::Signal(_) | TerminalEnd::Lost(_) => true,
        TerminalEnd::Output(_) => false,
    }
}

/// Reads standard input on a thread of its own, which ends with the process at the latest: nothing else can wait for every
/// kind of file without changing it for those who share it.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; PIECE_BYTES];
        // A terminal that was closed is at its end as well.
        while let Ok(len @ 1..) = io::stdin().read(&mut buffer) {
            if sender.blocking_send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    pieces
}

/// Writes standard output on a thread of its own: one that is slow must not keep Ctrl-C waiting.
fn write_stdout() -> (mpsc::Sender<Vec<u8>>, JoinHandle<io::Result<()>>) {
    let (pieces, mut queue) = mpsc::channel::<Vec<u8>>(PIECES);
    let writer = tokio::task::spawn_blocking(move || {
        let mut stdout = io::stdout().lock();
        while let Some(piece) = queue.blocking_recv() {
            stdout.write_all(&piece)?;
            stdout.flush()?;
        }
        Ok(())
    });
    (pieces, writer)
}
