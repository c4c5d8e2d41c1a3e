//! Signals that whoever started the agent had ignored, as nohup(1) ignores SIGHUP: execve(2) passes that on, so all that runs on
//! this machine would ignore them too, and a terminal's shell would not hang up. One that has a handler is back at its default
//! after execve(2): so each gets one, which does nothing.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{FORBIDDEN, SIGPIPE};
use signal_hook::flag;

/// Those that may not be handled, or that nobody ignores for us: std has SIGPIPE ignored, and puts it back for its children.
fn is_left(signal: i32) -> bool {
    signal == SIGPIPE || FORBIDDEN.contains(&signal)
}

/// The standard signals that a process ignores, by its status (proc_pid_status(5), `SigIgn`); none when it does not say.
fn ignored(status: &str) -> Vec<i32> {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bits = mask.unwrap_or_default();
    (1..32)
        .filter(|signal| bits & 1 << (signal - 1) != 0 && !is_left(*signal))
        .collect()
}

/// From here on no program that is started inherits an ignored signal. This process is not ended by them either.
///
/// # Errors
/// As sigaction(2), and when there is no /proc.
pub(crate) fn end_inheritance() -> io::Result<()> {
    for signal in ignored(&fs::read_to_string("/proc/self/status")?) {
        flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set for the process that plays an agent.
    const PLAYED: &str = "IGNORED_SIGNALS_PLAYED";

    fn status_of_a_child() -> String {
        let child = Command::new("cat").arg("/proc/self/status").output();
        String::from_utf8(child.expect("cat runs").stdout).expect("text")
    }

    #[test]
    fn what_is_ignored_is_read_from_a_status() {
        let status = |mask| format!("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t{mask}\n");
        assert_eq!(ignored(&status("0000000000000001")), [1]);
        // HUP and USR1, and those that are left: SEGV, KILL, PIPE, STOP, and one of the realtime signals.
        assert_eq!(ignored(&status("0000000200041701")), [1, 10]);
        for none in [&status("0000000000000000"), &status("none"), "Name:\tx\n"] {
            assert!(ignored(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn no_program_inherits_an_ignored_signal() {
        if std::env::var_os(PLAYED).is_some() {
            let before = ignored(&status_of_a_child());
            end_inheritance().expect("it may handle them");
            let both = before.contains(&1) && before.contains(&10); // whoever runs this test may have ignored more
            println!("ignored: {both} {:?}", ignored(&status_of_a_child()));
            return;
        }
        let script = "trap '' HUP USR1; exec \"$0\" --exact ignored_signals::tests::no_program_inherits_an_ignored_signal --nocapture";
        let me = std::env::current_exe().expect("this program");
        let mut played = Command::new("sh");
        played.args(["-c", script]).arg(me).env(PLAYED, "1");
        let said = played.output().expect("it runs").stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("ignored: true []"), "{said}");
    }
}
