//! Connections of other processes on this host, as the kernel has them: who has dialled a port, and the end of what it dialled, as
//! by a network that breaks.

use std::fs;
use std::net::{Shutdown, TcpStream};
use std::os::fd::RawFd;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// The own ports and the inodes of all sockets that have dialled this port.
pub(super) fn dialled(port: u16) -> Vec<(u16, String)> {
    let table = fs::read_to_string("/proc/net/tcp").expect("there is IPv4");
    read(&table, port)
}

/// As proc_net(5) has them, `tcp`.
fn read(table: &str, to: u16) -> Vec<(u16, String)> {
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let of_line = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (own, far) = (port(fields.next()?)?, port(fields.next()?)?);
        let inode = fields.nth(6)?;
        (far == to).then(|| (own, inode.to_owned()))
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// Ends all connections to this port that a process has dialled; how many they were. Both sides find them ended.
///
/// # Panics
/// When there is no such process.
pub(super) fn break_all(pid: u32, port: u16) -> usize {
    let dialled = dialled(port);
    let pid_of = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = pidfd_open(pid_of.expect("a pid"), PidfdFlags::empty()).expect("it runs");
    let is_one = |link: &str| {
        let inode = link.strip_prefix("socket:[");
        let inode = inode.and_then(|it| it.strip_suffix(']'));
        inode.is_some_and(|inode| dialled.iter().any(|(_, it)| it == inode))
    };
    let files = fs::read_dir(format!("/proc/{pid}/fd"));
    let mut broken = 0;
    for file in files.into_iter().flatten().flatten() {
        let link = fs::read_link(file.path()).unwrap_or_default();
        let number: Option<RawFd> = file.file_name().to_str().and_then(|it| it.parse().ok());
        let (Some(number), true) = (number, is_one(&link.to_string_lossy())) else {
            continue;
        };
        let Ok(copy) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else {
            continue; // closed meanwhile
        };
        let stream = TcpStream::from(copy);
        // The number may be another file's by now.
        let is_still = stream.peer_addr().is_ok_and(|peer| peer.port() == port);
        if is_still && stream.shutdown(Shutdown::Both).is_ok() {
            broken += 1;
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0
   2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0
";

    #[test]
    fn the_sockets_that_dialled_are_found_and_not_those_that_were_dialled() {
        assert_eq!(read(TABLE, 0x1F90), [(0xC350, "13".to_owned())]);
        assert_eq!(read(TABLE, 0x1F91), []);
    }

    #[test]
    fn what_a_process_has_dialled_is_broken_and_nothing_else() {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let (one, other) = (listen(), listen());
        let dial = |to: &TcpListener| {
            let to = to.local_addr().expect("it is bound");
            TcpStream::connect(to).expect("it listens")
        };
        let (mut broken, whole) = (dial(&one), dial(&other));
        let port = one.local_addr().expect("it is bound").port();
        assert_eq!(break_all(std::process::id(), port), 1);
        assert_eq!(broken.read(&mut [0]).expect("its end"), 0);
        let (mut far, _) = one.accept().expect("it was dialled");
        assert_eq!(far.read(&mut [0]).expect("its end"), 0);
        whole.set_nonblocking(true).expect("a socket");
        assert!((&whole).read(&mut [0]).is_err(), "it is open");
    }
}
