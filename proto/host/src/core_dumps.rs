//! Whether a process leaves its memory behind when it crashes (core(5)): one of ours that holds keys or secrets must not. What is run
//! for others gets the limit back that there was.
//!
//! The soft limit alone is lowered, so that it can be put back without root. It becomes 1 and not 0: that is too little for a file
//! as well, and where `core_pattern` names a program, as systemd-coredump, the kernel hands that everything whatever the limit is,
//! but for this one (`do_coredump` in fs/coredump.c, where it keeps such a program from dumping itself).

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Names to one of our own programs the soft limit that what it runs is to have: bytes, or `unlimited`.
pub const VARIABLE: &str = "AOT_CORE";

/// Neither a file nor a program gets anything.
const NONE: Option<u64> = Some(1);

/// What there is instead of a number.
const UNLIMITED: &str = "unlimited";

/// The soft limit before it was lowered.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// From here on this process leaves nothing behind.
///
/// # Errors
/// When the system refuses; then it is as it was.
pub fn forbid() -> io::Result<()> {
    // The first value is the one that there was.
    let _ = BEFORE.set(getrlimit(Resource::Core).current);
    set(NONE)
}

/// The value of [`VARIABLE`] for a program that runs something for others; `None` when nothing was lowered.
pub fn before() -> Option<String> {
    let soft = BEFORE.get()?;
    Some(soft.map_or_else(|| UNLIMITED.to_owned(), |soft| soft.to_string()))
}

/// Restores the limit that there was, as whoever started us names it. Called by programs that run something for others and hold
/// nothing themselves, before they do.
///
/// # Errors
/// When the system refuses.
pub fn give_back() -> io::Result<()> {
    match named() {
        Some(soft) => set(soft),
        None => Ok(()),
    }
}

/// Starts something for others with the limit that there was, as whoever started us names it. Nothing else may be under way in this process
/// meanwhile.
pub fn given_back<T>(spawn: impl FnOnce() -> T) -> T {
    let Some(soft) = named() else {
        return spawn();
    };
    // Where it can't be put back, what is started has ours: and is run all the same.
    let _ = set(soft);
    let spawned = spawn();
    let _ = set(NONE);
    spawned
}

/// What [`VARIABLE`] says; `None` where it says nothing.
fn named() -> Option<Option<u64>> {
    match std::env::var_os(VARIABLE)?.to_str()? {
        UNLIMITED => Some(None),
        soft => soft.parse().ok().map(Some),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "by whole programs at their start, and by those of one thread around a start"
)]
fn set(soft: Option<u64>) -> io::Result<()> {
    let limit = getrlimit(Resource::Core);
    let current = match (soft, limit.maximum) {
        (Some(soft), Some(hard)) => Some(soft.min(hard)),
        (None, hard) => hard,
        (soft, None) => soft,
    };
    Ok(setrlimit(Resource::Core, Rlimit { current, ..limit })?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    /// Set for the process that plays one of ours, to what it plays.
    const PLAYED: &str = "CORE_DUMPS_PLAYED";

    /// The soft limit of a child.
    fn of_a_child() -> String {
        let child = Command::new("sh").args(["-c", "ulimit -S -c"]).output();
        let said = String::from_utf8(child.expect("it runs").stdout).expect("text");
        said.trim().to_owned()
    }

    /// This test once more, by itself, with this soft limit (as of sh(1), in blocks) and this variable.
    fn play(part: &str, limit: &str, variable: Option<&str>) -> String {
        let script = format!(
            "ulimit -S -c {limit} && exec \"$0\" --exact core_dumps::tests::ours_leave_nothing_and_what_is_run_has_the_limit_that_there_was --nocapture"
        );
        let me = std::env::current_exe().expect("this program");
        let mut played = Command::new("sh");
        played.args(["-c", &script]).arg(me).env(PLAYED, part);
        match variable {
            Some(value) => played.env(VARIABLE, value),
            None => played.env_remove(VARIABLE),
        };
        let said = played.output().expect("it runs").stdout;
        String::from_utf8_lossy(&said).into_owned()
    }

    #[test]
    fn ours_leave_nothing_and_what_is_run_has_the_limit_that_there_was() {
        let own = || getrlimit(Resource::Core).current;
        match std::env::var(PLAYED).as_deref() {
            Ok("service") => {
                forbid().expect("lowered");
                let once = before();
                forbid().expect("again");
                // What it starts without more is like itself.
                let mut crashing = Command::new("sh");
                let crashed = crashing
                    .args(["-c", "kill -SEGV $$"])
                    .status()
                    .expect("it runs");
                assert_eq!(crashed.signal(), Some(11));
                let (again, dumped) = (before(), crashed.core_dumped());
                return println!(
                    "own {:?}, before {once:?} {again:?}, dumped {dumped}",
                    own()
                );
            }
            Ok("shim") => {
                let given = given_back(of_a_child);
                return println!("given {given}, own {:?}", own());
            }
            Ok("terminal") => {
                give_back().expect("given back");
                return println!("given {}", of_a_child());
            }
            _ => {}
        }
        let hard = getrlimit(Resource::Core).maximum;
        if hard.is_some_and(|hard| hard < 1 << 20) {
            eprintln!("skipped: this system allows no core dump");
            return;
        }
        // A block of dash's has 512 bytes, of bash's 1024: the number itself is not of interest.
        let said = play("service", "0", None);
        assert!(
            said.contains("own Some(1), before Some(\"0\") Some(\"0\"), dumped false"),
            "{said}"
        );
        if hard.is_none() {
            let said = play("service", "unlimited", None);
            let want = "own Some(1), before Some(\"unlimited\") Some(\"unlimited\"), dumped false";
            assert!(said.contains(want), "{said}");
            for part in ["shim", "terminal"] {
                let said = play(part, "0", Some("unlimited"));
                assert!(said.contains("given unlimited"), "{said}");
                let said = play(part, "unlimited", Some("0"));
                assert!(said.contains("given 0"), "{said}");
            }
        }
        let said = play("shim", "unlimited", Some("1048576"));
        assert!(
            !said.contains("given unlimited") && said.contains("own Some(1)"),
            "{said}"
        );
        let said = play("terminal", "0", None);
        assert!(said.contains("given 0"), "nobody has said anything: {said}");
    }
}
