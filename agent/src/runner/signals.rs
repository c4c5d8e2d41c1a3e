//! The signals that a shim hears, as a descriptor to be polled (signalfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use signal_hook::flag;

/// Has a shim read the cancellation in its run's folder. Its default action is to be ignored (signal(7)), so it can't hurt a
/// shim that is only coming up.
pub(super) const CANCEL_SIGNAL: rustix::process::Signal = rustix::process::Signal::URG;

/// What a shutdown of the machine sends.
const TERMINATING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT];

/// What came since it was last drained.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// A child has ended.
    pub child_ended: bool,
    /// See [`CANCEL_SIGNAL`].
    pub cancel: bool,
}

/// Signals that wait here instead of doing what they do.
pub(super) struct Signals {
    set: SigSet,
    fd: SignalFd,
    terminating: Arc<AtomicBool>,
}

impl Signals {
    /// Blocks them. TERM at shutdown must not kill the one that writes the record; it is kept here.
    ///
    /// # Errors
    /// As sigprocmask(2) and signalfd(2).
    pub(super) fn block() -> io::Result<Self> {
        let mut set = SigSet::from_iter([Signal::SIGCHLD, Signal::SIGURG]);
        set.extend(TERMINATING);
        set.thread_block()?;
        let terminating = Arc::new(AtomicBool::new(false));
        for signal in TERMINATING {
            // For the moments when they are not blocked. A program that is started has no handlers (execve(2)).
            flag::register(signal as i32, terminating.clone())?;
        }
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            fd: SignalFd::with_flags(&set, flags)?,
            set,
            terminating,
        })
    }

    /// Does something with none of them blocked: a child inherits what is. Of what came meanwhile only a
    /// shutdown is known: children and cancellations have to be checked for once.
    ///
    /// # Errors
    /// As sigprocmask(2); nothing was done then.
    pub(super) fn unblocked<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        self.set.thread_unblock()?;
        let done = act();
        // It succeeded above, and fails for nothing but bad arguments.
        let _ = self.set.thread_block();
        Ok(done)
    }

    /// Reads all that came.
    pub(super) fn drain(&mut self) -> Received {
        let mut received = Received::default();
        while let Ok(Some(signal)) = self.fd.read_signal() {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) => received.child_ended = true,
                Ok(Signal::SIGURG) => received.cancel = true,
                _ => self.terminating.store(true, Ordering::Relaxed),
            }
        }
        received
    }

    /// Whether this process was ever asked to end, as at a shutdown of the machine.
    pub(super) fn is_terminating(&mut self) -> bool {
        self.drain();
        self.terminating.load(Ordering::Relaxed)
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
    fn a_shutdown_is_noticed_also_while_nothing_is_blocked() {
        let mut signals = Signals::block().unwrap();
        assert!(!signals.is_terminating());
        let sent = signals.unblocked(|| nix::sys::signal::raise(Signal::SIGTERM));
        sent.unwrap().unwrap();
        assert!(signals.is_terminating(), "it lives and knows");
    }
}
