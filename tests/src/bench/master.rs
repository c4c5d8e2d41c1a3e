//! A master over a state folder that is there already, without a rig: its machines are not here.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::master_program;
use crate::wait;

/// Longest that it may take to come up, and to end.
const WITHIN: Duration = Duration::from_secs(60);

/// It ends when it is dropped, and with this program, however that ends.
pub struct BenchMaster {
    child: Child,
    state: PathBuf,
    /// Where operators ask.
    pub socket: PathBuf,
    /// Where agents dial.
    pub address: String,
}

impl BenchMaster {
    /// Starts it; returns when it answers. To be called by the program's first thread: it ends with whoever started it.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(folder: &Path, state: &Path) -> Self {
        let socket = folder.join("master.sock");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(master_program())
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("AOT_STATE_DIR", state)
            .env("AOT_SOCKET", &socket)
            .env("AOT_LOG", "warn")
            .env(
                "AOT_AGENT_DIR",
                master_program().parent().expect("a folder"),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("setpriv (util-linux) starts it");
        let mut master = Self {
            child,
            state: state.to_owned(),
            socket,
            address: String::new(),
        };
        let up = || {
            let ended = master.child.try_wait().expect("is ours");
            assert!(ended.is_none(), "the master ended at once: {ended:?}");
            let up = std::os::unix::net::UnixStream::connect(&master.socket).is_ok();
            up.then(|| std::fs::read_to_string(state.join("port")).ok())?
        };
        let port = wait::some(up, WITHIN, "the master serves");
        master.address = format!("127.0.0.1:{}", port.trim());
        master
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a command of the operator's.
    ///
    /// # Panics
    /// When it does not succeed.
    pub fn command(&self, args: &[&str]) {
        let status = Command::new(master_program())
            .args(args)
            .env("AOT_STATE_DIR", &self.state)
            .env("AOT_SOCKET", &self.socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("it starts");
        assert!(status.success(), "{args:?}: {status}");
    }
}

impl Drop for BenchMaster {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        let _ = kill(pid, Signal::SIGTERM);
        let ended = || self.child.try_wait().ok().flatten();
        if wait::maybe(ended, WITHIN).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
