//! One pseudo-terminal and the keeper of what runs in it (pty(7)): bytes in, bytes out, its size, its end. Used by the shell's
//! task; knows nothing of the master.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aot_proto::v1::ShellEnd;
use prost::Message;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::keeper::READY;
use super::login::Login;

/// How long a keeper may take to come up.
const START: Duration = Duration::from_secs(10);
/// Longest word of a keeper about the end; more is not read.
const MOST_END_BYTES: u64 = 64 << 10;

/// The agent's side of a terminal. Dropping it hangs up what runs there.
#[derive(Debug)]
pub struct Terminal {
    /// Three descriptors of the same terminal: the runtime's pipes are its only safe way to wait for any descriptor.
    shown: pipe::Receiver,
    typed: pipe::Sender,
    master: OwnedFd,
}

/// Whoever owns what runs in a terminal.
#[derive(Debug)]
pub struct Keeper {
    /// Dropping it is the order to hang up.
    pub orders: ChildStdin,
    /// How it ends.
    pub word: Word,
}

/// The last word of a keeper.
#[derive(Debug)]
pub struct Word {
    words: ChildStdout,
    child: Child,
}

/// Opens a terminal of this size (columns, rows) and starts `login` in it. `id` names its scope.
///
/// # Errors
/// A line for a person, when the machine has no terminals left or no process can be started.
pub async fn open(login: &Login, id: &str, size: (u32, u32)) -> Result<(Terminal, Keeper), String> {
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
        serde_json::to_string(login).map_err(|error| format!("cannot write it down: {error}"))?;
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
        match keep(scoped, login, json, slave).await {
            Ok(keeper) => return Ok(keeper),
            Err(error) => tracing::warn!(error, "no scope for a terminal; it goes without"),
        }
    }
    keep(Command::new("/proc/self/exe"), login, json, slave).await
}

async fn keep(
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
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(terminal));
    let mut child = process.spawn().map_err(failed)?;
    let (Some(orders), Some(mut words)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the terminal's keeper has no pipes".to_owned());
    };
    match timeout(START, words.read_u8()).await {
        Ok(Ok(READY)) => Ok(Keeper {
            orders,
            word: Word { words, child },
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
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        const NOBODY: i32 = rustix::io::Errno::IO.raw_os_error();
        loop {
            self.shown.readable().await?;
            match self.shown.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What Linux says once the last one has closed it.
                Err(error) if error.raw_os_error() == Some(NOBODY) => return Ok(0),
                other => return other,
            }
        }
    }

    /// Types all of `data`; waits while nobody reads it.
    ///
    /// # Errors
    /// As write(2).
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
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
    pub fn resize(&self, size: (u32, u32)) {
        if let Err(error) = tcsetwinsize(&self.master, winsize(size)) {
            tracing::debug!(%error, "a terminal was not resized");
        }
    }
}

impl Word {
    /// How what runs in the terminal ended.
    pub async fn end(mut self) -> ShellEnd {
        let mut word = Vec::new();
        // What can't be read is not there.
        let _ = (&mut self.words)
            .take(MOST_END_BYTES)
            .read_to_end(&mut word)
            .await;
        let end = ShellEnd::decode(word.as_slice()).ok();
        // Its word was its last act.
        let _ = self.child.wait().await;
        end.filter(|_| !word.is_empty())
            .unwrap_or_else(|| ShellEnd {
                detail: "the terminal's keeper was ended by someone".to_owned(),
                ..ShellEnd::default()
            })
    }
}
