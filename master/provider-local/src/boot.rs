//! One boot of a clone, as its supervisor holds it: the process that is pid 1 inside, and the lines to it.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Environment variable by which pid 1 knows that it runs in a user namespace.
pub(super) const ROOTLESS: &str = "AOT_MACHINE_ROOTLESS";

/// How a boot ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BootOutcome {
    /// It never came up, and said why.
    Failed(String),
    /// Exit code of pid 1.
    Code(i32),
    /// Signal that ended pid 1.
    Signal(i32),
}

/// A running pid 1. Should this process die, pid 1 does too, and with it everything inside.
pub(super) struct Boot {
    /// Process id of pid 1, as this machine sees it.
    pub pid: u32,
    /// What the clone prints.
    pub console: PipeReader,
    /// Two-way line to pid 1, in lines of text; its end ends pid 1.
    pub leash: UnixStream,
    /// Readable once pid 1 is gone.
    pub done: PipeReader,
    pidfd: OwnedFd,
    thread: JoinHandle<io::Result<ExitStatus>>,
    heard: String,
    /// Pid 1 has closed its end of the leash: nothing more is to be heard.
    pub hung_up: bool,
}

impl Boot {
    /// Starts pid 1 in a pid namespace of its own.
    pub(crate) fn start(dir: &Path, rootless: bool) -> io::Result<Self> {
        let (console, console_in) = io::pipe()?;
        let (done, done_in) = io::pipe()?;
        let (leash, inside) = UnixStream::pair()?;
        leash.set_nonblocking(true)?;
        let (report, started) = sync_channel(1);
        let dir: PathBuf = dir.to_owned();
        // A pid namespace can be entered once in a thread's life, so each boot has a thread. Pid 1 dies with it.
        let thread = std::thread::Builder::new()
            .name("boot".into())
            .spawn(move || {
                let result = hold(&dir, rootless, console_in, inside, &report);
                drop(done_in);
                result
            })?;
        match started.recv() {
            Ok((pid, pidfd)) => Ok(Self {
                pid,
                console,
                leash,
                done,
                pidfd,
                thread,
                heard: String::new(),
                hung_up: false,
            }),
            Err(_) => Err(match thread.join() {
                Ok(Err(error)) => error,
                _ => io::Error::other("the thread that starts pid 1 ended"),
            }),
        }
    }

    /// Reads what pid 1 says; true when it just became ready.
    pub(crate) fn hear(&mut self) -> bool {
        let before = self.is_ready();
        let mut bytes = [0_u8; 1024];
        while let Ok(count) = self.leash.read(&mut bytes) {
            if count == 0 {
                self.hung_up = true;
                break;
            }
            if self.heard.len() < 8192 {
                self.heard
                    .push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        }
        !before && self.is_ready()
    }

    fn is_ready(&self) -> bool {
        self.heard.lines().any(|line| line == "ready")
    }

    /// Gives pid 1 a command.
    pub(crate) fn command(&mut self, line: &str) {
        // When it no longer reads, it is ending; the deadline covers the rest.
        let _ = writeln!(self.leash, "{line}");
    }

    /// Ends pid 1 at once, and with it everything inside.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// How it ended. To be called once `done` is readable.
    pub(crate) fn finish(mut self) -> io::Result<BootOutcome> {
        self.hear();
        let failed = self
            .heard
            .lines()
            .find_map(|line| line.strip_prefix("failed: ").map(str::to_owned));
        let status = self
            .thread
            .join()
            .map_err(|_| io::Error::other("the thread that holds pid 1 panicked"))??;
        Ok(match (failed, status.code(), status.signal()) {
            (Some(why), _, _) => BootOutcome::Failed(why),
            (None, Some(code), _) => BootOutcome::Code(code),
            (None, None, signal) => BootOutcome::Signal(signal.unwrap_or(0)),
        })
    }
}

/// Starts pid 1 from a thread that has a pid namespace for its children, and waits for its end.
fn hold(
    dir: &Path,
    rootless: bool,
    console: PipeWriter,
    leash: UnixStream,
    report: &SyncSender<(u32, OwnedFd)>,
) -> io::Result<ExitStatus> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let mut child = spawn(dir, rootless, console, leash)?;
    let pid = child.id();
    let raw = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidData)?;
    // Not reaped yet, so the number is still this child's.
    let opened = pidfd_open(raw, PidfdFlags::empty());
    match opened {
        Ok(pidfd) => report.send((pid, pidfd)).ok(),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            return Err(error.into());
        }
    };
    child.wait()
}

fn spawn(dir: &Path, rootless: bool, console: PipeWriter, leash: UnixStream) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("aot-master")
        .arg("machine-init")
        .arg(dir)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(leash)))
        .stdout(console.try_clone()?)
        .stderr(console);
    if rootless {
        command.env(ROOTLESS, "1");
    }
    command.spawn()
}
