//! A PostgreSQL of its own for tests: in a folder of its own, on a socket there and a free port of loopback, as a user that is
//! not root. It ends with the value, and with the process should that be killed.
//!
//! Where its programs are missing, root on Debian has them installed, as the EC2 lab does with its tools; elsewhere the test is
//! skipped, and says so.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Where Debian puts the programs of a version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Longest wait for a server to take connections: it may have much to replay.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often that is tried.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// One installs at a time, among all tests of this machine.
const INSTALL_LOCK: &str = "/var/lock/aot-postgresql.lock";

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
        eprintln!("SKIPPED: 1 test, {test}: {}", self.0);
    }
}

/// A running server.
pub struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    port: u16,
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
        let dir = tempfile::tempdir().expect("a folder");
        let user = user()?;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).expect("its own folder");
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).expect("root may");
        }
        let server = Self {
            dir,
            programs,
            user,
            port: free_port(),
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
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n",
            self.port,
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
        self.port
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
            postgres.stderr(log.try_clone().expect("a handle"));
            // Its parent must outlive it: a thread that ends has its children signalled too.
            let mut child = on_a_lasting_thread(move || postgres.spawn()).expect("setpriv runs");
            if self.is_ready_in_time(&mut child, deadline) {
                *self.running() = Some(child);
                return;
            }
            let _ = child.kill();
            let _ = child.wait();
            assert!(Instant::now() < deadline, "{}", self.log());
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
        psql.arg(self.port.to_string())
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
        format!("postgres://aot@{socket}:{}/{database}", self.port)
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
        let Some(mut child) = self.running().take() else {
            return;
        };
        kill(child.id(), rustix::process::Signal::QUIT);
        let ended = child.wait().expect("it is ours");
        assert_ne!(ended.signal(), Some(9), "{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
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

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("it is bound").port()
}

fn succeeded(what: &str, output: io::Result<Output>) -> Output {
    let output = output.unwrap_or_else(|why| panic!("{what}: {why}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {} {said}", output.status);
    output
}

/// PostgreSQL refuses to run as root: then it runs as its own user, or as nobody.
fn user() -> Result<Option<(u32, u32)>, Missing> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |name: &str| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    let found = of("postgres").or_else(|| of("nobody"));
    let none = || Missing("there is neither a user postgres nor nobody".to_owned());
    found.map(Some).ok_or_else(none)
}

/// Asks for the tests that need a server.
const ASKED_FOR: &str = "AOT_TEST_POSTGRES";

/// The folder of the newest version's programs, installed when they are missing. Only where asked for: no program has this
/// engine yet, and its tests kill and stop servers by the clock.
fn programs() -> Result<PathBuf, Missing> {
    if std::env::var_os(ASKED_FOR).is_none_or(|value| value != "1") {
        return Err(Missing(format!("{ASKED_FOR}=1 runs it")));
    }
    static FOUND: OnceLock<Result<PathBuf, Missing>> = OnceLock::new();
    FOUND
        .get_or_init(|| found().map_or_else(install, Ok))
        .clone()
}

fn found() -> Option<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).collect::<Vec<_>>();
    let all = versions
        .into_iter()
        .rev()
        .map(|(_, path)| path)
        .chain(in_path);
    let is_whole = |dir: &PathBuf| {
        let programs = ["initdb", "postgres", "psql"];
        programs.iter().all(|program| dir.join(program).is_file())
    };
    all.into_iter().find(is_whole)
}

/// With apt-get, and without the cluster that Debian would make and start.
fn install() -> Result<PathBuf, Missing> {
    let missing = |why: String| Missing(format!("PostgreSQL's programs are not here, and {why}"));
    if !rustix::process::geteuid().is_root() {
        return Err(missing("only root can install them".to_owned()));
    }
    let lock = File::create(INSTALL_LOCK).map_err(|why| missing(why.to_string()))?;
    lock.lock().map_err(|why| missing(why.to_string()))?;
    if let Some(programs) = found() {
        return Ok(programs); // another test was faster
    }
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        match apt.stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                Err(missing(format!("apt-get {}: {said}", args.join(" "))))
            }
            Err(why) => Err(missing(format!("there is no apt-get: {why}"))),
        }
    };
    let install = ["install", "-y", "--no-install-recommends"];
    apt(&["update"])?;
    apt(&[&install[..], &["postgresql-common"]].concat())?;
    let conf = Path::new("/etc/postgresql-common/createcluster.d");
    let unmade = std::fs::create_dir_all(conf)
        .and_then(|()| std::fs::write(conf.join("aot.conf"), "create_main_cluster = false\n"));
    unmade.map_err(|why| missing(why.to_string()))?;
    apt(&[&install[..], &["postgresql"]].concat())?;
    found().ok_or_else(|| missing("apt-get did not bring them".to_owned()))
}
