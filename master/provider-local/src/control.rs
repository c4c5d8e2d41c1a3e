//! How the provider reaches a clone's supervisor: start it, ask it something, wait for its end. Identities are checked
//! by the lock that a supervisor holds, so that a process id that was used again is never signalled.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use aot_host::{core_dumps, descriptors};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Flock, FlockOffsetType, FlockType, Pid, PidfdFlags, Signal, fcntl_getlk, pidfd_open,
    pidfd_send_signal,
};

use super::record::Dirs;

/// How long a supervisor has to end a clone, its own grace included.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(15);

/// Longest start of a clone: name spaces, mounts and the agent's spawn.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A live supervisor.
pub(crate) struct Supervised(OwnedFd);

impl Supervised {
    /// Asks for something: TERM stops the clone, HUP reboots it, INT ends it at once.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.0, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end; false when the limit came first. Blocks.
    pub(crate) fn wait(&self, limit: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or_default();
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The supervisor of a clone, when it has one.
pub(crate) fn find(dirs: &Dirs) -> io::Result<Option<Supervised>> {
    let lock = match File::options().read(true).write(true).open(dirs.lock()) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    loop {
        let Some(pid) = holder(&lock)? else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => continue,
            Err(error) => return Err(error.into()),
        };
        // Still the holder after it was opened: then this is it.
        if holder(&lock)? == Some(pid) {
            return Ok(Some(Supervised(pidfd)));
        }
    }
}

/// Who has locked the file (fcntl(2), F_GETLK).
fn holder(lock: &File) -> io::Result<Option<Pid>> {
    let wanted = Flock {
        start: 0,
        length: 0,
        pid: None,
        typ: FlockType::WriteLock,
        offset_type: FlockOffsetType::Set,
    };
    Ok(fcntl_getlk(lock, &wanted)?.and_then(|held| held.pid))
}

/// Starts a clone and waits until its pid 1 has everything in place. Does nothing when it runs already.
pub(crate) async fn start(exe: &Path, dirs: &Dirs) -> Result<(), String> {
    let mut command = tokio::process::Command::new(exe);
    command
        .arg0("aot-master")
        .arg("machine-run")
        .arg(&dirs.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .current_dir("/");
    if let Some(files) = descriptors::before() {
        command.env(descriptors::VARIABLE, files);
    }
    if let Some(bytes) = core_dumps::before() {
        command.env(core_dumps::VARIABLE, bytes);
    }
    run(command).await
}

/// Runs one of our own processes that ends soon; what it printed last is the error.
pub(crate) async fn run(mut command: tokio::process::Command) -> Result<(), String> {
    command.stderr(Stdio::piped()).kill_on_drop(true);
    let output = match tokio::time::timeout(START_LIMIT, command.output()).await {
        Err(_) => return Err(format!("no answer within {} s", START_LIMIT.as_secs())),
        Ok(Err(error)) => return Err(format!("its supervisor could not be started: {error}")),
        Ok(Ok(output)) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let printed = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if printed.is_empty() {
        output.status.to_string()
    } else {
        printed
    })
}

/// Start time of a process in clock ticks after boot (proc_pid_stat(5), field 22).
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is in brackets and may hold anything, brackets too.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_lock_has_no_supervisor() {
        let folder = tempfile::tempdir().unwrap();
        let dirs = Dirs(folder.path().to_owned());
        assert!(find(&dirs).unwrap().is_none());
        std::fs::write(dirs.lock(), "").unwrap();
        assert!(find(&dirs).unwrap().is_none());
    }

    #[test]
    fn start_times_are_read() {
        assert!(start_time(std::process::id()).unwrap() > 0);
        assert_eq!(start_time(u32::MAX), None);
    }
}
