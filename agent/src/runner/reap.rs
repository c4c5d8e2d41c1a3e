//! Every end of the shim's child and of the orphans that came to it (it is a subreaper). Never waits: the shim asks when
//! SIGCHLD came.

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid as NixPid;

use super::tree;

/// One that has ended, or the last.
#[derive(Debug)]
pub(super) enum Gone {
    Main {
        status: WaitStatus,
        /// Its time and that of those it waited for.
        cpu_ms: u64,
    },
    /// Another one of its tree.
    Orphan { cpu_ms: u64 },
    /// Nobody is left.
    Everyone,
}

/// The next one that has ended and was not reaped yet; `None` while the others live. After `Everyone` comes nothing new.
pub(super) fn next(main: NixPid) -> Option<Gone> {
    let options = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    loop {
        let status = match waitid(Id::All, options) {
            Ok(status) => status,
            Err(Errno::EINTR) => continue,
            Err(_) => return Some(Gone::Everyone),
        };
        let pid = status.pid()?;
        // Of a process that was not waited for yet /proc still knows the times.
        let cpu_ms = tree::stat(pid.as_raw()).map_or(0, |stat| stat.cpu_ms);
        let status = waitpid(pid, None).unwrap_or(status);
        return Some(if pid == main {
            Gone::Main { status, cpu_ms }
        } else {
            Gone::Orphan { cpu_ms }
        });
    }
}

/// Reaps one that has ended, whoever it was; false when there is none.
pub(super) fn any() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Ok(_) => return true,
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}
