//! Where a shim is given its commands: its standard input, a socket to the agent. An agent that has died has closed it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::runner::command::{CommandSpec, FREE};

/// The shim's end of the socket.
pub(super) struct CommandSocket {
    file: File,
    closed: bool,
}

impl CommandSocket {
    /// Moves it away from where a child would inherit it.
    ///
    /// # Errors
    /// As dup(2), and open(2) of /dev/null.
    pub(super) fn from_stdin() -> io::Result<Self> {
        let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self {
            file,
            closed: false,
        })
    }

    /// Whether no further command comes.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Accepts no further command.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// The next command; waits for it. `None` when there will be none.
    ///
    /// # Errors
    /// As read(2); when what came is not a command.
    pub(super) fn next(&mut self) -> io::Result<Option<CommandSpec>> {
        let command = match CommandSpec::read(&self.file) {
            // An agent that died before it read what we said (unix(7)).
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            other => other?,
        };
        self.closed = command.is_none();
        Ok(command)
    }

    /// Reports that nothing is left of the last command.
    pub(super) fn report_free(&mut self) {
        self.closed |= self.file.write_all(FREE).is_err();
    }
}

impl AsFd for CommandSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
