//! Shims as the agent sees them: started in a systemd scope or a session of their own, told what to run, and told again
//! when nothing was left of the last command. So most commands cost one process, their own.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aot_proto::ids::RunId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command as Process};

use super::command::Command;
use super::shim::FREE;
use super::spool::{SPOOL, scan};
use crate::journal::{lock_if_free, pid_in};

/// Shims that may wait for a command at once.
const MOST_IDLE: usize = 4;
/// How long one waits for a command.
const IDLE: Duration = Duration::from_secs(600);

/// Those that wait for a command.
#[derive(Debug, Default)]
pub struct Shims {
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    shim: Shim,
    since: Instant,
}

/// Where one was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Scope,
    Session,
}

impl Shims {
    /// Has a shim run it, and returns when nothing is left of it, or the shim has ended. One that is to run commands
    /// `again` has run others before, where one is free.
    ///
    /// # Errors
    /// A line for a person, when it was not started and will not be.
    pub async fn own(&self, command: &Command, id: RunId, again: bool) -> Result<(), String> {
        let told = command
            .to_bytes()
            .map_err(|error| format!("cannot tell its command: {error}"))?;
        let dir = &command.dir;
        while let Some(shim) = again.then(|| self.take()).flatten() {
            match self.run(shim, &told, dir, again).await {
                Ok(()) => return Ok(()),
                // Somebody ended it while it waited.
                Err(detail) => tracing::warn!(run = %id, detail, "another shim is used"),
            }
        }
        if Path::new("/run/systemd/system").is_dir() {
            match self.run_new(Place::Scope, &told, dir, id, again).await {
                Ok(()) => return Ok(()),
                Err(detail) => {
                    tracing::warn!(run = %id, detail, "no scope; a plain session is used")
                }
            }
        }
        self.run_new(Place::Session, &told, dir, id, again).await
    }

    /// Lets those go that are dead or waited for long.
    pub fn dismiss(&self, now: Instant) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain_mut(|idle| {
            let lives = matches!(idle.shim.child.try_wait(), Ok(None));
            lives && now.saturating_duration_since(idle.since) < IDLE
        });
    }

    async fn run_new(
        &self,
        place: Place,
        told: &[u8],
        dir: &Path,
        id: RunId,
        again: bool,
    ) -> Result<(), String> {
        let shim = Shim::start(place, id, again)
            .map_err(|error| format!("cannot start the shim: {error}"))?;
        self.run(shim, told, dir, again).await
    }

    /// Tells a shim its command and waits until it is free or has ended. An error says that nothing was started.
    async fn run(
        &self,
        mut shim: Shim,
        told: &[u8],
        dir: &Path,
        again: bool,
    ) -> Result<(), String> {
        // What it can't be told it can't start; how it ended says more.
        let is_free = shim.tell(told, again).await.is_ok() && shim.is_free().await;
        if is_free && again {
            self.keep(shim);
            return Ok(());
        }
        drop(shim.line);
        match shim.child.wait().await {
            Ok(_) if is_free || !never_ran(dir) => Ok(()),
            Ok(status) => Err(format!(
                "the shim ended with {status} before it started anything"
            )),
            // It may be there still.
            Err(_) => Ok(()),
        }
    }

    fn take(&self) -> Option<Shim> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().map(|idle| idle.shim)
    }

    /// One that is too many ends when its line is closed.
    fn keep(&self, shim: Shim) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            let since = Instant::now();
            idle.push(Idle { shim, since });
        }
    }
}

/// One shim, and the line on which it is told what to run.
#[derive(Debug)]
struct Shim {
    child: Child,
    line: UnixStream,
}

impl Shim {
    /// Starts one. A scope has the name of the first run: of the only one, unless the shim is to run commands `again`.
    fn start(place: Place, id: RunId, again: bool) -> std::io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut process = match place {
            Place::Session => Process::new("/proc/self/exe"),
            Place::Scope => {
                let kind = if again { "aot-commands" } else { "aot" };
                let mut scoped = Process::new("systemd-run");
                scoped
                    .args(["--scope", "--quiet", "--collect"])
                    .arg(format!("--unit={kind}-{id}"))
                    .arg(format!("/proc/{}/exe", std::process::id()));
                scoped
            }
        };
        // No working folder: with one, std forks a static program, page tables and all, instead of vfork(2). The shim leaves
        // ours by itself.
        process
            .arg("shim")
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .kill_on_drop(false);
        // With `process` goes our copy of its end of the line.
        Ok(Self {
            child: process.spawn()?,
            line: UnixStream::from_std(ours)?,
        })
    }

    /// Tells it a command; the last one unless it will be told others `again`.
    async fn tell(&mut self, told: &[u8], again: bool) -> std::io::Result<()> {
        self.line.write_all(told).await?;
        if !again {
            self.line.shutdown().await?;
        }
        Ok(())
    }

    /// Waits until nothing is left of its command; false when it has ended before it said so.
    async fn is_free(&mut self) -> bool {
        let mut said = [0; FREE.len()];
        self.line.read_exact(&mut said).await.is_ok() && said == FREE
    }
}

/// No shim is there, and none has written or started anything.
pub(super) fn never_ran(dir: &Path) -> bool {
    let free = lock_if_free(dir).is_ok_and(|lock| lock.is_some());
    free && pid_in(dir).is_none()
        && scan(&dir.join(SPOOL)).map_or(true, |scan| scan.whole_bytes == 0)
}
