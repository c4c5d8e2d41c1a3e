//! Signals that a terminal's command heeds: those that end it, a new size, and going on after a stop.

use std::io;

use nix::libc::SIGCONT;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What has happened to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is to end: the signal's number.
    Fatal(u8),
    /// Its terminal has another size.
    Resized,
    /// It goes on after a stop.
    Continued,
}

/// All of them. From its making on none of them ends the process by itself.
#[derive(Debug)]
pub struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    quit: Signal,
    terminate: Signal,
    resized: Signal,
    continued: Signal,
}

impl Signals {
    /// Listens.
    ///
    /// # Errors
    /// As sigaction(2).
    pub fn new() -> io::Result<Self> {
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
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hang_up.recv() => Told::Fatal(1),
            _ = self.interrupt.recv() => Told::Fatal(2),
            _ = self.quit.recv() => Told::Fatal(3),
            _ = self.terminate.recv() => Told::Fatal(15),
            _ = self.resized.recv() => Told::Resized,
            _ = self.continued.recv() => Told::Continued,
        }
    }

    /// The number of the next one that is to end the process. Cancel safe.
    pub async fn fatal(&mut self) -> u8 {
        loop {
            if let Told::Fatal(number) = self.next().await {
                return number;
            }
        }
    }
}
