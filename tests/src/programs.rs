//! Puts programs where a test is to start them.
//!
//! A program must not be written by the test process itself: while a file is open, another test of the same process may
//! start a command, whose child holds a copy of the descriptor until its own execve(2); until then to execute the file is
//! refused (ETXTBSY). Here a child writes it, which has ended, and with it its descriptors, before anything is started.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A copy of a program that anyone may run; what is there already is replaced.
///
/// # Panics
/// When it can't be copied.
#[track_caller]
pub fn install(from: &Path, to: &Path) {
    let mut command = Command::new("install");
    command.args(["-m", "755", "--"]).arg(from).arg(to);
    let output = command.output().expect("install(1) starts");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A script that anyone may run; what is there already is replaced.
///
/// # Panics
/// When it can't be written.
#[track_caller]
pub fn script(path: &Path, text: &str) {
    const WRITE: &str = r#"rm -f -- "$0" && cat > "$0" && chmod 755 -- "$0""#;
    let mut command = Command::new("sh");
    command.args(["-c", WRITE]).arg(path).stdin(Stdio::piped());
    let mut child = command.spawn().expect("sh starts");
    let mut stdin = child.stdin.take().expect("piped above");
    stdin.write_all(text.as_bytes()).expect("the script");
    drop(stdin);
    let status = child.wait().expect("our child");
    assert!(status.success(), "{command:?}: {status}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_installed_runs_while_others_start_commands() {
        let folder = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let folder = folder.path();
                scope.spawn(move || {
                    for round in 0..25 {
                        let own = folder.join(format!("script-{thread}"));
                        script(&own, &format!("#!/bin/sh\necho {round}\n"));
                        let output = Command::new(&own).output().expect("the script starts");
                        assert_eq!(output.stdout, format!("{round}\n").as_bytes());
                        let copy = folder.join(format!("copy-{thread}"));
                        install(&own, &copy);
                        let output = Command::new(&copy).output().expect("the copy starts");
                        assert_eq!(output.stdout, format!("{round}\n").as_bytes());
                    }
                });
            }
        });
        let mode = |name| folder.path().join(name).metadata().expect("it is there");
        assert_eq!(mode("script-0").permissions().mode() & 0o7777, 0o755);
        assert_eq!(mode("copy-0").permissions().mode() & 0o7777, 0o755);
    }
}
