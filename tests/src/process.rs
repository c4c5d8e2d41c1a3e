//! Commands as child processes with deadlines, and a look at `/proc`. Signals go to single process ids only.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait;

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(120);

/// What a command that has ended left behind.
#[derive(Clone)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output, byte by byte.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
    /// The command line, for messages.
    pub command: String,
}

/// As text: nobody reads bytes in a failure.
impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as JSON, one document a line.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[track_caller]
    pub fn json(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{error} in {line:?}\n{}", self.shown()))
        };
        self.text().lines().map(parse).collect()
    }

    /// The one document of [`Output::json`] that `wanted` accepts.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[track_caller]
    pub fn one(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut found: Vec<Value> = self
            .json()
            .into_iter()
            .filter(|line| wanted(line))
            .collect();
        assert_eq!(found.len(), 1, "lines that match\n{}", self.shown());
        found.remove(0)
    }

    /// All events of this kind.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[track_caller]
    pub fn events(&self, kind: &str) -> Vec<Value> {
        self.json()
            .into_iter()
            .filter(|line| line["event"] == kind)
            .collect()
    }

    /// Continues only with this exit code.
    ///
    /// # Panics
    /// When it was another.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{}", self.shown());
        self
    }

    /// For a message: the command line, its end, what it printed.
    pub fn shown(&self) -> String {
        let cut = |text: &str| text.chars().take(6000).collect::<String>();
        format!(
            "$ {}\nexit code {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code,
            cut(&self.text()),
            cut(&self.stderr)
        )
    }
}

/// A command that runs; killed when it is dropped.
pub struct Running {
    child: Child,
    command: String,
    lines: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    /// Starts it with pipes for its output and nothing to read.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    /// Starts it with this standard input.
    ///
    /// # Panics
    /// When there is no such program.
    pub fn start_with(mut command: Command, stdin: Stdio) -> Self {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
        let (lines, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            copy(
                child.stdout.take().expect("piped above"),
                Arc::clone(&lines),
            ),
            copy(
                child.stderr.take().expect("piped above"),
                Arc::clone(&stderr),
            ),
        ];
        Self {
            child,
            command: shown,
            lines,
            readers,
            stderr,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes that it has printed so far.
    pub fn printed(&self) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.len()
    }

    /// Whole lines of JSON that it has printed so far.
    pub fn json(&self) -> Vec<Value> {
        let bytes = self
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let text = String::from_utf8_lossy(&bytes[..whole]).into_owned();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Waits until it prints a line of JSON that `wanted` accepts.
    ///
    /// # Panics
    /// When `limit` passes, or the command ends, before that.
    #[track_caller]
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool, limit: Duration, what: &str) -> Value {
        let found = wait::maybe(
            || {
                let is_over = self.is_silent(); // before the look: then all of it is there
                let found = self.json().into_iter().find(|line| wanted(line));
                (found.is_some() || is_over).then_some(found)
            },
            limit,
        );
        let found = found.flatten();
        found.unwrap_or_else(|| {
            panic!(
                "{what}: never printed by {}\n{}",
                self.command,
                self.so_far()
            )
        })
    }

    /// Whether all that it will ever print has been read. A background master that it started holds no pipe of it.
    fn is_silent(&self) -> bool {
        self.readers.iter().all(JoinHandle::is_finished)
    }

    /// Waits until it has printed an event of this kind about an instance (any, when empty).
    ///
    /// # Panics
    /// As [`Running::until`].
    #[track_caller]
    pub fn event(&mut self, kind: &str, instance: &str, limit: Duration) -> Value {
        let wanted = |line: &Value| {
            line["event"] == kind && (instance.is_empty() || line["instance"] == instance)
        };
        self.until(wanted, limit, &format!("event {kind} of {instance:?}"))
    }

    fn so_far(&self) -> String {
        let text = |bytes: &Mutex<Vec<u8>>| {
            let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&bytes).into_owned()
        };
        format!(
            "--- stdout\n{}\n--- stderr\n{}",
            text(&self.lines),
            text(&self.stderr)
        )
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When `limit` passes before that; it is killed then.
    #[track_caller]
    pub fn finish(mut self, limit: Duration) -> Output {
        let Some(status) = wait::maybe(|| self.child.try_wait().expect("our child"), limit) else {
            let _ = self.child.kill(); // dropped anyway
            let _ = self.child.wait();
            panic!(
                "{} did not end in {} s\n{}",
                self.command,
                limit.as_secs(),
                self.so_far()
            );
        };
        let ended = || self.is_silent().then_some(());
        if wait::maybe(ended, GONE_WITHIN).is_none() {
            panic!(
                "{} has ended, but somebody holds its output open",
                self.command
            );
        }
        let take = |bytes: &Mutex<Vec<u8>>| {
            std::mem::take(&mut *bytes.lock().unwrap_or_else(PoisonError::into_inner))
        };
        Output {
            code: status.code(),
            stdout: take(&self.lines),
            stderr: String::from_utf8_lossy(&take(&self.stderr)).into_owned(),
            command: self.command.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill(); // it may just have ended
            let _ = self.child.wait();
        }
    }
}

fn copy(from: impl std::io::Read + Send + 'static, to: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let taken = match from.fill_buf() {
                Ok([]) | Err(_) => return,
                Ok(bytes) => {
                    to.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend_from_slice(bytes);
                    bytes.len()
                }
            };
            from.consume(taken);
        }
    })
}

/// Sends one process a signal; done when it is gone already.
///
/// # Panics
/// When the kernel refuses for another reason.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("process ids fit");
    assert!(pid > 1, "never signal process {pid}");
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("cannot signal process {pid}: {error}"),
    }
}

/// Kills one process (SIGKILL) and waits until it is gone.
///
/// # Panics
/// When it does not go.
#[track_caller]
pub fn kill_hard(pid: u32) {
    send(pid, Signal::SIGKILL);
    wait::until(
        || !alive(pid),
        GONE_WITHIN,
        &format!("the end of process {pid}"),
    );
}

/// Whether a process runs; a zombie does not.
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// State and parent of a process (proc_pid_stat(5), fields 3 and 4).
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Every process there is, zombies excepted, with its parent.
pub fn all() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: u32| {
        let (state, parent) = stat(pid)?;
        (!matches!(state, 'Z' | 'X')).then_some((pid, parent))
    })
    .collect()
}

/// A process and all below it.
pub fn tree(root: u32) -> Vec<u32> {
    let all = all();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            all.iter()
                .filter(|(_, of)| **of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

/// Arguments of a process, with blanks between them; empty when it is gone.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text: Vec<u8> = bytes
        .iter()
        .map(|byte| if *byte == 0 { b' ' } else { *byte })
        .collect();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

/// What a process has open (proc_pid_fd(5)), as it sees it itself; nothing when it is gone.
pub fn open_files(pid: u32) -> Vec<PathBuf> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"));
    let links = links.into_iter().flatten().flatten();
    links
        .filter_map(|link| fs::read_link(link.path()).ok())
        .collect()
}

/// Processes that have to do with a folder: it is in their arguments, their environment, or a mount that they see.
/// This process is left out.
pub fn that_mention(folder: &Path) -> BTreeMap<u32, String> {
    let needle = folder.as_os_str().as_bytes();
    let mentions = |pid: u32| {
        ["cmdline", "environ", "mountinfo"].iter().any(|name| {
            let mut bytes = Vec::new();
            // One that has ended meanwhile, or may not be read, counts as one that does not.
            let read = fs::File::open(format!("/proc/{pid}/{name}"))
                .and_then(|mut file| file.read_to_end(&mut bytes));
            read.is_ok() && bytes.windows(needle.len()).any(|window| window == needle)
        })
    };
    let own = std::process::id();
    let pids = all()
        .into_keys()
        .filter(|pid| *pid != own && mentions(*pid));
    pids.map(|pid| (pid, command_line(pid))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_last_is_not_missed_when_the_command_has_ended_before() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "(sleep 0.3; echo '{\"n\": 7}') &"]);
        let mut running = Running::start(command);
        let line = running.until(|line| line["n"] == 7, wait::LIMIT, "the line");
        assert_eq!(line["n"], 7);
        running.finish(wait::LIMIT).expect(0);
    }
}
