//! Secrets of runs: files in memory, in a folder for each run that goes when the run ends. They come with the run and are on no disk
//! of this machine. Written before the shim is given the command, removed by the shim at the run's end; what a shim that was killed
//! left, the runner removes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use aot_host::chain::Chain;
use aot_host::removal::{self, remove_tree};
use aot_proto::ids::RunId;
use aot_proto::limits::MAX_SECRETS;
use aot_proto::secret::{check_value, is_secret_name, is_secret_variable};
use aot_proto::v1::SecretValue;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};

/// The variable with the folder of a run's secrets.
pub(crate) const VARIABLE: &str = "AOT_SECRETS";

/// `f_type` of a ramfs (statfs(2)).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// What a memory of our own is mounted with: on the second try without `noswap`, which Linux knows since 6.4.
const OPTIONS: [&str; 2] = ["mode=711,size=64m,noswap", "mode=711,size=64m"];

/// Mounts below a run's folder that are taken off when it ends.
const MAX_MOUNTS: usize = 64;

/// The folders of all runs that have secrets.
#[derive(Debug)]
pub(crate) struct SecretFolders {
    root: PathBuf,
}

/// Checks what the master sent with a run.
///
/// # Errors
/// A line for a person that names the secret; nothing of its value is in it.
pub(crate) fn check(secrets: &[SecretValue]) -> Result<(), String> {
    if secrets.len() > MAX_SECRETS {
        return Err("it has too many secrets".to_owned());
    }
    for (at, secret) in secrets.iter().enumerate() {
        let SecretValue { name, value, env } = secret;
        if !is_secret_name(name) {
            return Err("the name of a secret is not of its form".to_owned());
        }
        let bad = |why: &dyn std::fmt::Display| format!("the secret {name}: {why}");
        if secrets[..at].iter().any(|it| it.name == *name) {
            return Err(bad(&"it is there twice"));
        }
        if !env.is_empty() && !is_secret_variable(env) {
            return Err(bad(&"it can't be given as this variable"));
        }
        check_value(value, !env.is_empty()).map_err(|error| bad(&error))?;
    }
    Ok(())
}

impl SecretFolders {
    /// Below this folder.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Writes the secrets of a run, for root or this user and group alone, and gives their folder.
    ///
    /// # Errors
    /// A line for a person, when there is no memory to keep them in.
    pub(crate) fn write(
        &self,
        run: RunId,
        owner: Option<(u32, u32)>,
        secrets: &[SecretValue],
    ) -> Result<PathBuf, String> {
        self.in_memory()?;
        let folder = self.folder(run);
        let written = write_all(&folder, owner, secrets);
        written.map_err(|error| {
            remove(&folder);
            format!("cannot write its secrets in {}: {error}", folder.display())
        })?;
        Ok(folder)
    }

    /// Removes those of a run; nothing where it has none.
    pub(crate) fn remove(&self, run: RunId) {
        remove(&self.folder(run));
    }

    /// Removes those of all runs that have ended.
    pub(crate) fn sweep(&self, is_open: impl Fn(RunId) -> bool) {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return; // no run had any since the machine started
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let run = name.to_str().and_then(|name| name.parse::<RunId>().ok());
            if !run.is_some_and(&is_open) {
                remove(&entry.path());
            }
        }
    }

    fn folder(&self, run: RunId) -> PathBuf {
        self.root.join(run.to_string())
    }

    /// Sees to it that what is written there is written to no disk.
    fn in_memory(&self) -> Result<(), String> {
        let root = &self.root;
        let failed = |error: io::Error| format!("cannot use {}: {error}", root.display());
        // Users come through, and see nothing.
        let made = DirBuilder::new().recursive(true).mode(0o711).create(root);
        made.map_err(failed)?;
        // Whatever the umask of who started the agent.
        fs::set_permissions(root, fs::Permissions::from_mode(0o711)).map_err(failed)?;
        if is_memory(root).map_err(failed)? {
            return Ok(());
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let mut mounted = Ok(());
        for options in OPTIONS {
            mounted = mount(Some("tmpfs"), root, Some("tmpfs"), flags, Some(options));
            if mounted.is_ok() {
                break;
            }
        }
        mounted.map_err(|error| {
            let root = root.display();
            format!("there is no memory for secrets: {root} is on a disk, and no tmpfs can be mounted there ({error})")
        })
    }
}

/// Removes a folder with secrets.
pub(crate) fn remove(folder: &Path) {
    let mut removed = remove_tree(folder);
    for _ in 0..MAX_MOUNTS {
        // What a run has mounted there must not keep its secrets.
        let Err(removal::Error::Mounted(at)) = &removed else {
            break;
        };
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        if umount2(at, flags).is_err() {
            break;
        }
        removed = remove_tree(folder);
    }
    match removed {
        Err(error) if !error.is_not_found() => {
            tracing::warn!(folder = %folder.display(), error = %Chain(&error), "cannot remove secrets");
        }
        _ => {}
    }
}

fn is_memory(folder: &Path) -> io::Result<bool> {
    let kind = statfs(folder)?.filesystem_type();
    Ok(kind == TMPFS_MAGIC || kind == RAMFS_MAGIC)
}

fn write_all(folder: &Path, owner: Option<(u32, u32)>, secrets: &[SecretValue]) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    for secret in secrets {
        let path = folder.join(&secret.name);
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(&secret.value)?;
        if let Some((uid, gid)) = owner {
            chown(&path, Some(uid), Some(gid))?;
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    // Last: from here on it is the user's.
    match owner {
        Some((uid, gid)) => chown(folder, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn secret(name: &str, value: &[u8], env: &str) -> SecretValue {
        SecretValue {
            name: name.to_owned(),
            value: value.to_vec(),
            env: env.to_owned(),
        }
    }

    fn run(n: u128) -> RunId {
        RunId::from_parts(1_700_000_000_000, n)
    }

    #[test]
    fn what_a_master_sends_is_checked_and_no_value_is_told() {
        let long = vec![b'x'; 70_000];
        for (bad, said) in [
            (vec![secret("../x", b"hunter2", "")], "not of its form"),
            (vec![secret("", b"hunter2", "")], "not of its form"),
            (
                vec![secret("a", b"hunter2", ""), secret("a", b"hunter3", "")],
                "twice",
            ),
            (vec![secret("a", b"hunter2", "AOT_SECRETS")], "variable"),
            (vec![secret("a", b"hunter2\0", "DB")], "not text"),
            (vec![secret("a", b"hun", "")], "fewer than 4"),
            (vec![secret("a", &long, "")], "more than 64 KiB"),
        ] {
            let error = check(&bad).expect_err(said);
            assert!(error.contains(said) && !error.contains("hunter"), "{error}");
        }
        let good = [secret("a", b"hunter2\0", ""), secret("b", b"hunter2", "DB")];
        assert_eq!(check(&good), Ok(()));
    }

    #[test]
    fn they_are_files_in_memory_of_one_user_and_gone_when_told() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let folders = SecretFolders::new(dir.path().join("deep/secrets"));
        let secrets = [secret("db", b"hunter2", ""), secret("tls", b"key\n", "")];
        let folder = folders.write(run(1), None, &secrets).unwrap();
        assert_eq!(fs::read(folder.join("tls")).unwrap(), b"key\n");
        for (path, mode) in [(&folder, 0o700), (&folder.join("db"), 0o600)] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, mode);
        }
        assert!(is_memory(&folder).unwrap());
        // Never into a folder that is there.
        assert!(folders.write(run(1), None, &secrets).is_err());
        let other = folders.write(run(2), None, &secrets).unwrap();
        fs::create_dir(dir.path().join("deep/secrets/strange")).unwrap();
        folders.sweep(|id| id == run(2));
        assert!(!folder.exists() && other.exists());
        assert!(!dir.path().join("deep/secrets/strange").exists());
        folders.remove(run(2));
        folders.remove(run(3));
        assert!(!other.exists());
    }

    #[test]
    fn what_a_run_has_mounted_among_them_does_not_keep_them() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root mounts");
            return;
        }
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let folders = SecretFolders::new(dir.path().join("secrets"));
        let secrets = [secret("db", b"hunter2", "")];
        let folder = folders.write(run(1), None, &secrets).unwrap();
        for name in ["m", "m/n"] {
            let at = folder.join(name);
            fs::create_dir(&at).unwrap();
            let kind = Some("tmpfs");
            mount(kind, &at, kind, MsFlags::empty(), None::<&str>).unwrap();
        }
        folders.remove(run(1));
        assert!(!folder.exists());
    }

    #[test]
    fn a_user_is_given_its_own() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root gives files away");
            return;
        }
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let folders = SecretFolders::new(dir.path().join("secrets"));
        let secrets = [secret("db", b"hunter2", "")];
        let folder = folders.write(run(1), Some((1234, 1235)), &secrets).unwrap();
        for path in [&folder, &folder.join("db")] {
            let meta = fs::metadata(path).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1234, 1235));
        }
    }
}
