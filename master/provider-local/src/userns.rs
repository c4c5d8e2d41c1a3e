//! A user namespace for a clone whose owner is not root. Called by the supervisor and by preflight's trial.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};

/// Becomes root in a user namespace where only this user and group exist (user_namespaces(7)).
///
/// # Errors
/// EINVAL when the process has threads; EPERM, ENOSPC or EUSERS where the system forbids it.
pub(crate) fn enter() -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}
