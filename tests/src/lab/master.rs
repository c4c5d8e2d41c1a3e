//! A master in the lab's network, its command line, and a launch that is followed event by event.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::Lab;
use super::run::{Ran, pid_of, run, until, until_some};

/// Longest time for a command that launches nothing.
const COMMAND: Duration = Duration::from_secs(60);
/// Longest time for a launch, or for one of its events.
pub const LAUNCH: Duration = Duration::from_secs(120);
/// Longest time for a master to answer after its start, or to end.
const TURN: Duration = Duration::from_secs(20);

/// A master: a process while it runs, a folder all the time.
pub struct Master<'lab> {
    lab: &'lab Lab,
    home: PathBuf,
    port: u16,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

fn path_from(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} says where the built programs are"))
        .into()
}

fn binary() -> PathBuf {
    path_from("AOT_TEST_MASTER")
}

impl<'lab> Master<'lab> {
    /// Starts one on 198.51.100.1 with a state folder of its own.
    pub fn start(lab: &'lab Lab, name: &str, port: u16) -> Self {
        Self::start_with(lab, name, port, &[])
    }

    /// The same, with variables of its own over those of the lab.
    pub fn start_with(lab: &'lab Lab, name: &str, port: u16, env: &[(&str, &str)]) -> Self {
        let home = lab.dir().join(name);
        std::fs::create_dir(&home).expect("makes the master's folder");
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let mut master = Self {
            lab,
            home,
            port,
            env: env.collect(),
            child: None,
        };
        master.serve();
        master
    }

    /// Starts the process; returns when it answers.
    pub fn serve(&mut self) {
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
            .arg(binary())
            .args(["serve", "--listen", &address, "--advertise", &address])
            .env("AOT_AGENT_DIR", path_from("AOT_TEST_AGENT_DIR"));
        let child = self
            .settings(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the master starts");
        self.child = Some(child);
        // Not by a command: where no master answers, one would start a second.
        let socket = self.state_dir().join("s.sock");
        until(TURN, "the master answers", || {
            let child = self.child.as_mut().expect("set above");
            let ended = child.try_wait().expect("is ours");
            assert!(ended.is_none(), "the master ended at once: {ended:?}");
            UnixStream::connect(&socket).is_ok()
        });
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

    /// SIGKILL: nothing is flushed, nobody is told.
    pub fn crash(&mut self) {
        let mut child = self.child.take().expect("a master runs");
        child.kill().expect("is ours");
        child.wait().expect("is ours");
    }

    /// SIGTERM: ends in order, with exit code 0.
    pub fn stop(mut self) {
        let mut child = self.child.take().expect("a master runs");
        kill(pid_of(child.id()), Signal::SIGTERM).expect("is ours");
        let status = until_some(TURN, || child.try_wait().expect("is ours"));
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let code = status.and_then(|status| status.code());
        assert_eq!(code, Some(0), "SIGTERM ends a master in order");
    }

    /// A command of its command line, outside the lab's network: only the socket is needed.
    pub fn run(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(binary());
        self.settings(command.args(words));
        run(
            &mut command,
            &format!("aot-master {}", words.join(" ")),
            COMMAND,
        )
    }

    /// The same with `--json`: exit code and documents.
    pub fn json(&self, words: &[&str]) -> (Option<i32>, Vec<Value>) {
        let ran = self.run(&[&["--json"], words].concat());
        (ran.code, documents(&ran.stdout))
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
    pub fn launch(&self, file: &Path) -> Launching {
        self.launch_with(file, &[])
    }

    /// The same with more flags.
    pub fn launch_with(&self, file: &Path, flags: &[&str]) -> Launching {
        let mut command = Command::new(binary());
        command.arg("launch").arg(file).arg("--json").args(flags);
        let mut child = self
            .settings(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("launch starts");
        let (out, events) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("is piped"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("launch --json said {line:?}: {error}"));
                if out.send(event).is_err() {
                    break;
                }
            }
        });
        let mut stderr = child.stderr.take().expect("is piped");
        let (err, complaints) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            let _ = err.send(text);
        });
        Launching {
            child,
            events,
            complaints,
            seen: Vec::new(),
        }
    }

    /// Ends a cluster: exit code and receipt.
    pub fn cleanup(&self, cluster: &str) -> Ran {
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

fn documents(text: &str) -> Vec<Value> {
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON: {line:?}: {error}"))
    };
    text.lines().map(parse).collect()
}

/// A launch that goes on.
pub struct Launching {
    child: Child,
    events: Receiver<Value>,
    complaints: Receiver<String>,
    seen: Vec<Value>,
}

/// A launch that is over.
#[derive(Debug)]
pub struct Launched {
    /// Exit code.
    pub code: Option<i32>,
    /// All that was said.
    pub events: Vec<Value>,
    /// Standard error.
    pub stderr: String,
}

impl Launching {
    /// Waits for the next event that is so.
    pub fn until(&mut self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + LAUNCH;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(left) else {
                panic!("launch never said: {what}; it said {}", table(&self.seen));
            };
            self.seen.push(event.clone());
            if so(&event) {
                return event;
            }
        }
    }

    /// Waits for the next event of this kind.
    pub fn event(&mut self, kind: &str) -> Value {
        self.until(kind, |event| event["event"] == kind)
    }

    /// Waits for the next event of this kind about this instance.
    pub fn event_of(&mut self, instance: &str, kind: &str) -> Value {
        self.until(&format!("{kind} of {instance}"), |event| {
            event["event"] == kind && event["instance"] == instance
        })
    }

    /// To the end.
    pub fn finish(mut self) -> Launched {
        let end = Instant::now() + LAUNCH;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) => self.seen.push(event),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("launch does not end; it said {}", table(&self.seen))
                }
            }
        }
        let status = until_some(TURN, || self.child.try_wait().expect("is ours"));
        Launched {
            code: status
                .expect("launch ends once it has closed its output")
                .code(),
            events: std::mem::take(&mut self.seen),
            stderr: self.complaints.recv_timeout(TURN).unwrap_or_default(),
        }
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Launched {
    /// Events of a kind.
    pub fn of(&self, kind: &str) -> Vec<&Value> {
        self.events
            .iter()
            .filter(|event| event["event"] == kind)
            .collect()
    }

    /// The same about one instance.
    pub fn of_instance(&self, instance: &str, kind: &str) -> Vec<&Value> {
        let all = self.of(kind).into_iter();
        all.filter(|event| event["instance"] == instance).collect()
    }

    /// Fails the test unless it ended with this code.
    pub fn must_be(self, code: i32, why: &str) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{why}; launch said {}\nand {}",
            table(&self.events),
            self.stderr
        );
        self
    }
}

fn table(events: &[Value]) -> String {
    let line = |event: &Value| {
        let word = |key: &str| event[key].as_str().unwrap_or("-").to_owned();
        format!(
            "\n  {} {} {}: {}",
            word("time"),
            word("instance"),
            word("event"),
            word("message")
        )
    };
    events.iter().map(line).collect()
}
