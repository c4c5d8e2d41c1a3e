//! Signals that a terminal's command heeds: those that end it, a new size, and continuing after a stop.

use std::io;

use nix::libc::SIGCONT;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What has happened to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caught {
    /// It is to end: the signal's number.
    Fatal(u8),
    /// Its terminal has another size.
    Resized,
    /// It continues after a stop.
    Continued,
}

/// All of them. From its making on none of them ends the process by itself.
#[derive(Debug)]
pub(super) struct TerminalSignals {
    hang_up: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    resized: Signal,
    continued: Signal,
}

impl TerminalSignals {
    /// Listens.
    ///
    /// # Errors
    /// As sigaction(2).
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            resized: signal(SignalKind::window_change())?,
            continued: signal(SignalKind::from_raw(SIGCONT))?,
        })
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.hang_up.recv() => Caught::Fatal(1),
            _ = self.interrupt.recv() => Caught::Fatal(2),
            _ = self.quit.recv() => Caught::Fatal(3),
            _ = self.terminate.recv() => Caught::Fatal(15),
            _ = self.resized.recv() => Caught::Resized,
            _ = self.continued.recv() => Caught::Continued,
        }
    }

    /// The number of the next one that is to end the process. Cancel safe.
    pub(super) async fn fatal(&mut self) -> u8 {
        loop {
            if let Caught::Fatal(number) = self.next().await {
                return number;
            }
        }
    }
}
