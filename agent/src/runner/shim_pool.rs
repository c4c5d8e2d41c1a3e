//! Shims as the agent sees them: started in a systemd scope or a session of their own, given a command, and given another
//! one when nothing was left of the last. So most commands cost one process, their own.
//!
//! A shim runs one command after the other, never two at once: what a command leaves behind is known by having the shim as
//! its only ancestor. The price: a scope can't be named after each command. `aot-commands-RUN.scope` has the name of the first
//! one; stages and copies, which have a shim each, keep `aot-RUN.scope`.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aot_host::{core_dumps, descriptors};
use aot_proto::ids::RunId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command as Process};

use super::command::{CommandSpec, FREE};
use super::spool::{SPOOL, scan};
use crate::runner::journal::{lock_if_free, pid_in};
use crate::starts;

/// Shims that may wait for a command at once.
const MOST_IDLE: usize = 4;
/// How long one waits for a command.
const IDLE: Duration = Duration::from_secs(600);

/// Those that wait for a command.
#[derive(Debug, Default)]
pub(crate) struct Shims {
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    shim: Shim,
    since: Instant,
}

/// What keeps a shim apart from the agent's own service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolation {
    Scope,
    Session,
}

impl Shims {
    /// Has a shim run it, and returns when nothing is left of it, or the shim has ended. A `reusable` one may have run
    /// others before, and is there for more afterwards.
    ///
    /// # Errors
    /// A line for a person, when it was not started and will not be.
    pub(crate) async fn run(
        &self,
        command: &CommandSpec,
        id: RunId,
        reusable: bool,
    ) -> Result<(), String> {
        let request = command
            .to_bytes()
            .map_err(|error| format!("cannot pass on its command: {error}"))?;
        let dir = &command.dir;
        while let Some(shim) = reusable.then(|| self.pop_idle()).flatten() {
            match self.run_on(shim, &request, dir, reusable).await {
                Ok(()) => return Ok(()),
                // Somebody ended it while it waited.
                Err(detail) => tracing::warn!(run = %id, detail, "using another shim"),
            }
        }
        if Path::new("/run/systemd/system").is_dir() {
            match self
                .run_on_new(Isolation::Scope, &request, dir, id, reusable)
                .await
            {
                Ok(()) => return Ok(()),
                Err(detail) => {
                    tracing::warn!(run = %id, detail, "no scope; using a plain session")
                }
            }
        }
        self.run_on_new(Isolation::Session, &request, dir, id, reusable)
            .await
    }

    /// Drops those that are dead, or have waited for longer than ten minutes.
    pub(crate) fn dismiss(&self, now: Instant) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain_mut(|idle| {
            let lives = matches!(idle.shim.child.try_wait(), Ok(None));
            lives && now.saturating_duration_since(idle.since) < IDLE
        });
    }

    async fn run_on_new(
        &self,
        isolation: Isolation,
        request: &[u8],
        dir: &Path,
        id: RunId,
        reusable: bool,
    ) -> Result<(), String> {
        let shim = Shim::start(isolation, id, reusable)
            .map_err(|error| format!("cannot start the shim: {error}"))?;
        self.run_on(shim, request, dir, reusable).await
    }

    /// Sends a shim its command and waits until it is free or has ended. An error says that nothing was started.
    async fn run_on(
        &self,
        mut shim: Shim,
        request: &[u8],
        dir: &Path,
        reusable: bool,
    ) -> Result<(), String> {
        // What it was not sent it can't start; its exit status says more than this error.
        let is_free = shim.send(request, reusable).await.is_ok() && shim.is_free().await;
        if is_free && reusable {
            self.push_idle(shim);
            return Ok(());
        }
        drop(shim.socket);
        match shim.child.wait().await {
            Ok(_) if is_free || !never_ran(dir) => Ok(()),
            Ok(status) => Err(format!(
                "the shim ended with {status} before it started anything"
            )),
            // It may be there still.
            Err(_) => Ok(()),
        }
    }

    fn pop_idle(&self) -> Option<Shim> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().map(|idle| idle.shim)
    }

    /// One above the bound ends when its socket is closed.
    fn push_idle(&self, shim: Shim) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            let since = Instant::now();
            idle.push(Idle { shim, since });
        }
    }
}

/// One shim, and our end of its socket.
#[derive(Debug)]
struct Shim {
    child: Child,
    socket: UnixStream,
}

impl Shim {
    /// Starts one. A scope has the name of the first run: of the only one, unless the shim is `reusable`.
    fn start(isolation: Isolation, id: RunId, reusable: bool) -> std::io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut process = match isolation {
            Isolation::Session => Process::new("/proc/self/exe"),
            Isolation::Scope => {
                let kind = if reusable { "aot-commands" } else { "aot" };
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
            // What it owns outlives this agent, and is found by its lock.
            .kill_on_drop(false);
        if let Some(files) = descriptors::before() {
            process.env(descriptors::VARIABLE, files);
        }
        if let Some(bytes) = core_dumps::before() {
            process.env(core_dumps::VARIABLE, bytes);
        }
        // With `process` goes our copy of its end of the socket.
        Ok(Self {
            child: starts::start(|| process.spawn())?,
            socket: UnixStream::from_std(ours)?,
        })
    }

    /// Sends it a command; the last one unless it is `reusable`.
    async fn send(&mut self, request: &[u8], reusable: bool) -> std::io::Result<()> {
        self.socket.write_all(request).await?;
        if !reusable {
            self.socket.shutdown().await?;
        }
        Ok(())
    }

    /// Waits until nothing is left of its command; false when it has ended before it reported that.
    async fn is_free(&mut self) -> bool {
        let mut answer = [0; FREE.len()];
        self.socket.read_exact(&mut answer).await.is_ok() && answer == FREE
    }
}

/// No shim is there, and none has written or started anything.
pub(super) fn never_ran(dir: &Path) -> bool {
    let free = lock_if_free(dir).is_ok_and(|lock| lock.is_some());
    free && pid_in(dir).is_none()
        && scan(&dir.join(SPOOL)).map_or(true, |scan| scan.whole_bytes == 0)
}
