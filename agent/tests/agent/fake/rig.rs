//! A master, a folder for an agent, and the agent as a process.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::master::Master;
use super::{server, shims, signal};

/// The machine that the agent is on.
pub(crate) const MACHINE: &str = "local-1";

/// A master, a folder for an agent, and the agent when it runs.
pub(crate) struct Rig {
    pub(crate) master: Arc<Master>,
    pub(crate) dir: TempDir,
    /// In memory.
    pub(crate) memory: TempDir,
    /// Masters in the settings of the next agent.
    pub(crate) dials: Vec<String>,
    /// Lines in them, besides.
    pub(crate) more_settings: String,
    /// Who made its machine.
    pub(crate) provider: &'static str,
    /// Whether the log of the next agent goes into the file `log`.
    pub(crate) logs_to_file: bool,
    agent: Option<Child>,
    _server: JoinSet<()>,
}

impl Rig {
    /// A master that listens; no agent yet.
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let master = Arc::new(Master::new(listener.local_addr().unwrap().port()));
        let mut tasks = JoinSet::new();
        tasks.spawn(server::serve(listener, master.clone()));
        let dir = tempfile::tempdir().unwrap();
        for name in ["etc", "root"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self {
            dials: vec![master.address()],
            more_settings: String::new(),
            provider: "local",
            logs_to_file: false,
            master,
            dir,
            memory: tempfile::tempdir_in("/dev/shm").unwrap(),
            agent: None,
            _server: tasks,
        }
    }

    /// The master's.
    pub(crate) fn address(&self) -> String {
        self.master.address()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the agent as a process.
    pub(crate) fn start_agent(&mut self) {
        // That of an agent before it may not have been seen to be over: nothing may be sent into it.
        self.master.lock().to_agent = None;
        let at = |name: &str| self.path(name).display().to_string();
        let secrets = self.memory.path().join("secrets");
        let config = format!(
            "secrets_dir = {secrets:?}\nmaster = {:?}\n{}\nca_pem = '''{}'''\ntoken = \"70ken\"\nmachine_id = \"{MACHINE}\"\nprovider = {:?}\nstate_dir = {:?}\netc_dir = {:?}\nroot_home = {:?}\nboot_id_file = {:?}\nreboot = [\"touch\", {:?}]\n",
            self.dials,
            self.more_settings,
            self.master.ca_pem,
            self.provider,
            at("state"),
            at("etc"),
            at("root"),
            at("boot_id"),
            at("rebooted")
        );
        let path = self.path("agent.toml");
        std::fs::write(&path, config).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        // The static build is tried by naming it here.
        let binary = std::env::var_os("AOT_AGENT_BIN")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_aot-agent").into());
        let mut agent = Command::new(binary);
        agent.arg("run").arg("--config").arg(path);
        agent.env("AOT_LOG", "warn");
        if self.logs_to_file {
            agent.stderr(File::create(self.path("log")).unwrap());
        }
        self.agent = Some(agent.spawn().unwrap());
    }

    pub(crate) fn agent_pid(&self) -> i32 {
        self.agent.as_ref().unwrap().id().cast_signed()
    }

    /// kill -9.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    /// SIGTERM; waits for the end.
    pub(crate) async fn stop_agent(&mut self) -> std::process::ExitStatus {
        let mut agent = self.agent.take().unwrap();
        signal(agent.id().cast_signed(), rustix::process::Signal::TERM);
        tokio::task::spawn_blocking(move || agent.wait().unwrap())
            .await
            .unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.kill_agent();
        for pid in shims(self.dir.path()) {
            // What a failed test left behind.
            aot_agent::inside::tree::signal_below(pid, rustix::process::Signal::KILL);
        }
    }
}
