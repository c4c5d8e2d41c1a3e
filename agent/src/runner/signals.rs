//! The signals that a shim hears, as a descriptor to be polled (signalfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The agent's word that a cancellation is to be read. Where nobody listens for it it does nothing (signal(7)): it can't
/// hurt a shim that is only coming up.
pub const LOOK: rustix::process::Signal = rustix::process::Signal::URG;

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
    told_to_end: bool,
}

impl Signals {
    /// Blocks them. TERM at shutdown must not kill the one that writes the record; it is kept here.
    ///
    /// # Errors
    /// As sigprocmask(2) and signalfd(2).
    pub fn block() -> io::Result<Self> {
        let set = SigSet::from_iter([
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGCHLD,
            Signal::SIGURG,
        ]);
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            fd: SignalFd::with_flags(&set, flags)?,
            set,
            told_to_end: false,
        })
    }

    /// Does something with none of them blocked: a child inherits what is. What happened meanwhile left no signal: look once
    /// by yourself.
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
                _ => self.told_to_end = true,
            }
        }
        news
    }

    /// Whether this process was ever told to end, as at a shutdown of the machine.
    pub fn told_to_end(&mut self) -> bool {
        self.news();
        self.told_to_end
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
