//! The process that keeps one clone up: `aot-master machine-run FOLDER`. Started by the provider, outlives it.
//!
//! The first process only starts the second and waits for its "ready"; the second is nobody's child, owns the clone's
//! pid namespace and its console, and starts it again when it reboots. It never talks to the network.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FlockOperation;

use super::boot::{Boot, Ended};
use super::console::Console;
use super::record::{Dirs, MachineFile, StateFile, save};
use super::userns;
use crate::provider::MachineState;

/// Says which of the two processes this one is.
const STAGE: &str = "AOT_MACHINE_STAGE";
/// How long a clone has to stop by itself.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Entry of `aot-master machine-run FOLDER`. To be called before any thread is started.
pub fn machine_run(dir: &Path) -> ExitCode {
    close_inherited();
    let result = match std::env::var(STAGE).as_deref() {
        Ok("supervise") => supervise(Dirs(dir.to_owned())),
        Ok("probe") => super::probe::probe(dir),
        _ => launch(dir),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it any more.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// What the environment must have for the trial that preflight makes.
pub(super) fn probe_env() -> (&'static str, &'static str) {
    (STAGE, "probe")
}

/// Closes what whoever started the master left open in it, so that a clone can't keep a terminal or a lock alive.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<i32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The folder's own descriptor is in the list and closed already.
        let _ = nix::unistd::close(fd);
    }
}

/// The first process: starts the second and passes on how that went.
fn launch(dir: &Path) -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("aot-master")
        .arg("machine-run")
        .arg(dir)
        .env(STAGE, "supervise")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take().expect("it was asked for above");
    let mut line = String::new();
    BufReader::new(stdout).take(4096).read_line(&mut line)?;
    match line.trim_end() {
        "ready" => Ok(()),
        "" => Err(io::Error::other(
            "the clone's supervisor ended without a word",
        )),
        why => Err(io::Error::other(why.to_owned())),
    }
}

/// The second process.
fn supervise(dirs: Dirs) -> io::Result<()> {
    // Fails only where it leads a group already, which is as good.
    let _ = rustix::process::setsid();
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dirs.lock())?;
    if rustix::fs::fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        answer("ready"); // Another one has it in hand.
        return Ok(());
    }
    // After the lock was taken: see `terminate` in the provider.
    if super::record::load::<MachineFile>(&dirs.machine())?.is_none_or(|file| file.ending.is_some())
    {
        answer("it is being terminated");
        return Ok(());
    }
    let mut supervisor = match Supervisor::new(dirs.clone(), lock) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            answer(&error.to_string());
            return Err(error);
        }
    };
    let result = supervisor.run();
    if let Err(error) = &result {
        answer(&error.to_string());
        supervisor.note(MachineState::Stopped, format!("could not boot: {error}"))?;
    }
    result
}

/// Tells the first process, once; later ones go nowhere.
fn answer(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{}", line.replace('\n', " "));
    let _ = out.flush();
}

/// Why a boot is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Nothing was asked for.
    None,
    /// To stay down.
    Stop,
    /// To come up again.
    Reboot,
    /// At once.
    Kill,
}

/// What follows the end of a boot: the reason to show, or another boot.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Boot,
    Down(String),
}

/// Decides what follows. `reboot(2)` in a pid namespace ends its pid 1 by SIGHUP (restart) or SIGINT (halt, power off).
fn after(ended: &Ended, wish: Wish) -> Next {
    match (ended, wish) {
        (_, Wish::Kill) => Next::Down("being terminated".into()),
        (_, Wish::Stop) => Next::Down("stopped by the operator".into()),
        (Ended::Failed(why), _) => Next::Down(format!("could not boot: {why}")),
        (Ended::Signal(1), _) | (_, Wish::Reboot) => Next::Boot,
        (Ended::Signal(2), _) | (Ended::Code(0), _) => Next::Down("powered off from inside".into()),
        (Ended::Signal(signal), _) => Next::Down(format!(
            "lost power: its pid 1 was ended by signal {signal}"
        )),
        (Ended::Code(code), _) => Next::Down(format!("its pid 1 ended with exit code {code}")),
    }
}

struct Supervisor {
    dirs: Dirs,
    _lock: File,
    signals: SignalFd,
    console: Console,
    boots: u64,
    boot_id: String,
    init_pid: Option<u32>,
    rootless: bool,
}

impl Supervisor {
    fn new(dirs: Dirs, lock: File) -> io::Result<Self> {
        let rootless = !rustix::process::geteuid().is_root();
        if rootless {
            userns::enter()?;
        }
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let before: Option<StateFile> = super::record::load(&dirs.state()).unwrap_or_default();
        Ok(Self {
            console: Console::open(dirs.console())?,
            dirs,
            _lock: lock,
            signals,
            boots: before.map_or(0, |state| state.boots),
            boot_id: String::new(),
            init_pid: None,
            rootless,
        })
    }

    /// Boots until it is to stay down.
    fn run(&mut self) -> io::Result<()> {
        loop {
            self.boots += 1;
            self.boot_id = new_boot_id()?;
            super::record::write_atomic(
                &self.dirs.boot_id(),
                format!("{}\n", self.boot_id).as_bytes(),
                0o644,
            )?;
            self.note(MachineState::Pending, "booting".into())?;
            let boot = Boot::start(&self.dirs.0, self.rootless)?;
            self.init_pid = Some(boot.pid);
            let (ended, wish) = self.watch(boot)?;
            self.init_pid = None;
            match after(&ended, wish) {
                Next::Boot => {}
                Next::Down(reason) => {
                    if let Ended::Failed(why) = &ended {
                        answer(why);
                    }
                    return self.note(MachineState::Stopped, reason);
                }
            }
        }
    }

    /// Waits for the end of one boot; passes on what is asked for, and keeps the console.
    fn watch(&mut self, mut boot: Boot) -> io::Result<(Ended, Wish)> {
        let mut wish = Wish::None;
        let mut deadline: Option<Instant> = None;
        let mut is_silent = false;
        loop {
            let console = (!is_silent).then(|| boot.console.as_fd());
            let leash = (!boot.hung_up).then(|| boot.leash.as_fd());
            let end = Some(boot.done.as_fd());
            let ready = wait([Some(self.signals.as_fd()), console, leash, end], deadline)?;
            if ready[0] {
                while let Some(signal) = self.signals.read_signal()? {
                    wish = asked(i32::try_from(signal.ssi_signo).unwrap_or(0), wish);
                }
                self.pass_on(&mut boot, wish)?;
                deadline = deadline.or(Some(Instant::now() + STOP_GRACE));
            }
            if ready[1] {
                is_silent = self.console.copy(&mut boot.console)? == 0;
            }
            if ready[2] && boot.hear() {
                self.note(MachineState::Running, "running".into())?;
                answer("ready");
            }
            if ready[3] {
                self.console.drain(&mut boot.console)?;
                return Ok((boot.finish()?, wish));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                boot.kill();
                deadline = Some(Instant::now() + STOP_GRACE);
            }
        }
    }

    fn pass_on(&mut self, boot: &mut Boot, wish: Wish) -> io::Result<()> {
        match wish {
            Wish::None => Ok(()),
            Wish::Stop => {
                boot.tell("stop");
                self.note(MachineState::Stopping, "stopping".into())
            }
            Wish::Reboot => {
                boot.tell("reboot");
                Ok(())
            }
            Wish::Kill => {
                boot.kill();
                Ok(())
            }
        }
    }

    /// Writes down how it is.
    fn note(&self, state: MachineState, reason: String) -> io::Result<()> {
        let pid = std::process::id();
        let file = StateFile {
            state,
            reason,
            boot_id: self.boot_id.clone(),
            boots: self.boots,
            init_pid: self.init_pid,
            supervisor_pid: pid,
            supervisor_start: super::control::start_time(pid).unwrap_or(0),
        };
        save(&self.dirs.state(), &file)
    }
}

/// What a signal asks for; a stronger wish is never taken back.
fn asked(signal: i32, wish: Wish) -> Wish {
    match (Signal::try_from(signal), wish) {
        (_, Wish::Kill) | (Ok(Signal::SIGINT), _) => Wish::Kill,
        (_, Wish::Stop) | (Ok(Signal::SIGTERM), _) => Wish::Stop,
        (Ok(Signal::SIGHUP), _) => Wish::Reboot,
        _ => wish,
    }
}

/// Which of these have something to say. One that is closed says so again and again, and is to be left out then: between
/// the end of pid 1 and that of its whole pid namespace lie seconds, which would be spent on asking.
fn wait<const N: usize>(
    from: [Option<BorrowedFd<'_>>; N],
    deadline: Option<Instant>,
) -> io::Result<[bool; N]> {
    let open = from.iter().flatten();
    let mut fds: Vec<PollFd<'_>> = open
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let timeout = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(left).unwrap_or_default()
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut hits = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(from.map(|fd| fd.is_some() && hits.next().unwrap_or(false)))
}

/// A fresh id, as the kernel makes for `/proc/sys/kernel/random/boot_id`.
fn new_boot_id() -> io::Result<String> {
    let mut text = String::new();
    File::open("/proc/sys/kernel/random/uuid")?.read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_and_left_out_wakes_nobody() {
        let (closed, writer) = io::pipe().expect("a pipe");
        let (silent, _open) = io::pipe().expect("a pipe");
        drop(writer);
        let fds = [Some(closed.as_fd()), None, Some(silent.as_fd())];
        let ready = wait(fds, None).expect("polls");
        assert_eq!(ready, [true, false, false], "its end is news, once");
        let deadline = Instant::now() + Duration::from_millis(50);
        let ready = wait([None, Some(silent.as_fd())], Some(deadline)).expect("polls");
        assert_eq!(ready, [false, false]);
        assert!(Instant::now() >= deadline, "it slept");
    }

    #[test]
    fn what_follows_a_boot() {
        let down = |text: &str| Next::Down(text.into());
        for (name, ended, wish, next) in [
            ("reboot(2)", Ended::Signal(1), Wish::None, Next::Boot),
            (
                "power off",
                Ended::Signal(2),
                Wish::None,
                down("powered off from inside"),
            ),
            (
                "kill -9",
                Ended::Signal(9),
                Wish::None,
                down("lost power: its pid 1 was ended by signal 9"),
            ),
            (
                "stop",
                Ended::Code(0),
                Wish::Stop,
                down("stopped by the operator"),
            ),
            (
                "stop, too slow",
                Ended::Signal(9),
                Wish::Stop,
                down("stopped by the operator"),
            ),
            (
                "a reboot while stopping",
                Ended::Signal(1),
                Wish::Stop,
                down("stopped by the operator"),
            ),
            (
                "reboot, too slow",
                Ended::Signal(9),
                Wish::Reboot,
                Next::Boot,
            ),
            (
                "terminate",
                Ended::Signal(9),
                Wish::Kill,
                down("being terminated"),
            ),
            (
                "no boot",
                Ended::Failed("x".into()),
                Wish::None,
                down("could not boot: x"),
            ),
            (
                "no boot, again",
                Ended::Failed("x".into()),
                Wish::Reboot,
                down("could not boot: x"),
            ),
            (
                "a bug",
                Ended::Code(3),
                Wish::None,
                down("its pid 1 ended with exit code 3"),
            ),
        ] {
            assert_eq!(after(&ended, wish), next, "{name}");
        }
    }

    #[test]
    fn a_stronger_wish_stays() {
        let (term, hup, int) = (15, 1, 2);
        assert_eq!(asked(hup, Wish::None), Wish::Reboot);
        assert_eq!(asked(term, Wish::Reboot), Wish::Stop);
        assert_eq!(asked(hup, Wish::Stop), Wish::Stop);
        assert_eq!(asked(int, Wish::Stop), Wish::Kill);
        assert_eq!(asked(term, Wish::Kill), Wish::Kill);
        assert_eq!(asked(10, Wish::None), Wish::None);
    }
}
