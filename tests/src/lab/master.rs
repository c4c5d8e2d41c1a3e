//! A master in the lab's network and its command line.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::Lab;
use crate::process::{Output, Running, send};
use crate::rig::{agent_dir, master_program};
use crate::wait;

/// Longest time for a command that launches nothing.
const COMMAND: Duration = Duration::from_secs(180);
/// Longest time for a launch, or for one of its events.
pub const LAUNCH: Duration = Duration::from_secs(300);
/// Longest time for a master to answer after its start, or to end.
const TURN: Duration = Duration::from_secs(120);

/// A master: a process while it runs, a folder all the time.
pub struct Master<'lab> {
    lab: &'lab Lab,
    home: PathBuf,
    port: u16,
    advertise: String,
    env: Vec<(String, String)>,
    /// Programs of another build, when not those under test.
    build: Option<PathBuf>,
    child: Option<Child>,
}

impl<'lab> Master<'lab> {
    /// Starts one on 198.51.100.1 with a state folder of its own.
    pub fn start(lab: &'lab Lab, name: &str, port: u16) -> Self {
        Self::start_with(lab, name, port, &[])
    }

    /// The same, with variables of its own over those of the lab.
    pub fn start_with(lab: &'lab Lab, name: &str, port: u16, env: &[(&str, &str)]) -> Self {
        Self::start_as(lab, name, port, &format!("198.51.100.1:{port}"), env)
    }

    /// The same, with another address for agents to dial.
    pub fn start_as(
        lab: &'lab Lab,
        name: &str,
        port: u16,
        advertise: &str,
        env: &[(&str, &str)],
    ) -> Self {
        let mut master = Self::new(lab, name, port, advertise, env);
        master.serve();
        master
    }

    /// One that does not run yet.
    pub fn new(
        lab: &'lab Lab,
        name: &str,
        port: u16,
        advertise: &str,
        env: &[(&str, &str)],
    ) -> Self {
        let home = lab.dir().join(name);
        std::fs::create_dir(&home).expect("makes the master's folder");
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Self {
            lab,
            home,
            port,
            advertise: advertise.to_owned(),
            env: env.collect(),
            build: None,
            child: None,
        }
    }

    /// From its next start on it, its command line and the agents it hands out are those in this folder; with `None` those under
    /// test.
    pub fn use_build(&mut self, folder: Option<&Path>) {
        self.build = folder.map(Path::to_owned);
    }

    fn program(&self) -> PathBuf {
        let of = self.build.as_ref().map(|folder| folder.join("aot-master"));
        of.unwrap_or_else(master_program)
    }

    /// Starts the process; returns when it answers.
    pub fn serve(&mut self) {
        self.begin();
        self.answers();
    }

    /// Starts the process.
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "the master runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.join("master.err"))
            .expect("makes the log");
        let mut command = self.lab.inside(Path::new("/usr/bin/env"));
        // `env` comes after the lab's own variables and may override them.
        command.args(self.env.iter().map(|(key, value)| format!("{key}={value}")));
        let address = self.address();
        command
            .env("AOT_ATTESTATION_CERTIFICATES", self.lab.certificates())
            .arg(self.program())
            .args(["serve", "--listen", &address])
            .args(["--advertise", &self.advertise])
            .env(
                "AOT_AGENT_DIR",
                self.build.clone().unwrap_or_else(agent_dir),
            );
        let child = self
            .settings(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the master starts");
        self.child = Some(child);
    }

    /// Waits until it answers.
    pub fn answers(&mut self) {
        // Not by a command: where no master answers, one would start a second.
        let socket = self.state_dir().join("s.sock");
        let answers = || {
            let child = self.child.as_mut().expect("it was started");
            let ended = child.try_wait().expect("is ours");
            assert!(ended.is_none(), "the master ended at once: {ended:?}");
            UnixStream::connect(&socket).is_ok()
        };
        wait::until(answers, TURN, "the master answers");
    }

    fn settings<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("AOT_STATE_DIR", self.state_dir())
            .env("AOT_SOCKET", self.state_dir().join("s.sock"))
            .env_remove("AOT_CLUSTER")
            .env_remove("AOT_LISTEN")
            .env_remove("AOT_ADVERTISE")
    }

    /// Where agents find it.
    pub fn address(&self) -> String {
        format!("198.51.100.1:{}", self.port)
    }

    /// Its state folder.
    pub fn state_dir(&self) -> PathBuf {
        self.home.join("state")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("master.err")).expect("reads the log")
    }

    /// Waits until this is logged after the first `from` bytes; false when it is not in time.
    pub fn logs(&self, from: usize, text: &str) -> bool {
        wait::maybe(|| self.log()[from..].contains(text).then_some(()), TURN).is_some()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a master runs").id()
    }

    /// Waits until it ends by itself; its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("a master runs");
        let status = wait::maybe(|| child.try_wait().expect("is ours"), TURN);
        if status.is_none() {
            self.child = Some(child); // ended with this
        }
        status?.code()
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn crash(&mut self) {
        let mut child = self.child.take().expect("a master runs");
        child.kill().expect("is ours");
        child.wait().expect("is ours");
    }

    /// SIGTERM: ends in order, with exit code 0.
    pub fn stop(mut self) {
        self.end();
    }

    /// The same, of one that is to be started again.
    pub fn end(&mut self) {
        let mut child = self.child.take().expect("a master runs");
        send(child.id(), Signal::SIGTERM);
        let status = wait::maybe(|| child.try_wait().expect("is ours"), TURN);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let code = status.and_then(|status| status.code());
        assert_eq!(code, Some(0), "SIGTERM ends a master in order");
    }

    /// A command of its command line, outside the lab's network: only the socket is needed.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        self.spawn(words).finish(COMMAND)
    }

    /// Begins such a command.
    pub fn spawn(&self, words: &[&str]) -> Running {
        let mut command = Command::new(self.program());
        self.settings(command.args(words));
        Running::start(command)
    }

    /// Gives any program what a command line needs to find this master.
    pub fn as_operator(&self, command: &mut Command) {
        self.settings(command);
    }

    /// The same with `--json`: exit code and documents.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> (Option<i32>, Vec<Value>) {
        let output = self.run(&[&["--json"], words].concat());
        (output.code, output.json())
    }

    /// The `status` of one instance.
    pub fn status(&self, instance: &str) -> Value {
        let (_, all) = self.json(&["status"]);
        let found = all.into_iter().find(|entry| entry["name"] == instance);
        found.unwrap_or_else(|| panic!("status does not show {instance}"))
    }

    /// The machine of an instance.
    pub fn machine(&self, instance: &str) -> String {
        let id = self.status(instance)["machine_id"]
            .as_str()
            .map(str::to_owned);
        id.unwrap_or_else(|| panic!("{instance} has no machine"))
    }

    /// Machines by instance.
    pub fn machine_ids(&self) -> std::collections::BTreeMap<String, String> {
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let (_, all) = self.json(&["status"]);
        all.iter()
            .filter_map(|entry| Some((word(&entry["name"])?, word(&entry["machine_id"])?)))
            .collect()
    }

    /// Begins `launch FILE --json`.
    pub fn launch(&self, file: &Path) -> Running {
        let mut command = Command::new(self.program());
        command.arg("launch").arg(file).arg("--json");
        self.settings(&mut command);
        Running::start(command)
    }

    /// The same, to its end, which must have this exit code.
    #[track_caller]
    pub fn launched(&self, file: &Path, code: i32) -> Output {
        let output = self.launch(file).finish(LAUNCH);
        output.expect(code);
        output
    }

    /// Begins `cleanup CLUSTER --yes`.
    pub fn begin_cleanup(&self, cluster: &str) -> Running {
        let mut command = Command::new(self.program());
        self.settings(command.args(["cleanup", cluster, "--yes"]));
        Running::start(command)
    }

    /// Ends a cluster: exit code and receipt.
    pub fn cleanup(&self, cluster: &str) -> Output {
        self.run(&["cleanup", cluster, "--yes"])
    }
}

impl Drop for Master<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.home.join("master.err")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(60)..];
            eprintln!("---- the master's last words\n{}\n----", tail.join("\n"));
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Events of this kind about one instance.
#[track_caller]
pub fn events_of(output: &Output, instance: &str, kind: &str) -> Vec<Value> {
    let events = output.events(kind).into_iter();
    events
        .filter(|event| event["instance"] == instance)
        .collect()
}
