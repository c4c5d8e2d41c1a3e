//! What this host is like, measured: room, limits, ports, what the kernel offers. Reads and tries, decides nothing; what can't be
//! measured is left out.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::CliEnv;

/// How long the service that knows the clock may take.
const CLOCK: Duration = Duration::from_secs(3);

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// Where the state lies, or would.
    pub state_dir: PathBuf,
    /// Its permission bits, where it is there.
    pub state_mode: Option<u32>,
    /// Bytes of its disk that are free, and of all of it.
    pub disk: Option<(u64, u64)>,
    /// Files that the master, or a process like this one, may have open: now, and at most.
    pub open_files: Option<(u64, u64)>,
    /// Whether the agents' port could be listened on; only asked where no master runs.
    pub listen: Option<Result<(), String>>,
    /// Agents beside the program, or where the settings say, by file name.
    pub agents: Vec<String>,
    /// The daemon's program is there.
    pub daemon: bool,
    /// Whether the clock is kept by a time server.
    pub clock: Option<bool>,
    /// Of the kernel.
    pub kernel: KernelFacts,
}

/// What of the kernel clones of this machine, and agents, need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KernelFacts {
    /// This is root.
    pub root: bool,
    /// Control groups of version 2 are mounted.
    pub cgroup2: bool,
    /// Overlays are known to the kernel as it is loaded.
    pub overlay: bool,
    /// All namespaces that a clone has are known.
    pub namespaces: bool,
    /// Setting and value of what forbids user namespaces to others than root.
    pub no_userns: Option<(&'static str, String)>,
}

/// Measures it; `master` is the pid of one that runs.
pub(super) async fn measure(env: &CliEnv, master: Option<u32>) -> HostFacts {
    let settings = env.serve.as_ref();
    let beside = env.background.as_ref();
    let program = beside.map(|daemon| daemon.program.clone());
    let agent_dir = settings.and_then(|settings| settings.agent_dir.clone());
    let agent_dir = agent_dir.or_else(|| Some(program.as_ref()?.parent()?.to_owned()));
    let listen = match (master, settings) {
        (None, Some(settings)) => Some(try_to_listen(&settings.listen).await),
        _ => None,
    };
    let state = fs::metadata(&env.state_dir).ok();
    HostFacts {
        state_mode: state.map(|state| state.mode() & 0o7777),
        disk: disk(&env.state_dir),
        open_files: open_files(master),
        listen,
        agents: agent_dir.as_deref().map(agents).unwrap_or_default(),
        daemon: program.is_none_or(|program| program.is_file()),
        clock: clock().await,
        kernel: kernel(Path::new("/")),
        state_dir: env.state_dir.clone(),
    }
}

/// Of the nearest folder that is there.
fn disk(dir: &Path) -> Option<(u64, u64)> {
    let found = dir
        .ancestors()
        .find_map(|at| rustix::fs::statvfs(at).ok())?;
    let of = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some((of(found.f_bavail), of(found.f_blocks)))
}

/// See proc_pid_limits(5).
fn open_files(master: Option<u32>) -> Option<(u64, u64)> {
    let process = master.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let text = fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    limits_in(&text)
}

fn limits_in(text: &str) -> Option<(u64, u64)> {
    let line = text
        .lines()
        .find_map(|it| it.strip_prefix("Max open files"))?;
    let mut numbers = line.split_whitespace();
    let mut next = || match numbers.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some((next()?, next()?))
}

async fn try_to_listen(address: &str) -> Result<(), String> {
    let tried = tokio::net::TcpListener::bind(address).await;
    tried.map(drop).map_err(|error: io::Error| {
        let port = address
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok());
        match port.and_then(aot_host::holders::of_port) {
            Some(holder) => format!("{error} ({holder})"),
            None => error.to_string(),
        }
    })
}

fn agents(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<String> = names.filter(|name| name.starts_with("aot-agent")).collect();
    // A build tree has the static one beside.
    if found.is_empty() && dir.join("../agent/aot-agent").is_file() {
        found.push("aot-agent".to_owned());
    }
    found.sort();
    found
}

/// See timedatectl(1).
async fn clock() -> Option<bool> {
    let asked = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(CLOCK, asked).await.ok()?.ok()?;
    match String::from_utf8_lossy(&output.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// By what the kernel shows below this folder.
fn kernel(root: &Path) -> KernelFacts {
    let is = |path: &str| root.join(path).exists();
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let forbids = |name: &'static str, value: &str| {
        let found = text(&format!("proc/sys/{name}")).trim().to_owned();
        (found == value).then_some((name, found))
    };
    let known = text("proc/filesystems");
    let mut known = known
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    KernelFacts {
        root: rustix::process::geteuid().is_root(),
        cgroup2: is("sys/fs/cgroup/cgroup.controllers") || is("sys/fs/cgroup/unified/cgroup.procs"),
        overlay: known.any(|name| name == "overlay"),
        namespaces: ["mnt", "pid", "uts", "ipc"]
            .iter()
            .all(|name| is(&format!("proc/self/ns/{name}"))),
        no_userns: forbids("kernel/unprivileged_userns_clone", "0")
            .or_else(|| forbids("user/max_user_namespaces", "0"))
            .or_else(|| forbids("kernel/apparmor_restrict_unprivileged_userns", "1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_writes_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             63432                63432                processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(limits_in(text), Some((1024, 524_288)));
        let unlimited = "Max open files            unlimited            unlimited            files";
        assert_eq!(limits_in(unlimited), Some((u64::MAX, u64::MAX)));
        assert_eq!(limits_in("Max processes 1 2 x"), None);
        assert!(open_files(None).is_some(), "of this process");
        assert!(open_files(Some(u32::MAX)).is_none(), "of none");
    }

    #[test]
    fn what_the_kernel_offers_is_read_from_its_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
            fs::write(path, text).expect("writes");
        };
        let none = kernel(dir.path());
        assert!(!none.cgroup2 && !none.overlay && !none.namespaces);
        assert_eq!(none.no_userns, None);
        put("sys/fs/cgroup/cgroup.controllers", "cpu memory");
        put("proc/filesystems", "nodev\ttmpfs\nnodev\toverlay\n\text4\n");
        put("proc/sys/user/max_user_namespaces", "0\n");
        for name in ["mnt", "pid", "uts", "ipc"] {
            put(&format!("proc/self/ns/{name}"), "");
        }
        let all = kernel(dir.path());
        assert!(all.cgroup2 && all.overlay && all.namespaces);
        let forbids = ("user/max_user_namespaces", "0".to_owned());
        assert_eq!(all.no_userns, Some(forbids));
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_seen_and_room_is_that_of_the_nearest_folder() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = taken.local_addr().expect("bound").to_string();
        let refused = try_to_listen(&address).await.expect_err("it is taken");
        assert!(refused.contains("in use"), "{refused}");
        drop(taken);
        assert_eq!(try_to_listen(&address).await, Ok(()));
        let dir = tempfile::tempdir().expect("a folder");
        let (free, total) = disk(&dir.path().join("not/there")).expect("a disk");
        assert!(total > 0 && free <= total);
    }
}
