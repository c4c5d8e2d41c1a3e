//! Which process has what another one wants: a port that is listened on, a file that is locked. By what the kernel shows of them;
//! of other users' processes only root sees it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderProcess {
    /// Its id.
    pub pid: u32,
    /// Its program's name; empty when it has just ended.
    pub program: String,
}

impl std::fmt::Display for HolderProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.program.as_str() {
            "" => write!(f, "pid {}", self.pid),
            program => write!(f, "{program}, pid {}", self.pid),
        }
    }
}

fn holder(pid: u32) -> HolderProcess {
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    HolderProcess {
        pid,
        program: program.trim().to_owned(),
    }
}

/// Who listens on a TCP port of this host, on whatever address.
#[must_use]
pub fn of_port(port: u16) -> Option<HolderProcess> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening(&fs::read_to_string(table).ok()?, port))?;
    let link = format!("socket:[{inode}]");
    let has = |pid: u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        let mut links = open
            .flatten()
            .filter_map(|it| fs::read_link(it.path()).ok());
        links.any(|to| to.as_os_str() == &*link)
    };
    let all = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| has(*pid)).map(holder)
}

/// The inode of the socket that listens there, in the format of proc_pid_net(5).
fn listening(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, at) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(at, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
        let inode = fields.get(9)?.parse().ok()?;
        is_it.then_some(inode)
    })
}

/// Who has a file locked as a whole (flock(2)).
#[must_use]
pub fn of_lock(file: &Path) -> Option<HolderProcess> {
    let inode = file.metadata().ok()?.ino();
    let pid = locking(&fs::read_to_string("/proc/locks").ok()?, inode)?;
    Some(holder(pid))
}

/// In the format of proc_locks(5). Inodes of several file systems may be the same: only a lock of one process is told.
fn locking(table: &str, inode: u64) -> Option<u32> {
    let held = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, of) = fields.get(5)?.rsplit_once(':')?;
        let is_it = fields.get(1) == Some(&"FLOCK") && of.parse() == Ok(inode);
        let pid: u32 = fields.get(4)?.parse().ok()?;
        is_it.then_some(pid)
    });
    let held: Vec<u32> = held.collect();
    match held[..] {
        [pid] => Some(pid),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let holder = of_port(port).expect("it is this process");
        assert_eq!(holder.pid, std::process::id());
        assert!(holder.to_string().ends_with(&format!("pid {}", holder.pid)));
        drop(listener);
        assert_eq!(of_port(port), None);
    }

    #[test]
    fn whoever_has_a_lock_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("lock");
        let file = fs::File::create(&path).expect("a file");
        assert_eq!(of_lock(&path), None);
        file.lock().expect("locks");
        assert_eq!(
            of_lock(&path).expect("it is this process").pid,
            std::process::id()
        );
    }

    #[test]
    fn tables_are_read_as_the_kernel_writes_them() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                   \x20  0: 0100007F:1D10 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 111 1 0\n\
                   \x20  1: 0100007F:1D10 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0\n";
        assert_eq!(listening(tcp, 7440), Some(222));
        assert_eq!(listening(tcp, 7441), None);
        let locks = "1: FLOCK  ADVISORY  WRITE 77 00:21:500 0 EOF\n2: POSIX  ADVISORY  WRITE 78 00:21:501 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 79 00:21:502 0 EOF\n4: FLOCK  ADVISORY  WRITE 80 00:22:502 0 EOF\n";
        assert_eq!(locking(locks, 500), Some(77));
        assert_eq!(locking(locks, 501), None, "is of another kind");
        assert_eq!(locking(locks, 502), None, "may be either");
    }
}
