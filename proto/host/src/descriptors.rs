//! How many files a process may have open. Systems start services and logins with a soft limit of 1,024, for programs that
//! use select(2), and let each raise it (systemd.exec(5), "LimitNOFILE="; getrlimit(2)): a master holds a connection per agent.
//! What is run for others gets the limit back that there was.

use std::io;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Names to one of our own programs the soft limit that what it runs is to have.
pub const VARIABLE: &str = "AOT_NOFILE";

/// More than this is of no use.
const MOST: u64 = 1 << 20;

/// The soft limit before it was raised.
static BEFORE: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit as far as it goes; the result is what it is now.
///
/// # Errors
/// When the system refuses; then it is as it was.
pub fn raise() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(MOST);
    let _ = BEFORE.set(soft); // the first value is the one that there was
    let wanted = limit.maximum.unwrap_or(MOST).min(MOST);
    if wanted <= soft {
        return Ok(soft);
    }
    set(limit, wanted)?;
    Ok(wanted)
}

/// The soft limit as it is.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(MOST)
}

/// The value of [`VARIABLE`] for a program that runs something for others; `None` when nothing was raised.
pub fn before() -> Option<String> {
    BEFORE.get().map(u64::to_string)
}

/// Restores the limit that there was, as whoever started us names it. Called by programs that run something for others, before
/// they do.
///
/// # Errors
/// When the system refuses.
pub fn give_back() -> io::Result<()> {
    let named = std::env::var_os(VARIABLE);
    let named = named.and_then(|soft| soft.to_str()?.parse().ok());
    match named {
        Some(soft) => set(getrlimit(Resource::Nofile), soft),
        None => Ok(()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "by whole programs at their start, and by tests that only raise it"
)]
fn set(limit: Rlimit, soft: u64) -> io::Result<()> {
    let current = Some(limit.maximum.map_or(soft, |hard| soft.min(hard)));
    Ok(setrlimit(Resource::Nofile, Rlimit { current, ..limit })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_raised_to_the_hard_one_and_what_there_was_is_remembered() {
        let was = limit();
        let raised = raise().expect("it may be raised");
        assert_eq!(limit(), raised);
        assert!(raised >= was);
        assert_eq!(before(), Some(was.to_string()));
        assert_eq!(raise().expect("again"), raised);
        assert_eq!(before(), Some(was.to_string()));
    }
}
