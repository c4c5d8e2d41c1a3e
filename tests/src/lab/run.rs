//! Processes and waits with deadlines. Nothing here waits for ever.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Between two looks at something that can't be waited for.
const LOOK: Duration = Duration::from_millis(50);

/// How a process ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Exit code; `None` = a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs to the end; kills it and fails the test when that takes longer than `limit`.
pub fn run(command: &mut Command, what: &str, limit: Duration) -> Ran {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    let pid = pid_of(child.id());
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(limit) {
        Ok(output) => {
            let output = output.expect("is waited for once");
            Ran {
                code: output.status.code(),
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            }
        }
        Err(_) => {
            let _ = kill(pid, Signal::SIGKILL);
            panic!("{what}: did not end within {limit:?}");
        }
    }
}

/// A process number as nix wants it.
pub fn pid_of(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).expect("process numbers are small"))
}

/// What `work` gives, from a thread of its own; fails the test when that takes longer than `limit`.
pub fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    ended
        .recv_timeout(limit)
        .unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

/// Looks until there is something to see; `None` when `limit` has passed.
pub fn until_some<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}

/// Looks until it is so; fails the test when `limit` has passed.
pub fn until(limit: Duration, what: &str, mut look: impl FnMut() -> bool) {
    let seen = until_some(limit, || look().then_some(()));
    assert!(seen.is_some(), "not within {limit:?}: {what}");
}
