//! The process that keeps one clone up: `aot-master machine-run FOLDER`. Started by the provider, outlives it.
//!
//! The first process only starts the second and waits for its "ready"; the second is nobody's child, owns the clone's
//! pid namespace and its console, and starts it again when it reboots. It never talks to the network. `after_boot` decides what follows a boot; `ready` waits.

mod after_boot;
mod ready;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use aot_provider::MachineState;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::FlockOperation;

use crate::boot::{Boot, BootOutcome};
use crate::console::Console;
use crate::record::{Dirs, MachineFile, StateFile, load, save};
use crate::userns;
use after_boot::{AfterBoot, EndRequest, after, asked};
use ready::wait;

/// Says which of the two processes this one is.
const STAGE: &str = "AOT_MACHINE_STAGE";
/// How long a clone has to stop by itself.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Entry of `aot-master machine-run FOLDER`. To be called before any thread is started.
pub fn machine_run(dir: &Path) -> ExitCode {
    close_inherited();
    let result = match std::env::var_os(STAGE).as_deref().and_then(OsStr::to_str) {
        Some("supervise") => supervise(Dirs(dir.to_owned())),
        Some("probe") => crate::probe::probe(dir),
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
            "the clone's supervisor ended without a message",
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
    if load::<MachineFile>(&dirs.machine())?.is_none_or(|file| file.ending.is_some()) {
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
        supervisor.record(MachineState::Stopped, format!("could not boot: {error}"))?;
    }
    result
}

/// Reports to the first process, once; later lines go nowhere.
fn answer(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{}", line.replace('\n', " "));
    let _ = out.flush();
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
        let before: Option<StateFile> = load(&dirs.state()).unwrap_or_default();
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
            aot_host::files::write_atomic(
                &self.dirs.boot_id(),
                format!("{}\n", self.boot_id).as_bytes(),
                0o644,
            )?;
            self.record(MachineState::Pending, "booting".into())?;
            let boot = Boot::start(&self.dirs.0, self.rootless)?;
            self.init_pid = Some(boot.pid);
            let (ended, request) = self.run_boot(boot)?;
            self.init_pid = None;
            match after(&ended, request) {
                AfterBoot::Boot => {}
                AfterBoot::Down(reason) => {
                    if let BootOutcome::Failed(why) = &ended {
                        answer(why);
                    }
                    return self.record(MachineState::Stopped, reason);
                }
            }
        }
    }

    /// Waits for the end of one boot; passes on what is asked for, and keeps the console.
    fn run_boot(&mut self, mut boot: Boot) -> io::Result<(BootOutcome, EndRequest)> {
        let mut request = EndRequest::None;
        let mut deadline: Option<Instant> = None;
        let mut is_silent = false;
        loop {
            let console = (!is_silent).then(|| boot.console.as_fd());
            let leash = (!boot.hung_up).then(|| boot.leash.as_fd());
            let end = Some(boot.done.as_fd());
            let ready = wait([Some(self.signals.as_fd()), console, leash, end], deadline)?;
            if ready[0] {
                while let Some(signal) = self.signals.read_signal()? {
                    request = asked(i32::try_from(signal.ssi_signo).unwrap_or(0), request);
                }
                self.pass_on(&mut boot, request)?;
                deadline = deadline.or(Some(Instant::now() + STOP_GRACE));
            }
            if ready[1] {
                is_silent = self.console.copy(&mut boot.console)? == 0;
            }
            if ready[2] && boot.hear() {
                self.record(MachineState::Running, "running".into())?;
                answer("ready");
            }
            if ready[3] {
                self.console.drain(&mut boot.console)?;
                return Ok((boot.finish()?, request));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                boot.kill();
                deadline = Some(Instant::now() + STOP_GRACE);
            }
        }
    }

    fn pass_on(&mut self, boot: &mut Boot, request: EndRequest) -> io::Result<()> {
        match request {
            EndRequest::None => Ok(()),
            EndRequest::Stop => {
                boot.command("stop");
                self.record(MachineState::Stopping, "stopping".into())
            }
            EndRequest::Reboot => {
                boot.command("reboot");
                Ok(())
            }
            EndRequest::Kill => {
                boot.kill();
                Ok(())
            }
        }
    }

    /// Writes down how it is.
    fn record(&self, state: MachineState, reason: String) -> io::Result<()> {
        let pid = std::process::id();
        let file = StateFile {
            state,
            reason,
            boot_id: self.boot_id.clone(),
            boots: self.boots,
            init_pid: self.init_pid,
            supervisor_pid: pid,
            supervisor_start: crate::control::start_time(pid).unwrap_or(0),
        };
        save(&self.dirs.state(), &file)
    }
}

/// A fresh id, as the kernel makes for `/proc/sys/kernel/random/boot_id`.
fn new_boot_id() -> io::Result<String> {
    let mut text = String::new();
    File::open("/proc/sys/kernel/random/uuid")?.read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}
