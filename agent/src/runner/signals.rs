//! The signals that a shim hears, as a descriptor to be polled (signalfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use signal_hook::flag;

/// The agent's word that a cancellation is to be read. Where nobody listens for it it does nothing (signal(7)): it can't
/// hurt a shim that is only coming up.
pub const LOOK: rustix::process::Signal = rustix::process::Signal::URG;

/// What a shutdown of the machine sends.
const TO_END: [Signal; 3] = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT];

/// What came since the last look.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// A child has ended.
    pub child: bool,
    /// See [`LOOK`].
    pub look: bool,
}

/// Signals that wait here instead of doing what they do.
pub struct Signals {
    set: SigSet,
    fd: SignalFd,
    told_to_end: Arc<AtomicBool>,
}

impl Signals {
    /// Blocks them. TERM at shutdown must not kill the one that writes the record; it is kept here.
    ///
    /// # Errors
    /// As sigprocmask(2) and signalfd(2).
    pub fn block() -> io::Result<Self> {
        let mut set = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGURG]);
        set.extend(TO_END);
        set.thread_block()?;
        let told_to_end = Arc::new(AtomicBool::new(false));
        for signal in TO_END {
            // For the moments when they are not blocked. A program that is started has no handlers (execve(2)).
            flag::register(signal as i32, told_to_end.clone())?;
        }
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            fd: SignalFd::with_flags(&set, flags)?,
            set,
            told_to_end,
        })
    }

    /// Does something with none of them blocked: a child inherits what is. Of what happened meanwhile only a word to end is
    /// known: look once by yourself.
    ///
    /// # Errors
    /// As sigprocmask(2); nothing was done then.
    pub fn unblocked<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        self.set.thread_unblock()?;
        let done = act();
        // It succeeded above, and fails for nothing but bad arguments.
        let _ = self.set.thread_block();
        Ok(done)
    }

    /// Takes in all that came.
    pub fn news(&mut self) -> News {
        let mut news = News::default();
        while let Ok(Some(signal)) = self.fd.read_signal() {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) => news.child = true,
                Ok(Signal::SIGURG) => news.look = true,
                _ => self.told_to_end.store(true, Ordering::Relaxed),
            }
        }
        news
    }

    /// Whether this process was ever told to end, as at a shutdown of the machine.
    pub fn told_to_end(&mut self) -> bool {
        self.news();
        self.told_to_end.load(Ordering::Relaxed)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_to_end_is_heard_also_while_nothing_is_blocked() {
        let mut signals = Signals::block().unwrap();
        assert!(!signals.told_to_end());
        let sent = signals.unblocked(|| nix::sys::signal::raise(Signal::SIGTERM));
        sent.unwrap().unwrap();
        assert!(signals.told_to_end(), "it lives and knows");
    }
}
