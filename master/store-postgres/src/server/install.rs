//! Where PostgreSQL's programs are, and who runs them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Missing;

/// Where Debian puts the programs of a version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// One installs at a time, among all tests of this machine.
const INSTALL_LOCK: &str = "/var/lock/aot-postgresql.lock";

/// PostgreSQL refuses to run as root: then it runs as its own user, or as nobody.
pub(super) fn user() -> Result<Option<(u32, u32)>, Missing> {
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

/// The folder of the newest version's programs, installed when they are missing.
pub(super) fn programs() -> Result<PathBuf, Missing> {
    static FOUND: OnceLock<Result<PathBuf, Missing>> = OnceLock::new();
    let found = FOUND
        .get_or_init(|| found().map_or_else(install, Ok))
        .clone();
    // Who may install them does not go without these tests.
    let is_root = rustix::process::geteuid().is_root();
    found.inspect_err(|Missing(why)| assert!(!is_root, "{why}"))
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
        apt.args(["-o", "DPkg::Lock::Timeout=300"]).args(args);
        apt.env("DEBIAN_FRONTEND", "noninteractive");
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
