//! Starts a master in the background and waits until it answers. Called by `connect` only; never stops one.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aot_proto::v1::InfoRequest;
use tokio::time::{self, Instant, MissedTickBehavior};

use super::CliEnv;
use super::dial::{Client, dial, within};
use super::error::Error;

/// Longest wait for a started master to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How often the socket is tried until then: nothing tells a stranger that a socket has come up.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// Two commands may start a master at once: the loser's ends, and the winner's needs a moment.
const OTHER_WITHIN: Duration = Duration::from_secs(1);

/// What of a master's log is shown when it could not start.
const TAIL_BYTES: u64 = 16 << 10;
const TAIL_LINES: usize = 12;

/// How to start a master.
#[derive(Debug, Clone)]
pub struct BackgroundDaemon {
    /// The program.
    pub program: PathBuf,
    /// All its arguments, `serve --background` first.
    pub args: Vec<OsString>,
    /// Where its standard output and error go; appended to.
    pub log: PathBuf,
}

impl BackgroundDaemon {
    /// `program serve --background` on this state and socket, with its log in the state dir.
    pub fn new(program: PathBuf, state_dir: &Path, socket: &Path, config: Option<&Path>) -> Self {
        let mut args: Vec<OsString> = ["serve", "--background", "--state-dir"]
            .map(OsString::from)
            .to_vec();
        args.extend([state_dir.into(), "--socket".into(), socket.into()]);
        if let Some(config) = config {
            args.extend(["--config".into(), config.into()]);
        }
        Self {
            program,
            args,
            log: state_dir.join("master.log"),
        }
    }

    /// With more arguments.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = OsString>) -> Self {
        self.args.extend(more);
        self
    }
}

/// Starts it, waits until it answers, and says so on `stderr`, unless that is to be quiet.
///
/// # Errors
/// When it can't be spawned, ends at once, or doesn't answer in time.
pub(crate) async fn start(
    daemon: &BackgroundDaemon,
    env: &CliEnv,
    cluster: Option<&str>,
    is_quiet: bool,
    stderr: &mut dyn Write,
) -> Result<Client, Error> {
    let failed = |what: String| Error::NotStarted { what };
    let unwritten = |error| {
        let log = daemon.log.display();
        failed(format!(
            "its log {log} cannot be written: {error}; --state-dir (AOT_STATE_DIR) says where that lies"
        ))
    };
    let (log, from) = open_log(&daemon.log).map_err(unwritten)?;
    let mut child =
        spawn(daemon, log).map_err(|e| failed(format!("{}: {e}", daemon.program.display())))?;
    let client = answer(&mut child, env, cluster)
        .await
        .map_err(|why| failed(format!("{why}{}", tail(&daemon.log, from))))?;
    if !is_quiet {
        writeln!(
            stderr,
            "started a master in the background (pid {}, log {}); stop it with aot-master shutdown",
            child.id(),
            daemon.log.display()
        )?;
    }
    // What is wrong with it as a whole is best said at once: it listens elsewhere than its machines dial, and so on.
    let mut client = client;
    if let Ok(info) = client
        .info(within(ANSWER_WITHIN, InfoRequest::default()))
        .await
    {
        for note in info.into_inner().notes {
            writeln!(stderr, "warning: {note}")?;
        }
    }
    Ok(client)
}

/// The log, its folder made if need be, and its length before this start.
fn open_log(path: &Path) -> io::Result<(File, u64)> {
    if let Some(folder) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

fn spawn(daemon: &BackgroundDaemon, log: File) -> io::Result<Child> {
    let stdout = log.try_clone()?;
    Command::new(&daemon.program)
        .args(&daemon.args)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log)
        // It leads a session of its own before it does anything else. No group of its own until then: setsid(2) refuses a
        // process that leads one already.
        .spawn()
}

/// Tries the socket until it answers; the reason when it does not.
async fn answer(child: &mut Child, env: &CliEnv, cluster: Option<&str>) -> Result<Client, String> {
    let mut deadline = Instant::now() + ANSWER_WITHIN;
    let mut ended = None;
    let mut tick = time::interval(TRY_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Ok(Ok(client)) = time::timeout_at(deadline, dial(env, cluster)).await {
            return Ok(client);
        }
        if ended.is_none()
            && let Ok(Some(status)) = child.try_wait()
        {
            ended = Some(status);
            deadline = deadline.min(Instant::now() + OTHER_WITHIN);
        }
        if Instant::now() >= deadline {
            return Err(match ended {
                Some(status) => format!("it ended at once ({status})"),
                None => format!(
                    "pid {} does not answer within {} s",
                    child.id(),
                    ANSWER_WITHIN.as_secs()
                ),
            });
        }
    }
}

/// The last lines that the log got since it was `from` bytes long, each on a line of its own.
fn tail(path: &Path, from: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(len.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    let mut out: String = shown.iter().map(|line| format!("\n  | {line}")).collect();
    out.push_str(&format!("\n  see: {}", path.display()));
    out
}
