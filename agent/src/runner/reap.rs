//! The shim's waiting thread: every end of its child and of the orphans that came to it (it is a subreaper).

use std::io::{PipeWriter, Write};
use std::sync::mpsc::Sender;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid as NixPid;

use super::tree;

/// What the waiting thread saw.
pub enum Gone {
    /// The child itself.
    Main {
        /// How it ended.
        status: WaitStatus,
        /// Its time and that of those it waited for.
        cpu_ms: u64,
    },
    /// Another one of its tree.
    Orphan {
        /// Its time.
        cpu_ms: u64,
    },
    /// Nobody is left.
    Everyone,
}

/// Waits for the child and for every orphan that comes to us, until none is left.
pub fn wait_for_all(main: NixPid, gone: &Sender<Gone>, mut waker: PipeWriter) {
    loop {
        let seen = waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let news = match seen {
            Ok(status) => match status.pid() {
                Some(pid) => {
                    // Of a process that was not waited for yet /proc still knows the times.
                    let cpu_ms = tree::stat(pid.as_raw()).map_or(0, |stat| stat.cpu_ms);
                    let status = waitpid(pid, None).unwrap_or(status);
                    if pid == main {
                        Gone::Main { status, cpu_ms }
                    } else {
                        Gone::Orphan { cpu_ms }
                    }
                }
                None => continue,
            },
            Err(Errno::EINTR) => continue,
            Err(_) => Gone::Everyone,
        };
        let last = matches!(news, Gone::Everyone);
        if gone.send(news).is_err() || waker.write_all(b"!").is_err() || last {
            return;
        }
    }
}
