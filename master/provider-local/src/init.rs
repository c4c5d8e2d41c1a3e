//! Pid 1 of a clone: `aot-master machine-init FOLDER`, started by the clone's supervisor only. Puts the mounts in place,
//! keeps the agent running as `Restart=always` would, reaps what is left over, and ends when it is asked to.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid as AnyPid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, wait};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use super::boot::ROOTLESS;
use super::prepare::{self, Upper};
use super::record::{Dirs, MachineFile, load};
use super::{layers, mounts};

/// The agent inside.
const AGENT: &str = "/usr/local/bin/aot-agent";
/// How long processes have to end by themselves; below the supervisor's own grace.
const GRACE: Duration = Duration::from_secs(4);
/// An agent that lived this long is started again at once.
const HEALTHY: Duration = Duration::from_secs(10);
const FIRST_DELAY: Duration = Duration::from_millis(200);
const LAST_DELAY: Duration = Duration::from_secs(10);

/// What a clone that is root here must not do to its host: kernel modules, raw devices, the clock, the network.
const DROPPED: [CapabilitySet; 5] = [
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_TIME,
    CapabilitySet::NET_ADMIN,
    CapabilitySet::MKNOD,
];

/// Entry of `aot-master machine-init FOLDER`. To be called before any thread is started.
pub fn machine_init(dir: &Path) -> ExitCode {
    if std::process::id() != 1 {
        let _ = writeln!(
            io::stderr(),
            "machine-init is started by a clone's supervisor only"
        );
        return ExitCode::FAILURE;
    }
    let mut init = match Init::new() {
        Ok(init) => init,
        Err(error) => {
            let _ = writeln!(io::stderr(), "aot: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = set_up(&Dirs(dir.to_owned())) {
        init.report(&format!("failed: {}", error.to_string().replace('\n', " ")));
        return ExitCode::FAILURE;
    }
    init.report("ready");
    match init.run() {
        Ok(end) => end.carry_out(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "aot: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Name spaces, files, mounts, in this order; afterwards nothing of the host's tree is reachable.
fn set_up(dirs: &Dirs) -> io::Result<()> {
    let rootless = std::env::var_os(ROOTLESS).is_some();
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)?;
    mounts::private()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let machine: MachineFile = load(&dirs.machine())?.ok_or(io::ErrorKind::NotFound)?;
    let plan = if rootless {
        layers::by_folder()?
    } else {
        layers::for_root(&fs::read("/proc/self/mountinfo")?, &machine.masked)
    };
    let first = !dirs.prepared().exists();
    let upper = Upper::new(dirs, &plan, rootless)?;
    if first {
        upper.first_boot(&machine)?;
    }
    let root = dirs.root();
    mounts::layers(dirs, &plan, rootless)?;
    if first {
        prepare::remove_host_keys(dirs)?;
        fs::write(dirs.prepared(), "")?;
    }
    prepare::every_boot(dirs)?;
    mounts::kernel(&root, rootless)?;
    rustix::system::sethostname(machine.hostname.as_bytes())?;
    mounts::enter(&root)?;
    if !rootless {
        for capability in DROPPED {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    Ok(())
}

/// How this boot is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BootEnd {
    Stop,
    Reboot,
}

impl BootEnd {
    fn carry_out(self) -> ExitCode {
        if self == Self::Stop {
            return ExitCode::SUCCESS;
        }
        // In a pid namespace this ends pid 1 with SIGHUP (reboot(2)); it comes back only when it failed.
        let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
        let _ = writeln!(io::stderr(), "aot: reboot: {error}");
        ExitCode::FAILURE
    }
}

/// The agent, as pid 1 sees it.
#[derive(Debug, Clone, Copy)]
enum AgentProcess {
    Running { pid: Pid, since: Instant },
    Waiting { until: Instant },
}

struct Init {
    signals: SignalFd,
    leash: UnixStream,
    agent: AgentProcess,
    delay: Duration,
    end: Option<(BootEnd, Instant)>,
}

impl Init {
    fn new() -> io::Result<Self> {
        // Should the supervisor die before this line, the leash is closed, which says the same.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
            mask.add(signal);
        }
        mask.thread_block()?;
        let leash = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        leash.set_nonblocking(true)?;
        Ok(Self {
            signals: SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            leash,
            agent: AgentProcess::Waiting {
                until: Instant::now(),
            },
            delay: FIRST_DELAY,
            end: None,
        })
    }

    fn report(&mut self, line: &str) {
        // When nobody listens any more, the end of the leash is seen below.
        let _ = writeln!(self.leash, "{line}");
    }

    fn run(&mut self) -> io::Result<BootEnd> {
        loop {
            let now = Instant::now();
            if let Some((end, deadline)) = self.end
                && now >= deadline
            {
                return Ok(end);
            }
            if let (AgentProcess::Waiting { until }, None) = (self.agent, self.end)
                && now >= until
            {
                self.start_agent(now);
            }
            self.wait(now)?;
            while let Some(signal) = self.signals.read_signal()? {
                match Signal::try_from(signal.ssi_signo.cast_signed()) {
                    Ok(Signal::SIGTERM) => self.begin(BootEnd::Stop),
                    Ok(Signal::SIGINT) => self.begin(BootEnd::Reboot),
                    _ => {}
                }
            }
            if !self.listen() {
                return Ok(BootEnd::Stop);
            }
            let left = self.reap();
            if let (Some((end, _)), false) = (self.end, left) {
                return Ok(end);
            }
        }
    }

    /// Waits for a signal, a command, or the next time that something is due.
    fn wait(&self, now: Instant) -> io::Result<()> {
        let due = match (self.end, self.agent) {
            (Some((_, deadline)), _) => Some(deadline),
            (None, AgentProcess::Waiting { until }) => Some(until),
            (None, AgentProcess::Running { .. }) => None,
        };
        let timeout = due.map(|due| {
            let left = due.saturating_duration_since(now) + Duration::from_millis(1);
            Timespec::try_from(left).unwrap_or_default()
        });
        let mut fds = [
            PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.leash.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hears the supervisor; false when it is gone.
    fn listen(&mut self) -> bool {
        let mut bytes = [0_u8; 256];
        match self.leash.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                for line in String::from_utf8_lossy(&bytes[..count]).lines() {
                    match line {
                        "stop" => self.begin(BootEnd::Stop),
                        "reboot" => self.begin(BootEnd::Reboot),
                        _ => {}
                    }
                }
                true
            }
            Err(error) => {
                error.kind() == io::ErrorKind::WouldBlock
                    || error.kind() == io::ErrorKind::Interrupted
            }
        }
    }

    /// Asks every process to end; what is left after the grace ends with pid 1. The last command counts.
    fn begin(&mut self, end: BootEnd) {
        let deadline = self
            .end
            .map_or_else(|| Instant::now() + GRACE, |(_, deadline)| deadline);
        self.end = Some((end, deadline));
        // ESRCH: there is none.
        let _ = kill(AnyPid::from_raw(-1), Signal::SIGTERM);
    }

    /// Takes in the dead; true while there are living ones.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let AgentProcess::Running { pid: agent, since } = self.agent
                        && agent == pid
                    {
                        let lived = since.elapsed();
                        self.delay = next_delay(self.delay, lived);
                        eprintln!(
                            "aot: the agent ended ({status:?}) after {} s",
                            lived.as_secs()
                        );
                        self.agent = AgentProcess::Waiting {
                            until: Instant::now() + self.delay,
                        };
                    }
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn start_agent(&mut self, now: Instant) {
        let started = Command::new(AGENT)
            .arg("run")
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .stdin(Stdio::null())
            .current_dir("/")
            .spawn();
        self.agent = match started {
            Ok(child) => match Pid::from_raw(child.id().cast_signed()) {
                Some(pid) => AgentProcess::Running { pid, since: now },
                None => AgentProcess::Waiting {
                    until: now + LAST_DELAY,
                },
            },
            Err(error) => {
                eprintln!("aot: the agent could not be started: {error}");
                self.delay = next_delay(self.delay, Duration::ZERO);
                AgentProcess::Waiting {
                    until: now + self.delay,
                }
            }
        };
    }
}

/// How long to wait before the next start: twice as long each time, from the beginning after a healthy life.
fn next_delay(before: Duration, lived: Duration) -> Duration {
    if lived >= HEALTHY {
        FIRST_DELAY
    } else {
        (before * 2).min(LAST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crashing_agent_is_started_ever_more_slowly() {
        let mut delay = FIRST_DELAY;
        for _ in 0..20 {
            let next = next_delay(delay, Duration::from_secs(1));
            assert!(next >= delay && next <= LAST_DELAY);
            delay = next;
        }
        assert_eq!(delay, LAST_DELAY);
        assert_eq!(next_delay(delay, HEALTHY), FIRST_DELAY);
    }
}
