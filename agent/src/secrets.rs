//! Secrets of runs: files in memory, in a folder for each run that goes when the run ends. They come with the run, or are read by this
//! machine when it begins (`aws`), and are on no disk of it. Written before the shim is given the command, removed by the shim at the run's end; what a shim that was killed
//! left, the runner removes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use aot_host::chain::Chain;
use aot_host::removal::{self, remove_tree};
use aot_proto::aws::is_region;
use aot_proto::ids::RunId;
use aot_proto::limits::{
    MAX_ALL_SECRETS_BYTES, MAX_SECRET_ID_BYTES, MAX_SECRET_VERSION_BYTES, MAX_SECRETS,
};
use aot_proto::secret::{check_value, is_secret_name, is_secret_variable};
use aot_proto::v1::{AwsService, MachineSecret, SecretValue, StartRun};
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

/// What a run is given in secret.
#[derive(Default)]
pub(crate) struct RunSecrets {
    /// Here.
    pub(crate) values: Vec<SecretValue>,
    /// To be read by this machine.
    pub(crate) on_machine: Vec<MachineSecret>,
}

impl RunSecrets {
    /// Checks what the master sent with a run.
    ///
    /// # Errors
    /// A line for a person that names the secret; nothing of its value is in it.
    pub(crate) fn of(start: &StartRun) -> Result<Self, String> {
        let (values, on_machine) = (&start.secrets, &start.machine_secrets);
        if values.len() + on_machine.len() > MAX_SECRETS {
            return Err("it has too many secrets".to_owned());
        }
        let mut names: Vec<&str> = Vec::new();
        let given = values.iter().map(|it| (it.name.as_str(), it.env.as_str()));
        let read = on_machine.iter();
        let read = read.map(|it| (it.name.as_str(), it.env.as_str()));
        for (name, env) in given.chain(read) {
            check_name(name, env, &names)?;
            names.push(name);
        }
        for secret in values {
            check_value(&secret.value, !secret.env.is_empty())
                .map_err(|error| about(&secret.name, &error))?;
        }
        for secret in on_machine {
            check_place(secret).map_err(|why| about(&secret.name, &why))?;
        }
        Ok(Self {
            values: values.clone(),
            on_machine: on_machine.clone(),
        })
    }
}

/// Checks that the values of a run are not too many together: those that this machine has read were not counted by the master.
///
/// # Errors
/// A line for a person.
pub(crate) fn check_all(secrets: &[SecretValue]) -> Result<(), String> {
    let bytes: usize = secrets.iter().map(|it| it.value.len()).sum();
    match bytes <= MAX_ALL_SECRETS_BYTES {
        true => Ok(()),
        false => Err(format!(
            "its secrets have more than {} KiB together",
            MAX_ALL_SECRETS_BYTES >> 10
        )),
    }
}

fn about(name: &str, why: &dyn std::fmt::Display) -> String {
    format!("the secret {name}: {why}")
}

fn check_name(name: &str, env: &str, others: &[&str]) -> Result<(), String> {
    if !is_secret_name(name) {
        return Err("the name of a secret is not of its form".to_owned());
    }
    if others.contains(&name) {
        return Err(about(name, &"it is there twice"));
    }
    if !env.is_empty() && !is_secret_variable(env) {
        return Err(about(name, &"it can't be given as this variable"));
    }
    Ok(())
}

/// Whether a secret can be asked for: its place becomes a part of a request, and of a host's name.
fn check_place(secret: &MachineSecret) -> Result<(), &'static str> {
    if secret.service() == AwsService::Unspecified {
        return Err("this agent does not know where it is: update the agent");
    }
    let is_text = |text: &str, most| text.len() <= most && !text.chars().any(char::is_control);
    if secret.id.is_empty() || !is_text(&secret.id, MAX_SECRET_ID_BYTES) {
        return Err("its name in AWS is not of its form");
    }
    if !is_text(&secret.version, MAX_SECRET_VERSION_BYTES) {
        return Err("its version is not of its form");
    }
    if !secret.region.is_empty() && !is_region(&secret.region) {
        return Err("its region is not of its form");
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

    fn check(values: &[SecretValue], on_machine: &[MachineSecret]) -> Result<(), String> {
        let start = StartRun {
            secrets: values.to_vec(),
            machine_secrets: on_machine.to_vec(),
            ..StartRun::default()
        };
        RunSecrets::of(&start).map(drop)
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
            let error = check(&bad, &[]).expect_err(said);
            assert!(error.contains(said) && !error.contains("hunter"), "{error}");
        }
        let good = [secret("a", b"hunter2\0", ""), secret("b", b"hunter2", "DB")];
        assert_eq!(check(&good, &[]), Ok(()));
    }

    #[test]
    fn where_this_machine_is_to_read_one_is_checked_too() {
        let good = MachineSecret {
            name: "db".to_owned(),
            env: "DB".to_owned(),
            service: AwsService::Ssm.into(),
            id: "/prod/db".to_owned(),
            version: "3".to_owned(),
            region: "eu-west-1".to_owned(),
        };
        assert_eq!(
            check(&[secret("a", b"hunter2", "")], std::slice::from_ref(&good)),
            Ok(())
        );
        let but = |change: fn(&mut MachineSecret)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad
        };
        for (bad, said) in [
            (but(|it| it.name = "../x".to_owned()), "not of its form"),
            (but(|it| it.name = "a".to_owned()), "twice"),
            (but(|it| it.env = "AOT_INSTANCE".to_owned()), "variable"),
            (but(|it| it.service = 0), "update the agent"),
            (but(|it| it.service = 99), "update the agent"),
            (but(|it| it.id.clear()), "its name in AWS"),
            (but(|it| it.id = "x".repeat(2049)), "its name in AWS"),
            (but(|it| it.version = "a\nb".to_owned()), "its version"),
            (
                but(|it| it.region = "evil.example/".to_owned()),
                "its region",
            ),
        ] {
            let error = check(&[secret("a", b"hunter2", "")], &[bad]).expect_err(said);
            assert!(error.contains(said), "{error}");
        }
        let many = vec![secret("a", &[b'x'; 64 << 10], ""); 17];
        assert!(check_all(&many).is_err() && check_all(&many[..16]).is_ok());
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
