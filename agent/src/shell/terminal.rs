//! One pseudo-terminal and the keeper of what runs in it (pty(7)): bytes in, bytes out, its size, its end. Used by the shell's
//! task; knows nothing of the master.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aot_host::chain::Chain;
use aot_host::{core_dumps, descriptors};
use aot_proto::v1::ShellEnd;
use prost::Message;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::keeper::{HEARD, READY};
use super::login::Login;
use crate::starts;

/// How long a keeper may take to come up.
const START: Duration = Duration::from_secs(10);
/// Longest message of a keeper about the end.
const MOST_END_BYTES: u32 = 64 << 10;

/// The agent's side of a terminal. Dropping it hangs up what runs there.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Three descriptors of the same terminal: the runtime's pipes are its only safe way to wait for any descriptor.
    shown: pipe::Receiver,
    typed: pipe::Sender,
    master: OwnedFd,
}

/// Whoever owns what runs in a terminal.
#[derive(Debug)]
pub(super) struct Keeper {
    pub orders: Orders,
    /// How what it owns ended.
    pub end: EndReport,
}

/// The way to a keeper. Dropping it is the order to hang up.
#[derive(Debug)]
pub(super) struct Orders(ChildStdin);

/// What a keeper reports last: how the program ended.
#[derive(Debug)]
pub(super) struct EndReport {
    output: ChildStdout,
    /// The runtime waits for it once this is dropped.
    _child: Child,
}

/// Opens a terminal of this size (columns, rows) and starts `login` in it. `id` names its scope.
///
/// # Errors
/// A line for a person, when the machine has no terminals left or no process can be started.
pub(super) async fn open(
    login: &Login,
    id: &str,
    size: (u32, u32),
) -> Result<(Terminal, Keeper), String> {
    let failed = |error: rustix::io::Errno| format!("cannot open a terminal: {error}");
    let master =
        openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).map_err(failed)?;
    grantpt(&master).map_err(failed)?;
    unlockpt(&master).map_err(failed)?;
    tcsetwinsize(&master, winsize(size)).map_err(failed)?;
    rustix::io::ioctl_fionbio(&master, true).map_err(failed)?;
    // Held until the keeper is up: a terminal that nobody has open looks as if it had ended.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).map_err(failed)?;
    let login_json =
        serde_json::to_string(login).map_err(|error| format!("cannot store it: {error}"))?;
    let keeper = start(login, &login_json, id, &slave).await?;
    let terminal =
        Terminal::new(master).map_err(|error| format!("cannot use a terminal: {error}"))?;
    Ok((terminal, keeper))
}

/// In a systemd scope where there is systemd, so that what the user leaves in the background outlives the agent's service;
/// else, or when that fails, as our own child.
async fn start(login: &Login, json: &str, id: &str, slave: &OwnedFd) -> Result<Keeper, String> {
    if Path::new("/run/systemd/system").is_dir() {
        let mut scoped = Command::new("systemd-run");
        let exe = format!("/proc/{}/exe", std::process::id());
        let unit = format!("--unit=aot-shell-{id}");
        scoped.args(["--scope", "--quiet", "--collect", &unit, "--", &exe]);
        match spawn_keeper(scoped, login, json, slave).await {
            Ok(keeper) => return Ok(keeper),
            Err(error) => tracing::warn!(error, "no scope for a terminal; running without one"),
        }
    }
    spawn_keeper(Command::new("/proc/self/exe"), login, json, slave).await
}

async fn spawn_keeper(
    mut process: Command,
    login: &Login,
    json: &str,
    slave: &OwnedFd,
) -> Result<Keeper, String> {
    let failed = |error: io::Error| format!("cannot start the terminal's keeper: {error}");
    let terminal = slave.try_clone().map_err(failed)?;
    process
        .args(["terminal", json])
        .current_dir("/")
        .env_clear()
        .envs(&login.env)
        .envs(descriptors::before().map(|files| (descriptors::VARIABLE, files)))
        .envs(core_dumps::before().map(|bytes| (core_dumps::VARIABLE, bytes)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(terminal));
    let mut child = starts::start(|| process.spawn()).map_err(failed)?;
    let (Some(orders), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the terminal's keeper has no pipes".to_owned());
    };
    match timeout(START, output.read_u8()).await {
        Ok(Ok(READY)) => Ok(Keeper {
            orders: Orders(orders),
            end: EndReport {
                output,
                _child: child,
            },
        }),
        Ok(_) => Err("the terminal's keeper ended before it was up".to_owned()),
        Err(_) => Err("the terminal's keeper did not come up in 10 s".to_owned()),
    }
}

fn winsize((columns, rows): (u32, u32)) -> Winsize {
    let fit = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Winsize {
        ws_col: fit(columns),
        ws_row: fit(rows),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

impl Terminal {
    /// `master` does not block.
    fn new(master: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            shown: pipe::Receiver::from_file_unchecked(File::from(master.try_clone()?))?,
            typed: pipe::Sender::from_file_unchecked(File::from(master.try_clone()?))?,
            master,
        })
    }

    /// Reads what is there to be shown, at least one byte; 0 when nobody has the terminal open any more. Cancel safe.
    ///
    /// # Errors
    /// As read(2).
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        const NOBODY: i32 = rustix::io::Errno::IO.raw_os_error();
        loop {
            self.shown.readable().await?;
            match self.shown.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What Linux answers once the last one has closed it.
                Err(error) if error.raw_os_error() == Some(NOBODY) => return Ok(0),
                other => return other,
            }
        }
    }

    /// Types all of `data`; waits while nobody reads it.
    ///
    /// # Errors
    /// As write(2).
    pub(super) async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            self.typed.writable().await?;
            match self.typed.try_write(data) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => data = &data[other?..],
            }
        }
        Ok(())
    }

    /// Gives it another size (columns, rows): who is in the foreground gets SIGWINCH.
    pub(super) fn resize(&self, size: (u32, u32)) {
        if let Err(error) = tcsetwinsize(&self.master, winsize(size)) {
            tracing::debug!(error = %Chain(&error), "a terminal was not resized");
        }
    }
}

impl Orders {
    /// What the program has left in the background may stay: its end is known.
    pub(super) async fn heard(mut self) {
        // A keeper that is gone needs no message.
        let _ = self.0.write_all(&[HEARD]).await;
    }
}

impl EndReport {
    /// How what runs in the terminal ended.
    pub(super) async fn read(mut self) -> ShellEnd {
        match self.decode().await {
            Ok(end) => end,
            Err(error) => ShellEnd {
                detail: format!("the terminal's keeper was killed: {error}"),
                ..ShellEnd::default()
            },
        }
    }

    async fn decode(&mut self) -> io::Result<ShellEnd> {
        let length = self.output.read_u32().await?;
        if length > MOST_END_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut message = vec![0; length as usize];
        self.output.read_exact(&mut message).await?;
        Ok(ShellEnd::decode(message.as_slice())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Terminal, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        (Terminal::new(master).unwrap(), slave)
    }

    #[tokio::test]
    async fn what_is_typed_arrives_and_what_is_shown_is_read_to_its_end() {
        let (terminal, slave) = pair();
        terminal.write_all(b"ls\n").await.unwrap();
        let mut line = [0; 16];
        assert_eq!(rustix::io::read(&slave, &mut line).unwrap(), 3);
        rustix::io::write(&slave, b"last words").unwrap();
        drop(slave);
        let (mut shown, mut buffer) = (Vec::new(), [0; 4]);
        loop {
            match terminal.read(&mut buffer).await.unwrap() {
                0 => break,
                len => shown.extend_from_slice(&buffer[..len]),
            }
        }
        assert_eq!(String::from_utf8(shown).unwrap(), "ls\r\nlast words");
    }

    #[tokio::test]
    async fn typing_waits_for_whoever_does_not_read_and_then_continues() {
        let (terminal, slave) = pair();
        let text = "a line\n".repeat(10_000);
        let reader = tokio::task::spawn_blocking(move || {
            let (mut read, mut buffer) = (0, [0; 4096]);
            while read < 70_000 {
                read += rustix::io::read(&slave, &mut buffer).unwrap();
            }
            read
        });
        let mut echo = [0; 4096];
        let typing = terminal.write_all(text.as_bytes());
        let showing = async { while terminal.read(&mut echo).await.unwrap() > 0 {} };
        let both = async { tokio::join!(typing, showing) };
        let (typed, ()) = timeout(Duration::from_secs(60), both).await.unwrap();
        typed.unwrap();
        assert_eq!(reader.await.unwrap(), text.len());
    }

    #[tokio::test]
    async fn sizes_that_no_terminal_has_are_cut() {
        let (terminal, slave) = pair();
        terminal.resize((132, 1_000_000));
        let size = rustix::termios::tcgetwinsize(&slave).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (132, u16::MAX));
    }
}
