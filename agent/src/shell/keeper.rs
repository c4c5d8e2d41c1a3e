//! The process that owns what runs in one terminal, started by the agent for it: reports how it ended, and hangs up the whole
//! session when the agent lets go of it or dies. A second, short-lived step makes the terminal the controlling one and
//! becomes the program.
//!
//! Standard output: [`READY`], then the length of a `ShellEnd` (u32, big endian) and the message. Standard input: [`HEARD`] once
//! that was received; its end before is the order to hang up. Standard error: the terminal, until the program has it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use aot_host::{core_dumps, descriptors};
use aot_proto::v1::ShellEnd;
use prost::Message;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::login::Login;
use crate::runner::spawn::exposed_to_oom;
use crate::runner::tree;
use crate::users;

/// The keeper has tried to start the program: from here on it answers for it.
pub(crate) const READY: u8 = b'r';
/// The agent knows the end: what the program has left in the background may stay.
pub(crate) const HEARD: u8 = b'h';
/// From HUP to KILL. Editors save in that time.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// Between two HUPs. A shell that the first one meets right before it reads a line has noted it, and reads: bash ends by the next.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two checks for what is left of a session that was hung up; /proc wakes nobody.
const STEP: Duration = Duration::from_millis(50);
/// A session that outlives this many KILLs is stuck in the kernel.
const MOST_KILLS: u32 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeeperEvent {
    Ended,
    Heard,
    HangUp,
}

/// Runs `login` (JSON) in the terminal on standard error, to its end.
pub fn main(login: &str) -> ExitCode {
    // The agent's own terminal, when it has one, must not end us; one that leads a session already is as good.
    let _ = rustix::process::setsid();
    let started = start(login);
    // An agent that is gone already is seen at the end of standard input.
    let _ = send(&[READY]);
    match started {
        Ok(child) => supervise(&child),
        Err(detail) => {
            let _ = send_end(&ShellEnd {
                detail,
                ..ShellEnd::default()
            });
        }
    }
    ExitCode::SUCCESS
}

fn send(bytes: &[u8]) -> io::Result<()> {
    let mut agent = io::stdout();
    agent.write_all(bytes).and_then(|()| agent.flush())
}

fn send_end(end: &ShellEnd) -> io::Result<()> {
    let end = end.encode_to_vec();
    let length = u32::try_from(end.len()).map_err(io::Error::other)?;
    send(&[&length.to_be_bytes()[..], &end].concat())
}

fn start(login: &str) -> Result<Child, String> {
    let terminal = || {
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        stderr
            .map(Stdio::from)
            .map_err(|error| format!("cannot use the terminal: {error}"))
    };
    let mut process = Command::new("/proc/self/exe");
    process
        .args(["pty-exec", login])
        .env_remove(descriptors::VARIABLE)
        .env_remove(core_dumps::VARIABLE);
    process
        .stdin(terminal()?)
        .stdout(terminal()?)
        .stderr(terminal()?);
    let child = exposed_to_oom(|| process.spawn())
        .map_err(|error| format!("cannot start a process: {error}"))?;
    // Whoever has the terminal open keeps it from ending. One that can't let go of it only delays that.
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stderr(null);
    }
    Ok(child)
}

/// Waits for the program's end and reports it, or for the order to hang up. The child's status is never taken: while it is
/// there, the number of its session is nobody else's.
fn supervise(child: &Child) {
    let leader = Pid::from_child(child);
    // One sender stays here, so that the inbox never closes.
    let (open, inbox) = sync_channel(4);
    let (orders, ends) = (open.clone(), open.clone());
    // Both threads end with this process at the latest.
    thread::spawn(move || wait_for_orders(&orders));
    thread::spawn(move || {
        // The process is ending when nobody listens.
        let _ = wait_for_end(leader);
        let _ = ends.send(KeeperEvent::Ended);
    });
    loop {
        match inbox.recv() {
            Ok(KeeperEvent::Ended) => {
                // An agent that is gone is seen by the next event.
                let _ = send_end(&wait_for_end(leader));
            }
            Ok(KeeperEvent::HangUp) => {
                hang_up(leader, &inbox);
                let _ = send_end(&wait_for_end(leader));
                break;
            }
            Ok(KeeperEvent::Heard) | Err(_) => break,
        }
    }
    drop(open);
}

fn wait_for_orders(events: &SyncSender<KeeperEvent>) {
    let mut byte = [0];
    let order = match io::stdin().read(&mut byte) {
        Ok(1) if byte == [HEARD] => KeeperEvent::Heard,
        _ => KeeperEvent::HangUp,
    };
    let _ = events.send(order); // the process is ending when nobody listens
}

fn wait_for_end(leader: Pid) -> ShellEnd {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    loop {
        match rustix::process::waitid(WaitId::Pid(leader), options) {
            Ok(Some(status)) => return ended(&status),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return ShellEnd {
                    detail: format!("cannot wait for it: {error}"),
                    ..ShellEnd::default()
                };
            }
        }
    }
}

/// HUP to all of the session, again and again until the grace is over, KILL to what is left of it then, until nothing is.
fn hang_up(leader: Pid, inbox: &Receiver<KeeperEvent>) {
    let session = leader.as_raw_nonzero().get();
    let (begun, mut hups, mut kills) = (Instant::now(), 0, 0);
    while kills < MOST_KILLS {
        let passed = begun.elapsed();
        if passed >= GRACE {
            tree::signal_session(session, Signal::KILL);
            kills += 1;
        } else if passed >= AGAIN * hups {
            tree::signal_session(session, Signal::HUP);
            // One that is stopped would never see it.
            tree::signal_session(session, Signal::CONT);
            hups += 1;
        }
        if !tree::session_lives(session) {
            break;
        }
        // The end of the program alone does not end the wait: others of its session may be left.
        let _ = inbox.recv_timeout(STEP);
    }
}

fn ended(status: &WaitIdStatus) -> ShellEnd {
    let code = status.exit_status();
    ShellEnd {
        exit_code: code,
        signal: status.terminating_signal().unwrap_or(0),
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
        return refuse("nothing to run");
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
