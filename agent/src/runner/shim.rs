//! `aot-agent shim DIR`: the process that owns one child. Started by the runner in a session (and systemd scope) of its
//! own; survives the agent. Plain blocking code: no tokio, no TLS, no network, no decisions (those are in `watch`).

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, ExitCode};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use aot_proto::limits::FRAME_BYTES;
use aot_proto::v1::frame::Body;
use aot_proto::v1::{EndKind, Ended, Started};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid as NixPid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, mknodat};
use rustix::process::{Signal, getpid, set_child_subreaper, setsid};

use super::command::Command;
use super::output::{Output, pump};
use super::reap::{Gone, wait_for_all};
use super::spawn::{exposed_to_oom, spawn};
use super::spool::{Writer, ended};
use super::tree;
use super::watch::{Act, GRACE, Watch};

/// Held (flock) by a shim as long as it lives, and by the agent while it writes an end in a dead shim's stead.
pub const LOCK: &str = "lock";
/// A fifo: a byte in it means that there is a cancellation to be read.
pub const CONTROL: &str = "control";
/// Holds the grace in ms of a cancellation.
pub const CANCEL: &str = "cancel";
/// Holds the shim's pid, which is also its session.
pub const PID: &str = "pid";

/// Of a run that was cancelled in time.
pub const NOT_STARTED: &str = "cancelled before it was started";

/// At most so long between a frame and its fdatasync.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How often and how many times the end record is tried on a full disk.
const END_TRIES: u32 = 600;

/// Runs the child that the folder describes, to its end.
pub fn main(dir: &Path) -> ExitCode {
    match run(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aot-agent shim: {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path) -> io::Result<()> {
    // Fails only where we lead a session already, which is what is wanted.
    let _ = setsid();
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(dir.join(LOCK))?;
    lock.lock()?;
    let control = open_control(dir)?;
    let (mut spool, scan) = Writer::open(dir)?;
    if scan.whole_bytes > 0 {
        // Someone wrote this run's end before we came: it must not start any more.
        return Ok(());
    }
    set_child_subreaper(Some(getpid()))?;
    fs::write(dir.join(PID), getpid().as_raw_nonzero().to_string())?;
    let command = Command::read(dir)?;
    if dir.join(CANCEL).exists() {
        let record = ended(EndKind::Cancelled, NOT_STARTED);
        return end(dir, &mut spool, record, Some(&control));
    }
    let mut shim = match Shim::start(dir, &command, control, &mut spool) {
        Ok(shim) => shim,
        Err(detail) => return end(dir, &mut spool, ended(EndKind::NotStarted, detail), None),
    };
    let mut record = shim.follow(dir, &mut spool)?;
    if record.kind() == EndKind::Signalled && matches!(shim.told_to_end.read_signal(), Ok(Some(_)))
    {
        record = Ended {
            detail: "the machine was shut down while it ran".to_owned(),
            kind: EndKind::Interrupted.into(),
            ..record
        };
    }
    end(dir, &mut spool, record, Some(&shim.control))
}

/// TERM at shutdown must not kill the one that writes the record; it can be read here later. Called once the child is
/// there: a child inherits what is blocked.
fn block_signals() -> io::Result<SignalFd> {
    let set = SigSet::from_iter([NixSignal::SIGTERM, NixSignal::SIGHUP, NixSignal::SIGINT]);
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

fn open_control(dir: &Path) -> io::Result<File> {
    let path = dir.join(CONTROL);
    match mknodat(
        rustix::fs::CWD,
        &path,
        FileType::Fifo,
        Mode::RUSR | Mode::WUSR,
        0,
    ) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    // Open for writing too: it never is at its end.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.cast_signed())
        .open(path)
}

/// Writes the end record; on a full disk tries again for ten minutes.
fn end(dir: &Path, spool: &mut Writer, record: Ended, control: Option<&File>) -> io::Result<()> {
    let mut last = Ok(());
    for _ in 0..END_TRIES {
        last = spool.end(dir, record.clone());
        if last.is_ok() {
            break;
        }
        let mut fds: Vec<PollFd<'_>> = control
            .iter()
            .map(|file| PollFd::new(*file, PollFlags::empty()))
            .collect();
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            }),
        )?;
    }
    last
}

struct Shim {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    control: File,
    wake: PipeReader,
    gone: Receiver<Gone>,
    told_to_end: SignalFd,
    watch: Watch,
    started: Instant,
    synced: Instant,
    output: Output,
    status: Option<WaitStatus>,
    cpu_ms: u64,
    /// Those that KILL was sent to.
    killed: HashSet<i32>,
}

impl Shim {
    /// Spawns the child and writes the first frame; the error is a line for a person.
    fn start(
        dir: &Path,
        command: &Command,
        control: File,
        spool: &mut Writer,
    ) -> Result<Self, String> {
        let (wake, waker) = io::pipe().map_err(|error| format!("no pipe: {error}"))?;
        let mut child = exposed_to_oom(|| spawn(dir, command))?;
        let started = Instant::now();
        let pid = child.id();
        let first = Started {
            run_id: command.run_id.clone(),
            pid,
            boot_id: command.boot_id.clone(),
        };
        let ready = block_signals().and_then(|fd| spool.append(Body::Started(first)).map(|()| fd));
        let told_to_end = ready.map_err(|error| {
            tree::signal_below(getpid().as_raw_nonzero().get(), Signal::KILL);
            format!("cannot watch over it: {error}")
        })?;
        let (sender, gone) = channel();
        let main = NixPid::from_raw(pid.cast_signed());
        thread::spawn(move || wait_for_all(main, &sender, waker));
        Ok(Self {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            control,
            wake,
            gone,
            told_to_end,
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
        if dir.join(CANCEL).exists() {
            self.cancel(dir);
        }
        loop {
            let ready = self.wait(spool.is_dirty())?;
            if ready.control && drain(&mut self.control) {
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
            if ready.wake {
                self.note_the_gone()?;
            }
            if self.stdout.is_none() && self.stderr.is_none() {
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

    /// Waits for anything to happen.
    fn wait(&self, dirty: bool) -> io::Result<Ready> {
        let sync_at = dirty.then(|| self.synced + SYNC_EVERY);
        let until = [self.watch.wake_at(), sync_at].into_iter().flatten().min();
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let pollin = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![pollin(self.control.as_fd()), pollin(self.wake.as_fd())];
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
            control: hit(true),
            wake: hit(true),
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

    fn note_the_gone(&mut self) -> io::Result<()> {
        let mut bytes = [0u8; 64];
        let _ = self.wake.read(&mut bytes)?;
        let now = Instant::now();
        for gone in self.gone.try_iter() {
            match gone {
                Gone::Main { status, cpu_ms } => {
                    self.status = Some(status);
                    self.cpu_ms += cpu_ms;
                    self.watch.main_ended(now);
                }
                Gone::Orphan { cpu_ms } => self.cpu_ms += cpu_ms,
                Gone::Everyone => self.watch.tree_empty(now),
            }
        }
        Ok(())
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
                format!("the process was lost: {other:?}"),
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

fn why(kind: EndKind) -> &'static str {
    match kind {
        EndKind::TimedOut => "stopped: it ran longer than its timeout",
        EndKind::Silent => "stopped: it printed nothing for longer than its silence timeout",
        _ => "stopped: it was cancelled",
    }
}

#[derive(Default)]
struct Ready {
    control: bool,
    wake: bool,
    stdout: bool,
    stderr: bool,
}

/// Empties the fifo; true when there was something.
fn drain(control: &mut File) -> bool {
    let mut bytes = [0u8; 64];
    control.read(&mut bytes).is_ok_and(|len| len > 0)
}
