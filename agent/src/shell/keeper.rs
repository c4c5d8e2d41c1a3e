//! The process that owns what runs in one terminal, started by the agent for it: says how it ended, and hangs up the whole
//! session when the agent lets go of it or dies. A second, short-lived step makes the terminal the controlling one and
//! becomes the program.
//!
//! Standard input: a pipe that says nothing; its end is the order to hang up. Standard output: [`READY`], then a `ShellEnd`.
//! Standard error: the terminal.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use aot_proto::v1::ShellEnd;
use prost::Message;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::login::Login;
use crate::runner::spawn::exposed_to_oom;
use crate::runner::tree;
use crate::users;

/// What the keeper says once it has tried to start the program: from here on it answers for it.
pub const READY: u8 = b'r';
/// From HUP to KILL. Editors save in that time.
pub const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at what is left of a session that was hung up; /proc wakes nobody.
const STEP: Duration = Duration::from_millis(50);
/// A session that outlives so many KILLs is stuck in the kernel.
const MOST_KILLS: u32 = 100;

enum News {
    Ended,
    HangUp,
}

/// Runs `login` (JSON) in the terminal on standard error, to its end.
pub fn main(login: &str) -> ExitCode {
    // The agent's own terminal, when it has one, must not end us; one that leads a session already is as good.
    let _ = rustix::process::setsid();
    let started = start(login);
    let mut agent = io::stdout();
    let end = match (
        agent.write_all(&[READY]).and_then(|()| agent.flush()),
        started,
    ) {
        (_, Err(detail)) => ShellEnd {
            detail,
            ..ShellEnd::default()
        },
        // An agent that is gone already is seen at the end of standard input.
        (_, Ok(child)) => watch(child),
    };
    let told = agent
        .write_all(&end.encode_to_vec())
        .and_then(|()| agent.flush());
    ExitCode::from(u8::from(told.is_err()))
}

fn start(login: &str) -> Result<Child, String> {
    let terminal = || {
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        stderr
            .map(Stdio::from)
            .map_err(|error| format!("cannot use the terminal: {error}"))
    };
    let mut process = Command::new("/proc/self/exe");
    process.args(["pty-exec", login]);
    process
        .stdin(terminal()?)
        .stdout(terminal()?)
        .stderr(terminal()?);
    exposed_to_oom(|| process.spawn()).map_err(|error| format!("cannot start a process: {error}"))
}

/// Waits for the program, or for the order to hang up.
fn watch(mut child: Child) -> ShellEnd {
    let leader = Pid::from_child(&child);
    // One sender stays here, so that the inbox never closes.
    let (open, inbox) = sync_channel(2);
    let (orders, news) = (open.clone(), open.clone());
    // Both threads end with this process at the latest.
    thread::spawn(move || wait_for_orders(&orders));
    thread::spawn(move || wait_for_end(leader, &news));
    if let Ok(News::HangUp) = inbox.recv() {
        hang_up(leader, &inbox);
    }
    drop(open);
    child.wait().map_or_else(
        |error| ShellEnd {
            detail: format!("cannot wait for it: {error}"),
            ..ShellEnd::default()
        },
        ended,
    )
}

fn wait_for_orders(news: &SyncSender<News>) {
    let mut word = [0; 64];
    while io::stdin().read(&mut word).is_ok_and(|len| len > 0) {}
    let _ = news.send(News::HangUp); // the process is ending when nobody listens
}

/// Does not take the child's status: while it is there, its number is nobody else's.
fn wait_for_end(leader: Pid, news: &SyncSender<News>) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(leader), options) {
    }
    let _ = news.send(News::Ended); // as above
}

/// HUP to all of the session, KILL to what is left of it after the grace, until nothing is.
fn hang_up(leader: Pid, inbox: &Receiver<News>) {
    let session = leader.as_raw_nonzero().get();
    tree::signal_session(session, Signal::HUP);
    // One that is stopped would never see it.
    tree::signal_session(session, Signal::CONT);
    let (begun, mut kills) = (Instant::now(), 0);
    while tree::session_lives(session) && kills < MOST_KILLS {
        if begun.elapsed() >= GRACE {
            tree::signal_session(session, Signal::KILL);
            kills += 1;
        }
        // The end of the program alone does not end the wait: others of its session may be left.
        let _ = inbox.recv_timeout(STEP);
    }
}

fn ended(status: ExitStatus) -> ShellEnd {
    ShellEnd {
        has_exit_code: status.code().is_some(),
        exit_code: status.code().unwrap_or(0),
        signal: status.signal().unwrap_or(0),
        detail: String::new(),
    }
}

/// Makes standard input the controlling terminal of a new session, becomes the user, then the program. Returns only when
/// that failed: 126, or 127 when there is no such program (the numbers of env(1)).
pub fn become_program(login: &str) -> ExitCode {
    let login: Login = match serde_json::from_str(login) {
        Ok(login) => login,
        Err(error) => return refuse(&format!("cannot read what to run: {error}")),
    };
    let stdin = io::stdin();
    let owned = rustix::process::setsid().and_then(|_| rustix::process::ioctl_tiocsctty(&stdin));
    if let Err(error) = owned {
        return refuse(&format!("cannot own the terminal: {error}"));
    }
    if let Some(user) = &login.become_user {
        let owner = Some(rustix::process::Uid::from_raw(user.uid));
        // As login(1) does, so that the user's programs may open it by its name. Without it they still have it.
        let _ = rustix::fs::fchown(&stdin, owner, None);
        if let Err(error) = users::become_user(user.uid, user.gid, &user.groups) {
            return refuse(&format!("cannot become user {}: {error}", user.uid));
        }
    }
    if let Err(error) = std::env::set_current_dir(&login.cwd) {
        eprintln!("aot-agent: cannot enter {}: {error}; this is /", login.cwd);
    }
    let Some((program, args)) = login.argv.split_first() else {
        return refuse("there is nothing to run");
    };
    let mut command = Command::new(program);
    command.args(args);
    if let Some(name) = &login.arg0 {
        command.arg0(name);
    }
    users::exec(&mut command)
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("aot-agent: {why}");
    ExitCode::from(126)
}
