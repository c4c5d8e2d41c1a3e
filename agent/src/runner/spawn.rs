//! Starts the shim's child as its command says.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use super::command::{COMMAND, Command, STDIN};

/// The agent's and the shim's protection from the OOM killer is not for what they run (proc_pid_oom_score_adj(5)).
pub fn exposed_to_oom<T>(spawn: impl FnOnce() -> T) -> T {
    const SCORE: &str = "/proc/self/oom_score_adj";
    let own = fs::read_to_string(SCORE).unwrap_or_default();
    let protected = own.trim().parse::<i32>().is_ok_and(|score| score < 0);
    // Where that is not allowed the child is as well protected as we are: no reason not to run it.
    if protected {
        let _ = fs::write(SCORE, "0");
    }
    let spawned = spawn();
    if protected {
        let _ = fs::write(SCORE, own);
    }
    spawned
}

/// The child in a process group of its own; the error is a line for a person.
///
/// # Errors
/// When there is no such program or folder, or it may not be run.
pub fn spawn(dir: &Path, command: &Command) -> Result<std::process::Child, String> {
    let (program, args) = command.argv.split_first().ok_or("the command is empty")?;
    let mut process = match &command.become_user {
        None => std::process::Command::new(program),
        Some(user) => {
            let groups: Vec<String> = user.groups.iter().map(u32::to_string).collect();
            let mut process = std::process::Command::new("/proc/self/exe");
            let ids = [user.uid.to_string(), user.gid.to_string(), groups.join(",")];
            process.arg("become").args(ids).arg("--").arg(program);
            process
        }
    };
    let stdin = match File::open(dir.join(STDIN)) {
        Ok(file) => Stdio::from(OwnedFd::from(file)),
        Err(_) => Stdio::null(),
    };
    process
        .args(args)
        .current_dir(&command.cwd)
        .env_clear()
        .envs(&command.env)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| {
            format!(
                "cannot run {program} in {}: {error} (see {COMMAND})",
                command.cwd
            )
        })
}
