//! The machine as `volumes` needs it: commands, block devices, waiting. Tests put a fake in its place.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::mountinfo::Dev;
use crate::starts;

/// How long a command that was killed may take to go. After that it is left alone: it hangs in the kernel.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// Most of a command's output that is kept, from its end.
const MOST_OUTPUT: u64 = 64 * 1024;
/// How much at the start and at the end of a device is checked: every signature that libblkid knows lies there.
const EDGE: u64 = 1 << 20;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// Exit status; `None` after a signal.
    pub code: Option<i32>,
    /// The end of its output.
    pub stdout: String,
    /// The end of its errors.
    pub stderr: String,
}

/// A command without a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRun {
    /// There is no such program.
    #[error("{0} is not on this machine")]
    Missing(String),
    /// It had to be killed.
    #[error("{program} had not ended after {} s", within.as_secs())]
    Late {
        program: String,
        /// How long it had.
        within: Duration,
    },
    /// It could not be started or waited for.
    #[error("cannot run {program}")]
    Io { program: String, source: io::Error },
}

/// What the rest of `volumes` asks of a machine.
pub(crate) trait System {
    /// Runs a command to its end, without input, for at most `within`.
    ///
    /// # Errors
    /// When there is no such program, or it does not end.
    fn run(&self, argv: &[&str], within: Duration) -> Result<Done, NotRun>;
    /// The number of a block device; `None` where there is none.
    fn number(&self, path: &Path) -> Option<Dev>;
    /// Whether the kernel or a process holds a block device for itself (open(2), O_EXCL).
    ///
    /// # Errors
    /// As open(2), but for EBUSY.
    fn is_held(&self, node: &Path) -> io::Result<bool>;
    /// Waits until a name appears in `dir`, or for `within`.
    fn wait(&self, dir: &Path, within: Duration);
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Real;

impl System for Real {
    fn run(&self, argv: &[&str], within: Duration) -> Result<Done, NotRun> {
        let program = argv.first().copied().unwrap_or_default();
        run(argv, within).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => NotRun::Missing(program.to_owned()),
            io::ErrorKind::TimedOut => NotRun::Late {
                program: program.to_owned(),
                within,
            },
            _ => NotRun::Io {
                program: program.to_owned(),
                source,
            },
        })
    }

    fn number(&self, path: &Path) -> Option<Dev> {
        let meta = std::fs::metadata(path).ok()?;
        meta.file_type().is_block_device().then(|| Dev {
            major: rustix::fs::major(meta.rdev()),
            minor: rustix::fs::minor(meta.rdev()),
        })
    }

    fn is_held(&self, node: &Path) -> io::Result<bool> {
        let flags = i32::try_from(rustix::fs::OFlags::EXCL.bits()).map_err(io::Error::other)?;
        match OpenOptions::new().read(true).custom_flags(flags).open(node) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn wait(&self, dir: &Path, within: Duration) {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).and_then(|watch| {
            let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&watch, dir, events).map(|_| watch)
        });
        let mut fds: Vec<PollFd<'_>> = watch
            .iter()
            .map(|watch| PollFd::new(watch, PollFlags::IN))
            .collect();
        let timeout = Timespec::try_from(within).ok();
        // A signal, or a folder that can't be watched, only means to check once more.
        let _ = poll(&mut fds, timeout.as_ref());
    }
}

/// Whether the start and the end of a device are all zeros, as those of a new EBS volume (EBS User Guide, "Initialize
/// Amazon EBS volumes").
///
/// # Errors
/// As read(2), and where there is not one byte.
pub(crate) fn is_zero(node: &Path) -> io::Result<bool> {
    let mut file = File::open(node)?;
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Err(io::Error::other("it has no bytes"));
    }
    let mut edge = Vec::new();
    for from in [0, length.saturating_sub(EDGE)] {
        edge.clear();
        file.seek(SeekFrom::Start(from))?;
        Read::by_ref(&mut file).take(EDGE).read_to_end(&mut edge)?;
        if edge.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Output goes to nameless files: no pipe fills up, and a child's child that lives on holds nothing up.
fn run(argv: &[&str], within: Duration) -> io::Result<Done> {
    let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut command = Command::new(program);
    command
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let mut child = starts::start(|| command.spawn())?;
    let status = ended(&mut child, within)?.ok_or(io::ErrorKind::TimedOut)?;
    Ok(Done {
        code: status.code(),
        stdout: tail(&mut stdout)?,
        stderr: tail(&mut stderr)?,
    })
}

/// Waits for the child's end; `None` when it had to be killed. The waiting thread only observes (WNOWAIT): who reaps it is
/// who may kill it, so that no other process is ever hit.
fn ended(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let (sender, gone) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let seen = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        // Nobody listens any more where it could not be killed.
        let _ = sender.send(seen.is_ok());
    });
    if gone.recv_timeout(within).is_ok() {
        return child.wait().map(Some);
    }
    child.kill()?;
    if gone.recv_timeout(KILL_GRACE).is_ok() {
        child.wait()?;
    }
    Ok(None)
}

fn tail(file: &mut File) -> io::Result<String> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(MOST_OUTPUT)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_command_is_run_to_its_end_with_its_output() {
        let done = Real
            .run(&["sh", "-c", "echo out; echo err >&2; exit 7"], MINUTE)
            .unwrap();
        let want = Done {
            code: Some(7),
            stdout: "out\n".into(),
            stderr: "err\n".into(),
        };
        assert_eq!(done, want);
    }

    #[test]
    fn a_command_that_is_missing_or_late_is_named() {
        let missing = Real.run(&["no-such-program-of-aot"], MINUTE).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "no-such-program-of-aot is not on this machine"
        );
        let begun = Instant::now();
        let late = Real
            .run(&["sleep", "60"], Duration::from_millis(50))
            .unwrap_err();
        assert!(matches!(late, NotRun::Late { .. }), "{late}");
        assert!(begun.elapsed() < MINUTE / 2, "it was killed");
    }

    #[test]
    fn zeros_are_looked_for_at_both_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let mut bytes = vec![0; 3 * EDGE as usize];
        for (at, want) in [
            (None, true),
            (Some(512), false),
            (Some(bytes.len() - 1), false),
        ] {
            bytes.fill(0);
            if let Some(at) = at {
                bytes[at] = 1;
            }
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(is_zero(&path).unwrap(), want, "{at:?}");
        }
        std::fs::write(&path, "").unwrap();
        assert!(is_zero(&path).is_err(), "nothing can be said of it");
    }

    #[test]
    fn a_new_name_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        Real.wait(&dir.path().join("missing"), Duration::from_millis(10));
        let path = dir.path().to_owned();
        let (stop, stopped) = mpsc::sync_channel::<()>(0);
        let maker = thread::spawn(move || {
            // Names until the wait is over: the first may come before the watch.
            for n in 0.. {
                std::fs::write(path.join(n.to_string()), "").unwrap();
                if stopped.recv_timeout(Duration::from_millis(10))
                    != Err(mpsc::RecvTimeoutError::Timeout)
                {
                    return;
                }
            }
        });
        Real.wait(dir.path(), MINUTE);
        assert!(begun.elapsed() < MINUTE / 2);
        drop(stop);
        maker.join().unwrap();
    }

    #[test]
    fn only_block_devices_have_a_number() {
        assert_eq!(Real.number(Path::new("/dev/null")), None);
        assert_eq!(Real.number(Path::new("/no/such/thing")), None);
    }
}
