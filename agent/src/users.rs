//! Users and groups from the files themselves: a static binary has no NSS. Where the files do not know a user,
//! getent(1) of the machine is asked. Used by the runner and the ssh keys.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::fs::{FileType, fchown, fstat};

use crate::starts;

/// One line of passwd(5) and what group(5) adds to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Every group, the primary one too.
    pub groups: Vec<u32>,
    pub home: PathBuf,
    pub shell: String,
}

/// Looks `name` up in `etc`, then by getent(1).
pub(crate) fn find(name: &str, etc: &Path) -> Option<User> {
    let passwd = fs::read_to_string(etc.join("passwd")).unwrap_or_default();
    let group = fs::read_to_string(etc.join("group")).unwrap_or_default();
    parse(name, &passwd, &group).or_else(|| {
        if name.starts_with('-') || etc != Path::new("/etc") {
            return None;
        }
        let line = output(Command::new("getent").args(["passwd", name]))?;
        let mut user = parse(name, &line, &group)?;
        let ids = output(Command::new("id").args(["-G", name])).unwrap_or_default();
        user.groups.extend(
            ids.split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
        user.groups.sort_unstable();
        user.groups.dedup();
        Some(user)
    })
}

fn output(command: &mut Command) -> Option<String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let child = starts::start(|| command.spawn()).ok()?;
    let output = child.wait_with_output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The user in the texts of passwd(5) and group(5).
fn parse(name: &str, passwd: &str, group: &str) -> Option<User> {
    let fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 7 && fields[0] == name)?;
    let gid = fields[3].parse().ok()?;
    let mut groups = vec![gid];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [_, _, id, members] = fields[..]
            && members.split(',').any(|member| member == name)
            && let Ok(id) = id.parse()
            && !groups.contains(&id)
        {
            groups.push(id);
        }
    }
    Some(User {
        name: name.to_owned(),
        uid: fields[2].parse().ok()?,
        gid,
        groups,
        home: fields[5].into(),
        shell: fields[6].to_owned(),
    })
}

/// Gives up root for good, then becomes `argv`. Returns only when that failed: 126, or 127 when there is no such program
/// (the numbers of env(1)).
pub fn become_and_exec(uid: u32, gid: u32, groups: &str, argv: &[OsString]) -> ExitCode {
    let groups: Vec<u32> = groups.split(',').filter_map(|id| id.parse().ok()).collect();
    own_stdio(uid);
    if let Err(error) = become_user(uid, gid, &groups) {
        eprintln!("aot-agent: cannot become user {uid}: {error}");
        return ExitCode::from(126);
    }
    match argv.split_first() {
        Some((program, args)) => exec(Command::new(program).args(args)),
        None => ExitCode::from(126),
    }
}

/// Makes the pipes and the file that are our standard input and outputs the user's, so that it can also open them by name:
/// /dev/stdout leads to /proc/self/fd/1, and opening that asks for rights as opening the file does (proc_pid_fd(5)).
fn own_stdio(uid: u32) {
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for fd in [input.as_fd(), output.as_fd(), errors.as_fd()] {
        let kind = fstat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if matches!(kind, Ok(FileType::Fifo | FileType::RegularFile)) {
            // Where that is not allowed (a user namespace without that id), they are still open.
            let _ = fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None);
        }
    }
}

/// Gives up root for good.
///
/// # Errors
/// As setgroups(2), setgid(2) and setuid(2); some of it may be done then.
pub(crate) fn become_user(uid: u32, gid: u32, groups: &[u32]) -> nix::Result<()> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)
        .and_then(|()| setgid(Gid::from_raw(gid)))
        .and_then(|()| setuid(Uid::from_raw(uid)))
}

/// Becomes `command`. Returns only when that failed: 126, or 127 when there is no such program.
pub(crate) fn exec(command: &mut Command) -> ExitCode {
    let error = command.exec();
    let program = command.get_program().display().to_string();
    eprintln!("aot-agent: cannot run {program}: {error}");
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound {
        127
    } else {
        126
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_its_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nadmin:x:1000:1000:Debian:/home/admin:/bin/sh\nbroken\n";
        let group = "root:x:0:\nadm:x:4:syslog,admin\nadmin:x:1000:\nsudo:x:27:admin\nadministrators:x:99:admin2\n";
        let user = parse("admin", passwd, group).unwrap();
        assert_eq!(
            (user.uid, user.gid, user.groups),
            (1000, 1000, vec![1000, 4, 27])
        );
        assert_eq!(user.home, Path::new("/home/admin"));
        assert_eq!(parse("broken", passwd, group), None);
        assert_eq!(parse("nobody", passwd, group), None);
    }
}
