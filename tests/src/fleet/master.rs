//! One master of a fleet: a process while it runs, a folder, ports, and its own way to the database.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use aot_postgres::server::Server;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::Place;
use super::peer_way::PeerWay;
use crate::cut::Cuttable;
use crate::process::{Output, Running, send};
use crate::proxy::Proxy;
use crate::rig::{LIMIT, agent_dir, master_program, reserve_port};
use crate::wait;

/// What leads its calls to EC2 nowhere: clusters of machines that are there need none, and continue without an answer.
const NO_CLOUD: [(&str, &str); 6] = [
    ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
    ("AWS_ACCESS_KEY_ID", "none"),
    ("AWS_SECRET_ACCESS_KEY", "none"),
    ("AWS_REGION", "eu-central-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_MAX_ATTEMPTS", "1"),
];

/// As a service manager starts it (systemd.exec(5)): no command starts one in the background in its place while it is down.
const AS_SERVICE: &str = "SYSTEMD_EXEC_PID=$$ exec \"$0\" \"$@\"";

/// Killed when it is dropped.
pub struct FleetMaster {
    home: PathBuf,
    port: u16,
    peer_port: u16,
    _locks: [File; 2],
    store: String,
    key: PathBuf,
    way: Cuttable,
    /// Where others reach it, when not at its own port.
    peer_way: Option<PeerWay>,
    /// Where it puts what is long.
    blobs: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl FleetMaster {
    /// One that does not run yet.
    pub(super) fn new(place: &Place, at: usize) -> Self {
        let home = place.dir.join(format!("m{}", at + 1));
        std::fs::create_dir(&home).expect("makes the master's folder");
        let (way, store) = way(&home, &place.server, &place.database);
        let ((port, lock), (peer_port, peer_lock)) = (reserve_port(), reserve_port());
        Self {
            home,
            port,
            peer_port,
            _locks: [lock, peer_lock],
            store,
            key: place.key.clone(),
            way,
            peer_way: place.pids.as_ref().map(|pids| PeerWay::new(pids, at)),
            blobs: place.bucket.as_ref().map_or_else(Vec::new, |bucket| {
                vec![
                    ("AOT_BLOBS", bucket.place()),
                    ("AWS_ENDPOINT_URL_S3", bucket.endpoint()),
                ]
            }),
            child: None,
        }
    }

    /// Starts the process.
    ///
    /// # Panics
    /// When it runs already.
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "the master runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.join("master.err"))
            .expect("makes the log");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", AS_SERVICE]).arg(master_program());
        self.door().settings(&mut command);
        command
            .args(["serve", "--listen", &self.address()])
            .args(["--advertise", &self.address()])
            .env("AOT_STORE", &self.store)
            .env("AOT_FLEET_KEY", &self.key)
            .env("AOT_PEER_LISTEN", format!("127.0.0.1:{}", self.peer_port))
            .env("AOT_AGENT_DIR", agent_dir())
            .envs(NO_CLOUD)
            .envs(self.blobs.iter().cloned())
            .envs(
                self.peer_way
                    .iter()
                    .map(|way| ("AOT_PEER_ADVERTISE", way.address())),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("the master starts");
        if let Some(way) = &mut self.peer_way {
            way.open(child.id(), self.peer_port);
        }
        self.child = Some(child);
    }

    /// Waits until it answers.
    ///
    /// # Panics
    /// When it ends instead.
    pub fn answers(&mut self) {
        let socket = self.socket();
        let answers = || {
            let child = self.child.as_mut().expect("it was started");
            let ended = child.try_wait().expect("is ours");
            assert!(ended.is_none(), "the master ended at once: {ended:?}");
            UnixStream::connect(&socket).is_ok()
        };
        wait::until(answers, LIMIT, "the master answers");
    }

    /// Starts the process; returns when it answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn serve(&mut self) {
        self.begin();
        self.answers();
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a master runs");
        child.kill().expect("is ours");
        child.wait().expect("is ours");
        self.has_ended();
    }

    fn has_ended(&mut self) {
        if let Some(way) = &mut self.peer_way {
            way.close();
        }
    }

    /// SIGTERM: it gives its clusters away and ends with exit code 0.
    ///
    /// # Panics
    /// When it does not.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("a master runs");
        send(child.id(), Signal::SIGTERM);
        let ended = wait::maybe(|| child.try_wait().expect("is ours"), LIMIT);
        match ended {
            Some(_) => self.has_ended(),
            None => self.child = Some(child), // killed with this
        }
        let code = ended.and_then(|status| status.code());
        assert_eq!(code, Some(0), "SIGTERM ends a master in order");
    }

    /// SIGSTOP: it does nothing any more, and its connections stay.
    pub fn pause(&self) {
        send(self.pid(), Signal::SIGSTOP);
    }

    /// SIGCONT: it knows nothing of the time that has passed.
    pub fn resume(&self) {
        send(self.pid(), Signal::SIGCONT);
    }

    /// Its way to the database, which can be cut and mended.
    pub fn way(&self) -> &Cuttable {
        &self.way
    }

    /// Whether it was started and not ended from here.
    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a master runs").id()
    }

    /// Its port for agents, and for those that another master passes on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Where agents find it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where other masters find it.
    pub fn peer_address(&self) -> String {
        match &self.peer_way {
            Some(way) => way.address(),
            None => format!("127.0.0.1:{}", self.peer_port),
        }
    }

    /// What other masters' calls to it go by.
    pub(super) fn relay(&self) -> &Proxy {
        let way = self.peer_way.as_ref();
        way.expect("it was asked for").relay()
    }

    /// Its operators' socket.
    pub fn socket(&self) -> PathBuf {
        self.door().socket()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("master.err")).unwrap_or_default()
    }

    /// A command of its command line, to its end.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> Output {
        self.spawn(words).finish(LIMIT)
    }

    /// Begins such a command.
    pub fn spawn(&self, words: &[&str]) -> Running {
        self.door().spawn(words)
    }

    /// For operators, whatever becomes of its process.
    pub fn door(&self) -> Door {
        Door {
            home: self.home.clone(),
        }
    }

    /// The same with `--json`; its documents.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn json(&self, words: &[&str]) -> Vec<Value> {
        let output = self.run(&[&["--json"], words].concat());
        output.expect(0).json()
    }
}

impl Drop for FleetMaster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!(
                "---- last words of the master in {}\n{}\n----",
                self.home.display(),
                tail.join("\n")
            );
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Where operators find a master, and what their commands need for it.
#[derive(Debug, Clone)]
pub struct Door {
    home: PathBuf,
}

impl Door {
    /// Begins a command.
    pub fn spawn(&self, words: &[&str]) -> Running {
        let mut command = self.command();
        command.args(words);
        Running::start(command)
    }

    fn socket(&self) -> PathBuf {
        self.home.join("s.sock")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(master_program());
        self.settings(&mut command);
        command
    }

    fn settings(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AOT_") {
                command.env_remove(name);
            }
        }
        command
            .env("AOT_STATE_DIR", self.home.join("state"))
            .env("AOT_SOCKET", self.socket())
            .env("AOT_LOG", "info")
            .env("HOME", &self.home);
    }
}

/// A socket of its own in front of the server's, and the URL by it.
fn way(home: &Path, server: &Server, database: &str) -> (Cuttable, String) {
    let dir = home.join("db");
    std::fs::create_dir(&dir).expect("makes a folder");
    let socket = socket(server);
    let way = Cuttable::new(&dir.join(&socket), &server.dir().join(&socket));
    let encoded = |dir: &Path| dir.display().to_string().replace('/', "%2F");
    let url = server.url(database);
    let own = url.replace(&encoded(server.dir()), &encoded(&dir));
    assert_ne!(own, url, "the server's socket is in its folder");
    (way, own)
}

/// The name of a server's socket.
pub(super) fn socket(server: &Server) -> String {
    format!(".s.PGSQL.{}", server.port())
}
