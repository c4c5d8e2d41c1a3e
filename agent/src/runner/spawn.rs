//! Starts the shim's child as its command says. So that std takes posix_spawn(3), which lends the child our memory instead
//! of copying its page tables, it gets no working folder (we go there and come back) and a program with a slash in it.

use std::env::set_current_dir;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use aot_host::core_dumps;
use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::command::{Become, CommandSpec, STDIN};

/// Where execvp(3) searches when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The agent's and the shim's protection from the OOM killer is not for what they run (proc_pid_oom_score_adj(5)).
pub(crate) fn exposed_to_oom<T>(spawn: impl FnOnce() -> T) -> T {
    const SCORE: &str = "/proc/self/oom_score_adj";
    let own = fs::read_to_string(SCORE).unwrap_or_default();
    let protected = own.trim().parse::<i32>().is_ok_and(|score| score < 0);
    // Where that is not allowed the child is as well protected as we are: and is run all the same.
    if protected {
        let _ = fs::write(SCORE, "0");
    }
    let spawned = spawn();
    if protected {
        let _ = fs::write(SCORE, own);
    }
    spawned
}

/// With nothing of what protects the shim and what it knows: the child has what it would have without us.
pub(crate) fn as_before<T>(spawn: impl FnOnce() -> T) -> T {
    exposed_to_oom(|| core_dumps::given_back(spawn))
}

/// The child in a process group of its own; the error is a line for a person. Ours is its standard input then.
///
/// # Errors
/// When there is no such program or folder, or it may not be run.
pub(crate) fn spawn(dir: &Path, command: &CommandSpec) -> Result<Child, String> {
    let program = command.argv.first().ok_or("the command is empty")?;
    let spawned = set_stdin(dir)
        .and_then(|()| set_current_dir(&command.cwd))
        .and_then(|()| start(command));
    // It is ours until here; that the root is gone must not lose what runs.
    let _ = set_current_dir("/");
    spawned.map_err(|error| format!("cannot run {program} in {}: {error}", command.cwd))
}

/// Makes the child's standard input ours.
fn set_stdin(dir: &Path) -> io::Result<()> {
    let stdin = File::open(dir.join(STDIN)).or_else(|_| File::open("/dev/null"))?;
    Ok(rustix::stdio::dup2_stdin(stdin)?)
}

/// Starts it in our working folder.
fn start(command: &CommandSpec) -> io::Result<Child> {
    let Some((program, args)) = command.argv.split_first() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if let Some(user) = &command.become_user {
        return process(command, Path::new("/proc/self/exe"))
            .args(as_user(user))
            .arg(program)
            .args(args)
            .spawn();
    }
    let path = command.env.get("PATH").map(String::as_str);
    let found = on_path(program, path.unwrap_or(DEFAULT_PATH))?;
    match process(command, &found).arg0(program).args(args).spawn() {
        // A script without an interpreter line: execvp(3) uses the shell.
        Err(error) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            process(command, Path::new("/bin/sh"))
                .arg(found)
                .args(args)
                .spawn()
        }
        other => other,
    }
}

fn process(command: &CommandSpec, program: &Path) -> std::process::Command {
    let mut process = std::process::Command::new(program);
    process
        .env_clear()
        .envs(&command.env)
        .stdin(Stdio::inherit())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    process
}

/// The words of `aot-agent become` before the command itself.
fn as_user(user: &Become) -> [String; 5] {
    let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
    let [uid, gid] = [user.uid, user.gid].map(|id| id.to_string());
    let become_ = "become".to_owned();
    [become_, uid, gid, groups.join(","), "--".to_owned()]
}

/// Where execvp(3) would find `program`: with a slash it is taken as it is, else the first folder of `path` counts that
/// has one that may be run.
///
/// # Errors
/// When there is none: EACCES if there is one that may not be run, else ENOENT.
fn on_path(program: &str, path: &str) -> io::Result<PathBuf> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let mut error = Errno::NOENT;
    if program.is_empty() {
        return Err(error.into());
    }
    for folder in path.split(':') {
        // Nothing means the working folder; the slash keeps it from being searched for once more.
        let folder = if folder.is_empty() { "." } else { folder };
        let file = Path::new(folder).join(program);
        // Folders can be "run" too.
        let runs = access(&file, Access::EXEC_OK).and_then(|()| match file.is_file() {
            true => Ok(()),
            false => Err(Errno::ACCESS),
        });
        match runs {
            // A folder's name may have no slash in it.
            Ok(()) => return Ok(Path::new(".").join(file)),
            Err(Errno::ACCESS) => error = Errno::ACCESS,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV | Errno::TIMEDOUT) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Err(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_is_found_as_execvp_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for folder in ["none", "folder/tool", "plain", "good", "later"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for (file, mode) in [
            ("plain/tool", 0o644),
            ("good/tool", 0o755),
            ("later/tool", 0o755),
        ] {
            fs::write(at(file), "").unwrap();
            fs::set_permissions(at(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        let found = |folders: &[&str]| {
            let path: Vec<String> = folders.iter().map(|name| at(name)).collect();
            on_path("tool", &path.join(":")).map_err(|error| error.raw_os_error().unwrap_or(0))
        };
        let good = Ok(PathBuf::from(at("good/tool")));
        assert_eq!(found(&["good", "later"]), good);
        assert_eq!(found(&["none", "missing", "good/tool", "good"]), good);
        assert_eq!(found(&["folder", "plain", "good"]), good);
        let (access, none) = (Errno::ACCESS.raw_os_error(), Errno::NOENT.raw_os_error());
        assert_eq!(found(&["none", "plain", "missing"]), Err(access));
        assert_eq!(found(&["folder"]), Err(access));
        assert_eq!(found(&["none", "missing"]), Err(none));
        assert!(on_path("", &at("good")).is_err());
        let long = "x".repeat(300);
        let error = on_path(&long, &at("good")).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(Errno::NAMETOOLONG.raw_os_error())
        );
        for given in ["/no/such", "./tool", "a/b"] {
            assert_eq!(on_path(given, "").unwrap(), Path::new(given));
        }
        // The test's own folder has a file of that name, not to be run.
        for (path, kind) in [
            ("", io::ErrorKind::PermissionDenied),
            (":/none", io::ErrorKind::PermissionDenied),
            ("/none:", io::ErrorKind::PermissionDenied),
            ("/none", io::ErrorKind::NotFound),
        ] {
            let found = on_path("Cargo.toml", path).map_err(|error| error.kind());
            assert_eq!(found, Err(kind), "{path:?}");
        }
    }
}
