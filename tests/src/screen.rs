//! A command in a terminal of its own: what is typed, what it shows, its size, and whether it is raw.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::{process, wait};

/// How long something may take to be shown.
const SHOWN_WITHIN: Duration = Duration::from_secs(120);

/// A running command whose three streams are one terminal.
pub struct Screen {
    child: Child,
    keys: File,
    terminal: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    /// Starts it in a terminal of 80 columns and 24 rows. It is not the controlling one: signals are sent by
    /// [`Screen::signal`].
    ///
    /// # Panics
    /// When there is no terminal, or no such program.
    pub fn start(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it unlocks");
        let terminal = ioctl_tiocgptpeer(&master, flags).expect("its other side");
        let stream = || Stdio::from(terminal.try_clone().expect("a descriptor"));
        command.stdin(stream()).stdout(stream()).stderr(stream());
        command.env("TERM", "xterm");
        let keys = File::from(master);
        let shown: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut from, to) = (keys.try_clone().expect("a descriptor"), Arc::clone(&shown));
        // Ends when the last one has closed the terminal: with this value at the latest.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = from.read(&mut buffer) {
                to.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&buffer[..len]);
            }
        });
        let screen = Self {
            child: command.spawn().expect("it starts"),
            keys,
            terminal,
            shown,
        };
        screen.resize(80, 24);
        screen
    }

    /// Types.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("a terminal");
    }

    /// All that was shown since the last [`Screen::clear`].
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Forgets what was shown.
    pub fn clear(&self) {
        self.shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Waits until this is shown.
    ///
    /// # Panics
    /// When it is not in time.
    #[track_caller]
    pub fn waits_for(&self, text: &str) {
        let seen = wait::maybe(|| self.shown().contains(text).then_some(()), SHOWN_WITHIN);
        assert!(seen.is_some(), "{text:?} is not in\n{}", self.shown());
    }

    /// Gives it another size.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.keys, size).expect("a terminal");
    }

    /// Whether keys go to the command one by one, without echo or signals.
    ///
    /// # Panics
    /// When the terminal is gone.
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.terminal).expect("a terminal").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Sends the command a signal.
    pub fn signal(&self, signal: Signal) {
        process::send(self.child.id(), signal);
    }

    /// Waits for its end; its exit code.
    ///
    /// # Panics
    /// When it does not end in time.
    #[track_caller]
    pub fn ends(&mut self) -> Option<i32> {
        let ended = wait::maybe(|| self.child.try_wait().expect("our child"), SHOWN_WITHIN);
        let Some(status) = ended else {
            panic!("it does not end\n{}", self.shown());
        };
        status.code()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill(); // it may just have ended
            let _ = self.child.wait();
        }
    }
}
