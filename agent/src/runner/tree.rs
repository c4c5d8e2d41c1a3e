//! Which processes belong to a run, from /proc (proc_pid_stat(5)). Used by the shim to stop its tree and by the runner to
//! end what a killed shim left behind.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;

use rustix::process::{Pid, Signal, kill_process};

/// Clock ticks per second in /proc, fixed by the kernel's ABI (USER_HZ).
const TICKS: u64 = 100;

/// The fields of /proc/PID/stat that are of use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    /// One letter; Z = ended, not yet waited for.
    pub state: u8,
    pub ppid: i32,
    /// Session: the pid of its leader.
    pub session: i32,
    /// User and system time, its waited-for children's too, in ms.
    pub cpu_ms: u64,
}

/// Reads one line of /proc/PID/stat. The name may hold spaces and parentheses.
fn parse(line: &str) -> Option<Stat> {
    let (pid, rest) = line.split_once(" (")?;
    let (_, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<i64>().ok();
    let ticks: i64 = (11..15).map(|n| number(n).unwrap_or(0)).sum();
    Some(Stat {
        pid: pid.parse().ok()?,
        state: *fields.first()?.as_bytes().first()?,
        ppid: number(1)?.try_into().ok()?,
        session: number(3)?.try_into().ok()?,
        cpu_ms: u64::try_from(ticks).ok()? * 1000 / TICKS,
    })
}

/// The process `pid`, when there is one.
pub fn stat(pid: i32) -> Option<Stat> {
    // One read(2) gives the whole line, which has some fifty numbers.
    let mut bytes = [0; 2048];
    let mut file = File::open(format!("/proc/{pid}/stat")).ok()?;
    let len = file.read(&mut bytes).ok()?;
    parse(&String::from_utf8_lossy(&bytes[..len]))
}

fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .collect()
}

/// Everything below `root`, not itself, among `processes`.
fn below(root: i32, processes: &[Stat]) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for process in processes {
        children.entry(process.ppid).or_default().push(process.pid);
    }
    let (mut found, mut seen, mut open) = (Vec::new(), HashSet::new(), vec![root]);
    while let Some(parent) = open.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            if seen.insert(child) {
                found.push(child);
                open.push(child);
            }
        }
    }
    found
}

/// Everything below `root`, not itself, that lives.
pub(crate) fn all_below(root: i32) -> Vec<i32> {
    let processes: Vec<Stat> = all()
        .into_iter()
        .filter(|stat| stat.state != b'Z')
        .collect();
    below(root, &processes)
}

/// Sends `signal` to everything below this process, which is a subreaper: nothing escapes by forking twice. Says who got
/// it; what has ended and was not waited for is not among them.
pub fn signal_below(root: i32, signal: Signal) -> Vec<i32> {
    let processes = all();
    let found: HashSet<i32> = below(root, &processes).into_iter().collect();
    let live = processes
        .iter()
        .filter(|stat| found.contains(&stat.pid) && stat.state != b'Z');
    let live: Vec<i32> = live.map(|stat| stat.pid).collect();
    signal_each(&live, signal);
    live
}

/// Kills what is left of the session `leader` of a shim that is dead. A process with that pid is another one: the number
/// of a session is not given out again while a member lives (credentials(7), fork(2)).
pub(crate) fn kill_session(leader: i32) -> usize {
    if stat(leader).is_some_and(|stat| stat.state != b'Z') {
        return 0;
    }
    let left: Vec<i32> = all()
        .iter()
        .filter(|stat| stat.session == leader && stat.pid != leader)
        .map(|stat| stat.pid)
        .collect();
    signal_each(&left, Signal::KILL);
    left.len()
}

/// Sends `signal` to every process of the session `leader`, itself too. To be called only while its leader was not waited
/// for: until then that number is nobody else's.
pub(crate) fn signal_session(leader: i32, signal: Signal) {
    signal_each(&members(leader, &all()), signal);
}

/// Whether a process of the session `leader` lives. As above.
pub(crate) fn session_lives(leader: i32) -> bool {
    !members(leader, &all()).is_empty()
}

/// Those of `processes` that live in the session `leader`; the leader also before it has made it one.
fn members(leader: i32, processes: &[Stat]) -> Vec<i32> {
    let lives = |stat: &&Stat| {
        !matches!(stat.state, b'Z' | b'X') && (stat.session == leader || stat.pid == leader)
    };
    processes
        .iter()
        .filter(lives)
        .map(|stat| stat.pid)
        .collect()
}

fn signal_each(pids: &[i32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // Gone meanwhile is as good.
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_read() {
        let line = "42 (a) b (c) S 7 42 40 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 9999 1 2";
        assert_eq!(
            parse(line),
            Some(Stat {
                pid: 42,
                state: b'S',
                ppid: 7,
                session: 40,
                cpu_ms: 1000
            })
        );
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn below_is_the_whole_tree_and_nothing_else() {
        let process = |pid, ppid| Stat {
            pid,
            state: b'S',
            ppid,
            session: 1,
            cpu_ms: 0,
        };
        let processes = [
            process(1, 0),
            process(5, 1),
            process(6, 5),
            process(7, 6),
            process(8, 1),
            process(9, 9),
        ];
        let mut found = below(5, &processes);
        found.sort_unstable();
        assert_eq!(found, [6, 7]);
        assert!(below(99, &processes).is_empty());
    }

    #[test]
    fn a_session_has_those_who_live_and_its_leader_from_the_start() {
        let process = |pid, state, session| Stat {
            pid,
            state,
            ppid: 1,
            session,
            cpu_ms: 0,
        };
        let processes = [
            process(5, b'S', 2),
            process(6, b'R', 5),
            process(7, b'Z', 5),
            process(8, b'S', 8),
        ];
        assert_eq!(members(5, &processes), [5, 6]);
        assert!(members(7, &processes).is_empty());
    }

    #[test]
    fn a_live_leader_is_not_ours() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(stat(me).is_some());
        assert_eq!(kill_session(me), 0);
    }
}
