//! The operator's own terminal: raw while another one is shown in it, and as it was before on every way out.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// When nothing says how large it is.
const DEFAULT: (u32, u32) = (80, 24);

/// A terminal in raw mode (termios(3), `cfmakeraw`). Dropping it, also by a panic, brings back what was before.
#[derive(Debug)]
pub(super) struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Makes it raw.
    ///
    /// # Errors
    /// As tcgetattr(3) and tcsetattr(3); it is as it was then.
    pub(super) fn enter(terminal: &impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let raw = Self { terminal, before };
        raw.again()?;
        Ok(raw)
    }

    /// Makes it raw once more: whoever had stopped us has set it for itself.
    ///
    /// # Errors
    /// As tcsetattr(3).
    pub(super) fn again(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        Ok(tcsetattr(&self.terminal, OptionalActions::Now, &raw)?)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// Columns and rows of the first of these that is a terminal and knows.
pub(super) fn size(of: &[&dyn AsFd]) -> (u32, u32) {
    let known = of.iter().find_map(|fd| {
        let size = tcgetwinsize(fd.as_fd()).ok()?;
        let size = (u32::from(size.ws_col), u32::from(size.ws_row));
        (size.0 > 0 && size.1 > 0).then_some(size)
    });
    known.unwrap_or(DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use rustix::termios::{LocalModes, Winsize, tcsetwinsize};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).expect("is ours");
        unlockpt(&master).expect("unlocks");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("its other side");
        (master, slave)
    }

    fn is_raw(terminal: &OwnedFd) -> bool {
        let modes = tcgetattr(terminal).expect("a terminal").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    #[test]
    fn it_is_as_before_after_the_end_and_after_a_panic() {
        let (_master, slave) = pair();
        let raw = RawMode::enter(&slave).expect("raw");
        assert!(is_raw(&slave));
        drop(raw);
        assert!(!is_raw(&slave));

        let panicked = std::panic::catch_unwind(|| {
            let _raw = RawMode::enter(&slave).expect("raw");
            assert!(!is_raw(&slave), "raw: this is the panic");
        });
        assert!(panicked.is_err());
        assert!(!is_raw(&slave));
    }

    #[test]
    fn it_is_raw_again_after_somebody_else_had_it() {
        let (_master, slave) = pair();
        let before = tcgetattr(&slave).expect("a terminal");
        let raw = RawMode::enter(&slave).expect("raw");
        tcsetattr(&slave, OptionalActions::Now, &before).expect("as a shell does");
        raw.again().expect("raw");
        assert!(is_raw(&slave));
    }

    #[test]
    fn what_is_no_terminal_has_a_size_all_the_same() {
        let file = tempfile::tempfile().expect("a file");
        let (_master, slave) = pair();
        assert_eq!(size(&[&file, &slave]), DEFAULT, "it has no size yet");
        let large = Winsize {
            ws_col: 120,
            ws_row: 50,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, large).expect("sizes");
        assert_eq!(size(&[&file, &slave]), (120, 50));
        assert!(RawMode::enter(&file).is_err());
    }
}
