//! One child from its start to its end record: copies its output, and does what `stop_policy` decides. Called by the shim's
//! loop, for one command after the other. Decides nothing itself.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{ChildStderr, ChildStdout};
use std::time::{Duration, Instant};

use aot_proto::limits::FRAME_BYTES;
use aot_proto::v1::frame::Body;
use aot_proto::v1::{Ended, Started};
use hyper::body::Bytes;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid as NixPid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid};

use super::end_record::{Facts, end_record};
use crate::runner::cancellation;
use crate::runner::command::CommandSpec;
use crate::runner::leftover::{self, Pipes};
use crate::runner::mask::{HiddenValues, Masker};
use crate::runner::output::{CappedOutput, pump};
use crate::runner::reap::{self, Gone};
use crate::runner::signals::{Received, Signals};
use crate::runner::spawn::{as_before, spawn};
use crate::runner::spool::SpoolWriter;
use crate::runner::stop_policy::{Act, GRACE, StopPolicy};
use crate::runner::tree;

/// Longest time between a frame and its fdatasync.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How often children are reaped once the pipes are closed, where no signal reports them.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// A child, and what is known of its tree.
pub(super) struct ChildSupervisor<'a> {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    signals: &'a mut Signals,
    main: NixPid,
    policy: StopPolicy,
    started: Instant,
    synced: Instant,
    output: CappedOutput,
    /// Of standard output and standard error.
    maskers: [Masker<'a>; 2],
    status: Option<WaitStatus>,
    cpu_ms: u64,
    /// Those that KILL was sent to.
    killed: HashSet<i32>,
}

impl<'a> ChildSupervisor<'a> {
    /// Spawns the child and writes the first frame; the error is a line for a person.
    pub(super) fn start(
        dir: &Path,
        command: &CommandSpec,
        hidden: &'a HiddenValues,
        spool: &mut SpoolWriter,
        signals: &'a mut Signals,
    ) -> Result<Self, String> {
        let spawned = signals.unblocked(|| as_before(|| spawn(dir, command)));
        let mut child = spawned.unwrap_or_else(|error| Err(unsupervised(&error)))?;
        let started = Instant::now();
        let pid = child.id();
        let first = Started {
            run_id: command.run_id.clone(),
            pid,
            boot_id: command.boot_id.clone(),
        };
        // A run without its first frame counts as not started, so nothing of it may live on.
        spool.append(Body::Started(first)).map_err(|error| {
            tree::signal_below(getpid().as_raw_nonzero().get(), Signal::KILL);
            unsupervised(&error)
        })?;
        if !command.note.is_empty() {
            // Without it the run is the same.
            let _ = spool.append(Body::Stderr(command.note.clone().into()));
        }
        Ok(Self {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            signals,
            main: NixPid::from_raw(pid.cast_signed()),
            policy: StopPolicy::new(started, command.timeout, command.silence_timeout),
            started,
            synced: started,
            output: CappedOutput::new(command.output_cap_bytes),
            maskers: [Masker::new(hidden), Masker::new(hidden)],
            status: None,
            cpu_ms: 0,
            killed: HashSet::new(),
        })
    }

    /// Copies output and does what the policy decides until the run is over.
    pub(super) fn follow(&mut self, dir: &Path, spool: &mut SpoolWriter) -> io::Result<Ended> {
        let mut buffer = vec![0u8; FRAME_BYTES];
        // What came before the signals were blocked.
        if cancellation::is_requested(dir) {
            self.cancel(dir);
        }
        self.reap_children();
        loop {
            let ready = self.wait(spool.is_dirty())?;
            let received = match ready.signals {
                true => self.signals.drain(),
                false => Received::default(),
            };
            if received.cancel {
                self.cancel(dir);
            }
            if ready.stdout
                && !pump(
                    &mut self.stdout,
                    &mut buffer,
                    &mut self.maskers[0],
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
                    &mut self.maskers[1],
                    &mut self.output,
                    spool,
                    Body::Stderr,
                )
            {
                self.stderr = None;
            }
            if ready.stdout || ready.stderr {
                self.policy.output(Instant::now());
            }
            if received.child_ended || self.is_quiet() {
                self.reap_children();
            }
            if self.is_quiet() {
                self.policy.pipes_closed();
            }
            let now = Instant::now();
            if spool.is_dirty() && now >= self.synced + SYNC_EVERY {
                self.synced = now;
                // A disk that can't sync now may later; the end record is synced or tried again.
                let _ = spool.sync();
            }
            while let Some(act) = self.policy.step(now) {
                match act {
                    Act::Finish => {
                        self.pass_on_rest(spool);
                        return Ok(self.record());
                    }
                    Act::Terminate | Act::Kill => self.signal_all(act),
                }
            }
        }
    }

    /// What was held back of pipes that are still open: it may have been the begin of a secret.
    fn pass_on_rest(&mut self, spool: &mut SpoolWriter) {
        let bodies: [fn(Bytes) -> Body; 2] = [Body::Stdout, Body::Stderr];
        for (masker, body) in self.maskers.iter_mut().zip(bodies) {
            self.output.append_all(&masker.finish(), spool, body);
        }
    }

    /// Whether nothing is left of the child: no process, and nothing that holds its output open.
    pub(super) fn left_nothing(&self) -> bool {
        self.policy.left_nothing()
    }

    /// Whether there is nothing to be read any more.
    fn is_quiet(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Waits for anything to happen.
    fn wait(&self, dirty: bool) -> io::Result<Ready> {
        let sync_at = dirty.then(|| self.synced + SYNC_EVERY);
        // Who started us may have SIGCHLD ignored, which we inherit (execve(2)): then it never comes.
        let reap_at = self.is_quiet().then(|| Instant::now() + REAP_EVERY);
        let until = [self.policy.wake_at(), sync_at, reap_at];
        let until = until.into_iter().flatten().min();
        let timeout = until.map(|until| {
            // A little longer, so that the deadline has passed when we wake.
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

    /// What is still open of its output.
    pub(super) fn into_pipes(self) -> Pipes {
        let stdout = self.stdout.map(OwnedFd::from);
        let stderr = self.stderr.map(OwnedFd::from);
        Pipes(stdout.into_iter().chain(stderr).collect())
    }

    /// How many processes of the tree hold its output open.
    fn holders(&self) -> u32 {
        let pipes = [
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        let root = getpid().as_raw_nonzero().get();
        leftover::holders(root, pipes.into_iter().flatten())
    }

    fn cancel(&mut self, dir: &Path) {
        let grace = cancellation::grace(dir, GRACE);
        if let Some(act) = self.policy.cancel(Instant::now(), grace) {
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

    fn reap_children(&mut self) {
        let now = Instant::now();
        while let Some(gone) = reap::next(self.main) {
            match gone {
                Gone::Main { status, cpu_ms } => {
                    self.status = Some(status);
                    self.cpu_ms += cpu_ms;
                    self.policy.main_ended(now);
                }
                Gone::Orphan { cpu_ms } => self.cpu_ms += cpu_ms,
                Gone::Everyone => {
                    // Nobody is left to end, though nothing may have reported how it did.
                    self.policy.main_ended(now);
                    return self.policy.tree_empty(now);
                }
            }
        }
    }

    fn record(&self) -> Ended {
        let mut ended = end_record(&Facts {
            stopped: self.policy.stopped(),
            status: self.status,
            killed: self.killed.len(),
            gave_up: self.policy.gave_up(),
        });
        ended.cut_stdout_bytes = self.output.cut_stdout;
        ended.cut_stderr_bytes = self.output.cut_stderr;
        ended.wall_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        ended.cpu_ms = self.cpu_ms;
        ended.leaked_pipes = self.policy.leaked();
        if ended.leaked_pipes {
            ended.left_processes = self.holders();
        }
        ended
    }
}

fn unsupervised(error: &io::Error) -> String {
    format!("cannot supervise it: {error}")
}

#[derive(Default)]
struct Ready {
    signals: bool,
    stdout: bool,
    stderr: bool,
}
