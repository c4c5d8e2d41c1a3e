//! Waits for whichever of a few descriptors has something to read.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Which of these have something to say. One that is closed says so again and again, and is to be left out then: between
/// the end of pid 1 and that of its whole pid namespace lie seconds, which would be spent on asking.
pub(super) fn wait<const N: usize>(
    from: [Option<BorrowedFd<'_>>; N],
    deadline: Option<Instant>,
) -> io::Result<[bool; N]> {
    let open = from.iter().flatten();
    let mut fds: Vec<PollFd<'_>> = open
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let timeout = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(left).unwrap_or_default()
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut hits = fds.iter().map(|fd| !fd.revents().is_empty());
    Ok(from.map(|fd| fd.is_some() && hits.next().unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_is_closed_and_left_out_wakes_nobody() {
        let (closed, writer) = io::pipe().expect("a pipe");
        let (silent, _open) = io::pipe().expect("a pipe");
        drop(writer);
        let fds = [Some(closed.as_fd()), None, Some(silent.as_fd())];
        let ready = wait(fds, None).expect("polls");
        assert_eq!(ready, [true, false, false], "its end is reported, once");
        let deadline = Instant::now() + Duration::from_millis(50);
        let ready = wait([None, Some(silent.as_fd())], Some(deadline)).expect("polls");
        assert_eq!(ready, [false, false]);
        assert!(Instant::now() >= deadline, "it slept");
    }
}
