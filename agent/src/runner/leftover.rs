//! What a command leaves behind that still holds its output: a server started with `&` and no redirection. The run is over,
//! and what the server prints is for nobody; but whoever writes to a pipe that nobody reads is killed by SIGPIPE at its
//! next line (pipe(7)). So the shim stays, and splices it all into /dev/null, asleep in poll(2) meanwhile. The
//! price: a process of 1 MiB for as long as such a server runs.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use super::reap;
use super::signals::Signals;
use super::tree;

/// Most bytes that are moved at once.
const PIECE_BYTES: usize = 1 << 20;

/// Ends of pipes that something may still write to.
#[derive(Debug, Default)]
pub(super) struct Pipes(pub Vec<OwnedFd>);

/// Reads all of them to their end, or until the machine is shut down, whatever they hold.
///
/// # Errors
/// As poll(2), and open(2) of /dev/null.
pub(super) fn drain(pipes: Pipes, signals: &mut Signals) -> io::Result<()> {
    let Pipes(mut pipes) = pipes;
    if pipes.is_empty() {
        return Ok(());
    }
    let nothing = File::options().write(true).open("/dev/null")?;
    while !pipes.is_empty() && !signals.is_terminating() {
        let pollin = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![pollin(signals.as_fd())];
        fds.extend(pipes.iter().map(|pipe| pollin(pipe.as_fd())));
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let hit: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        // Its children come to us, a subreaper, when it dies.
        while reap::any() {}
        let mut hits = hit.into_iter().skip(1);
        pipes.retain(|pipe| !hits.next().unwrap_or(false) || is_open(pipe, &nothing));
    }
    Ok(())
}

/// Moves what is in the pipe; false at its end.
fn is_open(pipe: &OwnedFd, nothing: &File) -> bool {
    match splice(
        pipe,
        None,
        nothing,
        None,
        PIECE_BYTES,
        SpliceFlags::NONBLOCK,
    ) {
        Ok(0) => false,
        Ok(_) | Err(Errno::INTR | Errno::AGAIN) => true,
        Err(_) => {
            // Not every kernel splices into /dev/null.
            let mut buffer = [0; 4096];
            !matches!(rustix::io::read(pipe, &mut buffer), Ok(0))
        }
    }
}

/// How many processes below `root` hold one of these pipes open (proc_pid_fd(5)).
pub(super) fn holders<'a>(root: i32, pipes: impl Iterator<Item = BorrowedFd<'a>>) -> u32 {
    let names: Vec<String> = pipes
        .filter_map(|pipe| Some(format!("pipe:[{}]", fstat(pipe).ok()?.st_ino)))
        .collect();
    let holds = |pid: &i32| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        let mut targets = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        targets.any(|target| names.iter().any(|name| target.as_os_str() == name.as_str()))
    };
    let count = tree::all_below(root)
        .iter()
        .filter(|pid| holds(pid))
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn those_who_hold_the_output_are_counted_and_no_others() {
        let (reader, writer) = io::pipe().unwrap();
        let sleep = |out: Stdio| {
            let mut command = Command::new("sleep");
            command.arg("600").stdout(out).spawn().unwrap()
        };
        let mut children = [
            sleep(writer.try_clone().unwrap().into()),
            sleep(writer.into()),
            sleep(Stdio::null()),
        ];
        let me = std::process::id().cast_signed();
        // A child that another test starts holds them too, until it has executed its program.
        let begun = Instant::now();
        let found = loop {
            let found = holders(me, [reader.as_fd()].into_iter());
            if found == 2 || begun.elapsed() > Duration::from_secs(60) {
                break found;
            }
            std::thread::yield_now();
        };
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // The test itself is not below itself.
        assert_eq!(found, 2);
    }

    #[test]
    fn all_is_read_until_the_last_writer_is_gone() {
        let (reader, writer) = io::pipe().unwrap();
        // More than a pipe holds (64 KiB): it ends only when it is read from.
        let mut child = Command::new("sh")
            .args(["-c", "head -c 1000000 /dev/zero; exec >&-; exit 7"])
            .stdout(writer)
            .spawn()
            .unwrap();
        let nothing = File::options().write(true).open("/dev/null").unwrap();
        let pipe = OwnedFd::from(reader);
        let poll_pipe = || {
            let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            is_open(&pipe, &nothing)
        };
        while poll_pipe() {}
        assert_eq!(child.wait().unwrap().code(), Some(7), "not by SIGPIPE");
    }
}
