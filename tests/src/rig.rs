//! One `aot-master` of its own for a test: its state, its socket, its port, and an end that leaves nothing behind.
//!
//! The programs are taken from `AOT_TEST_MASTER` and `AOT_TEST_AGENT_DIR`, else from beside the test's target folder.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use aot_postgres::server::Server;
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::Value;
use tempfile::TempDir;

use crate::machine::{self, LocalMachine};
pub use crate::process::{Output, Running};
pub use crate::wait::LIMIT;
use crate::{bundle, process, wait};

/// Ports that no program is given by chance (ip_local_port_range begins at 32768).
const PORTS: std::ops::Range<u16> = 21_000..32_000;

/// How long a cluster may take to be gone at the end of a test.
const CLEANUP_LIMIT: Duration = Duration::from_secs(180);

/// A master, started by the first command that needs it, and everything about it.
pub struct Rig {
    dir: TempDir,
    env: BTreeMap<String, String>,
    port: u16,
    _port_lock: File,
    cleaned: bool,
    /// Where its master's records are, when not in a file.
    _database: Option<Arc<Server>>,
}

impl Rig {
    /// For the local provider.
    pub fn local() -> Self {
        Self::with(&[])
    }

    /// With more, or other, environment for every command and the master: endpoints, credentials, `AOT_ADVERTISE`, ...
    ///
    /// # Panics
    /// When the programs are missing or there is no port.
    pub fn with(env: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("aot-e2e-")
            .tempdir()
            .expect("a folder");
        let (port, port_lock) = reserve_port();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut all: BTreeMap<String, String> = [
            ("AOT_STATE_DIR", path("state")),
            ("AOT_SOCKET", path("run/master.sock")),
            ("AOT_LISTEN", format!("127.0.0.1:{port}")),
            ("AOT_AGENT_DIR", agent_dir().display().to_string()),
            ("HOME", path("home")),
            ("NO_COLOR", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        fs::create_dir(dir.path().join("home")).expect("a home");
        all.extend(
            env.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        Self {
            dir,
            env: all,
            port,
            _port_lock: port_lock,
            cleaned: false,
            _database: None,
        }
    }

    /// For the local provider, with records in a database of its own; its server is shared by the tests of this process.
    /// `None`, and said so, where there is no PostgreSQL and it can't be installed.
    pub fn on_postgres(test: &str) -> Option<Self> {
        let server = Server::shared().inspect_err(|why| why.skip(test)).ok()?;
        let url = server.url(&server.database());
        let mut rig = Self::with(&[("AOT_STORE", &url)]);
        rig._database = Some(server);
        Some(rig)
    }

    /// The test's folder; all else lies in it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The master's state.
    pub fn state_dir(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// The operators' socket.
    pub fn socket(&self) -> PathBuf {
        self.env["AOT_SOCKET"].clone().into()
    }

    /// The agents' port; the same after a restart of the master.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets a variable for the commands, and the masters, that are started from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.insert(name.to_owned(), value.to_owned());
    }

    /// Takes a variable from the commands, and the masters, that are started from now on.
    pub fn unset_env(&mut self, name: &str) {
        self.env.remove(name);
    }

    // ---- files ------------------------------------------------------------------------------------------------------

    /// Writes a file in the test's folder; says where it is.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("its folder");
        fs::write(&path, text).expect("the file");
        path
    }

    /// Writes `cluster.yml`; says where it is.
    pub fn cluster(&self, yaml: &str) -> PathBuf {
        self.file("cluster.yml", yaml)
    }

    /// Writes a bundle as a folder `NAME/bootstrap.sh`, to be named as `dir: NAME` in the cluster's file.
    pub fn bundle(&self, name: &str, script: &str) {
        bundle::folder(&self.dir().join(name), script);
    }

    // ---- commands ---------------------------------------------------------------------------------------------------

    /// A command with this rig's environment and no other `AOT_*` or `AWS_*` variable, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.program(master_program());
        command.args(args);
        command
    }

    /// The same for another program, that calls `aot-master`.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("AOT_") || text.starts_with("AWS_") || text.starts_with("XDG_") {
                command.env_remove(&name);
            }
        }
        command.envs(&self.env).current_dir(self.dir());
        command
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it runs longer than [`LIMIT`].
    #[track_caller]
    pub fn cli<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.cli_within(LIMIT, args)
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it runs longer than `limit`.
    #[track_caller]
    pub fn cli_within<S: AsRef<OsStr>>(
        &self,
        limit: Duration,
        args: impl IntoIterator<Item = S>,
    ) -> Output {
        self.spawn(args).finish(limit)
    }

    /// Starts a command.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Running {
        Running::start(self.command(args))
    }

    /// Starts `serve` and waits until it answers: before that a command would start a master of its own.
    ///
    /// # Panics
    /// When none answers within [`LIMIT`].
    #[track_caller]
    pub fn serve(&self) -> Running {
        let serve = self.spawn(["serve"]);
        let answers = || self.master_pid() == Some(serve.pid());
        crate::wait::until(answers, LIMIT, "it serves");
        serve
    }

    /// `launch --json --yes cluster.yml` to its end.
    #[track_caller]
    pub fn launch(&self) -> Output {
        self.cli_within(CLEANUP_LIMIT, ["launch", "--json", "--yes", "cluster.yml"])
    }

    /// Standard output of a shell line on one instance, which must succeed; trailing line ends are cut.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn sh(&self, instance: &str, line: &str) -> String {
        let output = self.cli(["exec", "--json", instance, "--", "/bin/sh", "-c", line]);
        let ended = output.one(|line| line["instance"] == instance);
        assert_eq!(ended["outcome"], "succeeded", "{}", output.shown());
        ended["stdout"]
            .as_str()
            .expect("text")
            .trim_end()
            .to_owned()
    }

    /// `status --json`, by instance name.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn status(&self) -> BTreeMap<String, Value> {
        let output = self.cli(["status", "--json"]);
        output.expect(0);
        let name = |line: &Value| line["name"].as_str().expect("a name").to_owned();
        output
            .json()
            .into_iter()
            .map(|line| (name(&line), line))
            .collect()
    }

    /// `list -s --json`: what is known of an instance's stages.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn stages(&self, instance: &str) -> Vec<Value> {
        let output = self.cli(["list", "-s", "--json", instance]);
        output.expect(0);
        let view = output.one(|line| line["name"] == instance);
        view["stages"]
            .as_array()
            .unwrap_or_else(|| panic!("{}", output.shown()))
            .clone()
    }

    // ---- the master -------------------------------------------------------------------------------------------------

    /// Process id of the master that answers on the socket (unix(7), SO_PEERCRED); `None` when none does.
    pub fn master_pid(&self) -> Option<u32> {
        let stream = UnixStream::connect(self.socket()).ok()?;
        let peer = getsockopt(&stream, PeerCredentials).ok()?;
        u32::try_from(peer.pid()).ok()
    }

    /// Kills the master (SIGKILL) and waits until it is gone; says which it was.
    ///
    /// # Panics
    /// When none runs.
    #[track_caller]
    pub fn kill_master(&self) -> u32 {
        let pid = self.master_pid().expect("a master runs");
        process::kill_hard(pid);
        // Its leader may be gone while another of its threads still holds the socket.
        wait::until(
            || UnixStream::connect(self.socket()).is_err(),
            LIMIT,
            "a killed master answers no more",
        );
        pid
    }

    /// What the background masters have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.state_dir().join("master.log")).unwrap_or_default()
    }

    // ---- local machines ---------------------------------------------------------------------------------------------

    /// Every clone that has a record, also terminated ones.
    pub fn machines(&self) -> Vec<LocalMachine> {
        machine::all(&self.state_dir())
    }

    /// The clone of an instance that is not terminated.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[track_caller]
    pub fn machine(&self, instance: &str) -> LocalMachine {
        let mut found = self.machines();
        found.retain(|machine| machine.name == instance && !machine.ended);
        assert_eq!(found.len(), 1, "machines of {instance}: {found:?}");
        found.remove(0)
    }

    /// Ids of the machines that are not terminated, by instance.
    pub fn machine_ids(&self) -> BTreeMap<String, String> {
        let live = self.machines().into_iter().filter(|machine| !machine.ended);
        live.map(|machine| (machine.name, machine.id)).collect()
    }

    // ---- the end ----------------------------------------------------------------------------------------------------

    /// Cleans up every cluster and stops the master; what is left then, in words. Done by the drop when a test did not.
    pub fn clean(&mut self) -> Vec<String> {
        self.cleaned = true;
        let mut wrong = Vec::new();
        if self.state_dir().exists() {
            wrong.extend(self.clean_clusters());
            let output = self.cli(["shutdown"]);
            if !matches!(output.code, Some(0 | 4)) {
                wrong.push(output.shown());
            }
        }
        wrong.extend(self.left());
        wrong
    }

    fn clean_clusters(&self) -> Vec<String> {
        let status = self.cli(["status", "--json"]);
        if status.code != Some(0) {
            return Vec::new(); // no master, and none can be started: `left` finds what matters
        }
        let names: BTreeSet<String> = status
            .json()
            .iter()
            .filter_map(|line| line["cluster"].as_str().map(str::to_owned))
            .collect();
        let clean = |name: &String| self.cli_within(CLEANUP_LIMIT, ["cleanup", "--yes", name]);
        let outputs = names
            .iter()
            .map(clean)
            .filter(|output| output.code != Some(0));
        outputs.map(|output| output.shown()).collect()
    }

    /// Processes of this rig, and mounts that this process sees in its folder. After a good end there are none.
    pub fn left(&self) -> Vec<String> {
        self.left_but(|_| false)
    }

    /// The same without the processes whose command line `may` stay.
    pub fn left_but(&self, may: impl Fn(&str) -> bool) -> Vec<String> {
        let found = || {
            let mut found = process::that_mention(self.dir());
            found.retain(|_, line| !may(line));
            found
        };
        let mut left = Vec::new();
        if wait::maybe(|| found().is_empty().then_some(()), LIMIT).is_none() {
            let line = |(pid, line)| format!("process {pid} is left: {line}");
            left.extend(found().into_iter().map(line));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = self.dir().display().to_string();
        let of_ours = mounts.lines().filter(|line| line.contains(&own));
        left.extend(of_ours.map(|line| format!("a mount is left: {line}")));
        left
    }

    /// Kills what is left, each by its id, supervisors first so that nothing is started again.
    fn kill_rest(&self) {
        for _ in 0..3 {
            for pid in process::that_mention(self.dir()).into_keys() {
                process::send(pid, Signal::SIGKILL);
            }
            let none = || process::that_mention(self.dir()).is_empty().then_some(());
            if wait::maybe(none, Duration::from_secs(2)).is_some() {
                return;
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- end of the master's log\n{}\n---", tail.join("\n"));
        }
        if failed && std::env::var_os("AOT_TEST_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            eprintln!("kept as it is: {}", self.dir().display());
            return;
        }
        if failed {
            // A second panic would abort; what could be done is done.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.clean()));
            self.kill_rest();
            return;
        }
        let wrong = if self.cleaned {
            self.left()
        } else {
            self.clean()
        };
        self.kill_rest();
        assert!(
            wrong.is_empty(),
            "the test's end is not clean:\n{}",
            wrong.join("\n")
        );
    }
}

/// A port that no other rig on this machine takes, for as long as the file is open.
pub(crate) fn reserve_port() -> (u16, File) {
    let folder = std::env::temp_dir().join("aot-e2e-ports");
    fs::create_dir_all(&folder).expect("a folder for locks");
    for port in PORTS {
        let path = folder.join(port.to_string());
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        let lock = lock.expect("a lock file");
        if lock.try_lock().is_ok() && is_free(port) {
            return (port, lock);
        }
    }
    panic!("no port is free in {PORTS:?}");
}

/// Whether nobody listens on a port (proc_net(5)). A socket of our own would not do to ask: a child that another thread
/// forks meanwhile holds it open for a moment longer, and the master finds the port taken.
fn is_free(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let listens = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let own = fields.next().and_then(|address| address.rsplit_once(':'));
        own.is_some_and(|(_, own)| u16::from_str_radix(own, 16) == Ok(port))
            && fields.nth(1) == Some(LISTEN)
    };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    // Where there is no IPv6 the second is missing.
    let mut tables = tables.iter().flatten();
    !tables.any(|table| table.lines().any(listens))
}

/// The folder that cargo built into: `target/<profile>/deps/TEST` gives `target/<profile>`.
fn built() -> PathBuf {
    let own = std::env::current_exe().expect("the test has a path");
    own.parent()
        .and_then(Path::parent)
        .expect("it lies in deps/")
        .to_owned()
}

fn needed(variable: &str, default: PathBuf, what: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or(default, PathBuf::from);
    assert!(
        path.exists(),
        "{what} is missing at {}: run `cargo build` first, or set {variable}",
        path.display()
    );
    path
}

/// The `aot-master` under test.
///
/// # Panics
/// When it is not there.
pub fn master_program() -> PathBuf {
    needed("AOT_TEST_MASTER", built().join("aot-master"), "aot-master")
}

/// The program that plays thousands of agents.
///
/// # Panics
/// When it is not there.
pub(crate) fn simulated_agents_program() -> PathBuf {
    let path = built().join("aot-simulated-agents");
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// The folder of the `aot-agent` under test.
///
/// # Panics
/// When it is not there.
pub fn agent_dir() -> PathBuf {
    let dir = needed("AOT_TEST_AGENT_DIR", built(), "the folder of aot-agent");
    assert!(
        dir.join("aot-agent").exists() || std::env::var_os("AOT_TEST_AGENT_DIR").is_some(),
        "aot-agent is missing in {}: run `cargo build` first",
        dir.display()
    );
    dir
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_that_someone_listens_on_is_not_free() {
        let (port, _lock) = reserve_port();
        let asked: Vec<bool> = (0..3).map(|_| is_free(port)).collect();
        assert_eq!(asked, [true; 3]);
        let _listener = TcpListener::bind(("127.0.0.1", port)).expect("it is free");
        assert!(!is_free(port));
        let (other, _other_lock) = reserve_port();
        assert_ne!(other, port, "it is another's");
    }
}
