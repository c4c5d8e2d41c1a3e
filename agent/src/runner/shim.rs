//! `aot-agent shim`: the process that owns one child at a time. Started by the runner in a session (and systemd scope) of its
//! own; survives the agent. It is told on its standard input what to run; after a run of which nothing is left it says so
//! there, and may be told another one. Plain blocking code: no tokio, no TLS, no network, no decisions (those are in `watch`).

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, ExitCode};
use std::time::{Duration, Instant};

use aot_proto::limits::FRAME_BYTES;
use aot_proto::v1::frame::Body;
use aot_proto::v1::{EndKind, Ended, Started};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid as NixPid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper, setsid};

use super::command::Command;
use super::output::{Output, pump};
use super::reap::{self, Gone};
use super::signals::{LOOK, News, Signals};
use super::spawn::{exposed_to_oom, spawn};
use super::spool::{Writer, ended};
use super::tree;
use super::watch::{Act, GRACE, Watch};
use crate::journal::{SPEC, lock_if_free, pid_in};

/// Holds the grace in ms of a cancellation.
pub const CANCEL: &str = "cancel";

/// What a shim says when nothing is left of what it was told to run.
pub const FREE: &[u8] = b"\n";

/// Of a run that was cancelled in time.
pub const NOT_STARTED: &str = "cancelled before it was started";

/// At most so long between a frame and its fdatasync.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How often children are looked for that nothing else tells of.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often and how many times it is looked, between the end record and its fdatasync, whether the master has it all
/// already: two seconds in all.
const FORGOTTEN_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};
const FORGOTTEN_LOOKS: u32 = 20;
/// How often and how many times the end record is tried on a full disk.
const END_AGAIN: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
const END_TRIES: u32 = 600;

/// Runs what it is told, until nobody is there to tell it anything.
pub fn main() -> ExitCode {
    match Teller::take().and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aot-agent shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Tells a shim that a cancellation is to be read. One that has not come up yet looks for the file when it does.
pub fn wake(dir: &Path) {
    // Only who holds the lock is the one whose number is in it.
    let lives = matches!(lock_if_free(dir), Ok(None));
    if let Some(pid) = pid_in(dir).filter(|_| lives).and_then(Pid::from_raw) {
        // Gone meanwhile: then there is nothing to cancel, and this signal does nothing to anybody else.
        let _ = kill_process(pid, LOOK);
    }
}

/// Where runs are told, and what became of them: our standard input. An agent that has died has closed it.
struct Teller {
    line: File,
    closed: bool,
}

impl Teller {
    /// Takes it away from where a child would have it.
    fn take() -> io::Result<Self> {
        let line = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self {
            line,
            closed: false,
        })
    }

    /// The next run.
    fn next(&mut self) -> io::Result<Option<Command>> {
        let command = match Command::read(&self.line) {
            // An agent that died before it read what we said (unix(7)).
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            other => other?,
        };
        self.closed = command.is_none();
        Ok(command)
    }

    /// Nothing is left of the last one.
    fn say_free(&mut self) {
        self.closed |= self.line.write_all(FREE).is_err();
    }
}

fn serve(mut teller: Teller) -> io::Result<()> {
    // Fails only where we lead a session already, which is what is wanted.
    let _ = setsid();
    // No folder is kept busy by us.
    std::env::set_current_dir("/")?;
    set_child_subreaper(Some(getpid()))?;
    let mut signals = Signals::block()?;
    let mut over = None;
    while let Some(command) = wait_for_next(&mut teller, &mut signals, over.take())? {
        let ran = run(&command, &mut signals)?;
        if ran.left_nothing && !signals.told_to_end() {
            teller.say_free();
        } else {
            teller.closed = true;
        }
        over = ran.spool;
    }
    Ok(())
}

/// The next run, or nobody will tell one. Meanwhile the end of the last one comes to disk. Most runs are forgotten soon
/// after, and what is gone needs no sync: the disk is spared one a run.
fn wait_for_next(
    teller: &mut Teller,
    signals: &mut Signals,
    mut over: Option<Writer>,
) -> io::Result<Option<Command>> {
    let mut looks = 0;
    loop {
        over = over.filter(|spool| !spool.is_forgotten());
        let told_to_end = signals.told_to_end();
        if looks == FORGOTTEN_LOOKS || told_to_end {
            sync(over.take())?;
        }
        if over.is_none() && (teller.closed || told_to_end) {
            return Ok(None);
        }
        let pollin = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![pollin(signals.as_fd())];
        fds.extend((!teller.closed).then(|| pollin(teller.line.as_fd())));
        let again = over.is_some().then_some(&FORGOTTEN_AGAIN);
        match poll(&mut fds, again) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let told = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        looks += u32::from(fds.iter().all(|fd| fd.revents().is_empty()));
        if told && let Some(command) = teller.next()? {
            sync(over.filter(|spool| !spool.is_forgotten()))?;
            return Ok(Some(command));
        }
    }
}

/// What is left of a run.
struct Ran {
    /// Its spool with the end, which may not be on disk yet.
    spool: Option<Writer>,
    /// No process of it.
    left_nothing: bool,
}

/// One run from its start to its end record.
fn run(command: &Command, signals: &mut Signals) -> io::Result<Ran> {
    let dir = &command.dir;
    let mut lock = OpenOptions::new().append(true).open(dir.join(SPEC))?;
    lock.lock()?;
    let (mut spool, scan) = Writer::open(dir)?;
    if scan.whole_bytes > 0 || pid_in(dir).is_some() {
        // Someone wrote this run's end before we came, or another shim has been here: it must not start any more.
        return Ok(Ran {
            spool: None,
            left_nothing: true,
        });
    }
    lock.write_all(format!("\n{}", getpid().as_raw_nonzero()).as_bytes())?;
    let (record, left_nothing) = if dir.join(CANCEL).exists() {
        (ended(EndKind::Cancelled, NOT_STARTED), true)
    } else {
        own(dir, command, &mut spool, signals)?
    };
    again_on_a_full_disk(|| spool.conclude(record.clone()))?;
    Ok(Ran {
        spool: Some(spool),
        left_nothing,
    })
}

/// Starts the child and follows it to its end: the record, and whether nothing of it is left.
fn own(
    dir: &Path,
    command: &Command,
    spool: &mut Writer,
    signals: &mut Signals,
) -> io::Result<(Ended, bool)> {
    let mut shim = match Shim::start(dir, command, spool, signals) {
        Ok(shim) => shim,
        Err(detail) => return Ok((ended(EndKind::NotStarted, detail), false)),
    };
    let mut record = shim.follow(dir, spool)?;
    let left_nothing = shim.watch.left_nothing();
    if record.kind() == EndKind::Signalled && signals.told_to_end() {
        record = Ended {
            detail: "the machine was shut down while it ran".to_owned(),
            kind: EndKind::Interrupted.into(),
            ..record
        };
    }
    Ok((record, left_nothing))
}

fn sync(spool: Option<Writer>) -> io::Result<()> {
    spool.map_or(Ok(()), |mut spool| again_on_a_full_disk(|| spool.sync()))
}

/// Tries it for ten minutes.
fn again_on_a_full_disk(mut write: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut last = write();
    for _ in 1..END_TRIES {
        if last.is_ok() {
            break;
        }
        pause(END_AGAIN)?;
        last = write();
    }
    last
}

fn pause(how_long: Timespec) -> io::Result<()> {
    match poll(&mut [], Some(&how_long)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

struct Shim<'a> {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    signals: &'a mut Signals,
    main: NixPid,
    watch: Watch,
    started: Instant,
    synced: Instant,
    output: Output,
    status: Option<WaitStatus>,
    cpu_ms: u64,
    /// Those that KILL was sent to.
    killed: HashSet<i32>,
}

impl<'a> Shim<'a> {
    /// Spawns the child and writes the first frame; the error is a line for a person.
    fn start(
        dir: &Path,
        command: &Command,
        spool: &mut Writer,
        signals: &'a mut Signals,
    ) -> Result<Self, String> {
        let spawned = signals.unblocked(|| exposed_to_oom(|| spawn(dir, command)));
        let mut child = spawned.unwrap_or_else(|error| Err(unwatched(&error)))?;
        let started = Instant::now();
        let pid = child.id();
        let first = Started {
            run_id: command.run_id.clone(),
            pid,
            boot_id: command.boot_id.clone(),
        };
        spool.append(Body::Started(first)).map_err(|error| {
            tree::signal_below(getpid().as_raw_nonzero().get(), Signal::KILL);
            unwatched(&error)
        })?;
        Ok(Self {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            signals,
            main: NixPid::from_raw(pid.cast_signed()),
            watch: Watch::new(started, command.timeout, command.silence_timeout),
            started,
            synced: started,
            output: Output::new(command.output_cap_bytes),
            status: None,
            cpu_ms: 0,
            killed: HashSet::new(),
        })
    }

    /// Copies output and does what `watch` says until the run is over.
    fn follow(&mut self, dir: &Path, spool: &mut Writer) -> io::Result<Ended> {
        let mut buffer = vec![0u8; FRAME_BYTES];
        // What came before the signals were blocked.
        if dir.join(CANCEL).exists() {
            self.cancel(dir);
        }
        self.note_the_gone();
        loop {
            let ready = self.wait(spool.is_dirty())?;
            let news = match ready.signals {
                true => self.signals.news(),
                false => News::default(),
            };
            if news.look {
                self.cancel(dir);
            }
            if ready.stdout
                && !pump(
                    &mut self.stdout,
                    &mut buffer,
                    &mut self.output,
                    spool,
                    Body::Stdout,
                )
            {
                self.stdout = None;
            }
            if ready.stderr
                && !pump(
                    &mut self.stderr,
                    &mut buffer,
                    &mut self.output,
                    spool,
                    Body::Stderr,
                )
            {
                self.stderr = None;
            }
            if ready.stdout || ready.stderr {
                self.watch.output(Instant::now());
            }
            if news.child || self.is_quiet() {
                self.note_the_gone();
            }
            if self.is_quiet() {
                self.watch.pipes_closed();
            }
            let now = Instant::now();
            if spool.is_dirty() && now >= self.synced + SYNC_EVERY {
                self.synced = now;
                // A disk that can't sync now may later; the end record is synced or tried again.
                let _ = spool.sync();
            }
            while let Some(act) = self.watch.step(now) {
                match act {
                    Act::Finish => return Ok(self.record()),
                    Act::Terminate | Act::Kill => self.signal_all(act),
                }
            }
        }
    }

    /// Whether there is nothing to be read any more.
    fn is_quiet(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Waits for anything to happen.
    fn wait(&self, dirty: bool) -> io::Result<Ready> {
        let sync_at = dirty.then(|| self.synced + SYNC_EVERY);
        // Who started us may have SIGCHLD ignored, which we inherit (execve(2)): then it never comes.
        let look_at = self.is_quiet().then(|| Instant::now() + LOOK_EVERY);
        let until = [self.watch.wake_at(), sync_at, look_at];
        let until = until.into_iter().flatten().min();
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let pollin = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![pollin(self.signals.as_fd())];
        let pipes: [Option<BorrowedFd<'_>>; 2] = [
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        fds.extend(pipes.iter().flatten().map(|fd| pollin(*fd)));
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let mut hits = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut hit = |wanted: bool| wanted && hits.next().unwrap_or(false);
        Ok(Ready {
            signals: hit(true),
            stdout: hit(pipes[0].is_some()),
            stderr: hit(pipes[1].is_some()),
        })
    }

    fn cancel(&mut self, dir: &Path) {
        let grace = fs::read_to_string(dir.join(CANCEL))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let grace = grace
            .filter(|ms| *ms > 0)
            .map_or(GRACE, Duration::from_millis);
        if let Some(act) = self.watch.cancel(Instant::now(), grace) {
            self.signal_all(act);
        }
    }

    fn signal_all(&mut self, act: Act) {
        let root = getpid().as_raw_nonzero().get();
        if act == Act::Kill {
            self.killed.extend(tree::signal_below(root, Signal::KILL));
            return;
        }
        tree::signal_below(root, Signal::TERM);
        // What is stopped can't heed it (systemd.kill(5) does the same).
        tree::signal_below(root, Signal::CONT);
    }

    /// How the end that was asked for came about.
    fn stopped_in_words(&self, kind: EndKind) -> String {
        let killed = match self.killed.len() {
            0 => String::new(),
            1 => "; 1 process did not heed TERM and was killed".to_owned(),
            many => format!("; {many} processes did not heed TERM and were killed"),
        };
        let left = match self.watch.gave_up() {
            true => "; some of it could not be killed and may still be there",
            false => "",
        };
        format!("{}{killed}{left}", why(kind))
    }

    fn note_the_gone(&mut self) {
        let now = Instant::now();
        while let Some(gone) = reap::next(self.main) {
            match gone {
                Gone::Main { status, cpu_ms } => {
                    self.status = Some(status);
                    self.cpu_ms += cpu_ms;
                    self.watch.main_ended(now);
                }
                Gone::Orphan { cpu_ms } => self.cpu_ms += cpu_ms,
                Gone::Everyone => {
                    // Nobody is left to end, though we may not have been told how it did.
                    self.watch.main_ended(now);
                    return self.watch.tree_empty(now);
                }
            }
        }
    }

    fn record(&self) -> Ended {
        let mut ended = match (self.watch.stopped(), self.status) {
            (Some(kind), _) => ended(kind, self.stopped_in_words(kind)),
            (None, Some(WaitStatus::Exited(_, exit_code))) => Ended {
                kind: EndKind::Exited.into(),
                exit_code,
                ..Ended::default()
            },
            (None, Some(WaitStatus::Signaled(_, signal, core))) => Ended {
                signal: signal as i32,
                ..ended(
                    EndKind::Signalled,
                    format!(
                        "killed by {signal}{}",
                        if core { ", core dumped" } else { "" }
                    ),
                )
            },
            (None, other) => ended(
                EndKind::Interrupted,
                match other {
                    Some(status) => format!("the process was lost: {status:?}"),
                    None => "it has ended, and nothing tells how".to_owned(),
                },
            ),
        };
        ended.cut_stdout_bytes = self.output.cut_stdout;
        ended.cut_stderr_bytes = self.output.cut_stderr;
        ended.wall_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        ended.cpu_ms = self.cpu_ms;
        ended.leaked_pipes = self.watch.leaked();
        ended
    }
}

fn unwatched(error: &io::Error) -> String {
    format!("cannot watch over it: {error}")
}

fn why(kind: EndKind) -> &'static str {
    match kind {
        EndKind::TimedOut => "stopped: it ran longer than its timeout",
        EndKind::Silent => "stopped: it printed nothing for longer than its silence timeout",
        _ => "stopped: it was cancelled",
    }
}

#[derive(Default)]
struct Ready {
    signals: bool,
    stdout: bool,
    stderr: bool,
}
