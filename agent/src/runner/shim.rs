//! `aot-agent shim`: the process that owns one child at a time. Started by the runner in a session (and systemd scope) of its
//! own; survives the agent. It is given commands on its standard input; after a run of which nothing is left it
//! reports that there, and may be given another one. Plain blocking code: no tokio, no TLS, no network, no decisions (`stop_policy` has
//! those).

mod command_socket;
mod end_record;
mod ending;
mod supervisor;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use aot_proto::v1::{EndKind, Ended};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{getpid, set_child_subreaper, setsid};

use super::cancellation::{self, NOT_STARTED};
use super::command::CommandSpec;
use super::journal::{SPEC, pid_in};
use super::leftover::{self, Pipes};
use super::signals::Signals;
use super::spool::{SpoolWriter, ended};
use command_socket::CommandSocket;
use ending::{retry_on_full_disk, sync};
use supervisor::ChildSupervisor;

use crate::runner::mask::HiddenValues;
use crate::secrets;

/// How often and how many times it is checked, between the end record and its fdatasync, whether the master has it all
/// already: two seconds in all.
const FORGOTTEN_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
const FORGOTTEN_CHECKS: u32 = 20;

/// Runs the commands that it is given, until there is nobody to give it any.
pub fn main() -> ExitCode {
    match CommandSocket::from_stdin().and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aot-agent shim: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(mut commands: CommandSocket) -> io::Result<()> {
    // Fails only where we lead a session already, which is what is wanted.
    let _ = setsid();
    // No folder is kept busy by us.
    std::env::set_current_dir("/")?;
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        // Emulators lack it. Then what forks twice may outlive a cancellation; all else is the same.
        eprintln!("aot-agent shim: orphans do not come back here: {error}");
    }
    let mut signals = Signals::block()?;
    let (mut last, mut held) = (None, Pipes::default());
    while let Some(command) = wait_for_next(&mut commands, &mut signals, last.take())? {
        let ran = run(&command, &mut signals)?;
        if ran.left_nothing && !signals.is_terminating() {
            commands.report_free();
        } else {
            // What a command left behind is known by having this shim as its ancestor: another one's would be mixed with it.
            commands.close();
        }
        (last, held) = (ran.spool, ran.held);
    }
    drop(commands);
    leftover::drain(held, &mut signals)
}

/// The next run; `None` when no more will come. Meanwhile the end of the last one comes to disk. Most runs are forgotten soon
/// after, and what is gone needs no sync: that saves one sync per run.
fn wait_for_next(
    commands: &mut CommandSocket,
    signals: &mut Signals,
    mut last: Option<SpoolWriter>,
) -> io::Result<Option<CommandSpec>> {
    let mut checks = 0;
    loop {
        last = last.filter(|spool| !spool.is_forgotten());
        let terminating = signals.is_terminating();
        if checks == FORGOTTEN_CHECKS || terminating {
            sync(last.take())?;
        }
        if last.is_none() && (commands.is_closed() || terminating) {
            return Ok(None);
        }
        let pollin = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![pollin(signals.as_fd())];
        fds.extend((!commands.is_closed()).then(|| pollin(commands.as_fd())));
        let again = last.is_some().then_some(&FORGOTTEN_EVERY);
        match poll(&mut fds, again) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let has_command = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        checks += u32::from(fds.iter().all(|fd| fd.revents().is_empty()));
        if has_command && let Some(command) = commands.next()? {
            sync(last.filter(|spool| !spool.is_forgotten()))?;
            return Ok(Some(command));
        }
    }
}

/// What is left of a run.
struct Ran {
    /// Its spool with the end, which may not be on disk yet.
    spool: Option<SpoolWriter>,
    /// No process of it.
    left_nothing: bool,
    /// Ends of its output that something still holds.
    held: Pipes,
}

/// One run from its start to its end record.
fn run(command: &CommandSpec, signals: &mut Signals) -> io::Result<Ran> {
    let dir = &command.dir;
    let mut lock = OpenOptions::new().append(true).open(dir.join(SPEC))?;
    // Until the end is written: an agent that gets it knows that no shim will write one.
    lock.lock()?;
    let (mut spool, scan) = SpoolWriter::open(dir)?;
    if scan.whole_bytes > 0 || pid_in(dir).is_some() {
        // Someone wrote this run's end before we came, or another shim has been here: it must not start any more.
        return Ok(Ran {
            spool: None,
            left_nothing: true,
            held: Pipes::default(),
        });
    }
    // Before anything is started: a record without it means that nothing was.
    lock.write_all(format!("\n{}", getpid().as_raw_nonzero()).as_bytes())?;
    let (record, left_nothing, held) = if cancellation::is_requested(dir) {
        let record = ended(EndKind::Cancelled, NOT_STARTED);
        (record, true, Pipes::default())
    } else {
        supervise(dir, command, &mut spool, signals)?
    };
    if let Some(given) = &command.secrets {
        // Before anybody knows of the end: then they are gone.
        secrets::remove(&given.folder);
    }
    let record = Ended {
        rendered_sha256: command.rendered.clone(),
        ..record
    };
    retry_on_full_disk(|| spool.conclude(record.clone()))?;
    Ok(Ran {
        spool: Some(spool),
        left_nothing,
        held,
    })
}

/// Starts the child and follows it to its end: the record, whether nothing of it is left, and what is still held.
fn supervise(
    dir: &Path,
    command: &CommandSpec,
    spool: &mut SpoolWriter,
    signals: &mut Signals,
) -> io::Result<(Ended, bool, Pipes)> {
    let hidden = command.secrets.as_ref().map(|given| &*given.hidden);
    let patterns = HiddenValues::new(hidden.unwrap_or_default());
    let mut supervisor = match ChildSupervisor::start(dir, command, &patterns, spool, signals) {
        Ok(supervisor) => supervisor,
        Err(detail) => {
            let record = ended(EndKind::NotStarted, detail);
            return Ok((record, false, Pipes::default()));
        }
    };
    let mut record = supervisor.follow(dir, spool)?;
    let left_nothing = supervisor.left_nothing();
    let held = supervisor.into_pipes();
    // At a shutdown systemd sends TERM to all of a scope: that was not the command's own end.
    if record.kind() == EndKind::Signalled && signals.is_terminating() {
        record = Ended {
            detail: "the machine was shut down while it ran".to_owned(),
            kind: EndKind::Interrupted.into(),
            ..record
        };
    }
    Ok((record, left_nothing, held))
}
