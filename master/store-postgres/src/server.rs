//! A PostgreSQL of its own for tests: in a folder of its own, on a socket there and a free port of loopback, as a user that is
//! not root. It ends with the value, and with the process should that be killed.
//!
//! Where its programs are missing, root on Debian has them installed, as the EC2 lab does with its tools; for others the test
//! is skipped, and says so.

mod install;
mod standby;

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use install::{programs, user};

/// Longest wait for a server to take connections: it may have much to replay.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often that is tried.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// Settings of the server. Small, and what is acknowledged is on disk, as a test that kills it asks for.
const SETTINGS: &str = "
shared_buffers = '16MB'
max_connections = 50
fsync = on
synchronous_commit = on
autovacuum = off
logging_collector = off
log_min_messages = warning
";

/// Why there is no server here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing(pub String);

impl Missing {
    /// Counts a test that can't run here, and says why.
    pub fn skip(&self, test: &str) {
        use std::io::Write as _;
        // Not by a macro, whose output a test that passes keeps to itself.
        let line = format!("SKIPPED: 1 test, {test}: {}\n", self.0);
        let _ = io::stderr().write_all(line.as_bytes()); // nobody may read it
    }
}

/// A running server.
pub struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    port: AtomicU16,
    has_run: AtomicBool,
    running: Mutex<Option<Child>>,
    databases: Mutex<u32>,
}

impl Server {
    /// The one that all tests of this process share for as long as one of them has it.
    ///
    /// # Errors
    /// When PostgreSQL is not here and can't be installed.
    pub fn shared() -> Result<Arc<Self>, Missing> {
        static SHARED: OnceLock<Mutex<Weak<Server>>> = OnceLock::new();
        let shared = SHARED.get_or_init(Mutex::default);
        let mut shared = shared.lock().unwrap_or_else(|held| held.into_inner());
        if let Some(server) = shared.upgrade() {
            return Ok(server);
        }
        let server = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&server);
        Ok(server)
    }

    /// One of a test's own.
    ///
    /// # Errors
    /// When PostgreSQL is not here and can't be installed.
    pub fn start() -> Result<Self, Missing> {
        let programs = programs()?;
        let user = user()?;
        let server = Self {
            dir: new_dir(user),
            programs,
            user,
            port: AtomicU16::new(free_port()),
            has_run: AtomicBool::new(false),
            running: Mutex::default(),
            databases: Mutex::new(0),
        };
        server.make();
        server.run();
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// As its user, with its end tied to that of this process.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if let Some((uid, gid)) = self.user {
            command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()]);
            command.arg("--clear-groups");
        }
        command.arg(self.programs.join(program));
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("LC_ALL", "C");
        command
    }

    fn make(&self) {
        let mut initdb = self.command("initdb");
        initdb.args([
            "--auth=trust",
            "--username=aot",
            "--encoding=UTF8",
            "--no-sync",
        ]);
        succeeded("initdb", initdb.arg("-D").arg(self.data()).output());
        let mut settings = SETTINGS.to_owned();
        settings.push_str(&format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n",
            self.dir.path().display()
        ));
        self.write("data/postgresql.auto.conf", &settings, 0o600);
    }

    /// A file of its folder, which is its user's.
    pub fn write(&self, name: &str, text: &str, mode: u32) {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("writes");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, permissions).expect("its own file");
        if let Some((uid, gid)) = self.user {
            chown(&path, Some(uid), Some(gid)).expect("root may");
        }
    }

    /// Its folder, in which its socket lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::SeqCst)
    }

    /// Its first process, below which all others are.
    pub fn pid(&self) -> u32 {
        self.running().as_ref().expect("it runs").id()
    }

    /// Starts it again after its end, and waits until it answers.
    pub fn run(&self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"));
        let log = log.expect("a log");
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let mut postgres = self.command("postgres");
            postgres.arg("-D").arg(self.data()).stdout(Stdio::null());
            postgres.arg("-p").arg(self.port().to_string());
            postgres.stderr(log.try_clone().expect("a handle"));
            // Its parent must outlive it: a thread that ends has its children signalled too.
            let mut child = on_a_lasting_thread(move || postgres.spawn()).expect("setpriv runs");
            if self.is_ready_in_time(&mut child, deadline) {
                *self.running() = Some(child);
                self.has_run.store(true, Ordering::SeqCst);
                return;
            }
            let _ = child.kill();
            let _ = child.wait();
            assert!(Instant::now() < deadline, "{}", self.log());
            if !self.has_run.load(Ordering::SeqCst) {
                self.port.store(free_port(), Ordering::SeqCst); // somebody was faster
            }
            pause(); // what is left of the last one ends soon
        }
    }

    fn is_ready_in_time(&self, child: &mut Child, deadline: Instant) -> bool {
        while Instant::now() < deadline {
            if child.try_wait().expect("it is ours").is_some() {
                return false;
            }
            let mut psql = self.psql("postgres");
            if psql
                .arg("SELECT 1")
                .output()
                .is_ok_and(|it| it.status.success())
            {
                return true;
            }
            pause();
        }
        false
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(|held| held.into_inner())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-X", "-A", "-t", "-q", "-U", "aot", "-d", database, "-p"]);
        psql.arg(self.port().to_string())
            .arg("-h")
            .arg(self.dir.path());
        psql.args(["-v", "ON_ERROR_STOP=1", "-c"]);
        psql
    }

    /// What a statement prints: rows by lines, columns by `|`.
    pub fn ask(&self, database: &str, sql: &str) -> String {
        let output = succeeded("psql", self.psql(database).arg(sql).output());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The same, where it may be ended from elsewhere.
    pub fn try_ask(&self, database: &str, sql: &str) {
        let _ = self.psql(database).arg(sql).output(); // however it ends
    }

    /// A new database; its name.
    pub fn database(&self) -> String {
        let name = {
            let mut made = self
                .databases
                .lock()
                .unwrap_or_else(|held| held.into_inner());
            *made += 1;
            format!("db{made}")
        };
        self.ask("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The URL of one, by the socket.
    pub fn url(&self, database: &str) -> String {
        let socket = self.dir.path().display().to_string().replace('/', "%2F");
        format!("postgres://aot@{socket}:{}/{database}", self.port())
    }

    /// By a port of loopback: its own, or one in front of it.
    pub fn url_by_port(&self, port: u16, database: &str) -> String {
        format!("postgres://aot@127.0.0.1:{port}/{database}")
    }

    /// Ends it as a power cut does: all of its processes by SIGKILL.
    pub fn kill(&self) {
        let Some(mut child) = self.running().take() else {
            return;
        };
        // It first: a parent that lives would notice its children's ends, and start others.
        let children = children_of(child.id());
        let _ = child.kill();
        for pid in children {
            kill(pid, rustix::process::Signal::KILL);
        }
        let _ = child.wait();
    }

    /// Ends it at once, its transactions with it, as an administrator would (pg_ctl, mode immediate).
    pub fn stop(&self) {
        if let Some(ended) = self.end() {
            assert_ne!(ended.signal(), Some(9), "{}", self.log());
        }
    }

    fn end(&self) -> Option<std::process::ExitStatus> {
        let mut child = self.running().take()?;
        kill(child.id(), rustix::process::Signal::QUIT);
        child.wait().ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let _ = rustix::process::kill_process(pid.expect("a pid"), signal); // it may have ended
}

/// The processes that a process has started, as the kernel has them (proc(5)).
fn children_of(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let listed = std::fs::read_to_string(path).unwrap_or_default();
    listed
        .split_whitespace()
        .filter_map(|it| it.parse().ok())
        .collect()
}

/// Runs it on a thread that is there for as long as the process.
fn on_a_lasting_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    type Work = Box<dyn FnOnce() + Send>;
    static THREAD: OnceLock<Mutex<std::sync::mpsc::Sender<Work>>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (sender, queue) = std::sync::mpsc::channel::<Work>();
        std::thread::spawn(move || queue.into_iter().for_each(|work| work()));
        Mutex::new(sender)
    });
    let (done, answer) = std::sync::mpsc::channel();
    let work: Work = Box::new(move || {
        let _ = done.send(work()); // whoever asked waits
    });
    let sent = thread
        .lock()
        .unwrap_or_else(|held| held.into_inner())
        .send(work);
    sent.expect("the thread lasts");
    answer.recv().expect("the thread lasts")
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when a server has come up"
)]
fn pause() {
    std::thread::sleep(TRY_EVERY);
}

/// A folder of this user's, who must be able to get there wherever TMPDIR is.
fn new_dir(user: Option<(u32, u32)>) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/tmp").expect("a folder");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).expect("its own folder");
    if let Some((uid, gid)) = user {
        chown(dir.path(), Some(uid), Some(gid)).expect("root may");
    }
    dir
}

/// One that nobody listens on, below those that the system gives to whoever asks for any (ip(7), `ip_local_port_range`).
fn free_port() -> u16 {
    let random = || {
        let time = std::time::SystemTime::UNIX_EPOCH.elapsed();
        20_000 + u16::try_from(time.map_or(0, |it| it.subsec_nanos()) / 100 % 10_000).unwrap_or(0)
    };
    loop {
        let port = random();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn succeeded(what: &str, output: io::Result<Output>) -> Output {
    let output = output.unwrap_or_else(|why| panic!("{what}: {why}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {} {said}", output.status);
    output
}
